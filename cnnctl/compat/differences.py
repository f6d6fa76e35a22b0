"""Central differences the courses' way: one fixed step, every element in turn, in place.

For those who know the courses' functions; `cnnctl gradcheck` chooses its steps and minds kinks.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.errors import DtypeError


def difference_centrally(
    f: Callable[[Array], Any], x: Array, h: float, indices: Any = None
) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(index, (f(x + h e) - f(x - h e)) / 2h) for the unit vector e of each index, all by default.

    f may return a number or an array, and may look at x itself in place of its argument: x is
    changed while f runs and put back. Raises DtypeError for an x whose elements cannot move by h.
    """
    if not np.issubdtype(x.dtype, np.floating):
        raise DtypeError(f"x: dtype {x.dtype} is not a floating-point type; differences need one")
    for index in np.ndindex(x.shape) if indices is None else indices:
        old = x[index]
        try:
            x[index] = old + h
            above = np.array(f(x))
            x[index] = old - h
            below = np.array(f(x))
        finally:
            x[index] = old
        yield index, (above - below) / (2 * h)
