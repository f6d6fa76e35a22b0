"""What a data set is in memory: images, labels, class names.

Reads no files and copies no pixels; parts of a split are views of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnctl.errors import DtypeError, ShapeError

Array = NDArray[Any]

IMAGE_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))
MAX_IMAGE_BYTES = 2**33
"""More than this in one data set is refused before anything is allocated."""
MAX_CLASSES = 2**16


@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """Images with their labels.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255 or float32.
        labels: (N,), int64 class numbers.
    """

    images: Array
    labels: Array

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ShapeError(
                f"images, labels: shapes {self.images.shape}, {self.labels.shape} are not (N, C, H, W), (N)"
            )
        if self.images.dtype not in IMAGE_DTYPES:
            raise DtypeError(f"images: dtype {self.images.dtype} is neither uint8 nor float32")
        if self.labels.dtype != np.int64:
            raise DtypeError(f"labels: dtype {self.labels.dtype} is not int64")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, start: int, stop: int) -> "Split":
        """The images from number `start` up to, not including, `stop`: a view."""
        return Split(self.images[start:stop], self.labels[start:stop])


@dataclass(frozen=True, eq=False, slots=True)
class Dataset:
    """A training and a test split of one image shape, and what the labels mean.

    Attributes:
        classes: the name of class k at position k.
        notes: what a user should be told about where this came from, such as a
            checksum that is not the official one.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ShapeError(
                f"{self.name}: training images are {self.train.images.shape[1:]}, "
                f"test images {self.test.images.shape[1:]}"
            )
        for split in (self.train, self.test):
            if len(split) and not (split.labels.min() >= 0 and split.labels.max() < len(self.classes)):
                raise ShapeError(
                    f"{self.name}: labels {split.labels.min()}..{split.labels.max()} "
                    f"do not fit the {len(self.classes)} classes"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        C, H, W = self.train.images.shape[1:]
        return C, H, W


@dataclass(frozen=True, eq=False, slots=True)
class Splits:
    """The images to learn from, to choose by (possibly none) and to report on."""

    train: Split
    validation: Split
    test: Split
