"""What every optimizer is: settings, the names of its slots, and a backend's update operation.

An optimizer knows arrays, not layers, and keeps no state: momentum and moments live in
arrays that the caller owns, so that they can be saved, moved and laid out as it likes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array


class Optimizer(ABC):
    """A rule that moves weights along their gradients.

    Attributes:
        kind: the YAML key.
        slots: names of the state arrays that go with each parameter; all start at 0.
    """

    kind: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]

    @abstractmethod
    def update(
        self, backend: Backend, w: Array, dw: Array, slots: dict[str, Array], step: int, l2: float
    ) -> float:
        """Change `w` and its `slots` in place; returns the sum of w^2 before it.

        `step` counts from 1. `l2` adds l2 w to the gradient: pass 0 for biases, and where
        `dw` holds that term already.
        """
