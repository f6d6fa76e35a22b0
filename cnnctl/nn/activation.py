"""Activations: elementwise, with nothing to learn. The formulas stand in the backends' contract."""

from typing import ClassVar

from cnnctl.backends import specs
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import ALPHAS, ActivationSpec, Array, Shape, Spec
from cnnctl.errors import check_real
from cnnctl.nn.layer import Layer


class Activation(Layer):
    """y = activation(x), on any shape.

    Attributes:
        activation: the contract's name for it.
        alpha: the contract's parameter, None for an activation without one.
    """

    activation: ClassVar[specs.Activation]
    alpha: float | None = None

    @property
    def spec(self) -> Spec:
        return ActivationSpec(self.activation, self.alpha)

    def infer_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        y = backend.activation_forward(x, self.activation, self.alpha)
        return y, (x, y)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        x, y = saved
        return backend.activation_backward(dy, x, y, self.activation, self.alpha), {}


class Kinked(Activation):
    """An activation whose derivative jumps at 0, where y is 0 too."""

    def sides(self) -> tuple[Array, ...]:
        return () if self._saved is None else (self._saved[1] > 0,)


class ReLU(Kinked):
    """y = max(x, 0). The gradient at 0 is 0. Source: Nair, Hinton 2010."""

    kind: ClassVar[str] = "relu"
    activation: ClassVar[specs.Activation] = "relu"


class LeakyReLU(Kinked):
    """y = x where x is above 0, slope x elsewhere. The gradient at 0 is that of the left side.

    Args:
        slope: of the left side, above 0.

    Raises ConfigError for a slope out of range. Source: Maas, Hannun, Ng 2013.
    """

    kind: ClassVar[str] = "leaky_relu"
    activation: ClassVar[specs.Activation] = "leaky_relu"

    def __init__(self, slope: float = ALPHAS["leaky_relu"], name: str | None = None) -> None:
        super().__init__(name)
        check_real("slope", slope, 0, above=True)
        self.slope = self.alpha = slope


class ELU(Kinked):
    """y = x where x is above 0, alpha (e^x - 1) elsewhere, which tends to -alpha.

    The derivative jumps at 0 unless alpha is 1; there it is that of the left side.

    Args:
        alpha: above 0.

    Raises ConfigError for an alpha out of range. Source: Clevert, Unterthiner, Hochreiter 2016.
    """

    kind: ClassVar[str] = "elu"
    activation: ClassVar[specs.Activation] = "elu"

    def __init__(self, alpha: float = ALPHAS["elu"], name: str | None = None) -> None:
        super().__init__(name)
        check_real("alpha", alpha, 0, above=True)
        self.alpha = alpha


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


class SiLU(Activation):
    """y = x / (1 + e^-x), also called swish. Source: Elfwing, Uchibe, Doya 2018."""

    kind: ClassVar[str] = "silu"
    activation: ClassVar[specs.Activation] = "silu"
