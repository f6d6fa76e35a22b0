"""The schema: every field's default, its range, and the words it is refused with."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cnnctl.config import config_from_dict, config_to_dict, network
from cnnctl.config.fields import Section
from cnnctl.config.network import (
    AvgPoolConfig,
    BatchNormConfig,
    ConvConfig,
    DropoutConfig,
    ELUConfig,
    GaussianConfig,
    GELUConfig,
    GlobalAvgPoolConfig,
    GroupNormConfig,
    HeConfig,
    InstanceNormConfig,
    LayerNormConfig,
    LeakyReLUConfig,
    LinearConfig,
    LrnConfig,
    MaxPoolConfig,
    ReLUConfig,
    ResidualConfig,
    SigmoidConfig,
    SiLUConfig,
    SoftmaxConfig,
    SubsamplingConfig,
    TanhConfig,
    XavierConfig,
)
from cnnctl.config.solver import (
    AdaGradConfig,
    AdamaxConfig,
    AdamConfig,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    ExponentialConfig,
    InverseConfig,
    LionConfig,
    MultiStepConfig,
    OneCycleConfig,
    PlateauConfig,
    PolynomialConfig,
    RMSpropConfig,
    SGDConfig,
    StepConfig,
)
from cnnctl.errors import ConfigError

KINDS = (
    "conv, maxpool, avgpool, subsampling, globalavgpool, linear, flatten, relu, leaky_relu, elu, tanh, "
    "sigmoid, gelu, silu, batchnorm, layernorm, groupnorm, instancenorm, lrn, dropout, residual"
)

Refusal = Callable[..., str]
Mapping = dict[str, Any]


def change(config: Mapping, path: str, value: object) -> Mapping:
    """The mapping with one field set, `path` dotted; mappings on the way are made."""
    *above, last = path.split(".")
    section = config
    for key in above:
        section = section.setdefault(key, {})
    section[last] = value
    return config


def all_sections(section: type[Section] = Section) -> list[type[Section]]:
    return [section, *(found for below in section.__subclasses__() for found in all_sections(below))]


def test_defaults(minimal: Mapping) -> None:
    config = config_from_dict(minimal)
    assert config.name == "run"
    assert (config.data.normalize, config.data.validation, config.data.train) == ("standardize", 0, None)
    assert (config.data.augment.flip, config.data.augment.shift, config.data.seed) == (False, 0, 0)
    assert (config.network.loss, config.network.init) == (SoftmaxConfig(), HeConfig())
    assert config.solver.optimizer == AdamConfig(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
    assert (config.solver.l2, config.solver.max_steps) == (0.0, None)
    assert (config.solver.log_every, config.solver.checkpoints.keep) == (50, 0)
    assert config.engine.model_dump() == {
        "backend": "fast",
        "dtype": "float32",
        "threads": "auto",
        "seed": 0,
        "isa": None,
        "exact": False,
    }


def test_a_config_does_not_change(minimal: Mapping) -> None:
    with pytest.raises(ValueError, match="frozen"):
        config_from_dict(minimal).solver.epochs = 2


@pytest.mark.parametrize("section", all_sections()[1:], ids=lambda section: section.__name__)
def test_every_field_is_described(section: type[BaseModel]) -> None:
    assert all(field.description for field in section.model_fields.values())


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("name", "a b", "'a b' is not usable; give 1 to 64 letters, digits, '.', '_' and '-'"),
        ("name", "../x", "'../x' is not usable"),
        ("name", "x\n", r"'x\n' is not usable"),
        ("name", 7, "7 is not usable"),
        ("data", 3, "3 is not usable; give a mapping of dataset, path, train"),
        ("data.dataset", "mnits", "'mnits' is not known; did you mean mnist?"),
        (
            "data.dataset",
            None,
            "null is not known; known: mnist, fashion-mnist, cifar10, folder, npz, shapes",
        ),
        ("data.path", "", "'' is not usable; give a path"),
        ("data.train", 0, "0 is not usable; give an integer of at least 1"),
        ("data.validation", -1, "-1 is not usable; give an integer of at least 0"),
        ("data.validation", 1.0, "1.0 is not usable"),
        ("data.test", "3", "'3' is not usable"),
        ("data.normalize", "standardise", "'standardise' is not known; did you mean standardize?"),
        ("data.augment.flip", "yes", "'yes' is not usable; give true or false"),
        ("data.augment.flip", 1, "1 is not usable; give true or false"),
        ("data.augment.padding", "mirror", "'mirror' is not known; known: zero, edge, reflect"),
        ("data.augment.brightness", 1, "1 is not usable; give a number of at least 0 and below 1"),
        ("data.augment.mixup", 1.5, "1.5 is not usable; give a number of at least 0 and at most 1"),
        ("data.augment.cutout", -1, "-1 is not usable; give an integer of at least 0"),
        ("data.augment.shift", True, "true is not usable; give an integer of at least 0"),
        ("data.seed", 2**63, "9223372036854775808 is not usable; give an integer from 0 to 2^63 - 1"),
        ("network.layers", [], "[] is not usable; give a list of layers, at least one"),
        ("network.layers", {"relu": {}}, '{"relu": {}} is not usable; give a list of layers'),
        ("network.loss", "hing", "'hing' is not known; did you mean hinge?"),
        ("network.init", "xaver", "'xaver' is not known; did you mean xavier?"),
        (
            "network.init",
            0.5,
            "0.5 is not usable; give one of constant, gaussian, xavier, he, orthogonal: the",
        ),
        ("solver.optimizer", "adm", "'adm' is not known; did you mean adam?"),
        ("solver.optimizer", {"adam": {}, "sgd": {}}, '{"adam": {}, "sgd": {}} is not usable; give one of'),
        ("solver.epochs", "three", "'three' is not usable; give an integer of at least 1"),
        ("solver.epochs", True, "true is not usable"),
        ("solver.batch_size", 2.5, "2.5 is not usable"),
        ("solver.l2", -0.1, "-0.1 is not usable; give a number of at least 0"),
        ("solver.l2", math.nan, "NaN is not usable"),
        ("solver.l2", math.inf, "Infinity is not usable"),
        ("solver.l2", "0.1", "'0.1' is not usable"),
        ("solver.l2", 10**400, "10000000000000000000000000"),
        ("solver.l2", b"1", "b'1' is not usable"),
        ("solver.max_steps", 0, "0 is not usable"),
        ("solver.log_every", 0, "0 is not usable"),
        ("solver.checkpoints.steps", 0, "0 is not usable"),
        ("solver.checkpoints.minutes", 0, "0 is not usable; give a number above 0"),
        ("solver.max_minutes", 0, "0 is not usable; give a number above 0"),
        ("solver.stop_at", 1.5, "1.5 is not usable; give a number above 0, at most 1"),
        ("solver.groups", 3, "3 is not usable; give a list of groups, each with a match"),
        ("solver.groups", {"match": "x"}, '{"match": "x"} is not usable; give a list of groups'),
        ("solver.monitor", "f1", "'f1' is not known; known: accuracy, loss"),
        ("solver.early_stopping.patience", 0, "0 is not usable; give an integer of at least 1"),
        ("engine.backend", "fats", "'fats' is not known; did you mean fast?"),
        ("engine.dtype", "float16", "'float16' is not known; did you mean float"),
        ("engine.threads", 0, "0 is not usable; give auto or an integer from 1 to 256"),
        ("engine.threads", 257, "257 is not usable"),
        ("engine.threads", True, "true is not usable"),
        ("engine.seed", -1, "-1 is not usable"),
        ("engine.isa", "", "'' is not usable; give the name of an instruction set, or null"),
        ("engine.isa", 4, "4 is not usable"),
        ("engine.exact", 1, "1 is not usable; give true or false"),
    ],
)
def test_a_value_out_of_range(
    minimal: Mapping, path: str, value: object, reason: str, refusal: Refusal
) -> None:
    assert refusal(config_from_dict, change(minimal, path, value)).startswith(f"{path}: {reason}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "A-1_b.c"),
        ("data.seed", 0),
        ("solver.l2", 1),
        ("solver.batch_size", 10**19),
        ("engine.seed", 2**63 - 1),
        ("engine.threads", 256),
        ("engine.threads", "auto"),
        ("engine.isa", "x86-64-v3"),
        ("engine.isa", None),
        ("engine.exact", True),
    ],
)
def test_a_value_at_the_edge_of_its_range(minimal: Mapping, path: str, value: object) -> None:
    config: Any = config_from_dict(change(minimal, path, value))
    for key in path.split("."):
        config = getattr(config, key)
    assert config == value


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("solvr", "solvr is not known; did you mean solver?"),
        ("solver.optimiser", "solver.optimiser is not known; did you mean optimizer?"),
        (
            "data.augment.rotate",
            "data.augment.rotate is not known; known: flip, shift, crop, padding, brightness, contrast, "
            "cutout, mixup",
        ),
        ("engine.a b\n", "engine.'a b\\n' is not known; known: backend, dtype, threads, seed, isa, exact"),
    ],
)
def test_an_unknown_key(minimal: Mapping, path: str, line: str, refusal: Refusal) -> None:
    assert refusal(config_from_dict, change(minimal, path, 1)) == line


def test_a_key_that_is_no_text(minimal: Mapping, refusal: Refusal) -> None:
    minimal["solver"][None] = 1
    assert refusal(config_from_dict, minimal).startswith("solver.None is not known; known: optimizer")


@pytest.mark.parametrize(
    ("path", "description"),
    [
        ("data", "the images"),
        ("data.dataset", "mnist, fashion-mnist"),
        ("network", "the layers"),
        ("network.layers", "the layers in order"),
        ("solver.optimizer", "sgd, adam, adamw"),
        ("solver.epochs", "passes over the training set"),
        ("solver.batch_size", "images a batch"),
    ],
)
def test_a_missing_field(minimal: Mapping, path: str, description: str, refusal: Refusal) -> None:
    *above, last = path.split(".")
    del (minimal[above[0]] if above else minimal)[last]
    assert refusal(config_from_dict, minimal).startswith(f"{path} is missing ({description}")


class TestLayers:
    """Words, shorthands and settings; what a layer is refused for."""

    def read(self, minimal: Mapping, *layers: object) -> Any:
        return config_from_dict(change(minimal, "network.layers", list(layers))).network.layers

    @pytest.mark.parametrize(
        ("layer", "expected"),
        [
            ("relu", ReLUConfig()),
            ({"relu": None}, ReLUConfig()),
            ({"relu": {"name": "r"}}, ReLUConfig(name="r")),
            ({"maxpool": 2}, MaxPoolConfig(kernel=2)),
            ({"maxpool": [2, 3]}, MaxPoolConfig(kernel=(2, 3))),
            (
                {"maxpool": {"kernel": 3, "stride": 2, "padding": [0, 1]}},
                MaxPoolConfig(kernel=3, stride=2, padding=(0, 1)),
            ),
            ({"avgpool": 2}, AvgPoolConfig(kernel=2)),
            (
                {"avgpool": {"kernel": [3, 2], "stride": 2, "padding": 1}},
                AvgPoolConfig(kernel=(3, 2), stride=2, padding=1),
            ),
            ("globalavgpool", GlobalAvgPoolConfig()),
            ("tanh", TanhConfig()),
            ("sigmoid", SigmoidConfig()),
            ({"gelu": {"name": "g"}}, GELUConfig(name="g")),
            ("silu", SiLUConfig()),
            ("leaky_relu", LeakyReLUConfig(slope=0.01)),
            ({"leaky_relu": 0.2}, LeakyReLUConfig(slope=0.2)),
            ("elu", ELUConfig(alpha=1.0)),
            ({"elu": {"alpha": 2, "name": "e"}}, ELUConfig(alpha=2.0, name="e")),
            ("batchnorm", BatchNormConfig(eps=1e-5, momentum=0.1)),
            ({"batchnorm": {"eps": 1, "momentum": 0}}, BatchNormConfig(eps=1.0, momentum=0.0)),
            ("lrn", LrnConfig(size=5, alpha=1e-4, beta=0.75, k=1.0)),
            ({"lrn": {"size": 3, "k": 2}}, LrnConfig(size=3, k=2.0)),
            ({"subsampling": 2}, SubsamplingConfig(kernel=2)),
            (
                {"subsampling": {"kernel": [2, 3], "stride": 1, "padding": 1}},
                SubsamplingConfig(kernel=(2, 3), stride=1, padding=1),
            ),
            ("layernorm", LayerNormConfig(eps=1e-5)),
            ({"instancenorm": {"eps": 0.1}}, InstanceNormConfig(eps=0.1)),
            ({"groupnorm": 4}, GroupNormConfig(groups=4, eps=1e-5)),
            ({"groupnorm": {"groups": 4, "eps": 1}}, GroupNormConfig(groups=4, eps=1.0)),
            ("dropout", DropoutConfig(rate=0.5, spatial=False)),
            ({"dropout": {"rate": 0.1, "spatial": True}}, DropoutConfig(rate=0.1, spatial=True)),
            ({"dropout": 0.3}, DropoutConfig(rate=0.3)),
            ({"residual": {"layers": ["relu"]}}, ResidualConfig(layers=(ReLUConfig(),), shortcut=())),
            (
                {"residual": {"layers": ["relu", {"linear": 3}], "shortcut": [{"linear": 3}]}},
                ResidualConfig(
                    layers=(ReLUConfig(), LinearConfig(units=3)), shortcut=(LinearConfig(units=3),)
                ),
            ),
            (
                {"residual": {"layers": [{"residual": {"layers": ["tanh"]}}]}},
                ResidualConfig(layers=(ResidualConfig(layers=(TanhConfig(),)),)),
            ),
            ({"linear": 100}, LinearConfig(units=100)),
            ({"linear": {"units": 10, "bias": False}}, LinearConfig(units=10, bias=False)),
            (
                {"conv": {"filters": 4, "kernel": [3, 5], "padding": "same"}},
                ConvConfig(filters=4, kernel=(3, 5), padding="same"),
            ),
            (
                {
                    "conv": {
                        "filters": 4,
                        "kernel": 3,
                        "groups": 2,
                        "init": {"xavier": {"distribution": "uniform"}},
                    }
                },
                ConvConfig(filters=4, kernel=3, groups=2, init=XavierConfig(distribution="uniform")),
            ),
        ],
    )
    def test_ways_to_write_a_layer(self, minimal: Mapping, layer: object, expected: BaseModel) -> None:
        assert self.read(minimal, layer) == (expected,)

    @pytest.mark.parametrize(
        ("layer", "line"),
        [
            ("maxpol", "network.layers.0: 'maxpol' is not known; did you mean maxpool?"),
            (
                {"dense": 3},
                f"network.layers.0: 'dense' is not known; known: {KINDS}",
            ),
            (3, f"network.layers.0: 3 is not usable; give one of {KINDS}: the word, or"),
            ({"conv": None, "filters": 3}, 'network.layers.0: {"conv": null, "filters": 3} is not usable'),
            ("conv", "network.layers.0.conv.filters is missing (output channels"),
            ({"conv": 3}, "network.layers.0.conv: 3 is not usable; give a mapping of name, filters, kernel"),
            ({"conv": {"filters": 4, "kernel": 3, "kind": "x"}}, "network.layers.0.conv.kind is not known"),
            (
                {"conv": {"filters": 4, "kernel": 0}},
                "network.layers.0.conv.kernel: 0 is not usable; give an integer",
            ),
            (
                {"conv": {"filters": 4, "kernel": [1, 2, 3]}},
                "network.layers.0.conv.kernel: [1, 2, 3] is not usable",
            ),
            (
                {"conv": {"filters": 4, "kernel": [True, 2]}},
                "network.layers.0.conv.kernel: [true, 2] is not usable",
            ),
            (
                {"conv": {"filters": 4, "kernel": 3, "padding": "valid"}},
                "network.layers.0.conv.padding: 'valid'",
            ),
            (
                {"conv": {"filters": 4, "kernel": 3, "padding": "same", "stride": 2}},
                "network.layers.0.conv.padding: 'same' needs stride 1, got stride 2",
            ),
            (
                {"conv": {"filters": 4, "kernel": 3, "groups": 3}},
                "network.layers.0.conv.groups: 3 does not divide the 4 filters",
            ),
            (
                {"maxpool": {"kernel": 2, "padding": "same"}},
                "network.layers.0.maxpool.padding: 'same' is not usable",
            ),
            (
                {"avgpool": {"kernel": 2, "padding": "same"}},
                "network.layers.0.avgpool.padding: 'same' is not usable",
            ),
            ("avgpool", "network.layers.0.avgpool.kernel is missing"),
            ({"globalavgpool": 2}, "network.layers.0.globalavgpool: 2 is not usable; give a mapping of name"),
            (
                {"batchnorm": {"eps": 0}},
                "network.layers.0.batchnorm.eps: 0 is not usable; give a number above 0",
            ),
            (
                {"batchnorm": {"momentum": 1}},
                "network.layers.0.batchnorm.momentum: 1 is not usable; give a number of at least 0 and",
            ),
            ("subsampling", "network.layers.0.subsampling.kernel is missing"),
            ({"subsampling": 0}, "network.layers.0.subsampling.kernel: 0 is not usable; give an integer of"),
            ("groupnorm", "network.layers.0.groupnorm.groups is missing (groups of equally many channels"),
            ({"groupnorm": 0}, "network.layers.0.groupnorm.groups: 0 is not usable; give an integer of at"),
            ({"layernorm": {"eps": 0}}, "network.layers.0.layernorm.eps: 0 is not usable; give a number abo"),
            (
                {"instancenorm": {"groups": 2}},
                "network.layers.0.instancenorm.groups is not known; known: name, eps",
            ),
            (
                {"dropout": {"spatial": 1}},
                "network.layers.0.dropout.spatial: 1 is not usable; give true or false",
            ),
            (
                {"lrn": {"size": 0}},
                "network.layers.0.lrn.size: 0 is not usable; give an integer of at least 1",
            ),
            (
                {"leaky_relu": 0},
                "network.layers.0.leaky_relu.slope: 0 is not usable; give a number above 0",
            ),
            ({"elu": {"alpha": -1}}, "network.layers.0.elu.alpha: -1 is not usable; give a number above 0"),
            ({"lrn": {"k": 0}}, "network.layers.0.lrn.k: 0 is not usable; give a number above 0"),
            ({"lrn": {"alpha": -1}}, "network.layers.0.lrn.alpha: -1 is not usable"),
            (
                {"dropout": 1},
                "network.layers.0.dropout.rate: 1 is not usable; give a number of at least 0 and below 1",
            ),
            ("residual", "network.layers.0.residual.layers is missing (the main branch, at least one layer)"),
            (
                {"residual": {"layers": []}},
                "network.layers.0.residual.layers: [] is not usable; give a list of layers, at least one",
            ),
            (
                {"residual": {"layers": ["relu"], "shortcut": "relu"}},
                "network.layers.0.residual.shortcut: 'relu' is not usable; give a list of layers, [] for",
            ),
            (
                {"residual": {"layers": ["relu", {"conv": {"filters": 3, "kernel": 0}}]}},
                "network.layers.0.residual.layers.1.conv.kernel: 0 is not usable; give an integer",
            ),
            (
                {"residual": {"layers": [{"relu": {"name": "tanh1"}}, "tanh"]}},
                "network.layers.0.residual.layers.1: 'tanh1' is the name of two layers; give one another",
            ),
            ({"linear": "ten"}, "network.layers.0.linear.units: 'ten' is not usable; give an integer"),
            ({"relu": 3}, "network.layers.0.relu: 3 is not usable; give a mapping of name"),
            ({"relu": {"name": "a.b"}}, "network.layers.0.relu.name: 'a.b' is not usable; give a letter"),
            (
                {"linear": {"units": 3, "init": {"gaussian": 0}}},
                "network.layers.0.linear.init.gaussian.std: 0",
            ),
        ],
    )
    def test_a_layer_is_refused(self, minimal: Mapping, layer: object, line: str, refusal: Refusal) -> None:
        assert refusal(self.read, minimal, layer).startswith(line)

    @pytest.mark.parametrize(
        "layers",
        [
            [{"relu": {"name": "a"}}, {"linear": {"units": 1, "name": "a"}}],
            ["relu", {"relu": {"name": "relu1"}}],
        ],
    )
    def test_two_layers_of_one_name(self, minimal: Mapping, layers: list[object], refusal: Refusal) -> None:
        line = refusal(self.read, minimal, *layers)
        assert line.startswith("network.layers.1: ")
        assert "is the name of two layers" in line


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("he", HeConfig()),
        ("gaussian", GaussianConfig(std=0.01)),
        ({"gaussian": 0.5}, GaussianConfig(std=0.5)),
        ({"gaussian": {"std": 1}}, GaussianConfig(std=1.0)),
        ({"he": {"distribution": "uniform"}}, HeConfig(distribution="uniform", fan="in")),
        ({"he": {"fan": "out"}}, HeConfig(distribution="normal", fan="out")),
        ({"xavier": {"fan": "in"}}, XavierConfig(fan="in")),
        ({"constant": -0.5}, network.ConstantConfig(value=-0.5)),
        ("orthogonal", network.OrthogonalConfig(gain=1.0)),
        ({"xavier": {"distribution": "normal"}}, XavierConfig()),
    ],
)
def test_ways_to_write_an_initializer(minimal: Mapping, init: object, expected: BaseModel) -> None:
    assert config_from_dict(change(minimal, "network.init", init)).network.init == expected


class TestOptimizer:
    """Words and settings."""

    @pytest.mark.parametrize(
        ("optimizer", "expected"),
        [
            ("sgd", SGDConfig(lr=0.01, momentum=0.0, nesterov=False)),
            (
                {"sgd": {"lr": 1, "momentum": 0.9, "nesterov": True}},
                SGDConfig(lr=1.0, momentum=0.9, nesterov=True),
            ),
            ({"adam": {"beta1": 0}}, AdamConfig(beta1=0.0)),
            ("adamw", AdamWConfig(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01)),
            ({"adamax": {"lr": 1}}, AdamaxConfig(lr=1.0, eps=1e-8, weight_decay=0.0)),
            ({"adagrad": {}}, AdaGradConfig(lr=0.01, eps=1e-10)),
            ({"rmsprop": {"centered": True}}, RMSpropConfig(lr=0.01, alpha=0.99, centered=True)),
            ({"lion": {"weight_decay": 1}}, LionConfig(lr=1e-4, beta2=0.99, weight_decay=1.0)),
        ],
    )
    def test_ways_to_write_it(self, minimal: Mapping, optimizer: object, expected: BaseModel) -> None:
        assert config_from_dict(change(minimal, "solver.optimizer", optimizer)).solver.optimizer == expected

    @pytest.mark.parametrize(
        ("optimizer", "line"),
        [
            ({"sgd": {"lr": 0}}, "solver.optimizer.sgd.lr: 0 is not usable; give a number above 0"),
            (
                {"sgd": {"momentum": 1}},
                "solver.optimizer.sgd.momentum: 1 is not usable; give a number of at least 0",
            ),
            (
                {"sgd": {"nesterov": True}},
                "solver.optimizer.sgd.nesterov: true is not usable without momentum",
            ),
            (
                {"sgd": {"momentum": 0.9, "nesterov": True, "dampening": 0.1}},
                "solver.optimizer.sgd.dampening: 0.1 is not usable with nesterov",
            ),
            (
                {"sgd": {"dampening": 0.1}},
                "solver.optimizer.sgd.dampening: 0.1 is not usable without momentum",
            ),
            (
                {"lion": {"weight_decay": -1}},
                "solver.optimizer.lion.weight_decay: -1 is not usable; give a number",
            ),
            (
                {"rmsprop": {"alpha": 1}},
                "solver.optimizer.rmsprop.alpha: 1 is not usable; give a number of at least",
            ),
            ({"adam": {"momentum": 0.9}}, "solver.optimizer.adam.momentum is not known; known: lr, beta1"),
            (
                {"adam": 0.1},
                "solver.optimizer.adam: 0.1 is not usable; give a mapping of lr, beta1, beta2, eps",
            ),
        ],
    )
    def test_it_is_refused(self, minimal: Mapping, optimizer: object, line: str, refusal: Refusal) -> None:
        assert refusal(config_from_dict, change(minimal, "solver.optimizer", optimizer)).startswith(line)


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ({}, "solver.groups.0.match is missing (the parameters' names"),
        ({"match": ""}, "solver.groups.0.match: '' is not usable; give a pattern"),
        ({"match": "*", "lr": 1}, "solver.groups.0.lr is not known; known: match, lr_scale, l1, l2"),
        ({"match": "*", "l1": -1}, "solver.groups.0.l1: -1 is not usable; give a number of at least 0"),
        ({"match": "*", "l2": -1}, "solver.groups.0.l2: -1 is not usable; give a number of at least 0"),
    ],
)
def test_a_group_that_is_refused(minimal: Mapping, group: object, line: str, refusal: Refusal) -> None:
    assert refusal(config_from_dict, change(minimal, "solver.groups", [group])).startswith(line)


class TestSchedule:
    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            ("constant", ConstantConfig()),
            ({"step": 30}, StepConfig(epochs=30.0, gamma=0.1)),
            ({"multistep": [80, 120.5]}, MultiStepConfig(epochs=(80.0, 120.5), gamma=0.1)),
            ({"exponential": 0.95}, ExponentialConfig(gamma=0.95)),
            ({"inverse": {"gamma": 1e-4, "power": 0.75}}, InverseConfig(gamma=1e-4, power=0.75)),
            ("polynomial", PolynomialConfig(power=1.0)),
            ({"cosine": {"min_scale": 0.01}}, CosineConfig(min_scale=0.01)),
            ("onecycle", OneCycleConfig(rise=0.3, start_divisor=25.0, end_divisor=1e4)),
            ({"plateau": {"patience": 3}}, PlateauConfig(factor=0.1, patience=3, threshold=1e-4, cooldown=0)),
        ],
    )
    def test_it_is_read(self, minimal: Mapping, schedule: object, expected: object) -> None:
        config = config_from_dict(change(minimal, "solver.schedule", schedule))
        assert config.solver.schedule == expected
        assert config_from_dict(config_to_dict(config)) == config

    @pytest.mark.parametrize(
        ("schedule", "line"),
        [
            ("cosin", "solver.schedule: 'cosin' is not known; did you mean cosine?"),
            ("step", "solver.schedule.step.epochs is missing (epochs between steps down"),
            ({"step": 0}, "solver.schedule.step.epochs: 0 is not usable; give a number above 0"),
            (
                {"multistep": 3},
                "solver.schedule.multistep.epochs: 3 is not usable; give a list of epochs",
            ),
            (
                {"multistep": [2, 1]},
                "solver.schedule.multistep.epochs: [2.0, 1.0] is not in ascending order",
            ),
            (
                {"onecycle": {"rise": 1}},
                "solver.schedule.onecycle.rise: 1 is not usable; give a number above 0",
            ),
            (
                {"plateau": {"patience": -1}},
                "solver.schedule.plateau.patience: -1 is not usable; give an integer",
            ),
        ],
    )
    def test_it_is_refused(self, minimal: Mapping, schedule: object, line: str, refusal: Refusal) -> None:
        assert refusal(config_from_dict, change(minimal, "solver.schedule", schedule)).startswith(line)


def test_instruction_sets_are_for_the_fast_backend(minimal: Mapping, refusal: Refusal) -> None:
    minimal["engine"] = {"backend": "im2col", "isa": "x86-64"}
    line = "engine.isa: 'x86-64' is not usable with backend im2col; it is for fast"
    assert refusal(config_from_dict, minimal) == line


def test_layers_of_two_branches_may_share_a_name(minimal: Mapping) -> None:
    block = {"residual": {"layers": ["relu"], "shortcut": ["relu"]}}
    config = config_from_dict(change(minimal, "network.layers", ["relu", block, block]))
    assert [layer.kind for layer in config.network.layers] == ["relu", "residual", "residual"]


class TestDatasets:
    """Fields that mean something for some data sets only."""

    @pytest.mark.parametrize("dataset", ["folder", "npz"])
    def test_a_path_is_needed(self, minimal: Mapping, dataset: str, refusal: Refusal) -> None:
        minimal["data"] = {"dataset": dataset}
        assert (
            refusal(config_from_dict, minimal)
            == f"data.path is missing (data set {dataset} is read from there)"
        )

    @pytest.mark.parametrize(
        ("dataset", "field", "value", "where"),
        [
            ("mnist", "path", "/x", "folder and npz"),
            ("mnist", "image_size", 32, "folder and shapes"),
            ("cifar10", "channels", 3, "folder"),
            ("cifar10", "seed", 1, "shapes and folder"),
        ],
    )
    def test_a_field_of_another_data_set(
        self, minimal: Mapping, dataset: str, field: str, value: object, where: str, refusal: Refusal
    ) -> None:
        minimal["data"] = {"dataset": dataset, field: value}
        line = refusal(config_from_dict, minimal)
        assert line == f"data.{field}: {value!r} is not usable with data set {dataset}; it is for {where}"

    def test_a_folder_has_them_all(self, minimal: Mapping) -> None:
        minimal["data"] = {
            "dataset": "folder",
            "path": "/x",
            "image_size": [32, 24],
            "channels": 1,
            "seed": 3,
        }
        data = config_from_dict(minimal).data
        assert (data.path, data.image_size, data.channels, data.seed) == ("/x", (32, 24), 1, 3)

    @pytest.mark.parametrize("channels", [2, True, 1.0, "3"])
    def test_channels_are_one_or_three(self, minimal: Mapping, channels: object, refusal: Refusal) -> None:
        minimal["data"] = {"dataset": "folder", "path": "/x", "channels": channels}
        assert "give 1 (grey) or 3 (RGB)" in refusal(config_from_dict, minimal)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)
    ),
    max_leaves=5,
)
PATHS = [
    "name",
    "data",
    "data.dataset",
    "data.path",
    "data.augment",
    "data.image_size",
    "network",
    "network.layers",
    "network.init",
    "solver",
    "solver.optimizer",
    "solver.l2",
    "engine",
    "engine.threads",
    "engine.seed",
    "x",
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PATHS),
    JUNK | st.sampled_from(["conv", "linear", "adam"]).flatmap(lambda k: JUNK.map(lambda v: [{k: v}])),
)
def test_any_value_is_accepted_or_refused_in_one_line(path: str, value: object) -> None:
    minimal: Mapping = {
        "data": {"dataset": "folder", "path": "/x"},
        "network": {"layers": [{"linear": 10}]},
        "solver": {"optimizer": "adam", "epochs": 1, "batch_size": 100},
    }
    line = ""
    try:
        config_from_dict(change(minimal, path, value))
    except ConfigError as error:
        line = str(error)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        ({"hinge": 0}, "network.loss.hinge.margin: 0 is not usable; give a number above 0"),
        ({"softmax": {"smoothing": 1}}, "network.loss.softmax.smoothing: 1 is not usable; give a number of"),
        ({"softmax": {"class_weights": []}}, "network.loss.softmax.class_weights: [] is not usable; give a"),
        (
            {"softmax": {"class_weights": [1, -1]}},
            "network.loss.softmax.class_weights: [1, -1] is not usable",
        ),
        ({"softmax": {"class_weights": [0, 0]}}, "network.loss.softmax.class_weights: all of them are 0"),
    ],
)
def test_losses_that_cannot_be(minimal: Mapping, loss: object, line: str, refusal: Refusal) -> None:
    assert refusal(config_from_dict, change(minimal, "network.loss", loss)).startswith(line)
