"""Pooling that no convolution stands before, as stages, and what pools in general share."""

from math import prod
from typing import Any

import numpy as np

from cnnctl.backends import _kernels
from cnnctl.backends.fast.layout import ImageLayout
from cnnctl.backends.specs import Array, Pool
from cnnctl.backends.stage import Stage
from cnnctl.errors import ShapeError

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

    def __init__(self, pool: Pool, layout: ImageLayout) -> None:
        super().__init__(layout, layout)
        self.output, self.saved = plan_pool(pool, layout)
        self.kernel = _kernels.PoolKernel(layout.kernels, layout.extents, self.output.extents, pool.window)

    def forward(self, n: int, training: bool) -> None:
        self.kernel.max_forward(n, self.buffers.x, self.buffers.y, self.buffers.saved["index"])

    def backward(self, n: int) -> None:
        if self.buffers.dx is not None:
            self.kernel.max_backward(n, self.buffers.dy, self.buffers.saved["index"], self.buffers.dx)


class AveragePoolStage(Stage):
    """An average pooling on its own."""

    def __init__(self, pool: Pool, layout: ImageLayout) -> None:
        output, _ = plan_pool(pool, layout)
        super().__init__(layout, output)
        self.kernel = _kernels.PoolKernel(layout.kernels, layout.extents, output.extents, pool.window)

    def forward(self, n: int, training: bool) -> None:
        self.kernel.average_forward(n, self.buffers.x, self.buffers.y)

    def backward(self, n: int) -> None:
        if self.buffers.dx is not None:
            self.kernel.average_backward(n, self.buffers.dy, self.buffers.dx)


def plan_pool(pool: Pool, layout: ImageLayout) -> tuple[ImageLayout, dict[str, tuple[int, Any]]]:
    """The pooled layout, and room for a max pool's index."""
    window = pool.window
    window.check_size(layout.height, layout.width)
    output = layout.like((layout.channels, *window.output_size(layout.height, layout.width)))
    if pool.kind == "average":
        return output, {}
    if prod(window.kernel) > MAX_POOL_TAPS:
        raise ShapeError(
            f"kernel: {window.kernel} has more than {MAX_POOL_TAPS} taps, which fast cannot pool"
        )
    return output, {"index": (output.size, np.uint16)}
