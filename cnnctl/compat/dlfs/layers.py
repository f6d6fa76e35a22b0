"""Deep Learning from Scratch's layers: forward(x) -> out, backward(dout) -> dx, gradients as attributes.

Images are (N,C,H,W), filters (F,C,FH,FW), fully connected weights (in, out). A layer keeps the very
arrays it is given, so that an optimizer may change them in place; `W`, `b` and the like may be set
anew. Convolution and pooling are the engine's C kernels and keep no columns. Arrays of unlike dtypes
are computed with in float64.
"""

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.dlfs.functions import (
    cross_entropy_error,
    find_labels,
    identity_function,
    mean_squared_error,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from cnnctl.compat.dlfs.util import col2im, im2col
from cnnctl.compat.engine import as_floats, create_window, get_backend
from cnnctl.geometry import Window

__all__ = [
    "Affine",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Pooling",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "col2im",
    "cross_entropy_error",
    "identity_function",
    "im2col",
    "mean_squared_error",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

BATCHNORM_EPS = 1e-6


class Relu:
    """max(x, 0). Shapes: any."""

    def forward(self, x: Array) -> Array:
        (x,) = as_floats(x)
        self.mask = x <= 0
        return get_backend("im2col").activation_forward(x, "relu")

    def backward(self, dout: Array) -> Array:
        """dout where x > 0, 0 elsewhere."""
        return np.where(self.mask, 0, dout)


class Sigmoid:
    """1 / (1 + e^-x). Shapes: any."""

    def forward(self, x: Array) -> Array:
        self.out = sigmoid(x)
        return self.out

    def backward(self, dout: Array) -> Array:
        """dout y (1 - y)."""
        dout, y = as_floats(dout, self.out)
        return get_backend("im2col").activation_backward(dout, y, y, "sigmoid")


class Affine:
    """x W + b, each x flattened. Shapes: x (N,...), W (in, out), b (out) -> (N, out).

    Attributes:
        dW, db: after `backward`.
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: Array) -> Array:
        self.original_x_shape = x.shape
        self.x = x.reshape(len(x), -1)
        out: Array = self.x @ self.W + self.b
        return out

    def backward(self, dout: Array) -> Array:
        """dout W^T, shaped as x; sets dW = x^T dout and db = sum over n of dout."""
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        dx: Array = (dout @ self.W.T).reshape(self.original_x_shape)
        return dx


class SoftmaxWithLoss:
    """Softmax and cross-entropy: mean over n of -log softmax(x[n])[t[n]], in nats.

    Shapes: x (N,K) or (K), t class numbers (N) or one-hot as x. The book adds 1e-7 inside the
    logarithm; here none is needed. Raises ShapeError or DtypeError for labels that do not fit.

    Attributes:
        loss, y, t: of the last `forward`; y = softmax(x).
    """

    def forward(self, x: Array, t: Array) -> float:
        (x,) = as_floats(np.atleast_2d(x))
        self.t = t
        self.loss, self.y = get_backend("im2col").softmax_cross_entropy_forward(x, find_labels(x, t))
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        """dout (y - onehot(t)) / N."""
        labels = find_labels(self.y, self.t)
        return dout * get_backend("im2col").softmax_cross_entropy_backward(self.y, labels)


class Dropout:
    """While training x or, with probability `dropout_ratio`, 0; otherwise x (1 - dropout_ratio).

    The mask is drawn by numpy's global generator, anew in every pass. Source: Srivastava et al. 2014.
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self.mask: Array | None = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        if not train_flg:
            return x * (1 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio
        return x * self.mask

    def backward(self, dout: Array) -> Array:
        """dout where the last training pass kept x, 0 elsewhere."""
        dx: Array = dout * self.mask
        return dx


class BatchNormalization:
    """gamma (x - mean) / sqrt(var + 1e-6) + beta, each element of an image by itself.

    While training mean and (biased) variance are the batch's and the running ones become
    momentum running + (1 - momentum) batch; otherwise those are taken. Shapes: x (N,D), or
    (N,C,H,W) with D = C H W, as in the book, where a channel's pixels do not share statistics.
    Source: Ioffe, Szegedy 2015.

    Attributes:
        running_mean, running_var: (D); zeros at the first pass unless given.
        dgamma, dbeta: after `backward`.
    """

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
    ) -> None:
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        self.input_shape = x.shape
        D = x[:1].size
        gamma, beta = (np.broadcast_to(array, (D,)) for array in (self.gamma, self.beta))
        x, gamma, beta = as_floats(x.reshape(len(x), D), gamma, beta)
        if self.running_mean is None or self.running_var is None:
            self.running_mean, self.running_var = np.zeros(D, x.dtype), np.zeros(D, x.dtype)
        backend = get_backend("im2col")
        if train_flg:
            out, mean, var = backend.batchnorm_forward(x, gamma, beta, BATCHNORM_EPS)
            self._saved = x, gamma, mean, var
            self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mean
            self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        else:
            mean, var = (np.asarray(array, x.dtype) for array in (self.running_mean, self.running_var))
            out = backend.batchnorm_inference(x, gamma, beta, mean, var, BATCHNORM_EPS)
        return out.reshape(self.input_shape)

    def backward(self, dout: Array) -> Array:
        """dx, through the batch's mean and variance as well; sets dgamma and dbeta, (D)."""
        x, gamma, mean, var = self._saved
        dout, x, gamma, mean, var = as_floats(dout.reshape(x.shape), x, gamma, mean, var)
        dx, self.dgamma, self.dbeta = get_backend("im2col").batchnorm_backward(
            dout, x, gamma, mean, var, BATCHNORM_EPS
        )
        return dx.reshape(self.input_shape)


class Convolution:
    """Cross-correlation: y[n,f] = b[f] + sum over c of W[f,c] with x[n,c], zero-padded by `pad`.

    Shapes: x (N,C,H,W), W (F,C,FH,FW), b (F) -> (N,F,OH,OW), OH = 1 + (H + 2 pad - FH) // stride.
    Raises ShapeError where they do not fit, BackendError without kernels.

    Attributes:
        dW, db: after `backward`.
    """

    def __init__(self, W: Array, b: Array, stride: int = 1, pad: int = 0) -> None:
        self.W, self.b, self.stride, self.pad = W, b, stride, pad
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: Array) -> Array:
        self.x = x
        x, W, b = as_floats(x, self.W, self.b)
        return get_backend("fast").conv_forward(x, W, b, self._find_window())

    def backward(self, dout: Array) -> Array:
        """dx; sets dW and db."""
        dout, x, W = as_floats(dout, self.x, self.W)
        dx, self.dW, self.db = get_backend("fast").conv_backward(dout, x, W, self._find_window())
        assert dx is not None
        return dx

    def _find_window(self) -> Window:
        FH, FW = self.W.shape[2:]
        return create_window((FH, FW), self.stride, self.pad)


class Pooling:
    """The maximum of every window; padding never wins one.

    Shapes: x (N,C,H,W) -> (N,C,OH,OW), OH = 1 + (H + 2 pad - pool_h) // stride.
    Raises ShapeError where the window does not fit, BackendError without kernels.

    Attributes:
        arg_max: (N,C,OH,OW) int32, kh * pool_w + kw of each window's first maximum.
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 1, pad: int = 0) -> None:
        self.pool_h, self.pool_w, self.stride, self.pad = pool_h, pool_w, stride, pad
        self._window = create_window((pool_h, pool_w), stride, pad)
        self.arg_max: Array | None = None

    def forward(self, x: Array) -> Array:
        (self.x,) = as_floats(x)
        out, self.arg_max = get_backend("fast").maxpool_forward(self.x, self._window)
        return out

    def backward(self, dout: Array) -> Array:
        """dx: each dout goes to the pixel that won."""
        assert self.arg_max is not None
        (dout,) = as_floats(dout)
        N, C, H, W = self.x.shape
        return get_backend("fast").maxpool_backward(dout, self.arg_max, (N, C, H, W), self._window)
