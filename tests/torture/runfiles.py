"""S1 for what lies in a run directory: whatever has become of a file there, every command ends.

One file of a real run is damaged, or is no file any more. Everything that reads runs gives a value or one
line, and the run beside it is listed as ever. Commands that train, score or remove are tried in some of the
cases; there it is the exit code and what is printed that counts, and that they come to an end.
"""

import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache, partial
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cnnctl.cli.main import main
from cnnctl.train import api
from cnnctl.train.data_facts import read_data_facts
from cnnctl.train.run_directory import RunDirectory
from cnnctl.train.runs import (
    find_differences,
    follow_metrics,
    hash_config,
    list_files,
    list_runs,
    read_environment,
    summarize_run,
)
from tests.faults.damage import create_remains
from tests.torture.guard import guard, make_ground
from tests.torture.mutations import draw_stream, mutate
from tests.torture.tally import Mismatch, Tally

FILES = (
    *("status.json", "metrics.jsonl", "metrics.csv", "timing.json", "timing.csv", "env.json", "data.json"),
    *("eval/last.json", "resolved.yaml", "config.yaml", "log.txt", "origin.json", "lock"),
)
HANG_S = 30
LARGE_BYTES = 100 * 2**20
SHOWING_EVERY, ACTING_EVERY = 4, 100
MOST_CHARACTERS = 2000
"""Of an error line; twice as many as a guarded call has, as it may quote two paths."""
TOKENS = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\n", b"\r", b"\0", b"\xff", b"\xed\xa0\x80"),
    *(rb'"\ud800"', rb"\u0000", b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"2" * 30),
    *(b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\x1b[2J", b'"type": "step"', b"finished", b"running"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x", "\ud800"),
    *("\x1b[2J", "9" * 5000, "a\nb", [], [[]], [1], {}, {"loss": 1}, {"loss": "x", "accuracy": None}),
    [None] * 1000,
)


class Hang(BaseException):
    """Nothing came of it."""


class Folders(NamedTuple):
    """Where runs are damaged.

    Attributes:
        runs: the folder of runs: one nobody touches, and one that is damaged.
        models: runs of two kinds, one finished and one that died, to be copied.
    """

    runs: Path
    models: tuple[Path, Path]

    @property
    def whole(self) -> Path:
        return self.runs / "20260101-000000-whole-aaaa"

    @property
    def damaged(self) -> Path:
        return self.runs / "20260102-000000-damaged-bbbb"


def check_run(seed: int, number: int, tally: Tally) -> None:
    """One damaged file, all that reads it, and now and then a command."""
    rng = draw_stream(seed, number)
    folders = create_folders()
    finished = rng.random() < 0.5
    model = folders.models[0 if finished else 1]
    renew(folders, model)
    name = rng.choice([name for name in FILES if (model / name).exists()])
    kind = rng.choice(("bytes", "bytes", "values", "form"))
    with ending(f"{name}: {kind}"):
        if kind == "form":
            form = rng.choice(list(FORMS))
            FORMS[form](folders.damaged / name, rng)
            kind = f"form {form}"
        else:
            whole = (model / name).read_bytes()
            change = change_values if kind == "values" else change_bytes
            (folders.damaged / name).write_bytes(change(rng, name, whole))
        try:
            check_readers(folders, tally)
            if number % SHOWING_EVERY == 0:
                check_command(folders, rng.choice(SHOWING), tally)
            if number % ACTING_EVERY == 0:
                acting = [command for command in ACTING if name != "resolved.yaml" or "--fork" not in command]
                check_command(folders, rng.choice(acting), tally)
        finally:
            remove(folders.damaged / name)
    tally.counts[kind] += 1
    tally.counts["cases"] += 1


def check_readers(folders: Folders, tally: Tally) -> None:
    """What reads a run and changes nothing, one after the other."""
    for name, read in READERS.items():
        outcome = guard(partial(read, folders.damaged), make_ground("run"), tally)
        tally.counts[f"{name} {'refused' if outcome.refusal else 'read'}"] += 1
        if name == "metrics" and outcome.refusal is None:
            check_entries(outcome.value, (folders.damaged / "metrics.jsonl").read_bytes())
    found, problems = guard(lambda: list_runs(folders.runs), make_ground("run"), tally).value
    states = {run.path: run.state for run in found}
    told = [line for line in problems if str(folders.damaged) in line]
    is_listed = folders.damaged in states
    if states.get(folders.whole) != "finished" or is_listed == bool(told) or len(problems) > 1:
        raise Mismatch(f"of two runs, {states} are listed and {problems} told")


def check_entries(entries: list[dict[str, Any]], content: bytes) -> None:
    """They are what the lines say."""
    lines = content.split(b"\n")[:-1]
    if len(lines) != len(entries):
        raise Mismatch(f"{len(entries)} entries were read from {len(lines)} lines")
    for entry, line in zip(entries, lines, strict=True):
        said = json.loads(line.decode())
        if entry != said or not _is_finite(entry):
            raise Mismatch(f"{entry} was read from {line!r}")


def _is_finite(entry: dict[str, Any]) -> bool:
    """Whether its figures can be shown."""
    figures = [part for part in (entry, entry.get("train"), entry.get("validation")) if part]
    return all(isfinite(part[key]) for part in figures for key in ("loss", "accuracy") if key in part)


def check_command(folders: Folders, command: tuple[str, ...], tally: Tally) -> None:
    """It says what it found, or in one line why not; nobody sees a traceback."""
    places = {"RUN": str(folders.damaged), "WHOLE": str(folders.whole), "RUNS": str(folders.runs)}
    places |= {"IMAGE": str(folders.runs.parent / "image.png"), "FORKS": str(folders.runs.parent / "forks")}
    arguments = [places.get(word, word) for word in command]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    said = err.getvalue()
    errors = [line for line in said.splitlines() if line.startswith("cnnctl: error: ")]
    foul = "internal error" in said or "Traceback" in said or code not in {0, 1, 2}
    if foul or len(errors) != (code != 0) or max(map(len, said.splitlines()), default=0) > MOST_CHARACTERS:
        raise Mismatch(f"{' '.join(command)}: exit code {code}, {said[-3000:]}")
    if "--json" in command and code == 0:
        for document in out.getvalue().splitlines() if "tail" in command else [out.getvalue()]:
            json.loads(document, parse_constant=_refuse_constant)
    shutil.rmtree(folders.runs.parent / "forks", ignore_errors=True)
    tally.counts[f"cnnctl {command[0]} {'refused' if code else 'done'}"] += 1


def _refuse_constant(word: str) -> None:
    raise Mismatch(f"{word} is no JSON")


READERS: dict[str, Callable[[Path], object]] = {
    "run": api.Run.read,
    "metrics": lambda path: api.Run(path, "finished", 1, 1.0).metrics(),
    "summary": summarize_run,
    "environment": read_environment,
    "files": list_files,
    "hash": hash_config,
    "facts": lambda path: read_data_facts(RunDirectory(path)),
    "tail": lambda path: list(follow_metrics(path, 10)),
    "differences": lambda path: find_differences([path, path.parent / "20260101-000000-whole-aaaa"]),
}
SHOWING = (
    ("runs", "list", "--runs-dir", "RUNS"),
    ("runs", "list", "--json", "--runs-dir", "RUNS"),
    ("runs", "show", "RUN"),
    ("runs", "show", "RUN", "--json"),
    ("runs", "compare", "RUN", "WHOLE"),
    ("runs", "compare", "WHOLE", "RUN", "--json"),
    ("runs", "tail", "RUN"),
    ("runs", "tail", "RUN", "--json", "-n", "3"),
    ("runs", "show", "latest", "--runs-dir", "RUNS"),
)
ACTING = (
    ("train", "--resume", "RUN"),
    ("train", "--resume", "RUN", "--fork", "--runs-dir", "FORKS", "-o", "solver.epochs=6"),
    ("eval", "RUN"),
    ("eval", "RUN", "--json"),
    ("predict", "RUN", "IMAGE"),
    ("predict", "RUN", "IMAGE", "--json"),
    ("runs", "rm", "RUN", "--yes", "--runs-dir", "RUNS"),
)


def change_bytes(rng: Random, name: str, whole: bytes) -> bytes:
    return mutate(rng, whole, [whole], TOKENS)


def change_values(rng: Random, name: str, whole: bytes) -> bytes:
    """Fields of other types and sizes, too many, or gone; where there are no fields, bytes."""
    if name.endswith(".json"):
        return _dump(_change_document(rng, json.loads(whole)))
    if name == "metrics.jsonl":
        lines = whole.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = _dump(_change_document(rng, json.loads(lines[place])))
        return b"\n".join(lines) + rng.choice((b"\n", b""))
    if name.endswith(".csv"):
        rows = [line.split(b",") for line in whole.splitlines()]
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice(TOKENS)
        return b"\n".join(map(b",".join, rows)) + b"\n"
    return change_bytes(rng, name, whole)


def _change_document(rng: Random, document: Any) -> Any:
    part = document
    while isinstance(part, dict | list) and part:
        key = rng.choice([*part]) if isinstance(part, dict) else rng.randrange(len(part))
        if not part[key] or not isinstance(part[key], dict | list) or rng.random() < 0.4:
            if rng.random() < 0.2:
                del part[key]
            else:
                part[key] = rng.choice(VALUES)
            break
        part = part[key]
    return document if rng.random() < 0.95 else rng.choice(VALUES)


def _dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _write_large(path: Path, _: Random) -> None:
    with path.open("r+b") as file:  # the end is a hole, which takes no room on disk
        file.truncate(LARGE_BYTES)


def _write_many(path: Path, _: Random) -> None:
    """Just what may be read of most files, of what takes most room in memory."""
    path.write_bytes(b"[" + b'{"a":0},' * (2**17 - 1) + b"0]")


def _nest(path: Path, rng: Random) -> None:
    word = rng.choice((b"[", b'{"a":', b"- ", b'{"train":'))
    path.write_bytes(word * rng.choice((100, 900, 3000, 100_000)) + rng.choice((b"", b"\n")))


def _replace(make: Callable[[Path], object]) -> Callable[[Path, Random], None]:
    def replace(path: Path, _: Random) -> None:
        path.unlink()
        make(path)

    return replace


FORMS: dict[str, Callable[[Path, Random], object]] = {
    "gone": _replace(lambda path: None),
    "empty": _replace(Path.touch),
    "folder": _replace(Path.mkdir),
    "pipe": _replace(os.mkfifo),
    "loop": _replace(lambda path: path.symlink_to(path.name)),
    "link to nothing": _replace(lambda path: path.symlink_to("nothing")),
    "link to a folder": _replace(lambda path: path.symlink_to("..")),
    "device": _replace(lambda path: path.symlink_to("/dev/zero")),
    "large": _write_large,
    "many": _write_many,
    "nested": _nest,
    "noise": lambda path, rng: path.write_bytes(rng.randbytes(rng.choice((1, 100, 70_000)))),
    "unreadable": lambda path, _: path.chmod(0),
}


@contextmanager
def ending(what: str) -> Iterator[None]:
    """Raises Mismatch if the block does not come to an end."""

    def give_up(*_: object) -> None:
        raise Hang

    kept = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANG_S)
    try:
        yield
    except Hang:
        raise Mismatch(f"{what}: no end after {HANG_S} s") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, kept)


@cache
def create_folders() -> Folders:
    """Trains the runs and uses everything once: what is imported late is there before it is watched."""
    remains = create_remains()
    ground = make_ground("run")
    os.environ["CNNCTL_DEBUG"] = "1"
    finished = api.train(resume=remains.path, fork=True, runs_dir=ground / "models")
    api.evaluate(finished)
    folders = Folders(ground / "runs", (finished.path, remains.path))
    folders.runs.mkdir()
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(ground / "image.png")
    for model in folders.models:
        for command in (*SHOWING, *ACTING):
            renew(folders, model)
            check_command(folders, command, Tally())
        renew(folders, model)
        check_readers(folders, Tally())
    return folders


def renew(folders: Folders, model: Path) -> None:
    """Both runs as they were. Files that nobody changed since are left as they are."""
    for path, source in ((folders.whole, folders.models[0]), (folders.damaged, model)):
        marks = {file.relative_to(path): _mark(file) for file in path.rglob("*")} if path.exists() else {}
        wanted = {file.relative_to(source): _mark(file) for file in source.rglob("*")}
        if marks != wanted:
            remove(path)
            shutil.copytree(source, path)


def _mark(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, which a copy of it shares."""
    facts = path.lstat()
    return None if path.is_dir() else (facts.st_size, facts.st_mtime_ns)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
