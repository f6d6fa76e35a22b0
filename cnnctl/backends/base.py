"""The contract that every backend keeps, written down once.

A `Backend` offers layer operations in pairs (`thing_forward`, `thing_backward`) on
numpy arrays. This file validates arguments, states what each operation computes and
composes fused operations from single ones. It computes nothing itself and chooses
nothing: asking for a backend that is not built is an error, never a fallback.

Rules, for all operations of all backends:

* Images are NCHW, convolution weights (F, C/groups, KH, KW), linear weights (out, in).
* float32 or float64, the same for every array of a call; the output has that dtype.
* Inputs are never changed (the `*_update` operations say otherwise). Any strides and
  read-only arrays are accepted. A batch of 0 images is a batch.
* The first maximum in row-major order wins a pool; padding never wins one; a NaN wins
  over every number, and the first NaN over the others.
* NaN and infinities in `x` reach every output whose window holds them. A tap outside
  the image contributes nothing, provided the weight it would have met is finite.
* Results do not depend on the number of threads, not even in the last bit.

Backward takes arrays rather than a cache, so that one backend's forward can feed
another's backward in a test.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.specs import Activation, Array, Sandwich, Shape, Spec
from cnnctl.backends.stage import Layout, LossStage, Stage
from cnnctl.errors import ConfigError, DtypeError, ShapeError
from cnnctl.geometry import Window, check_elements

MAX_THREADS = 256
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Backend(ABC):
    """One implementation of the contract. Immutable; holds settings, never data.

    Attributes:
        threads: how many threads an operation may use.
    """

    name: ClassVar[str]
    threads: int = 1

    def __post_init__(self) -> None:
        if type(self.threads) is not int or not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"threads: {self.threads!r} is not an integer from 1 to {MAX_THREADS}")

    # Convolution

    def conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int = 1) -> Array:
        """Cross-correlate images with filters, as every framework's "convolution" does.

        y[n,f,oh,ow] = b[f] + sum over c,kh,kw of w[f,c,kh,kw] * x[n, g C/groups + c, ih, iw],
        with ih = oh*stride - padding + kh*dilation, iw likewise and g = f // (F/groups).

        Shapes: x (N,C,H,W), w (F,C/groups,KH,KW), b (F) or None -> y (N,F,OH,OW).
        Source: LeCun et al. 1998, section II.A; groups: Krizhevsky et al. 2012.
        """
        check_conv(x, w, b, window, groups)
        return self._conv_forward(x, w, b, window, groups)

    def conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int = 1, *, need_dx: bool = True
    ) -> tuple[Array | None, Array, Array]:
        """Gradients of a scalar L, given dy = dL/dy: (dx, dw, db), shaped as x, w and (F).

        dx is None when it is not needed (the first layer of a network).
        """
        shape = check_conv(x, w, None, window, groups)
        _check_same("dy", dy, shape, x.dtype)
        return self._conv_backward(dy, x, w, window, groups, need_dx)

    # Max pooling

    def maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]:
        """y[n,c,oh,ow] = max of x over the window, and where it was found.

        Shapes: x (N,C,H,W) -> y (N,C,OH,OW), index (N,C,OH,OW) int32. The index is
        kh*KW + kw of the winning tap and always that of a tap inside the image.
        Raises ShapeError when a window could lie wholly in the padding.
        """
        check_pool(x, window)
        return self._maxpool_forward(x, window)

    def maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array:
        """dx: each dy is added to the pixel that won its window. Shape: `x_shape`."""
        n, c, h, w = x_shape
        shape = (n, c, *check_pool_window(window, h, w))
        _check_dtype("dy", dy)
        _check_same("dy", dy, shape, dy.dtype)
        _check_index(index, shape, window)
        return self._maxpool_backward(dy, index, x_shape, window)

    # Fully connected

    def linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        """y = x w^T + b. Shapes: x (N,in), w (out,in), b (out) or None -> y (N,out)."""
        check_linear(x, w, b)
        return self._linear_forward(x, w, b)

    def linear_backward(
        self, dy: Array, x: Array, w: Array, *, need_dx: bool = True
    ) -> tuple[Array | None, Array, Array]:
        """dx = dy w, dw = dy^T x, db = sum over n of dy."""
        check_linear(x, w, None)
        _check_same("dy", dy, (x.shape[0], w.shape[0]), x.dtype)
        return self._linear_backward(dy, x, w, need_dx)

    # Activation

    def relu_forward(self, x: Array) -> Array:
        """y = max(x, 0), elementwise on any shape; NaN stays NaN. Source: Nair, Hinton 2010."""
        _check_dtype("x", x)
        return self._relu_forward(x)

    def relu_backward(self, dy: Array, y: Array) -> Array:
        """dx = 0 where y <= 0, dy elsewhere; `y` is the forward's output."""
        _check_dtype("y", y)
        _check_same("dy", dy, y.shape, y.dtype)
        return self._relu_backward(dy, y)

    # Loss

    def softmax_cross_entropy_forward(self, scores: Array, labels: Array) -> tuple[float, Array]:
        """Mean of -log p[label], p = softmax(scores), in nats; and p itself.

        p[n,k] = exp(s[n,k] - max s[n]) / sum over j of exp(s[n,j] - max s[n]).
        Shapes: scores (N,K), labels (N) integers in [0, K) -> loss, p (N,K). The mean
        over no images is 0. Source: Goodfellow et al. 2016, section 6.2.2.3.
        """
        check_labels(scores, labels)
        return self._softmax_cross_entropy_forward(scores, labels)

    def softmax_cross_entropy_backward(self, p: Array, labels: Array) -> Array:
        """dscores = (p - onehot(labels)) / N."""
        check_labels(p, labels)
        return self._softmax_cross_entropy_backward(p, labels)

    # Updates: in place, on contiguous arrays of one shape

    def sgd_update(
        self,
        w: Array,
        dw: Array,
        velocity: Array,
        *,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        l2: float = 0.0,
    ) -> float:
        """One step of SGD; changes `w` and `velocity`, returns sum of w^2 before it.

        g = dw + l2 w; v <- momentum v + g; w <- w - lr (g + momentum v if nesterov else v).
        Source: Sutskever et al. 2013, in PyTorch's form.
        """
        _check_update(w, dw, velocity)
        return self._sgd_update(w, dw, velocity, lr, momentum, nesterov, l2)

    def adam_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        v: Array,
        *,
        step: int,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        l2: float = 0.0,
    ) -> float:
        """Step number `step` (from 1) of Adam; changes w, m, v, returns sum of w^2 before it.

        g = dw + l2 w; m <- beta1 m + (1-beta1) g; v <- beta2 v + (1-beta2) g^2;
        w <- w - lr (m / (1-beta1^step)) / (sqrt(v / (1-beta2^step)) + eps).
        Source: Kingma, Ba 2015, algorithm 1.
        """
        _check_update(w, dw, m, v)
        if step < 1:
            raise ConfigError(f"step: {step} is below 1; the first step of Adam is number 1")
        return self._adam_update(w, dw, m, v, step, lr, beta1, beta2, eps, l2)

    # Fused operations

    def conv_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, sandwich: Sandwich
    ) -> tuple[Array, Array | None]:
        """y = pool(activation(conv(x, w) + b)) and the pool's index (None without pool)."""
        check_sandwich(x, w, b, sandwich)
        return self._conv_sandwich_forward(x, w, b, sandwich)

    def conv_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        y: Array,
        index: Array | None,
        sandwich: Sandwich,
        *,
        need_dx: bool = True,
    ) -> tuple[Array | None, Array, Array]:
        """(dx, dw, db), given the forward's `y` and `index`.

        ReLU's mask is taken from the pooled y: a pool passes its gradient only to the
        pixel whose value y is, so that pixel was positive exactly where y is.
        """
        shape = check_sandwich(x, w, None, sandwich)
        _check_same("dy", dy, shape, x.dtype)
        _check_same("y", y, shape, x.dtype)
        if sandwich.pool:
            _check_index(index, shape, sandwich.pool)
        return self._conv_sandwich_backward(dy, x, w, y, index, sandwich, need_dx)

    def linear_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, activation: Activation | None
    ) -> Array:
        """y = activation(x w^T + b)."""
        check_linear(x, w, b)
        return self._linear_sandwich_forward(x, w, b, activation)

    def linear_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        y: Array,
        activation: Activation | None,
        *,
        need_dx: bool = True,
    ) -> tuple[Array | None, Array, Array]:
        """(dx, dw, db), given the forward's `y`."""
        shape = check_linear(x, w, None)
        _check_same("dy", dy, shape, x.dtype)
        _check_same("y", y, shape, x.dtype)
        return self._linear_sandwich_backward(dy, x, w, y, activation, need_dx)

    # How fused operations are done where there is no kernel for them: one after the other

    def _conv_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, sandwich: Sandwich
    ) -> tuple[Array, Array | None]:
        y = self._conv_forward(x, w, b, sandwich.window, sandwich.groups)
        if sandwich.activation:
            y = self._relu_forward(y)
        return self._maxpool_forward(y, sandwich.pool) if sandwich.pool else (y, None)

    def _conv_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        y: Array,
        index: Array | None,
        sandwich: Sandwich,
        need_dx: bool,
    ) -> tuple[Array | None, Array, Array]:
        if sandwich.activation:
            dy = self._relu_backward(dy, y)
        if sandwich.pool:
            assert index is not None
            conv_shape = check_conv(x, w, None, sandwich.window, sandwich.groups)
            dy = self._maxpool_backward(dy, index, conv_shape, sandwich.pool)
        return self._conv_backward(dy, x, w, sandwich.window, sandwich.groups, need_dx)

    def _linear_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, activation: Activation | None
    ) -> Array:
        y = self._linear_forward(x, w, b)
        return self._relu_forward(y) if activation else y

    def _linear_sandwich_backward(
        self, dy: Array, x: Array, w: Array, y: Array, activation: Activation | None, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        if activation:
            dy = self._relu_backward(dy, y)
        return self._linear_backward(dy, x, w, need_dx)

    # Stages of a plan

    @abstractmethod
    def create_layout(self, shape: Shape, dtype: Any, first: Spec) -> Layout:
        """The layout of a network's input, whose first stage will be `first`."""

    @abstractmethod
    def create_stage(self, spec: Spec, layout: Layout, dtype: Any) -> Stage:
        """`spec` made ready for images that lie as `layout` says."""

    @abstractmethod
    def create_loss(self, layout: Layout, scores: Array, dscores: Array | None) -> LossStage:
        """Softmax cross-entropy over a buffer of scores; `dscores` only for training."""

    # What a backend implements; arguments have been checked

    @abstractmethod
    def _conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int) -> Array: ...

    @abstractmethod
    def _conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]: ...

    @abstractmethod
    def _maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]: ...

    @abstractmethod
    def _maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array: ...

    @abstractmethod
    def _linear_forward(self, x: Array, w: Array, b: Array | None) -> Array: ...

    @abstractmethod
    def _linear_backward(
        self, dy: Array, x: Array, w: Array, need_dx: bool
    ) -> tuple[Array | None, Array, Array]: ...

    @abstractmethod
    def _relu_forward(self, x: Array) -> Array: ...

    @abstractmethod
    def _relu_backward(self, dy: Array, y: Array) -> Array: ...

    @abstractmethod
    def _softmax_cross_entropy_forward(self, scores: Array, labels: Array) -> tuple[float, Array]: ...

    @abstractmethod
    def _softmax_cross_entropy_backward(self, p: Array, labels: Array) -> Array: ...

    @abstractmethod
    def _sgd_update(
        self, w: Array, dw: Array, velocity: Array, lr: float, momentum: float, nesterov: bool, l2: float
    ) -> float: ...

    @abstractmethod
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
    ) -> float: ...


def check_conv(x: Array, w: Array, b: Array | None, window: Window, groups: int) -> tuple[int, int, int, int]:
    """Validate a convolution's arguments; returns the shape of y, (N, F, OH, OW)."""
    _check_dtype("x", x)
    if x.ndim != 4 or x.shape[1] < 1:
        raise ShapeError(f"x: shape {x.shape} is not (N, C, H, W) with at least one channel")
    N, C, H, W = x.shape
    if groups < 1 or C % groups:
        raise ShapeError(f"groups: {groups} does not divide the {C} channels of x")
    if w.ndim != 4 or w.shape[1:] != (C // groups, *window.kernel):
        raise ShapeError(
            f"w: shape {w.shape} is not (F, {C // groups}, {window.kernel[0]}, {window.kernel[1]})"
        )
    window.check_size(H, W)
    F = w.shape[0]
    if F < 1 or F % groups:
        raise ShapeError(f"groups: {groups} does not divide the {F} filters of w")
    _check_same("w", w, w.shape, x.dtype)
    if b is not None:
        _check_same("b", b, (F,), x.dtype)
    shape = (N, F, *window.output_size(H, W))
    check_elements(shape, "y")
    return shape


def check_sandwich(x: Array, w: Array, b: Array | None, sandwich: Sandwich) -> tuple[int, int, int, int]:
    """Validate a fused convolution's arguments; returns the shape of y, after the pool."""
    N, F, *size = check_conv(x, w, b, sandwich.window, sandwich.groups)
    return (N, F, *(check_pool_window(sandwich.pool, *size) if sandwich.pool else size))


def check_pool(x: Array, window: Window) -> tuple[int, int, int, int]:
    """Validate a pooling's arguments; returns the shape of y, (N, C, OH, OW)."""
    _check_dtype("x", x)
    if x.ndim != 4 or x.shape[1] < 1:
        raise ShapeError(f"x: shape {x.shape} is not (N, C, H, W) with at least one channel")
    return (*x.shape[:2], *check_pool_window(window, *x.shape[2:]))


def check_pool_window(window: Window, height: int, width: int) -> tuple[int, int]:
    """(OH, OW); refuses padding so wide that a window would hold no pixel of the image."""
    window.check_size(height, width)
    OH, OW = window.output_size(height, width)
    rows_ok = all(window.row_taps(oh, height) for oh in range(OH))
    if not rows_ok or not all(window.column_taps(ow, width) for ow in range(OW)):
        raise ShapeError(f"padding: {window.padding} leaves a pooling window without any pixel of the image")
    return OH, OW


def check_linear(x: Array, w: Array, b: Array | None) -> tuple[int, int]:
    """Validate a fully connected layer's arguments; returns the shape of y, (N, out)."""
    _check_dtype("x", x)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ShapeError(f"x, w: shapes {x.shape}, {w.shape} are not (N, in), (out, in)")
    _check_same("w", w, w.shape, x.dtype)
    if b is not None:
        _check_same("b", b, (w.shape[0],), x.dtype)
    return x.shape[0], w.shape[0]


def check_labels(scores: Array, labels: Array) -> None:
    """Validate scores (N, K) and labels (N) with every label in [0, K)."""
    _check_dtype("scores", scores)
    if scores.ndim != 2 or scores.shape[1] < 1 or labels.shape != scores.shape[:1]:
        raise ShapeError(f"scores, labels: shapes {scores.shape}, {labels.shape} are not (N, K), (N), K >= 1")
    check_label_values(labels, scores.shape[1])


def check_label_values(labels: Array, classes: int) -> None:
    """Validate labels as integers in [0, classes)."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise DtypeError(f"labels: {labels.dtype} is not an integer type")
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ShapeError(f"labels: values {labels.min()}..{labels.max()} do not fit the {classes} classes")


def _check_dtype(field: str, array: Array) -> None:
    if array.dtype not in DTYPES:
        raise DtypeError(f"{field}: dtype {array.dtype} is neither float32 nor float64")


def _check_same(field: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if array.shape != shape:
        raise ShapeError(f"{field}: shape {array.shape} where {shape} is needed")
    if array.dtype != dtype:
        raise DtypeError(f"{field}: dtype {array.dtype} where the other arrays have {dtype}")


def _check_index(index: Array | None, shape: tuple[int, ...], window: Window) -> None:
    if index is None or index.shape != shape or index.dtype != np.int32:
        found = "None" if index is None else f"{index.dtype} {index.shape}"
        raise ShapeError(f"index: {found} where int32 {shape} is needed")
    taps = window.kernel[0] * window.kernel[1]
    if index.size and not (index.min() >= 0 and index.max() < taps):
        raise ShapeError(
            f"index: values {index.min()}..{index.max()} do not fit the {taps} taps of the window"
        )


def _check_update(w: Array, *others: Array) -> None:
    _check_dtype("w", w)
    for array in (w, *others):
        _check_same("w, dw and slots", array, w.shape, w.dtype)
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ShapeError("w, dw and slots: an update works in place on aligned C-contiguous arrays")
