"""A file is the old one or the new one, and an appended file knows its length."""

import errno
import os
from pathlib import Path

import pytest

from cnnctl.errors import RunError
from cnnctl.train.atomic import AppendedFile, remove_leftovers, write_atomically


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_replaces_the_content_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_keeps_what_was_there_as_the_previous_one(tmp_path):
    path, previous = tmp_path / "file", tmp_path / "file.previous"
    for content in (b"1", b"2", b"3"):
        write_atomically(path, content, previous=previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"3", b"2")


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_refusing_disk_is_one_line_and_changes_nothing(tmp_path, monkeypatch, call, number):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        owner = Path if call == "open" else os
        patch.setattr(owner, call, fail_with(number))
        with pytest.raises(RunError) as caught:
            write_atomically(path, b"new")
    assert str(caught.value) == f"{path}: {os.strerror(number)}"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_gives_back_other_bytes_is_noticed_before_the_old_ones_go(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: b"nev")
        with pytest.raises(RunError, match="other bytes than were written"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_removes_what_killed_writers_left(tmp_path):
    for name in (".last.safetensors.123.tmp", "last.safetensors", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "last.safetensors"]


def test_an_appended_file_goes_on_from_a_known_length(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nhalf a li")
    file = AppendedFile(path, 8)
    file.append("three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert file.sync() == 14
    file.close()


def test_an_appended_file_that_lost_bytes_is_refused(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    with pytest.raises(RunError, match="4 bytes where 8"):
        AppendedFile(path, 8)
    assert path.read_bytes() == b"one\n"


def test_a_full_disk_at_an_append_is_one_line(tmp_path, monkeypatch):
    file = AppendedFile(tmp_path / "lines", 0)
    with Path("/dev/full").open("ab") as full:
        monkeypatch.setattr(file, "_file", full)
        with pytest.raises(RunError, match=r"lines: No space left on device$"):
            file.append("text\n")
        file.close()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "lines"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/full")
        case _:
            path.mkdir()
    with pytest.raises(RunError, match=r"lines: (not a regular file|Is a directory)"):
        AppendedFile(path, 0)
