"""Activations: elementwise, without parameters. ReLU only."""

from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.nn.layer import Layer, Shape


class ReLU(Layer):
    """y = max(x, 0), on any shape. The gradient at 0 is 0. Source: Nair, Hinton 2010."""

    kind: ClassVar[str] = "relu"

    def infer_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def _forward(self, x: Array, backend: Backend) -> tuple[Array, tuple[Array, ...]]:
        y = backend.relu_forward(x)
        return y, (y,)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        (y,) = saved
        return backend.relu_backward(dy, y), {}
