"""Schedules: what the learning rate of a step is multiplied by.

All are pure functions of the step, so that a run can be taken up anywhere; only `plateau`
looks back, at losses, and its state is the caller's to keep. Momentum is never scheduled.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import ClassVar

from cnnctl.errors import ConfigError, check_real


@dataclass(frozen=True, slots=True)
class Span:
    """The steps of a run that a schedule divides among its phases.

    Attributes:
        steps: all of them, from 0 to steps - 1.
        steps_per_epoch: steps of one pass over the training set.
        warmup: the first steps, in which the learning rate rises linearly to the schedule's value.
    """

    steps: int
    steps_per_epoch: int
    warmup: int = 0

    def share(self, step: int) -> float:
        """How much of what follows the warm-up is over: 0 when it begins, 1 after the last step."""
        return (step - self.warmup) / max(self.steps - self.warmup, 1)

    def count(self, epochs: float) -> int:
        """Steps of that many epochs, to the nearest one."""
        return round(epochs * self.steps_per_epoch)


@dataclass(frozen=True, slots=True)
class PlateauState:
    """What `ReduceOnPlateau` has seen.

    Attributes:
        scale: what it multiplies the learning rate by now.
        best: the lowest loss so far, None before the first.
        bad_epochs: epochs since then that were no better.
        cooldown: epochs yet to come that do not count as bad.
    """

    scale: float = 1.0
    best: float | None = None
    bad_epochs: int = 0
    cooldown: int = 0


class Schedule(ABC):
    """A factor for the learning rate, for each step of a run.

    Attributes:
        kind: the YAML key.
    """

    kind: ClassVar[str]

    @abstractmethod
    def scale(self, step: int, span: Span) -> float:
        """The factor for `step`, counted from the run's first (0); asked for once the warm-up is over."""

    def observe(self, state: PlateauState, loss: float) -> PlateauState:
        """The state after an epoch with that loss; most schedules are blind to it."""
        return state


def scale_step(schedule: Schedule, step: int, span: Span) -> float:
    """The factor for a step, counted from 0: (step + 1) / warmup of the schedule's at first.

    Source: Goyal et al. 2017, section 2.2 (gradual warm-up).
    """
    if step < span.warmup:
        return (step + 1) / span.warmup * schedule.scale(span.warmup, span)
    return schedule.scale(step, span)


@dataclass(frozen=True)
class Constant(Schedule):
    """1 throughout."""

    kind: ClassVar[str] = "constant"

    def scale(self, step: int, span: Span) -> float:
        return 1.0


@dataclass(frozen=True)
class Step(Schedule):
    """gamma^floor(epoch / epochs), the epoch counted from the run's first step.

    Raises ConfigError for epochs outside (0, inf) and gamma outside (0, inf).
    """

    kind: ClassVar[str] = "step"

    epochs: float
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_real("epochs", self.epochs, 0, above=True)
        check_real("gamma", self.gamma, 0, above=True)

    def scale(self, step: int, span: Span) -> float:
        return float(self.gamma ** (step // max(span.count(self.epochs), 1)))


@dataclass(frozen=True)
class MultiStep(Schedule):
    """gamma^(how many of `epochs` are over), counted from the run's first step.

    Raises ConfigError for epochs below 0 or not in ascending order, and gamma outside (0, inf).
    """

    kind: ClassVar[str] = "multistep"

    epochs: Sequence[float]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        for epoch in self.epochs:
            check_real("epochs", epoch, 0)
        if list(self.epochs) != sorted(self.epochs):
            raise ConfigError(f"epochs: {list(self.epochs)} are not in ascending order")
        check_real("gamma", self.gamma, 0, above=True)

    def scale(self, step: int, span: Span) -> float:
        return float(self.gamma ** sum(step >= span.count(epoch) for epoch in self.epochs))


@dataclass(frozen=True)
class Exponential(Schedule):
    """gamma^epoch, a step down at the end of every epoch. Raises ConfigError for gamma outside (0, inf)."""

    kind: ClassVar[str] = "exponential"

    gamma: float

    def __post_init__(self) -> None:
        check_real("gamma", self.gamma, 0, above=True)

    def scale(self, step: int, span: Span) -> float:
        return float(self.gamma ** (step // span.steps_per_epoch))


@dataclass(frozen=True)
class Inverse(Schedule):
    """(1 + gamma t)^-power, t the steps since the warm-up.

    Raises ConfigError for gamma or power outside (0, inf). Source: Caffe's "inv"; with power 1
    it is the learning rate decay of PyTorch's Adagrad.
    """

    kind: ClassVar[str] = "inverse"

    gamma: float
    power: float = 1.0

    def __post_init__(self) -> None:
        check_real("gamma", self.gamma, 0, above=True)
        check_real("power", self.power, 0, above=True)

    def scale(self, step: int, span: Span) -> float:
        return float((1 + self.gamma * (step - span.warmup)) ** -self.power)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """(1 - t)^power, t the share of the steps after the warm-up that are over.

    Raises ConfigError for power outside (0, inf).
    """

    kind: ClassVar[str] = "polynomial"

    power: float = 1.0

    def __post_init__(self) -> None:
        check_real("power", self.power, 0, above=True)

    def scale(self, step: int, span: Span) -> float:
        return float(max(1 - span.share(step), 0.0) ** self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """min_scale + (1 - min_scale) (1 + cos(pi t)) / 2, t the share of steps after the warm-up that are over.

    Raises ConfigError for min_scale outside [0, 1). Source: Loshchilov, Hutter 2017, equation 5,
    without restarts.
    """

    kind: ClassVar[str] = "cosine"

    min_scale: float = 0.0

    def __post_init__(self) -> None:
        check_real("min_scale", self.min_scale, 0, 1)

    def scale(self, step: int, span: Span) -> float:
        return _anneal(1.0, self.min_scale, min(span.share(step), 1.0))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From 1/start_divisor up to 1, then down to 1/(start_divisor end_divisor), each along half a cosine.

    1 is reached at step rise T - 1 of T, the end at step T - 1. Momentum stays as it is.

    Raises ConfigError for rise outside (0, 1) and divisors outside (0, inf).
    Source: Smith, Topin 2018, in PyTorch's form.
    """

    kind: ClassVar[str] = "onecycle"

    rise: float = 0.3
    start_divisor: float = 25.0
    end_divisor: float = 1e4

    def __post_init__(self) -> None:
        check_real("rise", self.rise, 0, 1, above=True)
        check_real("start_divisor", self.start_divisor, 0, above=True)
        check_real("end_divisor", self.end_divisor, 0, above=True)

    def scale(self, step: int, span: Span) -> float:
        number, steps = step - span.warmup, max(span.steps - span.warmup, 1)
        start = 1 / self.start_divisor
        top, last = self.rise * steps - 1, steps - 1
        if number < top:
            return _anneal(start, 1.0, number / top)
        return _anneal(1.0, start / self.end_divisor, min((number - top) / (last - top), 1.0))


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """1 at first, times `factor` (but no less than min_scale) whenever more than `patience` epochs
    in a row have had a loss that was not below (1 - threshold) times the best.

    Then `cooldown` epochs pass that do not count. A loss that is not finite is never better.

    Raises ConfigError for factor outside (0, 1), threshold or min_scale outside [0, 1), and
    patience or cooldown below 0. Source: PyTorch's ReduceLROnPlateau, mode min, relative.
    """

    kind: ClassVar[str] = "plateau"

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    min_scale: float = 0.0

    def __post_init__(self) -> None:
        check_real("factor", self.factor, 0, 1, above=True)
        check_real("patience", self.patience, 0)
        check_real("threshold", self.threshold, 0, 1)
        check_real("cooldown", self.cooldown, 0)
        check_real("min_scale", self.min_scale, 0, 1)

    def scale(self, step: int, span: Span) -> float:
        return 1.0

    def observe(self, state: PlateauState, loss: float) -> PlateauState:
        scale, best, bad, cooldown = state.scale, state.best, state.bad_epochs + 1, state.cooldown
        if isfinite(loss) and (best is None or loss < best * (1 - self.threshold)):
            best, bad = loss, 0
        if cooldown:
            cooldown, bad = cooldown - 1, 0
        if bad > self.patience:
            scale, bad, cooldown = max(scale * self.factor, self.min_scale), 0, self.cooldown
        return PlateauState(scale, best, bad, cooldown)


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * share)) / 2
