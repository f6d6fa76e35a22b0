"""Does a fast operation compute what the textbook's loops compute? One array held against another.

Two sums of the same terms differ by rounding, and only by as much as rounding can do: the bounds
here follow from how many terms there are, never from what was seen to pass. What involves no
rounding has to be equal. Runs no backend and times nothing.

All bounds are for arguments drawn from `draw_arguments`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, isfinite, sqrt
from typing import Any

import numpy as np

from cnnctl.backends.specs import Array, ConvSpec, LinearSpec, Pool, PoolSpec, Shape, Spec
from cnnctl.geometry import Window

LARGEST_TERM, DEVIATIONS = 3.0, 10.0
LEAST_SCALE = 1e-8
"""The courses' guard against dividing by nothing."""

WINOGRAD_WIDTHS = (3, 5, 7)
WINOGRAD_SHARES = {"float32": (1e-5, 2e-5), "float64": (1e-13, 1e-13)}
"""How far a convolution by Winograd's algorithm may be off, of the largest y or dx, and of dw.

A million random convolutions (`make torture`, row K2) reached at most 0.60 of them.
"""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far one output is from the textbook's.

    Attributes:
        output: y, index, dx, dw or db.
        difference: the largest |a - b|; NaN where the arrays cannot be compared or are not finite.
        relative_error: the courses' own: the largest |a - b| / max(1e-8, |a| + |b|).
        bound: how large `difference` may be.
        problem: why they cannot be compared, None where they can.
    """

    output: str
    difference: float
    relative_error: float
    bound: float
    problem: str | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within the bound; a NaN is within none."""
        return self.difference <= self.bound


def compare_outputs(
    found: Mapping[str, Array], wanted: Mapping[str, Array], bounds: Mapping[str, float]
) -> Parity:
    """The worst of an operation's outputs: one that fails, or else the one that differs most."""
    parities = [compare_arrays(key, found.get(key), array, bounds[key]) for key, array in wanted.items()]
    return max(parities, key=lambda parity: (not parity.holds, parity.problem is not None, parity.difference))


def compare_arrays(output: str, found: Array | None, wanted: Array, bound: float) -> Parity:
    """One output held against the textbook's: shape, dtype, finite numbers, largest difference."""
    if found is None or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        there = "missing" if found is None else f"{found.dtype} {found.shape}"
        return Parity(output, np.nan, np.nan, bound, f"{there} where {wanted.dtype} {wanted.shape} is needed")
    with np.errstate(all="ignore"):
        a, b = found.astype(np.float64), wanted.astype(np.float64)
        gap = np.abs(a - b)
        difference = float(gap.max(initial=0.0))
        relative = float((gap / np.maximum(LEAST_SCALE, np.abs(a) + np.abs(b))).max(initial=0.0))
    if not isfinite(difference):
        count = int(np.count_nonzero(~np.isfinite(gap)))
        return Parity(output, np.nan, np.nan, bound, f"{count:,} of {gap.size:,} numbers are not finite")
    return Parity(output, difference, relative, bound)


def draw_arguments(rng: np.random.Generator, shape: Shape, dtype: Any) -> Array:
    """Independent numbers of mean 0 and variance 1, none beyond sqrt(3): uniform ones."""
    return rng.uniform(-sqrt(3), sqrt(3), shape).astype(dtype)


def bound_outputs(
    spec: Spec, x_shape: Shape, y_shape: Shape, wanted: Mapping[str, Array], *, winograd: bool
) -> dict[str, float]:
    """For each output, how far two right implementations can be apart.

    Shapes: x (N,C,H,W) or (N,D), y likewise. With `winograd`, a convolution to which that
    algorithm applies may be off by its larger rounding error besides.
    """
    terms = count_terms(spec, x_shape, y_shape)
    bounds = {key: bound_sums(terms[key], array.dtype) for key, array in wanted.items()}
    if winograd and isinstance(spec, ConvSpec) and _suits_winograd(spec.sandwich.window):
        for key in bounds.keys() - {"db"}:
            of_images, of_weights = WINOGRAD_SHARES[str(wanted[key].dtype)]
            share = of_weights if key == "dw" else of_images
            bounds[key] += share * float(np.abs(wanted[key]).max(initial=0.0))
    return bounds


def bound_sums(terms: int, dtype: Any) -> float:
    """How far apart two sums of the same K terms can be, each in an order of its own.

    2 u K min(3 K, 10), with u the unit roundoff: twice what one sum can be off. That is at most
    K u times the sum of magnitudes (Higham 2002, section 3.1), which is at most 3 K. Sums of many
    terms never come near it: partial sums of terms of mean 0 and variance 1 stay near sqrt(K), so
    that K rounding errors, independent too, add up to about sqrt(K) u sqrt(K) = u K, and not to 10
    times that (Higham, Mary 2020, on random data). Up to some 10^5 terms in float32, a single one
    too few exceeds the bound.
    """
    unit = float(np.finfo(dtype).eps) / 2 if np.issubdtype(dtype, np.floating) else 0.0
    return 2 * unit * terms * min(LARGEST_TERM * terms, DEVIATIONS)


def count_terms(spec: Spec, x_shape: Shape, y_shape: Shape) -> dict[str, int]:
    """How many terms each output sums up at most, by output; 0 for what is chosen and not computed."""
    match spec:
        case ConvSpec(sandwich, filters):
            taps = sandwich.window.kernel[0] * sandwich.window.kernel[1]
            pixels = y_shape[0] * y_shape[2] * y_shape[3]
            channels = x_shape[1] // sandwich.groups
            return {
                "y": channels * taps + 1,
                "dx": filters // sandwich.groups * taps,
                "dw": pixels,
                "db": pixels,
            }
        case LinearSpec(units):
            inputs = int(np.prod(x_shape[1:]))
            return {"y": inputs + 1, "dx": units, "dw": x_shape[0], "db": x_shape[0]}
        case PoolSpec(Pool("max", window)):
            overlap = _count_overlap(window)
            return {"y": 0, "index": 0, "dx": overlap if overlap > 1 else 0}
        case PoolSpec(Pool("average", window)):
            return {"y": window.kernel[0] * window.kernel[1] + 1, "dx": _count_overlap(window) + 1}
    raise NotImplementedError(f"{type(spec).__name__} has no sums that are counted here")


def _count_overlap(window: Window) -> int:
    """How many windows a pixel is in at most."""
    rows, columns = (
        ceil(kernel / stride) for kernel, stride in zip(window.kernel, window.stride, strict=True)
    )
    return rows * columns


def _suits_winograd(window: Window) -> bool:
    return window.stride[1] == 1 and window.dilation == (1, 1) and window.kernel[1] in WINOGRAD_WIDTHS
