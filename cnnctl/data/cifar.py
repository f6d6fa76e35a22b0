"""CIFAR-10 in the official layouts: binary or Python batches, in a folder or in the archive.

Extracts nothing: an archive is read as it streams by, and only members of a name, type and
size that the official ones can have. Unpickles nothing: Python batches go through a stack
machine of our own that knows the few opcodes those files consist of, and can make of them
integers, text, lists, tuples, dicts and one array of bytes. It imports nothing, calls
nothing and sets no attribute, whatever the file says.

Class names are part of what CIFAR-10 is; batches.meta is not read.
Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np

from cnnctl.data.dataset import Array, Split
from cnnctl.data.files import (
    SHOWN_CHARACTERS,
    FilePath,
    Stream,
    open_packed_file,
    read_at_most,
    read_exactly,
)
from cnnctl.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
BATCH_IMAGES = 10_000
IMAGE_SHAPE = (3, 32, 32)
IMAGE_BYTES = 3 * 32 * 32

LAYOUTS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}
"""The official folders, and what their batches' names end with."""
UNREAD = {"batches.meta", "batches.meta.txt", "readme.html"}
MAX_BATCH_BYTES = 32 * 2**20
"""Official batches have 30.7 MB (binary) and 31.0 MB (Python)."""
MAX_UNREAD_BYTES = 2**16
MAX_PADDING_BYTES = 2**16
"""Zeros after the end of an archive; tar fills up to a multiple of 10,240 bytes."""
PROTOCOL = 2
MAX_OPCODES = 100_000
"""Official batches have about 30,000: one for each label, two for the name of each image."""
PLAIN_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)


def read_cifar10(place: FilePath) -> tuple[Split, Split, tuple[str, ...]]:
    """The training split (batches 1 to 5 in this order), the test split and the class names.

    `place` is a folder cifar-10-batches-bin or cifar-10-batches-py, or an archive of one.
    Raises DataError.
    """
    images = np.empty((len(BATCHES), BATCH_IMAGES, *IMAGE_SHAPE), np.uint8)
    labels = np.empty((len(BATCHES), BATCH_IMAGES), np.int64)
    missing = set(BATCHES)
    for batch, source, data in (_read_folder if os.path.isdir(place) else _read_archive)(Path(place)):
        missing.remove(batch)
        k = BATCHES.index(batch)
        parse = _parse_binary if source.endswith(".bin") else _parse_pickle
        labels[k], pixels = parse(data, source)
        images[k] = pixels.reshape(images[k].shape)
        if not 0 <= labels[k].min() <= labels[k].max() < len(CLASSES):
            raise DataError(
                f"{source}: labels {labels[k].min()}..{labels[k].max()} are not in 0..{len(CLASSES) - 1}"
            )
    if missing:
        raise DataError(f"{place}: holds no {', '.join(sorted(missing))}")
    train = Split(images[:-1].reshape(-1, *IMAGE_SHAPE), labels[:-1].reshape(-1))
    return train, Split(images[-1], labels[-1]), CLASSES


def _read_folder(folder: Path) -> Iterator[tuple[str, str, bytearray]]:
    """Name, source and contents of each batch; the source is what an error cites."""
    for suffix in LAYOUTS.values():
        if os.path.exists(folder / f"{BATCHES[0]}{suffix}"):
            break
    else:
        raise DataError(
            f"{folder}: holds neither {BATCHES[0]}.bin nor {BATCHES[0]}, as {' and '.join(LAYOUTS)} do"
        )
    for batch in BATCHES:
        path = folder / f"{batch}{suffix}"
        with open_packed_file(path) as stream:
            data = read_at_most(stream, MAX_BATCH_BYTES + 1)
        if len(data) > MAX_BATCH_BYTES:
            raise DataError(f"{path}: larger than the {MAX_BATCH_BYTES} bytes that a batch can have")
        yield batch, str(path), data


def _read_archive(path: Path) -> Iterator[tuple[str, str, bytearray]]:
    """The same from an archive, in the order in which it holds the batches."""
    members = {f"{folder}/{batch}{end}": batch for folder, end in LAYOUTS.items() for batch in BATCHES}
    unread = {f"{folder}/{name}" for folder in LAYOUTS for name in UNREAD}
    seen: set[str] = set()
    with open_packed_file(path) as stream:
        while member := _read_tar_header(stream, path):
            if Path(member.name).stem in seen:
                raise DataError(f"{path}: holds a second {_quote(member.name)}, or one of another layout")
            seen.add(Path(member.name).stem)
            if member.name in LAYOUTS and member.isdir() and not member.size:
                continue
            if member.type not in PLAIN_TYPES or member.name not in members.keys() | unread:
                raise DataError(
                    f"{path}: holds {_quote(member.name)} of type {member.type!r}; "
                    f"CIFAR-10's archives hold plain files of {' or '.join(LAYOUTS)} alone"
                )
            source = f"{path}: {member.name}"
            bound = MAX_BATCH_BYTES if member.name in members else MAX_UNREAD_BYTES
            if not 0 <= member.size <= bound:
                raise DataError(f"{source}: {member.size} bytes are not in 0..{bound}")
            data = read_exactly(stream, member.size, path)
            read_exactly(stream, -member.size % tarfile.BLOCKSIZE, path)
            if member.name in members:
                yield members[member.name], source, data
        padding = read_at_most(stream, MAX_PADDING_BYTES + 1)
    if len(padding) > MAX_PADDING_BYTES or any(padding):
        raise DataError(f"{path}: goes on after the end of the archive")


def _read_tar_header(stream: Stream, path: Path) -> tarfile.TarInfo | None:
    """The next member, or None at the end. Follows no extension that could change its name or size."""
    block = stream.read(tarfile.BLOCKSIZE)
    if block == bytes(tarfile.BLOCKSIZE):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "ascii", "surrogateescape")
    except tarfile.HeaderError as error:
        raise DataError(f"{path}: not a tar archive, or a damaged one ({error})") from None


def _parse_binary(data: bytearray, source: str) -> tuple[Array, Array]:
    """Labels (N,) and pixels (N, 3072): for each image a byte for its label, then its three colour planes."""
    size = BATCH_IMAGES * (1 + IMAGE_BYTES)
    if len(data) != size:
        raise DataError(f"{source}: {len(data)} bytes where a batch of {BATCH_IMAGES} images has {size}")
    records = np.frombuffer(data, np.uint8).reshape(BATCH_IMAGES, 1 + IMAGE_BYTES)
    return records[:, 0], records[:, 1:]


def _parse_pickle(data: bytearray, source: str) -> tuple[Array, Array]:
    """Labels (N,) and pixels (N, 3072) of a pickled {"labels": [int, ...], "data": array, ...}."""
    try:
        batch = _run_pickle(bytes(data))
    except (LookupError, ValueError) as error:
        reason = "takes what it never put there" if isinstance(error, LookupError) else str(error)
        raise DataError(f"{source}: not a Python batch of CIFAR-10: {reason[:SHOWN_CHARACTERS]}") from None
    match batch:
        case {b"labels": list() as labels, b"data": np.ndarray() as pixels}:
            if len(labels) == BATCH_IMAGES and set(map(type, labels)) == {int}:
                return np.array(labels), pixels
    raise DataError(f"{source}: not a dict with an array 'data' and {BATCH_IMAGES} integers as 'labels'")


class _Stand(Enum):
    """What stands on the machine's stack for numpy's functions, types and unfinished objects."""

    RECONSTRUCT = auto()
    NDARRAY = auto()
    DTYPE = auto()
    UINT8 = auto()
    EMPTY_ARRAY = auto()


GLOBALS = {
    b"numpy.core.multiarray\n_reconstruct\n": _Stand.RECONSTRUCT,
    b"numpy._core.multiarray\n_reconstruct\n": _Stand.RECONSTRUCT,
    b"numpy\nndarray\n": _Stand.NDARRAY,
    b"numpy\ndtype\n": _Stand.DTYPE,
}
CONSTANTS = {pickle.NONE: None, pickle.NEWFALSE: False, pickle.NEWTRUE: True}
TUPLE_SIZES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
NUMBER_BYTES = {
    pickle.PROTO: 1,
    pickle.BININT: 4,
    pickle.BININT1: 1,
    pickle.BININT2: 2,
    pickle.BINPUT: 1,
    pickle.LONG_BINPUT: 4,
    pickle.BINGET: 1,
    pickle.LONG_BINGET: 4,
    pickle.SHORT_BINSTRING: 1,
    pickle.BINSTRING: 4,
}
"""How long the little-endian number behind an opcode is; only that of BININT has a sign."""
STRINGS = {pickle.SHORT_BINSTRING, pickle.BINSTRING}


def _run_pickle(data: bytes) -> Any:
    """The value that a pickle of protocol 2 describes, its strings as bytes.

    Values are never hashed, compared or shown unless they are bytes or numbers: a few nested
    tuples, each of them twice in the next, would keep hash() busy for ever. Raises
    ValueError or LookupError for whatever official batches don't consist of.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def reach(count: int) -> int:
        """Where the last so many items begin; what lies below a mark is out of reach."""
        start = len(stack) - count
        if start < (marks[-1] if marks else 0):
            raise IndexError(count)
        return start

    def pop_items(count: int) -> list[Any]:
        start = reach(count)
        items = stack[start:]
        del stack[start:]
        return items

    def pop_marked() -> list[Any]:
        return pop_items(len(stack) - marks.pop())

    def get_top() -> Any:
        return stack[reach(1)]

    for opcode, argument in _read_opcodes(data):
        match opcode:
            case pickle.PROTO:
                if argument != PROTOCOL:
                    raise ValueError(f"is in protocol {argument} and not {PROTOCOL}")
            case pickle.BININT | pickle.BININT1 | pickle.BININT2 | pickle.SHORT_BINSTRING | pickle.BINSTRING:
                stack.append(argument)
            case pickle.BINPUT | pickle.LONG_BINPUT:
                memo[argument] = get_top()
            case pickle.BINGET | pickle.LONG_BINGET:
                stack.append(memo[argument])
            case pickle.NONE | pickle.NEWFALSE | pickle.NEWTRUE:
                stack.append(CONSTANTS[opcode])
            case pickle.EMPTY_DICT:
                stack.append({})
            case pickle.EMPTY_LIST:
                stack.append([])
            case pickle.MARK:
                marks.append(len(stack))
            case pickle.TUPLE:
                stack.append(tuple(pop_marked()))
            case pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3:
                stack.append(tuple(pop_items(TUPLE_SIZES[opcode])))
            case pickle.APPEND | pickle.APPENDS:
                items = pop_marked() if opcode == pickle.APPENDS else pop_items(1)
                _check_type(get_top(), list).extend(items)
            case pickle.SETITEM | pickle.SETITEMS:
                items = pop_marked() if opcode == pickle.SETITEMS else pop_items(2)
                keys = [_check_type(key, bytes) for key in items[::2]]
                _check_type(get_top(), dict).update(zip(keys, items[1::2], strict=True))
            case pickle.GLOBAL if argument in GLOBALS:
                stack.append(GLOBALS[argument])
            case pickle.GLOBAL:
                raise ValueError(f"asks for {_quote('.'.join(argument.decode('latin-1').splitlines()))}")
            case pickle.REDUCE:
                stack.append(_make_stand(*pop_items(2)))
            case pickle.BUILD:
                stack.append(_build_stand(*pop_items(2)))
            case pickle.STOP:
                return get_top()
            case _:
                raise ValueError(f"opcode {opcode!r} is none of CIFAR-10's")


def _read_opcodes(data: bytes) -> Iterator[tuple[bytes, Any]]:
    """The opcodes up to STOP, each with its argument: a number, a string, a global's two lines, or None."""
    stream = io.BytesIO(data)

    def take(count: int) -> bytes:
        taken = stream.read(count)
        if len(taken) < count:
            raise ValueError("ends too early")
        return taken

    for _ in range(MAX_OPCODES):
        opcode = take(1)
        argument: Any = None
        if opcode in NUMBER_BYTES:
            argument = int.from_bytes(take(NUMBER_BYTES[opcode]), "little", signed=opcode == pickle.BININT)
        if opcode in STRINGS:
            argument = take(argument)
        elif opcode == pickle.GLOBAL:
            argument = stream.readline() + stream.readline()
        elif opcode == pickle.STOP and stream.read(1):
            raise ValueError("goes on after its end")
        yield opcode, argument
    raise ValueError(f"more than {MAX_OPCODES} opcodes")


def _make_stand(function: object, arguments: object) -> _Stand:
    match function, arguments:
        case _Stand.RECONSTRUCT, (_Stand.NDARRAY, (0,), b"b"):
            return _Stand.EMPTY_ARRAY
        case _Stand.DTYPE, (b"u1", 0, 1):
            return _Stand.UINT8
    raise ValueError("asks for something else than an array of bytes")


def _build_stand(target: object, state: object) -> "_Stand | Array":
    match target, state:
        case _Stand.UINT8, (3, b"|", None, None, None, -1, -1, 0):
            return _Stand.UINT8
        case _Stand.EMPTY_ARRAY, (1, (int() as N, int() as size), _Stand.UINT8, 0, bytes() as pixels):
            if (N, size, len(pixels)) == (BATCH_IMAGES, IMAGE_BYTES, BATCH_IMAGES * IMAGE_BYTES):
                return np.frombuffer(pixels, np.uint8).reshape(N, size)
    raise ValueError(f"its array is not one of {BATCH_IMAGES}x{IMAGE_BYTES} bytes")


def _check_type(value: Any, expected: type) -> Any:
    if type(value) is not expected:
        raise ValueError(f"{type(value).__name__} stands where {expected.__name__} belongs")
    return value


def _quote(text: str) -> str:
    """A name from a file as an error line quotes it: on one line, and not at any length."""
    return repr(text[:SHOWN_CHARACTERS])
