"""Convolution and pooling by the C kernels, under cs231n's names for its fast ones.

The course has an algorithm behind each of `_strides`, `_reshape` and `_im2col`. The first two are
other names for the kernels here, the last is numpy's way. Any window and stride is accepted, and
float32 stays float32.
"""

from cnnctl.backends.specs import Array
from cnnctl.compat.cs231n.operations import (
    Cache,
    Gradients,
    Param,
    convolve,
    convolve_backward,
    pool_max,
    pool_max_backward,
)

__all__ = [
    "conv_backward_fast",
    "conv_backward_im2col",
    "conv_backward_strides",
    "conv_forward_fast",
    "conv_forward_im2col",
    "conv_forward_strides",
    "max_pool_backward_fast",
    "max_pool_backward_im2col",
    "max_pool_backward_reshape",
    "max_pool_forward_fast",
    "max_pool_forward_im2col",
    "max_pool_forward_reshape",
]


def conv_forward_fast(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """What `conv_forward_naive` computes, with its cache. Raises BackendError without kernels."""
    return convolve("fast", x, w, b, conv_param)


def conv_backward_fast(dout: Array, cache: Cache) -> Gradients:
    """(dx, dw, db), given the cache of any convolution."""
    return convolve_backward("fast", dout, cache)


def conv_forward_im2col(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """The same by columns and one matmul an image."""
    return convolve("im2col", x, w, b, conv_param)


def conv_backward_im2col(dout: Array, cache: Cache) -> Gradients:
    """(dx, dw, db), given the cache of any convolution."""
    return convolve_backward("im2col", dout, cache)


def max_pool_forward_fast(x: Array, pool_param: Param) -> tuple[Array, Cache]:
    """What `max_pool_forward_naive` computes; its cache, and behind it the winners of the windows."""
    return pool_max("fast", x, pool_param)


def max_pool_backward_fast(dout: Array, cache: Cache) -> Array:
    """dx, given the cache of any pooling. Of equal maxima the first gets the gradient."""
    return pool_max_backward("fast", dout, cache)


def max_pool_forward_im2col(x: Array, pool_param: Param) -> tuple[Array, Cache]:
    """The same by numpy."""
    return pool_max("im2col", x, pool_param)


def max_pool_backward_im2col(dout: Array, cache: Cache) -> Array:
    """dx, given the cache of any pooling."""
    return pool_max_backward("im2col", dout, cache)


conv_forward_strides, conv_backward_strides = conv_forward_fast, conv_backward_fast
max_pool_forward_reshape, max_pool_backward_reshape = max_pool_forward_fast, max_pool_backward_fast
