"""What a row has seen so far: how many cases, how far from the truth, measured against which bound."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cnnctl.backends.specs import Array


class Mismatch(AssertionError):
    """A promise did not hold; the message says where and by how much."""


@dataclass
class Tally:
    """Counts and worst errors, kept apart by label, such as "fast float32".

    Attributes:
        counts: cases compared, by label; "void" are those that show too little to count.
        worst: the largest error as a share of its bound, by label.
    """

    counts: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)

    def note(self, label: str, share: float) -> None:
        """Keep the largest share of a bound that was used up."""
        self.worst[label] = max(self.worst.get(label, 0.0), share)

    def add(self, other: "Tally") -> None:
        """Take over what another process has seen."""
        self.counts.update(other.counts)
        for label, share in other.worst.items():
            self.note(label, share)


def check_equal(label: str, name: str, actual: Array, wanted: Array, dtype: str | None = None) -> None:
    """The same shape, element type and numbers, NaN like NaN; the sign of a zero is free."""
    if actual.shape != wanted.shape:
        raise Mismatch(f"{label}: {name} has shape {actual.shape}, not {wanted.shape}")
    if actual.dtype != (dtype or wanted.dtype):
        raise Mismatch(f"{label}: {name} is {actual.dtype}, not {dtype or wanted.dtype}")
    wrong = (actual != wanted) & ~(np.isnan(actual) & np.isnan(wanted))
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        raise Mismatch(
            f"{label}: {name}{list(place)} = {actual[place]}, not {wanted[place]}; "
            f"{np.count_nonzero(wrong)} of {wrong.size} differ"
        )


def check_bounded(
    tally: Tally, label: str, name: str, actual: Array, wanted: Array, bound: Array | float, dtype: str
) -> None:
    """Within the bound of the truth everywhere; notes the largest share of it."""
    if actual.shape != wanted.shape or actual.dtype != dtype:
        found = f"{actual.dtype} {actual.shape}"
        raise Mismatch(f"{label}: {name} is {found}, not {dtype} {wanted.shape}")
    error = np.abs(actual - wanted)
    shares = np.where(error == 0, 0, error / np.maximum(bound, 1e-300))
    worst = float(shares.max(initial=0))
    if not worst <= 1:
        place = tuple(map(int, np.argwhere(~(shares <= 1))[0]))
        raise Mismatch(
            f"{label}: {name}{list(place)} = {actual[place]!r}, not {wanted[place]!r}: "
            f"{shares[place]:.3g} times its bound"
        )
    tally.note(label, worst)
