"""R4: no damaged checkpoint is ever used. A case is one sector of one of about 64 KiB.

Every truncation, flipped bit, zeroed sector and splice of two generations there goes through the reader; one
of each kind goes through the file, too: the older generation is taken and said to be, or, where there is
none, nothing of the experiment changes. Some cases train on to the end. Damage is done to what a real run has
left behind when it died.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np

from cnnctl.config import load_config
from cnnctl.errors import CheckpointError
from cnnctl.nn.plan import Plan
from cnnctl.train import api
from cnnctl.train.build import build_experiment
from cnnctl.train.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    Checkpoint,
    load_last_checkpoint,
)
from cnnctl.train.experiment import Experiment
from cnnctl.train.observer import Observer
from tests.torture.guard import make_ground
from tests.torture.mutations import draw_stream
from tests.torture.tally import Mismatch, Tally

SECTOR = 512
SECTORS = 128
FAR = 37
"""Numbers that follow one another are sectors so far apart."""
WHOLE_RUN_EVERY = 4

CONFIG: dict[str, Any] = {
    "name": "damage",
    "data": {
        "dataset": "shapes",
        "image_size": 8,
        "train": 64,
        "validation": 16,
        "test": 16,
        "augment": {"shift": 1},
    },
    "network": {
        "layers": [
            {"conv": {"filters": 4, "kernel": 3}},
            *("batchnorm", "relu", {"maxpool": 2}),
            {"linear": 103},  # as many as 64 KiB have room for, with two slots each
            *({"dropout": 0.2}, {"linear": 10}),
        ]
    },
    "solver": {
        "optimizer": {"adam": {"lr": 0.01}},
        "epochs": 5,
        "batch_size": 10,
        "early_stopping": {"patience": 2, "min_delta": 1.0},  # the first epoch stays the best
        "checkpoints": {"steps": 5, "epochs": 1, "keep": 3},
    },
    "engine": {"backend": "fast", "threads": 1, "seed": 231},
}
DIES_AT = 19
"""A step of the third epoch, which early stopping makes the last; two checkpoints after the best one."""
OUTCOME = ("metrics.jsonl", "metrics.csv", "eval/last.json", f"checkpoints/{LAST}", f"checkpoints/{BEST}")


class Death(BaseException):
    """A run dies in the middle of a step."""


class Listener(Observer):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)


@dataclass(frozen=True)
class Remains:
    """What a run that died has left.

    Attributes:
        path: its directory, to be copied.
        newer, older: its two generations.
        outcome: how it ends if nothing is damaged.
        experiment: one as it is when training begins.
        fresh: the bytes of its state.
    """

    path: Path
    newer: bytes
    older: bytes
    outcome: Mapping[str, str]
    experiment: Experiment
    fresh: bytes


def check_damage(seed: int, number: int, tally: Tally) -> None:
    """All damage to one sector: by the reader, by the file, and in some cases by the whole run."""
    sector = number * FAR % SECTORS
    rng = draw_stream(seed, number)
    remains = create_remains()
    drawn, seen = {}, Counter[str]()
    for kind, damaged in damage(remains.newer, remains.older, sector):
        seen[kind] += 1
        if rng.randrange(seen[kind]) == 0:  # so that each of them is as likely to be the one
            drawn[kind] = damaged
        expect_refusal(partial(Checkpoint.unpack, damaged, Path("x")), "x: ", kind)
    for kind, damaged in drawn.items():
        check_files(remains, kind, damaged, rng)
    check_misfit(remains, rng)
    if number % WHOLE_RUN_EVERY == 0:
        damaged = rng.choice(list(drawn.values()))
        check_resumed(remains, damaged)
        check_best(remains, rng)
        check_forks(remains, rng)
        seen["whole runs"] += 1
    tally.counts.update(seen)
    tally.counts["cases"] += 1


def damage(newer: bytes, older: bytes, sector: int) -> Iterator[tuple[str, bytes]]:
    """Kind and content; a splice that comes to one of the generations is whole, and left out."""
    start = sector * SECTOR
    stop = min(start + SECTOR, len(newer))
    for length in range(start, stop):
        yield "truncations", newer[:length]
    for place in range(start, stop):
        for bit in range(8):
            yield "flips", b"%b%c%b" % (newer[:place], newer[place] ^ 1 << bit, newer[place + 1 :])
    yield from filter(
        lambda made: made[1] not in {newer, older},
        (
            ("sectors", newer[:start] + bytes(stop - start) + newer[stop:]),
            ("splices", newer[:start] + older[start:]),
            ("splices", older[:start] + newer[start:]),
            ("splices", newer[:start] + older[start:stop] + newer[stop:]),
            ("splices", older[:start] + newer[start:stop] + older[stop:]),
        ),
    )


def check_files(remains: Remains, kind: str, damaged: bytes, rng: Random) -> None:
    """As the last checkpoint of a run: with a whole one before it, and without."""
    path = copy_run(remains)
    checkpoints = path / "checkpoints"
    (checkpoints / LAST).write_bytes(damaged)
    heard: list[str] = []
    loaded = load_last_checkpoint(checkpoints, heard.append)
    if bytes(loaded.pack()) != remains.older:
        raise Mismatch(f"{kind}: something else was loaded than the older generation")
    check_warning(remains, heard, path, kind)

    if rng.random() < 0.5:
        (checkpoints / PREVIOUS).unlink()
    else:
        (checkpoints / PREVIOUS).write_bytes(remains.older[: rng.randrange(len(remains.older))])
    before = read_files(path)
    with patch.object(api, "build_experiment", return_value=remains.experiment):
        refusal = expect_refusal(lambda: api.train(resume=path), str(checkpoints / LAST), kind)
    if PREVIOUS not in refusal:
        raise Mismatch(f"{kind}: refused without a word on the older generation: {refusal}")
    check_untouched(remains, kind)
    if read_files(path) != before:
        raise Mismatch(f"{kind}: refused, but the run's files changed")


def check_misfit(remains: Remains, rng: Random) -> None:
    """One that is whole, but of another network: refused before any weight changes."""
    checkpoint = Checkpoint.unpack(remains.newer, Path("x"))
    group = rng.choice(("params", "statistics", "slots"))
    tensors = dict(getattr(checkpoint, group))
    key = rng.choice(sorted(tensors))
    changed = rng.choice(("gone", "added", "shape", "dtype"))
    match changed:
        case "gone":
            del tensors[key]
        case "added":
            tensors[f"{key}.more"] = tensors[key]
        case "shape":
            tensors[key] = np.concatenate([tensors[key], tensors[key]])
        case _:
            tensors[key] = tensors[key].astype(np.float64 if tensors[key].dtype != np.float64 else np.float32)
    changes: dict[str, Any] = {group: tensors}
    path = copy_run(remains)
    last = path / "checkpoints" / LAST
    last.write_bytes(replace(checkpoint, **changes).pack())
    kind = f"{group}/{key}: {changed}"
    with patch.object(api, "build_experiment", return_value=remains.experiment):
        expect_refusal(lambda: api.train(resume=path), str(last), kind)
    check_untouched(remains, kind)


def check_resumed(remains: Remains, damaged: bytes) -> None:
    """The run goes on from the older generation and ends as if nothing had happened."""
    path = copy_run(remains)
    (path / "checkpoints" / LAST).write_bytes(damaged)
    listener = Listener()
    api.train(resume=path, observer=listener)
    check_warning(remains, listener.warnings, path, "resumed")
    if listener.warnings[0] not in (path / "log.txt").read_text():
        raise Mismatch("log.txt does not know that the older generation was taken")
    check_outcome(remains, path)


def check_best(remains: Remains, rng: Random) -> None:
    """Early stopping does not take back weights that are damaged; whole ones it still takes afterwards."""
    path = copy_run(remains)
    best = path / "checkpoints" / BEST
    whole = best.read_bytes()
    best.write_bytes(damage_somewhere(whole, rng))
    expect_refusal(lambda: api.train(resume=path), str(best), "best")
    if api.Run.read(path).status != "failed":
        raise Mismatch("a run without its best weights is not said to have failed")
    expect_refusal(lambda: api.Run.read(path).network("best"), str(best), "best")
    best.write_bytes(whole)
    api.train(resume=path)
    check_outcome(remains, path)


def check_forks(remains: Remains, rng: Random) -> None:
    """Neither a damaged checkpoint nor a damaged best one goes into a new run, and none is made."""
    path = copy_run(remains)
    checkpoints = path / "checkpoints"
    kept = rng.choice(sorted(checkpoints.glob("step-*.safetensors")))
    for name, file in ((kept.stem, kept), ("best", checkpoints / BEST), ("last", checkpoints / BEST)):
        whole = file.read_bytes()
        file.write_bytes(damage_somewhere(whole, rng))
        runs = path.parent / "forks"
        expect_refusal(
            partial(api.train, resume=path, fork=True, checkpoint=name, runs_dir=runs),
            str(file),
            f"fork of {name}",
        )
        if runs.exists():
            raise Mismatch(f"fork of {name}: refused, and yet there is {sorted(runs.iterdir())}")
        file.write_bytes(whole)


def damage_somewhere(content: bytes, rng: Random) -> bytes:
    """One bit, sector or end of it."""
    place = rng.randrange(len(content))
    start = place // SECTOR * SECTOR
    kinds = (
        content[:place],
        b"%b%c%b" % (content[:place], content[place] ^ 1 << rng.randrange(8), content[place + 1 :]),
        content[:start] + b"\xff" * len(content[start : start + SECTOR]) + content[start + SECTOR :],
    )
    return rng.choice(kinds)


def expect_refusal(call: Callable[[], object], name: str, kind: str) -> str:
    """The line it was refused in, which names the file."""
    try:
        call()
    except CheckpointError as error:
        line = str(error)
    else:
        raise Mismatch(f"{kind}: a damaged checkpoint was used")
    if name not in line or not line.isprintable():
        raise Mismatch(f"{kind}: refused, but not in one line that names {name}: {line!r}")
    return line


def check_warning(remains: Remains, heard: list[str], path: Path, kind: str) -> None:
    """Exactly one, of the damaged file and of the step that is gone back to."""
    step = Checkpoint.unpack(remains.older, Path("x")).metadata.progress.step
    last = path / "checkpoints" / LAST
    if len(heard) != 1 or str(last) not in heard[0] or f"step {step}" not in heard[0]:
        raise Mismatch(f"{kind}: the older generation was taken, and what was said is {heard}")


def check_untouched(remains: Remains, kind: str) -> None:
    if capture(remains.experiment) != remains.fresh:
        raise Mismatch(f"{kind}: refused, but weights, statistics or slots changed")


def check_outcome(remains: Remains, path: Path) -> None:
    found = read_outcome(path)
    different = [name for name in OUTCOME if found[name] != remains.outcome[name]]
    if different:
        raise Mismatch(f"{', '.join(different)}: not what the run that was not broken has")


@cache
def create_remains() -> Remains:
    """A run that goes to its end, and the same one that dies."""
    runs = make_ground("damage") / "runs"
    whole = api.train(CONFIG, runs_dir=runs)
    steps, take = count(1), Plan.step_over

    def die(plan: Plan, *arguments: Any, **settings: Any) -> Any:
        if next(steps) == DIES_AT:
            raise Death
        return take(plan, *arguments, **settings)

    with patch.object(Plan, "step_over", die):
        try:
            api.train(CONFIG, runs_dir=runs)
        except Death:
            (path,) = set(runs.iterdir()) - {whole.path}
        else:
            raise Mismatch(f"the run ended before step {DIES_AT}")
    newer, older = ((path / "checkpoints" / name).read_bytes() for name in (LAST, PREVIOUS))
    if -(-len(newer) // SECTOR) != SECTORS or newer == older:
        raise Mismatch(f"a checkpoint has {len(newer)} bytes, which are not {SECTORS} sectors")
    config = load_config(path / "resolved.yaml")
    experiment = build_experiment(
        config, (path / "resolved.yaml").read_text(), data_dir=None, observer=Observer()
    )
    return Remains(path, newer, older, read_outcome(whole.path), experiment, capture(experiment))


def copy_run(remains: Remains) -> Path:
    """A copy to do damage to; the one before it goes."""
    path = make_ground("damage") / "copy"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(remains.path, path)
    return path


def capture(experiment: Experiment) -> bytes:
    """The bytes of its weights, statistics and slots."""
    plan = experiment.plan
    arrays = {**plan.export_params(), **plan.export_statistics(), **plan.export_slots()}
    return b"".join(array.tobytes() for array in arrays.values()) + b"%d" % plan.step_count


def read_files(path: Path) -> dict[str, bytes]:
    """All of a run but its lock."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def read_outcome(path: Path) -> dict[str, str]:
    """SHA-256 of what a run that went on has in common with one that was not broken."""
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in OUTCOME}
