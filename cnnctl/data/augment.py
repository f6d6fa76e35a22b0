"""Random changes to training images: which ones each image and each batch gets.

Pure functions of words of random bits, which `pipeline` draws from seed and epoch. Computes no
image: that is done where a batch is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, log
from typing import Literal, get_args

import numpy as np

from cnnctl.data.dataset import Array
from cnnctl.errors import ConfigError, check_real, describe_alternatives

Padding = Literal["zero", "edge", "reflect"]
MOVES, HOLES, TONES = 1, 2, 3
"""Streams of words: one word an image and epoch."""
LOW_HALF = np.uint64(2**32 - 1)


@dataclass(frozen=True, eq=False, slots=True)
class Changes:
    """What happens to the images of a batch, in this order.

    Attributes:
        moves: (n, 3) int32 or None: 1 to mirror the image; then, so mirrored, row h of the result
            shows row h + down and column w shows column w + right.
        padding: what is shown from outside: 0, the nearest pixel, or the image mirrored at its edge.
        tones: (n, 2) float64 or None: gain and offset, pixel' = gain pixel + offset.
        holes: (n, 4) int32 or None: top, left, bottom, right of what is 0 after normalising.
    """

    moves: Array | None = None
    padding: Padding = "zero"
    tones: Array | None = None
    holes: Array | None = None


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes to training images.

    Attributes:
        flip: mirror an image left to right with probability 1/2.
        shift: move it by up to that many pixels down or up and right or left, each distance equally
            likely: the same as padding it by so many and cutting its size out anywhere.
        padding: what becomes bare: 0, the nearest pixel, or the image mirrored at its edge pixels.
        brightness: multiply pixels by a factor, uniform in [1 - brightness, 1 + brightness).
        contrast: then stretch them around the image's mean by another, in [1 - contrast, 1 + contrast).
            Neither keeps pixels within the range they came from.
        cutout: 0, after normalising, in a square of so many pixels a side around a point anywhere.
        mixup: blend each image with the next of its batch, the last with the first, and their losses
            likewise; the share, one a batch, is drawn from Beta(mixup, mixup). At most 1.

    Raises ConfigError for a number out of range. Sources: DeVries, Taylor 2017 (cutout); Zhang et al.
    2018, algorithm 1 (mixup); torchvision's ColorJitter (brightness, contrast).
    """

    flip: bool = False
    shift: int = 0
    padding: Padding = "zero"
    brightness: float = 0.0
    contrast: float = 0.0
    cutout: int = 0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        if self.padding not in get_args(Padding):
            known = describe_alternatives(self.padding, get_args(Padding))
            raise ConfigError(f"data.augment.padding: {self.padding!r} is not known; {known}")
        for field in ("brightness", "contrast"):
            check_real(f"data.augment.{field}", getattr(self, field), 0, 1)
        if not 0 <= self.mixup <= 1:
            raise ConfigError(f"data.augment.mixup: {self.mixup!r} is not a number in [0, 1]")

    def check_size(self, H: int, W: int) -> None:
        """Raises ConfigError for a shift or a square that leaves nothing of such an image."""
        for field in ("shift", "cutout"):
            value = getattr(self, field)
            if not 0 <= value < min(H, W):
                raise ConfigError(
                    f"data.augment.{field}: {value} pixels do not stay within images of {H}x{W}"
                )

    def draw_changes(self, pixels: Array, chosen: Array, draw: Callable[[int], Array]) -> Changes:
        """What happens to the chosen images of `pixels` (N,C,H,W); draw(stream) gives a uint64 each."""
        return Changes(
            moves=self._draw_moves(draw(MOVES)) if self.flip or self.shift else None,
            padding=self.padding,
            tones=self._draw_tones(draw(TONES), pixels[chosen]) if self.brightness or self.contrast else None,
            holes=self._draw_holes(draw(HOLES), *pixels.shape[2:]) if self.cutout else None,
        )

    def draw_share(self, words: Iterator[int]) -> float:
        """How much of an image is left when it is blended; 1 without mixup.

        Jöhnk's method: of X = U^(1/mixup) and Y = V^(1/mixup), X / (X + Y) once X + Y <= 1; in
        logarithms, since both may be too small for a float. Source: Devroye 1986, section IX.3.4.
        """
        while self.mixup:
            x, y = (log((word >> 11) + 1) - 53 * log(2) for word in (next(words), next(words)))
            x, y = x / self.mixup, y / self.mixup
            if np.logaddexp(x, y) <= 0:
                return 1 / (1 + exp(min(y - x, 700)))
        return 1.0

    def _draw_moves(self, words: Array) -> Array:
        span, shift = np.uint64(2 * self.shift + 1), np.int64(self.shift)
        flips = words & np.uint64(self.flip)
        down, right = ((words >> np.uint64(bits)) % span for bits in (1, 32))
        moves = [flips, down.astype(np.int64) - shift, right.astype(np.int64) - shift]
        return np.stack(moves, axis=1).astype(np.int32)

    def _draw_tones(self, words: Array, images: Array) -> Array:
        halves = np.stack([words & LOW_HALF, words >> np.uint64(32)]) / 2**32
        brightness, contrast = 1 + np.array([[self.brightness], [self.contrast]]) * (2 * halves - 1)
        mean = images.mean(axis=(1, 2, 3), dtype=np.float64)
        return np.stack([contrast * brightness, (1 - contrast) * brightness * mean], axis=1)

    def _draw_holes(self, words: Array, H: int, W: int) -> Array:
        before, ends = self.cutout // 2, np.array([H, W])
        centers = np.stack(
            [(words & LOW_HALF) % np.uint64(H), (words >> np.uint64(32)) % np.uint64(W)], axis=1
        )
        starts = centers.astype(np.int64) - before
        corners = np.concatenate([starts.clip(0), (starts + self.cutout).clip(max=ends)], axis=1)
        return corners.astype(np.int32)


def change_images(images: Array, changes: Changes) -> Array:
    """Images (n, C, H, W), moved and toned, as a new array; holes are for later."""
    images = images.copy()
    if changes.moves is not None:
        _move(images, changes.moves, changes.padding)
    if changes.tones is None:
        return images
    gain, offset = changes.tones.T[..., None, None, None]
    toned: Array = gain * images + offset
    return toned


def cut_holes(images: Array, holes: Array) -> None:
    """Zeros there, in place."""
    for image, (top, left, bottom, right) in zip(images, holes, strict=True):
        image[:, top:bottom, left:right] = 0


def _move(images: Array, moves: Array, padding: Padding) -> None:
    """Mirror and shift in place."""
    flipped = moves[:, 0] != 0
    images[flipped] = images[flipped, :, :, ::-1]
    reach = int(np.abs(moves[:, 1:]).max(initial=0))
    if reach:
        mode: Literal["constant", "edge", "reflect"] = "constant" if padding == "zero" else padding
        padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode)
        windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
        images[:] = windows[np.arange(len(images)), :, moves[:, 1] + reach, moves[:, 2] + reach]
