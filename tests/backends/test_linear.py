"""Fully connected layers over the hostile table: exact on integers, bounded rounding on reals."""

from operator import attrgetter

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from tests.backends.direct import assert_exact, assert_rounded, cast, compute_linear, connect
from tests.hostile_shapes import LINEAR_CASES, LinearCase

over_the_table = pytest.mark.parametrize("case", LINEAR_CASES, ids=attrgetter("name"))


@over_the_table
def test_integers_come_out_exactly(backend: Backend, case: LinearCase, dtype: str) -> None:
    truth = compute_linear(case, "integers")
    x, w, b, dy = cast(dtype, truth.x, truth.w, truth.b, truth.dy)
    dx, dw, db = backend.linear_backward(dy, x, w)
    assert dx is not None
    assert_exact(backend.linear_forward(x, w, b), truth.y, dtype)
    assert_exact(dx, truth.dx, dtype)
    assert_exact(dw, truth.dw, dtype)
    assert_exact(db, truth.db, dtype)


@over_the_table
def test_rounding_is_bounded(backend: Backend, case: LinearCase, dtype: str) -> None:
    truth = compute_linear(case, dtype)
    x, w, b, dy = cast(dtype, truth.x, truth.w, truth.b, truth.dy)
    dx, dw, db = backend.linear_backward(dy, x, w)
    assert dx is not None
    assert_rounded(backend.linear_forward(x, w, b), truth.y, dtype)
    assert_rounded(dx, truth.dx, dtype)
    assert_rounded(dw, truth.dw, dtype)
    assert_rounded(db, truth.db, dtype)


@over_the_table
def test_bias_and_input_gradient_may_be_left_out(backend: Backend, case: LinearCase, dtype: str) -> None:
    truth = compute_linear(case, "integers")
    x, w, b, dy = cast(dtype, truth.x, truth.w, truth.b, truth.dy)
    dx, dw, db = backend.linear_backward(dy, x, w, need_dx=False)
    assert dx is None
    np.testing.assert_array_equal(backend.linear_forward(x, w, None) + b, truth.y.value)
    assert_exact(dw, truth.dw, dtype)
    assert_exact(db, truth.db, dtype)


@over_the_table
@pytest.mark.parametrize("activation", [None, "relu"])
def test_sandwich_is_its_layers_in_turn(
    backend: Backend, case: LinearCase, activation: str | None, dtype: str
) -> None:
    truth = compute_linear(case, "integers")
    x, w, b, dy = cast(dtype, truth.x, truth.w, truth.b, truth.dy)
    y = backend.linear_sandwich_forward(x, w, b, activation)
    expected_y = np.maximum(truth.y.value, 0) if activation else truth.y.value
    np.testing.assert_array_equal(y, expected_y)
    passed = np.where(expected_y > 0, truth.dy, 0) if activation else truth.dy
    _, dx, dw, db = connect(truth.x, truth.w, truth.b, passed)
    actual_dx, actual_dw, actual_db = backend.linear_sandwich_backward(dy, x, w, y, activation)
    np.testing.assert_array_equal(actual_dx, dx)
    np.testing.assert_array_equal(actual_dw, dw)
    np.testing.assert_array_equal(actual_db, db)
    assert backend.linear_sandwich_backward(dy, x, w, y, activation, need_dx=False)[0] is None


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, -0.0])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_special_values_reach_their_image_and_no_other(backend: Backend, special: float, dtype: str) -> None:
    """At every position of x, also where it meets a zero weight: inf * 0 is NaN."""
    truth = compute_linear(LinearCase("special", 3, 17, 5), "integers")
    w = truth.w.copy()
    w[:, ::3] = 0
    for position in np.ndindex(truth.x.shape):
        x = truth.x.copy()
        x[position] = special
        y = backend.linear_forward(*cast(dtype, x, w, truth.b))
        np.testing.assert_array_equal(y, connect(x, w, truth.b, truth.dy)[0])
