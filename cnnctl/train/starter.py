"""A config to start from, of a shipped network and a data set that fit one another.

Puts together what the shipped configs say and tries the shapes, so that `train` will take it. Of a data set
that has to be downloaded only what the catalogue knows is looked at; one at a path is opened.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from cnnctl.config import config_from_dict
from cnnctl.config.shipped import Recipe, choose_data, choose_recipe, list_networks, read_network
from cnnctl.config.starter import set_classes, write_starter
from cnnctl.data import load_dataset
from cnnctl.data.catalog import FIELDS, find_entry
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.nn import Network, Shape
from cnnctl.train.build import build_network

NETWORK, DATASET = "quickstart", "shapes"
"""What needs no download and learns in a minute."""


def create_starter(network: str, dataset: str, path: str | None = None, folder: str = "") -> str:
    """The text of a config.

    Args:
        network: of the shipped ones.
        dataset: of the catalogue.
        path: the folder or .npz file, for the data sets that need one.
        folder: where the config will lie, to name the path from there.

    Raises ConfigError for a name that is not known and for a pair that does not fit, with those that do.
    """
    find_entry(dataset)
    config, shape = _put_together(network, dataset, path)
    try:
        built = _build(config, shape)
    except ShapeError as error:
        fitting = ", ".join(list_fitting_networks(dataset, path)) or "none"
        raise ConfigError(
            f"network: {network} does not fit {dataset}, images {shape}: {error}; those that fit: {fitting}"
        ) from None
    recipe, shipped = choose_recipe(network, dataset), read_network(network)
    if path is not None and not os.path.isabs(path):
        config["data"]["path"] = os.path.relpath(path, folder or ".")
    notes = [_describe_shape(layer.output_shape) for layer in built.layers]
    return write_starter(config, [*shipped.about.splitlines(), _describe_recipe(recipe, dataset)], notes)


def list_fitting_networks(dataset: str, path: str | None = None) -> list[str]:
    """The shipped networks that take that data set's images."""
    return [network for network in list_networks() if _fits(network, dataset, path)]


def _fits(network: str, dataset: str, path: str | None) -> bool:
    try:
        _build(*_put_together(network, dataset, path))
    except ShapeError:
        return False
    return True


def _build(config: dict[str, Any], shape: Shape) -> Network:
    return build_network(config_from_dict(config), shape)


def _put_together(network: str, dataset: str, path: str | None) -> tuple[dict[str, Any], Shape]:
    """A config as a mapping, its path as given, and the shape of one image."""
    shipped, recipe = read_network(network), choose_recipe(network, dataset)
    data, (shape, classes) = _prepare_data(dataset, recipe, path)
    settings = {**shipped.settings, "layers": set_classes(shipped.settings["layers"], classes)}
    return {"data": data, "network": settings, "solver": recipe.solver, "engine": recipe.engine}, shape


def _prepare_data(dataset: str, recipe: Recipe, path: str | None) -> tuple[dict[str, Any], tuple[Shape, int]]:
    """The data's keys; shape of an image and number of classes."""
    data, entry = dict(choose_data(dataset, recipe)), find_entry(dataset)
    if (path is None) == (dataset in FIELDS["path"]):
        if path is None:
            raise ConfigError(f"data set: {dataset} is read from a folder or file; give it with --path")
        raise ConfigError(
            f"path: {path!r} is not usable with data set {dataset}; it is for {' and '.join(FIELDS['path'])}"
        )
    if entry.image_shape:
        channels, *sides = entry.image_shape
        side = data.get("image_size")
        return data, ((channels, *([side] * 2 if side else sides)), len(entry.classes))
    data["path"] = path
    if dataset == "folder":  # photographs of any size become what the network was made for
        native = find_entry(recipe.data["dataset"]).image_shape or (3, 32, 32)
        data |= {"image_size": recipe.data.get("image_size", native[1]), "channels": native[0]}
    shape, classes, images = _measure_images(dataset, path, data.get("image_size"), data.get("channels"))
    data["validation"] = images // 10
    return data, (shape, classes)


@cache
def _measure_images(
    dataset: str, path: str, image_size: int | None, channels: int | None
) -> tuple[Shape, int, int]:
    """Shape of an image, number of classes, number of training images: once for all networks tried."""
    opened = load_dataset(dataset, path=path, image_size=image_size, channels=channels, download=False)
    return opened.image_shape, len(opened.classes), len(opened.train)


def _describe_recipe(recipe: Recipe, dataset: str) -> str:
    trained = recipe.data["dataset"]
    where = "" if trained == dataset else f", where it learns {trained}"
    return f"Trained on {dataset} as configs/{recipe.name}.yaml has it{where}."


def _describe_shape(shape: Sequence[int]) -> str:
    """What leaves a layer: channels and pixels, or numbers.

    >>> _describe_shape((16, 32, 32)), _describe_shape((10,))
    ('16 x 32x32', '10')
    """
    channels, *sides = shape
    return f"{channels} x {'x'.join(map(str, sides))}" if sides else str(channels)
