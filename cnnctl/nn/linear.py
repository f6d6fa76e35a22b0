"""Fully connected layers, and the flattening that comes before them."""

from math import prod
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, FlattenSpec, LinearSpec, Shape, Spec
from cnnctl.geometry import check_elements
from cnnctl.nn.initializers import Initializer, check_init, draw_params
from cnnctl.nn.layer import Layer, as_count


class Linear(Layer):
    """y = x weight^T + bias; images are read as vectors in the order C, H, W.

    Shapes: x (N,in) or (N,C,H,W) with in = C H W, weight (units,in), bias (units)
    -> y (N,units); dx is shaped as x.

    Args:
        units: how many outputs.
        bias: whether to add a learnt constant to each output.
        init: how the weight starts; the network's initializer by default.

    Raises ShapeError for units below 1.
    """

    kind: ClassVar[str] = "linear"
    regularized: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self, units: int, bias: bool = True, init: Initializer | None = None, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.units = as_count(units, "units")
        check_init(init)
        self.bias = bias
        self.init = init

    @property
    def spec(self) -> Spec:
        return LinearSpec(self.units, self.bias, None)

    @property
    def macs(self) -> int:
        return self.params["weight"].size

    def infer_shape(self, input_shape: Shape) -> Shape:
        check_elements((self.units, prod(input_shape)), "weight")
        return (self.units,)

    def _draw_params(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None,
    ) -> dict[str, Array]:
        shape = (self.units, prod(input_shape))
        return draw_params(self.init or init, shape, bias=self.bias, dtype=dtype, rng=rng)

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        rows = x.reshape(len(x), prod(self.input_shape))
        return backend.linear_forward(rows, self.params["weight"], self.params.get("bias")), (rows,)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        (rows,) = saved
        dx, dw, db = backend.linear_backward(dy, rows, self.params["weight"], need_dx=need_dx)
        if dx is not None:
            dx = dx.reshape(len(dx), *self.input_shape)
        return dx, {"weight": dw, "bias": db} if self.bias else {"weight": dw}


class Flatten(Layer):
    """Images as vectors, in the order C, H, W. Shapes: x (N,C,H,W) -> y (N, C H W)."""

    kind: ClassVar[str] = "flatten"

    @property
    def spec(self) -> Spec:
        return FlattenSpec()

    def infer_shape(self, input_shape: Shape) -> Shape:
        return (prod(input_shape),)

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        return x.reshape(len(x), *self.output_shape), ()

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        return dy.reshape(len(dy), *self.input_shape), {}
