"""The network in PyTorch: the same sums, the same gradients and the same steps as ours."""

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.bench.engine import Engine
from cnnctl.bench.workload import Workload
from cnnctl.errors import ConfigError
from cnnctl.nn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Subsampling,
    Tanh,
)

torch = pytest.importorskip("torch")

from cnnctl.bench.torch_peer import BUILDERS, Candidate, Images, build_module, list_candidates  # noqa: E402

NETWORKS: dict[str, list[Layer]] = {
    "conv, asymmetric padding": [Conv(4, (3, 2), stride=(1, 2), padding=((2, 0), (0, 1)))],
    "conv, dilation and groups": [Conv(4, 3, padding=2, dilation=2, groups=2, bias=False)],
    "conv and relu": [Conv(4, 3), ReLU(), Linear(3)],
    "maxpool": [MaxPool(3, 2, padding=1)],
    "maxpool, asymmetric padding": [MaxPool(3, 2, padding=((1, 0), (0, 2)))],
    "avgpool": [AvgPool(3, 2, padding=1)],
    "globalavgpool": [GlobalAvgPool(), Linear(3)],
    "linear": [Linear(5), Linear(3, bias=False)],
    "flatten": [Flatten()],
    "relu first": [ReLU(), Conv(2, 1)],
    "tanh": [Tanh(), Flatten(), ReLU()],
    "sigmoid": [Sigmoid()],
    "gelu": [GELU()],
    "silu": [SiLU()],
    "leaky_relu": [Conv(3, 1), LeakyReLU(0.2), LeakyReLU()],
    "elu": [Conv(3, 1), ELU(), ELU(0.6)],
    "batchnorm": [Conv(3, 3), BatchNorm(eps=1e-3, momentum=0.3), ReLU()],
    "batchnorm of vectors": [Linear(6), BatchNorm(), Linear(3)],
    "groupnorm": [Conv(6, 3), GroupNorm(3, eps=1e-3), ReLU()],
    "layernorm": [Conv(3, 3), LayerNorm()],
    "layernorm of vectors": [Linear(6), LayerNorm(eps=1e-3), Linear(3)],
    "instancenorm": [Conv(3, 3), InstanceNorm()],
    "subsampling": [Subsampling(2), Conv(3, 2), Subsampling(2), Sigmoid()],
    "subsampling, overlapping": [Subsampling(3, 2, 1)],
    "spatial dropout, rate 0": [Dropout(0.0, spatial=True), Linear(3)],
    "lrn": [LocalResponseNorm(3, alpha=0.5, beta=0.6, k=1.5)],
    "dropout, rate 0": [Dropout(0.0), Linear(3)],
    "residual": [Residual([ReLU(), Conv(4, 3, padding=1), BatchNorm()]), ReLU()],
    "residual with shortcut": [
        Residual([Conv(6, 3, stride=2, padding=1), ReLU(), Conv(6, 1)], [Conv(6, 1, stride=2)]),
        ReLU(),
        Conv(2, 1),
    ],
}


def list_gradients(model):
    """Of all parameters, in order."""
    return [parameter.grad.numpy() for parameter in model.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
def test_modules_compute_what_layers_do(rng, name):
    layers, backend = NETWORKS[name], create_backend("im2col")
    network = Network(layers, (4, 7, 8), dtype="float64", seed=3)
    x = rng.normal(size=(3, 4, 7, 8))
    y = network.forward(x, backend, training=True)
    dy = rng.normal(size=y.shape)
    dx = network.backward(dy, backend, need_dx=True)

    model = build_module(network.layers)
    image = torch.from_numpy(x.copy()).requires_grad_()
    result = model(image * 1.0)  # a ReLU in place may not write over a leaf
    result.reshape(y.shape).backward(torch.from_numpy(dy))
    np.testing.assert_allclose(result.detach().numpy().reshape(y.shape), y, atol=1e-12)
    np.testing.assert_allclose(image.grad.numpy(), dx, atol=1e-12)
    own = {key: w for key, w in network.grads.items() if w is not None}
    assert len(list(model.parameters())) == len(network.params) == len(own)
    for gradient in list_gradients(model):
        assert any(gradient.shape == g.shape and np.allclose(gradient, g, atol=1e-11) for g in own.values())


def test_every_kind_of_layer_is_looked_at():
    kinds = {
        inner.kind for layers in NETWORKS.values() for layer in layers for inner in (layer, *layer.walk())
    }
    assert kinds == set(BUILDERS)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (AvgPool(2, padding=((0, 1), (0, 1))), r"^avgpool1: padding .* is not known in PyTorch"),
        (
            type("Odd", (ReLU,), {"kind": "maxpol"})(),
            r"^maxpol1: 'maxpol' is not known.*did you mean maxpool",
        ),
    ],
)
def test_what_pytorch_has_no_like_of_is_refused(layer, message):
    network = Network([layer], (2, 5, 5))
    with pytest.raises(ConfigError, match=message):
        build_module(network.layers)


def test_weights_alone_are_penalized(make_config):
    from cnnctl.bench.torch_peer import split_parameters

    layers = [{"conv": {"filters": 3, "kernel": 3}}, "batchnorm", {"linear": 4}]
    workload = Workload(make_config(network={"layers": layers}))
    penalized, others = split_parameters(build_module(workload.create_network().layers))
    assert [parameter.ndim for parameter in penalized] == [4, 2]
    assert [parameter.ndim for parameter in others] == [1, 1, 1, 1]


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
@pytest.mark.parametrize("source", ["pixels", "normalized"])
def test_batches_are_the_same_pixels(make_config, layout, source):
    workload = Workload(make_config())
    images, batches = Images(workload, layout, source), workload.create_batches()
    for number in (0, 1, 2):
        raw, labels = images.gather(number)
        x, batch = images.prepare(raw), batches.draw(*workload.locate(number))
        memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        assert x.is_contiguous(memory_format=memory_format)
        np.testing.assert_allclose(x.numpy(), batch.render(), atol=1e-6)
        assert np.array_equal(labels.numpy(), batch.labels)


OPTIMIZERS = {
    "adam": {"adam": {"lr": 0.01, "beta1": 0.8, "beta2": 0.99, "eps": 1e-6}},
    "sgd": {"sgd": {"lr": 0.05}},
    "momentum": {"sgd": {"lr": 0.05, "momentum": 0.9}},
    "nesterov": {"sgd": {"lr": 0.05, "momentum": 0.9, "nesterov": True}},
    "dampening": {"sgd": {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}},
    "adagrad": {"adagrad": {"lr": 0.05, "weight_decay": 0.1}},
    "rmsprop": {"rmsprop": {"lr": 0.01, "momentum": 0.5, "centered": True, "eps": 1e-2}},
    "adamax": {"adamax": {"lr": 0.01, "weight_decay": 0.1}},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_steps_have_the_same_losses(make_config, optimizer, layout):
    solver = {"optimizer": OPTIMIZERS[optimizer], "epochs": 1, "batch_size": 16, "l2": 0.05}
    workload = Workload(make_config(solver=solver, engine={"dtype": "float64", "threads": 1}))
    sides = [
        contender.create_side(workload, evaluate=False, dropout=False)
        for contender in (Engine("im2col"), Candidate(layout, compiled=False))
    ]
    ours, theirs = ([side.read_loss(number) for number in range(8)] for side in sides)
    assert ours == pytest.approx(theirs, rel=1e-10)
    assert len(set(ours)) == 8


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": {"adamw": {"lr": 0.01, "weight_decay": 0.5}}},
        {"optimizer": {"sgd": {"lr": 0.5}}, "clip_value": 0.01},
        {"optimizer": {"sgd": {"lr": 0.5}}, "clip_norm": 0.1, "l2": 0.1},
        {"optimizer": {"sgd": {"lr": 0.5}}, "clip_norm": 0.1, "clip_value": 0.02},
    ],
)
def test_decoupled_decay_and_clipping_are_the_same(make_config, settings):
    solver = {"epochs": 1, "batch_size": 16, **settings}
    workload = Workload(make_config(solver=solver, engine={"dtype": "float64", "threads": 1}))
    sides = [
        contender.create_side(workload, evaluate=False, dropout=False)
        for contender in (Engine("im2col"), Candidate("NCHW", compiled=False))
    ]
    ours, theirs = ([side.read_loss(number) for number in range(8)] for side in sides)
    assert ours == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "'lion' is not known in PyTorch"),
        ({"optimizer": "adamw"}, "l2: 0.1 does not go with adamw"),
        ({"l1": 0.1}, "solver.l1: 0.1 is not known in PyTorch"),
        ({"groups": [{"match": "*"}]}, "solver.groups: 1 are not known in PyTorch"),
    ],
)
def test_what_pytorch_cannot_optimize_is_refused(make_config, change, message):
    solver = {"optimizer": "adam", "epochs": 1, "batch_size": 16, "l2": 0.1, **change}
    with pytest.raises(ConfigError, match=message):
        Candidate("NCHW", compiled=False).create_side(Workload(make_config(solver=solver)), evaluate=False)


def test_evaluation_leaves_dropout_and_weights_alone(make_config):
    workload = Workload(make_config())
    sides = [
        contender.create_side(workload, evaluate=True)
        for contender in (Engine("im2col"), Candidate("channels_last", compiled=False))
    ]
    for number in (0, 1, 0):
        ours, theirs = (side.read_loss(number) for side in sides)
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_every_candidate_gathers_from_what_is_faster(make_config):
    candidates = list_candidates(Workload(make_config()))
    assert [(candidate.name, candidate.layout) for candidate in candidates] == [
        ("torch eager", "NCHW"),
        ("torch eager", "channels_last"),
        ("torch compile", "NCHW"),
        ("torch compile", "channels_last"),
    ]
    assert {candidate.frugal.source for candidate in candidates} == {"pixels"}
