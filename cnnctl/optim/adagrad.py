"""AdaGrad: steps scaled by all gradients so far. Its learning rate decays by a schedule only."""

from dataclasses import dataclass
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import check_real
from cnnctl.optim.optimizer import Optimizer


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """s <- s + g^2; w <- w - lr g / (sqrt(s) + eps), g = dw + (l2 + weight_decay) w.

    Raises ConfigError for lr or eps outside (0, inf) and a weight_decay below 0.
    Source: Duchi et al. 2011, section 1.3.
    """

    kind: ClassVar[str] = "adagrad"
    slots: ClassVar[tuple[str, ...]] = ("square",)

    lr: float = 0.01
    eps: float = 1e-10
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
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
        return backend.adagrad_update(
            w, dw, slots["square"], lr=self.lr * lr_scale, eps=self.eps, l2=l2 + self.weight_decay
        )
