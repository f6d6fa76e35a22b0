"""Normalisation: over the batch, and over neighbouring channels. No layer, group or instance norm."""

from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend, check_lrn_settings
from cnnctl.backends.composed import move_statistics
from cnnctl.backends.specs import Array, BatchNormSpec, LrnSpec, Spec
from cnnctl.errors import check_real
from cnnctl.nn.initializers import Initializer
from cnnctl.nn.layer import Layer, Shape, as_image


class BatchNorm(Layer):
    """y = weight (x - mean) / sqrt(var + eps) + bias, each channel by itself.

    In training, mean and var are the batch's own, over N, H and W; they also move
    running <- (1 - momentum) running + momentum batch, with the unbiased variance. Otherwise
    the running ones are used.

    Shapes: x (N,C,H,W) or (N,C), weight, bias, running_mean, running_var (C) -> y as x.

    Args:
        eps: keeps the divisor from 0, above 0.
        momentum: weight of the newest batch in the running statistics, in [0, 1).

    Raises ConfigError for settings out of range. Source: Ioffe, Szegedy 2015.
    """

    kind: ClassVar[str] = "batchnorm"

    def __init__(self, eps: float = 1e-5, momentum: float = 0.1, name: str | None = None) -> None:
        super().__init__(name)
        check_real("eps", eps, 0, above=True)
        check_real("momentum", momentum, 0, 1)
        self.eps, self.momentum = eps, momentum

    @property
    def spec(self) -> Spec:
        return BatchNormSpec(self.eps, self.momentum)

    def infer_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def _draw_params(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None,
    ) -> dict[str, Array]:
        channels = input_shape[0]
        self.statistics = {"running_mean": np.zeros(channels, dtype), "running_var": np.ones(channels, dtype)}
        return {"weight": np.ones(channels, dtype), "bias": np.zeros(channels, dtype)}

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        gamma, beta = self.params["weight"], self.params["bias"]
        if not training:
            running = self.statistics["running_mean"], self.statistics["running_var"]
            return backend.batchnorm_inference(x, gamma, beta, *running, self.eps), ()
        y, mean, var = backend.batchnorm_forward(x, gamma, beta, self.eps)
        move_statistics(self.statistics, mean, var, x, self.momentum)
        return y, (x, mean, var)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        x, mean, var = saved
        dx, dgamma, dbeta = backend.batchnorm_backward(dy, x, self.params["weight"], mean, var, self.eps)
        return dx, {"weight": dgamma, "bias": dbeta}


class LocalResponseNorm(Layer):
    """y = x / (k + alpha/size (sum of x^2 over `size` neighbouring channels))^beta.

    Shapes: x (N,C,H,W) -> y likewise.

    Args:
        size: channels in a sum, half of them before each channel, zeros beyond the ends.
        alpha, beta, k: as in the formula; at least 0, at least 0, above 0.

    Raises ConfigError for settings out of range. Source: Krizhevsky et al. 2012, section 3.3,
    in PyTorch's form, which divides alpha by size.
    """

    kind: ClassVar[str] = "lrn"

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        check_lrn_settings(size, alpha, beta, k)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    @property
    def spec(self) -> Spec:
        return LrnSpec(self.size, self.alpha, self.beta, self.k)

    def infer_shape(self, input_shape: Shape) -> Shape:
        return as_image(input_shape)

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        return backend.lrn_forward(x, self.size, self.alpha, self.beta, self.k), (x,)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        (x,) = saved
        return backend.lrn_backward(dy, x, self.size, self.alpha, self.beta, self.k), {}
