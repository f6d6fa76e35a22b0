"""cs231n's CIFAR-10: subsets as float64 arrays, mean image subtracted.

Read by `cnnctl.data`, which runs no pickle, finds the files where `cnnctl data list` says, and
downloads what is missing.
"""

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.log import log_download
from cnnctl.data import Split, load_dataset
from cnnctl.data.catalog import PathLike
from cnnctl.data.cifar import read_cifar10
from cnnctl.errors import ConfigError

__all__ = ["get_CIFAR10_data", "load_CIFAR10"]


def load_CIFAR10(ROOT: PathLike) -> tuple[Array, Array, Array, Array]:  # noqa: N802 (the course's name)
    """X_train (50000,32,32,3), y_train, X_test (10000,32,32,3), y_test from an official folder or archive.

    Images are float64 in 0..255. Raises DataError for files that are missing or damaged.
    """
    train, test, _ = read_cifar10(ROOT)
    X_train, X_test = (split.images.transpose(0, 2, 3, 1).astype(np.float64) for split in (train, test))
    return X_train, train.labels, X_test, test.labels


def get_CIFAR10_data(  # noqa: N802
    num_training: int = 49000,
    num_validation: int = 1000,
    num_test: int = 1000,
    subtract_mean: bool = True,
) -> dict[str, Array]:
    """X_train, y_train, X_val, y_val, X_test, y_test: the first images of either official part.

    Validation images are those behind the training images. Images are (N,3,32,32) float64 in
    0..255, less the mean of X_train, pixel by pixel, if `subtract_mean`; labels int64.
    Raises ConfigError for more images than there are, DataError for missing or damaged files.
    """
    dataset = load_dataset("cifar10", on_download=log_download)
    available = {"num_training + num_validation": len(dataset.train), "num_test": len(dataset.test)}
    wanted = (num_training + num_validation, num_test)
    for (field, count), number in zip(available.items(), wanted, strict=True):
        if not 0 < number <= count:
            raise ConfigError(f"{field}: {number} is not in 1..{count}")
    splits = {
        "train": dataset.train.select(0, num_training),
        "val": dataset.train.select(num_training, num_training + num_validation),
        "test": dataset.test.select(0, num_test),
    }
    mean = splits["train"].images.mean(axis=0, dtype=np.float64) if subtract_mean else 0.0
    return {key: array for part, split in splits.items() for key, array in _name_arrays(part, split, mean)}


def _name_arrays(part: str, split: Split, mean: Array | float) -> tuple[tuple[str, Array], ...]:
    return (f"X_{part}", np.subtract(split.images, mean, dtype=np.float64)), (f"y_{part}", split.labels)
