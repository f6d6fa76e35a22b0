"""Starts processes of `cnnctl` for the faults, each forked off one that has imported it and done no more.

A fork costs a few milliseconds where an interpreter that starts and imports NumPy costs a few hundred. The
launcher runs that interpreter, with disk.c laid over libc, and tells it by a line of JSON what to start and
how the disk is to behave; what a process prints goes to files, and it leaves by `os._exit`.
"""

import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

DISK = Path(__file__).with_name("disk.c")
READS, WRITES, NAMES, SYNCS = 1, 2, 4, 8
SHORT_WRITE = -1
TIMEOUT_S = 300.0


class Failing(NamedTuple):
    """How a disk fails: the n-th call of these kinds, and all after it if it lasts.

    Attributes:
        error: an errno, or SHORT_WRITE.
    """

    folder: str
    n: int
    kinds: int
    error: int
    lasting: bool = False


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code, negative for a signal.
        calls: kind -> how many there were.
    """

    code: int
    out: str
    err: str
    seconds: float
    calls: dict[int, int] = field(default_factory=dict)


@dataclass
class Launched:
    """A process that was started."""

    launcher: "Launcher"
    pid: int
    files: Path
    started: float = field(default_factory=time.monotonic)

    def signal(self, number: int) -> None:
        """A zombie can be sent signals as well: nothing happens then."""
        os.kill(self.pid, number)

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return is_running(self.pid)

    def wait(self) -> Ended:
        """Until it ends. One that hangs is killed, and its exit code tells."""
        status = self.launcher.ask({"wait": self.pid})
        seconds = time.monotonic() - self.started
        texts = [self.files.with_suffix(suffix).read_text() for suffix in (".out", ".err", ".calls")]
        calls = {int(kind): count for kind, count in json.loads(texts[2] or "{}").items()}
        return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], seconds, calls)


class Clock:
    """How long a process takes to end from now on, less the time in which others had the cores."""

    def __init__(self, pid: int) -> None:
        self._pid, self._started, self._delayed = pid, time.monotonic(), read_delay(pid)

    def await_end(self) -> float:
        """Seconds until it has ended, and waits for somebody to ask how; TIMEOUT_S at most."""
        while is_running(self._pid) and time.monotonic() - self._started < TIMEOUT_S:
            time.sleep(0.001)
        return time.monotonic() - self._started - (read_delay(self._pid) - self._delayed)


def is_running(pid: int) -> bool:
    """Whether a child has not ended yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def read_delay(pid: int) -> float:
    """Seconds in which its main thread could have run so far, had others not had the cores."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


class Launcher:
    """The interpreter that processes are forked from; `get_launcher` makes one."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cnnctl-launcher-"))
        atexit.register(self.close)
        library = compile_disk(self.folder)
        environment = {**os.environ, "LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.faults.launcher"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._count = 0

    def start(
        self, args: Sequence[str], *, failing: Failing | None = None, watched: tuple[Path, Path] | None = None
    ) -> Launched:
        """`cnnctl <args>`; `watched` are the folder that is, and the log."""
        self._count += 1
        if args[0] == "train":
            args = [*args, "--no-report"]  # which would take as long as all the rest
        files = self.folder / str(self._count)
        for suffix in (".out", ".err", ".calls"):
            files.with_suffix(suffix).write_text("")
        watch = [os.fspath(path) for path in watched] if watched else None
        pid = self.ask({"args": list(args), "files": str(files), "failing": failing, "watched": watch})
        return Launched(self, pid, files)

    def run(self, args: Sequence[str], **disk: Any) -> Ended:
        """Start it and wait."""
        return self.start(args, **disk).wait()

    def ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the interpreter that processes are forked from has ended")
        return int(answer)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        rmtree(self.folder, ignore_errors=True)


def compile_disk(folder: Path) -> Path:
    """disk.c as a shared library."""
    library = folder / "disk.so"
    compiler = os.environ.get("CC", "cc").split()
    options = ["-std=gnu11", "-O2", "-shared", "-fPIC", "-ldl"]
    subprocess.run([*compiler, str(DISK), *options, "-o", str(library)], check=True)
    return library


@cache
def get_launcher() -> Launcher:
    """That of this process."""
    return Launcher()


def main() -> None:
    """The interpreter's own side: a line in, a process started or waited for, a line out."""
    from cnnctl.cli.main import main as run_command
    from cnnctl.cli.train import train
    from cnnctl.train import api

    assert api, train  # imported for those who will use them
    disk = ctypes.CDLL(None)
    for line in sys.stdin:
        request = json.loads(line)
        answer = await_end(request["wait"]) if "wait" in request else run_forked(request, disk, run_command)
        print(answer, flush=True)


def await_end(pid: int) -> int:
    """Its status as of waitpid. What has not ended in time hangs, and is killed."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def run_forked(request: dict[str, Any], disk: ctypes.CDLL, run_command: Callable[[list[str]], int]) -> int:
    """Fork off a process, which hears signals from when the command begins to when it is done."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return pid
    files = request["files"]
    for number, suffix in ((0, None), (1, ".out"), (2, ".err")):
        path = os.devnull if suffix is None else files + suffix
        os.dup2(os.open(path, os.O_RDWR), number)
    if request["failing"]:
        folder, *how = request["failing"]
        disk.disk_fail(folder.encode(), *map(int, how))
    if request["watched"]:
        folder, log = request["watched"]
        disk.disk_watch(folder.encode(), log.encode())
        mark_saves(disk)
    code = 1
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `cnnctl.__main__` has it until the command begins
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        code = run_command(request["args"])
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        sys.stdout.flush()
        sys.stderr.flush()
        disk.disk_fail(b"", 0, 0, 0, 0)
        calls = {kind: disk.disk_calls(kind) for kind in (READS, WRITES, NAMES, SYNCS)}
        Path(files + ".calls").write_text(json.dumps(calls))
        os._exit(code)


def mark_saves(disk: ctypes.CDLL) -> None:
    """Put into the log when training begins, and when it takes its state for saved."""
    from cnnctl.train import solver
    from cnnctl.train.checkpoint import LAST, Checkpoint, save_checkpoint

    save, run = save_checkpoint, solver.Solver.run

    def save_and_mark(directory: Path, content: bytes | bytearray, name: str = LAST) -> None:
        save(directory, content, name)
        if name == LAST:
            step = Checkpoint.unpack(bytes(content), directory).metadata.progress.step
            disk.disk_mark(f"saved {directory.parent.name} {step}".encode())

    def mark_and_run(self: solver.Solver) -> None:
        disk.disk_mark(f"begun {self._run.path.name}".encode())
        run(self)

    solver.save_checkpoint = save_and_mark  # type: ignore[attr-defined]
    solver.Solver.run = mark_and_run  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
