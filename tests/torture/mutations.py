"""Damage to bytes, drawn at random: what a disk, a network or somebody who means harm could do to a file."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

INTERESTING = (0, 1, -1, 7, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)
MOST_BYTES = 2**16


def draw_stream(seed: int, number: int) -> Random:
    """The random numbers of one case."""
    return Random(seed << 64 | number)


def mutate(rng: Random, data: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """A damaged copy: one to four of the ways below, one after the other.

    Args:
        others: files of the same kind that parts are taken from.
        tokens: what means something in such files.
    """
    copy = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        way = rng.choice(WAYS)
        way(rng, copy, rng.choice(others), rng.choice(tokens))
        del copy[MOST_BYTES:]
    return bytes(copy)


def _flip_bit(rng: Random, data: bytearray, *_: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace_byte(rng: Random, data: bytearray, *_: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _truncate(rng: Random, data: bytearray, *_: bytes) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _cut_out(rng: Random, data: bytearray, *_: bytes) -> None:
    start, stop = _draw_range(rng, len(data))
    del data[start:stop]


def _repeat(rng: Random, data: bytearray, *_: bytes) -> None:
    start, stop = _draw_range(rng, len(data))
    data[stop:stop] = data[start:stop] * rng.choice((1, 1, 2, 50))


def _clear(rng: Random, data: bytearray, *_: bytes) -> None:
    start, stop = _draw_range(rng, len(data))
    data[start:stop] = rng.choice((b"\0", b"\xff")) * (stop - start)


def _splice(rng: Random, data: bytearray, other: bytes, _: bytes) -> None:
    """The beginning of one file and the end of another."""
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


def _transplant(rng: Random, data: bytearray, other: bytes, _: bytes) -> None:
    start, stop = _draw_range(rng, len(data))
    first, last = _draw_range(rng, len(other))
    data[start:stop] = other[first:last]


def _insert_token(rng: Random, data: bytearray, _: bytes, token: bytes) -> None:
    place = rng.randrange(len(data) + 1)
    data[place : place + rng.choice((0, len(token)))] = token


def _append(rng: Random, data: bytearray, _: bytes, token: bytes) -> None:
    data += rng.choice((token, b"\0", rng.randbytes(rng.randrange(1, 600))))


def _lie(rng: Random, data: bytearray, *_: bytes) -> None:
    """Any two, four or eight bytes may be a length: here it is another."""
    size = rng.choice((1, 2, 2, 4, 4, 4, 8))
    if len(data) >= size:
        place = rng.randrange(len(data) - size + 1)
        order: Literal["little", "big"] = rng.choice(("little", "big"))
        old = int.from_bytes(data[place : place + size], order)
        number = rng.choice((rng.choice(INTERESTING), old + 1, old - 1, 2 * old, old // 2, -old))
        data[place : place + size] = (number % 256**size).to_bytes(size, order)


def _draw_range(rng: Random, length: int) -> tuple[int, int]:
    """Mostly short, sometimes long."""
    start = rng.randrange(length + 1)
    return start, min(length, start + rng.choice((1, 2, 4, 16, 64, length)))


WAYS: tuple[Callable[[Random, bytearray, bytes, bytes], None], ...] = (
    _flip_bit,
    _flip_bit,
    _replace_byte,
    _replace_byte,
    _lie,
    _lie,
    _truncate,
    _cut_out,
    _repeat,
    _clear,
    _splice,
    _transplant,
    _insert_token,
    _insert_token,
    _append,
)
