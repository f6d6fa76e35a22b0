"""Parity: what rounding explains passes, and the smallest real mistake does not."""

import math

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.specs import AddSpec, ConvSpec, LinearSpec, Pool, PoolSpec, Sandwich
from cnnctl.check.parity import (
    bound_outputs,
    bound_sums,
    compare_arrays,
    compare_outputs,
    count_terms,
    draw_arguments,
)
from cnnctl.geometry import Window

X, Y = (4, 3, 11, 11), (4, 5, 6, 6)
WINDOW = Window.create(3, 2, 1)
CONV = ConvSpec(Sandwich(WINDOW), 5, True)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def arguments(rng, dtype):
    """x, w, b, dy of a small convolution."""
    return [draw_arguments(rng, shape, dtype) for shape in (X, (5, 3, 3, 3), (5,), Y)]


@pytest.fixture
def compute(arguments):
    """All outputs of that convolution, by any backend."""

    def run(backend):
        x, w, b, dy = arguments
        y = create_backend(backend).conv_forward(x, w, b, WINDOW)
        dx, dw, db = create_backend(backend).conv_backward(dy, x, w, WINDOW)
        return {"y": y, "dx": dx, "dw": dw, "db": db}

    return run


@pytest.fixture
def wanted(compute):
    return compute("naive")


@pytest.fixture
def bounds(wanted):
    return bound_outputs(CONV, X, Y, wanted, winograd=False)


@pytest.mark.parametrize("backend", ["im2col", "fast"])
def test_other_orders_of_summation_pass(compute, wanted, bounds, backend):
    found = compute(backend)
    for key, array in wanted.items():
        assert compare_arrays(key, found[key], array, bounds[key]).holds
    assert compare_outputs(found, wanted, bounds).difference > 0, "nothing was rounded differently"


@pytest.mark.parametrize("key", ["y", "dx", "dw", "db"])
def test_one_element_off_by_a_thousandth_fails(compute, wanted, bounds, key):
    found = compute("im2col")
    found[key].flat[-1] += 1e-3
    worst = compare_outputs(found, wanted, bounds)
    assert (worst.holds, worst.output) == (False, key)
    assert worst.difference == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("key", ["y", "dx", "dw", "db"])
def test_nothing_but_zeros_fails(wanted, bounds, key):
    assert not compare_arrays(key, np.zeros_like(wanted[key]), wanted[key], bounds[key]).holds


def test_one_image_too_few_in_a_weight_s_gradient_fails(arguments, wanted, bounds):
    x, w, _, dy = arguments
    _, dw, db = create_backend("im2col").conv_backward(dy[1:], x[1:], w, WINDOW)
    for key, array in {"dw": dw, "db": db}.items():
        assert not compare_arrays(key, array, wanted[key], bounds[key]).holds


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails(value):
    found = np.array([1.0, value, 3.0])
    parity = compare_arrays("y", found, np.array([1.0, 2.0, 3.0]), 1e9)
    assert (parity.holds, parity.problem) == (False, "1 of 3 numbers are not finite")
    assert math.isnan(parity.difference)
    assert not compare_arrays("y", found, found, 1e9).holds


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (np.ones((2, 3)), "float64 (2, 3) where float32 (2, 3) is needed"),
        (np.ones((3, 2), np.float32), "float32 (3, 2) where float32 (2, 3) is needed"),
        (None, "missing where float32 (2, 3) is needed"),
    ],
)
def test_what_has_another_form_fails(found, problem):
    parity = compare_arrays("dx", found, np.ones((2, 3), np.float32), 1e9)
    assert (parity.holds, parity.problem) == (False, problem)


def test_a_wrong_index_fails_and_a_right_one_passes(rng, dtype):
    spec = PoolSpec(Pool("max", Window.create(2)))
    x = draw_arguments(rng, X, dtype)
    y, index = create_backend("naive").maxpool_forward(x, spec.pool.window)
    wanted = {"y": y, "index": index}
    bounds = bound_outputs(spec, X, y.shape, wanted, winograd=True)
    assert bounds == {"y": 0, "index": 0}
    assert compare_outputs({"y": y.copy(), "index": index.copy()}, wanted, bounds).holds
    wrong = index.copy()
    wrong.flat[7] ^= 1
    worst = compare_outputs({"y": y, "index": wrong}, wanted, bounds)
    assert (worst.holds, worst.output, worst.difference) == (False, "index", 1)


def test_the_relative_error_is_the_courses(rng):
    a, b = rng.standard_normal((2, 50))
    a[0], b[0] = 1e-12, -1e-12
    wanted = np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b)))
    assert compare_arrays("y", a, b, 10.0).relative_error == wanted


def test_of_outputs_that_all_hold_the_one_that_differs_most_is_told():
    wanted = {key: np.zeros(2) for key in ("dx", "dw")}
    found = {"dx": np.full(2, 0.1), "dw": np.full(2, 0.2)}
    assert compare_outputs(found, wanted, {"dx": 1.0, "dw": 1.0}).output == "dw"
    assert compare_outputs(found, wanted, {"dx": 0.0, "dw": 1.0}).output == "dx"


def test_arguments_have_mean_0_and_variance_1_and_an_end(rng):
    values = draw_arguments(rng, (100_000,), "float64")
    assert abs(values.mean()) < 0.02
    assert values.var() == pytest.approx(1, abs=0.02)
    assert np.abs(values).max() <= math.sqrt(3)


@pytest.mark.parametrize(
    ("spec", "x_shape", "y_shape", "terms"),
    [
        (CONV, X, Y, {"y": 28, "dx": 45, "dw": 144, "db": 144}),
        (
            ConvSpec(Sandwich(Window.create((1, 2)), 2), 6, False),
            (2, 4, 5, 5),
            (2, 6, 5, 4),
            {"y": 5, "dx": 6, "dw": 40, "db": 40},
        ),
        (LinearSpec(7, True, None), (3, 2, 4, 4), (3, 7), {"y": 33, "dx": 7, "dw": 3, "db": 3}),
        (PoolSpec(Pool("max", Window.create(2, 2))), X, Y, {"y": 0, "index": 0, "dx": 0}),
        (PoolSpec(Pool("max", Window.create(3, 2))), X, Y, {"y": 0, "index": 0, "dx": 4}),
        (PoolSpec(Pool("average", Window.create((3, 2), 1))), X, Y, {"y": 7, "dx": 7}),
    ],
)
def test_terms_are_counted(spec, x_shape, y_shape, terms):
    assert count_terms(spec, x_shape, y_shape) == terms


def test_what_nobody_counted_has_no_bound():
    with pytest.raises(NotImplementedError, match="AddSpec"):
        count_terms(AddSpec(), X, Y)


def test_the_bound_is_rigorous_for_few_terms_and_grows_with_many():
    u = 2.0**-24
    assert bound_sums(0, np.float32) == 0
    assert bound_sums(2, np.float32) == 2 * (2 * u) * (3 * 2)
    assert bound_sums(1000, np.float32) == 2 * (1000 * u) * 10
    assert bound_sums(5, np.int32) == 0


@pytest.mark.parametrize(
    ("window", "suits"),
    [
        (Window.create(3), True),
        (Window.create((1, 7), (2, 1)), True),
        (Window.create(3, 2), False),
        (Window.create(3, 1, 0, 2), False),
        (Window.create(1), False),
    ],
)
def test_winograd_s_larger_error_is_granted_where_it_can_be(window, suits):
    spec = ConvSpec(Sandwich(window), 5, True)
    wanted = {key: np.full(3, 100, np.float32) for key in ("dx", "dw", "db")}
    plain, granted = (bound_outputs(spec, X, Y, wanted, winograd=winograd) for winograd in (False, True))
    more = {key: granted[key] - plain[key] for key in wanted}
    assert more == pytest.approx({"dx": 1e-3 * suits, "dw": 2e-3 * suits, "db": 0})
