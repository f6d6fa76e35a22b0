"""The definitions in direct.c, called with numpy arrays. Compiles them once a process tree.

Everything here is float64; nothing of the product is used but the extents that a case has.
"""

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.geometry import Window
from tests.torture.cases import Case

SOURCE = Path(__file__).with_name("direct.c")


class Sums(NamedTuple):
    """Results of a convolution, or the sums of their terms' magnitudes."""

    y: Array
    dx: Array
    dw: Array
    db: Array


@cache
def load_library() -> ctypes.CDLL:
    """direct.c, compiled without any liberty: no contraction to multiply-adds, no reordering."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "direct.so"
        compiler = os.environ.get("CC", "cc")
        options = ["-std=gnu11", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-lm"]
        subprocess.run([*compiler.split(), str(SOURCE), *options, "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.read_float_mode.restype = ctypes.c_uint64
    return loaded


def read_float_mode() -> int:
    """The processor's rounding and subnormal mode of this thread."""
    mode: int = load_library().read_float_mode()
    return mode


def convolve(case: Case, x: Array, w: Array, b: Array, dy: Array) -> Sums:
    """y and, for L = sum of y * dy, its gradients."""
    y = np.zeros(dy.shape)
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(b.shape)
    load_library().convolve(_extents(case), *map(_pointer, (x, w, b, dy, y, dx, dw, db)))
    return Sums(y, dx, dw, db)


def convolve_forward(case: Case, x: Array, w: Array, b: Array) -> Array:
    """y alone."""
    y = np.zeros(case.conv_shape)
    load_library().convolve(_extents(case), *map(_pointer, (x, w, b)), None, _pointer(y), None, None, None)
    return y


def find_maxima(case: Case, x: Array) -> tuple[Array, Array]:
    """Max pooling of x, whatever its number of channels, over the case's pool: y and winners."""
    y = np.zeros(case.pool_shape(x.shape))
    index = np.zeros(y.shape, np.int32)
    load_library().find_maxima(_pool_extents(case, x.shape), *map(_pointer, (x, y, index)))
    return y, index


def return_maxima(case: Case, dy: Array, index: Array, x_shape: tuple[int, ...]) -> Array:
    """dx of a max pooling."""
    dx = np.zeros(x_shape)
    load_library().return_maxima(_pool_extents(case, x_shape), *map(_pointer, (dy, index, dx)))
    return dx


def average(case: Case, x: Array, dy: Array) -> tuple[Array, Array]:
    """Average pooling: y and dx."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    load_library().average(_pool_extents(case, x.shape), *map(_pointer, (x, dy, y, dx)))
    return y, dx


def _extents(case: Case) -> ctypes.Array[ctypes.c_int64]:
    return _pack(case.x_shape, case.F, case.window, case.groups)


def _pool_extents(case: Case, x_shape: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    assert case.pool is not None
    return _pack(x_shape, 0, case.pool, 1)


def _pack(x_shape: tuple[int, ...], F: int, window: Window, groups: int) -> ctypes.Array[ctypes.c_int64]:
    (top, _), (left, _) = window.padding
    output = count_outputs(x_shape, window)
    numbers = (
        *(*x_shape, F, *window.kernel, *output),
        *(*window.stride, top, left, *window.dilation, groups),
    )
    return (ctypes.c_int64 * len(numbers))(*numbers)


def count_outputs(x_shape: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """Positions at which the window lies within the padded image, found by walking."""
    counts = []
    for axis in range(2):
        end = x_shape[2 + axis] + sum(window.padding[axis])
        position, count = 0, 0
        while position + (window.kernel[axis] - 1) * window.dilation[axis] < end:
            position += window.stride[axis]
            count += 1
        counts.append(count)
    return tuple(counts)


def _pointer(array: Array) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    assert array.dtype in (np.float64, np.int32)
    return ctypes.c_void_p(array.ctypes.data)
