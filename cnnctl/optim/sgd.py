"""Stochastic gradient descent, with momentum, dampening and Nesterov's look-ahead."""

from dataclasses import dataclass
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError, check_real
from cnnctl.optim.optimizer import Optimizer


@dataclass(frozen=True)
class SGD(Optimizer):
    """v <- momentum v + (1 - dampening) g; w <- w - lr (g + momentum v if nesterov else v),
    g = dw + (l2 + weight_decay) w. The first step is not dampened: v is g then.

    Raises ConfigError for lr outside (0, inf), momentum or dampening outside [0, 1),
    a weight_decay below 0, nesterov or dampening without momentum, and both together.
    Source: Sutskever et al. 2013, in PyTorch's form.
    """

    kind: ClassVar[str] = "sgd"
    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    lr: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("momentum", self.momentum, 0, 1)
        check_real("dampening", self.dampening, 0, 1)
        if self.nesterov and not self.momentum:
            raise ConfigError(f"nesterov: {self.nesterov} needs a momentum above 0, got {self.momentum}")
        if self.dampening and not self.momentum:
            raise ConfigError(f"dampening: {self.dampening} needs a momentum above 0, got {self.momentum}")
        if self.dampening and self.nesterov:
            raise ConfigError(f"dampening: {self.dampening} does not go with nesterov; give 0")

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
        return backend.sgd_update(
            w,
            dw,
            slots["velocity"],
            lr=self.lr * lr_scale,
            momentum=self.momentum,
            dampening=self.dampening if step > 1 else 0.0,
            nesterov=self.nesterov,
            l2=l2 + self.weight_decay,
        )
