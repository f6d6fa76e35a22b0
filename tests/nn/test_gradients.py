"""Back-propagated gradients of every layer and of whole networks against central differences.

Everything in float64, to 1e-6 relative. Differences are only taken where no ReLU changes
sign and no pool changes its winner: that is asserted at every single evaluation.
"""

import numpy as np
import pytest

from cnnctl.nn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Conv,
    Flatten,
    Gaussian,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    ReLU,
    Sigmoid,
    SiLU,
    Subsampling,
    Tanh,
)

TOLERANCE = 1e-6

LAYERS = {
    "conv": (lambda: Conv(3, 3), (2, 5, 4)),
    "conv 1x1": (lambda: Conv(2, 1), (3, 2, 3)),
    "conv as large as the image": (lambda: Conv(2, [3, 4]), (1, 3, 4)),
    "conv same": (lambda: Conv(2, [2, 5], padding="same"), (1, 3, 4)),
    "conv stride padding": (lambda: Conv(2, [3, 2], stride=[2, 3], padding=((1, 0), (2, 1))), (2, 5, 6)),
    "conv dilation": (lambda: Conv(2, 2, dilation=[2, 3], padding=1), (1, 4, 5)),
    "conv groups": (lambda: Conv(4, 2, groups=2), (4, 3, 3)),
    "conv depthwise": (lambda: Conv(6, 2, groups=3), (3, 3, 3)),
    "conv without bias": (lambda: Conv(2, 2, bias=False), (2, 3, 3)),
    "maxpool": (lambda: MaxPool(2), (2, 4, 6)),
    "maxpool overlapping": (lambda: MaxPool(3, stride=[1, 2]), (2, 5, 5)),
    "maxpool padding": (lambda: MaxPool([2, 3], stride=2, padding=1), (1, 5, 4)),
    "linear": (lambda: Linear(4), (5,)),
    "linear on images": (lambda: Linear(3), (2, 2, 3)),
    "linear without bias": (lambda: Linear(3, bias=False), (4,)),
    "avgpool": (lambda: AvgPool(2), (2, 4, 6)),
    "avgpool overlapping, padding": (lambda: AvgPool([2, 3], stride=[1, 2], padding=1), (1, 5, 4)),
    "globalavgpool": (GlobalAvgPool, (3, 4, 3)),
    "batchnorm": (lambda: BatchNorm(eps=0.01), (2, 3, 4)),
    "batchnorm on vectors": (lambda: BatchNorm(eps=0.01), (5,)),
    "groupnorm": (lambda: GroupNorm(2, 0.01), (4, 2, 3)),
    "layernorm": (lambda: LayerNorm(0.01), (3, 2, 3)),
    "layernorm on vectors": (lambda: LayerNorm(0.01), (7,)),
    "instancenorm": (lambda: InstanceNorm(0.01), (2, 3, 4)),
    "subsampling": (lambda: Subsampling(2), (2, 4, 6)),
    "subsampling overlapping, padding": (lambda: Subsampling([2, 3], [1, 2], 1), (1, 5, 4)),
    "lrn": (lambda: LocalResponseNorm(3, alpha=0.5), (5, 2, 3)),
    "tanh": (Tanh, (2, 3, 4)),
    "sigmoid": (Sigmoid, (2, 3, 4)),
    "gelu": (GELU, (2, 3, 4)),
    "silu": (SiLU, (2, 3, 4)),
    "leaky_relu": (lambda: LeakyReLU(0.3), (2, 3, 4)),
    "elu": (lambda: ELU(0.6), (2, 3, 4)),
    "relu": (ReLU, (2, 3, 4)),
    "relu on vectors": (ReLU, (7,)),
    "flatten": (Flatten, (2, 2, 3)),
}

NETWORKS = {
    "three layers": (
        lambda: [Conv(3, 3, padding=1), ReLU(), MaxPool(2), Linear(6), ReLU(), Linear(4)],
        (1, 5, 6),
    ),
    "convolutions in a row": (
        lambda: [
            Conv(4, 2, stride=2),
            ReLU(),
            Conv(2, 2, groups=2, dilation=2, padding=1),
            ReLU(),
            Linear(3),
        ],
        (2, 6, 6),
    ),
    "pools overlap": (
        lambda: [Conv(2, 2), MaxPool(3, stride=1, padding=1), ReLU(), Flatten(), Linear(3, bias=False)],
        (1, 5, 5),
    ),
    "LeNet's subsampling": (
        lambda: [Conv(3, 2), Subsampling(2), Sigmoid(), Conv(4, 2), Tanh(), Subsampling(1, 2), Linear(3)],
        (1, 6, 6),
    ),
    "norms of single images": (
        lambda: [
            *(Conv(4, 2, bias=False), GroupNorm(2, 0.1), Tanh(), InstanceNorm(0.1), Conv(2, 2)),
            *(LayerNorm(0.1), Linear(5), LayerNorm(0.1), Sigmoid(), Linear(3)),
        ],
        (1, 5, 6),
    ),
    "vectors": (lambda: [Linear(6), ReLU(), Linear(3)], (5,)),
    "norms": (
        lambda: [
            *(Conv(3, 2, bias=False), BatchNorm(eps=0.1), Tanh(), AvgPool(2), LocalResponseNorm(3, 0.5)),
            *(GELU(), Linear(4, bias=False), BatchNorm(eps=0.1), Sigmoid(), Linear(3)),
        ],
        (1, 5, 6),
    ),
}


def run(network, x, backend):
    """Scores, and which side of every kink the network is on."""
    sides = [np.zeros(0)]
    for layer in network.layers:
        if isinstance(layer, (ReLU, LeakyReLU, ELU)):
            sides.append(np.sign(x).ravel())
        if isinstance(layer, MaxPool):
            sides.append(backend.maxpool_forward(x, layer.window)[1].ravel())
        x = layer.forward(x, backend, training=True)  # a batch norm takes the batch's statistics
    return x, np.concatenate(sides)


def smooth(evaluate, network, x, backend):
    """`evaluate` of the scores as a function without arguments, which refuses to cross a kink."""
    _, start = run(network, x, backend)

    def function():
        scores, sides = run(network, x, backend)
        assert np.array_equal(sides, start), "a difference was taken across a kink"
        return evaluate(scores)

    return function


@pytest.mark.parametrize(("make_layer", "input_shape"), LAYERS.values(), ids=LAYERS.keys())
def test_layer(backend, numerical_gradient, relative_error, make_layer, input_shape):
    rng = np.random.default_rng(11)
    network = Network([make_layer()], input_shape, dtype="float64", seed=3, init=Gaussian(1.0))
    for w in network.params.values():
        w[...] = rng.normal(size=w.shape)
    x = rng.normal(size=(2, *input_shape))
    dy = rng.normal(size=network.forward(x, backend, training=True).shape)
    dx = network.backward(dy, backend, need_dx=True)
    f = smooth(lambda y: float((y * dy).sum()), network, x, backend)

    assert dx.any()
    assert relative_error(dx, numerical_gradient(f, x)) < TOLERANCE
    assert network.grads.keys() == network.params.keys()
    for key, w in network.params.items():
        assert network.grads[key].all()
        assert relative_error(network.grads[key], numerical_gradient(f, w)) < TOLERANCE


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize(("make_layers", "input_shape"), NETWORKS.values(), ids=NETWORKS.keys())
def test_network(backend, numerical_gradient, relative_error, make_layers, input_shape, l2):
    rng = np.random.default_rng(5)
    network = Network(make_layers(), input_shape, dtype="float64", seed=2)
    biases = [array for key, array in network.params.items() if key.endswith("bias")]
    for b in biases:
        b[...] = rng.normal(0, 0.1, b.shape)  # at 0 they would hide their own mistakes
    x = rng.normal(size=(3, *input_shape))
    labels = np.array([2, 0, 1])

    def loss(scores):
        return network.loss.forward(scores, labels, backend) + network.penalty(l2=l2)

    f = smooth(loss, network, x, backend)
    value, grads = network.loss_and_grads(x, labels, backend, l2=l2)
    assert value == pytest.approx(f(), rel=1e-14)
    assert grads.keys() == network.params.keys()
    for key, w in network.params.items():
        assert grads[key].any()
        assert relative_error(grads[key], numerical_gradient(f, w)) < TOLERANCE


def test_a_wrong_gradient_is_noticed(backend, numerical_gradient, relative_error):
    class Careless(ReLU):
        def _backward(self, dy, saved, backend, need_dx):
            return dy, {}

    network = Network([Careless()], (6,), dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 6))
    network.forward(x, backend, training=True)
    dx = network.backward(np.ones((2, 6)), backend, need_dx=True)
    f = smooth(lambda y: float(y.sum()), network, x, backend)
    assert relative_error(dx, numerical_gradient(f, x)) > 0.5


def test_a_kink_is_noticed(backend, numerical_gradient):
    network = Network([ReLU()], (3,), dtype="float64")
    x = np.array([[1.0, 1e-7, -1.0]])
    f = smooth(lambda y: float(y.sum()), network, x, backend)
    with pytest.raises(AssertionError, match="across a kink"):
        numerical_gradient(f, x)
