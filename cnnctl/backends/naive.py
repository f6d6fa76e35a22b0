"""The reference: every operation as it stands on the blackboard.

Convolution loops over n, f, oh, ow with a patch times a filter inside, pooling over
n, c, oh, ow. Speed-ups are quoted against exactly this, so its definition is frozen and
it refuses to be made faster. Its arithmetic shares nothing with the other backends' but
windows and dropout's mask, and it sums in the dtype of its arguments.
"""

from math import erfc, pi, sqrt
from typing import ClassVar

import numpy as np

from cnnctl.backends.base import tell_finite
from cnnctl.backends.composed import ComposedBackend
from cnnctl.backends.dropout import drop_elements
from cnnctl.backends.specs import Activation, Array
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

    def _avgpool_forward(self, x: Array, window: Window) -> Array:
        y = np.empty((*x.shape[:2], *window.output_size(*x.shape[2:])), x.dtype)
        for n, c, oh, ow in np.ndindex(y.shape):
            patch = x[n, c][_find_pixels(oh, ow, window, x.shape[2:])]
            y[n, c, oh, ow] = np.sum(patch) / patch.size
        return y

    def _avgpool_backward(self, dy: Array, x_shape: tuple[int, int, int, int], window: Window) -> Array:
        dx = np.zeros(x_shape, dy.dtype)
        for n, c, oh, ow in np.ndindex(dy.shape):
            pixels = _find_pixels(oh, ow, window, x_shape[2:])
            dx[n, c][pixels] += dy[n, c, oh, ow] / dx[n, c][pixels].size
        return dx

    def _activation_forward(self, x: Array, activation: Activation, alpha: float) -> Array:
        match activation:
            case "relu":
                return np.maximum(x, 0)
            case "leaky_relu":
                return np.where(x > 0, x, alpha * x)
            case "tanh":
                return np.tanh(x)
            case "sigmoid":
                with np.errstate(over="ignore"):  # 1 / (1 + inf) is right
                    return np.asarray(1 / (1 + np.exp(-x)))
            case "elu":
                return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
            case "gelu":
                return _scale(x, _normal_distribution(x))
            case "silu":
                return _scale(x, self._activation_forward(x, "sigmoid", alpha))

    def _activation_backward(
        self, dy: Array, x: Array, y: Array, activation: Activation, alpha: float
    ) -> Array:
        slope: Array
        match activation:
            case "relu":
                return np.where(y <= 0, 0, dy)
            case "leaky_relu":
                return np.where(y <= 0, alpha * dy, dy)
            case "tanh":
                slope = (1 - y) * (1 + y)
            case "sigmoid":
                slope = y * (1 - y)
            case "elu":
                slope = np.where(y <= 0, y + alpha, 1)
            case "gelu":
                density = np.exp(-0.5 * x * x) / x.dtype.type(sqrt(2 * pi))
                slope = _normal_distribution(x) + _scale(x, density)
            case "silu":
                s = self._activation_forward(x, "sigmoid", alpha)
                slope = s + _scale(x, s * self._activation_forward(-x, "sigmoid", alpha))
        return dy * slope

    def _batchnorm_forward(
        self, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        mean, var = np.empty_like(gamma), np.empty_like(gamma)
        for c in range(x.shape[1]):
            count = max(x[:, c].size, 1)
            mean[c] = np.sum(x[:, c]) / count
            var[c] = np.sum((x[:, c] - mean[c]) ** 2) / count
        return self._batchnorm_inference(x, gamma, beta, mean, var, eps), mean, var

    def _batchnorm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
    ) -> Array:
        y = np.empty(x.shape, x.dtype)
        for c in range(x.shape[1]):
            y[:, c] = gamma[c] * (x[:, c] - mean[c]) / np.sqrt(var[c] + eps) + beta[c]
        return y

    def _batchnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        dx = np.empty(x.shape, x.dtype)
        dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
        for c in range(x.shape[1]):
            count = max(x[:, c].size, 1)
            deviation = np.sqrt(var[c] + eps)
            z = (x[:, c] - mean[c]) / deviation
            dbeta[c] = np.sum(dy[:, c])
            dgamma[c] = np.sum(dy[:, c] * z)
            dx[:, c] = gamma[c] / deviation * (dy[:, c] - dbeta[c] / count - z * dgamma[c] / count)
        return dx, dgamma, dbeta

    def _groupnorm_forward(
        self, x: Array, gamma: Array, beta: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        size = x.shape[1] // groups
        y = np.empty(x.shape, x.dtype)
        mean, var = np.empty((2, len(x), groups), x.dtype)
        for n, g in np.ndindex(mean.shape):
            channels = range(g * size, (g + 1) * size)
            values = x[n, channels]
            mean[n, g] = np.sum(values) / values.size
            var[n, g] = np.sum((values - mean[n, g]) ** 2) / values.size
            for c in channels:
                y[n, c] = gamma[c] * (x[n, c] - mean[n, g]) / np.sqrt(var[n, g] + eps) + beta[c]
        return y, mean, var

    def _groupnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        size = x.shape[1] // groups
        dx = np.empty(x.shape, x.dtype)
        dgamma, dbeta = np.zeros_like(gamma), np.zeros_like(gamma)
        for n, g in np.ndindex(mean.shape):
            deviation = np.sqrt(var[n, g] + eps)
            z = (x[n] - mean[n, g]) / deviation
            total = product = x.dtype.type(0)
            for c in range(g * size, (g + 1) * size):
                dbeta[c] += np.sum(dy[n, c])
                dgamma[c] += np.sum(dy[n, c] * z[c])
                total += gamma[c] * np.sum(dy[n, c])
                product += gamma[c] * np.sum(dy[n, c] * z[c])
            count = x[n, :size].size
            for c in range(g * size, (g + 1) * size):
                dx[n, c] = (gamma[c] * dy[n, c] - total / count - z[c] * product / count) / deviation
        return dx, dgamma, dbeta

    def _scale_forward(self, x: Array, w: Array, b: Array) -> Array:
        y = np.empty(x.shape, x.dtype)
        for c in range(x.shape[1]):
            y[:, c] = w[c] * x[:, c] + b[c]
        return y

    def _scale_backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        dx = np.empty(x.shape, x.dtype)
        dw, db = np.empty_like(w), np.empty_like(w)
        for c in range(x.shape[1]):
            dx[:, c] = w[c] * dy[:, c]
            dw[c] = np.sum(dy[:, c] * x[:, c])
            db[c] = np.sum(dy[:, c])
        return dx, dw, db

    def _lrn_forward(self, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        y = np.empty(x.shape, x.dtype)
        for n, c in np.ndindex(x.shape[:2]):
            y[n, c] = x[n, c] * _sum_neighbours(x[n], c, size, alpha, k) ** -beta
        return y

    def _lrn_backward(self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        dx = np.zeros(x.shape, x.dtype)
        for n, c in np.ndindex(x.shape[:2]):
            s = _sum_neighbours(x[n], c, size, alpha, k)
            dx[n, c] += dy[n, c] * s**-beta
            ds = dy[n, c] * x[n, c] * -beta * s ** (-beta - 1)
            for j in _find_neighbours(c, x.shape[1], size):
                dx[n, j] += ds * alpha / size * 2 * x[n, j]
        return dx

    def _dropout(self, x: Array, rate: float, seed: int, spatial: bool) -> Array:
        return drop_elements(x, rate, seed, spatial)

    def _softmax_cross_entropy_forward(
        self, scores: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> tuple[float, Array]:
        K = scores.shape[1]
        w = np.ones(K, scores.dtype) if weights is None else weights
        p = np.empty(scores.shape, scores.dtype)
        loss = weight = 0.0
        for n, label in enumerate(labels):
            shifted = scores[n] - scores[n].max()
            total = np.sum(np.exp(shifted))
            p[n] = np.exp(shifted) / total
            minus_log_p = np.log(total) - shifted  # also where p underflows
            loss += (1 - smoothing) * float(w[label] * minus_log_p[label])
            if smoothing:
                loss += smoothing / K * float(np.sum(w * minus_log_p))
            weight += float(w[label])
        return loss / (weight or 1), p

    def _softmax_cross_entropy_backward(
        self, p: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> Array:
        K = p.shape[1]
        w = np.ones(K, p.dtype) if weights is None else weights
        dscores = np.empty(p.shape, p.dtype)
        for n, label in enumerate(labels):
            t = smoothing / K * w
            t[label] += (1 - smoothing) * w[label]
            dscores[n] = p[n] * np.sum(t) - t
        dscores /= sum(float(w[label]) for label in labels) or 1
        return dscores

    def _hinge_forward(self, scores: Array, labels: Array, margin: float) -> float:
        loss = 0.0
        for n, label in enumerate(labels):
            for k in range(scores.shape[1]):
                if k != label:
                    loss += max(float(scores[n, k] - scores[n, label]) + margin, 0.0)
        return loss / max(len(labels), 1)

    def _hinge_backward(self, scores: Array, labels: Array, margin: float) -> Array:
        dscores = np.zeros(scores.shape, scores.dtype)
        for n, label in enumerate(labels):
            for k in range(scores.shape[1]):
                if k != label and float(scores[n, k] - scores[n, label]) + margin > 0:
                    dscores[n, k] += 1
                    dscores[n, label] -= 1
        return dscores / max(len(labels), 1)

    def _squared_error_forward(self, scores: Array, labels: Array) -> float:
        loss = 0.0
        for n, label in enumerate(labels):
            for k in range(scores.shape[1]):
                loss += 0.5 * float(scores[n, k] - _find_target(scores, k, label)) ** 2
        return loss / max(len(labels), 1)

    def _squared_error_backward(self, scores: Array, labels: Array) -> Array:
        dscores = np.empty(scores.shape, scores.dtype)
        for n, label in enumerate(labels):
            for k in range(scores.shape[1]):
                dscores[n, k] = scores[n, k] - _find_target(scores, k, label)
        return dscores / max(len(labels), 1)

    def _sum_squares(self, x: Array) -> float:
        return float(np.sum(x * x))

    def _add_l1_gradient(self, w: Array, dw: Array, l1: float) -> float:
        dw += l1 * np.sign(w)
        return float(np.sum(np.abs(w)))

    def _sgd_update(
        self,
        w: Array,
        dw: Array,
        velocity: Array,
        lr: float,
        momentum: float,
        dampening: float,
        nesterov: bool,
        l2: float,
    ) -> float:
        squares = self._sum_squares(w)
        g = dw + l2 * w
        velocity[...] = momentum * velocity + (1 - dampening) * g
        w[...] = w - lr * (g + momentum * velocity if nesterov else velocity)
        return tell_finite(squares, w, velocity)

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
        weight_decay: float,
        l2: float,
    ) -> float:
        squares = self._sum_squares(w)
        g = dw + l2 * w
        m[...] = beta1 * m + (1 - beta1) * g
        v[...] = beta2 * v + (1 - beta2) * g * g
        m_hat = m / (1 - beta1**step)
        v_hat = v / (1 - beta2**step)
        w[...] = (1 - lr * weight_decay) * w - lr * m_hat / (np.sqrt(v_hat) + eps)
        return tell_finite(squares, w, m, v)

    def _adagrad_update(self, w: Array, dw: Array, square: Array, lr: float, eps: float, l2: float) -> float:
        squares = self._sum_squares(w)
        g = dw + l2 * w
        square[...] = square + g * g
        w[...] = w - lr * g / (np.sqrt(square) + eps)
        return tell_finite(squares, w, square)

    def _rmsprop_update(
        self,
        w: Array,
        dw: Array,
        square: Array,
        mean: Array | None,
        velocity: Array | None,
        lr: float,
        alpha: float,
        eps: float,
        momentum: float,
        l2: float,
    ) -> float:
        squares = self._sum_squares(w)
        g = dw + l2 * w
        square[...] = alpha * square + (1 - alpha) * g * g
        variance = square
        if mean is not None:
            mean[...] = alpha * mean + (1 - alpha) * g
            variance = np.maximum(square - mean * mean, 0)
        move = g / (np.sqrt(variance) + eps)
        if velocity is not None:
            velocity[...] = momentum * velocity + move
            move = velocity
        w[...] = w - lr * move
        return tell_finite(squares, w, square, *(slot for slot in (mean, velocity) if slot is not None))

    def _adamax_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        u: Array,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        l2: float,
    ) -> float:
        squares = self._sum_squares(w)
        g = dw + l2 * w
        m[...] = beta1 * m + (1 - beta1) * g
        u[...] = np.maximum(beta2 * u, np.abs(g) + eps)
        m_hat = m / (1 - beta1**step)
        w[...] = w - lr * m_hat / u
        return tell_finite(squares, w, m, u)

    def _lion_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        l2: float,
    ) -> float:
        squares = self._sum_squares(w)
        g = dw + l2 * w
        c = beta1 * m + (1 - beta1) * g
        w[...] = (1 - lr * weight_decay) * w - lr * np.sign(c)
        m[...] = beta2 * m + (1 - beta2) * g
        return tell_finite(squares, w, m)


def _find_target(scores: Array, k: int, label: int) -> int:
    """1 at the label, 0 elsewhere; the label itself where there is one score alone."""
    return int(label) if scores.shape[1] == 1 else int(k == label)


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


def _find_pixels(oh: int, ow: int, window: Window, size: tuple[int, int]) -> tuple[Array, ...]:
    """Index arrays of the pixels (H,W) under one window, without the taps in the padding."""
    rows, columns = window.row_taps(oh, size[0]), window.column_taps(ow, size[1])
    return np.ix_([ih for _, ih in rows], [iw for _, iw in columns])


def _normal_distribution(x: Array) -> Array:
    """Phi(x) = erfc(-x / sqrt(2)) / 2, number by number."""
    values = (0.5 * erfc(-value / sqrt(2)) for value in x.ravel().tolist())
    return np.fromiter(values, x.dtype, x.size).reshape(x.shape)


def _scale(x: Array, factor: Array) -> Array:
    """x * factor; where that factor has vanished 0, even for an infinite x."""
    return np.multiply(x, factor, out=np.zeros_like(x), where=factor != 0)


def _find_neighbours(c: int, channels: int, size: int) -> range:
    """The channels that channel c is normalised by."""
    return range(max(c - size // 2, 0), min(c + (size - 1) // 2, channels - 1) + 1)


def _sum_neighbours(image: Array, c: int, size: int, alpha: float, k: float) -> Array:
    """k + alpha/size (sum of squares over the neighbours of channel c), for every pixel of (C,H,W)."""
    total = np.zeros(image.shape[1:], image.dtype)
    for j in _find_neighbours(c, len(image), size):
        total += image[j] ** 2
    return k + alpha / size * total
