"""Local response normalisation over the hostile table, against the formula in Python floats."""

from functools import cache
from itertools import product
from operator import attrgetter

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from tests.backends.direct import cast, create_rng, draw
from tests.hostile_shapes import LRN_CASES, LrnCase

over_the_table = pytest.mark.parametrize("case", LRN_CASES, ids=attrgetter("name"))

ALPHA, K = 0.7, 1.5


@cache
def compute_lrn(case: LrnCase, fill: str) -> tuple[Array, Array, Array, Array]:
    """x and dy drawn for a case; y and, for L = sum of y * dy, dL/dx: every pair of channels in turn."""
    rng = create_rng(case.name)
    x, dy = draw(rng, case.x_shape, fill), draw(rng, case.x_shape, fill)
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    N, C, H, W = x.shape
    for n, h, w in product(range(N), range(H), range(W)):
        pixel, slopes = x[n, :, h, w].tolist(), dy[n, :, h, w].tolist()
        for c in range(C):
            neighbours = [j for j in range(C) if c - case.size // 2 <= j <= c + (case.size - 1) // 2]
            s = K + ALPHA / case.size * sum(pixel[j] ** 2 for j in neighbours)
            y[n, c, h, w] = pixel[c] / s**case.beta
            dx[n, c, h, w] += slopes[c] / s**case.beta
            for j in neighbours:
                ds = -case.beta * slopes[c] * pixel[c] * s ** (-case.beta - 1)
                dx[n, j, h, w] += ds * ALPHA / case.size * 2 * pixel[j]
    return x, dy, y, dx


@over_the_table
def test_values_and_gradients(backend: Backend, case: LrnCase, dtype: str) -> None:
    truth_x, truth_dy, truth_y, truth_dx = compute_lrn(case, dtype)
    x, dy = cast(dtype, truth_x, truth_dy)
    y = backend.lrn_forward(x, case.size, ALPHA, case.beta, K)
    dx = backend.lrn_backward(dy, x, case.size, ALPHA, case.beta, K)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, truth_y, rtol=(8 + case.size) * eps)
    np.testing.assert_allclose(dx, truth_dx, rtol=0, atol=(16 + 8 * case.size) * eps * 4)
    if case.beta:
        assert np.abs(y - x).max(initial=1) > 0.01


def test_the_published_constants(backend: Backend, dtype: str) -> None:
    """Of AlexNet: size 5, alpha 1e-4, beta 0.75, k 2, with alpha divided by the size here."""
    x = np.full((1, 7, 1, 1), 100, dtype)
    y = backend.lrn_forward(x, 5, 5e-4, 0.75, 2)
    counts = np.array([3, 4, 5, 5, 5, 4, 3])
    expected = 100 / (2 + 1e-4 * counts * 1e4) ** 0.75
    np.testing.assert_allclose(y.ravel(), expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("channels", [6, 16, 19])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_reaches_its_neighbours_alone(backend: Backend, channels: int, dtype: str) -> None:
    for channel in range(channels):
        x = np.ones((1, channels, 2, 2), dtype)
        x[0, channel, 0, 1] = np.nan
        reached = np.zeros(x.shape, bool)
        reached[0, max(channel - 1, 0) : channel + 2, 0, 1] = True
        np.testing.assert_array_equal(np.isnan(backend.lrn_forward(x, 3, 1.0, 0.75, 1.0)), reached)
        reached[0, max(channel - 2, 0) : channel + 3, 0, 1] = True
        dx = backend.lrn_backward(np.ones_like(x), x, 3, 1.0, 0.75, 1.0)
        np.testing.assert_array_equal(np.isnan(dx), reached)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_squares_beyond_all_bounds_leave_nothing(backend: Backend, dtype: str) -> None:
    x = np.full((1, 3, 1, 1), 1e30 if dtype == "float32" else 1e300, dtype)
    for beta in (0.75, 0.8):
        np.testing.assert_array_equal(backend.lrn_forward(x, 3, 1.0, beta, 1.0), 0)
