"""What of a run goes into its report, gathered from its directory; what a run lacks is told in its place.

Reads what training and evaluation have written, and draws the filters. Trains, evaluates and times
nothing: scores, mistakes and timings are there already or are handed over.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cnnctl.config import load_config
from cnnctl.errors import CnnctlError
from cnnctl.nn import Network
from cnnctl.plot.curves import is_logarithmic
from cnnctl.plot.insight import draw_filters
from cnnctl.plot.report import Chart, Line, Picture, Report, Table
from cnnctl.train.checkpoint import load_last_checkpoint
from cnnctl.train.curves import Series, read_curves, smooth
from cnnctl.train.evaluate import Evaluation, read_evaluation
from cnnctl.train.initial import find_first_conv, read_initial_filters
from cnnctl.train.run_directory import RunDirectory
from cnnctl.train.runs import RunSummary, read_environment, summarize_run
from cnnctl.train.scores import Details
from cnnctl.train.trained import restore_network

TITLES = {
    "loss": "Loss",
    "accuracy": "Accuracy",
    "lr": "Learning rate",
    "norms": "Norms",
    "update-ratio": "Update to weights",
    "speed": "Images per second",
}
MISTAKES = "eval/last-mistakes.png"
SPAN_SHARE = 50
"""A curve is smoothed over this part of its points, if that is more than one."""


def gather_report(path: Path, timing: Table | None = None, notes: dict[str, str] | None = None) -> Report:
    """The report of a run, whatever state it is in. `notes` say why a section has less than it might.

    Raises RunError when it is no run, and CheckpointError when no checkpoint is whole.
    """
    run, notes = RunDirectory(path), dict(notes or {})
    summary, evaluation = summarize_run(path), read_evaluation(run, "last")
    checkpoint = load_last_checkpoint(run.checkpoints, lambda line: notes.update({"Network": line}))
    network = restore_network(load_config(path / "resolved.yaml"), checkpoint)
    details = evaluation.details if evaluation else {}
    split = evaluation.closest_split if evaluation else None
    return Report(
        title=path.resolve().name,
        lead=_describe_state(summary),
        figures=_choose_figures(summary, network),
        input_shape=network.input_shape,
        layers=network.summary(),
        charts=_gather_charts(path),
        classes=[found.name for found in details[split].classes] if split else (),
        confusion=details[split].confusion if split else None,
        scores=_list_scores(evaluation),
        classwise=_list_classes(split, details[split]) if split else None,
        timing=timing,
        filters=_draw_filters(run, network, notes),
        mistakes=_read_mistakes(path, split),
        config=run.read_text("resolved.yaml"),
        environment=read_environment(path),
        commands=_tell_how_to_repeat(path, summary),
        notes=notes,
    )


def _describe_state(summary: RunSummary) -> str:
    seconds = f" in {summary.seconds:,.0f} s" if summary.seconds else ""
    epochs = "1 epoch" if summary.epochs == 1 else f"{summary.epochs:,} epochs"
    return f"{summary.state} after {summary.steps:,} steps, {epochs}{seconds}; begun {summary.started}"


def _choose_figures(summary: RunSummary, network: Network) -> dict[str, str]:
    """Accuracies as far as they are known, and sizes."""
    scores = {"test": summary.test, "validation": summary.validation, "training": summary.train}
    figures = {f"{name} accuracy": f"{100 * s.accuracy:.2f} %" for name, s in scores.items() if s}
    if not figures and summary.history:
        name = "validation" if summary.is_validation else "training"
        figures = {f"last {name} accuracy": f"{100 * summary.history[-1]:.2f} %"}
    layers = network.summary()
    figures["parameters"] = f"{network.parameter_count:,}"
    figures["multiply-accumulates an image"] = f"{sum(layer.macs for layer in layers):,}"
    if summary.seconds:
        figures["time"] = f"{summary.seconds:,.1f} s"
    return figures


def _gather_charts(path: Path) -> list[Chart]:
    """A chart for each metric and axis."""
    charts: dict[tuple[str, str], list[Series]] = {}
    for series in read_curves(path):
        charts.setdefault((series.metric, series.axis), []).append(series)
    return [
        Chart(TITLES[metric], axis, tuple(_draw_lines(found)), is_logarithmic(found))
        for (metric, axis), found in charts.items()
    ]


def _draw_lines(found: Sequence[Series]) -> list[Line]:
    lines = []
    for color, series in enumerate(found):
        span = len(series.values) // SPAN_SHARE
        if series.smoothed is None or span < 2:
            lines.append(Line(series.name, series.x, series.values, color))
            continue
        smoothed = smooth(series.values, span)
        lines.append(Line(f"{series.name}, each", series.x, series.values, color, is_raw=True))
        lines.append(Line(f"{series.name}, smoothed", series.x, smoothed, color))
    return lines


def _list_scores(evaluation: Evaluation | None) -> Table | None:
    if evaluation is None:
        return None
    rows = []
    for name, scores in evaluation.scores.items():
        top5 = evaluation.details[name].top5 if name in evaluation.details else None
        share = None if top5 is None else f"{100 * top5:.2f} %"
        rows.append((name, f"{scores.loss:.4f}", f"{100 * scores.accuracy:.2f} %", share, scores.images))
    return Table(
        f"The weights after step {evaluation.step:,}", ("split", "loss", "accuracy", "top-5", "images"), rows
    )


def _list_classes(split: str, details: Details) -> Table:
    rows = [
        (
            found.name,
            found.images,
            found.predicted,
            *map(_show_share, (found.precision, found.recall, found.f1)),
        )
        for found in details.classes
    ]
    head = ("class", "images", "taken for it", "precision", "recall", "F1")
    return Table(f"Classes of the {split} images", head, rows)


def _show_share(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _draw_filters(run: RunDirectory, network: Network, notes: dict[str, str]) -> list[Picture]:
    """The first convolution's, before and after where the run knows how they began."""
    conv = find_first_conv(network)
    if conv is None:
        notes["Filters"] = "The network has no convolution, and so no filters."
        return []
    weights = {"trained": conv.params["weight"]}
    try:
        initial = read_initial_filters(run, conv.name, conv.params["weight"].shape)
        weights = {"initial": initial, **weights}
    except CnnctlError as error:
        notes["Filters"] = str(error)
    picture = run.make_figures() / "report-filters.png"
    draw_filters(conv.name, weights, "filter", picture)
    words = " and ".join({"initial": "as training began", "trained": "trained"}[time] for time in weights)
    return [
        Picture(picture.read_bytes(), f"Filters of {conv.name}, {words}; each stretched from black to white")
    ]


def _read_mistakes(path: Path, split: str | None) -> list[Picture]:
    file = path / MISTAKES
    if split is None or not file.is_file():
        return []
    return [Picture(file.read_bytes(), f"The most confident mistakes on the {split} images")]


def _tell_how_to_repeat(path: Path, summary: RunSummary) -> list[str]:
    run = shlex.quote(str(path))
    commands = [f"cnnctl train {shlex.quote(str(path / 'resolved.yaml'))}", f"cnnctl eval {run}"]
    return commands if summary.state == "finished" else [f"cnnctl train --resume {run}", *commands]
