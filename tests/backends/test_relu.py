"""ReLU: the maximum with 0, elementwise on any shape and any value."""

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from tests.backends.direct import cast
from tests.hostile_shapes import TAILS

SHAPES = [(0,), (2, 3, 4, 5), (5, 0, 2), *[(extent,) for extent in TAILS]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_positive_values_pass_and_so_do_their_gradients(
    backend: Backend, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    x, dy = cast(dtype, rng.standard_normal(shape), rng.standard_normal(shape))
    y = backend.relu_forward(x)
    dx = backend.relu_backward(dy, y)
    assert (y.dtype, dx.dtype) == (x.dtype, x.dtype)
    np.testing.assert_array_equal(y, np.where(x > 0, x, 0))
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, 0))


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, -0.0])
def test_special_values_at_every_position(backend: Backend, special: float, dtype: str) -> None:
    expected = {np.inf: np.inf, -np.inf: 0.0, -0.0: 0.0}.get(special, np.nan)
    for position in range(33):
        x, y = np.full(33, 2.0), np.full(33, 2.0)
        x[position], y[position] = special, expected
        np.testing.assert_array_equal(backend.relu_forward(*cast(dtype, x)), y)


def test_gradient_is_blocked_at_zero_and_passes_a_nan(backend: Backend, dtype: str) -> None:
    y, dy = cast(dtype, [0, -0.0, 1, np.nan, np.inf, 0, 0], [5, 5, np.nan, 6, 7, np.nan, np.inf])
    np.testing.assert_array_equal(backend.relu_backward(dy, y), [0, 0, np.nan, 6, 7, 0, 0])
