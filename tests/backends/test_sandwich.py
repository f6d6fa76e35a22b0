"""Fused convolution: whatever a backend fuses equals the single operations one after the other."""

from functools import cache
from operator import attrgetter

import numpy as np
import pytest

from cnnctl.backends.base import Backend, SandwichOutputs
from cnnctl.backends.specs import Array
from tests.backends.direct import (
    Sum,
    assert_exact,
    assert_rounded,
    cast,
    compute_conv,
    compute_gamma,
    create_rng,
    draw,
    find_maxima,
    sum_conv,
    sum_unpooled,
)
from tests.hostile_shapes import SANDWICH_CASES, SandwichCase

over_the_table = pytest.mark.parametrize("case", SANDWICH_CASES, ids=attrgetter("name"))


@cache
def compute_forward(case: SandwichCase, fill: str) -> tuple[Array, Array | None]:
    """y and the pool's index, one operation after the other."""
    y = compute_conv(case.conv, fill).y.value
    if case.sandwich.activation:
        y = np.maximum(y, 0)
    return find_maxima(y, case.sandwich.pool.window) if case.sandwich.pool else (y, None)


@cache
def compute_backward(case: SandwichCase, fill: str) -> tuple[Array, tuple[Sum, Sum, Sum]]:
    """A dy, and dx, dw, db for it; the terms of dy's own sums are counted in."""
    truth = compute_conv(case.conv, fill)
    y, index = compute_forward(case, fill)
    dy = draw(create_rng(case.name), y.shape, fill)
    passed = np.where(y > 0, dy, 0) if case.sandwich.activation else dy
    overlaps = 1
    if case.sandwich.pool:
        passed, _, overlaps = sum_unpooled(passed, index, truth.y.value.shape, case.sandwich.pool.window)
    _, *gradients = sum_conv(truth.x, truth.w, truth.b, passed, case.conv.window, case.conv.groups)
    dx, dw, db = (Sum(value, magnitude, terms + overlaps) for value, magnitude, terms in gradients)
    return dy, (dx, dw, db)


@over_the_table
def test_integers_come_out_exactly(backend: Backend, case: SandwichCase, dtype: str) -> None:
    truth = compute_conv(case.conv, "integers")
    expected_y, expected_index = compute_forward(case, "integers")
    x, w, b = cast(dtype, truth.x, truth.w, truth.b)
    outputs = backend.conv_sandwich_forward(x, w, b, case.sandwich)
    assert outputs.y.dtype == dtype
    np.testing.assert_array_equal(outputs.y, expected_y)
    np.testing.assert_array_equal(outputs.index, expected_index)
    assert np.count_nonzero(outputs.y) >= 0.3 * outputs.y.size

    drawn, expected = compute_backward(case, "integers")
    (dy,) = cast(dtype, drawn)
    actual = backend.conv_sandwich_backward(dy, x, w, outputs, case.sandwich)[:3]
    for gradient, sums in zip(actual, expected, strict=True):
        assert_exact(gradient, sums, dtype)
    without_dx = backend.conv_sandwich_backward(dy, x, w, outputs, case.sandwich, need_dx=False)
    assert without_dx[0] is None
    np.testing.assert_array_equal(without_dx[1], actual[1])
    np.testing.assert_array_equal(without_dx[2], actual[2])


@over_the_table
def test_rounding_is_bounded(backend: Backend, case: SandwichCase, dtype: str) -> None:
    """ReLU and pooling add no rounding, and move y by no more than the convolution's error."""
    truth = compute_conv(case.conv, dtype)
    expected_y, expected_index = compute_forward(case, dtype)
    x, w, b = cast(dtype, truth.x, truth.w, truth.b)
    y = backend.conv_sandwich_forward(x, w, b, case.sandwich).y
    bound = 2 * compute_gamma(truth.y.terms, dtype) * truth.y.magnitude.max(initial=0)
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=bound)

    drawn, expected = compute_backward(case, dtype)
    dy, y = cast(dtype, drawn, expected_y)
    index = None if expected_index is None else expected_index.astype(np.int32)
    actual = backend.conv_sandwich_backward(dy, x, w, SandwichOutputs(y, index), case.sandwich)[:3]
    for gradient, sums in zip(actual, expected, strict=True):
        assert_rounded(gradient, sums, dtype)
