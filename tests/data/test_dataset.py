"""What a data set is held to when it is made."""

from collections.abc import Callable

import numpy as np
import pytest

from cnnctl.data import Dataset, Split
from cnnctl.errors import DtypeError, ShapeError


def make_split(count: int = 4, shape: tuple[int, ...] = (1, 3, 2), labels: object = None) -> Split:
    images = np.arange(count * int(np.prod(shape)), dtype=np.uint8).reshape(count, *shape)
    return Split(images, np.arange(count) if labels is None else np.array(labels))


def test_a_part_is_a_view() -> None:
    split = make_split()
    part = split.select(1, 3)
    assert (len(part), part.labels.tolist()) == (2, [1, 2])
    assert np.shares_memory(part.images, split.images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image_types(dtype: type) -> None:
    assert len(Split(np.zeros((2, 3, 4, 5), dtype), np.zeros(2, np.int64))) == 2


@pytest.mark.parametrize(
    ("make", "error", "line"),
    [
        (
            lambda: Split(np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64)),
            ShapeError,
            "images, labels: shapes (2, 4, 4), (2,) are not (N, C, H, W), (N)",
        ),
        (
            lambda: Split(np.zeros((2, 1, 4, 4), np.uint8), np.zeros(3, np.int64)),
            ShapeError,
            "images, labels: shapes (2, 1, 4, 4), (3,) are not (N, C, H, W), (N)",
        ),
        (
            lambda: Split(np.zeros((2, 1, 4, 4)), np.zeros(2, np.int64)),
            DtypeError,
            "images: dtype float64 is neither uint8 nor float32",
        ),
        (
            lambda: Split(np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.uint8)),
            DtypeError,
            "labels: dtype uint8 is not int64",
        ),
        (
            lambda: Dataset("x", make_split(), make_split(shape=(1, 2, 3)), ("a",) * 4),
            ShapeError,
            "x: training images are (1, 3, 2), test images (1, 2, 3)",
        ),
        (
            lambda: Dataset("x", make_split(), make_split(labels=[0, 1, 2, 4]), ("a",) * 4),
            ShapeError,
            "x: labels 0..4 do not fit the 4 classes",
        ),
        (
            lambda: Dataset("x", make_split(labels=[0, -1, 2, 3]), make_split(), ("a",) * 4),
            ShapeError,
            "x: labels -1..3 do not fit the 4 classes",
        ),
    ],
)
def test_refusals(make: Callable[[], object], error: type[Exception], line: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == line


def test_a_data_set_knows_its_image_shape() -> None:
    dataset = Dataset("x", make_split(), make_split(count=0), ("a",) * 4)
    assert dataset.image_shape == (1, 3, 2)
    assert dataset.notes == ()
