"""The derivative of a function of one variable at 0, as exactly as float64 allows.

Ridders' method: central differences at shrinking steps, extrapolated to step 0. Differences
are only taken where the function is on the same side of all its kinks as at 0; where no step
is small enough for that, there is no derivative. Knows no networks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnctl.backends.specs import Array

Sides = tuple[Array, ...]
"""On which side of each of its kinks a function was evaluated."""
Function = Callable[[float], tuple[float, Sides]]
"""t -> value, sides."""

MAX_ROWS = 10
ENOUGH = 1e-9
"""A derivative known that well, relative to itself, needs no smaller step."""
RETREAT = 4.0
"""A step that crosses a kink is divided by this."""
NOISE_POINTS = 16
GOLDEN = 0.6180339887498949
"""Its multiples, modulo 1, are spread without a period."""


@dataclass(frozen=True, slots=True)
class Derivative:
    """What came of the differences.

    Attributes:
        value: the derivative.
        error: what the extrapolation says it may be wrong by, apart from rounding.
        step: the smallest step it was made of; the function's rounding noise is divided by it.
        clear: the largest step that crossed no kink.
    """

    value: float
    error: float
    step: float
    clear: float


def differentiate(function: Function, sides: Sides, start: float, smallest: float) -> Derivative | None:
    """The derivative at 0 of a function that is on these sides there; None at a kink.

    From `start` the step is halved, and after a kink quartered, down to `smallest`. Row i of the
    tableau is D[i][0] = (f(h) - f(-h)) / 2h, D[i][j] = (4^j D[i][j-1] - D[i-1][j-1]) / (4^j - 1);
    the entry that differs least from its neighbours is taken.
    Source: Ridders 1982; Press et al. 2007, section 5.7.
    """
    row: list[float] = []
    best: Derivative | None = None
    step = clear = start
    rows = 0
    while rows < MAX_ROWS and (step >= smallest or 0 < rows < 3):
        slope = _take_difference(function, sides, step)
        if slope is None:  # also after rows that had crossed it and come back
            if step <= smallest:
                return None
            row, best, rows = [], None, 0
            step = clear = max(step / RETREAT, smallest)
            continue
        above, row, rows = row, [slope], rows + 1
        for j, entry in enumerate(above, 1):
            row.append(row[-1] + (row[-1] - entry) / (4**j - 1))
            error = max(abs(row[-1] - row[-2]), abs(row[-1] - entry))
            if best is None or not error >= best.error:  # a NaN is taken, and found wrong later
                best = Derivative(row[-1], error, step, clear)
        if best is not None:
            if best.error <= ENOUGH * abs(best.value):
                break
            if abs(row[-1] - above[-1]) >= 2 * best.error and rows > 3:  # rounding has taken over
                break
        step /= 2
    return best


def measure_noise(function: Function, sides: Sides, radius: float) -> float:
    """Standard deviation of the function's rounding errors near 0; 0 where a kink is in the way.

    What a cubic leaves of values at unevenly spread points in [-radius, radius], which has to be so
    small that the function is a cubic there. Even spacing can be in step with the rounding and see
    none of it. Idea: Moré, Wild 2011, who take differences instead.
    """
    points = 2 * (np.arange(NOISE_POINTS) * GOLDEN % 1) - 1
    values = []
    for point in points:
        value, here = function(float(point * radius))
        if not is_same(here, sides):
            return 0.0
        values.append(value)
    powers = np.vander(points, 4)
    left = np.array(values) - powers @ np.linalg.lstsq(powers, np.array(values), rcond=None)[0]
    return float(np.sqrt(left @ left / (NOISE_POINTS - 4)))


def is_same(sides: Sides, others: Sides) -> bool:
    """Whether two evaluations were on the same side of every kink."""
    return len(sides) == len(others) and all(map(np.array_equal, sides, others))


def _take_difference(function: Function, sides: Sides, step: float) -> float | None:
    above, here = function(step)
    if not is_same(here, sides):
        return None
    below, here = function(-step)
    return (above - below) / (2 * step) if is_same(here, sides) else None
