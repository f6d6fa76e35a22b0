"""A tiny MNIST: four IDX files in the official layout, ten images in each split."""

import gzip
import struct
from pathlib import Path

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def write_mnist(folder: Path, packed: bool = True) -> Path:
    """Make `folder` with the files, image k of either split having label k; returns it."""
    folder.mkdir(parents=True)
    images = struct.pack(">IIII", 0x803, 10, 5, 4) + bytes(range(200))
    labels = struct.pack(">II", 0x801, 10) + bytes(range(10))
    for name, content in zip(NAMES, (images, labels) * 2, strict=True):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)
    return folder
