"""Max pooling over the hostile table: values and winners exact, gradients exact or bounded."""

from operator import attrgetter

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.geometry import Window
from tests.backends.direct import (
    assert_exact,
    assert_rounded,
    cast,
    compute_pool,
    create_rng,
    find_maxima,
    sum_unpooled,
)
from tests.hostile_shapes import POOL_CASES, PoolCase

over_the_table = pytest.mark.parametrize("case", POOL_CASES, ids=attrgetter("name"))

SPECIALS = np.array([np.nan, np.inf, -np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0])


@over_the_table
@pytest.mark.parametrize("fill", ["integers", "float32"])
def test_maxima_and_winners_are_exact(backend: Backend, case: PoolCase, fill: str, dtype: str) -> None:
    """On small integers nearly every window holds a tie: the first maximum wins it."""
    truth = compute_pool(case, fill)
    (x,) = cast(dtype, truth.x)
    y, index = backend.maxpool_forward(x, case.window)
    assert (y.dtype, index.dtype) == (np.dtype(dtype), np.int32)
    np.testing.assert_array_equal(y, truth.y)
    np.testing.assert_array_equal(index, truth.index)


@over_the_table
def test_integer_gradients_come_out_exactly(backend: Backend, case: PoolCase, dtype: str) -> None:
    truth = compute_pool(case, "integers")
    dy, index = cast(dtype, truth.dy)[0], truth.index.astype(np.int32)
    assert_exact(backend.maxpool_backward(dy, index, case.x_shape, case.window), truth.dx, dtype)


@over_the_table
def test_rounding_of_gradients_is_bounded(backend: Backend, case: PoolCase, dtype: str) -> None:
    truth = compute_pool(case, dtype)
    dy, index = cast(dtype, truth.dy)[0], truth.index.astype(np.int32)
    assert_rounded(backend.maxpool_backward(dy, index, case.x_shape, case.window), truth.dx, dtype)


@over_the_table
def test_backward_is_the_adjoint_of_the_selection(backend: Backend, case: PoolCase) -> None:
    """y is x at the winners, so <y, dy> = <x, dx>."""
    truth = compute_pool(case, "float64")
    y, index = backend.maxpool_forward(truth.x, case.window)
    dx = backend.maxpool_backward(truth.dy, index, case.x_shape, case.window)
    scale = np.vdot(np.abs(y), np.abs(truth.dy))
    assert np.vdot(truth.x, dx) == pytest.approx(np.vdot(y, truth.dy), rel=0, abs=1e-12 * scale)


@over_the_table
def test_nan_infinities_and_zeros_follow_the_contract(backend: Backend, case: PoolCase, dtype: str) -> None:
    """The first NaN wins, -0 ties with 0, and padding loses even to -inf."""
    (x,) = cast(dtype, create_rng(case.name).choice(SPECIALS, case.x_shape))
    expected_y, expected_index = find_maxima(x, case.window)
    y, index = backend.maxpool_forward(x, case.window)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(index, expected_index)


@over_the_table
def test_padding_never_wins(backend: Backend, case: PoolCase, dtype: str) -> None:
    """Even where the image holds nothing but -inf, the gradient goes to one of its pixels."""
    (x,) = cast(dtype, np.full(case.x_shape, -np.inf))
    y, index = backend.maxpool_forward(x, case.window)
    assert np.isneginf(y).all()
    np.testing.assert_array_equal(index, find_maxima(x, case.window)[1])
    dx = backend.maxpool_backward(np.ones_like(y), index, case.x_shape, case.window)
    assert dx.sum() == y.size


@pytest.mark.parametrize("dy_value", [np.nan, np.inf, -np.inf])
def test_special_gradients_reach_the_winner_alone(backend: Backend, dy_value: float, dtype: str) -> None:
    window = Window.create(3, 2, 1)
    x, dy = np.arange(50.0).reshape(1, 2, 5, 5), np.ones((1, 2, 3, 3))
    dy[0, 1, 1, 2] = dy_value
    x, dy = cast(dtype, x, dy)
    _, index = backend.maxpool_forward(x, window)
    expected = sum_unpooled(dy, index, x.shape, window).value
    np.testing.assert_array_equal(backend.maxpool_backward(dy, index, (1, 2, 5, 5), window), expected)
    assert np.count_nonzero(~np.isfinite(expected)) == 1
