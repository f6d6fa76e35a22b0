"""Convolution and max pooling in cs231n's terms, by whichever backend is named.

Reads conv_param and pool_param and speaks in the course's caches; everything else is the backend's.
Knows no dilation and no groups: for those there is `cnnctl.nn`.
"""

from collections.abc import Mapping
from typing import Any

from cnnctl.backends.specs import Array
from cnnctl.compat.engine import as_floats, create_window, get_backend
from cnnctl.errors import ConfigError
from cnnctl.geometry import Window

Param = Mapping[str, Any]
"""conv_param, pool_param and the like."""
Cache = Any
"""What a forward leaves for its backward."""
Gradients = tuple[Array, Array, Array]


def get_setting(param: Param, key: str) -> Any:
    """A setting that has to be there. Raises ConfigError, naming those that are, if it is not."""
    if key not in param:
        raise ConfigError(f"{key}: is missing; given: {', '.join(map(str, param)) or 'nothing'}")
    return param[key]


def find_conv_window(w: Array, conv_param: Param) -> Window:
    """The window of filters (F,C,HH,WW) with conv_param's stride and pad."""
    HH, WW = w.shape[2:]
    return create_window((HH, WW), get_setting(conv_param, "stride"), get_setting(conv_param, "pad"))


def find_pool_window(pool_param: Param) -> Window:
    """The window of pool_param: pool_height, pool_width and stride."""
    height, width, stride = (get_setting(pool_param, key) for key in ("pool_height", "pool_width", "stride"))
    return create_window((height, width), stride)


def convolve(name: str, x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """out and the course's cache, the four arguments themselves."""
    window = find_conv_window(w, conv_param)
    images, filters, bias = as_floats(x, w, b)
    return get_backend(name).conv_forward(images, filters, bias, window), (x, w, b, conv_param)


def convolve_backward(name: str, dout: Array, cache: Cache) -> Gradients:
    """(dx, dw, db), given `convolve`'s cache, whichever backend left it."""
    x, w, _, conv_param = cache
    dout, x, w = as_floats(dout, x, w)
    dx, dw, db = get_backend(name).conv_backward(dout, x, w, find_conv_window(w, conv_param))
    assert dx is not None
    return dx, dw, db


def pool_max(name: str, x: Array, pool_param: Param) -> tuple[Array, Cache]:
    """out and a cache: the course's (x, pool_param), and behind them the winners."""
    (images,) = as_floats(x)
    out, index = get_backend(name).maxpool_forward(images, find_pool_window(pool_param))
    return out, (x, pool_param, index)


def pool_max_backward(name: str, dout: Array, cache: Cache) -> Array:
    """dx, given `pool_max`'s cache; where it lacks the winners, they are found once more."""
    x, pool_param, *winners = cache
    window = find_pool_window(pool_param)
    dout, images = as_floats(dout, x)
    index = winners[0] if winners else get_backend(name).maxpool_forward(images, window)[1]
    return get_backend(name).maxpool_backward(dout, index, images.shape, window)
