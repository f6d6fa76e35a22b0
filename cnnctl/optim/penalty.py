"""What large weights cost. Knows arrays, not layers."""

from dataclasses import dataclass

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.errors import check_real


@dataclass(frozen=True, order=True, slots=True)
class Penalty:
    """l1 (sum of |w|) + 0.5 l2 (sum of w^2), added to the loss; with both, the elastic net.

    Its gradient is l1 sign(w) + l2 w, with sign(0) = 0. Raises ConfigError for a number below 0.
    Sources: Tibshirani 1996; Zou, Hastie 2005, in its naive form.
    """

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        for field in ("l1", "l2"):
            check_real(field, getattr(self, field), 0)

    def compute(self, w: Array) -> float:
        """That of one array, summed in float64."""
        w = w.astype(np.float64, copy=False)
        return self.l1 * float(np.abs(w).sum()) + 0.5 * self.l2 * float(np.square(w).sum())
