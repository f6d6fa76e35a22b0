"""Fully connected layers, and the flattening that comes before them, as stages."""

from math import prod
from typing import Any

import numpy as np

from cnnctl.backends import _kernels
from cnnctl.backends.fast.layout import ACTIVATIONS, ImageLayout
from cnnctl.backends.specs import LinearSpec, choose_alpha
from cnnctl.backends.stage import ParameterLayout, Stage


class LinearStage(Stage):
    """A fully connected layer with bias and activation; weights [out][in], `in` ordered as the images lie.

    ReLU is part of the kernel; another activation is a pass over its few outputs.
    """

    output: ImageLayout

    def __init__(self, spec: LinearSpec, layout: ImageLayout, dtype: Any) -> None:
        units = spec.units
        super().__init__(layout, layout.like((units,)))
        self.parameters = {
            "weight": ParameterLayout((units, prod(layout.shape)), (units, layout.size), layout.view)
        }
        row = self.output.size
        if spec.bias:
            self.parameters["bias"] = ParameterLayout((units,), (row,), lambda inner: inner[:units])
        relu = spec.activation == "relu"
        self.kernel = _kernels.LinearKernel(layout.kernels, layout.size, units, row, relu)
        self.activation = None if relu else spec.activation
        self.alpha = choose_alpha(spec.activation, spec.alpha) if spec.activation else 0.0
        self.unused_db = np.empty(row, dtype)

    def scratch_elements(self, batch_size: int) -> int:
        return int(self.kernel.scratch(batch_size))

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        self.kernel.forward(n, b.x, b.params["weight"], b.params.get("bias"), b.y, b.scratch)
        if self.activation:
            y, kind = self.output, ACTIVATIONS.index(self.activation)
            y.kernels.activation_forward(kind, self.alpha, y.extents, n, b.y, b.y)

    def backward(self, n: int) -> None:
        b = self.buffers
        if self.activation:  # nobody else reads this dy
            y, kind = self.output, ACTIVATIONS.index(self.activation)
            y.kernels.activation_backward(kind, self.alpha, y.extents, n, b.dy, b.y, b.dy)
        self.kernel.backward(
            n,
            b.dy,
            b.x,
            b.params["weight"],
            b.y,
            b.dx,
            b.grads["weight"],
            b.grads.get("bias", self.unused_db),
            b.scratch,
        )


class FlattenStage(Stage):
    """NHWC to a vector in (C, H, W) order, through one NCHW copy."""

    input: ImageLayout
    output: ImageLayout

    def __init__(self, layout: ImageLayout) -> None:
        super().__init__(layout, layout.like((prod(layout.shape),)))

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        self.output.load(self.input.read(b.x, n).reshape(n, *self.output.shape), b.y)

    def backward(self, n: int) -> None:
        b = self.buffers
        if b.dx is not None:
            assert b.dy is not None
            self.input.load(self.output.read(b.dy, n).reshape(n, *self.input.shape), b.dx)
