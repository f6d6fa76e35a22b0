"""How large a config's images are, from what is known beforehand or from the data set itself."""

import os

from cnnctl.config import DataConfig
from cnnctl.data import load_dataset
from cnnctl.nn import Shape

IMAGE_SHAPES: dict[str, Shape] = {
    "mnist": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "shapes": (3, 32, 32),
}
"""Data sets that need not be there for their shape to be known."""


def find_image_shape(data: DataConfig, data_dir: str | os.PathLike[str] | None = None) -> Shape:
    """(C, H, W) of one image. Raises DataError for a folder or archive that cannot be read."""
    if data.dataset in IMAGE_SHAPES and data.image_size is None:
        return IMAGE_SHAPES[data.dataset]
    dataset = load_dataset(
        data.dataset, path=data.path, image_size=data.image_size, channels=data.channels, data_dir=data_dir
    )
    return dataset.image_shape
