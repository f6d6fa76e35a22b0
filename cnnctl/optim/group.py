"""Groups of parameters, chosen by name, that an optimizer treats apart. Knows keys, not layers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from cnnctl.errors import check_real
from cnnctl.optim.optimizer import Optimizer
from cnnctl.optim.penalty import Penalty


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters whose keys match a pattern.

    Attributes:
        match: *, ? and [...] as in file names; "*.bias" is every bias, "conv1.*" all of conv1.
        lr_scale: multiplies the learning rate; 0 keeps the parameters as they are.
        l1, l2: in the place of the network's, for all that match, biases included; None for the
            network's, biases excepted.
        weight_decay: in the place of the optimizer's; None for the optimizer's.

    Raises ConfigError for a number below 0.
    """

    match: str
    lr_scale: float = 1.0
    l1: float | None = None
    l2: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        for field in ("lr_scale", "l1", "l2", "weight_decay"):
            if getattr(self, field) is not None:
                check_real(field, getattr(self, field), 0)

    def choose(self, keys: Iterable[str]) -> list[str]:
        """The keys that match."""
        return [key for key in keys if fnmatchcase(key, self.match)]

    def choose_penalty(self, usual: Penalty) -> Penalty:
        """What its parameters pay where others of their kind pay the usual."""
        return Penalty(
            usual.l1 if self.l1 is None else self.l1,
            usual.l2 if self.l2 is None else self.l2,
        )

    def adapt(self, optimizer: Optimizer) -> Optimizer:
        """The optimizer for this group."""
        if self.weight_decay is None:
            return optimizer
        return replace(optimizer, weight_decay=self.weight_decay)  # type: ignore[type-var]
