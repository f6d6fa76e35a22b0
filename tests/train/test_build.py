"""Every word of a configuration becomes the object it names, with its settings."""

from dataclasses import asdict

import numpy as np
import pytest

from cnnctl.config import config_from_dict
from cnnctl.nn import Conv, Flatten, Gaussian, He, Linear, MaxPool, ReLU, Xavier
from cnnctl.optim import SGD, Adam
from cnnctl.train.build import build_experiment, build_kind, build_network
from cnnctl.train.observer import Observer


def with_layers(config, *layers, **network):
    return config_from_dict({**config, "network": {"layers": list(layers), **network}})


@pytest.mark.parametrize(
    ("layer", "kind", "attributes"),
    [
        (
            {"conv": {"filters": 6, "kernel": [3, 5], "padding": "same", "groups": 1, "bias": False}},
            Conv,
            {"filters": 6, "groups": 1, "bias": False, "name": "conv1"},
        ),
        ({"maxpool": 2}, MaxPool, {"name": "maxpool1"}),
        (
            {"maxpool": {"kernel": 3, "stride": 2, "padding": 1, "name": "shrink"}},
            MaxPool,
            {"name": "shrink"},
        ),
        ({"linear": 5}, Linear, {"units": 5, "bias": True}),
        ("relu", ReLU, {"name": "relu1"}),
        ("flatten", Flatten, {"name": "flatten1"}),
    ],
)
def test_layers(config, layer, kind, attributes):
    network = build_network(with_layers(config, layer), (1, 8, 8))
    (built,) = network.layers
    assert type(built) is kind
    assert {key: getattr(built, key) for key in attributes} == attributes


def test_windows(config):
    layers = [
        {"conv": {"filters": 2, "kernel": [3, 5], "stride": [1, 2], "padding": [1, 2], "dilation": 2}},
        {"maxpool": {"kernel": 2}},
    ]
    conv, pool = build_network(with_layers(config, *layers), (1, 16, 16)).layers
    assert asdict(conv.window) == {
        "kernel": (3, 5),
        "stride": (1, 2),
        "padding": ((1, 1), (2, 2)),
        "dilation": (2, 2),
    }
    assert (pool.window.kernel, pool.window.stride) == ((2, 2), (2, 2))


@pytest.mark.parametrize(
    ("init", "built"),
    [
        ({"gaussian": 0.02}, Gaussian(0.02)),
        ("gaussian", Gaussian()),
        ({"xavier": {"distribution": "uniform"}}, Xavier("uniform")),
        ("he", He()),
    ],
)
def test_initializers(config, init, built):
    layer = with_layers(config, {"linear": {"units": 4, "init": init}}).network.layers[0]
    assert build_kind(layer).init == built


def test_the_networks_initializer_goes_to_layers_without_one(config):
    network = build_network(with_layers(config, {"linear": 400}, init={"gaussian": 0.5}), (1, 8, 8))
    assert network.params["linear1.weight"].std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("optimizer", "built"),
    [
        ("sgd", SGD()),
        ({"sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}, SGD(0.1, 0.9, True)),
        ("adam", Adam()),
        ({"adam": {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6}}, Adam(0.1, 0.8, 0.9, 1e-6)),
    ],
)
def test_optimizers(config, optimizer, built):
    config["solver"]["optimizer"] = optimizer
    assert build_kind(config_from_dict(config).solver.optimizer) == built


def test_an_experiment_is_all_of_it(config):
    config["engine"] |= {"dtype": "float64", "threads": 2}
    config["data"] |= {"train": 30, "test": 8, "normalize": "unit"}
    experiment = build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())
    assert [len(experiment.get_split(name)) for name in ("train", "validation", "test")] == [30, 16, 8]
    assert experiment.normalizer.scale == pytest.approx(1 / 255)
    assert (experiment.backend.name, experiment.backend.threads) == ("im2col", 2)
    assert experiment.network.dtype == experiment.plan.dtype == np.float64
    assert experiment.plan.l2 == 0.001
    x, _ = experiment.batches.batch(0, 0)
    assert (x.dtype, x.shape) == (np.float64, (10, 1, 8, 8))


def test_batches_are_augmented_and_evaluation_is_not(config):
    config["data"]["augment"] = {"shift": 3}
    experiment = build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())
    plain = experiment.normalizer.apply(experiment.splits.train.images)
    x, _ = experiment.batches.batch(0, 0)
    assert not any(np.array_equal(image, other) for image in x[:3] for other in plain)
