"""Pooling that no convolution stands before, as stages, and what pools in general share."""

from math import prod
from typing import Any

import numpy as np

from cnnctl.backends import _kernels
from cnnctl.backends.fast.layout import ImageLayout
from cnnctl.backends.specs import Array, MaxPoolSpec
from cnnctl.backends.stage import Stage
from cnnctl.errors import ShapeError
from cnnctl.geometry import Window

MAX_POOL_TAPS = 2**16
"""A pool's winner is remembered in 16 bits."""


class PooledStage(Stage):
    """What stages with a pool share: the winners' index."""

    output: ImageLayout

    def read_index(self, n: int) -> Array:
        """The winners as the contract has them: (n, C, OH, OW) int32."""
        return self.output.view(self.buffers.saved["index"][:n]).astype(np.int32)

    def load_index(self, index: Array) -> None:
        self.output.view(self.buffers.saved["index"][: len(index)])[...] = index


class MaxPoolStage(PooledStage):
    """A max pooling on its own."""

    def __init__(self, spec: MaxPoolSpec, layout: ImageLayout) -> None:
        self.input, self.parameters = layout, {}
        self.output, self.saved = plan_pool(spec.window, layout)
        self.kernel = _kernels.MaxPoolKernel(layout.kernels, layout.extents, self.output.extents, spec.window)

    def forward(self, n: int) -> None:
        self.kernel.forward(n, self.buffers.x, self.buffers.y, self.buffers.saved["index"])

    def backward(self, n: int) -> None:
        if self.buffers.dx is not None:
            self.kernel.backward(n, self.buffers.dy, self.buffers.saved["index"], self.buffers.dx)


def plan_pool(window: Window, layout: ImageLayout) -> tuple[ImageLayout, dict[str, tuple[int, Any]]]:
    """The pooled layout, and room for the index."""
    if prod(window.kernel) > MAX_POOL_TAPS:
        raise ShapeError(
            f"kernel: {window.kernel} has more than {MAX_POOL_TAPS} taps, which fast cannot pool"
        )
    window.check_size(layout.height, layout.width)
    output = layout.like((layout.channels, *window.output_size(layout.height, layout.width)))
    return output, {"index": (output.size, np.uint16)}
