"""Derivatives of known functions: their values, their kinks and their rounding noise."""

from collections.abc import Callable
from math import cos, exp, sin

import numpy as np
import pytest

from cnnctl.check.differences import Sides, differentiate, is_same, measure_noise


def make_function(
    f: Callable[[float], float], *kinks: float
) -> tuple[Callable[[float], tuple[float, Sides]], Sides]:
    """f with these kinks, and the sides of 0."""

    def find_sides(t: float) -> Sides:
        return (np.array([t > kink for kink in kinks]),)

    return lambda t: (f(t), find_sides(t)), find_sides(0.0)


@pytest.mark.parametrize(
    ("f", "derivative"),
    [
        (lambda t: 3 * t, 3.0),
        (lambda t: 1 + 2 * t - 5 * t**2 + t**3, 2.0),
        (lambda t: exp(2 * t), 2.0),
        (lambda t: sin(1 + 3 * t), 3 * cos(1)),
        (lambda t: 1 / (0.15 + t), -1 / 0.15**2),  # no longer a power series at the first step
        (lambda t: 7.0, 0.0),
        (lambda t: t**2, 0.0),
    ],
)
def test_smooth_functions(f: Callable[[float], float], derivative: float) -> None:
    found = differentiate(*make_function(f), start=0.1, smallest=1e-7)
    assert found is not None
    assert abs(found.value - derivative) <= 1e-10 * max(1, abs(derivative))
    assert found.error <= 1e-9 * max(1, abs(derivative))
    assert found.clear == 0.1


@pytest.mark.parametrize("kink", [0.03, -0.03, 1e-4, -1e-6, 3e-7])
def test_steps_stay_on_the_near_side_of_a_kink(kink: float) -> None:
    function, sides = make_function(lambda t: exp(t) + 5 * abs(t - kink), kink)
    asked = []

    def watched(t: float) -> tuple[float, Sides]:
        asked.append(t)
        return function(t)

    found = differentiate(watched, sides, 0.1, 1e-7)
    assert found is not None
    assert abs(found.value - (1 - 5 * np.sign(kink))) < 1e-7
    assert abs(kink) / 4 < found.clear < abs(kink)
    assert max(abs(t) for t in asked) == 0.1


@pytest.mark.parametrize("kink", [0.0, 1e-9, -1e-9])
def test_at_a_kink_there_is_no_derivative(kink: float) -> None:
    assert differentiate(*make_function(abs, kink), start=0.1, smallest=1e-7) is None


def test_differences_taken_beyond_two_kinks_are_dropped() -> None:
    """At 0.1 the function is back on the side it had at 0, with a slope that is not that at 0."""

    def f(t: float) -> float:
        return 2 * t if abs(t) < 0.04 else 9 * t

    def function(t: float) -> tuple[float, Sides]:
        return f(t), (np.array([0.04 < abs(t) < 0.07]),)

    found = differentiate(function, function(0.0)[1], 0.1, 1e-7)
    assert found is not None
    assert found.value == pytest.approx(2, rel=1e-12)
    assert found.clear < 0.04


def test_a_function_that_is_no_number() -> None:
    found = differentiate(*make_function(lambda t: float("nan")), start=0.1, smallest=1e-7)
    assert found is not None
    assert np.isnan(found.value)


@pytest.mark.parametrize("size", [1e-15, 1e-12, 1e-9])
def test_noise_is_measured_within_a_factor(size: float, rng: np.random.Generator) -> None:
    def f(t: float) -> float:
        return 1e-3 * exp(t) + size * rng.standard_normal()

    measured = [measure_noise(*make_function(f), radius=1e-6) for _ in range(20)]
    assert 0.8 * size < np.mean(measured) < 1.2 * size
    assert min(measured) > 0.3 * size
    assert max(measured) < 2.5 * size


def test_rounding_in_step_with_even_spacing_is_seen() -> None:
    """Values rounded to multiples of 1e-12 of a slope that makes them exact at even spacings."""
    noise = measure_noise(*make_function(lambda t: round(t * 1e12) * 1e-12), radius=8e-12)
    assert 1e-13 < noise < 1e-12


def test_a_smooth_function_and_a_kink_are_no_noise() -> None:
    assert measure_noise(*make_function(lambda t: t + t**2), radius=1e-3) < 1e-17
    assert measure_noise(*make_function(lambda t: abs(t - 1e-5), 1e-5), radius=1e-3) == 0


def test_sides_are_compared_array_by_array() -> None:
    ones = np.ones(2, bool)
    assert is_same((), ())
    assert is_same((ones, ones), (ones.copy(), ones))
    assert not is_same((ones,), (ones, ones))
    assert not is_same((ones,), (np.array([True, False]),))
