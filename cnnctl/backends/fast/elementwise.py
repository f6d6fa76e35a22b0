"""Activations, dropout and sums on their own, as stages."""

import numpy as np

from cnnctl.backends.fast.layout import ACTIVATIONS, ImageLayout
from cnnctl.backends.specs import ActivationSpec, Array, DropoutSpec, choose_alpha, mix_seed, needs_input
from cnnctl.backends.stage import Stage


class ActivationStage(Stage):
    """An activation on its own."""

    input: ImageLayout

    def __init__(self, spec: ActivationSpec, layout: ImageLayout) -> None:
        super().__init__(layout, layout)
        self.kind = ACTIVATIONS.index(spec.activation)
        self.alpha = choose_alpha(spec.activation, spec.alpha)
        self.needs_x = needs_input(spec.activation)

    def forward(self, n: int, training: bool) -> None:
        layout, b = self.input, self.buffers
        layout.kernels.activation_forward(self.kind, self.alpha, layout.extents, n, b.x, b.y)

    def backward(self, n: int) -> None:
        layout, b = self.input, self.buffers
        if b.dx is not None:
            known = b.x if self.needs_x else b.y
            layout.kernels.activation_backward(self.kind, self.alpha, layout.extents, n, b.dy, known, b.dx)


class DropoutStage(Stage):
    """Dropout; whoever trains sets `seed` before each step."""

    input: ImageLayout

    def __init__(self, spec: DropoutSpec, layout: ImageLayout) -> None:
        super().__init__(layout, layout)
        self.rate, self.seed, self.spatial = spec.rate, spec.seed, spec.spatial

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        if training:
            self._drop(n, b.x, b.y)
        else:
            b.y[:n] = b.x[:n]

    def backward(self, n: int) -> None:
        b = self.buffers
        if b.dx is not None:
            self._drop(n, b.dy, b.dx)

    def _drop(self, n: int, x: Array | None, y: Array) -> None:
        layout, key = self.input, mix_seed(self.seed, 0)
        layout.kernels.dropout(layout.extents, n, self.rate, self.spatial, key, x, y)


class AddStage(Stage):
    """x + r, for branches that no convolution could take into its own."""

    def __init__(self, layout: ImageLayout) -> None:
        super().__init__(layout, layout)

    def forward(self, n: int, training: bool) -> None:
        b = self.buffers
        assert b.r is not None
        np.add(b.x[:n], b.r[:n], out=b.y[:n])

    def backward(self, n: int) -> None:
        b = self.buffers
        assert b.dy is not None
        for gradient in (b.dx, b.dr):
            if gradient is not None:
                gradient[:n] = b.dy[:n]
