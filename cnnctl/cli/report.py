"""`cnnctl report`: everything a run has to show, in one HTML file.

Lets the other rooms supply missing scores, mistakes and timings, and tells where the page is.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnctl.cli import display
from cnnctl.cli.evaluate import draw_mistakes_picture
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import PATH, data_dir_option, json_option, run_argument, runs_dir_option
from cnnctl.errors import CnnctlError

if TYPE_CHECKING:
    from cnnctl.plot.report import Table

PAGE = "report.html"
TIMING_SECONDS = 1.0
TIMED_IMAGES = 2_000
"""Random ones, for a step's timing: more than caches hold, and less memory than training took."""


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl report latest",
        "cnnctl report mnist-simple --output mnist.html",
    ),
)
@run_argument
@runs_dir_option
@data_dir_option
@click.option(
    "--output", type=PATH, metavar="FILE", help="The page to write.  [default: report.html in the run]"
)
@json_option
def report(run: str, runs_dir: str, data_dir: str | None, output: str | None, as_json: bool) -> None:
    """Write a report of RUN: a run's path, its name, or the start of it, or 'latest'.

    One HTML file to be read anywhere, with nothing to be fetched: curves, the network, filters before
    and after, scores, the worst mistakes, time by layer, and how to repeat it. `train` writes one at
    its end.
    """
    from cnnctl.train.run_directory import find_run

    path = find_run(run, Path(runs_dir))
    page = write_run_report(path, data_dir, Path(output) if output else path / PAGE)
    if as_json:
        display.print_json({"schema": 1, "command": "report", "run": str(path), "report": str(page)})
    else:
        display.print_text(str(page))


def write_run_report(path: Path, data_dir: str | None, page: Path) -> Path:
    """Write it; returns where. What cannot be had is told in the page, and is no failure."""
    from cnnctl.plot.report import write_report
    from cnnctl.plot.run_report import gather_report

    notes: dict[str, str] = {}
    _draw_mistakes(path, data_dir, notes)
    write_report(gather_report(path, _measure(path, data_dir, notes), notes), page)
    return page


def _draw_mistakes(path: Path, data_dir: str | None, notes: dict[str, str]) -> None:
    """The picture that `eval` makes, of the scores that are there."""
    from cnnctl.plot.run_report import MISTAKES
    from cnnctl.train import api

    try:
        examination = api.recall_examination(path, data_dir=data_dir)
        if draw_mistakes_picture(examination, path / MISTAKES) is None:
            notes["Mistakes"] = "There are none."
    except CnnctlError as error:
        notes["Mistakes"] = str(error)


def _measure(path: Path, data_dir: str | None, notes: dict[str, str]) -> "Table | None":
    """The parts of a training step, timed here and now, on random images where those can stand in."""
    from cnnctl.bench.ops import measure_network
    from cnnctl.bench.workload import SYNTHETIC
    from cnnctl.config import load_config
    from cnnctl.plot.report import Table

    try:
        config = load_config(path / "resolved.yaml")
        if synthetic := config.data.dataset in SYNTHETIC:
            images = min(max(TIMED_IMAGES, config.solver.batch_size), SYNTHETIC[config.data.dataset][0])
            data = config.data.model_copy(update={"train": images, "validation": 0, "test": 1})
            config = config.model_copy(update={"data": data})
        found = measure_network(config, synthetic=synthetic, data_dir=data_dir, seconds=TIMING_SECONDS)
    except CnnctlError as error:
        notes["Timing"] = str(error)
        return None
    rows = [(row.name, row.forward_ms, row.backward_ms, row.share_percent) for row in found.rows]
    threads = display.format_count(found.threads, "thread")
    caption = f"A training step of {found.rows[0].batch_size} images on {threads}: {found.step_ms:.2f} ms"
    return Table(caption, ("operation", "forward ms", "backward ms", "percent of the step"), rows)
