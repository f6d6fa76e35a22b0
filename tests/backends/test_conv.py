"""Convolution over the hostile table: exact on integers, bounded rounding on reals, adjoint."""

from functools import cache
from operator import attrgetter

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.geometry import Window
from tests.backends.direct import ConvTruth, assert_exact, assert_rounded, cast, compute_conv, convolve
from tests.hostile_shapes import CONV_CASES, ConvCase

over_the_table = pytest.mark.parametrize("case", CONV_CASES, ids=attrgetter("name"))


@over_the_table
def test_integers_come_out_exactly(backend: Backend, case: ConvCase, dtype: str) -> None:
    truth = compute_conv(case, "integers")
    x, w, b, dy = cast(dtype, truth.x, truth.w, truth.b, truth.dy)
    y = backend.conv_forward(x, w, b, case.window, case.groups)
    dx, dw, db = backend.conv_backward(dy, x, w, case.window, case.groups)
    assert dx is not None
    assert_exact(y, truth.y, dtype)
    assert_exact(dx, truth.dx, dtype)
    assert_exact(dw, truth.dw, dtype)
    assert_exact(db, truth.db, dtype)


@over_the_table
def test_rounding_is_bounded(backend: Backend, case: ConvCase, dtype: str) -> None:
    truth = compute_conv(case, dtype)
    x, w, b, dy = cast(dtype, truth.x, truth.w, truth.b, truth.dy)
    y = backend.conv_forward(x, w, b, case.window, case.groups)
    dx, dw, db = backend.conv_backward(dy, x, w, case.window, case.groups)
    assert dx is not None
    assert_rounded(y, truth.y, dtype)
    assert_rounded(dx, truth.dx, dtype)
    assert_rounded(dw, truth.dw, dtype)
    assert_rounded(db, truth.db, dtype)


@over_the_table
def test_backward_is_the_adjoint_of_forward(backend: Backend, case: ConvCase) -> None:
    """<conv(x, w), dy> = <x, dx> = <w, dw>."""
    truth = compute_conv(case, "float64")
    y = backend.conv_forward(truth.x, truth.w, None, case.window, case.groups)
    dx, dw, _ = backend.conv_backward(truth.dy, truth.x, truth.w, case.window, case.groups)
    assert dx is not None
    expected = np.vdot(y, truth.dy)
    scale = np.vdot(np.abs(y), np.abs(truth.dy))
    assert np.vdot(truth.x, dx) == pytest.approx(expected, rel=0, abs=1e-12 * scale)
    assert np.vdot(truth.w, dw) == pytest.approx(expected, rel=0, abs=1e-12 * scale)


@over_the_table
def test_bias_and_input_gradient_may_be_left_out(backend: Backend, case: ConvCase, dtype: str) -> None:
    truth = compute_conv(case, "integers")
    x, w, b, dy = cast(dtype, truth.x, truth.w, truth.b, truth.dy)
    y = backend.conv_forward(x, w, None, case.window, case.groups)
    dx, dw, db = backend.conv_backward(dy, x, w, case.window, case.groups, need_dx=False)
    assert dx is None
    np.testing.assert_array_equal(y + b[:, None, None], truth.y.value)
    assert_exact(dw, truth.dw, dtype)
    assert_exact(db, truth.db, dtype)


SPECIAL_CASES = [
    ConvCase("17 columns", (1, 2, 2, 17), 3, Window.create((2, 3), padding=((0, 1), (1, 1)))),
    ConvCase("17 channels", (1, 17, 2, 2), 3, Window.create(2)),
    ConvCase("strided groups", (2, 4, 5, 5), 4, Window.create(2, stride=2), 2),
]


@cache
def plant_special(case: ConvCase, special: float, field: str) -> list[tuple[ConvTruth, tuple[Array, ...]]]:
    """`special` at every position of one argument in turn, and y, dx, dw, db of each.

    A row of the weights is 0, since inf * 0 is NaN and no 0 may hide it.
    """
    clean = compute_conv(case, "integers")
    w = clean.w.copy()
    w[:, :, 0] = 0
    planted = []
    for position in np.ndindex(getattr(clean, field).shape):
        changed = getattr(clean, field).copy()
        changed[position] = special
        inputs = clean._replace(**{"w": w, field: changed})
        results = convolve(inputs.x, inputs.w, inputs.b, inputs.dy, case.window, case.groups)
        planted.append((inputs, results))
    return planted


@pytest.mark.parametrize("case", SPECIAL_CASES, ids=attrgetter("name"))
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, -0.0])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_special_pixels_reach_their_windows_and_no_other(
    backend: Backend, case: ConvCase, special: float, dtype: str
) -> None:
    for inputs, expected in plant_special(case, special, "x"):
        x, w, b, dy = cast(dtype, inputs.x, inputs.w, inputs.b, inputs.dy)
        y = backend.conv_forward(x, w, b, case.window, case.groups)
        gradients = backend.conv_backward(dy, x, w, case.window, case.groups)
        for actual, direct in zip((y, *gradients), expected, strict=True):
            np.testing.assert_array_equal(actual, direct)


@pytest.mark.parametrize("case", SPECIAL_CASES[1:], ids=attrgetter("name"))
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_special_gradients_reach_their_windows_and_no_other(
    backend: Backend, case: ConvCase, special: float, dtype: str
) -> None:
    """Without padding: the contract leaves open what a special gradient makes of a tap outside."""
    for inputs, (_, *expected) in plant_special(case, special, "dy"):
        x, w, dy = cast(dtype, inputs.x, inputs.w, inputs.dy)
        gradients = backend.conv_backward(dy, x, w, case.window, case.groups)
        for actual, direct in zip(gradients, expected, strict=True):
            np.testing.assert_array_equal(actual, direct)
