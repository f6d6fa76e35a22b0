"""Images and labels in a .npz file: arrays x_train, y_train, x_test and y_test.

Never unpickles, and parses the arrays' headers as the few words that they are: numpy's own
reader would have Python compile them. Believes neither those nor the zip's directory: takes
exactly the bytes that a header of an allowed type and size promises, in pieces. Ignores
other arrays. Source of the header: numpy.lib.format, version 1.0.
"""

import math
import re
import zipfile
from typing import Any

import numpy as np

from cnnctl.data.dataset import MAX_CLASSES, MAX_IMAGE_BYTES, Array, Split
from cnnctl.data.files import (
    SHOWN_CHARACTERS,
    FilePath,
    Stream,
    describe_cause,
    open_regular_file,
    read_exactly,
)
from cnnctl.errors import DataError

CHANNELS = {1, 3}
IMAGE_TYPES = {"u1", "f2", "f4", "f8"}
LABEL_TYPES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Those that numpy writes; another could ask for gigabytes of memory to unpack a few bytes."""
ENCRYPTED = 1
MAGIC = b"\x93NUMPY\1\0"
MAX_HEADER_BYTES = 1024
"""numpy.save takes 118 for any array of numbers."""

_NUMBER = r"[ \n]*(?:0|[1-9][0-9]{0,19})L?[ \n]*"
_VALUE = rf"(?:'[^'\\]*'|True|False|\((?:(?:{_NUMBER},)+(?:{_NUMBER}|[ \n]*)|[ \n]*)\))"
_FIELD = rf"[ \n]*'(descr|fortran_order|shape)'[ \n]*:[ \n]*({_VALUE})[ \n]*"
_HEADER = re.compile(rf"\{{{_FIELD},{_FIELD},{_FIELD}(?:,[ \n]*)?\}}[ \n]*")


def read_npz(path: FilePath) -> tuple[Split, Split, tuple[str, ...]]:
    """The training split, the test split and the names of the classes: "0", "1", ...

    Images are (N, H, W) grey, or (N, C, H, W) or (N, H, W, C) with 1 or 3 channels; uint8, or
    floats, which become float32. A shape that could mean both of the latter is refused. Labels
    are (N,) integers from 0, and there is a training image of each class. Raises DataError.
    """
    try:
        with open_regular_file(path) as file, zipfile.ZipFile(file) as archive:
            train, test = (_read_split(archive, path, part) for part in ("train", "test"))
    except DataError:
        raise
    except Exception as error:  # zipfile knows a dozen kinds
        raise DataError(f"{path}: not a .npz file, or a damaged one ({describe_cause(error)})") from None
    if train.images.shape[1:] != test.images.shape[1:] or train.images.dtype != test.images.dtype:
        raise DataError(
            f"{path}: images (C, H, W) of x_train are {train.images.dtype} {train.images.shape[1:]}, "
            f"of x_test {test.images.dtype} {test.images.shape[1:]}; they must be alike"
        )
    return train, test, _name_classes(train.labels, test.labels, path)


def _read_split(archive: zipfile.ZipFile, path: FilePath, part: str) -> Split:
    images = _arrange_images(_read_array(archive, path, f"x_{part}", IMAGE_TYPES), f"{path}: x_{part}")
    labels = _read_array(archive, path, f"y_{part}", LABEL_TYPES)
    if labels.shape != (len(images),):
        raise DataError(f"{path}: y_{part}: shape {labels.shape} where x_{part} asks for ({len(images)},)")
    if not 0 <= labels.min() <= labels.max() < MAX_CLASSES:
        raise DataError(
            f"{path}: y_{part}: labels {labels.min()}..{labels.max()} are not in 0..{MAX_CLASSES - 1}"
        )
    return Split(images, labels.astype(np.int64))


def _read_array(archive: zipfile.ZipFile, path: FilePath, name: str, types: set[str]) -> Array:
    members = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if len(members) != 1:
        raise DataError(
            f"{path}: holds {len(members)} arrays {name}; "
            "it takes one each of x_train, y_train, x_test and y_test"
        )
    (member,) = members
    source = f"{path}: {name}"
    if member.compress_type not in COMPRESSIONS or member.flag_bits & ENCRYPTED:
        raise DataError(f"{source}: encrypted, or packed otherwise than numpy.savez_compressed does")
    with archive.open(member) as stream:
        shape, fortran_order, dtype = _read_header(stream, source, types)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 1 or size > MAX_IMAGE_BYTES:
            raise DataError(
                f"{source}: shape {shape} has no elements, or takes more than {MAX_IMAGE_BYTES} bytes"
            )
        data = read_exactly(stream, size, source)
        if stream.read(1):
            raise DataError(f"{source}: goes on after the {size} bytes that its header promises")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_header(stream: Stream, source: str, types: set[str]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is column-major, and type. Raises DataError for any other than plain numbers."""
    magic = read_exactly(stream, len(MAGIC), source)
    if magic != MAGIC:  # the header of another version may take 4 GiB
        raise DataError(f"{source}: not in version 1.0 of the .npy format; save it with numpy.savez")
    length = int.from_bytes(read_exactly(stream, 2, source), "little")
    if length > MAX_HEADER_BYTES:
        raise DataError(f"{source}: its header takes {length} bytes, more than {MAX_HEADER_BYTES}")
    header = _HEADER.fullmatch(read_exactly(stream, length, source).decode("latin-1"))
    fields = dict(zip(header.groups()[::2], header.groups()[1::2], strict=True)) if header else {}
    match fields:
        case {"descr": str(descr), "fortran_order": "True" | "False" as order, "shape": str(shape)}:
            if descr[0] == "'" and shape[0] == "(":
                if descr[1:2] not in "<>|=" or descr[2:-1] not in types:
                    known = ", ".join(sorted(types))
                    raise DataError(
                        f"{source}: type {descr[1:-1][:SHOWN_CHARACTERS]!r} is not known; accepted: {known}"
                    )
                return tuple(map(int, re.findall("[0-9]+", shape))), order == "True", np.dtype(descr[1:-1])
    raise DataError(f"{source}: its header is none that numpy.save writes for an array of numbers")


def _arrange_images(images: Array, source: str) -> Array:
    """The same images as (N, C, H, W), uint8 or float32."""
    channels_first, channels_last = (images.ndim == 4 and images.shape[axis] in CHANNELS for axis in (1, -1))
    if channels_first and channels_last:
        raise DataError(
            f"{source}: shape {images.shape} can mean (N, C, H, W) and (N, H, W, C); "
            "give wider images, or grey ones as (N, H, W)"
        )
    if images.ndim == 3:
        images = images[:, None]
    elif channels_last:
        images = images.transpose(0, 3, 1, 2)
    elif not channels_first:
        raise DataError(
            f"{source}: shape {images.shape} is neither (N, H, W), "
            "nor (N, C, H, W) or (N, H, W, C) with 1 or 3 channels"
        )
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    with np.errstate(over="ignore"):
        images = np.ascontiguousarray(images, np.float32)
    if not np.isfinite(images).all():
        raise DataError(f"{source}: holds NaN, infinities or numbers beyond float32; pixels must be finite")
    return images


def _name_classes(train: Array, test: Array, path: FilePath) -> tuple[str, ...]:
    counts = np.bincount(train)
    if not counts.all():
        raise DataError(f"{path}: y_train: no label {counts.argmin()} below the greatest, {len(counts) - 1}")
    if test.max() >= len(counts):
        raise DataError(
            f"{path}: y_test: label {test.max()} is not in 0..{len(counts) - 1}, as those of y_train are"
        )
    return tuple(map(str, range(len(counts))))
