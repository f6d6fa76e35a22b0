"""cs231n's numerical gradients and relative error. Chooses no step and knows no kink.

Source: cs231n, "Learning" notes, on gradient checks.
"""

from collections.abc import Callable

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.differences import difference_centrally
from cnnctl.compat.log import log_line

__all__ = ["eval_numerical_gradient", "eval_numerical_gradient_array", "grad_check_sparse", "rel_error"]


def rel_error(x: Array, y: Array) -> float:
    """The largest |x - y| / max(1e-8, |x| + |y|), elementwise."""
    return float(np.max(np.abs(x - y) / np.maximum(1e-8, np.abs(x) + np.abs(y))))


def eval_numerical_gradient(
    f: Callable[[Array], float], x: Array, verbose: bool = True, h: float = 1e-5
) -> Array:
    """(f(x + h e) - f(x - h e)) / 2h for every element of x. Shapes: x any -> as x.

    f may look at x itself, which is changed meanwhile and put back; with `verbose` each element is
    logged. Raises DtypeError for an x that is not floating-point.
    """
    gradient = np.zeros(x.shape)
    for index, slope in difference_centrally(f, x, h):
        gradient[index] = slope
        if verbose:
            log_line(f"{index}: {float(slope)}")
    return gradient


def eval_numerical_gradient_array(
    f: Callable[[Array], Array], x: Array, df: Array | float, h: float = 1e-5
) -> Array:
    """Gradient of sum(f(x) df) for an f that returns an array, `df` being the gradient of it."""
    gradient = np.zeros(x.shape)
    for index, slopes in difference_centrally(f, x, h):
        gradient[index] = np.sum(slopes * df)
    return gradient


def grad_check_sparse(
    f: Callable[[Array], float], x: Array, analytic_grad: Array, num_checks: int = 10, h: float = 1e-5
) -> None:
    """Log numerical and analytic gradient, and their relative error, at random elements of x."""
    drawn = np.random.randint(x.size, size=num_checks)
    indices = zip(*np.unravel_index(drawn, x.shape), strict=True)
    for index, slope in difference_centrally(f, x, h, indices):
        analytic = analytic_grad[index]
        error = rel_error(slope, analytic)
        place = tuple(map(int, index))
        log_line(f"{place}: numerical {slope:f}, analytic {analytic:f}, relative error {error:e}")
