"""`cnnctl plot`: curves of one or several runs, as a picture, as numbers and in the terminal.

Looks runs up and passes them on; reads no file and draws nothing itself.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import PATH, complete_run, json_option, runs_dir_option
from cnnctl.errors import RunError

if TYPE_CHECKING:
    from cnnctl.train.curves import Series


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl plot latest",
        "cnnctl plot RUN OTHER-RUN --metric loss,accuracy --smooth 20 --output both.svg",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_run)
@click.option(
    "--metric",
    "metrics",
    metavar="NAME,...",
    help="Of loss, accuracy, lr, norms, update-ratio, speed.  [default: all]",
)
@click.option(
    "--smooth",
    "span",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="K",
    help="Average single steps over about K entries, each counting 1 - 1/K of the next; 1: not at all.",
)
@click.option(
    "--output",
    type=PATH,
    metavar="FILE",
    help="The PNG or SVG to write.  [default: figures/curves.png of the run, curves.png for several]",
)
@runs_dir_option
@json_option
def plot(
    names: tuple[str, ...],
    metrics: str | None,
    span: int,
    output: str | None,
    runs_dir: str,
    as_json: bool,
) -> None:
    """Draw the curves of each RUN: a run's path, its name, or the start of it, or 'latest'.

    Loss, learning rate, norms and update-to-weight ratio are those of the steps in metrics.jsonl,
    accuracy and images per second those of whole epochs. A CSV of the numbers goes beside the
    picture. A terminal shows the curves as well.
    """
    from cnnctl.plot.chart import draw_chart
    from cnnctl.plot.curves import draw_curves
    from cnnctl.plot.figure import check_picture_path
    from cnnctl.train.curves import check_metrics, read_curves
    from cnnctl.train.run_directory import RunDirectory, find_run

    chosen = check_metrics(metrics.split(",") if metrics else [])
    if output:
        check_picture_path(Path(output))
    paths = list(dict.fromkeys(find_run(name, Path(runs_dir)) for name in names))
    series = [one for path in paths for one in read_curves(path, chosen, span)]
    by_metric = {metric: [one for one in series if one.metric == metric] for metric in chosen}
    missing = [metric for metric, found in by_metric.items() if not found]
    if not series or (metrics and missing):
        wanted = ", ".join(missing)
        raise RunError(f"{', '.join(map(str, paths))}: there are no entries of {wanted} to draw yet")
    if output:
        picture = Path(output)
    else:
        folder = RunDirectory(paths[0]).make_figures() if len(paths) == 1 else Path()
        picture = folder / "curves.png"
    numbers = draw_curves([one for found in by_metric.values() for one in found], picture)
    if as_json:
        document = {"schema": 1, "command": "plot", "runs": [str(path) for path in paths], "smooth": span}
        curves = [_describe(one) for found in by_metric.values() for one in found]
        display.print_json({**document, "output": str(picture), "numbers": str(numbers), "series": curves})
        return
    if room := display.find_chart_room():
        columns, braille = room
        for found in filter(None, by_metric.values()):
            display.show_chart(draw_chart(found, columns, braille=braille))
    display.print_text(str(picture))
    display.print_text(str(numbers))


def _describe(series: "Series") -> dict[str, Any]:
    """What a curve comes to; its points are in the CSV."""
    return {
        "run": series.run,
        "metric": series.metric,
        "name": series.name,
        "axis": series.axis,
        "points": len(series.x),
        "first": series.values[0],
        "last": series.values[-1],
        "least": min(series.values),
        "greatest": max(series.values),
        "last_smoothed": series.smoothed and series.smoothed[-1],
    }
