"""Lion: steps of one length, along the sign of a momentum."""

from dataclasses import dataclass
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import check_real
from cnnctl.optim.optimizer import Optimizer


@dataclass(frozen=True)
class Lion(Optimizer):
    """w <- (1 - lr weight_decay) w - lr sign(beta1 m + (1-beta1) g); m <- beta2 m + (1-beta2) g,
    g = dw + l2 w.

    Raises ConfigError for lr outside (0, inf), betas outside [0, 1) and a weight_decay below 0.
    Source: Chen et al. 2023, algorithm 2.
    """

    kind: ClassVar[str] = "lion"
    slots: ClassVar[tuple[str, ...]] = ("m",)

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("beta1", self.beta1, 0, 1)
        check_real("beta2", self.beta2, 0, 1)

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
        return backend.lion_update(
            w,
            dw,
            slots["m"],
            lr=self.lr * lr_scale,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            l2=l2,
        )
