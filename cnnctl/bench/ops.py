"""How fast each operation of a network is, beside what the processor could do at best.

Runs a plan's own stages on its own buffers in the order of a training step, over and over,
so that each finds the caches as it does in training. Changes no network and judges nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from statistics import median
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.bench.conditions import Conditions, describe_conditions
from cnnctl.bench.roofline import GIGA, Burst, calibrate_burst
from cnnctl.bench.timing import Action, time_turns
from cnnctl.bench.workload import CLASSES, Workload
from cnnctl.config import EngineConfig, RunConfig
from cnnctl.data import Batches, Normalizer, Split
from cnnctl.data.pipeline import RawBatch
from cnnctl.nn import Conv, Layer, Linear, Network, ReLU, Shape
from cnnctl.nn.plan import Plan
from cnnctl.optim import Adam
from cnnctl.train.build import build_backend, build_plan

SECONDS, FEWEST_TURNS = 5.0, 5
"""How long all is timed together, and how often each operation runs at least."""
BURST_S = 1e-3
"""How long the peak is measured in each turn."""
CASE_BATCH, CASE_BATCHES = 64, 4

MS, PERCENT, MB = 1e3, 1e2, 1e6

Direction = Literal["forward", "backward"]
Key = tuple[str, Direction]
STEP: Key = ("step", "forward")
PEAK: Key = ("peak", "forward")
Draw = Callable[[int], RawBatch]


@dataclass(frozen=True, slots=True)
class Case:
    """An operation to be measured by itself.

    Attributes:
        is_first: whether it stands for a network's first layer, which computes no input gradient.
    """

    name: str
    input_shape: Shape
    create: Callable[[], Layer]
    is_first: bool = False
    batch_size: int = CASE_BATCH

    @property
    def layer(self) -> str:
        """What its layer is called, and so its stage."""
        return f"{self.name.split()[0]}1"


CASES = (
    Case("conv 3x3 32->32 at 32x32", (32, 32, 32), lambda: Conv(32, 3, padding=1)),
    Case("conv 3x3 64->64 at 16x16", (64, 16, 16), lambda: Conv(64, 3, padding=1)),
    Case("conv 3x3 128->128 at 8x8", (128, 8, 8), lambda: Conv(128, 3, padding=1)),
    Case("conv 3x3 64->128 at 16x16, stride 2", (64, 16, 16), lambda: Conv(128, 3, stride=2, padding=1)),
    Case("conv 3x3 64 at 16x16, depthwise", (64, 16, 16), lambda: Conv(64, 3, padding=1, groups=64)),
    Case("conv 1x1 64->128 at 16x16", (64, 16, 16), lambda: Conv(128, 1)),
    Case("conv 5x5 32->64 at 16x16", (32, 16, 16), lambda: Conv(64, 5, padding=2)),
    Case("conv 5x5 1->6 at 28x28, first", (1, 28, 28), lambda: Conv(6, 5, padding=2), is_first=True),
    Case("conv 5x5 1->30 at 28x28, first", (1, 28, 28), lambda: Conv(30, 5), is_first=True),
    Case("conv 7x7 3->32 at 32x32, first", (3, 32, 32), lambda: Conv(32, 7, padding=3), is_first=True),
    Case("linear 4320->100", (4320, 1, 1), lambda: Linear(100), batch_size=100),
    Case("linear 8192->500", (8192, 1, 1), lambda: Linear(500), batch_size=50),
    Case("linear 4096->4096", (4096, 1, 1), lambda: Linear(4096), batch_size=128),
)


@dataclass(frozen=True, slots=True)
class OpRow:
    """One operation; None where a figure would mean nothing.

    Attributes:
        forward_ms, backward_ms: medians; backward computes every gradient that a step needs.
        forward_gflops, backward_gflops: 10^9 operations a second, two for each multiply-add of
            the textbook's sums, even where an algorithm needs fewer.
        forward_percent, backward_percent: of the measured peak of multiply-adds.
        gigabytes_per_second: 10^9 bytes of what has to be read and written.
        share_percent: of the time of all operations of the step.
        memory_mb: what the plan holds for it, in 10^6 bytes.
    """

    name: str
    batch_size: int
    forward_ms: float
    backward_ms: float | None = None
    forward_gflops: float | None = None
    backward_gflops: float | None = None
    forward_percent: float | None = None
    backward_percent: float | None = None
    gigabytes_per_second: float | None = None
    share_percent: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True, slots=True)
class OpsReport:
    """What came out.

    Attributes:
        fma_peak_gflops: what the processor can do with these instructions and threads.
        step_ms: median of whole steps; None where operations were measured by themselves.
    """

    conditions: Conditions
    threads: int
    fma_peak_gflops: float
    step_ms: float | None
    rows: tuple[OpRow, ...]


def measure_network(
    config: RunConfig,
    *,
    synthetic: bool = False,
    data_dir: str | None = None,
    seconds: float = SECONDS,
) -> OpsReport:
    """The operations of a config's training step, timed for about that long."""
    workload = Workload(config, synthetic=synthetic, data_dir=data_dir)
    backend, batches = build_backend(config.engine), workload.create_batches()
    conditions = describe_conditions(backend, config.engine.dtype)
    plan = build_plan(config.solver, workload.create_network(), workload.batch_size, backend)
    timed, step_s, peak = time_step(plan, lambda number: batches.draw(*workload.locate(number)), seconds)
    total_s = sum(entry.total_s for entry in timed)
    rows = [describe_timed(entry, peak, total_s) for entry in timed]
    return OpsReport(conditions, backend.threads, peak / GIGA, MS * step_s, tuple(rows))


def measure_cases(
    engine: EngineConfig, *, batch_size: int | None = None, seconds: float = SECONDS
) -> OpsReport:
    """The operations of `CASES` by themselves, timed for about that long together."""
    backend = build_backend(engine)
    conditions = describe_conditions(backend, engine.dtype)
    entries, peak = [], 0.0
    for case in CASES:
        plan, draw = create_case(case, backend, engine.dtype, batch_size or case.batch_size)
        timed, _, peak_now = time_step(plan, draw, seconds / len(CASES))
        entries += [entry for entry in timed if entry.operation.name == case.layer]
        peak = max(peak, peak_now)
    rows = [
        replace(describe_timed(entry, peak), name=case.name)
        for case, entry in zip(CASES, entries, strict=True)
    ]
    return OpsReport(conditions, backend.threads, peak / GIGA, None, tuple(rows))


def create_case(case: Case, backend: Backend, dtype: str, batch_size: int) -> tuple[Plan, Draw]:
    """A network in which the operation stands as it does in others, and random batches for it.

    A ReLU before it makes it compute an input gradient; what follows turns images into scores.
    """
    layer = case.create()
    layers = [layer] if case.is_first else [ReLU(), layer]
    if isinstance(layer, Conv):
        layers.append(Linear(CLASSES))
    plan = Plan(Network(layers, case.input_shape, dtype=dtype), batch_size, backend, optimizer=Adam())
    rng, count = np.random.default_rng(0), CASE_BATCHES * batch_size
    pixels = rng.integers(0, 256, (count, *case.input_shape), np.uint8)
    split = Split(pixels, rng.integers(0, CLASSES, count, np.int64))
    batches = Batches(split, Normalizer.fit(pixels, "standardize"), batch_size, seed=0, dtype=dtype)
    return plan, lambda number: batches.draw(0, number % CASE_BATCHES)


@dataclass(frozen=True, slots=True)
class Operation:
    """A part of a training step.

    Attributes:
        batch_size: how many images it runs for.
        macs: multiply-accumulates of the forward pass; backward makes as many for each of
            `gradients`.
        moved_bytes: what has to be read and written, where that limits it.
    """

    name: str
    batch_size: int
    forward: Action
    backward: Action | None = None
    macs: int = 0
    gradients: int = 0
    moved_bytes: int = 0
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Timed:
    """An operation and its median times."""

    operation: Operation
    forward_s: float
    backward_s: float | None

    @property
    def total_s(self) -> float:
        """Of both passes."""
        return self.forward_s + (self.backward_s or 0.0)


def list_operations(plan: Plan, draw: Draw) -> list[Operation]:
    """The parts of a plan's step: preparing a batch, the stages, the loss, and last the update.

    They work on the plan's own buffers; `draw` gives the batch of a number, all of one size.
    """
    batch = draw(0)
    plan.step(batch, batch.labels)  # from here on, the buffers hold what they hold in training
    n, reals = len(batch), plan.dtype.itemsize
    stages = [
        Operation(
            stage.name,
            n,
            _fix(stage.forward, n),
            _fix(stage.backward, n),
            macs=n * stage.macs,
            gradients=1 + stage.has_dx,
            memory_bytes=stage.memory_bytes,
        )
        for stage in plan.stages
    ]
    first, last = plan.stages[0].stage, plan.stages[-1].stage
    prepare = Operation(
        "prepare",
        n,
        lambda number: plan.input.prepare(draw(number), first.buffers.x),
        moved_bytes=prod(batch.shape) * (batch.pixels.itemsize + reals),
    )
    stage = plan.backend.create_loss(plan.network.loss.spec, last.output, last.buffers.y, last.buffers.dy)
    loss = Operation(
        "loss",
        n,
        lambda _: stage.forward(n, batch.labels),
        lambda _: stage.backward(n, batch.labels),
        moved_bytes=4 * n * last.output.size * reals,  # scores, p twice, gradient
    )
    return [prepare, *stages, loss, _list_update(plan, n)]


def time_step(plan: Plan, draw: Draw, seconds: float) -> tuple[list[Timed], float, float]:
    """Each operation of a step, median seconds of a whole step, and the peak, in operations a second.

    All in turns: in every turn a step by its parts, a whole one, and a burst of multiply-adds.
    """
    *passes, update = list_operations(plan, draw)
    actions: dict[Key, Action] = {(operation.name, "forward"): operation.forward for operation in passes}
    for operation in reversed(passes):
        if operation.backward:
            actions[operation.name, "backward"] = operation.backward
    burst = find_fma_burst(plan.backend, str(plan.dtype))
    rounds = calibrate_burst(burst, BURST_S)

    def run_step(number: int) -> None:
        batch = draw(number)
        plan.step(batch, batch.labels)

    actions |= {
        (update.name, "forward"): update.forward,
        STEP: run_step,
        PEAK: lambda _: burst(rounds),
    }
    with threadpool_limits(limits=plan.backend.threads, user_api="blas"):
        once_s = sum(times[0] for times in time_turns(actions, 1, warmup=1).values())
        times = time_turns(actions, max(FEWEST_TURNS, int(seconds / once_s)))
    medians = {key: median(values) for key, values in times.items()}
    timed = [
        Timed(operation, medians[operation.name, "forward"], medians.get((operation.name, "backward")))
        for operation in (*passes, update)
    ]
    return timed, medians[STEP], burst(rounds) / min(times[PEAK])


def find_fma_burst(backend: Backend, dtype: str) -> Burst:
    """Multiply-adds on the backend's threads and instruction set; for others than `fast`, the best."""
    fast = create_backend("fast", backend.threads, isa=getattr(backend, "isa", None))
    burst: Burst = fast.kernels(dtype).fma_burst  # type: ignore[attr-defined]
    return burst


def describe_timed(timed: Timed, peak: float, step_s: float | None = None) -> OpRow:
    """The figures of one operation; `peak` in operations a second, `step_s` what all of them take."""
    operation, forward_s, backward_s = timed.operation, timed.forward_s, timed.backward_s
    row = OpRow(
        operation.name,
        operation.batch_size,
        forward_ms=MS * forward_s,
        backward_ms=backward_s and MS * backward_s,
        share_percent=step_s and PERCENT * timed.total_s / step_s,
        memory_mb=operation.memory_bytes and operation.memory_bytes / MB,
    )
    if operation.moved_bytes:
        return replace(row, gigabytes_per_second=operation.moved_bytes / timed.total_s / GIGA)
    if operation.macs and backward_s:
        forward_speed = 2 * operation.macs / forward_s
        backward_speed = 2 * operation.gradients * operation.macs / backward_s
        return replace(
            row,
            forward_gflops=forward_speed / GIGA,
            backward_gflops=backward_speed / GIGA,
            forward_percent=PERCENT * forward_speed / peak,
            backward_percent=PERCENT * backward_speed / peak,
        )
    return row


def _list_update(plan: Plan, batch_size: int) -> Operation:
    """An update of as many parameters as the plan has, on arrays of its own."""
    optimizer = plan.optimizer
    assert optimizer is not None, "a step needs an optimizer"
    count = sum(w.size for stage in plan.stages for w in stage.stage.buffers.params.values())
    rng = np.random.default_rng(0)
    w, dw = rng.normal(size=(2, count)).astype(plan.dtype)
    slots = {key: np.zeros_like(w) for key in optimizer.slots}
    return Operation(
        "update",
        batch_size,
        lambda number: optimizer.update(plan.backend, w, dw, slots, number + 1, plan.penalty.l2),
        moved_bytes=(3 + 2 * len(slots)) * w.nbytes,  # w and slots read and written, dw read
    )


def _fix(run: Callable[[int], object], n: int) -> Action:
    return lambda _: run(n)
