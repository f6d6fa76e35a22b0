"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

Believes no header: takes exactly the bytes that it promises, in pieces, so that neither a
lie nor a gzip bomb costs more memory than the images would. Refuses files that end early or
go on, and labels without a class. Source: LeCun et al., "The MNIST database".
"""

import math
import os
import struct
from pathlib import Path

import numpy as np

from cnnctl.data.dataset import MAX_IMAGE_BYTES, Array, Split
from cnnctl.data.files import FilePath, Stream, open_packed_file, read_exactly
from cnnctl.errors import DataError

LABELS_MAGIC = 0x0801
IMAGES_MAGIC = 0x0803
"""Two zero bytes, 8 for unsigned bytes, and the number of extents that follow."""
MNIST_CLASSES = 10


def read_mnist_folder(folder: FilePath) -> tuple[Split, Split]:
    """The training and the test split of a folder with MNIST's four files.

    They are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, each unpacked or, if there is no such file, with .gz behind.
    Raises DataError.
    """
    train, test = (_read_split(Path(folder), prefix) for prefix in ("train", "t10k"))
    sizes = [split.images.shape[2:] for split in (train, test)]
    if sizes[0] != sizes[1]:
        raise DataError(f"{folder}: (height, width) is {sizes[0]} for training and {sizes[1]} for testing")
    return train, test


def read_idx_images(path: FilePath) -> Array:
    """The grey images of an IDX3 file: (N, 1, H, W) uint8. Raises DataError."""
    with open_packed_file(path) as stream:
        count, height, width = _read_header(stream, path, IMAGES_MAGIC, 3)
        pixels = _read_body(stream, path, (count, height, width))
    return pixels.reshape(count, 1, height, width)


def read_idx_labels(path: FilePath, classes: int) -> Array:
    """The labels of an IDX1 file: (N,) int64, each below `classes`. Raises DataError."""
    with open_packed_file(path) as stream:
        labels = _read_body(stream, path, _read_header(stream, path, LABELS_MAGIC, 1))
    if labels.max() >= classes:
        at = int(labels.argmax())
        raise DataError(f"{path}: label {labels[at]} of image {at} is not in 0..{classes - 1}")
    return labels.astype(np.int64)


def _read_split(folder: Path, prefix: str) -> Split:
    images_path = _find_file(folder, f"{prefix}-images-idx3-ubyte")
    labels_path = _find_file(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx_images(images_path), read_idx_labels(labels_path, MNIST_CLASSES)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}"
        )
    return Split(images, labels)


def _find_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if os.path.exists(path):
            return path
    raise DataError(f"{folder}: holds neither {name} nor {name}.gz")


def _read_header(stream: Stream, path: FilePath, magic: int, extents: int) -> tuple[int, ...]:
    found, *shape = struct.unpack(f">{1 + extents}I", read_exactly(stream, 4 * (1 + extents), path))
    if found != magic:
        raise DataError(f"{path}: begins with {found:#010x} where this kind of IDX file has {magic:#010x}")
    if 0 in shape:
        raise DataError(f"{path}: its header promises extents {tuple(shape)}, hence no data")
    return tuple(shape)


def _read_body(stream: Stream, path: FilePath, shape: tuple[int, ...]) -> Array:
    size = math.prod(shape)
    if size > MAX_IMAGE_BYTES:
        raise DataError(f"{path}: its header promises {size} bytes, more than {MAX_IMAGE_BYTES}")
    data = read_exactly(stream, size, path)
    if stream.read(1):
        raise DataError(f"{path}: goes on after the {size} bytes that its header promises")
    return np.frombuffer(data, np.uint8)
