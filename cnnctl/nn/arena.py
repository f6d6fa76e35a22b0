"""One block of memory for buffers that are not all alive at once.

Buffers are reserved with the first and last moment they are needed and share bytes when
their lifetimes don't meet. Everything is allocated once; nothing is ever freed or grown.
"""

import mmap
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from cnnctl.backends.specs import Array

ALIGNMENT = 64
"""Bytes; a cache line, and the widest vector."""
HUGE_PAGES_FROM = 2**22
"""Bytes from which on memory is asked for in huge pages, as numpy does."""


@dataclass(slots=True)
class _Request:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first: int
    last: int
    offset: int = 0

    @property
    def bytes(self) -> int:
        return -(-prod(self.shape) * self.dtype.itemsize // ALIGNMENT) * ALIGNMENT


class Arena:
    """Reserve first, then allocate.

    >>> arena = Arena()
    >>> a = arena.reserve((1000,), np.float32, first=0, last=1)
    >>> b = arena.reserve((1000,), np.float32, first=2, last=3)
    >>> buffers = arena.allocate()
    >>> buffers[a].shape, arena.bytes
    ((1000,), 4032)
    """

    def __init__(self) -> None:
        self._requests: list[_Request] = []
        self.bytes = 0

    def reserve(self, shape: tuple[int, ...], dtype: Any, first: int, last: int) -> int:
        """Ask for a buffer needed from moment `first` to `last`, both included; returns its number."""
        self._requests.append(_Request(shape, np.dtype(dtype), first, last))
        return len(self._requests) - 1

    def allocate(self) -> list[Array]:
        """The buffers by number, zero at first, aligned to 64 bytes. Raises MemoryError without room."""
        placed: list[_Request] = []
        # Large ones first: the small ones then find room in the gaps.
        for request in sorted(self._requests, key=lambda r: r.bytes, reverse=True):
            for other in sorted(placed, key=lambda r: r.offset):
                alive_together = request.first <= other.last and other.first <= request.last
                if alive_together and request.offset + request.bytes > other.offset:
                    request.offset = max(request.offset, other.offset + other.bytes)
            placed.append(request)
            self.bytes = max(self.bytes, request.offset + request.bytes)
        memory = map_memory(self.bytes)
        buffers = []
        for request in self._requests:
            used = memory[request.offset : request.offset + prod(request.shape) * request.dtype.itemsize]
            buffers.append(used.view(request.dtype).reshape(request.shape))
        return buffers


def map_memory(size: int) -> Array:
    """Bytes of a mapping of their own, all 0; those never written take no memory.

    The heap would at times give bytes that were used before, and clear them: then all of them
    take memory at once, and how much a run needs could not be told beforehand. Raises MemoryError.
    """
    try:
        mapping = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{size:,} bytes for a network's buffers: {error}") from error
    if size >= HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # of a kernel without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, np.uint8)
