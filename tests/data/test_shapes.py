"""The built-in data set: the same bytes everywhere, balanced, and no match for a linear classifier."""

import hashlib

import numpy as np
import pytest

from cnnctl.data import Dataset
from cnnctl.data.dataset import Array
from cnnctl.data.shapes import CLASSES, draw_shapes


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return draw_shapes(seed=0, train=3000, test=1000)


def hash_images(dataset: Dataset) -> str:
    return hashlib.sha256(dataset.train.images.tobytes() + dataset.test.images.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "7983822255338a96c8bd25ba1d561d71dd052dd2a6e4c4f7679fa3a5cce0426a"),
        (2**63 - 1, "519572ae40187c91e078c908c45ae425d533084f1ff61b7cc4ea902c1dae8537"),
    ],
)
def test_pixels_are_pinned(seed: int, digest: str) -> None:
    """A changed digest means that every score on `shapes` quoted so far no longer counts."""
    assert hash_images(draw_shapes(seed, train=30, test=10)) == digest


def test_labels_are_pinned() -> None:
    assert draw_shapes(0, 10, 10).train.labels.tolist() == [5, 1, 7, 8, 3, 9, 6, 0, 4, 2]


def test_form(shapes: Dataset) -> None:
    assert shapes.image_shape == (3, 32, 32)
    assert shapes.train.images.dtype == np.uint8
    assert shapes.classes == CLASSES
    assert len(CLASSES) == 10


@pytest.mark.parametrize("side", [4, 7, 40])
def test_another_size(side: int) -> None:
    """The same shapes, places and colours: small ones are about the large ones, shrunk."""
    images = draw_shapes(0, 20, 10, side).train.images
    assert images.shape == (20, 3, side, side)
    assert images.dtype == np.uint8
    small, usual = (draw_shapes(0, 200, 10, size).train.images.mean(axis=(2, 3)) for size in (side, 32))
    assert np.corrcoef(small.ravel(), usual.ravel())[0, 1] > 0.95


def test_a_smaller_draw_is_the_beginning_of_a_larger(shapes: Dataset) -> None:
    few = draw_shapes(seed=0, train=20, test=0)
    assert np.array_equal(few.train.images, shapes.train.images[:20])
    assert np.array_equal(few.train.labels, shapes.train.labels[:20])
    assert len(few.test) == 0


def test_seeds_and_splits_differ(shapes: Dataset) -> None:
    other = draw_shapes(seed=1, train=100, test=0).train.images
    assert not np.array_equal(other, shapes.train.images[:100])
    assert len(np.unique(np.concatenate([shapes.train.images, shapes.test.images]), axis=0)) == 4000


def test_classes_are_equally_frequent(shapes: Dataset) -> None:
    for split in (shapes.train, shapes.test):
        assert np.bincount(split.labels).tolist() == [len(split) // 10] * 10
    assert sorted(shapes.train.labels[:10]) == list(range(10))


def test_no_pixel_tells_the_class(shapes: Dataset) -> None:
    """Per class, the mean image stays grey: shapes are lighter or darker with equal chance."""
    grey = shapes.train.images.mean()
    for label in range(10):
        mean = shapes.train.images[shapes.train.labels == label].mean(axis=0)
        assert abs(mean - grey).max() < 20


def test_a_linear_classifier_stays_below_60_percent(shapes: Dataset) -> None:
    """Ridge regression onto one-hot labels from images of half the side, with the best ridge of four."""

    def halve(images: Array) -> Array:
        blocks = images.reshape(len(images), 3, 16, 2, 16, 2).mean(axis=(3, 5)) / 255 - 0.5
        return np.column_stack([blocks.reshape(len(images), -1), np.ones(len(images))])

    x, test_x = halve(shapes.train.images), halve(shapes.test.images)
    targets = x.T @ np.eye(10)[shapes.train.labels]
    accuracies = []
    for ridge in (1.0, 10.0, 100.0, 1000.0):
        scores = test_x @ np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), targets)
        accuracies.append(np.mean(scores.argmax(axis=1) == shapes.test.labels))
    assert 0.1 < max(accuracies) < 0.6
