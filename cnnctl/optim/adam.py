"""Adam: steps scaled by running moments of the gradient. No AMSGrad, no decoupled decay."""

from dataclasses import dataclass
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import check_real
from cnnctl.optim.optimizer import Optimizer


@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- beta1 m + (1-beta1) g; v <- beta2 v + (1-beta2) g^2, g = dw + l2 w;
    w <- w - lr (m / (1-beta1^step)) / (sqrt(v / (1-beta2^step)) + eps).

    Raises ConfigError for lr or eps outside (0, inf) and betas outside [0, 1).
    Source: Kingma, Ba 2015, algorithm 1.
    """

    kind: ClassVar[str] = "adam"
    slots: ClassVar[tuple[str, ...]] = ("m", "v")

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_real("lr", self.lr, 0, above=True)
        check_real("beta1", self.beta1, 0, 1)
        check_real("beta2", self.beta2, 0, 1)
        check_real("eps", self.eps, 0, above=True)

    def update(
        self, backend: Backend, w: Array, dw: Array, slots: dict[str, Array], step: int, l2: float
    ) -> float:
        return backend.adam_update(
            w,
            dw,
            slots["m"],
            slots["v"],
            step=step,
            lr=self.lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            l2=l2,
        )
