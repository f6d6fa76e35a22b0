"""Run directories: whole or not there, never two under one name, one trainer at a time."""

import errno
import fcntl
import json
import os
import re
import secrets
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from cnnctl.errors import RunError
from cnnctl.train import run_directory as module
from cnnctl.train.run_directory import RunDirectory, find_run

CIFAR = "20260102-000000-cifar-cccc"
FILES = {"config.yaml": b"a: 1\n", "checkpoints/last.safetensors": b"weights"}


def create(runs_dir, name="tiny"):
    with RunDirectory.create(runs_dir, name, FILES) as run:
        return run.path


def test_the_name_tells_time_and_name(tmp_path):
    assert re.fullmatch(r"\d{8}-\d{6}-tiny-[0-9a-f]{4}", create(tmp_path / "runs").name)


def test_all_of_it_is_there_at_once(tmp_path):
    with RunDirectory.create(tmp_path, "tiny", FILES) as run:
        found = {str(path.relative_to(run.path)) for path in run.path.rglob("*")}
        assert found == {*FILES, "checkpoints", "eval", "status.json", "log.txt", "lock"}
        assert (run.path / "checkpoints/last.safetensors").read_bytes() == b"weights"
        status = run.read_status()
        assert (status.state, status.step, status.epoch, status.pid) == ("running", 0, 0, os.getpid())


class TestReading:
    """Whatever lies where a file should, it ends."""

    def test_one_too_large_is_refused(self, tmp_path):
        (tmp_path / "status.json").write_bytes(b" " * (module.MAX_BYTES + 1))
        with pytest.raises(RunError, match=r"status\.json: damaged: more than the 1,048,576 bytes"):
            RunDirectory(tmp_path).read_status()

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (b"", "damaged: Expecting value"),
            (b"[" * 100_000, "damaged: nested too deeply"),
            (b"\xff", "damaged: Expecting value"),
            (b"{}", "status.json: state: Field required"),
            (b'{"a\\nb": 1}', "status.json: state: Field required"),
            (b"[]", "status.json: Input should be"),
        ],
    )
    def test_a_damaged_status_is_one_line(self, tmp_path, content, line):
        (tmp_path / "status.json").write_bytes(content)
        with pytest.raises(RunError, match=re.escape(line)) as caught:
            RunDirectory(tmp_path).read_status()
        assert str(caught.value).isprintable()

    def test_no_pipe_is_waited_for(self, tmp_path):
        run = RunDirectory(tmp_path)
        for name in ("status.json", "lock", "log.txt"):
            os.mkfifo(tmp_path / name)
        for read in (run.read_status, run.is_locked, lambda: run.log("x"), lambda: [*run.read_lines("lock")]):
            with pytest.raises(RunError, match="not a regular file"):
                read()

    def test_lines_without_end_come_in_pieces(self, tmp_path):
        (tmp_path / "lines").write_bytes(b"a\n" + b"b" * 2 * module.MAX_LINE_BYTES + b"\nc")
        sizes = [len(line) for line in RunDirectory(tmp_path).read_lines("lines")]
        assert sizes == [2, module.MAX_LINE_BYTES, module.MAX_LINE_BYTES, 1, 1]
        assert list(RunDirectory(tmp_path).read_lines("lines", 10**9)) == []


def test_a_name_that_is_taken_is_left_alone(tmp_path, monkeypatch):
    entropy = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(entropy))
    monkeypatch.setattr(module, "read_clock", lambda: datetime(2026, 1, 31, tzinfo=UTC))
    assert [create(tmp_path).name for _ in range(2)] == [
        "20260131-000000-tiny-aaaa",
        "20260131-000000-tiny-bbbb",
    ]


def test_gives_up_when_every_name_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda size: "aaaa")
    monkeypatch.setattr(module, "read_clock", lambda: datetime(2026, 1, 31, tzinfo=UTC))
    create(tmp_path)
    with pytest.raises(RunError, match="names for a new run were all taken"):
        create(tmp_path)


def test_runs_that_start_together_never_share_a_directory(tmp_path):
    script = """if True:
        import sys
        from pathlib import Path
        from cnnctl.train.run_directory import RunDirectory
        for _ in range(8):
            with RunDirectory.create(Path(sys.argv[1]), "tiny", {"config.yaml": b""}):
                pass
    """
    starters = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(4)]
    assert [starter.wait(timeout=60) for starter in starters] == [0] * 4
    states = [RunDirectory(path).read_status().state for path in tmp_path.iterdir()]
    assert states == ["running"] * 32


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_disk_that_fills_up_while_it_is_made_leaves_nothing(tmp_path, monkeypatch, nth):
    calls = []
    fsync = os.fsync

    def fail_at_nth(descriptor):
        calls.append(descriptor)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_at_nth)
    with pytest.raises(RunError, match="No space left on device"):
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_directory_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match=re.escape(f"{tmp_path / 'runs'}: File exists")):
        create(tmp_path / "runs")


class TestLock:
    def test_the_second_gets_one_line(self, tmp_path):
        path = create(tmp_path)
        with RunDirectory(path).locked(), pytest.raises(RunError) as caught, RunDirectory(path).locked():
            pytest.fail("two hold the lock")
        assert str(caught.value) == f"{path}: process {os.getpid()} is training in it; wait or stop it"

    def test_it_is_held_from_the_start(self, tmp_path):
        create_run = RunDirectory.create(tmp_path, "tiny", FILES)
        with create_run as run, pytest.raises(RunError), RunDirectory(run.path).locked():
            pytest.fail("two hold the lock")

    def test_whether_it_is_held(self, tmp_path):
        run = RunDirectory(create(tmp_path))
        assert not run.is_locked()
        with run.locked():
            assert run.is_locked()
        assert not run.is_locked()
        (run.path / "lock").unlink()
        assert not run.is_locked()

    def test_one_who_only_looks_keeps_nobody_out(self, tmp_path, monkeypatch):
        path = create(tmp_path)
        with (path / "lock").open("rb") as looking:
            fcntl.flock(looking, fcntl.LOCK_SH)
            monkeypatch.setattr(module, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
            with RunDirectory(path).locked():
                assert RunDirectory(path).is_locked()

    def test_it_is_free_again_afterwards(self, tmp_path):
        path = create(tmp_path)
        for _ in range(2):
            with RunDirectory(path).locked():
                pass

    def test_the_death_of_its_holder_frees_it(self, tmp_path):
        path = create(tmp_path)
        script = """if True:
            import sys, time
            from pathlib import Path
            from cnnctl.train.run_directory import RunDirectory
            with RunDirectory(Path(sys.argv[1])).locked():
                print("held", flush=True)
                time.sleep(60)
        """
        holder = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
        try:
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(RunError, match=f"process {holder.pid} is"), RunDirectory(path).locked():
                pytest.fail("two hold the lock")
        finally:
            holder.kill()
            holder.communicate()
        with RunDirectory(path).locked():
            pass

    def test_what_killed_writers_left_is_removed(self, tmp_path):
        path = create(tmp_path)
        leftover = path / "checkpoints" / ".last.safetensors.1.tmp"
        leftover.write_bytes(b"half")
        with RunDirectory(path).locked():
            assert not leftover.exists()


class TestStatus:
    def test_the_start_stays_and_the_rest_moves(self, tmp_path):
        run = RunDirectory(create(tmp_path))
        before = run.read_status()
        run.write_status("interrupted", 7, 1)
        after = run.read_status()
        assert after.started == before.started
        assert (after.state, after.step, after.epoch) == ("interrupted", 7, 1)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"state": "asleep"}', "\x00"])
    def test_a_damaged_one_is_one_line(self, tmp_path, text):
        path = create(tmp_path)
        (path / "status.json").write_text(text)
        with pytest.raises(RunError, match=r"status\.json") as caught:
            RunDirectory(path).read_status()
        assert "\n" not in str(caught.value)

    def test_no_run_is_said_so(self, tmp_path):
        with pytest.raises(RunError, match="there is no such run directory"):
            RunDirectory(tmp_path / "nowhere").read_status()


def test_the_log_has_a_time_on_every_line(tmp_path):
    run = RunDirectory(create(tmp_path))
    run.log("something happened")
    lines = (run.path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["created", "something happened"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 ", line) for line in lines)


class TestFindRun:
    @pytest.fixture
    def runs_dir(self, tmp_path):
        runs_dir = tmp_path / "runs"
        for name in (
            "20260101-000000-mnist-aaaa",
            "20260102-000000-mnist-bbbb",
            "20260102-000000-cifar-cccc",
        ):
            (runs_dir / name).mkdir(parents=True)
            (runs_dir / name / "status.json").write_text(json.dumps({}))
            (runs_dir / name / "config.yaml").write_text("")
        (runs_dir / "20270101-000000-no-run").mkdir()
        newest = runs_dir / CIFAR / "config.yaml"
        os.utime(newest, (time.time() + 10, time.time() + 10))
        return runs_dir

    @pytest.mark.parametrize(
        ("run", "found"),
        [
            ("20260101-000000-mnist-aaaa", "20260101-000000-mnist-aaaa"),
            ("20260101", "20260101-000000-mnist-aaaa"),
            ("20260102-000000-m", "20260102-000000-mnist-bbbb"),
            ("cifar", CIFAR),
            ("ci", CIFAR),
            ("latest", CIFAR),
        ],
    )
    def test_by_name_prefix_or_age(self, runs_dir, run, found):
        assert find_run(run, runs_dir) == runs_dir / found

    def test_by_path(self, runs_dir, tmp_path):
        path = runs_dir / "20260101-000000-mnist-aaaa"
        assert find_run(str(path), tmp_path / "elsewhere") == path

    @pytest.mark.parametrize(
        ("run", "line"),
        [
            ("20260102", f"could be {CIFAR}, 20260102-000000-mnist-bbbb"),
            ("20260101-000000-mnist-aaab", "near: 20260101-000000-mnist-aaaa"),
            ("20270101-000000-no-run", "neither a run directory nor the name of one under"),
            ("mnist", "could be 20260101-000000-mnist-aaaa, 20260102-000000-mnist-bbbb"),
            ("mn", "could be 20260101-000000-mnist-aaaa, 20260102-000000-mnist-bbbb"),
            ("latst", "near: latest"),
            ("mnits", "near: mnist"),
            ("", "runs there: 3"),
        ],
    )
    def test_anything_else_is_one_line_with_what_comes_near(self, runs_dir, run, line):
        with pytest.raises(RunError, match=re.escape(line)):
            find_run(run, runs_dir)

    def test_hidden_ones_are_none(self, runs_dir):
        (runs_dir / CIFAR).rename(runs_dir / f".{CIFAR}")
        assert find_run("latest", runs_dir) != runs_dir / f".{CIFAR}"
        with pytest.raises(RunError, match="neither a run directory nor"):
            find_run(f".{CIFAR}", runs_dir)

    def test_latest_of_none(self, tmp_path):
        with pytest.raises(RunError, match="runs there: none"):
            find_run("latest", tmp_path)
