"""Curves of one or several runs: a panel for each metric, with the numbers beside the picture.

Of one run each series has its colour; of several, each run, and a metric's second series is dashed.
What is smoothed is drawn over its raw values. Norms and ratios have a logarithmic scale, and so have
losses and learning rates that fall far.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnctl.plot.figure import COLOURS, draw_figure, save_figure, save_numbers
from cnnctl.train.curves import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "loss": "loss, nats",
    "accuracy": "accuracy, %",
    "lr": "learning rate",
    "norms": "norms of weights and gradient",
    "update-ratio": "update to weights, ratio of norms",
    "speed": "training speed, images/s",
}
LOGARITHMIC = {"norms", "update-ratio"}
FALLING = {"loss", "lr"}
FAR = 20.0
"""A metric that falls to less than one in so many has a logarithmic scale: its later part would be flat."""
FROM_ZERO = {"lr", "speed"}
COLUMNS = 3
DOTTED = 30
"""Series of no more values than this have a dot at each."""
_LINES = ("-", "--")


def draw_curves(series: Sequence[Series], path: Path) -> Path:
    """Write the picture to `path`; returns where its numbers are. Of accuracies, those are fractions."""
    metrics = list(dict.fromkeys(one.metric for one in series))
    runs = list(dict.fromkeys(one.run for one in series))
    columns = min(COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    footer = 0.25 * len(runs) if len(runs) > 1 else 0
    with draw_figure(max(6.0, 4.4 * columns), 3.2 * rows + footer) as figure:
        for number, metric in enumerate(metrics, 1):
            panel = figure.add_subplot(rows, columns, number)
            _draw_panel(panel, [one for one in series if one.metric == metric], runs)
            panel.set_title(TITLES[metric])
        if len(runs) > 1:
            from matplotlib.lines import Line2D

            lines = [Line2D([], [], color=_choose_colour(number)) for number in range(len(runs))]
            figure.legend(lines, runs, loc="outside lower center")
        save_figure(figure, path)
    header = ("run", "metric", "series", "axis", "x", "value", "smoothed")
    return save_numbers(path, header, _list_rows(series))


def _list_rows(series: Sequence[Series]) -> list[tuple[object, ...]]:
    """A row for each point of each series."""
    return [
        (one.run, one.metric, one.name, one.axis, x, value, one.smoothed and one.smoothed[number])
        for one in series
        for number, (x, value) in enumerate(zip(one.x, one.values, strict=True))
    ]


def _draw_panel(panel: "Axes", series: Sequence[Series], runs: Sequence[str]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    names = list(dict.fromkeys(one.name for one in series))
    scale = 100 if series[0].metric == "accuracy" else 1
    labels = set(names)
    for one in series:
        second = names.index(one.name)
        colour = _choose_colour(runs.index(one.run) if len(runs) > 1 else second)
        line = _LINES[second] if len(runs) > 1 else "-"
        marker = "." if len(one.x) <= DOTTED else None
        label = one.name if one.name in labels else None
        labels.discard(one.name)
        if one.smoothed and one.smoothed != one.values:
            panel.plot(one.x, one.values, line, color=colour, alpha=0.3, linewidth=0.8)
        shown = [scale * value for value in one.smoothed or one.values]
        panel.plot(one.x, shown, line, color=colour, marker=marker, label=label)
    panel.set_xlabel(series[0].axis)
    first, last = min(one.x[0] for one in series), max(one.x[-1] for one in series)
    if first == last:
        panel.set_xlim(first - 1, last + 1)  # left to itself, it would show thousandths of an epoch
    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if is_logarithmic(series):
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")  # not as a power, which would be set as mathematics
        panel.yaxis.set_minor_formatter(NullFormatter())
    elif series[0].metric in FROM_ZERO:
        panel.set_ylim(bottom=0)
    if len(names) > 1:
        panel.legend()


def is_logarithmic(series: Sequence[Series]) -> bool:
    """Whether a metric's series have a logarithmic scale: not if a value is 0."""
    values = [value for one in series for value in one.values]
    falls_far = series[0].metric in FALLING and max(values) > FAR * min(values)
    return min(values) > 0 and (falls_far or series[0].metric in LOGARITHMIC)


def _choose_colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
