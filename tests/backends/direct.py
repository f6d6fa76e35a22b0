"""The truth that backends are held against: definitions, spelt out in loops over Python floats.

Knows neither a backend nor `geometry`'s tap positions, so that an error of theirs cannot
hide here. Sums carry the sum of their terms' magnitudes with them, which is what a bound
on rounding needs (Higham 2002, section 3.1).

A `fill` is what arrays are drawn from: "integers" (small ones, so that every sum is
exact), or normals that fit "float32" or "float64".
"""

import zlib
from functools import cache
from itertools import product
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.geometry import Window
from tests.hostile_shapes import ConvCase, LinearCase, PoolCase


class Sum(NamedTuple):
    """An array of sums, each of at most `terms` products, in float64."""

    value: Array
    magnitude: Array
    terms: int


class ConvTruth(NamedTuple):
    x: Array
    w: Array
    b: Array
    dy: Array
    y: Sum
    dx: Sum
    dw: Sum
    db: Sum


class PoolTruth(NamedTuple):
    x: Array
    dy: Array
    y: Array
    index: Array  # type: ignore[assignment]  # tuples have a method of that name
    dx: Sum


def assert_exact(actual: Array, truth: Sum, dtype: str) -> None:
    """Equal to the last bit: every partial sum is an integer that `dtype` can hold."""
    assert actual.dtype == dtype
    assert actual.shape == truth.value.shape
    assert truth.magnitude.max(initial=0) < 2**24
    np.testing.assert_array_equal(actual, truth.value)
    reached = np.count_nonzero(truth.magnitude)
    assert np.count_nonzero(actual) >= 0.3 * reached, "mostly zeros: this case shows nothing"


def assert_rounded(actual: Array, truth: Sum, dtype: str) -> None:
    """Within gamma_K times the sum of magnitudes, in whatever order the K terms were added.

    The second gamma is the rounding of the truth itself.
    """
    assert actual.dtype == dtype
    assert actual.shape == truth.value.shape
    bound = (compute_gamma(truth.terms, dtype) + compute_gamma(truth.terms, "float64")) * truth.magnitude
    np.testing.assert_array_less(np.abs(actual - truth.value), np.nextafter(bound, np.inf))
    reached = np.count_nonzero(truth.magnitude)
    assert np.count_nonzero(np.abs(actual) > bound) >= 0.9 * reached, "zeros would pass as well"


def compute_gamma(terms: int, dtype: str) -> float:
    """gamma_K = K u / (1 - K u), u the unit roundoff of `dtype`."""
    ku = terms * float(np.finfo(dtype).eps) / 2
    return ku / (1 - ku)


def draw(rng: np.random.Generator, shape: tuple[int, ...], fill: str) -> Array:
    """A read-only float64 array of small nonzero integers, or of normals.

    The integers lean to the positive side, so that few sums cancel to 0 by chance.
    """
    if fill == "integers":
        array = rng.choice([-2.0, -1.0, 1.0, 2.0, 3.0, 4.0], shape)
    else:
        array = rng.standard_normal(shape).astype(fill).astype(np.float64)
    array.flags.writeable = False
    return array


def create_rng(name: str) -> np.random.Generator:
    """A case's own random numbers, the same for every backend."""
    return np.random.default_rng(zlib.crc32(name.encode()))


@cache
def compute_conv(case: ConvCase, fill: str) -> ConvTruth:
    """Inputs drawn for a case, and what convolution makes of them."""
    N, C, H, W = case.x_shape
    rng = create_rng(case.name)
    x = draw(rng, case.x_shape, fill)
    w = draw(rng, (case.F, C // case.groups, *case.window.kernel), fill)
    b = draw(rng, (case.F,), fill)
    dy = draw(rng, (N, case.F, *case.window.output_size(H, W)), fill)
    return ConvTruth(x, w, b, dy, *sum_conv(x, w, b, dy, case.window, case.groups))


def sum_conv(
    x: Array, w: Array, b: Array, dy: Array, window: Window, groups: int
) -> tuple[Sum, Sum, Sum, Sum]:
    """y, dx, dw, db as sums."""
    values = convolve(x, w, b, dy, window, groups)
    magnitudes = convolve(np.abs(x), np.abs(w), np.abs(b), np.abs(dy), window, groups)
    taps = w.shape[2] * w.shape[3]
    pixels = dy[:, 0].size
    terms = (w.shape[1] * taps + 1, len(w) // groups * taps, pixels, pixels)
    y, dx, dw, db = map(Sum, values, magnitudes, terms)
    return y, dx, dw, db


def convolve(x: Array, w: Array, b: Array, dy: Array, window: Window, groups: int) -> tuple[Array, ...]:
    """y and, for L = sum of y * dy, dL/dx, dL/dw, dL/db: the seven loops."""
    _, _, H, W = x.shape
    F, channels, KH, KW = w.shape
    (top, _), (left, _) = window.padding
    y = np.zeros(dy.shape)
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(b.shape)
    for n, f, oh, ow in product(*map(range, dy.shape)):
        y[n, f, oh, ow] += b[f]
        db[f] += dy[n, f, oh, ow]
        for c, kh, kw in product(range(channels), range(KH), range(KW)):
            ih = oh * window.stride[0] - top + kh * window.dilation[0]
            iw = ow * window.stride[1] - left + kw * window.dilation[1]
            if 0 <= ih < H and 0 <= iw < W:
                ic = f // (F // groups) * channels + c
                y[n, f, oh, ow] += w[f, c, kh, kw] * x[n, ic, ih, iw]
                dx[n, ic, ih, iw] += w[f, c, kh, kw] * dy[n, f, oh, ow]
                dw[f, c, kh, kw] += x[n, ic, ih, iw] * dy[n, f, oh, ow]
    return y, dx, dw, db


@cache
def compute_pool(case: PoolCase, fill: str) -> PoolTruth:
    """Inputs drawn for a case (with ties, if integers), and what pooling makes of them."""
    N, C, H, W = case.x_shape
    rng = create_rng(case.name)
    x = draw(rng, case.x_shape, fill)
    dy = draw(rng, (N, C, *case.window.output_size(H, W)), fill)
    y, index = find_maxima(x, case.window)
    return PoolTruth(x, dy, y, index, sum_unpooled(dy, index, x.shape, case.window))


def find_maxima(x: Array, window: Window) -> tuple[Array, Array]:
    """The first maximum of every window and its tap; NaN is above every number."""
    N, C, H, W = x.shape
    (top, _), (left, _) = window.padding
    y = np.zeros((N, C, *window.output_size(H, W)))
    index = np.full(y.shape, -1)
    for n, c, oh, ow in product(*map(range, y.shape)):
        for kh, kw in product(*map(range, window.kernel)):
            ih = oh * window.stride[0] - top + kh * window.dilation[0]
            iw = ow * window.stride[1] - left + kw * window.dilation[1]
            if 0 <= ih < H and 0 <= iw < W:
                value, best = x[n, c, ih, iw], y[n, c, oh, ow]
                first = index[n, c, oh, ow] < 0
                if first or value > best or (isnan(value) and not isnan(best)):
                    y[n, c, oh, ow] = value
                    index[n, c, oh, ow] = kh * window.kernel[1] + kw
    return y, index


def sum_unpooled(dy: Array, index: Array, x_shape: tuple[int, ...], window: Window) -> Sum:
    """dx of a pooling as sums."""
    (top, _), (left, _) = window.padding
    dx, magnitude = np.zeros(x_shape), np.zeros(x_shape)
    for n, c, oh, ow in product(*map(range, dy.shape)):
        kh, kw = divmod(int(index[n, c, oh, ow]), window.kernel[1])
        ih = oh * window.stride[0] - top + kh * window.dilation[0]
        iw = ow * window.stride[1] - left + kw * window.dilation[1]
        dx[n, c, ih, iw] += dy[n, c, oh, ow]
        magnitude[n, c, ih, iw] += abs(dy[n, c, oh, ow])
    return Sum(dx, magnitude, window.kernel[0] * window.kernel[1])


class AveragePoolTruth(NamedTuple):
    x: Array
    dy: Array
    y: Sum
    dx: Sum
    exact: bool


@cache
def compute_avgpool(case: PoolCase, fill: str) -> AveragePoolTruth:
    """Inputs drawn for a case, and what average pooling makes of them.

    `exact` where every window has a power of two of pixels: integers stay exact then.
    """
    N, C, H, W = case.x_shape
    rng = create_rng(f"{case.name}, averaged")
    x = draw(rng, case.x_shape, fill)
    dy = draw(rng, (N, C, *case.window.output_size(H, W)), fill)
    counts = list_window_pixels(case.window, H, W)
    y, magnitude, dx, spread = (np.zeros(shape) for shape in 2 * [dy.shape] + 2 * [x.shape])
    for n, c in product(range(N), range(C)):
        for (oh, ow), pixels in counts.items():
            for ih, iw in pixels:
                y[n, c, oh, ow] += x[n, c, ih, iw] / len(pixels)
                magnitude[n, c, oh, ow] += abs(x[n, c, ih, iw]) / len(pixels)
                dx[n, c, ih, iw] += dy[n, c, oh, ow] / len(pixels)
                spread[n, c, ih, iw] += abs(dy[n, c, oh, ow]) / len(pixels)
    taps = case.window.kernel[0] * case.window.kernel[1]
    exact = all(len(pixels).bit_count() == 1 for pixels in counts.values())
    return AveragePoolTruth(x, dy, Sum(y, magnitude, taps + 1), Sum(dx, spread, taps + 1), exact)


def list_window_pixels(window: Window, H: int, W: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The pixels inside the image under each window."""
    (top, _), (left, _) = window.padding
    pixels: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for oh, ow in product(*map(range, window.output_size(H, W))):
        rows = [oh * window.stride[0] - top + kh * window.dilation[0] for kh in range(window.kernel[0])]
        columns = [ow * window.stride[1] - left + kw * window.dilation[1] for kw in range(window.kernel[1])]
        pixels[oh, ow] = [(ih, iw) for ih in rows for iw in columns if 0 <= ih < H and 0 <= iw < W]
    return pixels


@cache
def compute_linear(case: LinearCase, fill: str) -> ConvTruth:
    """Inputs drawn for a fully connected layer, and what it makes of them."""
    rng = create_rng(case.name)
    x, w = draw(rng, (case.N, case.D), fill), draw(rng, (case.M, case.D), fill)
    b, dy = draw(rng, (case.M,), fill), draw(rng, (case.N, case.M), fill)
    values = connect(x, w, b, dy)
    magnitudes = connect(*map(np.abs, (x, w, b, dy)))
    return ConvTruth(x, w, b, dy, *map(Sum, values, magnitudes, (case.D + 1, case.M, case.N, case.N)))


def connect(x: Array, w: Array, b: Array, dy: Array) -> tuple[Array, ...]:
    """y and, for L = sum of y * dy, dL/dx, dL/dw, dL/db of a fully connected layer."""
    y = np.zeros(dy.shape)
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(b.shape)
    for n, m in product(*map(range, dy.shape)):
        y[n, m] += b[m]
        db[m] += dy[n, m]
        for d in range(x.shape[1]):
            y[n, m] += w[m, d] * x[n, d]
            dx[n, d] += w[m, d] * dy[n, m]
            dw[m, d] += x[n, d] * dy[n, m]
    return y, dx, dw, db


def cast(dtype: str, *arrays: Any) -> list[Array]:
    """The arrays in `dtype`, read-only, so that a backend that writes to its input is caught."""
    casts = [np.asarray(array).astype(dtype) for array in arrays]
    for array in casts:
        array.flags.writeable = False
    return casts
