"""K2 for whole networks: a plan on the fast kernels against the network layer by layer on numpy.

What only a plan does is seen here: buffers that are shared and used again, gradients that meet,
padding that has to stay zero from step to step, norm statistics, updates in the inner layout.
In float64, where no rounding decides which side of a kink a number falls on.
"""

from collections.abc import Callable

import numpy as np

from cnnctl.backends.fast import INSTRUCTION_SETS
from cnnctl.errors import ShapeError
from cnnctl.geometry import Padding
from cnnctl.nn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
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
    Sigmoid,
    SiLU,
    SoftmaxCrossEntropy,
    SquaredError,
    Subsampling,
    Tanh,
)
from cnnctl.nn.plan import Plan
from cnnctl.optim import SGD
from tests.torture.arithmetic import create_engine
from tests.torture.tally import Tally, check_bounded

BOUND = 1e-10
"""Of the largest number in an array, after two steps."""
STEPS, LR, L2 = 2, 0.1, 0.01
"""No weight moves by more than LR: where a loss explodes, rounding does as well."""
CHANNELS = (1, 2, 3, 5, 8, 16, 17, 20, 33)


def check_plan(seed: int, number: int, tally: Tally) -> None:
    """Losses, parameters and statistics of two steps, and the scores after them."""
    rng = np.random.default_rng([seed, number])
    network = draw_network(rng, number)
    classes = network.output_shape[0]
    isa = str(rng.choice(INSTRUCTION_SETS))
    fast = create_engine("fast", int(rng.integers(1, 4)), isa, bool(rng.integers(2)))
    reference = create_engine("im2col")
    batch_size = int(rng.integers(2, 20))
    plan = Plan(network, batch_size, fast, optimizer=SGD(lr=LR), l2=L2)
    for step in range(STEPS):
        n = batch_size if step == 0 else max(batch_size - int(rng.integers(3)), 2)
        x, labels = rng.standard_normal((n, *network.input_shape)), rng.integers(classes, size=n)
        loss, grads = network.loss_and_grads(x, labels, reference, l2=L2)
        scale = 1 / max(1.0, *(float(np.abs(g).max(initial=0)) for g in grads.values()))
        found = plan.step(x, labels, lr_scale=scale).loss
        check_bounded(tally, "loss", f"step {step}", np.array(found), np.array(loss), BOUND * loss, "float64")
        network.load_params({key: w - LR * scale * grads[key] for key, w in network.params.items()})
    pairs = {key: (array, network.params[key]) for key, array in plan.export_params().items()}
    pairs |= {key: (array, network.statistics[key]) for key, array in plan.export_statistics().items()}
    pairs["scores"] = plan.predict(x), network.forward(x, reference)
    for key, (actual, wanted) in pairs.items():
        bound = BOUND * max(float(np.abs(wanted).max(initial=0)), 1.0)
        check_bounded(tally, key.rpartition(".")[2], key, actual, wanted, bound, "float64")
    for layer in network.leaves:
        tally.counts[layer.kind] += 1
    tally.counts["cases"] += 1


def draw_network(rng: np.random.Generator, number: int) -> Network:
    """One to four blocks on images, then fully connected layers; drawn until the shapes fit."""
    while True:
        C = int(rng.choice(CHANNELS))
        H, W = (int(extent) for extent in rng.integers(3, 13, 2))
        blocks = [_draw_block(rng) for _ in range(rng.integers(1, 5))]
        layers = [layer for block in blocks for layer in block]
        try:
            head, loss = _draw_head(rng), _draw_loss(rng)
            network = Network([*layers, *head], (C, H, W), loss=loss, dtype="float64", seed=number)
        except ShapeError:
            continue
        for w in network.params.values():
            if np.ptp(w) == 0:  # a bias of 0 behind a norm puts padding right on a ReLU's kink
                w[...] += 0.1 * rng.standard_normal(w.shape)
        return network


def _draw_block(rng: np.random.Generator) -> list[Layer]:
    chance = rng.random()
    if chance < 0.5:
        return [_draw_conv(rng), *_draw_behind(rng)]
    if chance < 0.75:
        return _draw_residual(rng)
    return [_draw_single(rng)]


def _draw_conv(rng: np.random.Generator, filters: int | None = None, keep: bool = False) -> Conv:
    kernel = int(rng.choice([1, 3, 3, 3, 5]))
    stride = 1 if keep or rng.random() < 0.7 else 2
    padding: Padding = "same" if keep else int(rng.integers(3))
    return Conv(filters or int(rng.choice(CHANNELS)), kernel, stride, padding, bias=bool(rng.integers(2)))


def _draw_behind(rng: np.random.Generator) -> list[Layer]:
    """What can be fused: norm, activation, pool, each with some chance."""
    layers: list[Layer] = []
    chance = rng.random()
    if chance < 0.5:
        layers.append(BatchNorm(eps=0.1, momentum=float(rng.random())))
    elif chance < 0.6:
        layers.append(_draw_image_norm(rng))
    if rng.random() < 0.7:
        layers.append(_draw_activation(rng))
    if rng.random() < 0.5:
        layers.append(_draw_pool(rng))
    return layers


def _draw_residual(rng: np.random.Generator) -> list[Layer]:
    """Two convolutions beside a projection, behind one that settles the channels."""
    filters = int(rng.choice(CHANNELS))
    branch: list[Layer] = [
        _draw_conv(rng, keep=True),
        *_draw_behind(rng)[:1],
        _draw_conv(rng, filters, keep=True),
    ]
    if rng.random() < 0.5:
        branch.append(BatchNorm(eps=0.1))
    if rng.random() < 0.5:
        block = Residual(branch, [Conv(filters, 1)])
        return [block, _draw_activation(rng)]
    return [Conv(filters, 1), Residual(branch), _draw_activation(rng)]


def _draw_single(rng: np.random.Generator) -> Layer:
    """A layer that nothing stands before."""
    makers: list[Callable[[], Layer]] = [
        lambda: _draw_pool(rng),
        lambda: _draw_activation(rng),
        lambda: BatchNorm(eps=0.1),
        lambda: LocalResponseNorm(int(rng.integers(1, 7)), 0.1),
        lambda: Dropout(0.3, spatial=bool(rng.integers(2))),
        lambda: _draw_image_norm(rng),
    ]
    return makers[rng.integers(len(makers))]()


def _draw_pool(rng: np.random.Generator) -> Layer:
    kernel = int(rng.integers(2, 4))
    stride = int(rng.integers(1, 4))
    return (MaxPool, AvgPool, Subsampling)[rng.integers(3)](kernel, stride, int(rng.integers(2)))


def _draw_image_norm(rng: np.random.Generator) -> Layer:
    """Groups that do not divide the channels make the whole network be drawn again."""
    layers = [GroupNorm(int(rng.integers(1, 5)), 0.1), LayerNorm(0.1), InstanceNorm(0.1)]
    return layers[rng.integers(len(layers))]


def _draw_activation(rng: np.random.Generator) -> Layer:
    alpha = 0.1 + float(rng.random())
    makers: list[Callable[[], Layer]]
    makers = [ReLU, ReLU, lambda: LeakyReLU(alpha), lambda: ELU(alpha), Tanh, Sigmoid, GELU, SiLU]
    return makers[rng.integers(len(makers))]()


def _draw_loss(rng: np.random.Generator) -> Loss:
    makers = SoftmaxCrossEntropy, lambda: SoftmaxCrossEntropy(0.1), Hinge, SquaredError
    return makers[rng.integers(len(makers))]()


def _draw_head(rng: np.random.Generator) -> list[Layer]:
    layers: list[Layer] = [GlobalAvgPool()] if rng.random() < 0.2 else []
    if rng.random() < 0.6:
        layers.append(Linear(int(rng.choice(CHANNELS)), bias=bool(rng.integers(2))))
        if rng.random() < 0.2:
            layers.append(LayerNorm(eps=0.1))
        layers.append(_draw_activation(rng))
    if rng.random() < 0.3:
        layers.append(Dropout(0.5))
    return [*layers, Linear(int(rng.integers(2, 20)))]
