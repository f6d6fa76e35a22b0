"""Convolution and what is fused behind it, as stages."""

from typing import Any

import numpy as np

from cnnctl.backends import _kernels
from cnnctl.backends.fast.layout import ImageLayout
from cnnctl.backends.fast.pooling import PooledStage, plan_pool
from cnnctl.backends.specs import ConvSpec
from cnnctl.backends.stage import ParameterLayout


class ConvStage(PooledStage):
    """Convolution, bias, ReLU and max pool in one kernel."""

    def __init__(self, spec: ConvSpec, layout: ImageLayout, dtype: Any) -> None:
        sandwich = spec.sandwich
        sandwich.window.check_size(layout.height, layout.width)
        before_pool = layout.like((spec.filters, *sandwich.window.output_size(layout.height, layout.width)))
        self.input, self.output, self.saved = layout, before_pool, {}
        if sandwich.pool:
            self.output, self.saved = plan_pool(sandwich.pool, before_pool)
        filters, row = spec.filters, before_pool.pixel
        taps = (layout.channels // sandwich.groups, *sandwich.window.kernel)
        self.parameters = {
            "weight": ParameterLayout(
                (filters, *taps),
                (*taps[1:], taps[0], row),
                lambda inner: inner[..., :filters].transpose(3, 2, 0, 1),
            )
        }
        if spec.bias:
            self.parameters["bias"] = ParameterLayout((filters,), (row,), lambda inner: inner[:filters])
        self.kernel = _kernels.ConvKernel(
            layout.kernels,
            layout.extents,
            before_pool.extents,
            self.output.extents,
            sandwich.window,
            sandwich.pool,
            sandwich.groups,
            sandwich.activation is not None,
        )
        self.unused_db = np.empty(row, dtype)

    def scratch_elements(self, batch_size: int) -> int:
        return int(self.kernel.scratch(batch_size))

    def forward(self, n: int) -> None:
        b = self.buffers
        self.kernel.forward(
            n, b.x, b.params["weight"], b.params.get("bias"), b.y, b.saved.get("index"), b.scratch
        )

    def backward(self, n: int) -> None:
        b = self.buffers
        self.kernel.backward(
            n,
            b.dy,
            b.x,
            b.params["weight"],
            b.y,
            b.saved.get("index"),
            b.dx,
            b.grads["weight"],
            b.grads.get("bias", self.unused_db),
            b.scratch,
        )
