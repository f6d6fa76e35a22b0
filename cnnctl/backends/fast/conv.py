"""Convolution and what is fused behind it, as a stage."""

from typing import Any

from cnnctl.backends import _kernels
from cnnctl.backends.base import SandwichOutputs
from cnnctl.backends.fast.layout import ACTIVATIONS, ImageLayout
from cnnctl.backends.fast.pooling import PooledStage, plan_pool
from cnnctl.backends.specs import ConvSpec, choose_alpha
from cnnctl.backends.stage import ParameterLayout

POOLS = (None, "max", "average")
"""In the order of the kernels' enumeration."""


class ConvStage(PooledStage):
    """pool(activation(norm(conv(x, w) + b) + r)) in one kernel."""

    input: ImageLayout
    accumulates = True

    def __init__(self, spec: ConvSpec, layout: ImageLayout, exact: bool) -> None:
        sandwich = spec.sandwich
        sandwich.window.check_size(layout.height, layout.width)
        z = layout.like((spec.filters, *sandwich.window.output_size(layout.height, layout.width)))
        super().__init__(layout, z)
        self.z = z
        if sandwich.pool:
            self.output, self.saved = plan_pool(sandwich.pool, z)
        if sandwich.keeps_z:
            self.saved["z"] = (z.size, None)
        self._place_parameters(spec, z)
        norm = sandwich.norm
        self.kernel = _kernels.ConvKernel(
            layout.kernels,
            layout.extents,
            z.extents,
            self.output.extents,
            sandwich.window,
            sandwich.pool.window if sandwich.pool else None,
            groups=sandwich.groups,
            activation=ACTIVATIONS.index(sandwich.activation),
            alpha=choose_alpha(sandwich.activation, sandwich.alpha) if sandwich.activation else 0.0,
            pooling=POOLS.index(sandwich.pool.kind if sandwich.pool else None),
            norm=norm is not None,
            residual=sandwich.residual,
            exact=exact,
            eps=norm.eps if norm else 0.0,
            momentum=norm.momentum if norm else 0.0,
        )

    def _place_parameters(self, spec: ConvSpec, z: ImageLayout) -> None:
        sandwich, filters, row = spec.sandwich, spec.filters, z.pixel
        taps = (self.input.channels // sandwich.groups, *sandwich.window.kernel)
        per_channel = ParameterLayout((filters,), (row,), lambda inner: inner[:filters])
        self.parameters = {
            "weight": ParameterLayout(
                (filters, *taps),
                (*taps[1:], taps[0], row),
                lambda inner: inner[..., :filters].transpose(3, 2, 0, 1),
            )
        }
        if spec.bias:
            self.parameters["bias"] = per_channel
        if sandwich.norm:
            self.parameters |= {"gamma": per_channel, "beta": per_channel}
            self.statistics = {"running_mean": per_channel, "running_var": per_channel}
            self.saved_once = {"mean": (row, None), "var": (row, None)}

    def scratch_elements(self, batch_size: int) -> int:
        return int(self.kernel.scratch(batch_size))

    def forward(self, n: int, training: bool) -> None:
        self.kernel.forward(n, training, self._gather())

    def backward(self, n: int) -> None:
        b = self.buffers
        gradients = {"dy": b.dy, "dx": b.dx, "dr": b.dr}
        gradients |= {_GRADIENT_NAMES[key]: gradient for key, gradient in b.grads.items()}
        self.kernel.backward(n, self._gather(), gradients, b.accumulate)

    def read_outputs(self, n: int) -> SandwichOutputs:
        """What forward left, in natural shapes."""
        saved = self.buffers.saved
        z = self.z.read(saved["z"], n) if "z" in saved else None
        once = {key: saved[key][: self.z.channels].copy() for key in self.saved_once}
        index = self.read_index(n) if "index" in saved else None
        return SandwichOutputs(self.output.read(self.buffers.y, n), index, z, **once)

    def load_outputs(self, outputs: SandwichOutputs) -> None:
        """Take over, from natural shapes, what backward needs besides y."""
        saved = self.buffers.saved
        if outputs.index is not None and "index" in saved:
            self.load_index(outputs.index)
        if outputs.z is not None and "z" in saved:
            self.z.load(outputs.z, saved["z"])
        for key in self.saved_once:
            saved[key][: self.z.channels] = getattr(outputs, key)

    def _gather(self) -> dict[str, Any]:
        """The kernel's arrays by its own names."""
        b = self.buffers
        arrays = {"x": b.x, "y": b.y, "r": b.r, "scratch": b.scratch, **b.saved, **b.statistics}
        return arrays | {_KERNEL_NAMES[key]: parameter for key, parameter in b.params.items()}


_KERNEL_NAMES = {"weight": "w", "bias": "b", "gamma": "gamma", "beta": "beta"}
_GRADIENT_NAMES = {key: f"d{name}" for key, name in _KERNEL_NAMES.items()}
