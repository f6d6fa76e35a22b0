"""Curves of a run: what it wrote down as it went, as series of numbers, raw and smoothed.

Reads metrics.jsonl and timing.csv of a run in whatever state it is: a line that is not whole, as a
running or killed run may leave, is passed over, and so is a number that is not finite.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.train.run_directory import RunDirectory

Axis = Literal["step", "epoch"]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a series comes from: every entry that has this key.

    Attributes:
        key: dotted, into an entry of metrics.jsonl or a row of timing.csv.
        noisy: whether it is that of single batches, and so worth smoothing.
    """

    metric: str
    name: str
    key: str
    axis: Axis = "step"
    noisy: bool = False


_SOURCES = (
    _Source("loss", "training", "loss", noisy=True),
    _Source("loss", "validation", "validation.loss"),
    _Source("accuracy", "training", "train.accuracy", "epoch"),
    _Source("accuracy", "validation", "validation.accuracy", "epoch"),
    _Source("lr", "learning rate", "lr"),
    _Source("norms", "weights", "weight_norm"),
    _Source("norms", "gradient", "gradient_norm", noisy=True),
    _Source("update-ratio", "update to weights", "update_ratio", noisy=True),
    _Source("speed", "images per second", "images_per_second", "epoch"),
)
METRICS = tuple(dict.fromkeys(source.metric for source in _SOURCES))


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Attributes:
        run: the name of the run's directory.
        metric: one of METRICS.
        name: which of the metric's curves.
        axis: what x counts.
        values: at each x, all finite. Losses are in nats, accuracies fractions, norms Euclidean.
        smoothed: at each x; None for what is no noise of single batches.
    """

    run: str
    metric: str
    name: str
    axis: Axis
    x: tuple[int, ...]
    values: tuple[float, ...]
    smoothed: tuple[float, ...] | None


def check_metrics(metrics: Iterable[str]) -> list[str]:
    """Each once, or all where none is named. Raises ConfigError for one that is not known."""
    chosen = list(dict.fromkeys(metrics)) or list(METRICS)
    for metric in chosen:
        if metric not in METRICS:
            raise ConfigError(f"metric: {metric!r} is not known; {describe_alternatives(metric, METRICS)}")
    return chosen


def read_curves(path: Path, metrics: Sequence[str] = METRICS, span: int = 5) -> list[Series]:
    """A run's series of these metrics; those it has no number of are left out.

    Series of single batches are smoothed over `span` entries: see `smooth`. Raises RunError when the
    files cannot be read.
    """
    run = RunDirectory(path)
    entries = [dict(_flatten(entry)) for entry in _read_entries(run)]
    found = []
    for source in _SOURCES:
        points = list(_find_points(entries, source)) if source.metric in metrics else []
        if points:
            x, values = zip(*points, strict=True)
            smoothed = smooth(values, span) if source.noisy else None
            name = path.resolve().name
            found.append(Series(name, source.metric, source.name, source.axis, x, values, smoothed))
    return sorted(found, key=lambda series: metrics.index(series.metric))


def smooth(values: Sequence[float], span: int) -> tuple[float, ...]:
    """The exponential moving average, corrected for its start at 0.

    m_t = b m_(t-1) + (1 - b) x_t with m_0 = 0 and b = 1 - 1/span; s_t = m_t / (1 - b^t). It is
    TensorBoard's with a weight of b: each value counts b times as much as the one after it, and a
    `span` of 1 leaves all as it is. Source of the correction: Kingma, Ba 2015, section 3.

    >>> smooth([4.0, 4.0, 1.0], 2)
    (4.0, 4.0, 2.2857142857142856)
    """
    decay = 1 - 1 / span
    mean, smoothed = 0.0, []
    for t, value in enumerate(values, 1):
        mean = decay * mean + (1 - decay) * value
        smoothed.append(mean / (1 - decay**t))
    return tuple(smoothed)


def _read_entries(run: RunDirectory) -> Iterator[Mapping[str, Any]]:
    """The lines of metrics.jsonl, then the rows of timing.csv, that are whole."""
    for line in run.read_lines("metrics.jsonl"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry
    lines = (line.decode(errors="replace").strip() for line in run.read_lines("timing.csv"))
    columns, *rows = [line.split(",") for line in lines] or [[]]
    yield from (dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns))


def _flatten(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value


def _find_points(entries: Iterable[Mapping[str, Any]], source: _Source) -> Iterator[tuple[int, float]]:
    for entry in entries:
        x, value = _read_number(entry.get(source.axis)), _read_number(entry.get(source.key))
        if x is not None and value is not None:
            yield int(x), value


def _read_number(value: object) -> float | None:
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None
