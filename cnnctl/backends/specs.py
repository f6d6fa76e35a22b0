"""What an operation is, apart from who computes it: fused operations and their settings.

Names and extents only; no arrays, no arithmetic.
"""

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from cnnctl.geometry import Window

Array = NDArray[Any]
Shape = tuple[int, ...]
"""Extents of one image, without the batch: (C, H, W) or (D,)."""
Activation = Literal["relu"]


@dataclass(frozen=True, slots=True)
class Sandwich:
    """What is fused behind a convolution: y = pool(activation(conv(x, w) + b)).

    Attributes:
        window: how the kernel moves.
        groups: the channels of x and of y fall into this many independent groups.
        activation: None or a name from `Activation`.
        pool: None or the window of a max pooling.
    """

    window: Window
    groups: int = 1
    activation: Activation | None = None
    pool: Window | None = None


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """Convolution with `filters` filters and whatever the sandwich puts behind it."""

    sandwich: Sandwich
    filters: int
    bias: bool


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """A fully connected layer with `units` outputs; an image before it is flattened."""

    units: int
    bias: bool
    activation: Activation | None


@dataclass(frozen=True, slots=True)
class MaxPoolSpec:
    """A max pooling that no convolution stands before."""

    window: Window


@dataclass(frozen=True, slots=True)
class ReluSpec:
    """A ReLU that no convolution or fully connected layer stands before."""


@dataclass(frozen=True, slots=True)
class FlattenSpec:
    """(C, H, W) to (C*H*W), where what follows does not flatten by itself."""


Spec = ConvSpec | LinearSpec | MaxPoolSpec | ReluSpec | FlattenSpec
