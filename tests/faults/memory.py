"""O2: memory is known beforehand. Cases are a list: nets and batches, long runs, and what a batch costs.

Peaks are those of processes of their own, told by the system and held against what `cnnctl train` printed
before its first step. Real images are used where CNNCTL_DATA_DIR says where they lie, shapes elsewhere: of
another size, but the nets see the same. Memory is measured on Linux only.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cnnctl.config import load_config
from cnnctl.train.build import build_backend, build_network, build_plan
from tests.torture.guard import make_ground
from tests.torture.tally import Mismatch, Tally

CONFIGS = Path(__file__).parents[2] / "configs"
TOLERANCE = 0.1
MOST_GROWTH = 256 * 1024
FIRST_STEP, LAST_STEP = 1000, 10_000
TIMEOUT_S = 600

NETS = {
    "quickstart": None,
    "mnist_simple": 28,
    "fashion_lenet5": 28,
    "cifar10_three_layer": None,
    "cifar10_vgg": None,
    "cifar10_resnet20": None,
    "cifar10_alexnet": None,
}
"""Shipped configs, and the side of shapes in the place of real images, where it is not the usual one."""
BATCHES = (1, 16, 64, 256)

PEAK = """
import sys
from cnnctl.cli.main import main
from cnnctl.train.memory import read_peak_bytes
code = main(sys.argv[1:])
print("peak", read_peak_bytes())
sys.exit(code)
"""
GROWTH = """
import resource, sys
from cnnctl.cli.main import main
from cnnctl.nn.plan import Plan
from cnnctl.train.memory import release_unused_memory
take = Plan.step_over
def step_over(self, *arguments, **settings):
    result = take(self, *arguments, **settings)
    if self.step_count == 1:  # the table of names, which grows once by a MiB, may do so now
        for number in range(100_000):
            sys.intern(f"name {number}")
    if self.step_count in ({first}, {last}):
        release_unused_memory()
        _, resident, shared, *_ = map(int, open("/proc/self/statm").read().split())
        print("resident", (resident - shared) * resource.getpagesize())  # code comes as it is first run
    return result
Plan.step_over = step_over
sys.exit(main(sys.argv[1:]))
""".replace("{first}", str(FIRST_STEP)).replace("{last}", str(LAST_STEP))

CONV = {"conv": {"filters": 4, "kernel": 3}}
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"dataset": "shapes", "image_size": 8, "train": 80, "test": 10},
    "network": {"layers": [CONV, "relu", {"maxpool": 2}, {"linear": 10}]},
    "solver": {
        "optimizer": {"adam": {"lr": 1e-4}},
        "epochs": LAST_STEP,
        "max_steps": LAST_STEP,
        "batch_size": 4,
        "log_every": 1,
    },
    "engine": {"backend": "fast", "threads": 2},
}
NORMED = {"layers": [CONV, "batchnorm", "relu", {"maxpool": 2}, {"dropout": 0.2}, {"linear": 10}]}
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "fast": {},
    "im2col": {"engine": {"backend": "im2col", "threads": 1}},
    "naive": {
        "engine": {"backend": "naive", "threads": 1},
        "data": {"image_size": 4},
        "network": {"layers": [{"linear": 10}]},
    },
    "accumulate, mixup": {
        "solver": {"accumulate": 2},
        "data": {"augment": {"mixup": 0.2, "shift": 1, "flip": True}},
    },
    "norm, validation": {"network": NORMED, "data": {"validation": 16}},
    "checkpoints": {"network": NORMED, "solver": {"checkpoints": {"steps": 50, "keep": 3}}},
    "everything": {
        "network": NORMED,
        "data": {"validation": 16, "augment": {"mixup": 0.2, "cutout": 2}},
        "solver": {
            "accumulate": 2,
            "checkpoints": {"steps": 50, "keep": 3},
            "clip_norm": 1.0,
            "schedule": "plateau",
            "optimizer": {"rmsprop": {"lr": 1e-4, "momentum": 0.9}},
        },
    },
}
"""What a long run has besides: overrides of SMALL."""


class MemoryCase(NamedTuple):
    """One of the list: what is measured, of what, at which batch."""

    kind: str
    name: str
    batch: int = 0


def list_cases() -> Iterator[MemoryCase]:
    """One of each kind first, which the slice has; of the estimates, one that weights make up most of."""
    first = (
        MemoryCase("growth", "fast"),
        MemoryCase("estimate", "cifar10_three_layer", 1),
        MemoryCase("scratch", "cifar10_resnet20"),
    )
    yield from first
    others = [MemoryCase("scratch", name) for name in NETS]
    others += [MemoryCase("estimate", name, batch) for batch in BATCHES for name in NETS]
    others += [MemoryCase("growth", name) for name in OPTIONS]
    yield from (case for case in others if case not in first)


CASES = tuple(list_cases())


def check_memory(seed: int, number: int, tally: Tally) -> None:
    """Case `number` of the list."""
    case = CASES[number % len(CASES)]
    match case.kind:
        case "estimate":
            check_estimate(case.name, case.batch, tally)
        case "growth":
            check_growth(case.name, tally)
        case _:
            check_scratch(case.name)
    tally.counts[case.kind] += 1
    tally.counts["cases"] += 1


def check_estimate(name: str, batch: int, tally: Tally) -> None:
    """The peak of a few steps, a checkpoint and the scoring is what was told before the first step."""
    overrides = [f"solver.batch_size={batch}", "solver.max_steps=4", "solver.warmup=0"]
    overrides += [f"data.train={max(4 * batch, 100)}", "data.validation=100", "data.test=100"]
    data_dir = os.environ.get("CNNCTL_DATA_DIR")
    if not data_dir:
        overrides += ["data.dataset=shapes", *([f"data.image_size={NETS[name]}"] if NETS[name] else [])]
    options = [word for override in overrides for word in ("-o", override)]
    options += ["--data-dir", data_dir] if data_dir else []
    output = run_train(PEAK, str(CONFIGS / f"{name}.yaml"), *options)
    told = re.search(r"([\d.]+) ([KMG])iB of memory", output)
    peak = re.search(r"^peak (\d+)$", output, re.M)
    if told is None or peak is None:
        raise Mismatch(f"{name}, batch {batch}: no estimate or no peak in {output}")
    estimate = float(told[1]) * 1024 ** " KMG".index(told[2])
    share = (estimate / int(peak[1]) - 1) / TOLERANCE
    if abs(share) > 1:
        raise Mismatch(f"{name}, batch {batch}: {told[0]} were told, {int(peak[1]) / 2**20:.1f} MiB it took")
    tally.note(f"{'above' if share > 0 else 'below'} the peak", abs(share))


def check_growth(name: str, tally: Tally) -> None:
    """What is resident of the process's own after 10,000 steps was so after 1,000."""
    config = merge(SMALL, OPTIONS[name])
    path = make_ground("memory") / "small.yaml"
    path.write_text(json.dumps(config))
    output = run_train(GROWTH, str(path), "--no-report")  # which times steps of its own
    found = [int(size) for size in re.findall(r"^resident (\d+)$", output, re.M)]
    if len(found) != 2:
        raise Mismatch(f"{name}: {len(found)} of 2 sizes were told")
    growth = found[1] - found[0]
    if growth > MOST_GROWTH:
        steps = LAST_STEP - FIRST_STEP
        raise Mismatch(f"{name}: {growth / 1024:.0f} KiB more after {steps:,} steps")
    tally.note("growth", max(growth, 0) / MOST_GROWTH)


def check_scratch(name: str) -> None:
    """Once every thread has its share, more images take no more scratch.

    Except for what each image needs of its own, none of which is an unfolded image: sums and gradients of a
    fully connected stage's outputs, a norm's moments, and the gradient between a norm's two passes.
    """
    for stage in plan_stages(name):
        norm, linear = bool(stage.statistics), type(stage).__name__ == "LinearStage"
        parts = 8 * stage.output.size if linear else 0
        if norm:
            parts += sum(size for size, _ in stage.saved.values()) + 4 * stage.output.size
        few, many = (stage.scratch_elements(batch) for batch in (1024, 4096))
        if many - few > parts * (4096 - 1024):
            raise Mismatch(
                f"{name}: the scratch of {type(stage).__name__} takes {(many - few) / 3072:.1f} numbers an "
                f"image, where {parts} are accounted for"
            )


def plan_stages(name: str) -> list[Any]:
    """Of a shipped config's network, on two threads."""
    config = load_config(CONFIGS / f"{name}.yaml", ["engine.threads=2"])
    shape = (1, 28, 28) if NETS[name] else (3, 32, 32)
    plan = build_plan(config.solver, build_network(config, shape), 1, build_backend(config.engine))
    return [planned.stage for planned in plan.stages]


def merge(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Sections go into each other; networks, optimizers and single values are replaced."""
    merged = {**base, **more}
    for key in base.keys() & more.keys() - {"network", "optimizer"}:
        if isinstance(base[key], dict):
            merged[key] = merge(base[key], more[key])
    return merged


def run_train(program: str, *arguments: str) -> str:
    """What a process of its own said that trained."""
    runs = make_ground("memory") / "runs"
    command = [sys.executable, "-c", program, "train", *arguments, "--runs-dir", str(runs)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    shutil.rmtree(runs, ignore_errors=True)
    if process.returncode:
        raise Mismatch(f"exit code {process.returncode}: {process.stderr[-2000:]}")
    return process.stdout + process.stderr
