"""What all sides of a comparison have in common."""

import numpy as np
import pytest

from cnnctl.bench import workload as workload_module
from cnnctl.bench.workload import SYNTHETIC, Workload, draw_synthetic
from cnnctl.config import DataConfig
from cnnctl.data.catalog import CATALOG
from cnnctl.data.pipeline import epoch_order
from cnnctl.errors import ConfigError, DataError
from cnnctl.nn import Dropout


def test_the_images_chosen_are_those_of_our_batches(make_config):
    workload = Workload(make_config())
    batches = workload.create_batches()
    for number in range(7):
        drawn = batches.draw(*workload.locate(number))
        assert np.array_equal(workload.choose_images(number), drawn.chosen)


def test_whole_batches_alone_are_used(make_config):
    workload = Workload(make_config())  # 40 images in batches of 16
    assert workload.steps_per_epoch == 2
    assert [len(workload.choose_images(number)) for number in range(4)] == [16] * 4


def test_a_batch_of_more_images_than_there_are_is_all_of_them(make_config):
    workload = Workload(make_config(solver={"optimizer": "sgd", "epochs": 1, "batch_size": 1000}))
    assert (workload.batch_size, workload.steps_per_epoch) == (40, 1)


def test_the_order_is_drawn_once_an_epoch(make_config, monkeypatch):
    drawn = []

    def draw(*args):
        drawn.append(args)
        return epoch_order(*args)

    monkeypatch.setattr(workload_module, "epoch_order", draw)
    workload = Workload(make_config())
    for number in range(6):
        workload.choose_images(number)
    assert [epoch for _, _, epoch in drawn] == [0, 1, 2]


def test_networks_start_from_the_same_weights(make_config):
    workload = Workload(make_config())
    first, second = workload.create_network(), workload.create_network(dropout=False)
    assert first.params.keys() == second.params.keys()
    for key, w in first.params.items():
        assert np.array_equal(w, second.params[key])


def test_dropout_can_be_left_out_of_blocks_too(make_config):
    block = {"residual": {"layers": [{"dropout": 0.5}]}}
    layers = [{"dropout": 0.25}, block, {"linear": 4}]
    workload = Workload(make_config(network={"layers": layers}))
    rates = [
        [layer.rate for outer in network.layers for layer in outer.walk() if isinstance(layer, Dropout)]
        for network in (workload.create_network(), workload.create_network(dropout=False))
    ]
    assert rates == [[0.25, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_random_pixels_have_the_extents_of_the_data_set(name, monkeypatch):
    images, shape = SYNTHETIC[name][0] // 1000, CATALOG[name].image_shape
    monkeypatch.setitem(SYNTHETIC, name, (images, 10))
    data = DataConfig(dataset=name)
    dataset = draw_synthetic(data)
    assert dataset.train.images.shape == (images, *(shape or ()))
    assert (len(dataset.test), len(dataset.classes)) == (10, 10)
    assert np.array_equal(draw_synthetic(data).train.images, dataset.train.images)


def test_of_random_pixels_no_more_are_drawn_than_used():
    data = DataConfig(dataset="shapes", train=5, validation=2, test=3, image_size=9)
    dataset = draw_synthetic(data)
    assert (dataset.train.images.shape, len(dataset.test)) == ((7, 3, 9, 9), 3)


def test_a_data_set_of_unknown_extents_cannot_be_made_up():
    with pytest.raises(ConfigError, match=r"^synthetic: 'folder' cannot be made up; known: mnist, "):
        draw_synthetic(DataConfig(dataset="folder", path="x"))


def test_a_data_set_that_is_missing_is_not_downloaded(make_config, tmp_path, monkeypatch):
    monkeypatch.delenv("CNNCTL_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"not found.* or measure on random pixels, with --synthetic$"):
        Workload(make_config(data={"dataset": "fashion-mnist"}))
