"""Normalisations that no convolution stands before, and the scaling of channels, as stages."""

from cnnctl.backends import _kernels
from cnnctl.backends.fast.layout import ImageLayout
from cnnctl.backends.specs import BatchNormSpec, GroupNormSpec, LrnSpec
from cnnctl.backends.stage import ParameterLayout, Stage


class BatchNormStage(Stage):
    """A batch norm that no convolution stands before."""

    def __init__(self, spec: BatchNormSpec, layout: ImageLayout) -> None:
        super().__init__(layout, layout)
        per_channel, row = place_channels(layout), layout.pixel
        self.parameters = {"weight": per_channel, "bias": per_channel}
        self.statistics = {"running_mean": per_channel, "running_var": per_channel}
        self.saved_once = {"mean": (row, None), "var": (row, None)}
        self.kernel = _kernels.BatchNormKernel(layout.kernels, layout.extents, spec.eps, spec.momentum)

    def scratch_elements(self, batch_size: int) -> int:
        return int(self.kernel.scratch(batch_size))

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        affine = b.params["weight"], b.params["bias"]
        running = b.statistics["running_mean"], b.statistics["running_var"]
        if training:
            batch = b.saved["mean"], b.saved["var"]
            self.kernel.forward(n, b.x, *affine, b.y, *batch, *running, b.scratch)
        else:
            self.kernel.inference(n, b.x, *affine, *running, b.y, b.scratch)

    def backward(self, n: int) -> None:
        b = self.buffers
        batch, gradients = (b.saved["mean"], b.saved["var"]), (b.grads["weight"], b.grads["bias"])
        self.kernel.backward(n, b.dy, b.x, b.params["weight"], *batch, b.dx, *gradients, b.scratch)


class GroupNormStage(Stage):
    """Group normalisation, the same in training and otherwise."""

    def __init__(self, spec: GroupNormSpec, layout: ImageLayout) -> None:
        super().__init__(layout, layout)
        self.parameters = dict.fromkeys(("weight", "bias"), place_channels(layout))
        self.saved = {"mean": (spec.groups, None), "var": (spec.groups, None)}
        self.kernel = _kernels.GroupNormKernel(layout.kernels, layout.extents, spec.groups, spec.eps)

    def scratch_elements(self, batch_size: int) -> int:
        return int(self.kernel.scratch(batch_size))

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        affine, moments = (b.params["weight"], b.params["bias"]), (b.saved["mean"], b.saved["var"])
        self.kernel.forward(n, b.x, *affine, b.y, *moments, b.scratch)

    def backward(self, n: int) -> None:
        b = self.buffers
        moments, gradients = (b.saved["mean"], b.saved["var"]), (b.grads["weight"], b.grads["bias"])
        self.kernel.backward(n, b.dy, b.x, b.params["weight"], *moments, b.dx, *gradients, b.scratch)


class ScaleStage(Stage):
    """A factor and an offset for each channel."""

    def __init__(self, layout: ImageLayout) -> None:
        super().__init__(layout, layout)
        self.parameters = dict.fromkeys(("weight", "bias"), place_channels(layout))
        self.kernel = _kernels.ScaleKernel(layout.kernels, layout.extents)

    def scratch_elements(self, batch_size: int) -> int:
        return int(self.kernel.scratch(batch_size))

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        self.kernel.forward(n, b.x, b.params["weight"], b.params["bias"], b.y, b.scratch)

    def backward(self, n: int) -> None:
        b = self.buffers
        gradients = b.grads["weight"], b.grads["bias"]
        self.kernel.backward(n, b.dy, b.x, b.params["weight"], b.dx, *gradients, b.scratch)


class LrnStage(Stage):
    """Local response normalisation."""

    def __init__(self, spec: LrnSpec, layout: ImageLayout) -> None:
        super().__init__(layout, layout)
        self.kernel = _kernels.LrnKernel(
            layout.kernels, layout.extents, spec.size, spec.alpha, spec.beta, spec.k
        )

    def scratch_elements(self, batch_size: int) -> int:
        return int(self.kernel.scratch())

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        self.kernel.forward(n, b.x, b.y, b.scratch)

    def backward(self, n: int) -> None:
        b = self.buffers
        if b.dx is not None:
            self.kernel.backward(n, b.dy, b.x, b.dx, b.scratch)


def place_channels(layout: ImageLayout) -> ParameterLayout:
    """Where a parameter lies that has a number a channel."""
    channels = layout.channels
    return ParameterLayout((channels,), (layout.pixel,), lambda inner: inner[:channels])
