"""Deep Learning from Scratch's im2col and col2im, and its small helpers. Shows no picture."""

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.engine import create_window
from cnnctl.errors import ShapeError

__all__ = ["col2im", "conv_output_size", "im2col", "shuffle_dataset", "smooth_curve"]


def im2col(input_data: Array, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> Array:
    """One row for each place of the window, with the zero-padded pixels below it.

    Shapes: input_data (N,C,H,W) -> (N OH OW, C filter_h filter_w), rows in the order n, oh, ow,
    columns in the order c, kh, kw. Raises ShapeError where the window does not fit.
    Source: Chellapilla, Puri, Simard 2006; the order is the book's.
    """
    N, C, H, W = _check_images(input_data.shape)
    OH, OW = create_window((filter_h, filter_w), stride, pad).output_size(H, W)
    padded = np.pad(input_data, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (filter_h, filter_w), axis=(2, 3))
    columns = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    return columns.reshape(N * OH * OW, C * filter_h * filter_w)


def col2im(
    col: Array,
    input_shape: tuple[int, int, int, int],
    filter_h: int,
    filter_w: int,
    stride: int = 1,
    pad: int = 0,
) -> Array:
    """The adjoint of `im2col`: every element is added to the pixel it came from, padding is dropped.

    Shapes: col (N OH OW, C filter_h filter_w) -> `input_shape`. Raises ShapeError for others.
    """
    N, C, H, W = _check_images(input_shape)
    OH, OW = create_window((filter_h, filter_w), stride, pad).output_size(H, W)
    if col.size != N * OH * OW * C * filter_h * filter_w:
        raise ShapeError(f"col: shape {col.shape} is not ({N * OH * OW}, {C * filter_h * filter_w})")
    taps = col.reshape(N, OH, OW, C, filter_h, filter_w).transpose(0, 3, 1, 2, 4, 5)
    padded = np.zeros((N, C, H + 2 * pad, W + 2 * pad), col.dtype)
    for kh, kw in np.ndindex(filter_h, filter_w):
        rows = slice(kh, kh + (OH - 1) * stride + 1, stride)
        columns = slice(kw, kw + (OW - 1) * stride + 1, stride)
        padded[:, :, rows, columns] += taps[..., kh, kw]
    return padded[:, :, pad : pad + H, pad : pad + W]


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """(input_size + 2 pad - filter_size) / stride + 1, not rounded, as in the book."""
    return (input_size + 2 * pad - filter_size) / stride + 1


def shuffle_dataset(x: Array, t: Array) -> tuple[Array, Array]:
    """Images and labels in one random order, which numpy's global generator draws."""
    order = np.random.permutation(len(x))
    return x[order], t[order]


def smooth_curve(x: Array) -> Array:
    """x smoothed by a Kaiser window of 11 points and beta 2, mirrored at both ends.

    It is as long as x, from 6 points on. The mirror stands on the first point, but behind the last one, as
    in the book.
    """
    window = np.kaiser(11, 2)
    mirrored = np.concatenate((x[5:0:-1], x, x[-1:-6:-1]))
    return np.convolve(mirrored, window / window.sum(), mode="valid")


def _check_images(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(shape) != 4:
        raise ShapeError(f"shape {shape} is not (N, C, H, W)")
    N, C, H, W = shape
    return N, C, H, W
