"""Every word of a configuration becomes the object it names, with its settings."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cnnctl.backends.fast import INSTRUCTION_SETS
from cnnctl.config import config_from_dict, load_config
from cnnctl.config.schema import EngineConfig
from cnnctl.data import Augment
from cnnctl.errors import ConfigError
from cnnctl.nn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Constant,
    Conv,
    Dropout,
    Flatten,
    Gaussian,
    GlobalAvgPool,
    GroupNorm,
    He,
    InstanceNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Orthogonal,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Subsampling,
    Tanh,
    Xavier,
)
from cnnctl.optim import SGD, AdaGrad, Adam, Adamax, AdamW, Lion, Penalty, RMSprop, schedule
from cnnctl.train.build import build_backend, build_experiment, build_kind, build_network, build_schedule
from cnnctl.train.observer import Observer

CONFIGS = Path(__file__).parents[2] / "configs"


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
        ({"avgpool": {"kernel": 2, "name": "shrink"}}, AvgPool, {"name": "shrink"}),
        ("globalavgpool", GlobalAvgPool, {"output_shape": (1,)}),
        ("batchnorm", BatchNorm, {"eps": 1e-5, "momentum": 0.1}),
        ({"batchnorm": {"eps": 0.1, "momentum": 0.2}}, BatchNorm, {"eps": 0.1, "momentum": 0.2}),
        ("lrn", LocalResponseNorm, {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}),
        (
            {"lrn": {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2}},
            LocalResponseNorm,
            {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2},
        ),
        ({"dropout": 0.3}, Dropout, {"rate": 0.3, "name": "dropout1"}),
        (
            {"dropout": {"rate": 0.2, "spatial": True}},
            Dropout,
            {"rate": 0.2, "spatial": True, "name": "dropout1"},
        ),
        ({"groupnorm": 1}, GroupNorm, {"groups": 1, "eps": 1e-5}),
        ({"layernorm": {"eps": 0.1}}, LayerNorm, {"eps": 0.1}),
        ("instancenorm", InstanceNorm, {"eps": 1e-5, "name": "instancenorm1"}),
        ({"subsampling": 2}, Subsampling, {"output_shape": (1, 4, 4)}),
        ("tanh", Tanh, {}),
        ("sigmoid", Sigmoid, {}),
        ("gelu", GELU, {}),
        ("silu", SiLU, {}),
        ({"leaky_relu": 0.2}, LeakyReLU, {"slope": 0.2, "alpha": 0.2}),
        ("elu", ELU, {"alpha": 1.0}),
        ("relu", ReLU, {"name": "relu1"}),
        ("flatten", Flatten, {"name": "flatten1"}),
    ],
)
def test_layers(config, layer, kind, attributes):
    network = build_network(with_layers(config, layer), (1, 8, 8))
    (built,) = network.layers
    assert type(built) is kind
    assert {key: getattr(built, key) for key in attributes} == attributes


def test_layers_within_layers(config):
    inner = {"residual": {"layers": [{"conv": {"filters": 2, "kernel": 3, "padding": [1, 1]}}, "batchnorm"]}}
    shortcut = [{"conv": {"filters": 2, "kernel": 1}}]
    block = {"residual": {"layers": [shortcut[0], inner], "shortcut": shortcut, "name": "block"}}
    (built,) = build_network(with_layers(config, block), (1, 8, 8)).layers
    assert type(built) is Residual
    assert [type(layer) for layer in built.layers] == [Conv, Residual]
    assert [type(layer) for layer in built.shortcut] == [Conv]
    _, within = built.layers
    assert isinstance(within, Residual)
    assert [type(layer) for layer in within.layers] == [Conv, BatchNorm]
    conv, _ = within.layers
    assert isinstance(conv, Conv)
    assert (conv.name, conv.window.padding) == ("block.residual1.conv1", ((1, 1), (1, 1)))


@pytest.mark.parametrize(
    ("name", "input_shape", "parameters"),
    [
        ("fashion_lenet5", (1, 28, 28), 61_706 + 2 * (6 + 16)),
        ("cifar10_vgg", (3, 32, 32), 307_946),
        ("cifar10_resnet20", (3, 32, 32), 272_474),
        ("cifar10_alexnet", (3, 32, 32), 5_671_754),
    ],
)
def test_shipped_networks_have_the_published_sizes(name, input_shape, parameters):
    """LeNet-5 with two norms; ResNet-20 with projections: 0.27 million, as He et al. 2016 have it."""
    network = build_network(load_config(CONFIGS / f"{name}.yaml"), input_shape)
    assert (network.parameter_count, network.output_shape) == (parameters, (10,))


@pytest.mark.parametrize(
    ("settings", "attributes"),
    [
        ({}, {"name": "fast", "isa": None, "exact": False}),
        ({"isa": INSTRUCTION_SETS[0], "exact": True}, {"isa": INSTRUCTION_SETS[0], "exact": True}),
        ({"backend": "naive", "exact": True, "threads": 3}, {"name": "naive", "threads": 3}),
    ],
)
def test_backends(settings, attributes):
    backend = build_backend(EngineConfig(**settings))
    assert {key: getattr(backend, key) for key in attributes} == attributes


def test_an_instruction_set_this_processor_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"^isa: 'sse9' is not one this processor runs; known: "):
        build_backend(EngineConfig(isa="sse9"))


def test_windows(config):
    layers = [
        {"conv": {"filters": 2, "kernel": [3, 5], "stride": [1, 2], "padding": [1, 2], "dilation": 2}},
        {"maxpool": {"kernel": 2}},
    ]
    conv, pool = build_network(with_layers(config, *layers), (1, 16, 16)).layers
    assert isinstance(conv, Conv)
    assert isinstance(pool, MaxPool)
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
        ({"he": {"fan": "out"}}, He(fan="out")),
        ({"constant": 0.5}, Constant(0.5)),
        ({"orthogonal": {"gain": 2}}, Orthogonal(2.0)),
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
        ("adamw", AdamW()),
        ("adamax", Adamax()),
        ("adagrad", AdaGrad()),
        ("rmsprop", RMSprop()),
        ({"rmsprop": {"momentum": 0.9, "centered": True}}, RMSprop(momentum=0.9, centered=True)),
        ("lion", Lion()),
    ],
)
def test_optimizers(config, optimizer, built):
    config["solver"]["optimizer"] = optimizer
    assert build_kind(config_from_dict(config).solver.optimizer) == built


@pytest.mark.parametrize(
    ("choice", "built"),
    [
        ("constant", schedule.Constant()),
        ({"step": 2}, schedule.Step(2.0)),
        ({"multistep": {"epochs": [1, 2], "gamma": 0.5}}, schedule.MultiStep((1.0, 2.0), 0.5)),
        ({"exponential": 0.9}, schedule.Exponential(0.9)),
        ({"inverse": {"gamma": 0.1}}, schedule.Inverse(0.1)),
        ("polynomial", schedule.Polynomial()),
        ("cosine", schedule.Cosine()),
        ("onecycle", schedule.OneCycle()),
        ("plateau", schedule.ReduceOnPlateau()),
    ],
)
def test_schedules(config, choice, built):
    config["solver"]["schedule"] = choice
    assert build_schedule(config_from_dict(config).solver.schedule) == built


def test_every_setting_of_an_update_reaches_the_plan(config):
    config["solver"] |= {"clip_value": 0.5, "clip_norm": 2, "accumulate": 3, "l1": 0.2, "l2": 0.1}
    config["solver"]["groups"] = [
        {"match": "*.bias", "lr_scale": 2, "l1": 0.3, "l2": 0.5, "weight_decay": 0.25}
    ]
    plan = build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer()).plan
    assert (plan.clip_value, plan.clip_norm, plan.accumulate) == (0.5, 2, 3)
    assert [(sweep.lr_scale, sweep.penalty, sweep.optimizer.weight_decay) for sweep in plan._sweeps] == [
        (2, Penalty(0.3, 0.5), 0.25),
        (1, Penalty(0.2, 0.1), 0),
    ]


def test_every_change_reaches_the_batches(config):
    changes = {"flip": True, "padding": "edge", "brightness": 0.1, "contrast": 0.2, "cutout": 3, "mixup": 0.5}
    config["data"]["augment"] = {**changes, "crop": 2}
    experiment = build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())
    assert experiment.batches._augment == Augment(**changes, shift=2)


def test_early_stopping_needs_images_to_watch(config):
    config["solver"]["early_stopping"] = {}
    assert build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())
    config["data"]["validation"] = 0
    with pytest.raises(ConfigError, match=r"solver\.early_stopping: there are no images to watch; give data"):
        build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())


def test_a_pattern_that_matches_nothing_is_named(config):
    config["solver"]["groups"] = [{"match": "conv1.wieght"}]
    with pytest.raises(ConfigError) as caught:
        build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())
    line = "solver.groups: 'conv1.wieght' matches no parameter; did you mean conv1.weight?"
    assert str(caught.value) == line


def test_an_experiment_is_all_of_it(config):
    config["engine"] |= {"dtype": "float64", "threads": 2}
    config["data"] |= {"train": 30, "test": 8, "normalize": "unit"}
    experiment = build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())
    assert [len(experiment.get_split(name)) for name in ("train", "validation", "test")] == [30, 16, 8]
    assert experiment.normalizer.scale == pytest.approx(1 / 255)
    assert (experiment.backend.name, experiment.backend.threads) == ("im2col", 2)
    assert experiment.network.dtype == experiment.plan.dtype == np.float64
    assert experiment.plan.penalty.l2 == 0.001
    x, _ = experiment.batches.batch(0, 0)
    assert (x.dtype, x.shape) == (np.float64, (10, 1, 8, 8))


def test_batches_are_augmented_and_evaluation_is_not(config):
    config["data"]["augment"] = {"shift": 3}
    experiment = build_experiment(config_from_dict(config), "hash", data_dir=None, observer=Observer())
    plain = experiment.normalizer.apply(experiment.splits.train.images)
    x, _ = experiment.batches.batch(0, 0)
    assert not any(np.array_equal(image, other) for image in x[:3] for other in plain)
