"""What input from outside may do to a reader: give a value, or be refused in one line that names the file.

Anything else breaks the promise: an error of another family, more than a second of processor time, more
than 64 MiB of memory, and whatever Python's audit events show besides reading files below one folder:
code compiled or run, modules imported, processes, sockets, files written. What an event forbids is
stopped before it happens. Looks at one call at a time, in the main thread. Memory is measured on Linux only.
"""

import atexit
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

from cnnctl.errors import CnnctlError
from tests.torture.tally import Mismatch, Tally

CPU_S = 1.0
MOST_BYTES = 64 * 2**20
"""Of memory in use above what was in use before."""
MOST_ADDRESSES = 512 * 2**20
"""Of memory asked for: what is never touched counts here only."""
MOST_CHARACTERS = 1000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
HARMLESS = {"array.__new__", "builtins.id", "mmap.__new__", "object.__getattr__"}
HARMLESS |= {"os.listdir", "os.scandir", "pathlib.Path.glob", "pathlib.Path.rglob", "sys._getframe"}
HARMLESS |= {"fcntl.flock"}
"""Events that change nothing and run nothing; every other one but "open" is forbidden."""


class Trespass(BaseException):
    """The call did what it may not; no reader's `except Exception` hides this."""


class Overdue(BaseException):
    """The call took too long."""


class Outcome(NamedTuple):
    """A value, or the line of the refusal."""

    value: Any
    refusal: str | None


class _Watch:
    """What the audit hook looks at: it can never be taken off again, only be told to look away."""

    def __init__(self) -> None:
        self.root = ""
        self.thread = 0
        self.seen: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.root or event in HARMLESS or threading.get_ident() != self.thread:
            return
        if event == "open" and self._may_open(*arguments):
            return
        self.seen.append(f"{event} {arguments!r:.200}")
        raise Trespass(self.seen[-1])

    def _may_open(self, path: object, mode: str | None, flags: int) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)) or flags & WRITING:
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.root + os.sep)


@cache
def create_watch() -> _Watch:
    """One for each process."""
    return _Watch()


@cache
def make_ground(name: str) -> Path:
    """A folder of this process for a row's files, in memory where that can be; gone with the process."""
    folder = tempfile.mkdtemp(prefix=f"cnnctl-{name}-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    atexit.register(rmtree, folder, ignore_errors=True)
    return Path(folder).resolve()


def guard(call: Callable[[], Any], root: Path, tally: Tally) -> Outcome:
    """Call it, and judge how it ended. Raises Mismatch when the promise is broken."""
    watch = create_watch()
    started, before = time.thread_time(), _reset_peak()
    outcome, foul = Outcome(None, None), ""
    try:
        with _limits():
            watch.root, watch.thread = str(root), threading.get_ident()
            try:
                outcome = Outcome(call(), None)
            finally:
                watch.root = ""
    except CnnctlError as error:
        outcome = Outcome(None, str(error))
        foul = _judge_refusal(error, root)
    except Overdue:
        foul = f"took more than {CPU_S:g} s"
    except Trespass:
        pass
    except MemoryError:
        foul = "asked for more memory than it may"
    except Exception as error:
        foul = f"{type(error).__name__} escaped: {error}"
    seconds, peak = time.thread_time() - started, _read_memory("VmHWM:") - before
    trespasses, watch.seen = watch.seen, []
    if trespasses:
        raise Mismatch(f"did what it may not: {trespasses[0]}")
    if foul:
        raise Mismatch(foul)
    if seconds > CPU_S or peak > MOST_BYTES:
        raise Mismatch(f"took {seconds:.1f} s and {peak / 2**20:.0f} MiB: {outcome.refusal or 'accepted'}")
    tally.note("time", seconds / CPU_S)
    tally.note("memory", peak / MOST_BYTES)
    return outcome


def _judge_refusal(error: CnnctlError, root: Path) -> str:
    """What is wrong with it, if anything."""
    line = str(error)
    if not line.isprintable():
        return f"refused in more than one plain line: {line!r}"
    if str(root) not in line:
        return f"refused without the file's name: {line}"
    if len(line) > MOST_CHARACTERS + 2 * len(str(root)):
        return f"refused in {len(line)} characters: {line[:MOST_CHARACTERS]}..."
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, MemoryError):
            return f"asked for more memory than it may: {line}"
        cause = cause.__cause__ or cause.__context__
    return ""


@contextmanager
def _limits() -> Iterator[None]:
    """Of processor time and of addresses, as they were before afterwards."""

    def interrupt(*_: object) -> None:
        raise Overdue

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    kept = signal.signal(signal.SIGPROF, interrupt)
    try:
        if _measures_memory():
            most = _read_memory("VmSize:") + MOST_ADDRESSES
            resource.setrlimit(resource.RLIMIT_AS, (most if soft == -1 else min(most, soft), hard))
        signal.setitimer(signal.ITIMER_PROF, CPU_S, CPU_S / 10)  # again, should a destructor swallow it
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, kept)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _reset_peak() -> int:
    """Forget the peak of memory so far; returns what is in use, in bytes."""
    if _measures_memory():
        with open("/proc/self/clear_refs", "wb") as file:
            file.write(b"5")
    return _read_memory("VmHWM:")


def _read_memory(field: str) -> int:
    """In bytes; 0 where it is not measured."""
    if not _measures_memory():
        return 0
    with open("/proc/self/status", "rb") as file:
        status = file.read()
    start = status.index(field.encode()) + len(field)
    return int(status[start : status.index(b"kB", start)]) * 1024


@cache
def _measures_memory() -> bool:
    return os.access("/proc/self/clear_refs", os.W_OK)
