"""How images lie inside: NHWC, channels padded to a cache line."""

from typing import Any

import numpy as np

from cnnctl.backends import _kernels
from cnnctl.backends.specs import Array, RawImages, Shape
from cnnctl.backends.stage import Layout

PADDINGS = ("zero", "edge", "reflect")
ACTIVATIONS = (None, "relu", "leaky_relu", "tanh", "sigmoid", "elu", "gelu", "silu")
"""In the order of the kernels' enumeration."""


def align(array: Array, dtype: Any = None) -> Array:
    """C-contiguous and aligned, as C may expect; a copy only where it has to be."""
    return np.require(array, dtype, ["C", "A"])


def count_lanes(dtype: Any) -> int:
    """Elements of a cache line."""
    return int(_kernels.LINE // np.dtype(dtype).itemsize)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is no less."""
    return -(-value // multiple) * multiple


class ImageLayout(Layout):
    """NHWC; a vector (D,) is an image of one pixel.

    Attributes:
        pixel: elements from one pixel to the next: the channels, padded to `lanes` unless
            the images are a network's input. `size` is always a multiple of `lanes`.
    """

    def __init__(self, shape: Shape, kernels: "_kernels.Kernels", lanes: int, *, padded: bool = True) -> None:
        self.shape, self.kernels, self.lanes = shape, kernels, lanes
        self.channels, self.height, self.width = shape if len(shape) == 3 else (*shape, 1, 1)
        self.pixel = round_up(self.channels, lanes) if padded else self.channels
        self.size = round_up(self.height * self.width * self.pixel, lanes)
        self.extents = (self.height, self.width, self.channels, self.pixel, self.size)

    def like(self, shape: Shape) -> "ImageLayout":
        """Padded images of another shape, for the same kernels."""
        return ImageLayout(shape, self.kernels, self.lanes)

    def view(self, rows: Array) -> Array:
        """(n, size) as (n, C, H, W), sharing memory."""
        used = rows[:, : self.height * self.width * self.pixel]
        pixels = used.reshape(len(rows), self.height, self.width, self.pixel)
        return pixels[..., : self.channels].transpose(0, 3, 1, 2)

    def load(self, images: Array, buffer: Array) -> None:
        self.kernels.import_images(self.extents, len(images), align(images), buffer)

    def prepare(self, images: RawImages, buffer: Array) -> None:
        pixels, changes = images.pixels, images.changes
        self.kernels.prepare_images(
            self.extents,
            len(images),
            align(pixels),
            pixels.dtype == np.uint8,
            align(images.chosen),
            PADDINGS.index(changes.padding),
            None if changes.moves is None else align(changes.moves),
            None if changes.tones is None else align(changes.tones),
            None if changes.holes is None else align(changes.holes),
            align(images.scale),
            align(images.shift),
            buffer,
        )

    def read(self, buffer: Array, n: int) -> Array:
        images = np.empty((n, *self.shape), buffer.dtype)
        self.kernels.export_images(self.extents, n, buffer, images)
        return images
