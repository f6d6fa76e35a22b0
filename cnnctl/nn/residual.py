"""Residual blocks: two branches that read the same input, and their sum."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import AddSpec, Array, Shape, Spec
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.nn.initializers import Initializer
from cnnctl.nn.layer import Layer, choose_names


class Residual(Layer):
    """y = layers(x) + shortcut(x), with x itself where there is no shortcut.

    Args:
        layers: the main branch, at least one layer.
        shortcut: the other branch, such as a 1x1 convolution where extents change.

    Both branches have to come to the same shape: ShapeError otherwise. Layers of a block are
    called by its name and theirs, such as residual1.conv2. Source: He et al. 2016.
    """

    kind: ClassVar[str] = "residual"

    def __init__(
        self, layers: Sequence[Layer], shortcut: Sequence[Layer] = (), name: str | None = None
    ) -> None:
        super().__init__(name)
        if not layers:
            raise ConfigError("layers: a residual block without layers computes nothing; give at least one")
        self.layers, self.shortcut = tuple(layers), tuple(shortcut)

    @property
    def spec(self) -> Spec:
        return AddSpec()

    @property
    def parameter_count(self) -> int:
        return sum(layer.parameter_count for layer in self.walk())

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.walk())

    def walk(self) -> Iterator[Layer]:
        for layer in (*self.shortcut, *self.layers):
            yield from layer.walk()

    def assign_name(self, name: str) -> None:
        self.name = name
        for branch, prefix in ((self.shortcut, f"{name}.shortcut"), (self.layers, name)):
            for layer, own in zip(branch, choose_names(branch) if branch else (), strict=True):
                layer.assign_name(f"{prefix}.{own}")

    def check_unused(self) -> None:
        super().check_unused()
        for branch in (self.shortcut, self.layers):
            if branch:
                choose_names(branch)

    def infer_shape(self, input_shape: Shape) -> Shape:
        main, shortcut = (_infer_sequence(branch, input_shape) for branch in (self.layers, self.shortcut))
        if main != shortcut:
            raise ShapeError(f"the block's layers come to {main}, its shortcut to {shortcut}")
        return main

    def _draw_params(
        self, input_shape: Shape, dtype: np.dtype[Any], rng: np.random.Generator, init: Initializer | None
    ) -> dict[str, Array]:
        for branch in (self.shortcut, self.layers):
            shape = input_shape
            for layer in branch:
                shape = layer.build(shape, dtype, rng, init)
        return {}

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        branches = []
        for branch in (self.layers, self.shortcut):
            y = x
            for layer in branch:
                y = layer.forward(y, backend, training=training)
            branches.append(y)
        main, shortcut = branches
        return main + shortcut, ()

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        gradients = []
        for branch in (self.layers, self.shortcut):
            dx: Array | None = dy
            for index in reversed(range(len(branch))):
                assert dx is not None
                dx = branch[index].backward(dx, backend, need_dx=need_dx or index > 0)
            gradients.append(dx)
        main, shortcut = gradients
        return None if main is None or shortcut is None else main + shortcut, {}


def _infer_sequence(layers: Sequence[Layer], shape: Shape) -> Shape:
    for layer in layers:
        try:
            shape = layer.infer_shape(shape)
        except ShapeError as error:
            raise ShapeError(f"{layer.kind}: {error}") from error
    return shape
