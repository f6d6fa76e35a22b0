"""What every layer is: a name, parameters, shapes, and the backend operation it means.

A layer checks what it is given, calls a backend and remembers what the backward pass
needs. It does no maths that the backend contract has, knows no optimizer, converts no
element type, and lives in one network only.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, Shape, Spec
from cnnctl.errors import CnnctlError, ConfigError, DtypeError, ShapeError
from cnnctl.nn.initializers import Initializer


class Layer(ABC):
    """One step of a network. `Network` names and builds it; until then it has no parameters.

    Attributes:
        kind: the YAML key.
        regularized: keys of the parameters that the l1 and l2 penalties apply to; never a bias.
        name: unique in the network, "" until there is one.
        params: parameters in the backend contract's shapes, {} where there are none.
        statistics: arrays that training moves without a gradient, {} where there are none.
        grads: dL/dparams of the last backward pass, with the keys of `params`.
        input_shape, output_shape: extents per image, () until built.
        dtype: of parameters, inputs and outputs; None until built.
        frozen: whether a training pass acts as one without training, but for the backward pass that
            can follow: dropout keeps all, norms take their running statistics and leave them alone.
            A plan does not know of it.
    """

    kind: ClassVar[str]
    regularized: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not (isinstance(name, str) and re.fullmatch(r"[A-Za-z][\w-]*", name, re.A)):
            raise ConfigError(f"name: {name!r} is not a letter followed by letters, digits, _ and -")
        self.name = name or ""
        self.params: dict[str, Array] = {}
        self.statistics: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.input_shape: Shape = ()
        self.output_shape: Shape = ()
        self.dtype: np.dtype[Any] | None = None
        self.frozen = False
        self._saved: tuple[Array, ...] | None = None

    def __repr__(self) -> str:
        label = f"{type(self).__name__} {self.name}".rstrip()
        if not self.output_shape:
            return f"<{label}: not in a network>"
        shapes = f"{self.input_shape} -> {self.output_shape}"
        return f"<{label}: {shapes}, {self.parameter_count:,} parameters>"

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """The backend operation it means."""

    @property
    def steps(self) -> tuple["Layer", ...]:
        """What a plan runs one after the other in its place: itself, if it is one operation."""
        return (self,)

    def walk(self) -> Iterator["Layer"]:
        """The layers it consists of: itself, unless it is a block of others."""
        yield self

    def assign_name(self, name: str) -> None:
        """Take the name that the network chose."""
        self.name = name

    @property
    def parameter_count(self) -> int:
        """How many numbers are learnt."""
        return sum(array.size for array in self.params.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one forward pass of one image, bias left out."""
        return 0

    def check_unused(self) -> None:
        """Refuse a layer that belongs to a network: its parameters would be shared or lost."""
        if self.output_shape:
            raise ConfigError(
                f"{self.name}: this layer is in a network already; make another {self.kind} layer"
            )

    @abstractmethod
    def infer_shape(self, input_shape: Shape) -> Shape:
        """The output shape for such an input. Changes nothing; raises ShapeError if it does not fit."""

    def build(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None = None,
    ) -> Shape:
        """Settle the shapes and draw the parameters; returns the output shape.

        `init` is for a layer that names no initializer of its own. Raises ConfigError when the
        layer is built already and ShapeError when `input_shape` does not fit.
        """
        self.check_unused()
        output_shape = self.infer_shape(input_shape)
        self.params = self._draw_params(input_shape, dtype, rng, init)
        self.input_shape, self.output_shape, self.dtype = input_shape, output_shape, dtype
        return output_shape

    def forward(self, x: Array, backend: Backend, *, training: bool) -> Array:
        """y (N, *output_shape) for x (N, *input_shape). With `training`, a backward pass can follow.

        Raises ShapeError or DtypeError for an x of another shape or dtype than the network's.
        """
        self._check("x", x, self.input_shape)
        y, saved = self._forward(x, backend, training)
        if training:
            self._saved = saved
        return y

    def backward(self, dy: Array, backend: Backend, *, need_dx: bool = True) -> Array | None:
        """dx, shaped as x was, for dy (N, *output_shape), of the last forward pass with training=True.

        None unless needed. Sets `grads`. Raises CnnctlError without such a forward pass, and
        ShapeError or DtypeError as `forward` does.
        """
        if self._saved is None:
            raise CnnctlError(f"{self.name}: backward needs a forward pass with training=True before it")
        self._check("dy", dy, self.output_shape)
        dx, self.grads = self._backward(dy, self._saved, backend, need_dx)
        return dx if need_dx else None

    def sides(self) -> tuple[Array, ...]:
        """On which side of each of its kinks the last forward pass with training=True stood.

        Gradients are checked by differences, which must not cross a kink: a layer that has some
        says so here, as `ReLU` does with y > 0. Most have none.
        """
        return ()

    def _draw_params(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None,
    ) -> dict[str, Array]:
        return {}

    @abstractmethod
    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        """y, and the arrays that the backward pass needs after training."""

    @abstractmethod
    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        """dx and the gradients of the parameters."""

    def _check(self, field: str, array: Array, shape: Shape) -> None:
        if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
            wanted = ", ".join(map(str, ("N", *shape)))
            raise ShapeError(f"{self.name}: {field}: shape {array.shape} is not ({wanted})")
        if array.dtype != self.dtype:
            raise DtypeError(
                f"{self.name}: {field}: dtype {array.dtype} where the network has {self.dtype}; "
                f"convert it with {field}.astype({str(self.dtype)!r})"
            )


def as_count(value: object, field: str) -> int:
    """Read a number of things, at least one. Raises ShapeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ShapeError(f"{field}: {value!r} is not an integer")
    if value < 1:
        raise ShapeError(f"{field}: {value!r} is below 1")
    return int(value)


def as_image(shape: Shape) -> tuple[int, int, int]:
    """Read the input shape of a layer that slides over images. Raises ShapeError if it is a vector's."""
    if len(shape) != 3:
        raise ShapeError(f"input of shape {shape} is not an image (C, H, W)")
    return shape[0], shape[1], shape[2]


def choose_names(layers: Sequence[object]) -> list[str]:
    """A name for each layer.

    Raises ConfigError for what is no layer, in a network already, or named as another is.
    """
    if not layers:
        raise ConfigError("layers: a network without layers computes nothing; give at least one")
    names: list[str] = []
    ordinals: Counter[str] = Counter()
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ConfigError(
                f"layers: {layer!r} is not a layer; give instances such as Conv(32, 3) or ReLU()"
            )
        layer.check_unused()
        ordinals[layer.kind] += 1
        name = layer.name or f"{layer.kind}{ordinals[layer.kind]}"
        if any(layer is other for other in layers[:index]):
            raise ConfigError(
                f"{name}: the same {layer.kind} layer stands in the network twice; make another"
            )
        if name in names:
            raise ConfigError(f"name: {name!r} is the name of two layers; give one of them another")
        names.append(name)
    return names
