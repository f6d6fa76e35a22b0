"""Files that hold the old content or the new, never half of either.

A replacement is written under a temporary name beside its target, synced, read back,
renamed over it, and the directory is synced. Appended files know how far they are on
disk. Everything under a run directory is written through here; nothing is locked here.
What is no file, a pipe, say, that might never end, is opened by nobody.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnctl.errors import RunError


def write_atomically(path: Path, content: bytes | bytearray, *, previous: Path | None = None) -> None:
    """Replace the file at `path`; what it held goes to `previous`, where one is named.

    Until the new content is on disk and has been read back, nothing older is touched.
    Raises RunError when the disk does not take it; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with reporting_os_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if temporary.read_bytes() != content:
                raise RunError(f"{path}: the disk gives back other bytes than were written")
            if previous and path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
            sync_directory(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make the names in a directory as durable as the files behind them."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    with reporting_os_errors(directory):
        for temporary in directory.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)


@contextmanager
def reporting_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names `path` and the reason."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}") from error


def open_regular(path: str | Path, flags: int) -> int:
    """An opener for `open`, of files and nothing else: it waits for nobody.

    Raises RunError where there is something else: a folder, a device, or a pipe that nobody may ever
    write to. An OSError passes.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:  # of a pipe that nobody reads
            raise
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise RunError(f"{path}: not a regular file")


class AppendedFile:
    """A text file that only grows, and can be cut back to a known length when reopened."""

    def __init__(self, path: Path, length: int) -> None:
        """Open `path` for appending, after cutting it to `length` bytes.

        Raises RunError if it has fewer, or the disk refuses.
        """
        self.path = path
        with reporting_os_errors(path):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._file = os.fdopen(open_regular(path, flags), "ab")
            size = os.fstat(self._file.fileno()).st_size
            if size < length:
                self._file.close()
                raise RunError(f"{path}: {size} bytes where {length} are known to have been written")
            if size > length:
                self._file.truncate(length)

    def append(self, text: str) -> None:
        """Add `text`, so that another process can read it at once."""
        with reporting_os_errors(self.path):
            self._file.write(text.encode())
            self._file.flush()

    def sync(self) -> int:
        """Put all of it on disk; returns the length in bytes."""
        with reporting_os_errors(self.path):
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file. What a failed write left in the buffer is dropped."""
        with suppress(OSError):
            self._file.close()
