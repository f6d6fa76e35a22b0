"""What a run writes down as it goes: metrics, which repeat bit for bit, and timings, which do not.

    metrics.jsonl   {"type": "step", ...} and {"type": "epoch", ...}, one object a line
    metrics.csv     a row an epoch
    timing.csv      a row an epoch
    timing.json     seconds over the whole life of the run; they add up

A resumed run cuts the metrics back to the lengths that its checkpoint recorded and so
ends with the bytes of a run that was never stopped. Nothing clocked goes into metrics.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from sys import intern
from time import perf_counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cnnctl.errors import RunError
from cnnctl.nn.plan import Norms
from cnnctl.train.atomic import AppendedFile
from cnnctl.train.observer import Scores
from cnnctl.train.run_directory import MAX_LINE_BYTES, Count, RunDirectory

PassedSeconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

NEW_FILES = {
    "metrics.jsonl": b"",
    "metrics.csv": b"epoch,step,train_loss,train_accuracy,validation_loss,validation_accuracy\n",
    "timing.csv": b"epoch,train_seconds,evaluation_seconds,images_per_second\n",
    "timing.json": b"{}\n",
}
"""What the files hold before the first step."""


class Metrics:
    """The two metrics files of a run, open for appending."""

    def __init__(self, directory: Path, jsonl_bytes: int, csv_bytes: int) -> None:
        """Cut the files to these lengths. Raises RunError when they are shorter."""
        self._lines = AppendedFile(directory / "metrics.jsonl", jsonl_bytes)
        self._table = AppendedFile(directory / "metrics.csv", csv_bytes)

    def add_step(
        self, step: int, epoch: int, loss: float, accuracy: float, lr: float, norms: Norms | None
    ) -> None:
        """One step's own loss and accuracy, on its batch before the update; then how far that went.

        update_ratio is ||w after - w before|| / ||w before||. What is not finite becomes null.
        """
        figures: dict[str, float] = {}
        if norms:
            ratio = norms.update / norms.weight if norms.weight else inf
            figures = {"weight_norm": norms.weight, "gradient_norm": norms.gradient, "update_ratio": ratio}
        measured = {name: value if isfinite(value) else None for name, value in figures.items()}
        self._add_line(type="step", step=step, epoch=epoch, loss=loss, accuracy=accuracy, lr=lr, **measured)

    def add_epoch(self, step: int, epoch: int, train: Scores, validation: Scores | None) -> None:
        """Both splits at the end of an epoch."""
        splits = {"train": train, "validation": validation}
        scores = {name: s and {"loss": s.loss, "accuracy": s.accuracy} for name, s in splits.items()}
        self._add_line(type="epoch", step=step, epoch=epoch, **scores)
        held_out = (validation.loss, validation.accuracy) if validation else ("", "")
        self._table.append(",".join(map(str, (epoch, step, train.loss, train.accuracy, *held_out))) + "\n")

    def sync(self) -> tuple[int, int]:
        """Put both on disk; returns their lengths in bytes, metrics.jsonl first."""
        return self._lines.sync(), self._table.sync()

    def close(self) -> None:
        """Close both."""
        self._lines.close()
        self._table.close()

    def _add_line(self, **values: object) -> None:
        self._lines.append(json.dumps(values) + "\n")


class _Figures(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    loss: float
    accuracy: float


class _Step(_Figures):
    type: Literal["step"]
    step: Count
    epoch: Count
    lr: float
    weight_norm: float | None = None
    gradient_norm: float | None = None
    update_ratio: float | None = None


class _Epoch(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    type: Literal["epoch"]
    step: Count
    epoch: Count
    train: _Figures
    validation: _Figures | None


_ENTRY: TypeAdapter[_Step | _Epoch] = TypeAdapter(Annotated[_Step | _Epoch, Field(discriminator="type")])


def parse_entry(line: bytes) -> dict[str, Any] | None:
    """What a line of metrics.jsonl says; None if it is damaged or not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry: dict[str, Any] = json.loads(line.decode())
        _ENTRY.validate_python(entry)
    except (ValueError, RecursionError):
        return None
    return entry


def read_metrics(run: RunDirectory) -> list[dict[str, Any]]:
    """The entries of metrics.jsonl, in order; the last line of a killed run need not be whole.

    Raises RunError when it cannot be read, or another line is damaged.
    """
    entries = []
    for number, line in enumerate(run.read_lines("metrics.jsonl"), 1):
        entry = parse_entry(line)
        if entry is not None:
            entries.append(entry)
        elif line.endswith(b"\n") or len(line) == MAX_LINE_BYTES:
            raise RunError(f"{run.path / 'metrics.jsonl'}: damaged: line {number} is no entry")
    return entries


class Seconds(BaseModel):
    """Wall clock by what it went into."""

    train_seconds: PassedSeconds = 0.0
    evaluation_seconds: PassedSeconds = 0.0
    checkpoint_seconds: PassedSeconds = 0.0


class TimingFile(BaseModel):
    """timing.json.

    Attributes:
        seconds: all of the run so far.
        run: the same in parts.
        epoch: the parts of what came after the last epoch that ended.
    """

    seconds: PassedSeconds = 0.0
    run: Seconds = Field(default_factory=Seconds)
    epoch: Seconds = Field(default_factory=Seconds)

    @classmethod
    def read(cls, run: RunDirectory) -> "TimingFile":
        """Raises RunError when it cannot be read."""
        return run.read_model(cls, "timing.json")


class Timing:
    """A clock that always runs for one activity or another, so that its parts add up."""

    def __init__(self, run: RunDirectory, epochs: int) -> None:
        """Go on from the files of a run that has finished that many epochs."""
        self._run = run
        self._state = TimingFile.read(run)
        rows = islice(run.read_lines("timing.csv"), 1 + epochs)
        self._table = AppendedFile(run.path / "timing.csv", sum(map(len, rows)))
        self._activity, self._since = "train_seconds", perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of the run so far."""
        self._switch(self._activity)
        return self._state.seconds

    @contextmanager
    def measure(self, activity: Literal["evaluation", "checkpoint"]) -> Iterator[None]:
        """Count the block's time for that, and what comes after it as what came before it."""
        # Interned: a cache of attribute names would keep each copy.
        before = self._switch(intern(f"{activity}_seconds"))
        try:
            yield
        finally:
            self._switch(before)

    def end_epoch(self, epoch: int, images: int) -> float:
        """Write an epoch's row; returns the seconds of its steps and its evaluation."""
        self._switch(self._activity)
        train, evaluation = self._state.epoch.train_seconds, self._state.epoch.evaluation_seconds
        self._state.epoch = Seconds()
        self._table.append(f"{epoch},{train:.6f},{evaluation:.6f},{images / train:.1f}\n")
        return train + evaluation

    def save(self) -> None:
        """Replace timing.json."""
        self._switch(self._activity)
        self._run.write_json("timing.json", self._state.model_dump())

    def close(self) -> None:
        """Close timing.csv."""
        self._table.close()

    def _switch(self, activity: str) -> str:
        before, now = self._activity, perf_counter()
        elapsed = now - self._since
        self._state.seconds += elapsed
        for seconds in (self._state.run, self._state.epoch):
            setattr(seconds, before, getattr(seconds, before) + elapsed)
        self._activity, self._since = activity, now
        return before
