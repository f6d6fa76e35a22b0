"""Numpy alone, the way every course calls fast: windows to columns, one matmul, columns back.

Convolution unfolds image by image: columns take C*KH*KW*OH*OW elements, whatever the batch;
besides there is a padded copy of it. No Python loop over pixels and no kernel of
its own; the matmul is the BLAS numpy was built with.
"""

from functools import cache
from math import pi, prod, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import ThreadpoolController

from cnnctl.backends.base import tell_finite
from cnnctl.backends.composed import ComposedBackend
from cnnctl.backends.dropout import drop_elements
from cnnctl.backends.specs import Activation, Array
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

    def _avgpool_forward(self, x: Array, window: Window) -> Array:
        windows = _view_windows(_pad_images(x, window, 0), window)
        sums: Array = windows.sum(axis=(-2, -1), dtype=x.dtype)
        sums /= _count_pixels(window, *x.shape[2:])
        return sums

    def _avgpool_backward(self, dy: Array, x_shape: tuple[int, int, int, int], window: Window) -> Array:
        dpadded = _pad_images(np.zeros(x_shape, dy.dtype), window, 0)
        windows, shares = _view_windows(dpadded, window), dy / _count_pixels(window, *x_shape[2:])
        for kh, kw in np.ndindex(window.kernel):
            windows[..., kh, kw] += shares
        return _crop_images(dpadded, x_shape, window)

    def _activation_forward(self, x: Array, activation: Activation, alpha: float) -> Array:
        match activation:
            case "relu":
                return np.maximum(x, 0)
            case "leaky_relu":
                return np.where(x > 0, x, alpha * x)
            case "tanh":
                return np.tanh(x)
            case "sigmoid":
                e = np.exp(-np.abs(x))
                return np.asarray(np.where(x < 0, e, 1) / (1 + e))
            case "elu":
                return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
            case "gelu":
                bounded, tail, _ = _normal_tail(x)
                return np.where(x < 0, -bounded * tail, x * (1 - tail)).astype(x.dtype)
            case "silu":
                bounded, e = _exponential_tail(x)
                return np.asarray(np.where(x < 0, -bounded * e, x) / (1 + e))

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
                bounded, tail, density = _normal_tail(x)
                excess = bounded * density - tail
                slope = np.where(x < 0, -excess, 1 + excess).astype(x.dtype)
            case "silu":
                bounded, e = _exponential_tail(x)
                excess = bounded * e / (1 + e)
                slope = np.where(x < 0, e - excess, 1 + excess) / (1 + e)
        return dy * slope

    def _batchnorm_forward(
        self, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        count = max(x.size // len(gamma), 1)
        mean = (_sum_channels(x) / count).astype(x.dtype)
        var = (_sum_channels(np.square(x - _spread(mean, x))) / count).astype(x.dtype)
        return self._batchnorm_inference(x, gamma, beta, mean, var, eps), mean, var

    def _batchnorm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
    ) -> Array:
        y = x - _spread(mean, x)
        y *= _spread(gamma / np.sqrt(var + x.dtype.type(eps)), x)
        y += _spread(beta, x)
        return y

    def _batchnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        count = max(x.size // len(gamma), 1)
        scale = 1 / np.sqrt(var + x.dtype.type(eps))
        z = (x - _spread(mean, x)) * _spread(scale, x)
        dgamma, dbeta = _sum_channels(dy * z), _sum_channels(dy)
        dx = dy - _spread(dbeta / count, x) - z * _spread(dgamma / count, x)
        dx *= _spread(gamma * scale, x)
        return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)

    def _groupnorm_forward(
        self, x: Array, gamma: Array, beta: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        values = _view_groups(x, groups)
        mean = values.mean(axis=-1, dtype=np.float64).astype(x.dtype)
        centred = values - mean[..., None]
        var = np.square(centred).mean(axis=-1, dtype=np.float64).astype(x.dtype)
        centred *= (1 / np.sqrt(var + x.dtype.type(eps)))[..., None]
        y = centred.reshape(x.shape)
        y *= _spread(gamma, x)
        y += _spread(beta, x)
        return y, mean, var

    def _groupnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        scale = (1 / np.sqrt(var + x.dtype.type(eps)))[..., None]
        z = (_view_groups(x, groups) - mean[..., None]) * scale
        dz = _view_groups(dy * _spread(gamma, x), groups)
        dx = dz - dz.mean(axis=-1, dtype=np.float64, keepdims=True).astype(x.dtype)
        dx -= z * (dz * z).mean(axis=-1, dtype=np.float64, keepdims=True).astype(x.dtype)
        dx *= scale
        dgamma, dbeta = _sum_channels(dy * z.reshape(x.shape)), _sum_channels(dy)
        return dx.reshape(x.shape), dgamma.astype(x.dtype), dbeta.astype(x.dtype)

    def _scale_forward(self, x: Array, w: Array, b: Array) -> Array:
        y = x * _spread(w, x)
        y += _spread(b, x)
        return y

    def _scale_backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        return dy * _spread(w, x), _sum_channels(dy * x).astype(x.dtype), _sum_channels(dy).astype(x.dtype)

    def _lrn_forward(self, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        return x * _sum_squares(x, size, alpha, k) ** -beta

    def _lrn_backward(self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        s = _sum_squares(x, size, alpha, k)
        ds = _sum_neighbours(dy * x * s ** (-beta - 1), (size - 1) // 2, size // 2)
        return dy * s**-beta - 2 * alpha * beta / size * x * ds

    def _dropout(self, x: Array, rate: float, seed: int, spatial: bool) -> Array:
        return drop_elements(x, rate, seed, spatial)

    def _softmax_cross_entropy_forward(
        self, scores: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> tuple[float, Array]:
        shifted = scores - scores.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        minus_log_p = np.log(total) - shifted
        own = minus_log_p[np.arange(len(labels)), labels]
        if weights is None:
            weights = np.ones(scores.shape[1], scores.dtype)
        of_labels = weights[labels]
        loss = (1 - smoothing) * float(own @ of_labels)
        if smoothing:
            loss += smoothing / len(weights) * float((minus_log_p @ weights).sum())
        return loss / (float(of_labels.sum()) or 1), p

    def _softmax_cross_entropy_backward(
        self, p: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> Array:
        if weights is None:
            weights = np.ones(p.shape[1], p.dtype)
        of_labels = weights[labels]
        own = (1 - smoothing) * of_labels
        share = smoothing / len(weights)
        dscores: Array = p * (own + share * weights.sum())[:, None] - share * weights
        dscores[np.arange(len(labels)), labels] -= own
        dscores /= of_labels.sum() or 1
        return dscores

    def _hinge_forward(self, scores: Array, labels: Array, margin: float) -> float:
        return float(_find_excess(scores, labels, margin).sum()) / max(len(labels), 1)

    def _hinge_backward(self, scores: Array, labels: Array, margin: float) -> Array:
        dscores = (_find_excess(scores, labels, margin) > 0).astype(scores.dtype)
        dscores[np.arange(len(labels)), labels] -= dscores.sum(axis=1)
        dscores /= max(len(labels), 1)
        return dscores

    def _squared_error_forward(self, scores: Array, labels: Array) -> float:
        return 0.5 * float(np.square(scores - _make_targets(scores, labels)).sum()) / max(len(labels), 1)

    def _squared_error_backward(self, scores: Array, labels: Array) -> Array:
        dscores = scores - _make_targets(scores, labels)
        dscores /= max(len(labels), 1)
        return dscores

    def _sum_squares(self, x: Array) -> float:
        return float(np.square(x).sum())

    def _add_l1_gradient(self, w: Array, dw: Array, l1: float) -> float:
        dw += l1 * np.sign(w)
        return float(np.abs(w).sum())

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
        squares, g = self._sum_squares(w), _add_penalty(dw, w, l2)
        velocity *= momentum
        velocity += (1 - dampening) * g
        if nesterov:
            g += momentum * velocity
            w -= lr * g
        else:
            w -= lr * velocity
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
        squares, g = self._sum_squares(w), _add_penalty(dw, w, l2)
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * np.square(g)
        w *= 1 - lr * weight_decay
        w -= lr / (1 - beta1**step) * m / (np.sqrt(v / (1 - beta2**step)) + eps)
        return tell_finite(squares, w, m, v)

    def _adagrad_update(self, w: Array, dw: Array, square: Array, lr: float, eps: float, l2: float) -> float:
        squares, g = self._sum_squares(w), _add_penalty(dw, w, l2)
        square += np.square(g)
        w -= lr * g / (np.sqrt(square) + eps)
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
        squares, g = self._sum_squares(w), _add_penalty(dw, w, l2)
        square *= alpha
        square += (1 - alpha) * np.square(g)
        variance = square
        if mean is not None:
            mean *= alpha
            mean += (1 - alpha) * g
            variance = np.maximum(square - np.square(mean), 0)
        g /= np.sqrt(variance) + eps
        if velocity is not None:
            velocity *= momentum
            velocity += g
            g = velocity
        w -= lr * g
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
        squares, g = self._sum_squares(w), _add_penalty(dw, w, l2)
        m *= beta1
        m += (1 - beta1) * g
        u *= beta2
        np.maximum(u, np.abs(g) + eps, out=u)
        w -= lr / (1 - beta1**step) * m / u
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
        squares, g = self._sum_squares(w), _add_penalty(dw, w, l2)
        w *= 1 - lr * weight_decay
        w -= lr * np.sign(beta1 * m + (1 - beta1) * g)
        m *= beta2
        m += (1 - beta2) * g
        return tell_finite(squares, w, m)

    def _limit_blas(self) -> Any:
        """A context in which the BLAS uses `threads` threads; entering it costs some 15 us."""
        return _find_blas().limit(limits=self.threads)


@cache
def _find_blas() -> ThreadpoolController:
    """Found once: looking through the loaded libraries takes a quarter of a millisecond."""
    return ThreadpoolController().select(user_api="blas")


def _find_excess(scores: Array, labels: Array, margin: float) -> Array:
    """By how much each score comes too near to the label's; 0 at the label."""
    rows = np.arange(len(labels))
    excess: Array = np.maximum(scores - scores[rows, labels][:, None] + scores.dtype.type(margin), 0)
    excess[rows, labels] = 0
    return excess


def _make_targets(scores: Array, labels: Array) -> Array:
    """1 at the label, 0 elsewhere; the labels themselves where there is one score alone."""
    if scores.shape[1] == 1:
        return labels[:, None].astype(scores.dtype)
    targets: Array = np.eye(scores.shape[1], dtype=scores.dtype)[labels]
    return targets


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


def _count_pixels(window: Window, height: int, width: int) -> Array:
    """How many taps of each window lie inside the image, (OH,OW)."""
    OH, OW = window.output_size(height, width)
    rows = [len(window.row_taps(oh, height)) for oh in range(OH)]
    columns = [len(window.column_taps(ow, width)) for ow in range(OW)]
    return np.multiply.outer(rows, columns)


_RATIO = (
    *(0.15383860995001259, -0.13307650057801132, 0.0990611231939954, -0.062706631334263147),
    *(0.033004073234072313, -0.013823727741190385, 0.0041590133600484419, -0.00059867535513932646),
    *(-0.00015957388029580991, 0.0001089798211745508, -1.1875142256866349e-5, -9.9526020506585536e-6),
    *(3.3362289671117743e-6, 7.9629825400576879e-7, -5.5381103801810241e-7, -6.7548633847069104e-8),
    *(8.6537277619183082e-8, 8.7224729985827553e-9, -1.3063956921463928e-8, -2.0421787411716694e-9),
    *(1.4363902285872726e-9, 4.0278195212993632e-10),
)
"""(1 + a/5) Phi(-a) e^(a^2/2) as a polynomial in (a - 5)/(a + 5), to 2e-17 for a from 0 to 39."""


def _normal_tail(x: Array) -> tuple[Array, Array, Array]:
    """a = |x| (up to 39, where both others vanish), Phi(-a) and phi(a), in float64."""
    a = np.minimum(np.abs(x.astype(np.float64)), 39)
    e = np.exp(-0.5 * np.square(a))
    tail = e * np.polynomial.polynomial.polyval((a - 5) / (a + 5), _RATIO) / (1 + a / 5)
    return a, tail, e / sqrt(2 * pi)


def _exponential_tail(x: Array) -> tuple[Array, Array]:
    """a = |x| (up to 750, where the other vanishes) and e^-a."""
    a = np.minimum(np.abs(x), 750)
    return a, np.exp(-a)


def _sum_channels(x: Array) -> Array:
    """Each channel's sum, (C) float64, of images (N,C,H,W) or vectors (N,C)."""
    sums: Array = x.sum(axis=(0, 2, 3)[: x.ndim - 1], dtype=np.float64)
    return sums


def _view_groups(x: Array, groups: int) -> Array:
    """The values of each group, (N, groups, C/groups H W), of images (N,C,H,W) or vectors (N,C)."""
    return x.reshape(len(x), groups, prod(x.shape[1:]) // groups)


def _spread(per_channel: Array, x: Array) -> Array:
    """One number a channel, shaped to meet x and of its dtype."""
    return per_channel.astype(x.dtype).reshape(-1, *(x.ndim - 2) * (1,))


def _sum_squares(x: Array, size: int, alpha: float, k: float) -> Array:
    """What local response normalisation raises to a power."""
    return k + alpha / size * _sum_neighbours(np.square(x), size // 2, (size - 1) // 2)


def _sum_neighbours(x: Array, before: int, after: int) -> Array:
    """For every channel c of x (N,C,H,W) the sum over channels c-before ... c+after, 0 outside."""
    padded = np.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)))
    sums: Array = sliding_window_view(padded, before + after + 1, axis=1).sum(axis=-1, dtype=x.dtype)
    return sums


def _add_penalty(dw: Array, w: Array, l2: float) -> Array:
    """dw + l2 w, as a new array."""
    g: Array = l2 * w
    g += dw
    return g
