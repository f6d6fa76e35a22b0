"""Deep Learning from Scratch's MNIST.

Read by `cnnctl.data`, which finds the files where `cnnctl data list` says, and downloads what is
missing; the book's own mnist.pkl is neither read nor written.
"""

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.log import log_download
from cnnctl.data import Split, load_dataset

__all__ = ["load_mnist"]

Pair = tuple[Array, Array]


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[Pair, Pair]:
    """(training images, labels), (test images, labels): 60,000 and 10,000.

    Args:
        normalize: float32 in 0..1; uint8 in 0..255 otherwise.
        flatten: (N, 784); (N, 1, 28, 28) otherwise.
        one_hot_label: labels are (N, 10) float64; (N,) uint8 otherwise.

    Raises DataError for missing or damaged files.
    """
    dataset = load_dataset("mnist", on_download=log_download)
    train, test = (
        _arrange(split, normalize, flatten, one_hot_label) for split in (dataset.train, dataset.test)
    )
    return train, test


def _arrange(split: Split, normalize: bool, flatten: bool, one_hot_label: bool) -> Pair:
    images = split.images.astype(np.float32) / 255 if normalize else split.images
    labels = np.eye(10)[split.labels] if one_hot_label else split.labels.astype(np.uint8)
    return images.reshape(len(images), -1) if flatten else images, labels
