"""Opening and reading files that nobody vouches for: what all readers share.

Refuses what is no regular file, takes no more bytes than it was told to, and turns what the
operating system or gzip has to complain about into a DataError. Knows no format.
"""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from cnnctl.errors import DataError, quote

FilePath = str | os.PathLike[str]
Stream = io.BufferedIOBase | IO[bytes]

GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 2**20
SHOWN_CHARACTERS = 80


def check_regular(path: FilePath) -> None:
    """Refuse what is no regular file: opening a pipe might never end. Raises DataError."""
    if not os.path.isfile(path):
        raise DataError(f"{path}: {'not a regular file' if os.path.exists(path) else 'no such file'}")


def describe_cause(error: Exception) -> str:
    """What a decoder complains of, on one line; the kind of error if it does not say."""
    return quote(str(error).partition("\n")[0], SHOWN_CHARACTERS) or type(error).__name__


@contextmanager
def open_regular_file(path: FilePath) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading; lack of memory or an I/O error in the block becomes a DataError."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{path}: takes more memory than there is") from None


@contextmanager
def open_packed_file(path: FilePath) -> Iterator[Stream]:
    """The same, through gzip if the first bytes say so; damaged gzip data, too, becomes a DataError."""
    with open_regular_file(path) as file:
        packed = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
        try:
            yield gzip.GzipFile(fileobj=file) if packed else file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: damaged gzip data ({error})") from None


def read_at_most(stream: Stream, limit: int) -> bytearray:
    """The next bytes up to `limit`; takes memory for those that there are, and not for the limit."""
    data = bytearray()
    while len(data) < limit and (chunk := stream.read(min(limit - len(data), CHUNK_BYTES))):
        data += chunk
    return data


def read_exactly(stream: Stream, count: int, path: FilePath) -> bytearray:
    """The next `count` bytes. Raises DataError if there are fewer."""
    data = read_at_most(stream, count)
    if len(data) < count:
        raise DataError(f"{path}: ends {count - len(data)} bytes before what its header promises")
    return data
