"""How the courses' arrays reach the engine: which backend does what, and in which dtype.

The courses mix what numpy lets them mix: integer biases, float32 weights with float64 images. The
contract does not, so arrays are brought to one dtype here, and copied only where that changes one.
"""

from functools import cache
from typing import Any

import numpy as np

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.cpu import available_threads
from cnnctl.backends.specs import Array
from cnnctl.geometry import Window


@cache
def get_backend(name: str) -> Backend:
    """The backend called `name`, on all threads this process may use.

    Raises ConfigError for an unknown name, BackendError for one that is not built.
    """
    return create_backend(name, available_threads())


def as_floats(*arrays: Any) -> list[Array]:
    """The arrays in float32 if all of them are, in float64 otherwise."""
    known = [np.asarray(array) for array in arrays]
    dtype = np.float32 if all(array.dtype == np.float32 for array in known) else np.float64
    return [np.asarray(array, dtype) for array in known]


def create_window(kernel: tuple[Any, Any], stride: Any, pad: Any = 0) -> Window:
    """A window of the courses: the same stride and padding along both axes, numpy's integers too.

    Raises ShapeError for what is no integer in range.
    """
    height, width, stride, pad = (
        int(value) if isinstance(value, np.integer) else value for value in (*kernel, stride, pad)
    )
    return Window.create((height, width), stride, pad)
