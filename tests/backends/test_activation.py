"""Activations: known values to a few last bits, limits, NaN, and gradients, on any shape."""

from collections.abc import Callable
from math import erfc, exp, expm1, pi, sqrt, tanh
from typing import get_args

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Activation, Array, Pool, Sandwich
from cnnctl.geometry import Window
from tests.backends.direct import cast
from tests.hostile_shapes import TAILS

ACTIVATIONS = get_args(Activation)
SHAPES = [(0,), (2, 3, 4, 5), (5, 0, 2), *[(extent,) for extent in TAILS], (3, 17000)]


def compute_sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > 0 else exp(x) / (1 + exp(x))


def compute_distribution(x: float) -> float:
    """Phi(x), the normal distribution function."""
    return 0.5 * erfc(-x / sqrt(2))


TRUTH: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "relu": (lambda x: max(x, 0.0), lambda x: float(x > 0)),
    "tanh": (tanh, lambda x: 1 / np.cosh(x) ** 2),
    "sigmoid": (compute_sigmoid, lambda x: compute_sigmoid(x) * compute_sigmoid(-x)),
    "leaky_relu": (lambda x: x if x > 0 else 0.01 * x, lambda x: 1.0 if x > 0 else 0.01),
    "elu": (lambda x: x if x > 0 else expm1(x), lambda x: 1.0 if x > 0 else exp(x)),
    "silu": (
        lambda x: x * compute_sigmoid(x),
        lambda x: compute_sigmoid(x) * (1 + x * compute_sigmoid(-x)),
    ),
    "gelu": (
        lambda x: x * compute_distribution(x),
        lambda x: compute_distribution(x) + x * exp(-0.5 * x * x) / sqrt(2 * pi),
    ),
}
"""Each activation and its derivative, in Python floats."""

LIMITS = {
    "relu": (0.0, np.inf),
    "tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "gelu": (0.0, np.inf),
    "leaky_relu": (-np.inf, np.inf),
    "elu": (-1.0, np.inf),
    "silu": (0.0, np.inf),
}
"""At -infinity and +infinity."""

over_activations = pytest.mark.parametrize("activation", ACTIVATIONS)


def draw_inputs(rng: np.random.Generator, dtype: str) -> Array:
    """Numbers of every magnitude that matters, and of both signs."""
    near, far = rng.uniform(-3, 3, 500), rng.uniform(-12, 12, 500)
    tiny = rng.choice([-1, 1], 500) * 10.0 ** rng.uniform(-6, 0, 500)
    return cast(dtype, np.concatenate([near, far, tiny]))[0]


def bound_error(x: Array, expected: Array, dtype: str) -> Array:
    """A few last bits of y; in float64 also what rounding x^2 does to e^(-x^2/2), here and in erfc."""
    bits = 8 + (x.astype(np.float64) ** 2 if dtype == "float64" else 0)
    bound: Array = bits * np.finfo(dtype).eps * np.abs(expected) + np.finfo(dtype).tiny
    return bound


def test_all_of_them_are_known() -> None:
    assert set(TRUTH) == set(LIMITS) == set(ACTIVATIONS)


@over_activations
def test_values_are_right_to_a_few_last_bits(
    backend: Backend, activation: Activation, dtype: str, rng: np.random.Generator
) -> None:
    x = draw_inputs(rng, dtype)
    expected = np.array([TRUTH[activation][0](value) for value in x.tolist()])
    y = backend.activation_forward(x, activation)
    assert y.dtype == dtype
    np.testing.assert_array_less(np.abs(y - expected), bound_error(x, expected, dtype))
    if activation in {"tanh", "sigmoid"}:
        assert np.abs(y - expected).max() < 2 * np.finfo(dtype).eps


@over_activations
def test_gradients_are_right_to_a_few_last_bits(
    backend: Backend, activation: Activation, dtype: str, rng: np.random.Generator
) -> None:
    """Of a derivative that y has to tell, only what its rounding leaves of 1 - y can be asked for."""
    x = draw_inputs(rng, dtype)
    (dy,) = cast(dtype, rng.standard_normal(x.shape))
    slopes = np.array([TRUTH[activation][1](value) for value in x.tolist()])
    dx = backend.activation_backward(dy, x, backend.activation_forward(x, activation), activation)
    assert dx.dtype == dtype
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_array_less(
        np.abs(dx - dy * slopes), tolerance * np.abs(dy) * (np.abs(slopes) + 1) + np.finfo(dtype).tiny
    )


@over_activations
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_element_of_any_shape(
    backend: Backend, activation: Activation, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    x, dy = cast(dtype, rng.uniform(0.5, 2, shape), rng.uniform(0.5, 2, shape))
    y = backend.activation_forward(x, activation)
    dx = backend.activation_backward(dy, x, y, activation)
    assert (y.shape, dx.shape) == (shape, shape)
    for position in zip(*(axis[:40] for axis in np.nonzero(x)), strict=True):
        one = np.array([x[position]])
        alone = backend.activation_forward(one, activation)
        np.testing.assert_allclose(y[position], alone[0], rtol=4 * np.finfo(dtype).eps)
        slope = backend.activation_backward(np.ones_like(one), one, alone, activation)
        np.testing.assert_allclose(dx[position], dy[position] * slope[0], rtol=8 * np.finfo(dtype).eps)
    assert (y != 0).all()


@over_activations
@pytest.mark.filterwarnings("error")
def test_infinities_give_limits_and_nan_stays(backend: Backend, activation: Activation, dtype: str) -> None:
    """At every position of a vector, and without a trace on its neighbours."""
    low, high = LIMITS[activation]
    for position in range(33):
        for special, limit in ((-np.inf, low), (np.inf, high), (np.nan, np.nan)):
            x = np.zeros(33)
            x[position] = special
            y = backend.activation_forward(cast(dtype, x)[0], activation)
            np.testing.assert_array_equal(y[position], limit)
            assert (np.delete(y, position) == (0.5 if activation == "sigmoid" else 0)).all()


@over_activations
def test_gradients_at_infinity_are_those_of_the_asymptotes(
    backend: Backend, activation: Activation, dtype: str
) -> None:
    x, dy = cast(dtype, [-np.inf, np.inf, np.nan], [3, 3, 3])
    dx = backend.activation_backward(dy, x, backend.activation_forward(x, activation), activation)
    rising = 0 if activation in {"tanh", "sigmoid"} else 3
    falling = np.asarray(3 * 0.01, dtype) if activation == "leaky_relu" else 0
    np.testing.assert_allclose(dx[:2], [falling, rising], rtol=np.finfo(dtype).eps)
    assert np.isnan(dx[2]) or activation in {"relu", "leaky_relu", "elu"}


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu", "gelu", "silu"])
def test_what_a_real_cannot_tell_from_the_limit_is_the_limit(
    backend: Backend, activation: Activation, dtype: str
) -> None:
    low, high = LIMITS[activation]
    x = np.array([-1e30, -800, 800, 1e30], dtype)
    y = backend.activation_forward(x, activation)
    np.testing.assert_array_equal(y[:2], low)
    np.testing.assert_array_equal(y[2:], high if np.isfinite(high) else x[2:])


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@over_activations
def test_special_gradients_stay_where_they_are(
    backend: Backend, activation: Activation, special: float, dtype: str
) -> None:
    x, dy = np.full(33, 0.5, dtype), np.ones(33, dtype)
    y = backend.activation_forward(x, activation)
    dy[20] = special
    dx = backend.activation_backward(dy, x, y, activation)
    np.testing.assert_array_equal(dx[20], special)
    assert np.isfinite(np.delete(dx, 20)).all()


def test_relu_blocks_its_gradient_at_zero_and_passes_it_at_a_nan(backend: Backend, dtype: str) -> None:
    y, dy = cast(dtype, [0, -0.0, 1, np.nan, np.inf, 0, 0], [5, 5, np.nan, 6, 7, np.nan, np.inf])
    np.testing.assert_array_equal(backend.activation_backward(dy, y, y, "relu"), [0, 0, np.nan, 6, 7, 0, 0])


def test_relu_is_exact(backend: Backend, dtype: str, rng: np.random.Generator) -> None:
    x, dy = cast(dtype, *rng.standard_normal((2, 1000)))
    y = backend.activation_forward(x, "relu")
    np.testing.assert_array_equal(y, np.where(x > 0, x, 0))
    np.testing.assert_array_equal(backend.activation_backward(dy, x, y, "relu"), np.where(x > 0, dy, 0))


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 1.0, 2.5])
def test_alpha_is_the_slope_or_the_limit_below_zero(
    backend: Backend, alpha: float, dtype: str, rng: np.random.Generator
) -> None:
    x, dy = cast(dtype, *rng.uniform(-4, 4, (2, 300)))
    tolerance = 8 * np.finfo(dtype).eps
    y = backend.activation_forward(x, "leaky_relu", alpha)
    np.testing.assert_allclose(y, np.where(x > 0, x, alpha * x), rtol=tolerance)
    dx = backend.activation_backward(dy, x, y, "leaky_relu", alpha)
    np.testing.assert_allclose(dx, np.where(x > 0, dy, alpha * dy), rtol=tolerance)
    exact = x.astype(np.float64)
    y = backend.activation_forward(x, "elu", alpha)
    np.testing.assert_allclose(y, np.where(x > 0, exact, alpha * np.expm1(exact)), rtol=tolerance)
    dx = backend.activation_backward(dy, x, y, "elu", alpha)
    slopes = np.where(x > 0, 1, alpha * np.exp(exact))
    np.testing.assert_allclose(dx, dy * slopes, rtol=0, atol=tolerance * (1 + alpha) * 4)


@pytest.mark.parametrize(("activation", "slope"), [("leaky_relu", 0.5), ("elu", 0.5)])
def test_at_zero_the_gradient_is_that_of_the_left_side(
    backend: Backend, activation: Activation, slope: float, dtype: str
) -> None:
    x, dy = cast(dtype, [0, -0.0, 1], [4, 4, 4])
    y = backend.activation_forward(x, activation, 0.5)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(
        backend.activation_backward(dy, x, y, activation, 0.5), [4 * slope, 4 * slope, 4]
    )


FUSED_POOLS = {
    "no pool": None,
    "max": Pool("max", Window.create(2, 2)),
    "average": Pool("average", Window.create(3, 2)),
}


@pytest.mark.parametrize("pool", FUSED_POOLS.values(), ids=FUSED_POOLS)
@pytest.mark.parametrize("activation", ["leaky_relu", "elu"])
def test_a_convolution_takes_the_alpha_it_is_given(
    backend: Backend, activation: Activation, pool: Pool | None, dtype: str, rng: np.random.Generator
) -> None:
    """One operation after the other, forward and back."""
    sandwich = Sandwich(Window.create(1), activation=activation, pool=pool, alpha=0.3)
    x, w, b = cast(dtype, *(rng.standard_normal(shape) for shape in ((2, 3, 5, 6), (4, 3, 1, 1), (4,))))
    outputs = backend.conv_sandwich_forward(x, w, b, sandwich)
    (dy,) = cast(dtype, rng.standard_normal(outputs.y.shape))
    gradients = backend.conv_sandwich_backward(dy, x, w, outputs, sandwich)
    u = backend.conv_forward(x, w, b, sandwich.window)
    y = v = backend.activation_forward(u, activation, 0.3)
    dv = dy
    if pool and pool.kind == "max":
        y, index = backend.maxpool_forward(v, pool.window)
        dv = backend.maxpool_backward(dy, index, (2, 4, 5, 6), pool.window)
    elif pool:
        y = backend.avgpool_forward(v, pool.window)
        dv = backend.avgpool_backward(dy, (2, 4, 5, 6), pool.window)
    du = backend.activation_backward(dv, u, v, activation, 0.3)
    expected = y, *backend.conv_backward(du, x, w, sandwich.window)
    for actual, wanted in zip((outputs.y, *gradients[:3]), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1000 * np.finfo(dtype).eps)


@pytest.mark.parametrize("activation", ["leaky_relu", "elu"])
def test_a_fully_connected_layer_takes_the_alpha_it_is_given(
    backend: Backend, activation: Activation, dtype: str, rng: np.random.Generator
) -> None:
    x, w, dy = cast(dtype, *(rng.standard_normal(shape) for shape in ((3, 5), (4, 5), (3, 4))))
    y = backend.linear_sandwich_forward(x, w, None, activation, 0.3)
    gradients = backend.linear_sandwich_backward(dy, x, w, y, activation, 0.3)
    z = backend.linear_forward(x, w, None)
    dz = backend.activation_backward(dy, z, y, activation, 0.3)
    expected = backend.activation_forward(z, activation, 0.3), *backend.linear_backward(dz, x, w)
    for actual, wanted in zip((y, *gradients), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=200 * np.finfo(dtype).eps)


def test_tails_of_gelu_keep_their_digits(backend: Backend, dtype: str) -> None:
    """1 + erf(x) would have lost them all: what is left of x = -5 is three ten-millionths of it."""
    x = np.array([-5, -6.5, -9], dtype)
    expected = np.array([value * compute_distribution(value) for value in x.tolist()])
    error = np.abs(backend.activation_forward(x, "gelu") - expected)
    np.testing.assert_array_less(error, bound_error(x, expected, dtype))
