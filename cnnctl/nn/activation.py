"""Activations: elementwise, without parameters. The formulas stand in the backends' contract."""

from typing import ClassVar

from cnnctl.backends import specs
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import ActivationSpec, Array, Spec
from cnnctl.nn.layer import Layer, Shape


class Activation(Layer):
    """y = activation(x), on any shape.

    Attributes:
        activation: the contract's name for it.
    """

    activation: ClassVar[specs.Activation]

    @property
    def spec(self) -> Spec:
        return ActivationSpec(self.activation)

    def infer_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        y = backend.activation_forward(x, self.activation)
        return y, (x, y)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        x, y = saved
        return backend.activation_backward(dy, x, y, self.activation), {}


class ReLU(Activation):
    """y = max(x, 0). The gradient at 0 is 0. Source: Nair, Hinton 2010."""

    kind: ClassVar[str] = "relu"
    activation: ClassVar[specs.Activation] = "relu"

    def sides(self) -> tuple[Array, ...]:
        return () if self._saved is None else (self._saved[1] > 0,)


class Tanh(Activation):
    """y = tanh(x), from -1 to 1."""

    kind: ClassVar[str] = "tanh"
    activation: ClassVar[specs.Activation] = "tanh"


class Sigmoid(Activation):
    """y = 1 / (1 + e^-x), from 0 to 1."""

    kind: ClassVar[str] = "sigmoid"
    activation: ClassVar[specs.Activation] = "sigmoid"


class GELU(Activation):
    """y = x Phi(x), Phi the normal distribution function. Source: Hendrycks, Gimpel 2016."""

    kind: ClassVar[str] = "gelu"
    activation: ClassVar[specs.Activation] = "gelu"
