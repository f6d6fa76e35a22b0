"""Residual blocks: the sum of two branches, as a layer and as a plan fuses it."""

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import AddSpec, ConvSpec
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.nn import BatchNorm, Conv, Layer, Linear, MaxPool, Network, ReLU, Residual
from cnnctl.nn.fusion import fuse_layers

SHAPE = (4, 6, 6)


def make_block(name: str | None = None) -> Residual:
    main = [Conv(4, 3, padding=1), BatchNorm(), ReLU(), Conv(4, 3, padding=1), BatchNorm()]
    return Residual(main, name=name)


def make_wider(stride: int = 2) -> Residual:
    main = [Conv(6, 3, stride=stride, padding=1), ReLU(), Conv(6, 3, padding=1)]
    return Residual(main, [Conv(6, 1, stride=stride), BatchNorm()])


def test_the_sum_of_both_branches(backend: Backend, rng: np.random.Generator) -> None:
    block = make_wider()
    network = Network([block], SHAPE, dtype="float64", seed=1)
    x = rng.standard_normal((3, *SHAPE))
    main = shortcut = x
    for layer in block.layers:
        main = layer.forward(main, backend, training=False)
    for layer in block.shortcut:
        shortcut = layer.forward(shortcut, backend, training=False)
    np.testing.assert_array_equal(network.forward(x, backend), main + shortcut)
    assert network.output_shape == (6, 3, 3)


def test_without_a_shortcut_the_input_is_added(backend: Backend, rng: np.random.Generator) -> None:
    block = Residual([Conv(4, 1, init=None)])
    network = Network([block], SHAPE, dtype="float64")
    network.params["residual1.conv1.weight"][...] = 0
    network.params["residual1.conv1.bias"][...] = 3
    x = rng.standard_normal((2, *SHAPE))
    np.testing.assert_array_equal(network.forward(x, backend), x + 3)


def test_gradients_of_both_branches_by_differences(backend: Backend, rng: np.random.Generator) -> None:
    network = Network([make_block(), make_wider()], SHAPE, dtype="float64", seed=2)
    x = rng.standard_normal((2, *SHAPE))
    dy = rng.standard_normal((2, *network.output_shape))
    network.forward(x, backend, training=True)
    dx = network.backward(dy, backend, need_dx=True)
    assert dx is not None

    def objective() -> float:
        return float((network.forward(x, backend, training=True) * dy).sum())

    gradients = {key: dw.copy() for key, dw in network.grads.items()}
    for array, gradient in [(x, dx), *((w, gradients[key]) for key, w in network.params.items())]:
        for _ in range(3):
            at = tuple(int(rng.integers(extent)) for extent in array.shape)
            start, values = array[at], []
            for side in (1e-6, -1e-6):
                array[at] = start + side
                values.append(objective())
            array[at] = start
            assert gradient[at] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_layers_of_a_block_are_called_by_its_name() -> None:
    network = Network([make_block(), make_block("last"), make_wider(), Linear(3)], SHAPE)
    assert [key for key in network.params if "weight" in key][:4] == [
        "residual1.conv1.weight",
        "residual1.batchnorm1.weight",
        "residual1.conv2.weight",
        "residual1.batchnorm2.weight",
    ]
    assert "residual3.shortcut.conv1.weight" in network.params
    assert "last.conv2.weight" in network.params
    assert "last.batchnorm1.running_var" in network.statistics
    assert network.parameter_count == sum(w.size for w in network.params.values())


@pytest.mark.parametrize(
    ("build", "error", "line"),
    [
        (lambda: Residual([]), ConfigError, "layers: a residual block without layers computes nothing"),
        (
            lambda: Network([Residual([Conv(5, 1)])], SHAPE),
            ShapeError,
            r"residual1: the block's layers come to \(5, 6, 6\), its shortcut to \(4, 6, 6\)",
        ),
        (
            lambda: Network([Residual([Conv(4, 9)])], SHAPE),
            ShapeError,
            "residual1: conv: kernel spans 9 pixels",
        ),
    ],
    ids=["no layers", "shapes differ", "a layer that does not fit"],
)
def test_what_is_refused(build: object, error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line):
        build()  # type: ignore[operator]


def test_a_layer_cannot_be_used_again_inside_a_block() -> None:
    used = Conv(4, 1)
    Network([used], SHAPE)
    with pytest.raises(ConfigError, match="in a network already"):
        Network([Residual([used])], SHAPE)


@pytest.mark.parametrize(
    ("layers", "specs"),
    [
        ([make_block(), ReLU()], [ConvSpec, ConvSpec]),
        ([make_wider()], [ConvSpec, ConvSpec, ConvSpec]),
        ([Residual([Conv(4, 1), ReLU()])], [ConvSpec, AddSpec]),
        ([Residual([make_block()])], [ConvSpec, ConvSpec, AddSpec]),
        ([Residual([Conv(4, 1), MaxPool(1)])], [ConvSpec, AddSpec]),
    ],
    ids=["norm last", "shortcut of its own", "activation last", "block in a block", "pool last"],
)
def test_fusion(layers: list[Layer], specs: list[type]) -> None:
    """The shortcut is added by the last convolution, where nothing but its norm stands behind it."""
    network = Network(layers, SHAPE)
    nodes = fuse_layers(network.layers)
    assert [type(node.spec) for node in nodes] == specs
    fused = [node.spec.sandwich.residual for node in nodes if isinstance(node.spec, ConvSpec)]
    assert sum(fused) == (1 if AddSpec not in specs or len(specs) == 3 else 0)


def test_a_forward_pass_of_naive_is_that_of_fast(rng: np.random.Generator) -> None:
    network = Network([make_block(), ReLU(), make_wider(), Linear(3)], SHAPE, seed=4)
    x = rng.standard_normal((2, *SHAPE)).astype(np.float32)
    first, second = (network.forward(x, create_backend(name)) for name in ("naive", "fast"))
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make_block", "line"),
    [
        (lambda: Residual([ReLU("a"), ReLU("a")]), "'a' is the name of two layers"),
        (lambda: Residual(["relu"]), "'relu' is not a layer"),  # type: ignore[list-item]
        (lambda: Residual([ReLU()], [None]), "None is not a layer"),  # type: ignore[list-item]
        (lambda: Residual([layer := ReLU()], [layer]), "a layer stands in the network twice"),
    ],
    ids=["names", "a word", "nothing", "both branches"],
)
def test_what_is_wrong_in_a_block_leaves_the_layers_before_it_unused(make_block: object, line: str) -> None:
    first = Conv(1, 1)
    with pytest.raises(ConfigError, match=line):
        Network([first, make_block()], (1, 8, 8))  # type: ignore[operator]
    assert not first.output_shape
    Network([first], (1, 8, 8))


def test_a_layer_that_stands_in_a_block_as_well_is_refused() -> None:
    layer = ReLU()
    with pytest.raises(ConfigError, match="a layer stands in the network twice"):
        Network([layer, Residual([layer])], (1, 8, 8))
    assert not layer.output_shape
