"""Activations: each means the contract's operation, and its gradient goes with it."""

import numpy as np
import pytest

from cnnctl.backends.specs import ActivationSpec
from cnnctl.errors import ConfigError
from cnnctl.nn import ELU, GELU, LeakyReLU, Network, ReLU, Sigmoid, SiLU, Tanh


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_cuts_off_at_zero_and_its_gradient_there_is_zero(backend, dtype):
    network = Network([ReLU()], (5,), dtype=dtype)
    x = np.array([[-2, -0.0, 0, 0.5, 3]], dtype)
    assert network.forward(x, backend, training=True).tolist() == [[0, 0, 0, 0.5, 3]]
    dx = network.backward(np.full((1, 5), 7, dtype), backend, need_dx=True)
    assert dx.tolist() == [[0, 0, 0, 7, 7]]


@pytest.mark.parametrize(
    ("make_layer", "name", "value", "slope"),
    [
        (ReLU, "relu", 1.0, 1.0),
        (Tanh, "tanh", 0.7615941559557649, 0.41997434161402614),
        (Sigmoid, "sigmoid", 0.7310585786300049, 0.19661193324148188),
        (GELU, "gelu", 0.8413447460685429, 1.0833154705876864),
        (SiLU, "silu", 0.7310585786300049, 0.9276705118714868),
    ],
)
def test_value_and_slope_at_one(backend, make_layer, name, value, slope):
    layer = make_layer()
    network = Network([layer], (1,), dtype="float64")
    assert network.forward(np.ones((1, 1)), backend, training=True)[0, 0] == pytest.approx(value, rel=1e-15)
    dx = network.backward(np.full((1, 1), 2.0), backend, need_dx=True)
    assert dx[0, 0] == pytest.approx(2 * slope, rel=1e-14)
    assert (layer.kind, layer.spec) == (name, ActivationSpec(name))


@pytest.mark.parametrize(
    ("layer", "value", "slope"),
    [
        (LeakyReLU(), -0.01, 0.01),
        (LeakyReLU(0.2), -0.2, 0.2),
        (LeakyReLU(3), -3, 3),
        (ELU(), -0.6321205588285577, 0.36787944117144233),
        (ELU(0.5), -0.31606027941427883, 0.18393972058572117),
    ],
)
def test_value_and_slope_at_minus_one_and_one(backend, layer, value, slope):
    fresh = type(layer)(layer.alpha)
    network = Network([fresh], (2,), dtype="float64")
    x = np.array([[-1.0, 1.0]])
    assert network.forward(x, backend, training=True)[0] == pytest.approx([value, 1.0], rel=1e-14)
    assert [side.tolist() for side in fresh.sides()] == [[[False, True]]]
    assert network.backward(2 * np.ones((1, 2)), backend, need_dx=True)[0] == pytest.approx([2 * slope, 2.0])
    assert fresh.spec == ActivationSpec(fresh.kind, fresh.alpha)


@pytest.mark.parametrize(
    ("make_layer", "line"),
    [
        (lambda: LeakyReLU(0), r"slope: 0 is not a number in \(0, inf\)"),
        (lambda: LeakyReLU(float("nan")), r"slope: nan is not a number in \(0, inf\)"),
        (lambda: ELU(-1.0), r"alpha: -1.0 is not a number in \(0, inf\)"),
        (lambda: ELU(True), r"alpha: True is not a number in \(0, inf\)"),
    ],
)
def test_wrong_arguments_are_named(make_layer, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        make_layer()
