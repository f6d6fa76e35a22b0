"""Whole steps of a network, ours beside a peer's: do the losses agree, and who is faster?

All sides start from the same weights and see the same batches in the same order. A ratio is
given only where the losses agree and both sides took turns within one run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from statistics import median
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cnnctl.bench.conditions import Conditions, describe_conditions
from cnnctl.bench.engine import Engine
from cnnctl.bench.memory import measure_peak_memory
from cnnctl.bench.timing import Quartiles, time_turns
from cnnctl.bench.workload import Workload
from cnnctl.config import RunConfig
from cnnctl.data.dataset import Array
from cnnctl.errors import ConfigError

LOSS_STEPS, LOSS_BOUND, OWN_FACTOR = 10, 1e-3, 4.0
"""Losses agree within this bound, or that many times what two of the peer's candidates differ by."""
DOUBLE_STEPS, DOUBLE_BOUND = 5, 1e-9
"""And in float64 within this one: rounding is out of the way there, so that nothing can hide in it."""

LEAD_IN, LEAD_IN_S, TURN_STEPS = 1, 0.03, 4
"""Steps of a turn: the first ones, which find the other side's data in the caches, and perhaps its
threads on the cores, are not counted."""
PROBE_TURNS, RIVAL = 3, 1.25
"""A peer's candidates that the probe finds more than that many times slower than its fastest are out."""
AIM_S, FEWEST_STEPS, MOST_STEPS = 20.0, 16, 400
"""How long the counted steps shall take, and how few and many they may be for that."""
MEMORY_STEPS = 5

MB = 1e6

Note = Callable[[str], None]


class Side(Protocol):
    """A network made ready to run, by one contender."""

    def step(self, number: int) -> object:
        """Train on batch `number`, or evaluate it: what is timed."""

    def read_loss(self, number: int) -> float:
        """The same, and the batch's mean loss, with the penalty when training."""


class Contender(Protocol):
    """An engine, ours or a peer's, and how it is set. Hashable, and fit to be sent to another process."""

    @property
    def name(self) -> str: ...

    @property
    def layout(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def compiled(self) -> bool: ...

    @property
    def frugal(self) -> "Contender": ...

    def create_side(self, workload: Workload, *, evaluate: bool, dropout: bool = True) -> Side: ...


@dataclass(frozen=True, slots=True)
class Task:
    """What every contender has to do.

    Attributes:
        config: names data, network, solver, dtype and threads.
        evaluate: forward passes alone, in place of training steps.
        synthetic: random pixels in place of the data set.
    """

    config: RunConfig
    evaluate: bool = False
    synthetic: bool = False
    data_dir: str | None = None

    def load(self) -> Workload:
        """Its images and initial network."""
        return Workload(self.config, synthetic=self.synthetic, data_dir=self.data_dir)


@dataclass(frozen=True, slots=True)
class StepRow:
    """What one contender took.

    Attributes:
        source: what it gathers batches from: pixels, or images normalised beforehand, all of them.
        steps: how many were counted; fewer of a peer's slower candidates.
        peak_memory_mb: of a process that runs a few steps on pixels and nothing else, in 10^6
            bytes; None for a peer's slower candidates.
    """

    engine: str
    threads: int
    layout: str
    source: str
    step_ms: Quartiles
    images_per_second: float
    steps: int
    peak_memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A peer's candidate that does not run here, and why."""

    engine: str
    layout: str
    reason: str


@dataclass(frozen=True, slots=True)
class LossCheck:
    """How far losses from the same weights are apart: the largest |L - L_peer| / |L_peer| of some steps.

    In float32, rounding errors grow from step to step until two orders of summation of the same
    network differ in the third digit; the bound is therefore what the peer itself cannot keep.

    Attributes:
        difference: of our engines from the peer's fastest candidate.
        peer_difference: of another one, in the other layout if possible and not compiled, from that
            one; None where only one runs.
        double_difference: of our engines from it, all in float64.
    """

    difference: float
    peer_difference: float | None
    double_difference: float

    @property
    def bound(self) -> float:
        """How large `difference` may be."""
        return max(LOSS_BOUND, OWN_FACTOR * (self.peer_difference or 0.0))

    @property
    def agrees(self) -> bool:
        """Whether both sides compute the same; a NaN agrees with nothing."""
        return self.difference <= self.bound and self.double_difference <= DOUBLE_BOUND


@dataclass(frozen=True, slots=True)
class StepReport:
    """What came out.

    Attributes:
        ours: a row for each engine, in the order asked for.
        theirs: a row for each of the peer's candidates that runs here, the fastest first.
        losses: None without a peer.
    """

    conditions: Conditions
    threads: int
    batch_size: int
    ours: tuple[StepRow, ...]
    theirs: tuple[StepRow, ...]
    failures: tuple[Failure, ...]
    losses: LossCheck | None

    @property
    def ratio(self) -> float | None:
        """The peer's best median over that of our first engine; None unless the losses agree."""
        if self.losses is None or not self.losses.agrees:
            return None
        return self.theirs[0].step_ms.median / self.ours[0].step_ms.median


def measure_steps(
    task: Task,
    engines: Sequence[Engine],
    *,
    peer: bool = False,
    steps: int | None = None,
    note: Note = lambda _: None,
) -> StepReport:
    """Time engines of ours, and with `peer` PyTorch's candidates, on one task.

    Args:
        steps: how many to count of each, rounded up to whole turns; by default as many as take
            about `AIM_S`.
        note: hears what is being done.

    Raises ConfigError where PyTorch is wanted and missing, or knows no like of the network.
    """
    if peer and find_spec("torch") is None:
        raise ConfigError("peer: torch is not installed; install it with: pip install torch")
    workload = task.load()
    conditions = describe_conditions(engines[0].create_backend(workload), task.config.engine.dtype)
    with threadpool_limits(limits=workload.threads, user_api="blas"):
        sides: dict[Contender, Side] = {
            engine: engine.create_side(workload, evaluate=task.evaluate) for engine in engines
        }
        peers, failures = _start_peers(task, workload, note) if peer else ({}, ())
        note(f"probing {_list_names([*sides, *peers])}")
        probed = _time_sides(sides | peers, PROBE_TURNS)
        limit = RIVAL * min((median(probed[candidate]) for candidate in peers), default=0.0)
        finalists = sides | {c: side for c, side in peers.items() if median(probed[c]) <= limit}
        steps = steps or _choose_steps(sum(median(probed[contender]) for contender in finalists))
        note(f"timing {steps} steps each of {_list_names(finalists)}")
        seconds = probed | _time_sides(finalists, ceil(steps / TURN_STEPS))
        theirs = sorted(peers, key=lambda c: (c not in finalists, median(seconds[c])))
        wrong = find_wrong(task, workload, theirs, note)
        theirs = [candidate for candidate in theirs if candidate not in wrong]
        losses = check_losses(task, workload, engines, theirs, note) if theirs else None
    peaks = {}
    for contender in (*engines, *theirs[:1]):
        note(f"measuring the peak memory of {_list_names([contender])}")
        peaks[contender] = measure_peak_memory(run_briefly, task, contender.frugal)

    def make_rows(contenders: Iterable[Contender]) -> tuple[StepRow, ...]:
        return tuple(_make_row(workload, c, seconds[c], peaks.get(c)) for c in contenders)

    return StepReport(
        conditions,
        workload.threads,
        workload.batch_size,
        ours=make_rows(engines),
        theirs=make_rows(theirs),
        failures=(*failures, *wrong.values()),
        losses=losses,
    )


def find_wrong(
    task: Task, workload: Workload, peers: Sequence[Contender], note: Note = lambda _: None
) -> dict[Contender, Failure]:
    """The peer's compiled candidates, from the fastest on, that don't compute what it does uncompiled.

    Ends at the first that does: what is slower is not compared with. (torch.compile of 2.13
    trains a network with local response normalisation wrongly.)
    """
    wrong: dict[Contender, Failure] = {}
    eager = next((peer for peer in peers if not peer.compiled), None)
    cast = workload.cast("float64")
    for peer in peers:
        if eager is None or not peer.compiled:
            break
        note(f"comparing the losses of {DOUBLE_STEPS} steps in float64: {_list_names([eager, peer])}")
        wanted, found = (
            read_losses(side.frugal, cast, DOUBLE_STEPS, evaluate=task.evaluate) for side in (eager, peer)
        )
        difference = _find_difference(found, wanted)
        if difference <= DOUBLE_BOUND:
            break
        reason = f"its losses differ by {difference:.1e} from those of {eager.name}, in float64"
        wrong[peer] = Failure(peer.name, peer.layout, reason)
    return wrong


def check_losses(
    task: Task,
    workload: Workload,
    engines: Sequence[Contender],
    peers: Sequence[Contender],
    note: Note = lambda _: None,
) -> LossCheck:
    """Compare our engines, and another candidate of the peer's, with the first of its candidates.

    Without dropout, since no two sides draw the same random numbers.
    """
    best, dtype = peers[0], task.config.engine.dtype
    others = sorted(peers[1:], key=lambda peer: (peer.compiled, peer.layout == best.layout))[:1]

    def compare(dtype: str, steps: int, contenders: Sequence[Contender]) -> list[float]:
        note(f"comparing the losses of {steps} steps in {dtype}: {_list_names([best, *contenders])}")
        cast = workload.cast(dtype)
        wanted, *found = (
            read_losses(contender.frugal, cast, steps, evaluate=task.evaluate)
            for contender in (best, *contenders)
        )
        return [_find_difference(losses, wanted) for losses in found]

    differences = compare(dtype, LOSS_STEPS, [*engines, *others])
    ours, theirs = differences[: len(engines)], differences[len(engines) :]
    double = compare("float64", DOUBLE_STEPS, engines)
    return LossCheck(float(np.max(ours)), theirs[0] if theirs else None, float(np.max(double)))


def _find_difference(losses: Array, wanted: Array) -> float:
    return float(np.max(np.abs(losses - wanted) / np.abs(wanted)))


def read_losses(contender: Contender, workload: Workload, steps: int, *, evaluate: bool) -> Array:
    """The losses of the first so many steps, dropout left out."""
    side = contender.create_side(workload, evaluate=evaluate, dropout=False)
    return np.array([side.read_loss(number) for number in range(steps)])


def run_briefly(task: Task, contender: Contender) -> None:
    """A few steps and nothing else: what peak memory is measured of."""
    workload = task.load()
    with threadpool_limits(limits=workload.threads, user_api="blas"):
        side = contender.create_side(workload, evaluate=task.evaluate)
        for number in range(MEMORY_STEPS):
            side.step(number)


def _start_peers(task: Task, workload: Workload, note: Note) -> tuple[dict[Contender, Side], list[Failure]]:
    """PyTorch's candidates that run here, and those that don't."""
    from cnnctl.bench.torch_peer import list_candidates

    sides: dict[Contender, Side] = {}
    failures = []
    note("choosing what PyTorch gathers its batches from")
    for candidate in list_candidates(workload):
        note(f"starting {_list_names([candidate])}")
        side = candidate.create_side(workload, evaluate=task.evaluate)
        try:
            side.step(0)
        except Exception as error:
            if not candidate.compiled:
                raise
            # A compiler that is missing or fails here may raise anything.
            failures.append(Failure(candidate.name, candidate.layout, _first_line(error)))
        else:
            sides[candidate] = side
    return sides, failures


def _time_sides(sides: Mapping[Contender, Side], turns: int) -> dict[Contender, list[float]]:
    actions = {contender: side.step for contender, side in sides.items()}
    return time_turns(actions, turns, calls=TURN_STEPS, lead_in=LEAD_IN, lead_in_s=LEAD_IN_S, warmup=1)


def _choose_steps(seconds: float) -> int:
    """How many steps to time when one of every contender takes that long together."""
    return min(max(int(AIM_S / seconds), FEWEST_STEPS), MOST_STEPS)


def _make_row(
    workload: Workload, contender: Contender, seconds: Sequence[float], peak_bytes: int | None
) -> StepRow:
    step_ms = Quartiles.of_seconds(seconds)
    return StepRow(
        engine=contender.name,
        threads=workload.threads,
        layout=contender.layout,
        source=contender.source,
        step_ms=step_ms,
        images_per_second=1e3 * workload.batch_size / step_ms.median,
        steps=len(seconds),
        peak_memory_mb=None if peak_bytes is None else peak_bytes / MB,
    )


def _list_names(contenders: Iterable[Contender]) -> str:
    return ", ".join(f"{contender.name} {contender.layout}" for contender in contenders)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
