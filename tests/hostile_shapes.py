"""The one table of hostile shapes: what every kernel, in every backend, is held against.

Extents are small, so that the slowest backend needs milliseconds for each. No data here
and no arithmetic: a case is a shape with a name that says what is hostile about it.
"""

from typing import NamedTuple

from cnnctl.backends.specs import Activation, Pool, Sandwich
from cnnctl.geometry import Padding, Pair, Window

TAILS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33)
"""Extents around the vector lengths 4, 8, 16 and 32: every way a SIMD loop can end."""


class ConvCase(NamedTuple):
    """x (N,C,H,W) convolved with F filters."""

    name: str
    x_shape: tuple[int, int, int, int]
    F: int
    window: Window
    groups: int = 1


class PoolCase(NamedTuple):
    """Max or average pooling of x (N,C,H,W)."""

    name: str
    x_shape: tuple[int, int, int, int]
    window: Window


class LinearCase(NamedTuple):
    """x (N,D) times w (M,D) transposed."""

    name: str
    N: int
    D: int
    M: int


class NormCase(NamedTuple):
    """Batch norm of images x (N,C,H,W) or vectors (N,C)."""

    name: str
    shape: tuple[int, ...]


class GroupNormCase(NamedTuple):
    """Group norm of images x (N,C,H,W) or vectors (N,C)."""

    name: str
    shape: tuple[int, ...]
    groups: int


class LrnCase(NamedTuple):
    """Local response normalisation of x (N,C,H,W) over `size` channels."""

    name: str
    x_shape: tuple[int, int, int, int]
    size: int
    beta: float = 0.75


class SandwichCase(NamedTuple):
    """A convolution of the table with an activation and a pool behind it."""

    name: str
    conv: ConvCase
    sandwich: Sandwich


def _conv(
    name: str,
    x_shape: tuple[int, int, int, int],
    F: int,
    kernel: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> ConvCase:
    return ConvCase(name, x_shape, F, Window.create(kernel, stride, padding, dilation), groups)


def _pool(
    name: str,
    x_shape: tuple[int, int, int, int],
    kernel: Pair,
    stride: Pair,
    padding: Padding = 0,
    dilation: Pair = 1,
) -> PoolCase:
    return PoolCase(name, x_shape, Window.create(kernel, stride, padding, dilation))


def _sandwich(conv: ConvCase, activation: Activation | None, pool: Window | None) -> SandwichCase:
    fused = f"pool {pool.kernel} stride {pool.stride} padding {pool.padding}" if pool else "no pool"
    name = f"{conv.name}, {activation}, {fused}"
    return SandwichCase(
        name, conv, Sandwich(conv.window, conv.groups, None, False, activation, pool and Pool("max", pool))
    )


CONV_CASES = [
    _conv("padding keeps extents", (2, 3, 5, 5), 4, 3, padding=1),
    _conv("no padding", (2, 3, 5, 6), 4, 3),
    _conv("non-square kernel and image", (2, 3, 4, 7), 3, (2, 3)),
    _conv("row kernel", (1, 2, 4, 6), 3, (1, 3), padding=(0, 1)),
    _conv("column kernel", (1, 2, 6, 4), 3, (3, 1), padding=(1, 0)),
    _conv("padding at top and right", (2, 2, 5, 4), 3, 3, padding=((2, 0), (0, 1))),
    _conv("padding at bottom and left", (2, 2, 4, 5), 3, 3, padding=((0, 1), (2, 0))),
    _conv("windows wholly in the padding", (1, 2, 2, 3), 2, 2, padding=3),
    _conv("same with an even kernel", (1, 2, 5, 4), 2, 4, padding="same"),
    _conv("stride that does not divide", (2, 3, 6, 7), 3, 3, stride=2),
    _conv("stride that divides", (2, 3, 7, 7), 3, 3, stride=2),
    _conv("another stride each way, padded", (1, 2, 7, 8), 3, 3, stride=(2, 3), padding=1),
    _conv("stride above kernel", (2, 2, 7, 8), 3, 2, stride=3),
    _conv("stride 2 over a 1x1 kernel", (2, 3, 5, 5), 4, 1, stride=2),
    _conv("1x1 kernel", (2, 5, 4, 3), 3, 1),
    _conv("1x1 kernel, padded", (1, 3, 2, 3), 2, 1, padding=1),
    _conv("kernel covers the image", (2, 3, 4, 5), 4, (4, 5)),
    _conv("kernel covers the padded image", (2, 2, 2, 3), 3, (4, 5), padding=1),
    _conv("kernel exceeds the image", (1, 2, 2, 2), 3, 5, padding=2),
    _conv("5x5 kernel", (1, 1, 8, 8), 3, 5),
    _conv("7x7 kernel", (1, 2, 8, 7), 2, 7, padding=3),
    _conv("batch 0", (0, 3, 5, 5), 4, 3, padding=1),
    _conv("batch 1", (1, 3, 5, 5), 4, 3, padding=1),
    _conv("batch 5", (5, 2, 4, 4), 3, 3, padding=1),
    _conv("single pixel", (3, 5, 1, 1), 4, 1),
    _conv("single pixel, padded", (2, 3, 1, 1), 4, 3, padding=1),
    _conv("one of everything", (1, 1, 1, 1), 1, 1),
    _conv("single row", (2, 3, 1, 7), 2, (1, 3)),
    _conv("single column", (2, 3, 7, 1), 2, (3, 1)),
    _conv("dilation 2", (1, 2, 7, 6), 3, 3, padding=2, dilation=2),
    _conv("dilation 3", (1, 2, 7, 8), 3, 3, dilation=3),
    _conv("dilation in columns only", (1, 2, 4, 7), 3, 3, padding=1, dilation=(1, 2)),
    _conv("dilation and stride", (2, 2, 8, 9), 2, (2, 3), stride=(3, 2), padding=1, dilation=(2, 3)),
    _conv("two groups", (2, 4, 5, 5), 6, 3, padding=1, groups=2),
    _conv("groups of unequal width", (2, 6, 4, 4), 3, 3, groups=3),
    _conv("depthwise", (2, 5, 4, 5), 5, 3, padding=1, groups=5),
    _conv("depthwise, two filters a channel", (1, 3, 5, 4), 6, 3, groups=3),
    _conv("depthwise over a tail", (1, 17, 3, 3), 17, 2, groups=17),
    _conv("groups, dilation, stride, padding", (2, 4, 7, 7), 4, 3, stride=2, padding=2, dilation=2, groups=2),
    _conv("33 channels to 33 filters", (1, 33, 2, 2), 33, 1),
    *[_conv(f"{C} channels", (1, C, 3, 4), 2, 2) for C in TAILS],
    *[_conv(f"{F} filters", (1, 2, 3, 4), F, 2) for F in TAILS],
    *[_conv(f"{W} columns", (1, 1, 2, W), 2, 3, padding=1) for W in TAILS],
]

POOL_CASES = [
    _pool("2x2", (2, 3, 4, 6), 2, 2),
    _pool("overlapping 3x3, stride 2", (2, 2, 7, 7), 3, 2),
    _pool("overlapping 3x3, stride 1", (1, 2, 5, 6), 3, 1),
    _pool("stride that does not divide", (2, 2, 5, 7), 2, 2),
    _pool("stride above kernel", (1, 2, 7, 8), 2, 3),
    _pool("non-square kernel and image", (2, 2, 6, 5), (3, 2), (2, 1)),
    _pool("padding all around", (2, 2, 5, 6), 3, 2, padding=1),
    _pool("padding at top and right", (1, 2, 4, 5), 3, 2, padding=((1, 0), (0, 2))),
    _pool("padding at bottom and left", (1, 2, 5, 4), 3, 2, padding=((0, 2), (1, 0))),
    _pool("dilation 2", (1, 2, 6, 7), 2, 1, dilation=2),
    _pool("dilation and padding", (1, 2, 5, 5), 3, 2, padding=2, dilation=2),
    _pool("1x1 kernel", (2, 2, 3, 4), 1, 1),
    _pool("1x1 kernel, stride 2", (2, 2, 5, 4), 1, 2),
    _pool("kernel covers the image", (2, 3, 3, 5), (3, 5), 1),
    _pool("more taps than a byte can count", (1, 2, 18, 17), (18, 16), 1),
    _pool("single pixel", (2, 3, 1, 1), 1, 1),
    _pool("single pixel, padded", (2, 3, 1, 1), 3, 1, padding=1),
    _pool("single row", (1, 2, 1, 9), (1, 2), (1, 2)),
    _pool("batch 0", (0, 3, 4, 4), 2, 2),
    _pool("batch 5", (5, 2, 4, 4), 2, 2),
    *[_pool(f"{C} channels", (1, C, 3, 3), 2, 1) for C in TAILS],
    *[_pool(f"{2 * OW} columns", (1, 1, 2, 2 * OW), 2, 2) for OW in TAILS],
]

LINEAR_CASES = [
    LinearCase("batch 0", 0, 5, 3),
    LinearCase("batch 1", 1, 5, 3),
    LinearCase("one of everything", 1, 1, 1),
    LinearCase("long sums", 3, 1030, 5),
    LinearCase("tails all round", 7, 33, 31),
    *[LinearCase(f"{N} images", N, 4, 3) for N in TAILS],
    *[LinearCase(f"{D} inputs", 2, D, 3) for D in TAILS],
    *[LinearCase(f"{M} outputs", 2, 4, M) for M in TAILS],
]

NORM_CASES = [
    NormCase("images", (3, 5, 4, 6)),
    NormCase("vectors", (7, 12)),
    NormCase("batch 0", (0, 3, 4, 4)),
    NormCase("batch 0 of vectors", (0, 3)),
    NormCase("batch 1", (1, 3, 5, 5)),
    NormCase("two values a channel", (2, 3)),
    NormCase("more pixels than fit a cache", (2, 5, 37, 41)),
    NormCase("blocks that end within a row of pixels", (1, 3, 1, 2053)),
    NormCase("more channels than fit a block", (4, 700, 2, 1)),
    NormCase("more channels than fit a cache", (9, 5000)),
    *[NormCase(f"{C} channels", (2, C, 3, 3)) for C in TAILS],
    *[NormCase(f"{N} vectors", (N, 3)) for N in TAILS if N > 1],
]

GROUP_NORM_CASES = [
    GroupNormCase("two groups", (3, 6, 4, 5), 2),
    GroupNormCase("one group", (2, 5, 3, 4), 1),
    GroupNormCase("a group each", (2, 5, 3, 4), 5),
    GroupNormCase("vectors", (4, 12), 3),
    GroupNormCase("vectors, one group", (3, 33), 1),
    GroupNormCase("long vectors", (2, 5000), 1),
    GroupNormCase("batch 0", (0, 4, 3, 3), 2),
    GroupNormCase("batch 1", (1, 4, 5, 5), 2),
    GroupNormCase("more images than runs", (70, 4, 2, 2), 2),
    GroupNormCase("one pixel", (3, 8, 1, 1), 2),
    GroupNormCase("one value", (3, 1, 1, 1), 1),
    GroupNormCase("more pixels than fit a cache", (2, 6, 37, 41), 3),
    GroupNormCase("blocks that end within a row of pixels", (1, 3, 1, 2053), 3),
    GroupNormCase("groups that end within a vector", (2, 42, 3, 2), 6),
    GroupNormCase("more channels than fit a block", (2, 700, 2, 1), 7),
    *[GroupNormCase(f"{C} channels", (2, C, 3, 3), 1) for C in TAILS],
    *[GroupNormCase(f"{G} groups of 3", (2, 3 * G, 2, 3), G) for G in TAILS],
]

LRN_CASES = [
    LrnCase("AlexNet's", (2, 9, 3, 4), 5),
    LrnCase("even size", (2, 9, 3, 4), 4),
    LrnCase("size 1", (1, 5, 2, 3), 1),
    LrnCase("more neighbours than channels", (2, 3, 2, 2), 11),
    LrnCase("one channel", (2, 1, 3, 3), 5),
    LrnCase("square root", (1, 6, 2, 2), 3, 0.5),
    LrnCase("exponent 1", (1, 6, 2, 2), 3, 1.0),
    LrnCase("no exponent", (1, 6, 2, 2), 3, 0.0),
    LrnCase("odd exponent", (1, 6, 2, 2), 3, 1.7),
    LrnCase("batch 0", (0, 4, 3, 3), 5),
    *[LrnCase(f"{C} channels", (1, C, 2, 2), 5, beta) for C in TAILS for beta in (0.75, 0.6)],
]

_PADDED = _conv("padded", (2, 3, 6, 6), 5, 3, padding=1)
_VALID = _conv("valid", (2, 1, 8, 9), 3, 5)
_DILATED = _conv("dilated groups", (1, 4, 9, 8), 4, 3, stride=2, padding=2, dilation=2, groups=2)
_EMPTY = _conv("batch 0", (0, 3, 6, 6), 5, 3, padding=1)
_SMALL = _conv("small", (1, 2, 2, 2), 3, 1)
_2X2 = Window.create(2, 2)

SANDWICH_CASES = [
    _sandwich(_PADDED, None, None),
    _sandwich(_PADDED, "relu", None),
    _sandwich(_PADDED, None, _2X2),
    _sandwich(_PADDED, "relu", _2X2),
    _sandwich(_VALID, "relu", _2X2),
    _sandwich(_VALID, "relu", Window.create(3, 2)),
    _sandwich(_VALID, "relu", Window.create(3, 2, 1)),
    _sandwich(_VALID, "relu", Window.create((2, 3), (1, 2))),
    _sandwich(_DILATED, "relu", _2X2),
    _sandwich(_EMPTY, "relu", _2X2),
    _sandwich(_SMALL, "relu", _2X2),
    *[_sandwich(_conv(f"{F} filters", (2, 2, 4, 4), F, 3, padding=1), "relu", _2X2) for F in TAILS],
    *[
        _sandwich(_conv(f"{2 * OW} columns", (1, 1, 2, 2 * OW), 2, 3, padding=1), "relu", _2X2)
        for OW in TAILS
    ],
]
