"""Updates: each formula in float64, rounding bounded by the magnitudes it adds up."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError
from tests.hostile_shapes import TAILS

SHAPES = [(0,), (3, 2, 2, 2), (1000,), *[(extent,) for extent in TAILS]]
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Arrays(NamedTuple):
    """Weights, gradient and three slots; the slots are positive, as those of squares must be."""

    w: Array
    dw: Array
    slot1: Array
    slot2: Array
    slot3: Array


def draw_arrays(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Arrays:
    signed = [rng.standard_normal(shape) for _ in range(2)]
    positive = [rng.uniform(0.5, 1.5, shape) for _ in range(3)]
    return Arrays(*(array.astype(dtype) for array in (*signed, *positive)))


def copy_arrays(arrays: Arrays, dtype: str) -> Arrays:
    return Arrays(*(array.astype(dtype) for array in arrays))


def step_sgd(
    a: Arrays, lr: float, momentum: float, dampening: float, nesterov: bool, l2: float
) -> tuple[Array, Array]:
    """(w, velocity) after a step, as the formula stands."""
    g = a.dw + l2 * a.w
    velocity = momentum * a.slot1 + (1 - dampening) * g
    return a.w - lr * (g + momentum * velocity if nesterov else velocity), velocity


def step_adam(
    a: Arrays, step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, l2: float
) -> tuple[Array, Array, Array]:
    """(w, m, v) after a step, as the formula stands."""
    g = a.dw + l2 * a.w
    m = beta1 * a.slot1 + (1 - beta1) * g
    v = beta2 * a.slot2 + (1 - beta2) * g**2
    move = (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return a.w - lr * weight_decay * a.w - lr * move, m, v


def assert_near(actual: Array, expected: Array, magnitude: float, dtype: str) -> None:
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, expected, rtol=0, atol=8 * float(np.finfo(dtype).eps) * magnitude)


@over_shapes
@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov", "l2"),
    [
        *((0.0, 0.0, False, 0.0), (0.9, 0.0, False, 0.1), (0.9, 0.0, True, 0.0), (0.9, 0.0, True, 0.1)),
        (0.9, 0.7, False, 0.1),
    ],
)
def test_sgd(
    backend: Backend,
    shape: tuple[int, ...],
    momentum: float,
    dampening: float,
    nesterov: bool,
    l2: float,
    dtype: str,
    rng: np.random.Generator,
) -> None:
    start = draw_arrays(rng, shape, dtype)
    settings = {"lr": 0.1, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "l2": l2}
    expected_w, expected_velocity = step_sgd(copy_arrays(start, "float64"), **settings)
    a = copy_arrays(start, dtype)
    squares = backend.sgd_update(a.w, a.dw, a.slot1, **settings)
    largest = max(1.0, *(float(np.abs(array).max(initial=0)) for array in start))
    assert_near(a.w, expected_w, largest, dtype)
    assert_near(a.slot1, expected_velocity, 2 * largest, dtype)
    np.testing.assert_array_equal(a.dw, start.dw)
    assert isinstance(squares, float)
    assert squares == pytest.approx(np.square(start.w, dtype="float64").sum(), rel=1e-5)


@over_shapes
@pytest.mark.parametrize(
    ("step", "weight_decay", "l2"), [(1, 0.0, 0.0), (2, 0.0, 0.1), (2, 0.5, 0.0), (1000, 0.5, 0.1)]
)
def test_adam(
    backend: Backend,
    shape: tuple[int, ...],
    step: int,
    weight_decay: float,
    l2: float,
    dtype: str,
    rng: np.random.Generator,
) -> None:
    start = draw_arrays(rng, shape, dtype)
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": weight_decay, "l2": l2}
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


@over_shapes
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_adagrad(
    backend: Backend, shape: tuple[int, ...], l2: float, dtype: str, rng: np.random.Generator
) -> None:
    start = draw_arrays(rng, shape, dtype)
    w, dw, square, *_ = copy_arrays(start, "float64")
    g = dw + l2 * w
    square += g**2
    a = copy_arrays(start, dtype)
    squares = backend.adagrad_update(a.w, a.dw, a.slot1, lr=0.1, eps=1e-3, l2=l2)
    check_step(a, start, squares, [w - 0.1 * g / (np.sqrt(square) + 1e-3), square], dtype)


@over_shapes
@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize(("centered", "momentum"), [(False, 0.0), (False, 0.9), (True, 0.0), (True, 0.9)])
def test_rmsprop(
    backend: Backend,
    shape: tuple[int, ...],
    centered: bool,
    momentum: float,
    l2: float,
    dtype: str,
    rng: np.random.Generator,
) -> None:
    """The mean is kept well below the root of the squares: their difference rounds badly."""
    start = draw_arrays(rng, shape, dtype)
    start.slot2[...] /= 3
    w, dw, square, mean, velocity = copy_arrays(start, "float64")
    g = dw + l2 * w
    square = 0.9 * square + 0.1 * g**2
    if centered:
        mean = 0.9 * mean + 0.1 * g
    move = g / (np.sqrt(square - centered * mean**2) + 1e-3)
    if momentum:
        move = velocity = momentum * velocity + move
    a = copy_arrays(start, dtype)
    slots = a.slot1, a.slot2 if centered else None, a.slot3 if momentum else None
    squares = backend.rmsprop_update(a.w, a.dw, *slots, lr=0.1, alpha=0.9, eps=1e-3, momentum=momentum, l2=l2)
    check_step(a, start, squares, [w - 0.1 * move, square, mean, velocity], dtype)


@over_shapes
@pytest.mark.parametrize(("step", "l2"), [(1, 0.0), (2, 0.1), (1000, 0.1)])
def test_adamax(
    backend: Backend, shape: tuple[int, ...], step: int, l2: float, dtype: str, rng: np.random.Generator
) -> None:
    start = draw_arrays(rng, shape, dtype)
    w, dw, m, u, _ = copy_arrays(start, "float64")
    g = dw + l2 * w
    m = 0.9 * m + 0.1 * g
    u = np.maximum(0.8 * u, np.abs(g) + 1e-3)
    a = copy_arrays(start, dtype)
    settings = {"step": step, "lr": 0.01, "beta1": 0.9, "beta2": 0.8, "eps": 1e-3, "l2": l2}
    squares = backend.adamax_update(a.w, a.dw, a.slot1, a.slot2, **settings)
    check_step(a, start, squares, [w - 0.01 * (m / (1 - 0.9**step)) / u, m, u], dtype)


@over_shapes
@pytest.mark.parametrize(("weight_decay", "l2"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.1)])
def test_lion(
    backend: Backend,
    shape: tuple[int, ...],
    weight_decay: float,
    l2: float,
    dtype: str,
    rng: np.random.Generator,
) -> None:
    """What the sign is taken of is kept clear of 0, where rounding would decide."""
    start = draw_arrays(rng, shape, dtype)
    start.dw[...] *= 9
    c = 0.7 * start.slot1 + 0.3 * (start.dw + l2 * start.w)
    start.dw[np.abs(c) < 0.01] += 1
    w, dw, m, *_ = copy_arrays(start, "float64")
    g = dw + l2 * w
    direction = np.where(0.7 * m + 0.3 * g > 0, 1.0, -1.0)
    a = copy_arrays(start, dtype)
    settings = {"lr": 0.1, "beta1": 0.7, "beta2": 0.9, "weight_decay": weight_decay, "l2": l2}
    squares = backend.lion_update(a.w, a.dw, a.slot1, **settings)
    expected = [w - 0.1 * weight_decay * w - 0.1 * direction, 0.9 * m + 0.1 * g]
    check_step(a, start, squares, expected, dtype)


def check_step(a: Arrays, start: Arrays, squares: float, expected: Sequence[Array], dtype: str) -> None:
    """Weights and slots are the expected ones, and neither gradient nor other slots have changed."""
    largest = max(1.0, *(float(np.abs(array).max(initial=0)) for array in start))
    found = [a.w, a.slot1, a.slot2, a.slot3]
    wanted = [*expected, *[start.w, start.slot1, start.slot2, start.slot3][len(expected) :]]
    for actual, right in zip(found, wanted, strict=True):
        assert_near(actual, right, 2 * largest**2, dtype)
    np.testing.assert_array_equal(a.dw, start.dw)
    assert isinstance(squares, float)
    assert squares == pytest.approx(np.square(start.w, dtype="float64").sum(), rel=1e-5)


@over_shapes
def test_sum_of_squares(
    backend: Backend, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal(shape).astype(dtype)
    x.flags.writeable = False
    squares = backend.sum_squares(x)
    assert isinstance(squares, float)
    assert squares == pytest.approx(np.square(x, dtype="float64").sum(), rel=1e-5)


@over_shapes
def test_the_gradient_of_l1(
    backend: Backend, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    """Added where there is a gradient already; nothing where the weight is 0."""
    w, dw = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    w.flat[::3] = 0
    w.flags.writeable = False
    expected = dw + np.float64(0.3) * np.sign(w)
    magnitudes = backend.add_l1_gradient(w, dw, 0.3)
    assert_near(dw, expected, 10, dtype)
    assert isinstance(magnitudes, float)
    assert magnitudes == pytest.approx(np.abs(w, dtype="float64").sum(), rel=1e-5)


def test_the_sign_of_special_weights(backend: Backend, dtype: str) -> None:
    w = np.array([np.nan, np.inf, -np.inf, -0.0, np.finfo(dtype).smallest_subnormal], dtype)
    dw = np.ones(5, dtype)
    assert np.isnan(backend.add_l1_gradient(w, dw, 2.0))
    np.testing.assert_array_equal(dw[:4], [np.nan, 3, -1, 1])
    assert dw[4] in (1, 3)  # by the policy a subnormal may count as 0


def test_a_variance_below_zero_by_rounding_counts_as_zero(backend: Backend, dtype: str) -> None:
    """One large gradient over and over: its mean square is the square of its mean, give or take."""
    w, dw = np.zeros(9, dtype), np.full(9, 0.1, dtype) * np.arange(1, 10, dtype=dtype)
    square, mean = dw * dw * (1 - 4 * np.finfo(dtype).eps), dw.copy()
    backend.rmsprop_update(w, dw, square, mean, lr=0.1, eps=1.0)
    np.testing.assert_allclose(w, -0.1 * dw, rtol=1e-2)


def test_rmsprop_with_momentum_needs_a_velocity(backend: Backend) -> None:
    w, dw, square = (np.ones(3) for _ in range(3))
    with pytest.raises(ConfigError, match=r"momentum: 0\.5 needs a velocity"):
        backend.rmsprop_update(w, dw, square, lr=0.1, momentum=0.5)
    assert (w == 1).all()


@pytest.mark.parametrize("name", ["adam_update", "adamax_update"])
def test_steps_count_from_one(backend: Backend, name: str) -> None:
    with pytest.raises(ConfigError, match="step: 0 is below 1"):
        getattr(backend, name)(*(np.ones(3) for _ in range(4)), step=0, lr=0.1)


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


def list_updates(backend: Backend) -> dict[str, tuple[int, Callable[..., float]]]:
    """Name -> how many slots it has, and itself, of (w, dw, *slots)."""
    return {
        "sgd": (1, partial(backend.sgd_update, momentum=0.9)),
        "sgd alone": (1, backend.sgd_update),
        "adam": (2, partial(backend.adam_update, step=1)),
        "adagrad": (1, backend.adagrad_update),
        "rmsprop": (1, backend.rmsprop_update),
        "rmsprop centred": (3, partial(backend.rmsprop_update, momentum=0.9)),
        "adamax": (2, partial(backend.adamax_update, step=1)),
        "lion": (1, backend.lion_update),
    }


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_a_special_gradient_spoils_its_weight_and_no_other(
    backend: Backend, special: float, dtype: str
) -> None:
    """Never hidden: a weight whose gradient is not finite stops being finite.

    Lion's step has one length, however large the gradient: infinity stays in its momentum.
    """
    for position in range(33):
        dw = np.ones(33, dtype)
        dw[position] = special
        others = np.arange(33) != position
        for name, (count, update) in list_updates(backend).items():
            w, *slots = (np.ones(33, dtype) for _ in range(1 + count))
            assert np.isnan(update(w, dw, *slots, lr=0.1))
            assert not np.isfinite((slots[0] if name == "lion" else w)[position])
            assert np.isfinite(w[others]).all()
            np.testing.assert_allclose(w[others], w[others][0], rtol=1e-6)
            if np.isnan(special):
                assert np.isnan(w[position])
                assert all(np.isnan(slot[position]) for slot in slots)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 33, 2049, 16385])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_whatever_is_not_finite_afterwards_is_told(
    backend: Backend, special: float, size: int, dtype: str, rng: np.random.Generator
) -> None:
    """A weight, a gradient or a slot, wherever it stands. No slot of squares is ever below 0."""
    for count, update in list_updates(backend).values():
        for place in range(2 + count):
            for position in {0, size - 1, int(rng.integers(size))}:
                arrays = [np.ones(size, dtype) for _ in range(2 + count)]
                assert update(*arrays, lr=0.1) == size
                arrays = [np.ones(size, dtype) for _ in range(2 + count)]
                arrays[place][position] = special if place < 2 else abs(special)
                assert np.isnan(update(*arrays, lr=0.1))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_large_numbers_are_not_told(backend: Backend, dtype: str) -> None:
    """Only what overflows: the square of a gradient in a slot, or the weight that it moves."""
    huge, large = float(np.finfo(dtype).max) / 2, 1e3 * float(np.finfo(dtype).max) ** 0.5
    for name, (count, update) in list_updates(backend).items():
        squares = name.startswith(("adam", "adagrad", "rmsprop")) and name != "adamax"
        w, dw, *slots = (np.ones(40, dtype) for _ in range(2 + count))
        dw[7] = large
        assert np.isnan(update(w, dw, *slots, lr=1e-3)) == squares
        w, dw, *slots = (np.ones(40, dtype) for _ in range(2 + count))
        w[7] = huge
        assert update(w, dw, *slots, lr=1e-3) == np.inf
    w, dw, velocity = (np.full(40, value, dtype) for value in (1, huge, 0))
    assert backend.sgd_update(w, dw, velocity, lr=1e-3) == 40
    assert np.isnan(backend.sgd_update(w, dw, velocity, lr=1e3))
