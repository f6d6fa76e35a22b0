"""Runs side by side: listed, compared, followed while they train, removed.

Reads what runs have written down, in whatever state it is: a directory that is no run, or a
damaged one, is told and stops nothing. Only `remove_run` changes anything.
"""

import hashlib
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Any

from cnnctl.config.strict_yaml import read_yaml
from cnnctl.errors import CnnctlError, RunError
from cnnctl.train.api import Run
from cnnctl.train.atomic import reporting_os_errors, sync_directory
from cnnctl.train.metrics import parse_entry
from cnnctl.train.observer import Scores
from cnnctl.train.run_directory import MAX_LINE_BYTES, RunDirectory

_REMOVED = ".removed-by-cnnctl"
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a few figures.

    Attributes:
        state: that of its status; killed, if that says running and nobody trains there.
        started, updated: UTC, ISO 8601.
        steps, epochs: done when its status was last written.
        seconds: wall clock over its whole life; None for a measurement, which trains nothing.
        train, validation, test: the final weights' scores; None before it is finished.
        history: the accuracies of its epochs, on the validation images where there are some and
            on the training images where not.
        is_validation: which of the two.
    """

    path: Path
    state: str
    started: str
    updated: str
    steps: int
    epochs: int
    seconds: float | None = None
    train: Scores | None = None
    validation: Scores | None = None
    test: Scores | None = None
    history: tuple[float, ...] = ()
    is_validation: bool = False

    @property
    def best_validation(self) -> float | None:
        """The highest validation accuracy of an epoch."""
        return max(self.history, default=None) if self.is_validation else None

    @property
    def last_validation(self) -> float | None:
        """The validation accuracy of the last epoch."""
        return self.history[-1] if self.history and self.is_validation else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A key of the configuration that runs do not have in common.

    Attributes:
        key: dotted, as -o takes it.
        values: one a run; None where it has no such key.
    """

    key: str
    values: tuple[Any, ...]


def summarize_run(path: Path) -> RunSummary:
    """Raises RunError when it is none, or damaged."""
    run = RunDirectory(path)
    is_locked = run.is_locked()  # first: whoever lets go of it afterwards has written how it ended
    status = run.read_status()
    state = "killed" if status.state == "running" and not is_locked else status.state
    facts = RunSummary(path, state, status.started, status.updated, status.step, status.epoch)
    if not (path / "config.yaml").is_file():
        return facts
    read = Run.read(path)
    train, validation = _read_history(run)
    return RunSummary(
        path=path,
        state=state,
        started=status.started,
        updated=status.updated,
        steps=status.step,
        epochs=status.epoch,
        seconds=read.seconds,
        train=read.train,
        validation=read.validation,
        test=read.test,
        history=validation or train,
        is_validation=bool(validation),
    )


def list_runs(runs_dir: Path) -> tuple[list[RunSummary], list[str]]:
    """All runs there, the newest first, and a line for each directory that is none or is damaged.

    No runs when there is no such folder; hidden ones are passed over. Raises RunError when it
    cannot be read.
    """
    if not runs_dir.exists():
        return [], []
    summaries, problems = [], []
    with reporting_os_errors(runs_dir):
        names = sorted(path for path in runs_dir.iterdir() if not path.name.startswith(".") and path.is_dir())
    for path in names:
        try:
            if not (path / "status.json").exists():
                problems.append(f"{path}: no run: it has no status.json")
            else:
                summaries.append(summarize_run(path))
        except CnnctlError as error:
            problems.append(str(error))
    return sorted(summaries, key=lambda run: (run.started, run.path.name), reverse=True), problems


def find_differences(paths: Sequence[Path]) -> list[Difference]:
    """Where the resolved configurations of runs differ. Raises ConfigError when one cannot be read."""
    configs = [read_yaml(str(path / "resolved.yaml")).to_data() for path in paths]
    return list(_find_differences("", configs))


def hash_config(path: Path) -> str:
    """SHA-256 of a run's resolved configuration, which its checkpoints hold, too."""
    return hashlib.sha256(RunDirectory(path).read_text("resolved.yaml").encode()).hexdigest()


def read_environment(path: Path) -> dict[str, Any]:
    """What a run was made with. Raises RunError when that is damaged."""
    environment = RunDirectory(path).read_json("env.json")
    if not isinstance(environment, dict):
        raise RunError(f"{path / 'env.json'}: damaged: it is no JSON object")
    return environment


def list_files(path: Path) -> dict[str, int]:
    """Bytes of each file of a run, by its path within; links are not followed."""
    with reporting_os_errors(path):
        return {
            file.relative_to(path).as_posix(): file.lstat().st_size
            for file in sorted(path.rglob("*"))
            if file.is_symlink() or not file.is_dir()
        }


def follow_metrics(path: Path, last: int) -> Iterator[dict[str, Any]]:
    """The last entries of a run's metrics, then those to come, until nobody trains there any more.

    A run that was cut back, as a resumed one is, is followed from there. Raises RunError when its
    metrics cannot be read.
    """
    run, position = RunDirectory(path), 0
    newest: deque[bytes] = deque(maxlen=last)
    while True:
        is_running = run.is_locked()  # before reading: what is written afterwards is not missed
        with reporting_os_errors(path / "metrics.jsonl"):
            position = min(position, (path / "metrics.jsonl").stat().st_size)
        for line in run.read_lines("metrics.jsonl", position):
            if line.endswith(b"\n"):
                newest.append(line)
            elif len(line) < MAX_LINE_BYTES:
                break  # the rest of it is still to come
            position += len(line)
        yield from filter(None, map(parse_entry, newest))
        if not is_running:
            return
        newest = deque()
        sleep(_POLL_SECONDS)


def check_removable(path: Path, runs_dir: Path) -> None:
    """Raises RunError unless it is a directory right in the folder of runs, where nobody trains."""
    if path.is_symlink():
        raise RunError(f"{path}: a link to {path.resolve()}; remove it by other means")
    if path.resolve().parent != runs_dir.resolve():
        raise RunError(f"{path}: does not lie in {runs_dir}; give the folder it lies in as --runs-dir")
    if RunDirectory(path).is_locked():
        raise RunError(f"{path}: somebody is training in it; wait or stop it")


def remove_run(path: Path, runs_dir: Path) -> None:
    """Remove a run for good. Raises RunError as `check_removable` does, or when the disk refuses.

    It loses its name first, in one move, and then its files: wherever that is interrupted, there
    is the whole run or none. What was left of another removal goes with it.
    """
    check_removable(path, runs_dir)
    path = path.resolve()
    removed = path.with_name(f".{path.name}{_REMOVED}")
    with reporting_os_errors(path):
        with RunDirectory(path).locked():
            path.rename(removed)
            sync_directory(path.parent)
        shutil.rmtree(removed)
    for leftover in path.parent.glob(f".*{_REMOVED}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _read_history(run: RunDirectory) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Training and validation accuracies; a row that is not whole, as a killed run may leave, is left out."""
    train: list[float] = []
    validation: list[float] = []
    for line in islice(run.read_lines("metrics.csv"), 1, None):
        row = line.split(b",")
        if len(row) == 6:
            for numbers, word in ((train, row[3]), (validation, row[5])):
                with suppress(ValueError):
                    numbers.append(float(word))
    return tuple(train), tuple(validation)


def _find_differences(key: str, values: Sequence[Any]) -> Iterator[Difference]:
    """Go down where all are alike: maps with a key in common, lists of one length."""
    if all(value == values[0] for value in values):
        return
    if all(isinstance(value, dict) for value in values) and set.intersection(*map(set, values)):
        for name in dict.fromkeys(name for value in values for name in value):
            dotted = f"{key}.{name}" if key else name
            yield from _find_differences(dotted, [value.get(name) for value in values])
    elif all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        for number, items in enumerate(zip(*values, strict=True)):
            yield from _find_differences(f"{key}[{number}]", items)
    else:
        yield Difference(key, tuple(values))
