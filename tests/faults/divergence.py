"""O3: a run in which one number stops being finite ends within a step, says where, and saves none of it.

A random small network is trained as anybody would, with a checkpoint every few steps. At a random step one
element of a weight, a gradient, a layer's output or a running statistic becomes NaN or infinite. A faulty
layer stays at fault: it gives the same again for the same images, as the kernels would.

An output is the one thing that may be spoiled without harm: minus infinity loses a max pool, a ReLU makes it
0, tanh has no gradient there. Such a case is void: loss, gradients, weights, slots and statistics were all
seen to be finite after the step. The loss is looked at here, the gradients as each stage leaves them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import isfinite
from pathlib import Path
from shutil import rmtree
from typing import Any
from unittest.mock import patch

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.backends.stage import Stage
from cnnctl.errors import Diverged, ShapeError
from cnnctl.nn.plan import Plan, PlannedStage, StepResult
from cnnctl.train.api import Run, train
from cnnctl.train.checkpoint import LAST, load_checkpoint
from tests.torture.guard import make_ground
from tests.torture.tally import Mismatch, Tally

SHAPE, CLASSES = (3, 8, 8), 4
IMAGES, VALIDATION, TEST, BATCH, EPOCHS = 20, 4, 4, 4, 3
SPECIALS = (np.nan, np.inf, -np.inf)
KINDS = ("weight", "weight", "gradient", "gradient", "output", "output", "statistic")
ACTIVATIONS = ("relu", "relu", "tanh", "tanh", "sigmoid", "leaky_relu", "elu", "gelu", "silu")
NORMS: tuple[Any, ...] = ("batchnorm", "batchnorm", "instancenorm", "layernorm", {"groupnorm": 1})
OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {"sgd": {"lr": 1e-3}},
    {"sgd": {"lr": 1e-3, "momentum": 0.9, "nesterov": True}},
    {"adam": {"lr": 1e-3}},
    {"adamw": {"lr": 1e-3}},
    {"adamax": {"lr": 1e-3}},
    {"adagrad": {"lr": 1e-3}},
    {"rmsprop": {"lr": 1e-3}},
    {"rmsprop": {"lr": 1e-3, "centered": True, "momentum": 0.9}},
    {"lion": {"lr": 1e-4}},
    {"lion": {"lr": 1e-4, "weight_decay": 0.1}},
)


class Harmless(Exception):
    """What was planted has come to nothing."""


def check_divergence(seed: int, number: int, tally: Tally) -> None:
    """Train, plant, and look at how the run ended and at what it has left behind."""
    rng = np.random.default_rng([seed, number])
    runs = make_ground("divergence") / f"{seed}-{number}"
    config = draw_config(rng, number)
    planting = Planting(rng, config["solver"])
    try:
        with patch.object(Plan, "step_over", planting.step_over):
            train(config, runs_dir=runs)
        raise Mismatch(f"{planting}: the run went on to its end")
    except ShapeError:  # drawn networks need not fit
        return
    except Harmless:
        tally.counts["void"] += 1
        return
    except Diverged as error:
        message, code = str(error), error.exit_code
    finally:
        (path,) = runs.iterdir() if runs.is_dir() else [None]
        outcome = read_outcome(path) if path else None
        rmtree(runs, ignore_errors=True)
    assert outcome is not None
    judge(f"{planting} in {config['network']['layers']}", planting, message, outcome)
    if code != 4:
        raise Mismatch(f"{planting}: exit code {code}")
    (optimizer,) = config["solver"]["optimizer"]
    backend = config["engine"]["backend"]
    tally.counts.update([planting.kind, f"{planting.value}", optimizer, backend, "cases"])


def judge(label: str, planting: "Planting", message: str, outcome: tuple[str, dict[str, Any]]) -> None:
    """Raises Mismatch unless the run stopped in time, named what is at fault, and saved nothing of it."""
    status, checkpoints = outcome
    if planting.step > planting.due:
        raise Mismatch(f"{label}: stopped after step {planting.step} only: {message}")
    if not planting.names(message):
        raise Mismatch(f"{label}: blames another: {message}")
    if not message.isprintable():
        raise Mismatch(f"{label}: more than one line: {message!r}")
    if status != "diverged":
        raise Mismatch(f"{label}: the run is {status}")
    for name, found in checkpoints.items():
        if not isinstance(found, int):
            raise Mismatch(f"{label}: {name}: {found}")
    kept = (planting.at - 1) // planting.every * planting.every
    if checkpoints.get(LAST) != kept:
        raise Mismatch(f"{label}: the last checkpoint is of step {checkpoints.get(LAST)}, not {kept}")


def read_outcome(path: Path) -> tuple[str, dict[str, Any]]:
    """A run's status, and each checkpoint's step, or what is wrong with it."""
    found: dict[str, Any] = {}
    for file in sorted((path / "checkpoints").iterdir()):
        checkpoint = load_checkpoint(file)
        arrays = {**checkpoint.params, **checkpoint.statistics, **checkpoint.slots}
        bad = [key for key, array in arrays.items() if not np.isfinite(array).all()]
        found[file.name] = f"{bad[0]} is not finite" if bad else checkpoint.metadata.progress.step
    return Run.read(path).status, found


class Planting:
    """One number that stops being finite in one step of a run.

    Attributes:
        at: the step, from 1.
        due: the step in which the run has to end at the latest: one later if it is planted after the
            update, when only the next step or a checkpoint can see it.
        step: the one that was begun last.
        every: steps between checkpoints.
        spreads: whether a gradient's layer has handed something as bad on to those before it.
    """

    def __init__(self, rng: np.random.Generator, solver: dict[str, Any]) -> None:
        self.rng, self.step, self.every = rng, 0, solver["checkpoints"]["steps"]
        steps = EPOCHS * -(-(IMAGES // BATCH) // solver["accumulate"])
        self.at = int(rng.integers(1, steps + 1))
        self.kind = str(rng.choice(KINDS))
        self.value = SPECIALS[rng.integers(len(SPECIALS))]
        self.late = bool(rng.integers(2)) and self.kind in {"weight", "statistic"}
        self.due = self.at + self.late
        self.element = int(rng.integers(2**31))
        self.spreads = bool(rng.integers(2))
        self.batch = int(rng.integers(solver["accumulate"]))
        self.target, self.stage = "", ""

    def __str__(self) -> str:
        when = "after" if self.late else "in"
        return f"{self.value} as {self.kind} of {self.target or self.stage} {when} step {self.at}"

    @property
    def step_over(self) -> Callable[..., StepResult]:
        """Takes the place of `Plan.step_over`."""
        original = Plan.step_over

        def step_over(plan: Plan, batches: Sequence[Any], **settings: Any) -> StepResult:
            self.step += 1
            if self.step != self.at:
                return original(plan, batches, **settings)
            self.choose(plan)
            self.batch %= len(batches)
            if self.late:
                result = original(plan, batches, **settings)
                self.change(plan)
                return result
            if self.kind in {"weight", "statistic"}:
                self.change(plan)
            with self.spoil(plan), watch_gradients(plan) as bad:
                result = original(plan, batches, **settings)
            if self.kind != "output":
                raise Mismatch(f"{self}: the step came to an end")
            arrays = (plan.export_params(), plan.export_statistics(), plan.export_slots())
            bad += [key for group in arrays for key, array in group.items() if not np.isfinite(array).all()]
            if bad or not isfinite(result.loss):
                raise Mismatch(f"{self}: {bad or 'the loss'} is not finite, and the step came to an end")
            raise Harmless

        return step_over

    def choose(self, plan: Plan) -> None:
        """What is planted, and what may be named for it."""
        if self.kind == "statistic" and not plan.network.statistics:
            self.kind = "weight"
        stages = [planned for planned in plan.stages if planned.stage.parameters or self.kind == "output"]
        planned = stages[self.rng.integers(len(stages))]
        self.stage = planned.name
        if self.kind != "output":
            statistics = set(plan.network.statistics)
            keys = statistics if self.kind == "statistic" else set(planned.names.values()) - statistics
            self.target = str(self.rng.choice(sorted(keys)))

    def names(self, message: str) -> bool:
        """Whether it says what was planted; of fused layers' output, which of them it may choose."""
        if self.kind == "output":
            parts = "|".join(map(re.escape, [self.stage, *self.stage.split("+")]))
            return re.search(rf"\bthe output of ({parts}) is not finite", message) is not None
        what = "the gradient of " if self.kind == "gradient" else ""
        return re.search(rf"(?<![\w.]){what}{re.escape(self.target)} is not finite", message) is not None

    def change(self, plan: Plan) -> None:
        """One element of a weight or of a statistic."""
        statistic = self.kind == "statistic"
        arrays = plan.export_statistics() if statistic else plan.export_params()
        self.put(arrays[self.target])
        (plan.load_statistics if statistic else plan.load_params)(arrays)

    def put(self, array: Array) -> None:
        array.flat[self.element % array.size] = self.value

    @contextmanager
    def spoil(self, plan: Plan) -> Iterator[None]:
        """A stage that is at fault: for one batch of the step, its forward or backward pass."""
        methods = {"gradient": "backward", "output": "forward"}
        if self.kind not in methods:
            yield
            return
        (planned,) = [planned for planned in plan.stages if planned.name == self.stage]
        images = plan.stages[0].stage.buffers.x
        act = self.spoil_gradient if self.kind == "gradient" else self.spoil_output
        seen: list[Array] = []

        def run(original: Callable[..., None], n: int, *training: bool) -> None:
            original(n, *training)
            if not any(np.array_equal(images[:n], batch) for batch in seen):
                seen.append(images[:n].copy())
            if len(seen) > self.batch and np.array_equal(images[:n], seen[self.batch]):
                act(planned, n)

        with wrap(planned.stage, methods[self.kind], run):
            yield

    def spoil_output(self, planned: PlannedStage, n: int) -> None:
        stage = planned.stage
        y = stage.output.read(stage.buffers.y, n)
        self.put(y)
        stage.output.load(y, stage.buffers.y)

    def spoil_gradient(self, planned: PlannedStage, n: int) -> None:
        stage = planned.stage
        (key,) = [own for own, name in planned.names.items() if name == self.target]
        gradient = stage.parameters[key].read(stage.buffers.grads[key])
        self.put(gradient)
        stage.parameters[key].load(gradient, stage.buffers.grads[key])
        if self.spreads and stage.buffers.dx is not None:
            dx = stage.input.read(stage.buffers.dx, n)
            self.put(dx)
            stage.input.load(dx, stage.buffers.dx)


@contextmanager
def wrap(stage: Stage, method: str, run: Callable[..., None]) -> Iterator[None]:
    """Have `run` called in a method's place, with the method before its arguments."""
    original = getattr(stage, method)
    setattr(stage, method, lambda *arguments: run(original, *arguments))
    try:
        yield
    finally:
        delattr(stage, method)


@contextmanager
def watch_gradients(plan: Plan) -> Iterator[list[str]]:
    """Names of the gradients that are not finite when their stage's backward pass is over."""
    bad: list[str] = []

    def watch(planned: PlannedStage) -> None:
        stage, original = planned.stage, planned.stage.backward

        def backward(n: int) -> None:
            original(n)
            for key, layout in stage.parameters.items():
                if not np.isfinite(layout.read(stage.buffers.grads[key])).all():
                    bad.append(planned.names[key])

        stage.backward = backward  # type: ignore[method-assign]

    for planned in plan.stages:
        watch(planned)
    yield bad


@cache
def make_data() -> str:
    """A file of random images for this process."""
    rng = np.random.default_rng(7)
    path = make_ground("divergence") / "images.npz"
    arrays: dict[str, Any] = {}
    for split, count in (("train", IMAGES + VALIDATION), ("test", TEST)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % CLASSES
    np.savez(path, **arrays)
    return str(path)


def draw_config(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """A run of a few steps, with all that may hide a number that is not finite."""
    clipping: dict[str, Any] = [{}, {}, {"clip_norm": 0.5}, {"clip_value": 0.1}][rng.integers(4)]
    return {
        "name": "diverging",
        "data": {"dataset": "npz", "path": make_data(), "validation": VALIDATION},
        "network": {"layers": draw_layers(rng)},
        "solver": {
            "optimizer": OPTIMIZERS[rng.integers(len(OPTIMIZERS))],
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "accumulate": int(rng.choice([1, 1, 2, 3])),
            "l1": float(rng.choice([0, 0, 1e-4])),
            "l2": float(rng.choice([0, 0, 1e-4])),
            "checkpoints": {"steps": int(rng.integers(1, 4)), "keep": int(rng.integers(3))},
            **clipping,
        },
        "engine": {"backend": str(rng.choice(["fast", "fast", "im2col"])), "threads": 1, "seed": number},
    }


def draw_layers(rng: np.random.Generator) -> list[Any]:
    layers: list[Any] = []
    for _ in range(rng.integers(1, 4)):
        chance = rng.random()
        if chance < 0.6:
            layers += [draw_conv(rng), *draw_behind(rng)]
        elif chance < 0.8:
            filters = int(rng.integers(1, 6))
            inner = [draw_conv(rng), *draw_behind(rng, pools=False), draw_conv(rng, filters)]
            inner += ["batchnorm"] * int(rng.integers(2))
            layers += [{"conv": {"filters": filters, "kernel": 1}}, {"residual": {"layers": inner}}]
            layers += [str(rng.choice(ACTIVATIONS))] * int(rng.integers(2))
        else:
            singles: tuple[Any, ...] = (*ACTIVATIONS, *NORMS, {"maxpool": 2}, {"dropout": 0.3}, "lrn")
            layers.append(singles[rng.integers(len(singles))])
    if rng.random() < 0.5:
        layers += [{"linear": int(rng.integers(2, 9))}, str(rng.choice(ACTIVATIONS))]
    return [*layers, {"linear": CLASSES}]


def draw_conv(rng: np.random.Generator, filters: int | None = None) -> dict[str, Any]:
    kernel, bias = int(rng.choice([1, 3])), bool(rng.integers(2))
    filters = filters or int(rng.integers(1, 6))
    return {"conv": {"filters": filters, "kernel": kernel, "padding": "same", "bias": bias}}


def draw_behind(rng: np.random.Generator, *, pools: bool = True) -> list[Any]:
    layers: list[Any] = [NORMS[rng.integers(len(NORMS))]] if rng.random() < 0.4 else []
    if rng.random() < 0.8:
        layers.append(str(rng.choice(ACTIVATIONS)))
    if pools and rng.random() < 0.4:
        layers.append({str(rng.choice(["maxpool", "avgpool"])): 2})
    return layers
