"""Activations: values and gradients where they bend."""

import numpy as np
import pytest

from cnnctl.nn import Network, ReLU


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_cuts_off_at_zero_and_its_gradient_there_is_zero(backend, dtype):
    network = Network([ReLU()], (5,), dtype=dtype)
    x = np.array([[-2, -0.0, 0, 0.5, 3]], dtype)
    assert network.forward(x, backend, training=True).tolist() == [[0, 0, 0, 0.5, 3]]
    dx = network.backward(np.full((1, 5), 7, dtype), backend, need_dx=True)
    assert dx.tolist() == [[0, 0, 0, 7, 7]]
