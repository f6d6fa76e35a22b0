"""Arrays as users really hand them over: the same numbers, lying oddly in memory.

Every form takes a plain array and returns one of its shape and element type; all but one hold
its numbers.
"""

from collections.abc import Callable

import numpy as np

from cnnctl.backends.specs import Array


def reverse_axes(array: Array) -> Array:
    """Negative strides on every axis."""
    return np.flip(np.flip(array).copy())


def interleave(array: Array) -> Array:
    """Every second element of a larger array, whose others would spoil any result."""
    other = np.nan if array.dtype.kind == "f" else 99
    spread = np.full((*array.shape[:-1], 2 * array.shape[-1]), other, array.dtype)
    spread[..., ::2] = array
    return spread[..., ::2]


def cut_out(array: Array) -> Array:
    """The middle of an array that is larger on all sides."""
    other = np.nan if array.dtype.kind == "f" else 99
    larger = np.pad(array, 1, constant_values=other)
    return larger[(slice(1, -1),) * array.ndim]


def repeat_first(array: Array) -> Array:
    """Zero strides: the first image (or filter), as often as there were images."""
    return np.broadcast_to(array[:1], array.shape) if len(array) else array


def misalign(array: Array) -> Array:
    """One byte off."""
    shifted = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


def lock(array: Array) -> Array:
    """Read-only."""
    array.flags.writeable = False
    return array


def end_allocation(array: Array) -> Array:
    """Up against the end of its allocation, of which the first element is left out."""
    larger = np.empty(array.size + 1, array.dtype)
    larger[1:] = array.ravel()
    return larger[1:].reshape(array.shape)


FORMS: dict[str, Callable[[Array], Array]] = {
    "plain": lambda array: array,
    "negative strides": reverse_axes,
    "every second element": interleave,
    "sliced": cut_out,
    "zero strides": repeat_first,
    "Fortran order": np.asfortranarray,
    "misaligned": misalign,
    "read-only": lock,
    "at the end": end_allocation,
}
