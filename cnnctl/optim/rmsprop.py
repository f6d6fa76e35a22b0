"""RMSprop: steps scaled by a running mean of squared gradients, centred or not, with momentum or not."""

from dataclasses import dataclass
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import check_real
from cnnctl.optim.optimizer import Optimizer


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s <- alpha s + (1-alpha) g^2, g = dw + (l2 + weight_decay) w; d = g / (sqrt(s) + eps);
    v <- momentum v + d; w <- w - lr v.

    Centred, a <- alpha a + (1-alpha) g as well, and s - a^2 is in the place of s in d. It has
    the slots it needs: `mean` (a) if centred, `velocity` (v) with momentum.

    Raises ConfigError for lr or eps outside (0, inf), alpha or momentum outside [0, 1), and a
    weight_decay below 0. Source: Tieleman, Hinton 2012, lecture 6.5; Graves 2013, section 4.2.
    """

    kind: ClassVar[str] = "rmsprop"

    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("alpha", self.alpha, 0, 1)
        check_real("eps", self.eps, 0, above=True)
        check_real("momentum", self.momentum, 0, 1)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("square", *["mean"] * self.centered, *["velocity"] * bool(self.momentum))

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
        return backend.rmsprop_update(
            w,
            dw,
            slots["square"],
            slots.get("mean"),
            slots.get("velocity"),
            lr=self.lr * lr_scale,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            l2=l2 + self.weight_decay,
        )
