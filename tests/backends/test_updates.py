"""SGD and Adam: each formula in float64, rounding bounded by the magnitudes it adds up."""

from typing import NamedTuple

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from tests.hostile_shapes import TAILS

SHAPES = [(0,), (3, 2, 2, 2), (1000,), *[(extent,) for extent in TAILS]]
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Arrays(NamedTuple):
    """Weights, gradient and two slots; the slots are positive, as Adam's second one must be."""

    w: Array
    dw: Array
    slot1: Array
    slot2: Array


def draw_arrays(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Arrays:
    signed = [rng.standard_normal(shape) for _ in range(2)]
    positive = [rng.uniform(0.5, 1.5, shape) for _ in range(2)]
    return Arrays(*(array.astype(dtype) for array in (*signed, *positive)))


def copy_arrays(arrays: Arrays, dtype: str) -> Arrays:
    return Arrays(*(array.astype(dtype) for array in arrays))


def step_sgd(a: Arrays, lr: float, momentum: float, nesterov: bool, l2: float) -> tuple[Array, Array]:
    """(w, velocity) after a step, as the formula stands."""
    g = a.dw + l2 * a.w
    velocity = momentum * a.slot1 + g
    return a.w - lr * (g + momentum * velocity if nesterov else velocity), velocity


def step_adam(
    a: Arrays, step: int, lr: float, beta1: float, beta2: float, eps: float, l2: float
) -> tuple[Array, Array, Array]:
    """(w, m, v) after a step, as the formula stands."""
    g = a.dw + l2 * a.w
    m = beta1 * a.slot1 + (1 - beta1) * g
    v = beta2 * a.slot2 + (1 - beta2) * g**2
    return a.w - lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps), m, v


def assert_near(actual: Array, expected: Array, magnitude: float, dtype: str) -> None:
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, expected, rtol=0, atol=8 * float(np.finfo(dtype).eps) * magnitude)


@over_shapes
@pytest.mark.parametrize(
    ("momentum", "nesterov", "l2"), [(0.0, False, 0.0), (0.9, False, 0.1), (0.9, True, 0.0), (0.9, True, 0.1)]
)
def test_sgd(
    backend: Backend,
    shape: tuple[int, ...],
    momentum: float,
    nesterov: bool,
    l2: float,
    dtype: str,
    rng: np.random.Generator,
) -> None:
    start = draw_arrays(rng, shape, dtype)
    expected_w, expected_velocity = step_sgd(copy_arrays(start, "float64"), 0.1, momentum, nesterov, l2)
    a = copy_arrays(start, dtype)
    squares = backend.sgd_update(a.w, a.dw, a.slot1, lr=0.1, momentum=momentum, nesterov=nesterov, l2=l2)
    largest = max(1.0, *(float(np.abs(array).max(initial=0)) for array in start))
    assert_near(a.w, expected_w, largest, dtype)
    assert_near(a.slot1, expected_velocity, 2 * largest, dtype)
    np.testing.assert_array_equal(a.dw, start.dw)
    assert isinstance(squares, float)
    assert squares == pytest.approx(np.square(start.w, dtype="float64").sum(), rel=1e-5)


@over_shapes
@pytest.mark.parametrize(("step", "l2"), [(1, 0.0), (2, 0.1), (1000, 0.1)])
def test_adam(
    backend: Backend, shape: tuple[int, ...], step: int, l2: float, dtype: str, rng: np.random.Generator
) -> None:
    start = draw_arrays(rng, shape, dtype)
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "l2": l2}
    expected_w, expected_m, expected_v = step_adam(copy_arrays(start, "float64"), step, **settings)
    a = copy_arrays(start, dtype)
    squares = backend.adam_update(a.w, a.dw, a.slot1, a.slot2, step=step, **settings)
    largest = max(1.0, *(float(np.abs(array).max(initial=0)) for array in start))
    assert_near(a.w, expected_w, 2 * largest, dtype)
    assert_near(a.slot1, expected_m, 2 * largest, dtype)
    assert_near(a.slot2, expected_v, 2 * largest, dtype)
    np.testing.assert_array_equal(a.dw, start.dw)
    assert isinstance(squares, float)
    assert squares == pytest.approx(np.square(start.w, dtype="float64").sum(), rel=1e-5)


def test_adam_starts_from_empty_slots_without_bias(backend: Backend, dtype: str) -> None:
    """m_hat = g and v_hat = g^2, so every weight moves by the learning rate, however small g is.

    Relative to the last bits: 1 - beta2 must not be taken in float32.
    """
    w, m, v = (np.zeros(3, dtype) for _ in range(3))
    dw = np.array([1e-3, -5, 200], dtype)
    backend.adam_update(w, dw, m, v, step=1, lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8)
    g = dw.astype(np.float64)
    rounding = 8 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(m, (1 - 0.9) * g, rtol=rounding)
    np.testing.assert_allclose(v, (1 - 0.999) * g**2, rtol=rounding)
    np.testing.assert_allclose(w, -0.01 * g / (np.abs(g) + 1e-8), rtol=rounding)


def test_sgd_without_momentum_keeps_the_gradient_as_velocity(backend: Backend, dtype: str) -> None:
    w, dw, velocity = np.ones(2, dtype), np.array([2, -4], dtype), np.full(2, 7, dtype)
    assert backend.sgd_update(w, dw, velocity, lr=0.5, l2=2) == 2
    np.testing.assert_array_equal(velocity, [4, -2])
    np.testing.assert_array_equal(w, [-1, 2])


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_special_gradient_spoils_its_weight_and_no_other(
    backend: Backend, special: float, dtype: str
) -> None:
    """Never hidden: a weight whose gradient is not finite stops being finite."""
    for position in range(33):
        dw = np.ones(33, dtype)
        dw[position] = special
        by_sgd, by_adam, *slots = (np.ones(33, dtype) for _ in range(5))
        backend.sgd_update(by_sgd, dw, slots[0], lr=0.1, momentum=0.9)
        backend.adam_update(by_adam, dw, slots[1], slots[2], step=1, lr=0.1)
        others = np.arange(33) != position
        for w in (by_sgd, by_adam):
            assert not np.isfinite(w[position])
            assert (w[others] < 0.99).all()
            np.testing.assert_allclose(w[others], w[others][0], rtol=1e-6)
