"""Stochastic gradient descent, with momentum and Nesterov's look-ahead. No dampening."""

from dataclasses import dataclass
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError, check_real
from cnnctl.optim.optimizer import Optimizer


@dataclass(frozen=True)
class SGD(Optimizer):
    """v <- momentum v + g; w <- w - lr (g + momentum v if nesterov else v), g = dw + l2 w.

    Raises ConfigError for lr outside (0, inf), momentum outside [0, 1), and nesterov
    without momentum. Source: Sutskever et al. 2013, in PyTorch's form.
    """

    kind: ClassVar[str] = "sgd"
    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    lr: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_real("lr", self.lr, 0, above=True)
        check_real("momentum", self.momentum, 0, 1)
        if self.nesterov and not self.momentum:
            raise ConfigError(f"nesterov: {self.nesterov} needs a momentum above 0, got {self.momentum}")

    def update(
        self, backend: Backend, w: Array, dw: Array, slots: dict[str, Array], step: int, l2: float
    ) -> float:
        return backend.sgd_update(
            w, dw, slots["velocity"], lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, l2=l2
        )
