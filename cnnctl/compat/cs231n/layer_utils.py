"""cs231n's sandwiches: layers that often stand together, as one forward and one backward.

Convolution with ReLU, and with a pool behind it, is one fused operation of the engine; the others
are the single layers in turn. Their caches are not the course's tuples of caches.
"""

from typing import Any

from cnnctl.backends.specs import Array, Pool, Sandwich
from cnnctl.compat.cs231n.fast_layers import conv_backward_fast, conv_forward_fast
from cnnctl.compat.cs231n.layers import (
    affine_backward,
    affine_forward,
    relu_backward,
    relu_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
)
from cnnctl.compat.cs231n.operations import Cache, Gradients, Param, find_conv_window, find_pool_window
from cnnctl.compat.engine import as_floats, get_backend

__all__ = [
    "affine_relu_backward",
    "affine_relu_forward",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
]


def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """out = max(x w + b, 0). Shapes: x (N,d1,...,dk), w (D,M), b (M) -> out (N,M)."""
    scores, affine_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(scores)
    return out, (affine_cache, relu_cache)


def affine_relu_backward(dout: Array, cache: Cache) -> Gradients:
    """(dx, dw, db)."""
    affine_cache, relu_cache = cache
    return affine_backward(relu_backward(dout, relu_cache), affine_cache)


def conv_relu_forward(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """out = max(conv(x, w) + b, 0). Shapes: as `conv_forward_fast`."""
    return _run_sandwich(x, w, b, Sandwich(find_conv_window(w, conv_param), activation="relu"))


def conv_relu_backward(dout: Array, cache: Cache) -> Gradients:
    """(dx, dw, db)."""
    return conv_relu_pool_backward(dout, cache)


def conv_relu_pool_forward(
    x: Array, w: Array, b: Array, conv_param: Param, pool_param: Param
) -> tuple[Array, Cache]:
    """out = maxpool(max(conv(x, w) + b, 0)). Shapes: as `conv_forward_fast`, then a max pool."""
    pool = Pool("max", find_pool_window(pool_param))
    return _run_sandwich(x, w, b, Sandwich(find_conv_window(w, conv_param), activation="relu", pool=pool))


def conv_relu_pool_backward(dout: Array, cache: Cache) -> Gradients:
    """(dx, dw, db)."""
    x, w, sandwich, outputs = cache
    dout, x, w = as_floats(dout, x, w)
    gradients = get_backend("fast").conv_sandwich_backward(dout, x, w, outputs, sandwich)
    assert gradients.dx is not None
    return gradients.dx, gradients.dw, gradients.db


def _run_sandwich(x: Array, w: Array, b: Array, sandwich: Sandwich) -> tuple[Array, Cache]:
    x, w, b = as_floats(x, w, b)
    outputs = get_backend("fast").conv_sandwich_forward(x, w, b, sandwich)
    return outputs.y, (x, w, sandwich, outputs)


def conv_bn_relu_forward(
    x: Array,
    w: Array,
    b: Array,
    gamma: Array,
    beta: Array,
    conv_param: Param,
    bn_param: dict[str, Any],
) -> tuple[Array, Cache]:
    """out = max(batchnorm(conv(x, w) + b), 0). Shapes: as `conv_forward_fast`; gamma, beta (F)."""
    z, conv_cache = conv_forward_fast(x, w, b, conv_param)
    normalized, bn_cache = spatial_batchnorm_forward(z, gamma, beta, bn_param)
    out, relu_cache = relu_forward(normalized)
    return out, (conv_cache, bn_cache, relu_cache)


def conv_bn_relu_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array]:
    """(dx, dw, db, dgamma, dbeta)."""
    conv_cache, bn_cache, relu_cache = cache
    dz, dgamma, dbeta = spatial_batchnorm_backward(relu_backward(dout, relu_cache), bn_cache)
    return *conv_backward_fast(dz, conv_cache), dgamma, dbeta
