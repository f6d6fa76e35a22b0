"""Deep Learning from Scratch's functions: activations, softmax and losses, on numpy arrays.

Labels are class numbers (N) or one-hot rows (N,K), as in the book. NaN stays NaN.
"""

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.engine import as_floats, get_backend

__all__ = [
    "cross_entropy_error",
    "identity_function",
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


def identity_function(x: Array) -> Array:
    """x."""
    return x


def step_function(x: Array) -> Array:
    """1 where x > 0, 0 elsewhere, as integers."""
    return np.array(x > 0, int)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow."""
    (x,) = as_floats(x)
    return get_backend("im2col").activation_forward(x, "sigmoid")


def sigmoid_grad(x: Array) -> Array:
    """sigmoid(x) (1 - sigmoid(x))."""
    y = sigmoid(x)
    return (1 - y) * y


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu_grad(x: Array) -> Array:
    """1 where x >= 0, 0 elsewhere: 1 at the kink itself, unlike the Relu layer, as in the book."""
    return np.asarray(x >= 0).astype(as_floats(x)[0].dtype)


def softmax(x: Array) -> Array:
    """e^x / sum of e^x over the last axis. Shapes: x (..., K) -> as x."""
    (x,) = as_floats(x)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y: Array = e / e.sum(axis=-1, keepdims=True)
    return y


def sum_squared_error(y: Array, t: Array) -> float:
    """0.5 times the sum of (y - t)^2, over all elements."""
    return 0.5 * float(np.square(y - t).sum())


mean_squared_error = sum_squared_error
"""The first edition's name for the same sum."""


def cross_entropy_error(y: Array, t: Array) -> float:
    """Mean over n of -log(y[n,t[n]] + 1e-7), in nats.

    Shapes: y (N,K) or (K) probabilities, t (N) class numbers or one-hot as y.
    """
    y = np.atleast_2d(y)
    labels = find_labels(y, t)
    return float(-np.log(y[np.arange(len(y)), labels] + 1e-7).mean())


def softmax_loss(X: Array, t: Array) -> float:
    """cross_entropy_error(softmax(X), t)."""
    return cross_entropy_error(softmax(X), t)


def find_labels(y: Array, t: Array) -> Array:
    """Class numbers (N) of labels that may be one-hot rows, as many elements as y (N,K) has."""
    t = np.asarray(t)
    labels: Array = t.reshape(y.shape).argmax(axis=1) if t.size == y.size else t.reshape(len(y))
    return labels
