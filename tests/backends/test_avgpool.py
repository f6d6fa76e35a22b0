"""Average pooling over the hostile table: exact where windows allow it, bounded rounding elsewhere."""

from operator import attrgetter

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.geometry import Window
from tests.backends.direct import assert_exact, assert_rounded, cast, compute_avgpool
from tests.hostile_shapes import POOL_CASES, PoolCase

over_the_table = pytest.mark.parametrize("case", POOL_CASES, ids=attrgetter("name"))
EXACT_CASES = [case for case in POOL_CASES if compute_avgpool(case, "integers").exact]


def test_there_are_exact_cases() -> None:
    assert len(EXACT_CASES) > 30


@pytest.mark.parametrize("case", EXACT_CASES, ids=attrgetter("name"))
def test_means_over_powers_of_two_come_out_exactly(backend: Backend, case: PoolCase, dtype: str) -> None:
    truth = compute_avgpool(case, "integers")
    x, dy = cast(dtype, truth.x, truth.dy)
    assert_exact(backend.avgpool_forward(x, case.window), truth.y, dtype)
    assert_exact(backend.avgpool_backward(dy, case.x_shape, case.window), truth.dx, dtype)


@over_the_table
def test_rounding_is_bounded(backend: Backend, case: PoolCase, dtype: str) -> None:
    truth = compute_avgpool(case, dtype)
    x, dy = cast(dtype, truth.x, truth.dy)
    assert_rounded(backend.avgpool_forward(x, case.window), truth.y, dtype)
    assert_rounded(backend.avgpool_backward(dy, case.x_shape, case.window), truth.dx, dtype)


@over_the_table
def test_backward_is_the_adjoint(backend: Backend, case: PoolCase) -> None:
    """<y, dy> = <x, dx>."""
    truth = compute_avgpool(case, "float64")
    y = backend.avgpool_forward(truth.x, case.window)
    dx = backend.avgpool_backward(truth.dy, case.x_shape, case.window)
    scale = np.vdot(np.abs(y), np.abs(truth.dy))
    assert np.vdot(truth.x, dx) == pytest.approx(np.vdot(y, truth.dy), rel=0, abs=1e-12 * scale)


@over_the_table
def test_padding_is_not_counted(backend: Backend, case: PoolCase, dtype: str) -> None:
    """The mean of equal pixels is that pixel, wherever the window lies."""
    x = np.full(case.x_shape, 3, dtype)
    np.testing.assert_array_equal(backend.avgpool_forward(x, case.window), 3)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_reach_their_windows_alone(backend: Backend, special: float, dtype: str) -> None:
    window = Window.create(2, 2)
    for channel in range(17):
        x, dy = np.ones((1, 17, 4, 6), dtype), np.ones((1, 17, 2, 3), dtype)
        x[0, channel, 3, 2] = dy[0, channel, 1, 1] = special
        y, dx = backend.avgpool_forward(x, window), backend.avgpool_backward(dy, (1, 17, 4, 6), window)
        np.testing.assert_array_equal(y[0, channel, 1, 1], special)
        np.testing.assert_array_equal(dx[0, channel, 2:, 2:4], special)
        assert np.isfinite(y).sum() == y.size - 1
        assert np.isfinite(dx).sum() == dx.size - 4
