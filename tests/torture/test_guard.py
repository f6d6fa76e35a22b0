"""The guard is not blind: each thing a reader may not do is noticed, and what it may do is let through."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnctl.errors import DataError
from tests.torture.guard import guard
from tests.torture.tally import Mismatch, Tally


def refuse(path: Path, text: str = "damaged") -> None:
    raise DataError(f"{path}: {text}")


class RawError(DataError):
    """One that does not see to its line, as errors of before did not."""

    __str__ = Exception.__str__


def refuse_raw(path: Path, text: str) -> None:
    raise RawError(f"{path}: {text}")


def refuse_after_much(path: Path) -> None:
    np.ones(2**24)
    refuse(path)


def refuse_for_memory(path: Path) -> None:
    try:
        bytearray(2**40)
    except MemoryError:
        raise DataError(f"{path}: damaged") from None


def count_for_ever(path: Path) -> None:
    try:
        while True:
            pass
    except Exception:
        refuse(path)


def hide_what_it_did(path: Path) -> None:
    try:
        eval("1 + 1")
    except BaseException:
        refuse(path)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda path: 1 // 0, "ZeroDivisionError escaped"),
        (lambda path: refuse(Path("another")), "without the file's name"),
        (lambda path: refuse_raw(path, "a\nb"), "more than one plain line"),
        (lambda path: refuse_raw(path, "\x1b[2J"), "more than one plain line"),
        (lambda path: refuse(path, "x" * 2000), "refused in 2"),
        (refuse_after_much, "and 128 MiB: "),
        (lambda path: np.ones(2**24).sum(), "and 128 MiB: accepted"),
        (refuse_for_memory, "asked for more memory than it may"),
        (lambda path: bytearray(2**40), "asked for more memory than it may"),
        (count_for_ever, "took more than 1 s"),
        (hide_what_it_did, "did what it may not: compile"),
        (lambda path: exec(compile("1", "x", "exec")), "did what it may not: compile"),
        (lambda path: __import__("this"), "did what it may not: import"),
        (lambda path: os.system("true"), "did what it may not: os.system"),
        (lambda path: subprocess.run(["true"], check=True), "did what it may not: subprocess.Popen"),
        (lambda path: socket.socket(), "did what it may not: socket."),
        (lambda path: Path("/etc/passwd").read_bytes(), "did what it may not: open"),
        (lambda path: (path / ".." / "x").read_bytes(), "did what it may not: open"),
        (lambda path: (path / "made").write_bytes(b""), "did what it may not: open"),
        (lambda path: os.open(path / "made", os.O_CREAT), "did what it may not: open"),
        (lambda path: (path / "made").mkdir(), "did what it may not: os.mkdir"),
        (lambda path: (path / "there").unlink(), "did what it may not: os.remove"),
    ],
)
def test_what_breaks_the_promise_is_noticed(
    tmp_path: Path, call: Callable[[Path], object], said: str
) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(Mismatch, match=said):
        guard(lambda: call(tmp_path), tmp_path, Tally())
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_reading_and_refusing_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    tally = Tally()
    assert guard((tmp_path / "there").read_bytes, tmp_path, tally) == (b"x", None)
    line = f"{tmp_path}/there: damaged"
    assert guard(lambda: refuse(tmp_path / "there"), tmp_path, tally) == (None, line)
    assert 0 < tally.worst["time"] < 1


def test_nothing_is_forbidden_afterwards(tmp_path: Path) -> None:
    guard(list, tmp_path, Tally())
    assert eval("1 + 1") == 2
    (tmp_path / "made").write_bytes(b"")
