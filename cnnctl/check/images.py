"""How large a config's images are, from what is known beforehand or from the data set itself."""

import os

from cnnctl.config import DataConfig
from cnnctl.data import load_dataset
from cnnctl.data.catalog import find_entry
from cnnctl.nn import Shape


def find_image_shape(data: DataConfig, data_dir: str | os.PathLike[str] | None = None) -> Shape:
    """(C, H, W) of one image. Raises DataError for a folder or archive that cannot be read."""
    known = find_entry(data.dataset).image_shape
    if known and data.image_size is None:
        return known
    dataset = load_dataset(
        data.dataset, path=data.path, image_size=data.image_size, channels=data.channels, data_dir=data_dir
    )
    return dataset.image_shape
