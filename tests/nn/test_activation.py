"""Activations: each means the contract's operation, and its gradient goes with it."""

import numpy as np
import pytest

from cnnctl.backends.specs import ActivationSpec
from cnnctl.nn import GELU, Network, ReLU, Sigmoid, Tanh


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
    ],
)
def test_value_and_slope_at_one(backend, make_layer, name, value, slope):
    layer = make_layer()
    network = Network([layer], (1,), dtype="float64")
    assert network.forward(np.ones((1, 1)), backend, training=True)[0, 0] == pytest.approx(value, rel=1e-15)
    dx = network.backward(np.full((1, 1), 2.0), backend, need_dx=True)
    assert dx[0, 0] == pytest.approx(2 * slope, rel=1e-14)
    assert (layer.kind, layer.spec) == (name, ActivationSpec(name))
