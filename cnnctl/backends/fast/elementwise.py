"""Activations on their own, as stages."""

from cnnctl.backends.fast.layout import ImageLayout
from cnnctl.backends.stage import Stage


class ReluStage(Stage):
    """A ReLU on its own."""

    input: ImageLayout

    def __init__(self, layout: ImageLayout) -> None:
        self.input = self.output = layout
        self.parameters, self.saved = {}, {}

    def forward(self, n: int) -> None:
        self.input.kernels.relu_forward(n * self.input.size, self.buffers.x, self.buffers.y)

    def backward(self, n: int) -> None:
        b = self.buffers
        if b.dx is not None:
            self.input.kernels.relu_backward(n * self.input.size, b.dy, b.y, b.dx)
