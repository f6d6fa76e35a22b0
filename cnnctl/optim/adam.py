"""Adam and its kin: steps scaled by running moments of the gradient. No AMSGrad."""

from dataclasses import dataclass
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import check_real
from cnnctl.optim.optimizer import Optimizer


@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- beta1 m + (1-beta1) g; v <- beta2 v + (1-beta2) g^2, g = dw + (l2 + weight_decay) w;
    w <- w - lr (m / (1-beta1^step)) / (sqrt(v / (1-beta2^step)) + eps).

    Raises ConfigError for lr or eps outside (0, inf), betas outside [0, 1) and a weight_decay
    below 0. Source: Kingma, Ba 2015, algorithm 1.
    """

    kind: ClassVar[str] = "adam"
    slots: ClassVar[tuple[str, ...]] = ("m", "v")
    decoupled: ClassVar[bool] = False

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("beta1", self.beta1, 0, 1)
        check_real("beta2", self.beta2, 0, 1)
        check_real("eps", self.eps, 0, above=True)

    def update(
        self,
        backend: Backend,
        w: Array,
        dw: Array,
        slots: dict[str, Array],
        step: int,
        l2: float,
        lr_scale: float = 1.0,
    ) -> float:
        return backend.adam_update(
            w,
            dw,
            slots["m"],
            slots["v"],
            step=step,
            lr=self.lr * lr_scale,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay if self.decoupled else 0.0,
            l2=l2 if self.decoupled else l2 + self.weight_decay,
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with g = dw + l2 w, after w <- (1 - lr weight_decay) w: the decay is decoupled.

    Raises ConfigError as Adam does. Source: Loshchilov, Hutter 2019, algorithm 2.
    """

    kind: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True

    weight_decay: float = 0.01


@dataclass(frozen=True)
class Adamax(Adam):
    """m <- beta1 m + (1-beta1) g; u <- max(beta2 u, |g| + eps), g = dw + (l2 + weight_decay) w;
    w <- w - lr (m / (1-beta1^step)) / u.

    Raises ConfigError as Adam does. Source: Kingma, Ba 2015, algorithm 2, with PyTorch's eps.
    """

    kind: ClassVar[str] = "adamax"
    slots: ClassVar[tuple[str, ...]] = ("m", "u")

    lr: float = 2e-3

    def update(
        self,
        backend: Backend,
        w: Array,
        dw: Array,
        slots: dict[str, Array],
        step: int,
        l2: float,
        lr_scale: float = 1.0,
    ) -> float:
        return backend.adamax_update(
            w,
            dw,
            slots["m"],
            slots["u"],
            step=step,
            lr=self.lr * lr_scale,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            l2=l2 + self.weight_decay,
        )
