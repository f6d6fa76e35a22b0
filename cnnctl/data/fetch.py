"""Files brought into a data directory: whole and verified there, or not at all.

A file to download has a known size and SHA-256. It is hashed while it arrives, under a
temporary name beside its place, and gets its own name when all of it is on disk. Speaks
https alone, follows no redirect to anything else, reads no more bytes than there should
be, waits for no server that stalls, resumes nothing and unpacks nothing.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from cnnctl.errors import DataError, quote

OnDownload = Callable[[str, int, int], None]
"""Hears a file's name, the bytes of it that have arrived, and all of its bytes."""

CHUNK_BYTES = 2**16
STALL_S = 30.0
"""A server that is silent for so long has stalled."""
SLOWEST_BYTES_PER_S = 1024
"""So has one that sends less than this after its first STALL_S, headers included."""
MAX_OVERHEAD_BYTES = 2**18
"""What an answer may have besides twice the file: headers, and the lengths of its chunks."""
ATTEMPTS = 100
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is the same wherever it is downloaded from.

    Attributes:
        size: in bytes.
        sha256: in lower-case hexadecimal.
    """

    name: str
    size: int
    sha256: str


def fetch_file(
    file: RemoteFile,
    mirrors: Sequence[str],
    folder: Path,
    *,
    on_download: OnDownload | None = None,
    stall_s: float = STALL_S,
    allow_loopback: bool = False,
) -> Path:
    """Download `file` into `folder` from the first mirror that gives the right bytes.

    Any number of processes may do so at once: each renames a whole file into place.

    Args:
        mirrors: the URLs that the file's name is appended to.
        on_download: called before the first bytes and after each few more.
        stall_s: see STALL_S.
        allow_loopback: let http://127.0.0.1 count as https.

    Raises DataError with the reason for each mirror, or when the disk does not take it.
    """
    target, reasons = folder / file.name, []
    for mirror in mirrors:
        url = mirror + file.name
        with reporting_os_errors(target):
            try:
                with placing(target) as temporary, _create(temporary) as out:
                    _download(url, file, out.write, on_download, stall_s, allow_loopback)
                return target
            except DataError as error:
                reasons.append(f"{url}: {error}")
    raise DataError("; ".join(reasons))


@contextmanager
def placing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, for a file or a flat folder to be made at.

    When the block ends well, what was made is put on disk and gets the name `target`: a
    file in place of another, a folder only where there is none. Otherwise it is removed,
    and so are the folders above it that were made for it.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    temporary = target.with_name(f".{target.name}.{token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for path in (*temporary.glob("*"), temporary):
            _sync(path)
        os.replace(temporary, target)
        _sync(target.parent)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
        raise


@contextmanager
def reporting_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a DataError that names the file, `path` where it does not say which."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error


def _download(
    url: str,
    file: RemoteFile,
    write: Callable[[bytes], object],
    on_download: OnDownload | None,
    stall_s: float,
    allow_loopback: bool,
) -> None:
    digest, done = hashlib.sha256(), 0
    for chunk in _receive(url, file.size, stall_s, allow_loopback):
        write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if on_download:
            on_download(file.name, done, file.size)
    if done != file.size:
        raise DataError(f"ends after {done:,} of {file.size:,} bytes")
    if digest.hexdigest() != file.sha256:
        raise DataError(f"SHA-256 {digest.hexdigest()} where {file.sha256} is expected")


def _receive(url: str, size: int, stall_s: float, allow_loopback: bool) -> Iterator[bytes]:
    """What lies at `url`, at most `size` bytes of it, starting with no bytes once it is open.

    Raises DataError for whatever the network does.
    """
    from http.client import HTTPException

    received = 0
    try:
        with _open(url, size, stall_s, allow_loopback) as response:
            if response.length not in {None, size}:
                raise DataError(f"has {response.length:,} bytes where {size:,} are expected")
            yield b""
            while chunk := response.read1(CHUNK_BYTES):
                received += len(chunk)
                if received > size:
                    raise DataError(f"goes on after the {size:,} bytes that are expected")
                yield chunk
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(_explain(error)) from error


def _open(url: str, size: int, stall_s: float, allow_loopback: bool) -> Any:
    """The response for `url`.

    Redirects are followed here because urllib would read the whole body of one, however long.
    """
    from urllib import error, request

    opener = request.OpenerDirector()
    connections = request.HTTPHandler(), request.HTTPSHandler()
    for handler in connections:
        handler.do_open = partial(_connect, handler.do_open, size, stall_s)  # type: ignore[method-assign]
    others = request.ProxyHandler(), request.HTTPDefaultErrorHandler(), request.HTTPErrorProcessor()
    for added in (*connections, *others):
        opener.add_handler(added)
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        loopback = allow_loopback and (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
        if parts.scheme != "https" and not loopback:
            raise DataError(f"leads to {quote(url)}, which is not https")
        try:
            return opener.open(url, timeout=stall_s)
        except error.HTTPError as answer:
            with answer:
                location = answer.headers.get("Location")
                if answer.code not in REDIRECTS or not location:
                    raise DataError(f"the server answers with status {answer.code}") from answer
                url = urljoin(url, location)
    raise DataError(f"more than {MAX_REDIRECTS} redirects")


def _connect(
    do_open: Callable[..., Any],
    size: int,
    stall_s: float,
    kind: Callable[..., Any],
    *args: Any,
    **options: Any,
) -> Any:
    """What urllib does to open a connection of that kind, and to have its answers read with limits."""
    from http.client import HTTPResponse

    def respond(*args: Any, **options: Any) -> HTTPResponse:
        response = HTTPResponse(*args, **options)
        response.fp = io.BufferedReader(_LimitedReader(response.fp.detach(), size, stall_s))
        return response

    def connect(*args: Any, **options: Any) -> Any:
        connection = kind(*args, **options)
        connection.response_class = respond
        return connection

    return do_open(connect, *args, **options)


class _LimitedReader(io.RawIOBase):
    """All that a server sends, headers too, of which http.client would read any number at any speed.

    Raises DataError when it is more than an answer with `size` bytes can have, or comes too slowly.
    """

    def __init__(self, raw: io.RawIOBase, size: int, stall_s: float) -> None:
        self._raw, self._size, self._stall_s = raw, size, stall_s
        self._received, self._started = 0, monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        count = self._raw.readinto(buffer)
        self._received += count or 0
        seconds = monotonic() - self._started
        if seconds > self._stall_s + self._received / SLOWEST_BYTES_PER_S:
            raise DataError(f"only {self._received:,} bytes came in {seconds:.0f} s")
        if self._received > 2 * self._size + MAX_OVERHEAD_BYTES:
            raise DataError(f"sends {self._received:,} bytes around the {self._size:,} that are expected")
        return int(count)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _create(path: Path) -> BinaryIO:
    """A new file, also when another download that failed is just removing the folder it had made."""
    for _ in range(ATTEMPTS):
        with suppress(FileNotFoundError):
            return path.open("xb")
        with suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def _explain(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    return quote(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
