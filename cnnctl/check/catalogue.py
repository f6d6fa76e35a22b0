"""What is checked when no network is given: every layer, loss, regulariser and fused operation.

Small examples with the settings that matter, each on inputs drawn clear of kinks. A layer is
run by itself, through the backends' contract, and again between others in a plan, whose stages
can be other code. Judges nothing; a test sees to it that no kind of layer is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import get_args

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Activation, Array, BatchNormSpec, Pool, Sandwich, needs_input
from cnnctl.check.differences import Sides
from cnnctl.check.subjects import (
    LayeredNetwork,
    Operation,
    PlannedNetwork,
    Subject,
    find_loss_sides,
)
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.geometry import Window
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
    Hinge,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Loss,
    MaxPool,
    Network,
    ReLU,
    Residual,
    Shape,
    Sigmoid,
    SiLU,
    SoftmaxCrossEntropy,
    SquaredError,
    Subsampling,
    Tanh,
)
from cnnctl.optim import Penalty

BATCH_SIZE = 2
NORM_BATCH_SIZE = 4
"""Of vectors: two that are normalised come to +-1 whatever they were."""
CLASSES = 3
SANDWICH_SIZE = (4, 3)
"""Height and width of what is convolved; small, because the naive backend is checked as well."""
_PENALTIES = {"l1": Penalty(l1=0.2), "l2": Penalty(l2=0.3), "elastic": Penalty(0.2, 0.3)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to check.

    Attributes:
        kind: the YAML key of a layer, loss or penalty, or the contract's name of a fused operation.
        name: of this example; what its rows begin with.
        create: makes the subject.
    """

    kind: str
    name: str
    create: Callable[[Backend, np.random.Generator], Subject]


_LAYERS: dict[str, tuple[Callable[[], Layer], Shape]] = {
    "conv": (lambda: Conv(3, 3, padding=1), (2, 4, 4)),
    "conv-1x1": (lambda: Conv(3, 1), (2, 2, 3)),
    "conv-whole-image": (lambda: Conv(2, [3, 4]), (1, 3, 4)),
    "conv-same": (lambda: Conv(2, [2, 5], padding="same"), (1, 3, 4)),
    "conv-strided": (lambda: Conv(2, [3, 2], stride=[2, 3], padding=((1, 0), (2, 1))), (2, 5, 4)),
    "conv-dilated": (lambda: Conv(2, 2, dilation=[2, 3], padding=1), (1, 4, 5)),
    "conv-grouped": (lambda: Conv(4, 2, groups=2), (4, 3, 3)),
    "conv-depthwise": (lambda: Conv(6, 2, groups=3), (3, 3, 3)),
    "conv-all": (lambda: Conv(4, [2, 3], stride=2, padding=[1, 2], dilation=[2, 1], groups=2), (4, 4, 5)),
    "conv-without-bias": (lambda: Conv(2, 2, bias=False), (2, 3, 3)),
    "maxpool": (lambda: MaxPool(2), (2, 4, 4)),
    "maxpool-overlapping": (lambda: MaxPool(3, stride=[1, 2]), (2, 4, 5)),
    "maxpool-padded": (lambda: MaxPool([2, 3], stride=2, padding=1), (1, 5, 4)),
    "avgpool": (lambda: AvgPool(2), (2, 4, 4)),
    "avgpool-padded": (lambda: AvgPool([2, 3], stride=[1, 2], padding=1), (1, 5, 4)),
    "subsampling": (lambda: Subsampling(2), (2, 4, 4)),
    "subsampling-padded": (lambda: Subsampling([2, 3], stride=[1, 2], padding=1), (1, 5, 4)),
    "globalavgpool": (GlobalAvgPool, (3, 4, 3)),
    "linear": (lambda: Linear(4), (5,)),
    "linear-images": (lambda: Linear(3), (2, 2, 3)),
    "linear-without-bias": (lambda: Linear(3, bias=False), (4,)),
    "flatten": (Flatten, (2, 2, 3)),
    "relu": (ReLU, (2, 3, 3)),
    "relu-vectors": (ReLU, (7,)),
    "leaky_relu": (lambda: LeakyReLU(0.2), (2, 3, 3)),
    "leaky_relu-vectors": (LeakyReLU, (7,)),
    "elu": (lambda: ELU(0.7), (2, 3, 3)),
    "elu-vectors": (ELU, (7,)),
    "tanh": (Tanh, (2, 3, 3)),
    "tanh-vectors": (Tanh, (7,)),
    "sigmoid": (Sigmoid, (2, 3, 3)),
    "sigmoid-vectors": (Sigmoid, (7,)),
    "gelu": (GELU, (2, 3, 3)),
    "gelu-vectors": (GELU, (7,)),
    "silu": (SiLU, (2, 3, 3)),
    "silu-vectors": (SiLU, (7,)),
    "batchnorm": (lambda: BatchNorm(eps=0.01), (2, 3, 3)),
    "batchnorm-vectors": (lambda: BatchNorm(eps=0.01), (5,)),
    "layernorm": (lambda: LayerNorm(0.01), (2, 3, 3)),
    "layernorm-vectors": (lambda: LayerNorm(0.01), (7,)),
    "groupnorm": (lambda: GroupNorm(2, 0.01), (6, 2, 2)),
    "groupnorm-vectors": (lambda: GroupNorm(2, 0.01), (8,)),
    "instancenorm": (lambda: InstanceNorm(0.01), (2, 3, 3)),
    "lrn": (lambda: LocalResponseNorm(3, alpha=0.5), (5, 2, 2)),
    "lrn-even": (lambda: LocalResponseNorm(4, alpha=0.8, beta=0.6, k=1.2), (5, 2, 2)),
    "dropout": (lambda: Dropout(0.4), (2, 3, 3)),
    "dropout-spatial": (lambda: Dropout(0.4, spatial=True), (5, 2, 2)),
    "dropout-vectors": (lambda: Dropout(0.4), (9,)),
    "residual": (lambda: Residual([Conv(2, 3, padding=1), Tanh(), Conv(2, 3, padding=1)]), (2, 3, 3)),
    "residual-projection": (
        lambda: Residual([Conv(3, 3, 2, 1), BatchNorm(0.01)], [Conv(3, 1, 2), BatchNorm(0.01)]),
        (2, 4, 4),
    ),
}

_LOSSES: dict[str, tuple[Callable[[], Loss], int]] = {
    "softmax": (SoftmaxCrossEntropy, 5),
    "softmax-smoothed": (lambda: SoftmaxCrossEntropy(0.2), 5),
    "softmax-weighted": (lambda: SoftmaxCrossEntropy(0.1, [1, 2, 0.5, 0.1, 3]), 5),
    "hinge": (Hinge, 5),
    "hinge-narrow": (lambda: Hinge(0.3), 17),
    "squared_error": (SquaredError, 5),
    "squared_error-of-one": (SquaredError, 1),
}

_ACTIVATIONS: tuple[Activation | None, ...] = (None, *get_args(Activation))
_KINKED = {"relu", "leaky_relu", "elu"}
"""Those whose derivative jumps where y passes 0."""
_POOLS = (None, Pool("max", Window.create(2, 2)), Pool("average", Window.create(2, 2)))


def list_entries() -> tuple[Entry, ...]:
    """The whole catalogue."""
    return tuple(_list_entries())


def choose_entries(name: str | None) -> tuple[Entry, ...]:
    """Those of a kind, or the one of that name; all of them for None. Raises ConfigError."""
    entries = list_entries()
    chosen = tuple(entry for entry in entries if name is None or name in {entry.kind, entry.name})
    if not chosen:
        known = dict.fromkeys([*(e.kind for e in entries), *(e.name for e in entries)])
        near = describe_alternatives(name, known)
        if not near.startswith("did"):  # of all the names, the kinds are enough
            near = describe_alternatives(name, dict.fromkeys(entry.kind for entry in entries))
        raise ConfigError(f"layer: {name!r} is not in the catalogue; {near}")
    return chosen


def draw_spaced(rng: np.random.Generator, shape: Shape) -> Array:
    """Values evenly spaced in (-1.5, 1.5), shuffled: no two are near one another, and none near 0."""
    size = prod(shape)
    return rng.permutation((np.arange(size) + 0.25) / size * 3 - 1.5).reshape(shape)


def _list_entries() -> Iterator[Entry]:
    for name, (make, shape) in _LAYERS.items():
        kind = make().kind
        yield Entry(kind, name, partial(_create_layer, make, shape))
        yield Entry(kind, f"{name}-planned", partial(_create_planned, make, shape))
    for name, (make_loss, classes) in _LOSSES.items():
        kind = make_loss().kind
        yield Entry(kind, name, partial(_create_loss, make_loss, classes))
        yield Entry(kind, f"{name}-planned", partial(_create_planned_loss, make_loss, classes))
    for name, penalty in _PENALTIES.items():
        yield Entry(name, name, partial(_create_penalized, penalty))
    for norm, residual, activation, pool in product((False, True), (False, True), _ACTIVATIONS, _POOLS):
        sandwich = Sandwich(
            Window.create(2, 1, ((1, 0), (0, 1))),
            norm=BatchNormSpec(eps=0.01) if norm else None,
            residual=residual,
            activation=activation,
            pool=pool,
        )
        parts = [norm and "norm", residual and "residual", activation, pool and f"{pool.kind}pool"]
        name = "+".join(["conv_sandwich", *(part for part in parts if part)])
        yield Entry("conv_sandwich", name, partial(_create_conv_sandwich, sandwich))
    for activation in _ACTIVATIONS:
        if not needs_input(activation):  # which the contract does not fuse
            name = "+".join(["linear_sandwich", *filter(None, [activation])])
            yield Entry("linear_sandwich", name, partial(_create_linear_sandwich, activation))


def _create_layer(
    make: Callable[[], Layer], shape: Shape, backend: Backend, rng: np.random.Generator
) -> Subject:
    network = _build([make()], shape, rng)
    return LayeredNetwork(network, draw_spaced(rng, (_count(shape), *shape)), None, backend, rng)


def _create_planned(
    make: Callable[[], Layer], shape: Shape, backend: Backend, rng: np.random.Generator
) -> Subject:
    """The layer behind one that nothing is fused with; its dx shows in the parameters before it."""
    before = (
        [Conv(shape[0], 1), LocalResponseNorm(2, alpha=0.5)]
        if len(shape) == 3
        else [Linear(shape[0]), GELU()]
    )
    network = _build([*before, make(), Linear(CLASSES)], shape, rng)
    return _plan(network, backend, rng, Penalty())


def _create_penalized(penalty: Penalty, backend: Backend, rng: np.random.Generator) -> Subject:
    layers = [Conv(3, 2), BatchNorm(0.01), Tanh(), Linear(4), Sigmoid(), Linear(CLASSES)]
    return _plan(_build(layers, (2, 3, 3), rng), backend, rng, penalty)


def _create_loss(
    make: Callable[[], Loss], classes: int, backend: Backend, rng: np.random.Generator
) -> Subject:
    loss, labels = make(), rng.permutation(max(classes, 2))[:3]
    tensors = {"scores": rng.standard_normal((len(labels), classes))}

    def forward(tensors: Mapping[str, Array]) -> tuple[Array, Sides]:
        scores = tensors["scores"]
        return np.array(loss.forward(scores, labels, backend)), find_loss_sides(loss.spec, scores, labels)

    return Operation(tensors, forward, lambda dy: {"scores": loss.backward(backend) * dy}, rng)


def _create_planned_loss(
    make: Callable[[], Loss], classes: int, backend: Backend, rng: np.random.Generator
) -> Subject:
    return _plan(_build([Linear(4), Tanh(), Linear(classes)], (5,), rng, make()), backend, rng, Penalty())


def _create_conv_sandwich(sandwich: Sandwich, backend: Backend, rng: np.random.Generator) -> Subject:
    tensors = {
        "x": draw_spaced(rng, (BATCH_SIZE, 2, *SANDWICH_SIZE)),
        "w": rng.standard_normal((3, 2, *sandwich.window.kernel)),
        "b": rng.standard_normal(3),
    }
    if sandwich.norm:
        tensors |= {"gamma": rng.standard_normal(3), "beta": rng.standard_normal(3)}
    if sandwich.residual:
        tensors["r"] = rng.standard_normal((BATCH_SIZE, 3, *sandwich.window.output_size(*SANDWICH_SIZE)))

    def forward(tensors: Mapping[str, Array]) -> tuple[Array, Sides]:
        y = backend.conv_sandwich_forward(sandwich=sandwich, **tensors).y
        return y, _find_sides(backend, sandwich, **tensors)

    def backward(dy: Array) -> dict[str, Array | None]:
        outputs = backend.conv_sandwich_forward(sandwich=sandwich, **tensors)
        extras = (tensors.get(key) for key in ("gamma", "beta", "r"))
        gradients = backend.conv_sandwich_backward(dy, tensors["x"], tensors["w"], outputs, sandwich, *extras)
        return {key.removeprefix("d"): gradient for key, gradient in gradients._asdict().items()}

    return Operation(tensors, forward, backward, rng)


def _find_sides(
    backend: Backend,
    sandwich: Sandwich,
    x: Array,
    w: Array,
    b: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    r: Array | None = None,
) -> Sides:
    """Signs before a ReLU and its like, and winners of a max pool, found by single operations."""
    u = backend.conv_forward(x, w, b, sandwich.window, sandwich.groups)
    if sandwich.norm and gamma is not None and beta is not None:
        u = backend.batchnorm_forward(u, gamma, beta, sandwich.norm.eps)[0]
    u = u if r is None else u + r
    sides: Sides = (u > 0,) if sandwich.activation in _KINKED else ()
    if sandwich.pool and sandwich.pool.kind == "max":
        if sandwich.activation:
            u = backend.activation_forward(u, sandwich.activation)
        sides += (backend.maxpool_forward(u, sandwich.pool.window)[1],)
    return sides


def _create_linear_sandwich(
    activation: Activation | None, backend: Backend, rng: np.random.Generator
) -> Subject:
    tensors = {key: rng.standard_normal(shape) for key, shape in (("x", (3, 5)), ("w", (4, 5)), ("b", (4,)))}

    def forward(tensors: Mapping[str, Array]) -> tuple[Array, Sides]:
        y = backend.linear_sandwich_forward(tensors["x"], tensors["w"], tensors["b"], activation)
        return y, (y > 0,) if activation in _KINKED else ()

    def backward(dy: Array) -> dict[str, Array | None]:
        x, w = tensors["x"], tensors["w"]
        y = backend.linear_sandwich_forward(x, w, tensors["b"], activation)
        return dict(zip("xwb", backend.linear_sandwich_backward(dy, x, w, y, activation), strict=True))

    return Operation(tensors, forward, backward, rng)


def _build(
    layers: Sequence[Layer], shape: Shape, rng: np.random.Generator, loss: Loss | None = None
) -> Network:
    """A network with random parameters throughout: a bias of 0 would hide its own mistakes."""
    network = Network(layers, shape, loss=loss, dtype="float64", seed=int(rng.integers(2**32)))
    for w in network.params.values():
        w[...] = rng.standard_normal(w.shape)
    return network


def _plan(network: Network, backend: Backend, rng: np.random.Generator, penalty: Penalty) -> Subject:
    count = _count(network.input_shape)
    x, labels = rng.standard_normal((count, *network.input_shape)), np.arange(count) % network.label_count
    return PlannedNetwork(network, x, labels, backend, rng, l1=penalty.l1, l2=penalty.l2)


def _count(shape: Shape) -> int:
    return BATCH_SIZE if len(shape) == 3 else NORM_BATCH_SIZE
