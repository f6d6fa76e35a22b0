"""What every optimizer is: settings, the names of its slots, and a backend's update operation.

An optimizer knows arrays, not layers, and keeps no state: momentum and moments live in
arrays that the caller owns, so that they can be saved, moved and laid out as it likes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import check_real


class Optimizer(ABC):
    """A rule that moves weights along their gradients.

    Attributes:
        kind: the YAML key.
        lr: learning rate, above 0.
        weight_decay: pulls every weight it is given towards 0, and shows in no loss: as PyTorch's.
            Coupled, it is added to l2; decoupled (AdamW, Lion), w shrinks by lr weight_decay w.
    """

    kind: ClassVar[str]

    lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        check_real("lr", self.lr, 0, above=True)
        check_real("weight_decay", self.weight_decay, 0)

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Names of the state arrays that go with each parameter; all start at 0."""

    @abstractmethod
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
        """Change `w` and its `slots` in place; returns the sum of w^2 before it, or NaN.

        NaN says that `w` or a slot is not finite now, as is so wherever `dw` was not.
        `step` counts from 1. `l2` adds l2 w to the gradient: pass 0 for biases, and where
        `dw` holds that term already. The learning rate is lr lr_scale.
        """
