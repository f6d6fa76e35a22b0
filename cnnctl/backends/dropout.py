"""Dropout's mask: which elements or channels stay, from a seed and their positions alone.

Written here for numpy and once more in C; both draw the same bits. Keeps no generator and
no state.
"""

from math import prod

import numpy as np

from cnnctl.backends.specs import Array, mix_seed


def drop_elements(x: Array, rate: float, seed: int, spatial: bool = False) -> Array:
    """x / (1 - rate) where the mask keeps it, 0 elsewhere; with `spatial` the mask is that of channels."""
    scale = x.dtype.type(1 / (1 - rate))
    kept = draw_mask(x.shape[:2] if spatial else x.shape, rate, seed)
    return np.where(kept.reshape(*kept.shape, *(x.ndim - kept.ndim) * (1,)), x * scale, 0)


def draw_mask(shape: tuple[int, ...], rate: float, seed: int) -> Array:
    """True where an element of images (N,C,H,W) or vectors (N,D), or a channel of (N,C), stays.

    Elements are counted in the order n, h, w, c, modulo 2^32. Number i stays where
    mix(mix(i + low) ^ high) >= floor(rate 2^32), in 32-bit arithmetic; low and high are the
    halves of `mix_seed(seed, 0)`, and mix is Wellons' lowbias32 (2018).
    """
    N, C, *size = shape
    key, threshold = mix_seed(seed, 0), int(rate * 2**32)
    numbers = np.arange(prod(shape)).astype(np.uint32).reshape(N, *size, C)
    hashes = _mix(_mix(numbers + np.uint32(key % 2**32)) ^ np.uint32(key >> 32))
    kept: Array = np.moveaxis(hashes >= np.uint32(threshold), -1, 1)
    return kept


def _mix(h: Array) -> Array:
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x7FEB352D)
    h = (h ^ h >> np.uint32(15)) * np.uint32(0x846CA68B)
    mixed: Array = h ^ h >> np.uint32(16)
    return mixed
