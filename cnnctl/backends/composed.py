"""Stages composed of the contract's own operations, for backends that have no faster way.

They agree with the contract by construction, keep everything in its natural layout, and
allocate as numpy does.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import (
    Array,
    ConvSpec,
    FlattenSpec,
    LinearSpec,
    MaxPoolSpec,
    ReluSpec,
    Shape,
    Spec,
)
from cnnctl.backends.stage import Layout, LossStage, ParameterLayout, Stage


@dataclass(frozen=True)
class ComposedBackend(Backend):
    """A backend whose stages are its operations, one after the other."""

    def create_layout(self, shape: Shape, dtype: Any, first: Spec) -> Layout:
        return NaturalLayout(shape)

    def create_stage(self, spec: Spec, layout: Layout, dtype: Any) -> Stage:
        return ComposedStage(self, spec, layout)

    def create_loss(self, layout: Layout, scores: Array, dscores: Array | None) -> LossStage:
        return ComposedLoss(self, scores, dscores)


@dataclass(frozen=True)
class NaturalLayout(Layout):
    """NCHW, as outside."""

    shape: Shape

    @property
    def size(self) -> int:  # type: ignore[override]
        return prod(self.shape)

    def view(self, buffer: Array, n: int) -> Array:
        """The first n images as (n, *shape), sharing the buffer's memory."""
        return buffer[:n].reshape(n, *self.shape)

    def load(self, images: Array, buffer: Array) -> None:
        self.view(buffer, len(images))[...] = images

    def read(self, buffer: Array, n: int) -> Array:
        return self.view(buffer, n).copy()


class ComposedStage(Stage):
    """A stage of a backend that has no faster way than its own contract."""

    def __init__(self, backend: Backend, spec: Spec, layout: Layout) -> None:
        self.backend, self.spec, self.input = backend, spec, layout
        self.parameters, self.saved = {}, {}
        match spec:
            case ConvSpec(sandwich, filters, bias):
                channels, height, width = layout.shape
                weight = (filters, channels // sandwich.groups, *sandwich.window.kernel)
                shape: Shape = (filters, *sandwich.window.output_size(height, width))
                if sandwich.pool:
                    shape = (filters, *sandwich.pool.output_size(*shape[1:]))
                    self.saved = {"index": (prod(shape), np.int32)}
                self.parameters = _natural_parameters(weight, bias)
            case LinearSpec(units, bias, _):
                shape = (units,)
                self.parameters = _natural_parameters((units, prod(layout.shape)), bias)
            case MaxPoolSpec(window):
                channels, height, width = layout.shape
                shape = (channels, *window.output_size(height, width))
                self.saved = {"index": (prod(shape), np.int32)}
            case ReluSpec():
                shape = layout.shape
            case FlattenSpec():
                shape = (prod(layout.shape),)
        self.output = NaturalLayout(shape)

    def forward(self, n: int) -> None:
        b, backend = self.buffers, self.backend
        x, y = self._images(self.input, b.x, n), self._images(self.output, b.y, n)
        index: Array | None = None
        match self.spec:
            case ConvSpec(sandwich):
                y[...], index = backend.conv_sandwich_forward(
                    x, b.params["weight"], b.params.get("bias"), sandwich
                )
            case LinearSpec(_, _, activation):
                y[...] = backend.linear_sandwich_forward(
                    x.reshape(n, self.input.size), b.params["weight"], b.params.get("bias"), activation
                )
            case MaxPoolSpec(window):
                y[...], index = backend.maxpool_forward(x, window)
            case ReluSpec():
                y[...] = backend.relu_forward(x)
            case FlattenSpec():
                y[...] = x.reshape(y.shape)
        if index is not None and "index" in b.saved:
            b.saved["index"][:n] = index.reshape(n, self.output.size)

    def backward(self, n: int) -> None:
        b, backend = self.buffers, self.backend
        assert b.dy is not None
        x, y = self._images(self.input, b.x, n), self._images(self.output, b.y, n)
        dy = self._images(self.output, b.dy, n)
        index = b.saved["index"][:n].reshape(y.shape) if self.saved else None
        need_dx = b.dx is not None
        dx: Array | None = None
        gradients: tuple[Array, ...] = ()
        match self.spec:
            case ConvSpec(sandwich):
                dx, *gradients = backend.conv_sandwich_backward(  # type: ignore[assignment]
                    dy, x, b.params["weight"], y, index, sandwich, need_dx=need_dx
                )
            case LinearSpec(_, _, activation):
                dx, *gradients = backend.linear_sandwich_backward(  # type: ignore[assignment]
                    dy,
                    x.reshape(n, self.input.size),
                    b.params["weight"],
                    y,
                    activation,
                    need_dx=need_dx,
                )
            case MaxPoolSpec(window):
                assert index is not None
                dx = backend.maxpool_backward(dy, index, x.shape, window)
            case ReluSpec():
                dx = backend.relu_backward(dy, y)
            case FlattenSpec():
                dx = dy
        for gradient, target in zip(gradients, b.grads.values(), strict=False):
            target[...] = gradient
        if b.dx is not None and dx is not None:
            b.dx[:n] = dx.reshape(n, self.input.size)

    @staticmethod
    def _images(layout: Layout, buffer: Array, n: int) -> Array:
        assert isinstance(layout, NaturalLayout)
        return layout.view(buffer, n)


class ComposedLoss(LossStage):
    """Softmax cross-entropy through the contract's operations."""

    def __init__(self, backend: Backend, scores: Array, dscores: Array | None) -> None:
        self.backend, self.scores, self.dscores = backend, scores, dscores
        self.p: Array | None = None

    def forward(self, n: int, labels: Array) -> tuple[float, int]:
        scores = self.scores[:n]
        loss, self.p = self.backend.softmax_cross_entropy_forward(scores, labels)
        return loss, int((scores.argmax(axis=1) == labels).sum()) if n else 0

    def backward(self, n: int, labels: Array) -> None:
        assert self.dscores is not None
        assert self.p is not None
        self.dscores[:n] = self.backend.softmax_cross_entropy_backward(self.p, labels)


def _natural_parameters(weight: Shape, bias: bool) -> dict[str, ParameterLayout]:
    shapes = {"weight": weight, "bias": weight[:1]} if bias else {"weight": weight}
    return {key: ParameterLayout(shape, shape, lambda inner: inner) for key, shape in shapes.items()}
