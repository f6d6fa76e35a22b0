"""Operations made ready to run: what a plan is made of.

A backend's contract (`base.py`) is stateless and speaks NCHW. A `Stage` is one operation
of it, fused or single, for extents that are known beforehand: it says which layout its
input and output have, how its parameters lie in memory and how much scratch it needs,
and then runs on buffers that were allocated once. Nothing here allocates while running,
except the composed stages, which call the contract's own operations and thereby give
every backend stages that agree with it by construction.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnnctl.geometry import Window

if TYPE_CHECKING:
    from cnnctl.backends.base import Activation, Backend, Sandwich

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """Convolution with `filters` filters and whatever the sandwich puts behind it."""

    sandwich: "Sandwich"
    filters: int
    bias: bool


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """A fully connected layer with `units` outputs; an image before it is flattened."""

    units: int
    bias: bool
    activation: "Activation | None"


@dataclass(frozen=True, slots=True)
class MaxPoolSpec:
    """A max pooling that no convolution stands before."""

    window: Window


@dataclass(frozen=True, slots=True)
class ReluSpec:
    """A ReLU that no convolution or fully connected layer stands before."""


@dataclass(frozen=True, slots=True)
class FlattenSpec:
    """(C, H, W) to (C*H*W), where what follows does not flatten by itself."""


Spec = ConvSpec | LinearSpec | MaxPoolSpec | ReluSpec | FlattenSpec


class Layout(ABC):
    """How the images of one activation lie in a (batch, size) buffer.

    Attributes:
        shape: natural shape of one image, (C, H, W) or (D,).
        size: elements of the buffer an image takes, padding included.
    """

    shape: Shape
    size: int

    @abstractmethod
    def load(self, images: Array, buffer: Array) -> None:
        """Write images (n, *shape) into the first n rows; padding becomes zero."""

    @abstractmethod
    def read(self, buffer: Array, n: int) -> Array:
        """The first n images, as a new array (n, *shape)."""


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


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """Where a parameter's elements lie inside.

    Attributes:
        shape: natural shape, as the contract has it.
        inner: shape inside, padding included; padding is zero and stays zero.
        view: from an inner array to its elements in natural order, sharing memory.
    """

    shape: Shape
    inner: Shape
    view: Callable[[Array], Array]

    def load(self, natural: Array, inner: Array) -> None:
        """Write a parameter of natural shape into its inner array."""
        elements = self.view(inner)
        elements[...] = natural.reshape(elements.shape)

    def read(self, inner: Array) -> Array:
        """The parameter as a new array of natural shape."""
        return np.array(self.view(inner), order="C").reshape(self.shape)


def natural_parameter(shape: Shape) -> ParameterLayout:
    """A parameter that lies inside as it does outside."""
    return ParameterLayout(shape, shape, lambda inner: inner)


@dataclass(slots=True)
class Buffers:
    """The memory one stage works on. `dx` is None where no input gradient is needed."""

    x: Array
    y: Array
    dx: Array | None = None
    dy: Array | None = None
    params: Mapping[str, Array] = field(default_factory=dict)
    grads: Mapping[str, Array] = field(default_factory=dict)
    saved: Mapping[str, Array] = field(default_factory=dict)
    scratch: Array | None = None


class Stage(ABC):
    """One operation for fixed extents, any number of images up to the planned batch.

    Attributes:
        input, output: layouts of x and y.
        parameters: "weight", "bias" and where their elements lie.
        saved: what forward leaves for backward: name -> (elements an image, dtype).
        buffers: bound by whoever owns the memory, before the first run.
    """

    input: Layout
    output: Layout
    parameters: Mapping[str, ParameterLayout]
    saved: Mapping[str, tuple[int, Any]]
    buffers: Buffers

    def scratch_elements(self, batch_size: int) -> int:
        """Elements of scratch, free to be overwritten between calls."""
        return 0

    @abstractmethod
    def forward(self, n: int) -> None:
        """Fill the first n images of y from those of x."""

    @abstractmethod
    def backward(self, n: int) -> None:
        """From dy, x, y and what was saved: fill the gradients, and dx where there is one."""


class LossStage(ABC):
    """The loss at the end of a plan, with buffers of its own for p and the gradient."""

    @abstractmethod
    def forward(self, n: int, labels: Array) -> tuple[float, int]:
        """Mean loss over the first n rows of the scores, and how many were right."""

    @abstractmethod
    def backward(self, n: int, labels: Array) -> None:
        """Fill the first n rows of the scores' gradient."""


class ComposedStage(Stage):
    """A stage of a backend that has no faster way than its own contract."""

    def __init__(self, backend: "Backend", spec: Spec, layout: Layout) -> None:
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
                    x.reshape(n, -1), b.params["weight"], b.params.get("bias"), activation
                )
            case MaxPoolSpec(window):
                y[...], index = backend.maxpool_forward(x, window)
            case ReluSpec():
                y[...] = backend.relu_forward(x)
            case FlattenSpec():
                y[...] = x.reshape(n, -1)
        if index is not None and "index" in b.saved:
            b.saved["index"][:n] = index.reshape(n, -1)

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
                    dy, x.reshape(n, -1), b.params["weight"], y, activation, need_dx=need_dx
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
            b.dx[:n] = dx.reshape(n, -1)

    @staticmethod
    def _images(layout: Layout, buffer: Array, n: int) -> Array:
        assert isinstance(layout, NaturalLayout)
        return layout.view(buffer, n)


class ComposedLoss(LossStage):
    """Softmax cross-entropy through the contract's operations."""

    def __init__(self, backend: "Backend", scores: Array, dscores: Array | None) -> None:
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
    parameters = {"weight": natural_parameter(weight)}
    if bias:
        parameters["bias"] = natural_parameter(weight[:1])
    return parameters
