"""What every side of a comparison is given alike: images, their order, and the weights to start from.

Loads or invents the images that a config names. Trains nothing, and augments nothing: a
peer would need the same random changes.
"""

import os
from copy import copy
from itertools import chain

import numpy as np

from cnnctl.backends.cpu import available_threads
from cnnctl.config import DataConfig, RunConfig
from cnnctl.data import Batches, Dataset, Normalizer, Split, make_splits
from cnnctl.data.catalog import find_entry
from cnnctl.data.dataset import Array
from cnnctl.data.pipeline import epoch_order
from cnnctl.data.shapes import TEST_COUNT, TRAIN_COUNT
from cnnctl.errors import ConfigError, DataError, describe_alternatives
from cnnctl.geometry import as_pair
from cnnctl.nn import Network
from cnnctl.train.build import build_network, open_dataset

SYNTHETIC = {
    "mnist": (60_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "shapes": (TRAIN_COUNT, TEST_COUNT),
}
"""Training and test images of the data sets that random pixels can stand in for."""
CLASSES = 10


class Workload:
    """A config's images and initial network, for one batch size.

    Attributes:
        split: the training images.
        threads: how many every side may use.
        batch_size: images a step; all of them if there are fewer than the config wants.
        steps_per_epoch: whole batches in a pass; what is left over is not used.
    """

    def __init__(
        self, config: RunConfig, *, synthetic: bool = False, data_dir: str | os.PathLike[str] | None = None
    ) -> None:
        data = config.data
        dataset = draw_synthetic(data) if synthetic else _load_images(config, data_dir)
        splits = make_splits(dataset, train=data.train, validation=data.validation, test=data.test)
        self.config, self.image_shape, self.split = config, dataset.image_shape, splits.train
        self.normalizer = Normalizer.fit(self.split.images, data.normalize)
        engine = config.engine
        self.threads = available_threads() if engine.threads == "auto" else engine.threads
        self.batch_size = min(config.solver.batch_size, len(self.split))
        self.steps_per_epoch = len(self.split) // self.batch_size
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def cast(self, dtype: str) -> "Workload":
        """The same in another float type; images are shared."""
        other = copy(self)
        engine = self.config.engine.model_copy(update={"dtype": dtype})
        other.config = self.config.model_copy(update={"engine": engine})
        return other

    def create_network(self, *, dropout: bool = True) -> Network:
        """The network with the weights it starts from; without `dropout`, its rates are 0."""
        network = build_network(self.config, self.image_shape)
        if not dropout:
            for layer in chain.from_iterable(layer.walk() for layer in network.layers):
                if layer.kind == "dropout":
                    layer.rate = 0.0  # type: ignore[attr-defined]
        return network

    def create_batches(self) -> Batches:
        """The batches in the order in which all sides see them."""
        engine = self.config.engine
        return Batches(self.split, self.normalizer, self.batch_size, seed=engine.seed, dtype=engine.dtype)

    def locate(self, number: int) -> tuple[int, int]:
        """Epoch and step of the batch of that number."""
        return divmod(number, self.steps_per_epoch)

    def choose_images(self, number: int) -> Array:
        """Which images make up that batch: the same as in `create_batches`."""
        epoch, step = self.locate(number)
        if epoch != self._epoch:  # once an epoch, as for our own batches
            self._epoch, self._order = epoch, epoch_order(len(self.split), self.config.engine.seed, epoch)
        return self._order[step * self.batch_size : (step + 1) * self.batch_size]


def draw_synthetic(data: DataConfig, seed: int = 0) -> Dataset:
    """Random pixels and labels, of the extents that the data set has, and as many as the config uses.

    Raises ConfigError for a data set whose extents are not known beforehand.
    """
    name, shape = data.dataset, find_entry(data.dataset).image_shape
    if name not in SYNTHETIC or shape is None:
        raise ConfigError(f"synthetic: {name!r} cannot be made up; {describe_alternatives(name, SYNTHETIC)}")
    if data.image_size is not None:
        shape = shape[0], *as_pair(data.image_size, "image_size")
    wanted = data.train and data.train + data.validation, data.test
    rng = np.random.default_rng(seed)
    train, test = (
        Split(rng.integers(0, 256, (images, *shape), np.uint8), rng.integers(0, CLASSES, images, np.int64))
        for images in (min(count or most, most) for count, most in zip(wanted, SYNTHETIC[name], strict=True))
    )
    return Dataset(name, train, test, tuple(map(str, range(CLASSES))))


def _load_images(config: RunConfig, data_dir: str | os.PathLike[str] | None) -> Dataset:
    data = config.data
    try:
        return open_dataset(data, data_dir, download=False)
    except DataError as error:
        hint = "; or measure on random pixels, with --synthetic" if data.dataset in SYNTHETIC else ""
        raise DataError(f"{error}{hint}") from error
