"""How many times faster than the textbook's loops each engine is: first parity, then time.

Every engine computes a case once and is held against `naive` by what it computed; only then the
very same operation, on the very same buffers, is timed. What does not hold is not timed at all.
Arrays lie as each engine keeps them from one layer to the next, so that nobody's conversions
count. Makes nothing faster and leaves `naive` as it is.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import ActivationSpec, Array
from cnnctl.backends.stage import Buffers, Stage
from cnnctl.bench.conditions import Conditions, describe_conditions
from cnnctl.bench.roofline import GIGA
from cnnctl.bench.shapes import Case
from cnnctl.bench.step import LEAD_IN, LEAD_IN_S, Note
from cnnctl.bench.timing import Action, Quartiles, time_turns
from cnnctl.check.parity import Parity, bound_outputs, compare_outputs, draw_arguments
from cnnctl.config import EngineConfig
from cnnctl.errors import CnnctlError, ConfigError, Interrupted, RunError, ShapeError
from cnnctl.train.atomic import write_atomically
from cnnctl.train.build import build_backend
from cnnctl.train.environment import describe_environment
from cnnctl.train.run_directory import RunDirectory
from cnnctl.train.signals import handling_signals

REFERENCE, RIVALS = "naive", ("im2col", "fast")
WINOGRAD_ENGINES = {"fast", "torch"}
"""Who may compute a convolution by Winograd's algorithm."""

NAIVE_S, MOST_NAIVE = 5.0, 20
"""How long the reference is timed, roughly, and how many times at most; once in any case."""
AIM_S, TURN_CALLS, FEWEST_TURNS, MOST_TURNS = 1.0, 3, 3, 20
"""How long the counted calls of all the others together shall take, three of each in a turn."""

MS = 1e3

Direction = Literal["forward", "backward"]
Verdict = Literal["reference", "ok", "FAIL"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")


class Operation(Protocol):
    """A case in one direction, made ready to run by one engine."""

    engine: str
    layout: str

    def run(self, number: int, /) -> object:
        """One call: what is timed."""

    def read(self) -> dict[str, Array]:
        """What the last call computed, by output: y and index, or dx, dw and db; in natural shapes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One engine on one case in one direction; None where a figure does not exist.

    Attributes:
        layout: how its images lie in memory; "rows" where x is (N, D).
        calls: how many calls one time is of.
        macs: multiply-accumulates of one call in the textbook's sums; backward has those of dx and
            of dw, pooling has none.
        parity: with naive, the reference.
        output: which of its outputs is farthest from naive's, or fails.
        difference: the largest |a - b| there.
        relative_error: the largest |a - b| / max(1e-8, |a| + |b|) there.
        bound: how large `difference` may be.
        problem: why there is no difference.
        runs: how many times were taken: none without parity.
        seconds, seconds_q1, seconds_q3: median and quartiles of `calls` calls.
        speed_up: over naive.
        gflops: 10^9 operations a second, two for each multiply-accumulate.
    """

    case: str
    direction: Direction
    engine: str
    layout: str
    calls: int
    macs: int | None
    parity: Verdict = "reference"
    output: str | None = None
    difference: float | None = None
    relative_error: float | None = None
    bound: float | None = None
    problem: str | None = None
    runs: int = 0
    seconds: float | None = None
    seconds_q1: float | None = None
    seconds_q3: float | None = None
    speed_up: float | None = None
    gflops: float | None = None

    @property
    def spread(self) -> float | None:
        """What lies between the quartiles, as a share of the median."""
        if self.seconds is None or self.seconds_q1 is None or self.seconds_q3 is None:
            return None
        return (self.seconds_q3 - self.seconds_q1) / self.seconds


@dataclass(frozen=True, slots=True)
class Report:
    """What came out, in the order of the cases."""

    conditions: Conditions
    threads: int
    dtype: str
    seed: int
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows without parity."""
        return tuple(row for row in self.rows if row.parity == "FAIL")

    def to_document(self) -> dict[str, Any]:
        """What `--json` prints and timing.json holds."""
        return {
            "schema": 1,
            "command": "bench naive-vs-fast",
            "conditions": dict(self.conditions),
            "threads": self.threads,
            "dtype": self.dtype,
            "seed": self.seed,
            "ok": not self.failures,
            "rows": [asdict(row) for row in self.rows],
        }

    def to_csv(self) -> str:
        """The rows; an empty field for None."""
        text = StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return text.getvalue()


def record_naive_vs_fast(
    given: str,
    cases: Sequence[Case],
    engine: EngineConfig,
    *,
    name: str,
    runs_dir: Path,
    describe: Callable[[Report], str],
    note: Note = lambda _: None,
) -> tuple[Path, Report]:
    """Measure, and write all of it into a new run directory; returns where, and what came out.

        shapes.yaml   `given`, the cases' text      env.json      with what, and on what
        timing.json   timing.csv   the rows         table.txt     what `describe` makes of them

    Raises RunError where the directory cannot be written, and Interrupted after a signal.
    """
    fast = _create_backend(engine, "fast")
    environment = {
        **describe_environment(fast, engine.dtype),
        **describe_conditions(fast, engine.dtype),
        "seed": engine.seed,
    }
    files: dict[str, bytes | bytearray] = {
        "shapes.yaml": given.encode(),
        "env.json": json.dumps(environment, indent=2).encode(),
    }
    with handling_signals(_stop), RunDirectory.create(runs_dir, name, files, folders=()) as run:
        try:
            report = measure_naive_vs_fast(cases, engine, note=note)
            run.write_json("timing.json", report.to_document())
            for file, text in (("timing.csv", report.to_csv()), ("table.txt", describe(report))):
                write_atomically(run.path / file, text.encode())
        except BaseException as error:
            stopped = isinstance(error, Interrupted)
            with suppress(RunError):  # what stopped the run is the error to tell
                run.log(str(error) or repr(error))
                run.write_status("interrupted" if stopped else "failed", 0, 0)
            raise
        run.log("finished")
        run.write_status("finished", len(cases), 0)
    return run.path, report


def measure_naive_vs_fast(
    cases: Sequence[Case], engine: EngineConfig, *, note: Note = lambda _: None
) -> Report:
    """Hold every engine against `naive` and time those that agree, case by case.

    `engine` gives dtype, threads and seed; its backend is not looked at. PyTorch takes part where
    it is installed. `note` hears what is being done. Raises CnnctlError where memory does not do.
    """
    backends = {name: _create_backend(engine, name) for name in (REFERENCE, *RIVALS)}
    fast = backends["fast"]
    conditions = describe_conditions(fast, engine.dtype)
    with_torch = find_spec("torch") is not None
    if not with_torch:
        note("PyTorch is not installed, so it has no rows; for some: pip install torch")
    rows: list[Row] = []
    with threadpool_limits(limits=fast.threads, user_api="blas"):
        for number, case in enumerate(cases):
            try:
                work = Work(case, engine, number)
                for direction in DIRECTIONS:
                    rows += measure_direction(work, direction, backends, with_torch, note)
            except ShapeError as error:
                raise ShapeError(f"{case.name}: {error}") from error
            except MemoryError:
                raise CnnctlError(f"{case.name}: x: {case.x_shape} needs more memory than there is") from None
    return Report(conditions, fast.threads, engine.dtype, engine.seed, tuple(cases), tuple(rows))


class Work:
    """A case's layer and arrays, the same for every engine.

    Attributes:
        layer: built, with parameters drawn like all the rest.
        x, dy: (N, *input_shape), (N, *output_shape).
    """

    def __init__(self, case: Case, engine: EngineConfig, number: int) -> None:
        self.case = case
        rng = np.random.default_rng([engine.seed, number])
        self.layer, dtype = case.create_layer(), np.dtype(engine.dtype)
        y_shape = self.layer.build(case.x_shape[1:], dtype, rng)
        self.layer.params = {
            key: draw_arguments(rng, array.shape, dtype) for key, array in self.layer.params.items()
        }
        self.x = draw_arguments(rng, case.x_shape, dtype)
        self.dy = draw_arguments(rng, (case.x_shape[0], *y_shape), dtype)

    def count_macs(self, direction: Direction) -> int | None:
        """Of one call; None where the operation has none."""
        return len(self.x) * self.layer.macs * (1 if direction == "forward" else 2) or None


class StageOperation:
    """A stage of one of our backends, as a plan runs it, on buffers of its own."""

    def __init__(self, backend: Backend, work: Work, direction: Direction) -> None:
        layer, n, dtype = work.layer, len(work.x), work.x.dtype
        of_images = "NHWC" if backend.name == "fast" else "NCHW"
        self.engine, self.layout = backend.name, of_images if work.x.ndim == 4 else "rows"
        # As a network's first layer; or, for dx, as one that stands behind another.
        before = [] if direction == "forward" else [ActivationSpec("relu")]
        layout = backend.create_layout(layer.input_shape, dtype, [layer.spec, *before])
        self._stage = stage = backend.create_stage(layer.spec, layout, dtype)
        self._n, self._direction = n, direction
        stage.buffers = buffers = Buffers(
            x=np.zeros((n, layout.size), dtype),
            y=np.full((n, stage.output.size), np.nan, dtype),  # what is not computed shows
            params={key: np.zeros(p.inner, dtype) for key, p in stage.parameters.items()},
            grads={key: np.full(p.inner, np.nan, dtype) for key, p in stage.parameters.items()},
            saved={key: np.zeros((n, size), kind or dtype) for key, (size, kind) in stage.saved.items()},
            scratch=np.empty(stage.scratch_elements(n), dtype),
        )
        layout.load(work.x, buffers.x)
        for key, parameter in stage.parameters.items():
            parameter.load(layer.params[key], buffers.params[key])
        if direction == "backward":
            if stage.saved:  # a max pool's winners
                stage.forward(n, training=True)
            buffers.dx, buffers.dy = np.full_like(buffers.x, np.nan), np.zeros_like(buffers.y)
            stage.output.load(work.dy, buffers.dy)

    def run(self, _: int) -> None:
        """The pass."""
        if self._direction == "forward":
            self._stage.forward(self._n, training=True)
        else:
            self._stage.backward(self._n)

    def read(self) -> dict[str, Array]:
        """What it left in the buffers."""
        stage, b, n = self._stage, self._stage.buffers, self._n
        if self._direction == "forward":
            outputs = {"y": stage.output.read(b.y, n)}
            if "index" in b.saved:
                outputs["index"] = _read_index(stage, n)
            return outputs
        assert b.dx is not None
        names = {"weight": "dw", "bias": "db"}
        gradients = {names[key]: p.read(b.grads[key]) for key, p in stage.parameters.items()}
        return {"dx": stage.input.read(b.dx, n), **gradients}


def measure_direction(
    work: Work, direction: Direction, backends: Mapping[str, Backend], with_torch: bool, note: Note
) -> list[Row]:
    """The rows of one case in one direction, `naive` first."""
    case = work.case
    note(f"{case.name}, {direction}: naive, and the others held against it")
    reference = StageOperation(backends[REFERENCE], work, direction)
    first_s = _time_calls(reference, case.calls)[0]
    wanted = reference.read()
    rivals: list[Operation] = [StageOperation(backends[name], work, direction) for name in RIVALS]
    if with_torch:
        rivals += _create_torch_operations(work, direction, backends["fast"].threads, note)
    parities = {rival: check_parity(rival, wanted, work) for rival in rivals}
    right = [rival for rival in rivals if parities[rival].holds]
    note(f"{case.name}, {direction}: timing {', '.join(_name(rival) for rival in (reference, *right))}")
    repeats = min(max(int(NAIVE_S / first_s), 1), MOST_NAIVE)
    seconds = {reference: _time_calls(reference, case.calls, repeats), **_time_rivals(right, case.calls)}
    reference_s = median(seconds[reference])
    best = _choose_layouts(right, seconds)
    return [_make_row(work, direction, reference, None, seconds[reference], reference_s)] + [
        _make_row(work, direction, rival, parities[rival], seconds.get(rival, []), reference_s)
        for rival in rivals
        if rival in best or rival not in right
    ]


def check_parity(rival: Operation, wanted: Mapping[str, Array], work: Work) -> Parity:
    """Run it once and hold what came out against the reference; PyTorch's index is its own affair."""
    rival.run(0)
    found, layer = rival.read(), work.layer
    if rival.engine == "torch":
        wanted = {key: array for key, array in wanted.items() if key != "index"}
    bounds = bound_outputs(
        layer.spec, work.x.shape, work.dy.shape, wanted, winograd=rival.engine in WINOGRAD_ENGINES
    )
    return compare_outputs(found, wanted, bounds)


def _time_calls(operation: Operation, calls: int, turns: int = 1) -> list[float]:
    return time_turns({0: _repeat(operation, calls)}, turns)[0]


def _time_rivals(rivals: Sequence[Operation], calls: int) -> dict[Operation, list[float]]:
    """Seconds of those calls, all in turns."""
    actions = {rival: _repeat(rival, calls) for rival in rivals}
    once_s = sum(times[0] for times in time_turns(actions, 1, lead_in=LEAD_IN).values())
    turns = min(max(int(AIM_S / (TURN_CALLS * once_s)), FEWEST_TURNS), MOST_TURNS) if rivals else 0
    return time_turns(actions, turns, calls=TURN_CALLS, lead_in=LEAD_IN, lead_in_s=LEAD_IN_S)


def _repeat(operation: Operation, calls: int) -> Action:
    if calls == 1:
        return operation.run

    def run(_: int) -> None:
        for number in range(calls):
            operation.run(number)

    return run


def _choose_layouts(
    rivals: Sequence[Operation], seconds: Mapping[Operation, Sequence[float]]
) -> set[Operation]:
    """The fastest of each engine: PyTorch is shown in its better layout."""
    best: dict[str, Operation] = {}
    for rival in sorted(rivals, key=lambda rival: median(seconds[rival])):
        best.setdefault(rival.engine, rival)
    return set(best.values())


def _make_row(
    work: Work,
    direction: Direction,
    operation: Operation,
    parity: Parity | None,
    seconds: Sequence[float],
    reference_s: float,
) -> Row:
    case, macs = work.case, work.count_macs(direction)
    row = Row(case.name, direction, operation.engine, operation.layout, case.calls, macs)
    if parity:
        row = replace(
            row,
            parity="ok" if parity.holds else "FAIL",
            output=parity.output,
            difference=None if parity.problem else parity.difference,
            relative_error=None if parity.problem else parity.relative_error,
            bound=parity.bound,
            problem=parity.problem,
        )
    if not seconds:
        return row
    times = Quartiles.of_seconds(seconds)
    median_s = times.median / MS
    return replace(
        row,
        runs=len(seconds),
        seconds=median_s,
        seconds_q1=times.q1 / MS,
        seconds_q3=times.q3 / MS,
        speed_up=reference_s / median_s,
        gflops=2 * macs * case.calls / median_s / GIGA if macs else None,
    )


def _create_torch_operations(work: Work, direction: Direction, threads: int, note: Note) -> list[Operation]:
    """In every layout, with a note in place of those in which PyTorch does not run the layer."""
    from cnnctl.bench.torch_operation import TorchOperation

    operations: list[Operation] = []
    for layout in ("NCHW", "channels_last") if work.x.ndim == 4 else ("rows",):
        try:
            operation = TorchOperation(work.layer, work.x, work.dy, direction, layout, threads)
            operation.run(0)
        except (ConfigError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            note(f"{work.case.name}, {direction}: PyTorch does not run this in {layout}: {reason}")
        else:
            operations.append(operation)
    return operations


def _read_index(stage: Stage, n: int) -> Array:
    """The winners of a max pool as the contract has them."""
    read: Callable[[int], Array] | None = getattr(stage, "read_index", None)  # those of `fast` know how
    return read(n) if read else stage.buffers.saved["index"].reshape(n, *stage.output.shape).copy()


def _create_backend(engine: EngineConfig, name: str) -> Backend:
    return build_backend(engine.model_copy(update={"backend": name}))


def _name(operation: Operation) -> str:
    return f"{operation.engine} {operation.layout}"


def _stop(signal_number: int) -> None:
    """At once: there is no step here to wait for the end of."""
    raise Interrupted("stopped; what was measured so far is not kept", signal_number)
