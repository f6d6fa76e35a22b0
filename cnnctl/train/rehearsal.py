"""A tiny training, several ways: what a run promises, tried on the machine at hand.

Draws its images, so that nothing has to be there. Leaves its runs in the folder it is given, and
judges them by what their last checkpoints hold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnctl.errors import CnnctlError
from cnnctl.train.api import Run, train
from cnnctl.train.checkpoint import load_named_checkpoint

STEPS, KEPT_STEP = 200, 125
FEWEST_RIGHT = 0.5
"""Of ten classes a tenth is guessed right; after so few steps the network has to do better."""
FEW_STEPS, CLOSENESS = 10, 1e-9
"""After so few steps, how far weights in float64 may be apart, of the largest: rounding errors grow as
training goes on, until nothing can be told from them."""

CONFIG: Mapping[str, Any] = {
    "name": "selftest",
    "data": {"dataset": "shapes", "train": 3200, "test": 500, "augment": {"flip": True, "shift": 2}},
    "network": {
        "layers": [
            {"conv": {"filters": 12, "kernel": 5, "padding": "same", "bias": False}},
            "batchnorm",
            "relu",
            {"maxpool": 2},
            {"conv": {"filters": 16, "kernel": 3, "padding": "same"}},
            "relu",
            {"maxpool": 2},
            {"dropout": 0.1},
            {"linear": 10},
        ]
    },
    "solver": {
        "optimizer": {"adam": {"lr": 3e-3}},
        "epochs": 4,
        "batch_size": 64,
        "checkpoints": {"steps": KEPT_STEP, "keep": 9},
    },
}


@dataclass(frozen=True, slots=True)
class Act:
    """What was tried, what came out in words, and whether that is as promised."""

    name: str
    outcome: str
    holds: bool


def rehearse(folder: Path) -> Iterator[Act]:
    """Train on one thread and on two, go on in the middle, and compare with numpy's backend."""
    first = _train(folder, "engine.threads=1")
    assert first.test
    right = first.test.accuracy
    outcome = f"{100 * right:.1f} % of {first.test.images} test images right after {first.steps} steps"
    yield Act("a network learns", outcome, first.steps == STEPS and right >= FEWEST_RIGHT)

    weights = _read_weights(first)
    others = _train(folder, "engine.threads=2")
    yield _compare("two threads give the bytes of one", weights, _read_weights(others), 0)

    resumed = train(
        resume=first.path, fork=True, checkpoint=f"step-{KEPT_STEP:08}", runs_dir=folder, data_dir=folder
    )
    yield _compare(f"going on at step {KEPT_STEP} gives the same bytes", weights, _read_weights(resumed), 0)

    short = ["engine.dtype=float64", f"solver.max_steps={FEW_STEPS}"]
    fast, im2col = (_train(folder, *short, f"engine.backend={name}") for name in ("fast", "im2col"))
    name = "numpy alone comes to the same weights"
    yield _compare(name, _read_weights(im2col), _read_weights(fast), CLOSENESS)


def _train(folder: Path, *overrides: str) -> Run:
    run = train(CONFIG, overrides=overrides, runs_dir=folder, data_dir=folder)
    if run.status != "finished":
        raise CnnctlError(f"{run.path}: this run is {run.status}, not finished")
    return run


def _read_weights(run: Run) -> Mapping[str, Any]:
    checkpoint = load_named_checkpoint(run.path / "checkpoints", "last", lambda _: None)
    return {**checkpoint.params, **checkpoint.statistics}


def _compare(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any], closeness: float) -> Act:
    if wanted.keys() != found.keys():
        return Act(name, f"{sorted(found)} in place of {sorted(wanted)}", False)
    largest = {key: float(np.abs(array).max()) for key, array in wanted.items()}
    gaps = {
        key: float(np.abs(found[key] - array).max()) / (largest[key] or 1) for key, array in wanted.items()
    }
    worst = max(gaps, key=lambda key: np.nan_to_num(gaps[key], nan=np.inf))
    count = sum(array.size for array in wanted.values())
    if closeness == 0:
        same = all(found[key].tobytes() == array.tobytes() for key, array in wanted.items())
        outcome = "the same" if same else f"{worst} differs by {gaps[worst]:.1e} of its largest"
        return Act(name, f"{count:,} numbers: {outcome}", same)
    return Act(name, f"{count:,} numbers within {gaps[worst]:.1e}", gaps[worst] <= closeness)
