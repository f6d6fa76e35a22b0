"""Numpy alone, the way every course calls fast: windows to columns, one matmul, columns back.

Works image by image, so the largest buffer holds the columns of a single image,
C*KH*KW*OH*OW elements, whatever the batch. No Python loop over pixels and no kernel of
its own; the matmul is the BLAS numpy was built with.
"""

from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import ThreadpoolController

from cnnctl.backends.composed import ComposedBackend
from cnnctl.backends.specs import Array
from cnnctl.geometry import Window


class Im2colBackend(ComposedBackend):
    """im2col + GEMM, with the BLAS held to `threads` threads.

    A BLAS is free to split one sum among its threads. Where it does, the last bits follow
    the number of threads: the one point in which this backend promises less than the contract.
    """

    name: ClassVar[str] = "im2col"

    def _conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int) -> Array:
        y = np.empty((len(x), len(w), *window.output_size(*x.shape[2:])), x.dtype)
        filters = w.reshape(groups, len(w) // groups, -1)
        with self._limit_blas():
            for out, image in zip(y, _view_windows(_pad_images(x, window, 0), window), strict=True):
                out[...] = (filters @ _copy_columns(image, groups)).reshape(out.shape)
        if b is not None:
            y += b[:, None, None]
        return y

    def _conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        padded = _pad_images(x, window, 0)
        dpadded = np.zeros_like(padded)
        filters = w.reshape(groups, len(w) // groups, -1)
        dfilters = np.zeros(filters.shape, w.dtype)
        with self._limit_blas():
            for n, image in enumerate(_view_windows(padded, window)):
                dout = dy[n].reshape(groups, len(w) // groups, -1)
                dfilters += dout @ _copy_columns(image, groups).swapaxes(1, 2)
                if need_dx:
                    _add_columns(dpadded[n], filters.swapaxes(1, 2) @ dout, window)
        dx = _crop_images(dpadded, x.shape, window) if need_dx else None
        return dx, dfilters.reshape(w.shape), dy.sum(axis=(0, 2, 3))

    def _maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]:
        (OH, OW), (KH, KW) = window.output_size(*x.shape[2:]), window.kernel
        y = np.empty((*x.shape[:2], OH, OW), x.dtype)
        index = np.empty(y.shape, np.int32)
        for n, image in enumerate(_view_windows(_pad_images(x, window, -np.inf), window)):
            candidates = image.reshape(*y.shape[1:], KH * KW)
            index[n] = candidates.argmax(axis=-1)  # the first maximum, or the first NaN
            y[n] = candidates.max(axis=-1)
        # Padding ties with a window of nothing but -inf: there the first tap inside the image wins.
        rows = [window.row_taps(oh, x.shape[2])[0][0] for oh in range(OH)]
        columns = [window.column_taps(ow, x.shape[3])[0][0] for ow in range(OW)]
        first = np.add.outer(np.multiply(rows, KW), columns)
        np.copyto(index, first, where=np.isneginf(y))
        return y, index

    def _maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array:
        dpadded = _pad_images(np.zeros(x_shape, dy.dtype), window, 0)
        windows = _view_windows(dpadded, window)
        for tap, (kh, kw) in enumerate(np.ndindex(window.kernel)):
            dtap = windows[..., kh, kw]
            np.add(dtap, dy, out=dtap, where=index == tap)
        return _crop_images(dpadded, x_shape, window)

    def _linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        with self._limit_blas():
            y: Array = x @ w.T
        if b is not None:
            y += b
        return y

    def _linear_backward(
        self, dy: Array, x: Array, w: Array, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        with self._limit_blas():
            return dy @ w if need_dx else None, dy.T @ x, dy.sum(axis=0)

    def _relu_forward(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def _relu_backward(self, dy: Array, y: Array) -> Array:
        return np.where(y <= 0, 0, dy)

    def _softmax_cross_entropy_forward(self, scores: Array, labels: Array) -> tuple[float, Array]:
        shifted = scores - scores.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        losses = np.log(total[:, 0]) - shifted[np.arange(len(labels)), labels]
        return float(losses.sum()) / max(len(labels), 1), p

    def _softmax_cross_entropy_backward(self, p: Array, labels: Array) -> Array:
        dscores = p.copy()
        dscores[np.arange(len(labels)), labels] -= 1
        dscores /= max(len(labels), 1)
        return dscores

    def _sgd_update(
        self, w: Array, dw: Array, velocity: Array, lr: float, momentum: float, nesterov: bool, l2: float
    ) -> float:
        squares = float(np.square(w).sum())
        g = l2 * w
        g += dw
        velocity *= momentum
        velocity += g
        if nesterov:
            g += momentum * velocity
            w -= lr * g
        else:
            w -= lr * velocity
        return squares

    def _adam_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        v: Array,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        l2: float,
    ) -> float:
        squares = float(np.square(w).sum())
        g = l2 * w
        g += dw
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * np.square(g)
        w -= lr / (1 - beta1**step) * m / (np.sqrt(v / (1 - beta2**step)) + eps)
        return squares

    def _limit_blas(self) -> Any:
        """A context in which the BLAS uses `threads` threads; entering it costs some 15 us."""
        return _find_blas().limit(limits=self.threads)


@cache
def _find_blas() -> ThreadpoolController:
    """Found once: looking through the loaded libraries takes a quarter of a millisecond."""
    return ThreadpoolController().select(user_api="blas")


def _pad_images(x: Array, window: Window, value: float) -> Array:
    """A copy of x (N,C,H,W) with `value` around every image."""
    return np.pad(x, ((0, 0), (0, 0), *window.padding), constant_values=value)


def _crop_images(padded: Array, shape: tuple[int, ...], window: Window) -> Array:
    """The inverse of `_pad_images`: what fell on the padding is dropped."""
    (top, _), (left, _) = window.padding
    return padded[..., top : top + shape[2], left : left + shape[3]]


def _view_windows(padded: Array, window: Window) -> Array:
    """Every window of (..., H, W) as (..., OH, OW, KH, KW): a writeable view."""
    (sh, sw), (dh, dw) = window.stride, window.dilation
    windows = sliding_window_view(padded, window.span, axis=(-2, -1), writeable=True)
    return windows[..., ::sh, ::sw, ::dh, ::dw]


def _copy_columns(windows: Array, groups: int) -> Array:
    """The columns of one image: (C,OH,OW,KH,KW) -> (groups, C/groups*KH*KW, OH*OW)."""
    C, OH, OW, KH, KW = windows.shape
    return windows.transpose(0, 3, 4, 1, 2).reshape(groups, C // groups * KH * KW, OH * OW)


def _add_columns(dpadded: Array, dcolumns: Array, window: Window) -> None:
    """The adjoint of `_copy_columns`: adds columns onto one padded image (C,H,W).

    Tap by tap, because the windows of one tap never overlap.
    """
    windows = _view_windows(dpadded, window)
    C, OH, OW, KH, KW = windows.shape
    dtaps = dcolumns.reshape(C, KH, KW, OH, OW)
    for kh, kw in np.ndindex(KH, KW):
        windows[..., kh, kw] += dtaps[:, kh, kw]
