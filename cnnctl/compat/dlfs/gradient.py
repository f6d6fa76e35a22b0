"""Deep Learning from Scratch's numerical gradient. Chooses no step and knows no kink."""

from collections.abc import Callable

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.differences import difference_centrally

__all__ = ["numerical_gradient"]


def numerical_gradient(f: Callable[[Array], float], x: Array) -> Array:
    """(f(x + h e) - f(x - h e)) / 2h for every element of x, h = 1e-4. Shapes: x any -> as x.

    f may look at x itself, which is changed meanwhile and put back. Raises DtypeError for an x that
    is not floating-point.
    """
    gradient = np.zeros(x.shape)
    for index, slope in difference_centrally(f, x, 1e-4):
        gradient[index] = slope
    return gradient
