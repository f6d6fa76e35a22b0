"""Normalisation: over the batch, over groups of channels of one image, and over neighbouring channels."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend, check_groups, check_lrn_settings
from cnnctl.backends.composed import move_statistics
from cnnctl.backends.specs import Array, BatchNormSpec, GroupNormSpec, LrnSpec, Shape, Spec
from cnnctl.errors import check_real
from cnnctl.nn.initializers import Initializer
from cnnctl.nn.layer import Layer, as_count, as_image


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
        if not training or self.frozen:
            running = self.statistics["running_mean"], self.statistics["running_var"]
            return backend.batchnorm_inference(x, gamma, beta, *running, self.eps), (x, *running)
        y, mean, var = backend.batchnorm_forward(x, gamma, beta, self.eps)
        move_statistics(self.statistics, mean, var, x, self.momentum)
        return y, (x, mean, var)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        x, mean, var = saved
        gamma = self.params["weight"]
        if self.frozen:  # the statistics are constants, the map is affine
            one, zero = np.ones_like(gamma), np.zeros_like(gamma)
            dx = backend.batchnorm_inference(dy, gamma, zero, zero, var, self.eps)
            dgamma = dy * backend.batchnorm_inference(x, one, zero, mean, var, self.eps)
            sums = tuple(array.sum(axis=(0, *range(2, x.ndim))) for array in (dgamma, dy))
            return dx, dict(zip(("weight", "bias"), sums, strict=True))
        dx, dgamma, dbeta = backend.batchnorm_backward(dy, x, gamma, mean, var, self.eps)
        return dx, {"weight": dgamma, "bias": dbeta}


class GroupedNorm(Layer):
    """What norms of single images share: y = weight (x - mean) / sqrt(var + eps) + bias.

    mean and var are those of a group of an image's neighbouring channels; weight and bias are the
    channel's. In training and otherwise the same: there are no running statistics, and no batch is
    too small.

    Shapes: x (N,C,H,W) or (N,C), weight and bias (C) -> y as x.
    """

    def __init__(self, eps: float = 1e-5, name: str | None = None) -> None:
        super().__init__(name)
        check_real("eps", eps, 0, above=True)
        self.eps = eps

    @abstractmethod
    def count_groups(self, channels: int) -> int:
        """How many groups so many channels fall into."""

    @property
    def spec(self) -> Spec:
        return GroupNormSpec(self.count_groups(self.input_shape[0]), self.eps)

    def infer_shape(self, input_shape: Shape) -> Shape:
        check_groups(self.count_groups(input_shape[0]), input_shape[0])
        return input_shape

    def _draw_params(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None,
    ) -> dict[str, Array]:
        return {"weight": np.ones(input_shape[0], dtype), "bias": np.zeros(input_shape[0], dtype)}

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        affine = self.params["weight"], self.params["bias"]
        y, mean, var = backend.groupnorm_forward(x, *affine, self.count_groups(x.shape[1]), self.eps)
        return y, (x, mean, var)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        x, mean, var = saved
        groups, weight = self.count_groups(x.shape[1]), self.params["weight"]
        dx, dw, db = backend.groupnorm_backward(dy, x, weight, mean, var, groups, self.eps)
        return dx, {"weight": dw, "bias": db}


class GroupNorm(GroupedNorm):
    """y = weight (x - mean) / sqrt(var + eps) + bias, over C/groups channels, H and W of one image.

    Shapes: x (N,C,H,W) or (N,C), weight and bias (C) -> y as x.

    Args:
        groups: of equally many channels, at least 1.
        eps: keeps the divisor from 0, above 0.

    Raises ConfigError for an eps out of range, ShapeError for groups that do not divide the
    channels. Source: Wu, He 2018.
    """

    kind: ClassVar[str] = "groupnorm"

    def __init__(self, groups: int, eps: float = 1e-5, name: str | None = None) -> None:
        super().__init__(eps, name)
        self.groups = as_count(groups, "groups")

    def count_groups(self, channels: int) -> int:
        return self.groups


class LayerNorm(GroupedNorm):
    """y = weight (x - mean) / sqrt(var + eps) + bias, over all of one image, or one whole vector.

    A group norm of one group. weight and bias are the channel's; of a vector, every element is a
    channel.

    Shapes: x (N,C,H,W) or (N,D), weight and bias (C) or (D) -> y as x.

    Args:
        eps: keeps the divisor from 0, above 0.

    Raises ConfigError for an eps out of range. Source: Ba, Kiros, Hinton 2016; for images with
    weights a channel, as in Wu, He 2018, section 3.
    """

    kind: ClassVar[str] = "layernorm"

    def count_groups(self, channels: int) -> int:
        return 1


class InstanceNorm(GroupedNorm):
    """y = weight (x - mean) / sqrt(var + eps) + bias, over H and W of one channel of one image.

    A group norm with a group for each channel.

    Shapes: x (N,C,H,W), weight and bias (C) -> y as x.

    Args:
        eps: keeps the divisor from 0, above 0.

    Raises ConfigError for an eps out of range, ShapeError for vectors.
    Source: Ulyanov, Vedaldi, Lempitsky 2016.
    """

    kind: ClassVar[str] = "instancenorm"

    def count_groups(self, channels: int) -> int:
        return channels

    def infer_shape(self, input_shape: Shape) -> Shape:
        return as_image(input_shape)


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
