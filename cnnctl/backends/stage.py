"""Operations made ready to run: what a plan is made of.

A backend's contract (`base.py`) is stateless and speaks NCHW. A `Stage` is one operation
of it, fused or single, for extents that are known beforehand: it says which layout its
input and output have, how its parameters lie in memory and how much scratch it needs,
and then runs on buffers that were allocated once. This file says what stages are; each
backend has its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.specs import Array, RawImages, Shape


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
    def prepare(self, images: RawImages, buffer: Array) -> None:
        """Compute images and write them as `load` does."""

    @abstractmethod
    def read(self, buffer: Array, n: int) -> Array:
        """The first n images, as a new array (n, *shape)."""


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


@dataclass(slots=True)
class Buffers:
    """The memory one stage works on.

    Attributes:
        x, y: input and output.
        dx, dy: their gradients; dx is None where none is needed.
        accumulate: whether dx holds a gradient already, to which the stage's own is added.
        r, dr: the second input of a stage that adds one, and its gradient.
        params, grads, statistics: as the stage's `parameters` and `statistics` name them.
        saved: what forward leaves for backward.
        scratch: room for one call, of `scratch_elements` elements.
    """

    x: Array
    y: Array
    dx: Array | None = None
    dy: Array | None = None
    accumulate: bool = False
    r: Array | None = None
    dr: Array | None = None
    params: Mapping[str, Array] = field(default_factory=dict)
    grads: Mapping[str, Array] = field(default_factory=dict)
    statistics: Mapping[str, Array] = field(default_factory=dict)
    saved: Mapping[str, Array] = field(default_factory=dict)
    scratch: Array | None = None


class Stage(ABC):
    """One operation for fixed extents, any number of images up to the planned batch.

    Attributes:
        input, output: layouts of x and y.
        parameters: names such as "weight" and where their elements lie.
        statistics: likewise, what training moves without a gradient.
        saved: what forward leaves for backward: name -> (elements an image, dtype).
        saved_once: likewise, elements for the whole batch.
        accumulates: whether backward can add to dx; it writes over it otherwise.
        seed: settles what is random in the next forward pass; set by whoever runs it.
        buffers: bound by whoever owns the memory, before the first run.
    """

    input: Layout
    output: Layout
    parameters: dict[str, ParameterLayout]
    statistics: dict[str, ParameterLayout]
    saved: dict[str, tuple[int, Any]]
    saved_once: dict[str, tuple[int, Any]]
    accumulates: ClassVar[bool] = False
    seed: int = 0
    buffers: Buffers

    def __init__(self, input_layout: Layout, output_layout: Layout) -> None:
        self.input, self.output = input_layout, output_layout
        self.parameters, self.statistics, self.saved, self.saved_once = {}, {}, {}, {}

    def scratch_elements(self, batch_size: int) -> int:
        """Elements of scratch, free to be overwritten between calls."""
        return 0

    @abstractmethod
    def forward(self, n: int, training: bool) -> None:
        """Fill the first n images of y from those of x.

        Training leaves what backward needs and moves the statistics; otherwise they are used.
        """

    @abstractmethod
    def backward(self, n: int) -> None:
        """From dy, x, y and what was saved: fill the gradients, and dx where there is one."""


class LossStage(ABC):
    """The loss at the end of a plan. Its forward pass may write over the scores."""

    @abstractmethod
    def forward(self, n: int, labels: Array) -> tuple[float, int]:
        """Mean loss over the first n rows of the scores, and how many were right."""

    @abstractmethod
    def backward(self, n: int, labels: Array) -> None:
        """Fill the first n rows of the scores' gradient."""
