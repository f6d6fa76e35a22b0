"""The reference: every operation as it stands on the blackboard.

Convolution loops over n, f, oh, ow with a patch times a filter inside, pooling over
n, c, oh, ow. Speed-ups are quoted against exactly this, so its definition is frozen and
it refuses to be made faster. It shares nothing with the other backends but window
arithmetic, and sums in the dtype of its arguments.
"""

from typing import ClassVar

import numpy as np

from cnnctl.backends.composed import ComposedBackend
from cnnctl.backends.specs import Array
from cnnctl.geometry import Window


class NaiveBackend(ComposedBackend):
    """Loops and sums, in one thread whatever `threads` says."""

    name: ClassVar[str] = "naive"

    def _conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int) -> Array:
        F = len(w)
        bias = np.zeros(F, w.dtype) if b is None else b
        padded = _pad_groups(x, window, groups)
        y = np.empty((len(x), F, *window.output_size(*x.shape[2:])), x.dtype)
        for n, f, oh, ow in np.ndindex(y.shape):
            patch = _view_patch(padded[n, f // (F // groups)], oh, ow, window)
            y[n, f, oh, ow] = np.sum(patch * w[f]) + bias[f]
        return y

    def _conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        F = len(w)
        padded = _pad_groups(x, window, groups)
        dpadded = np.zeros_like(padded)
        dw = np.zeros(w.shape, w.dtype)
        db = np.zeros(F, w.dtype)
        for n, f, oh, ow in np.ndindex(dy.shape):
            g = f // (F // groups)
            dw[f] += dy[n, f, oh, ow] * _view_patch(padded[n, g], oh, ow, window)
            db[f] += dy[n, f, oh, ow]
            if need_dx:
                dpatch = _view_patch(dpadded[n, g], oh, ow, window)
                dpatch += dy[n, f, oh, ow] * w[f]
        return _crop_groups(dpadded, x.shape, window) if need_dx else None, dw, db

    def _maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]:
        H, W = x.shape[2:]
        KW, (dh, dw) = window.kernel[1], window.dilation
        y = np.empty((*x.shape[:2], *window.output_size(H, W)), x.dtype)
        index = np.empty(y.shape, np.int32)
        for n, c, oh, ow in np.ndindex(y.shape):
            rows, columns = window.row_taps(oh, H), window.column_taps(ow, W)
            (kh, top), (kw, left) = rows[0], columns[0]
            patch = x[n, c, top : rows[-1][1] + 1 : dh, left : columns[-1][1] + 1 : dw]
            row, column = divmod(int(patch.argmax()), len(columns))  # of the first maximum, or NaN
            y[n, c, oh, ow] = patch[row, column]
            index[n, c, oh, ow] = (kh + row) * KW + kw + column
        return y, index

    def _maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array:
        dpadded = _pad_groups(np.zeros(x_shape, dy.dtype), window, 1)
        for n, c, oh, ow in np.ndindex(dy.shape):
            kh, kw = divmod(int(index[n, c, oh, ow]), window.kernel[1])
            _view_patch(dpadded[n, 0], oh, ow, window)[c, kh, kw] += dy[n, c, oh, ow]
        return _crop_groups(dpadded, x_shape, window)

    def _linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        bias = np.zeros(len(w), w.dtype) if b is None else b
        y = np.empty((len(x), len(w)), x.dtype)
        for n, o in np.ndindex(y.shape):
            y[n, o] = np.sum(x[n] * w[o]) + bias[o]
        return y

    def _linear_backward(
        self, dy: Array, x: Array, w: Array, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        dx = np.zeros(x.shape, x.dtype) if need_dx else None
        dw = np.zeros(w.shape, w.dtype)
        db = np.zeros(len(w), w.dtype)
        for n, o in np.ndindex(dy.shape):
            dw[o] += dy[n, o] * x[n]
            db[o] += dy[n, o]
            if dx is not None:
                dx[n] += dy[n, o] * w[o]
        return dx, dw, db

    def _relu_forward(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def _relu_backward(self, dy: Array, y: Array) -> Array:
        return np.where(y <= 0, 0, dy)

    def _softmax_cross_entropy_forward(self, scores: Array, labels: Array) -> tuple[float, Array]:
        p = np.empty(scores.shape, scores.dtype)
        loss = 0.0
        for n, label in enumerate(labels):
            shifted = scores[n] - scores[n].max()
            total = np.sum(np.exp(shifted))
            p[n] = np.exp(shifted) / total
            loss += float(np.log(total) - shifted[label])  # -log p[label], also where p underflows
        return loss / max(len(labels), 1), p

    def _softmax_cross_entropy_backward(self, p: Array, labels: Array) -> Array:
        dscores = p.copy()
        for n, label in enumerate(labels):
            dscores[n, label] -= 1
        return dscores / max(len(labels), 1)

    def _sgd_update(
        self, w: Array, dw: Array, velocity: Array, lr: float, momentum: float, nesterov: bool, l2: float
    ) -> float:
        squares = float(np.sum(w * w))
        g = dw + l2 * w
        velocity[...] = momentum * velocity + g
        w[...] = w - lr * (g + momentum * velocity if nesterov else velocity)
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
        squares = float(np.sum(w * w))
        g = dw + l2 * w
        m[...] = beta1 * m + (1 - beta1) * g
        v[...] = beta2 * v + (1 - beta2) * g * g
        m_hat = m / (1 - beta1**step)
        v_hat = v / (1 - beta2**step)
        w[...] = w - lr * m_hat / (np.sqrt(v_hat) + eps)
        return squares


def _pad_groups(x: Array, window: Window, groups: int) -> Array:
    """x (N,C,H,W), padded with zeros and seen as (N, groups, C/groups, H+padding, W+padding)."""
    padded = np.pad(x, ((0, 0), (0, 0), *window.padding))
    return padded.reshape(len(x), groups, x.shape[1] // groups, *padded.shape[2:])


def _crop_groups(dpadded: Array, shape: tuple[int, ...], window: Window) -> Array:
    """The inverse of `_pad_groups` for a gradient: what fell on the padding is dropped."""
    (top, _), (left, _) = window.padding
    H, W = shape[2:]
    return dpadded[..., top : top + H, left : left + W].reshape(shape)


def _view_patch(image: Array, oh: int, ow: int, window: Window) -> Array:
    """The pixels of a padded image (C,H,W) under one window: a view, (C,KH,KW)."""
    (sh, sw), (dh, dw), (rows, columns) = window.stride, window.dilation, window.span
    return image[:, oh * sh : oh * sh + rows : dh, ow * sw : ow * sw + columns : dw]
