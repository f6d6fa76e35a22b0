"""Runs that faults happen to, small enough for thousands, and how each ends when nothing happens.

Together they use whatever a run remembers from one step to the next: statistics, slots, schedules, counters,
random numbers of several kinds.
"""

import hashlib
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.launcher import Ended, get_launcher
from tests.quarters import write_quarters
from tests.torture.guard import make_ground
from tests.torture.tally import Mismatch

EPOCHS, STEPS_PER_EPOCH = 3, 7
_NETWORK: list[Any] = [{"conv": {"filters": 3, "kernel": 3}}, "batchnorm", "relu", {"maxpool": 2}]
_ADAM = {"optimizer": {"adam": {"lr": 0.01}}, "epochs": EPOCHS, "batch_size": 10, "log_every": 1}
_SGD = {**_ADAM, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9, "nesterov": True}}}
SCENES: dict[str, dict[str, Any]] = {
    "plain": {"solver": {**_ADAM, "l2": 0.001}},
    "often": {"solver": {**_SGD, "checkpoints": {"steps": 3, "keep": 2}}},
    "early": {
        "solver": {
            **_ADAM,
            "epochs": 6,
            "monitor": "loss",
            "early_stopping": {"patience": 1, "min_delta": 0.2},
        }
    },
    "random": {
        "augment": {"flip": True, "crop": 6, "brightness": 0.2, "cutout": 2, "mixup": 0.4},
        "layers": [*_NETWORK, {"dropout": 0.4}, {"linear": 6}, "relu", {"dropout": 0.2}],
        "solver": {**_ADAM, "accumulate": 2, "clip_norm": 0.5, "schedule": "cosine", "warmup": 3},
    },
    "plateau": {
        "solver": {**_SGD, "schedule": {"plateau": {"factor": 0.5, "patience": 0, "threshold": 0.5}}}
    },
    "threads": {"threads": 2, "solver": {**_ADAM, "checkpoints": {"steps": 5}, "stop_at": 0.999}},
}


class Scene(NamedTuple):
    """A config, and how its run ends.

    Attributes:
        seconds: how long the whole run takes.
        steps: how many it has.
        interval: steps from one checkpoint to the next.
        outcome: SHA-256 of each file that has to be the same.
    """

    name: str
    config: Path
    seconds: float
    steps: int
    interval: int
    outcome: dict[str, str]


@cache
def create_scene(name: str) -> Scene:
    """Writes its config and lets its run go undisturbed, twice: it has to repeat."""
    ground = make_ground("faults")
    config = ground / f"{name}.yaml"
    config.write_text(json.dumps(describe(name)))
    runs = ground / f"{name}-unbroken"
    for _ in range(2):
        ended = get_launcher().run(["train", str(config), "--runs-dir", str(runs), "--quiet"])
        if ended.code:
            raise Mismatch(f"{name} cannot be run at all: {ended.err}")
    paths = sorted(runs.iterdir())
    first, second = map(read_outcome, paths)
    if first != second:
        raise Mismatch(f"{name} does not repeat: {compare_outcomes(first, second)}")
    interval = SCENES[name]["solver"].get("checkpoints", {}).get("steps", STEPS_PER_EPOCH)
    return Scene(name, config, ended.seconds, count_steps(paths[0] / "metrics.jsonl"), interval, first)


def describe(name: str) -> dict[str, Any]:
    """The config: 64 images to train on in batches of 10, and 16 held out."""
    scene = SCENES[name]
    layers = [*scene.get("layers", _NETWORK), {"linear": 4}]
    augment = scene.get("augment", {"shift": 1})
    return {
        "name": name,
        "data": {"dataset": "npz", "path": str(draw_images()), "validation": 16, "augment": augment},
        "network": {"layers": layers},
        "solver": scene["solver"],
        "engine": {"threads": scene.get("threads", 1), "seed": 231},
    }


@cache
def draw_images() -> Path:
    """The images, once for each process."""
    return write_quarters(make_ground("faults") / "quarters.npz")


def read_outcome(run: Path) -> dict[str, str]:
    """File -> SHA-256, of all files but those that hold times, places or processes."""
    files = ["resolved.yaml", "data.json", "metrics.jsonl", "metrics.csv", "eval/last.json"]
    files += sorted(f"checkpoints/{path.name}" for path in (run / "checkpoints").iterdir())
    return {file: digest(run / file) for file in files if not file.endswith("last.previous.safetensors")}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def count_steps(metrics: Path) -> int:
    """The last step with an entry of its own; the last line may be torn."""
    lines = metrics.read_text().split("\n")[:-1]
    return max((entry["step"] for entry in map(json.loads, lines)), default=0)


def compare_outcomes(wanted: dict[str, str], found: dict[str, str]) -> str:
    """The files that differ."""
    names = sorted(wanted.keys() | found.keys())
    return ", ".join(name for name in names if wanted.get(name) != found.get(name))


def clear_runs(name: str) -> Path:
    """A folder for runs in which there are none."""
    runs_dir = make_ground("faults") / name
    shutil.rmtree(runs_dir, ignore_errors=True)
    return runs_dir


def begin(scene: Scene, runs_dir: Path) -> list[str]:
    """The arguments that begin its run."""
    return ["train", str(scene.config), "--runs-dir", str(runs_dir), "--quiet"]


def find_runs(runs_dir: Path) -> list[Path]:
    """Directories that are runs: those that have got their status."""
    return sorted(path.parent for path in runs_dir.glob("*/status.json"))


def finish(scene: Scene, run: Path) -> None:
    """Go on with a run to its end, undisturbed. Raises Mismatch unless that is the scene's."""
    ended = get_launcher().run(["train", "--resume", str(run), "--quiet"])
    if ended.code:
        raise Mismatch(f"{scene.name}: cannot be resumed: exit code {ended.code}: {ended.err}")
    found = read_outcome(run)
    if found != scene.outcome:
        raise Mismatch(f"{scene.name}: ends otherwise: {compare_outcomes(scene.outcome, found)}")


_LINE = re.compile(r"(cnnctl: warning: [^\n]+\n)*cnnctl: (?!warning|internal)[^\n]+\n")


def check_line(ended: Ended) -> None:
    """What failed has said so in one line, warnings aside."""
    if not _LINE.fullmatch(ended.err):
        raise Mismatch(f"exit code {ended.code} with more or less than a line: {ended.err!r}")
