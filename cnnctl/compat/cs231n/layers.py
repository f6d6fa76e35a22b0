"""The layers of cs231n's assignment 2, naive ones included: thing_forward -> (out, cache), thing_backward.

Signatures, parameter dicts and array layouts are the course's: images (N,C,H,W), filters
(F,C,HH,WW), fully connected weights (D,M). Caches of convolution and pooling are its too:
(x, w, b, conv_param) and (x, pool_param), so that a backward of one's own can follow. Arrays may
be float32, float64 or integers; results are float64 unless all arrays are float32. Inputs are
not changed, except for the running statistics that belong in `bn_param`.
"""

from typing import Any

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.cs231n.operations import (
    Cache,
    Gradients,
    Param,
    convolve,
    convolve_backward,
    get_setting,
    pool_max,
    pool_max_backward,
)
from cnnctl.compat.engine import as_floats, get_backend
from cnnctl.errors import ConfigError, describe_alternatives

__all__ = [
    "affine_backward",
    "affine_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "conv_backward_naive",
    "conv_forward_naive",
    "dropout_backward",
    "dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "max_pool_backward_naive",
    "max_pool_forward_naive",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
    "svm_loss",
]

# Convolution and pooling, as on the blackboard


def conv_forward_naive(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """out[n,f] = b[f] + sum over c of w[f,c] cross-correlated with x[n,c], zero-padded by `pad`.

    Shapes: x (N,C,H,W), w (F,C,HH,WW), b (F) -> out (N,F,H',W'), H' = 1 + (H + 2 pad - HH) // stride.
    Raises ShapeError where they do not fit, ConfigError without stride or pad.
    Source: cs231n, assignment 2, computed by `cnnctl.backends.naive`.
    """
    return convolve("naive", x, w, b, conv_param)


def conv_backward_naive(dout: Array, cache: Cache) -> Gradients:
    """(dx, dw, db), shaped as x, w, b, given the cache of any convolution here."""
    return convolve_backward("naive", dout, cache)


def max_pool_forward_naive(x: Array, pool_param: Param) -> tuple[Array, Cache]:
    """out[n,c,i,j] = the maximum of x[n,c] under window (i, j).

    Shapes: x (N,C,H,W) -> out (N,C,H',W'), H' = 1 + (H - pool_height) // stride.
    Raises ShapeError where the window does not fit, ConfigError for what pool_param lacks.
    Source: cs231n, assignment 2, computed by `cnnctl.backends.naive`.
    """
    out, cache = pool_max("naive", x, pool_param)
    return out, cache[:2]


def max_pool_backward_naive(dout: Array, cache: Cache) -> Array:
    """dx: each dout goes to the first maximum of its window, given the cache of any pooling here."""
    return pool_max_backward("naive", dout, cache)


# Fully connected, activation, dropout


def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """out = x w + b, each x flattened. Shapes: x (N,d1,...,dk), w (D,M), b (M) -> out (N,M).

    The matmul is numpy's: the engine has w transposed, and would copy it there and back.
    """
    rows, weights, bias = as_floats(x, w, b)
    return rows.reshape(len(rows), -1) @ weights + bias, (x, w, b)


def affine_backward(dout: Array, cache: Cache) -> Gradients:
    """dx = dout w^T, shaped as x; dw = x^T dout; db = sum over n of dout."""
    x, w, _ = cache
    dout, rows, weights = as_floats(dout, x, w)
    return (dout @ weights.T).reshape(x.shape), rows.reshape(len(rows), -1).T @ dout, dout.sum(axis=0)


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """out = max(x, 0), on any shape; the cache is x."""
    (values,) = as_floats(x)
    return get_backend("im2col").activation_forward(values, "relu"), x


def relu_backward(dout: Array, cache: Cache) -> Array:
    """dx = dout where x > 0, 0 elsewhere."""
    dout, x = as_floats(dout, cache)
    return get_backend("im2col").activation_backward(dout, x, x, "relu")  # x > 0 just where out > 0


def dropout_forward(x: Array, dropout_param: Param) -> tuple[Array, Cache]:
    """Inverted dropout: in mode "train" x / p with probability p, 0 otherwise; in mode "test" x.

    Args:
        dropout_param: p, the probability of keeping an element; mode; and seed, if numpy's global
            generator, which draws the mask, is to be seeded first.

    Raises ConfigError for p outside (0, 1] and for another mode. Source: Srivastava et al. 2014.
    """
    p = get_setting(dropout_param, "p")
    if not 0 < p <= 1:
        raise ConfigError(f"p: {p!r} is not a probability of keeping in (0, 1]")
    if "seed" in dropout_param:
        np.random.seed(dropout_param["seed"])
    (x,) = as_floats(x)
    mask: Array | None = None
    out = x
    if _is_training(dropout_param):
        mask = ((np.random.rand(*x.shape) < p) / p).astype(x.dtype)
        out = x * mask
    return out, (dropout_param, mask)


def dropout_backward(dout: Array, cache: Cache) -> Array:
    """dx = dout times the mask, already divided by p; dout itself in mode "test"."""
    _, mask = cache
    dx: Array = dout if mask is None else dout * mask
    return dx


# Normalisation


def batchnorm_forward(x: Array, gamma: Array, beta: Array, bn_param: dict[str, Any]) -> tuple[Array, Cache]:
    """out = gamma (x - mean) / sqrt(var + eps) + beta, each column or channel by itself.

    In mode "train" mean and (biased) variance are the batch's, and running_mean and running_var in
    `bn_param` become momentum running + (1 - momentum) batch; mode "test" takes those instead, and
    leaves no cache.

    Args:
        bn_param: mode; eps, 1e-5; momentum, 0.9; running_mean, running_var, zeros at first.

    Shapes: x (N,D) or (N,C,H,W), gamma and beta (D) or (C) -> out as x.
    Raises ConfigError for another mode, ShapeError for other shapes.
    Source: Ioffe, Szegedy 2015; statistics as in cs231n, assignment 2.
    """
    x, gamma, beta = as_floats(x, gamma, beta)
    eps, momentum = bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    for key in ("running_mean", "running_var"):
        bn_param.setdefault(key, np.zeros(gamma.shape, x.dtype))
    running_mean, running_var = (np.asarray(bn_param[f"running_{key}"], x.dtype) for key in ("mean", "var"))
    backend = get_backend("im2col")
    if not _is_training(bn_param):
        return backend.batchnorm_inference(x, gamma, beta, running_mean, running_var, eps), None
    out, mean, var = backend.batchnorm_forward(x, gamma, beta, eps)
    bn_param["running_mean"] = momentum * running_mean + (1 - momentum) * mean
    bn_param["running_var"] = momentum * running_var + (1 - momentum) * var
    return out, (x, gamma, mean, var, eps)


def batchnorm_backward(dout: Array, cache: Cache) -> Gradients:
    """(dx, dgamma, dbeta), shaped as x, gamma, beta, through the batch's mean and variance as well."""
    x, gamma, mean, var, eps = cache
    dout, x, gamma, mean, var = as_floats(dout, x, gamma, mean, var)
    return get_backend("im2col").batchnorm_backward(dout, x, gamma, mean, var, eps)


batchnorm_backward_alt = batchnorm_backward
"""The course asks for the simplified formula a second time; the engine's is that one."""

spatial_batchnorm_forward, spatial_batchnorm_backward = batchnorm_forward, batchnorm_backward
"""The same for images (N,C,H,W): statistics over N, H and W, gamma and beta (C)."""


def layernorm_forward(x: Array, gamma: Array, beta: Array, ln_param: Param) -> tuple[Array, Cache]:
    """out = gamma (x - mean) / sqrt(var + eps) + beta, mean and biased variance of each row.

    Shapes: x (N,D), gamma and beta (D) -> out (N,D); ln_param has eps, 1e-5.
    Source: Ba, Kiros, Hinton 2016.
    """
    return _normalize_groups(x, gamma, beta, 1, ln_param)


def layernorm_backward(dout: Array, cache: Cache) -> Gradients:
    """(dx, dgamma, dbeta), shaped as x, gamma, beta."""
    return _normalize_groups_backward(dout, cache)


def spatial_groupnorm_forward(
    x: Array, gamma: Array, beta: Array, G: int, gn_param: Param
) -> tuple[Array, Cache]:
    """out = gamma (x - mean) / sqrt(var + eps) + beta, mean and variance of each image and group.

    The channels fall into G groups of C/G neighbours, whose values in an image are C/G H W numbers.
    Shapes: x (N,C,H,W), gamma and beta (1,C,1,1) or (C) -> out as x; gn_param has eps, 1e-5.
    Raises ConfigError when G does not divide C. Source: Wu, He 2018.
    """
    return _normalize_groups(x, gamma, beta, G, gn_param)


def spatial_groupnorm_backward(dout: Array, cache: Cache) -> Gradients:
    """(dx, dgamma, dbeta), shaped as x, gamma, beta."""
    return _normalize_groups_backward(dout, cache)


def _normalize_groups(x: Array, gamma: Array, beta: Array, G: int, param: Param) -> tuple[Array, Cache]:
    """Layer norm is group norm with one group; gamma and beta may be spread over an image's axes."""
    x, gamma, beta = as_floats(x, gamma, beta)
    if G < 1 or x.shape[1] % G:
        raise ConfigError(f"G: {G} groups do not divide the {x.shape[1]} channels of x")
    groups, eps = int(G), param.get("eps", 1e-5)
    out, mean, var = get_backend("im2col").groupnorm_forward(x, gamma.ravel(), beta.ravel(), groups, eps)
    return out, (x, gamma, mean, var, groups, eps)


def _normalize_groups_backward(dout: Array, cache: Cache) -> Gradients:
    x, gamma, mean, var, groups, eps = cache
    dout, x, gamma, mean, var = as_floats(dout, x, gamma, mean, var)
    backend = get_backend("im2col")
    dx, dgamma, dbeta = backend.groupnorm_backward(dout, x, gamma.ravel(), mean, var, groups, eps)
    return dx, dgamma.reshape(gamma.shape), dbeta.reshape(gamma.shape)


def _is_training(param: Param) -> bool:
    mode = get_setting(param, "mode")
    if mode not in {"train", "test"}:
        raise ConfigError(f"mode: {mode!r} is not known; {describe_alternatives(mode, ['train', 'test'])}")
    return bool(mode == "train")


# Losses: the mean over the images, and its gradient


def svm_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Multi-class hinge: mean over n of the sum over k != y[n] of max(0, x[n,k] - x[n,y[n]] + 1).

    Shapes: x (N,K) scores, y (N) labels in [0, K) -> loss, dx (N,K).
    Source: Weston, Watkins 1999, as in cs231n.
    """
    (x,) = as_floats(x)
    backend = get_backend("im2col")
    return backend.hinge_forward(x, y), backend.hinge_backward(x, y)


def softmax_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Mean over n of -log softmax(x[n])[y[n]], in nats.

    Shapes: x (N,K) scores, y (N) labels in [0, K) -> loss, dx (N,K). Raises ShapeError or DtypeError
    for others. Source: Goodfellow et al. 2016, section 6.2.2.3.
    """
    (x,) = as_floats(x)
    backend = get_backend("im2col")
    loss, p = backend.softmax_cross_entropy_forward(x, y)
    return loss, backend.softmax_cross_entropy_backward(p, y)
