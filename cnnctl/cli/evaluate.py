"""`cnnctl eval`: how well a run's network does on its data.

Shows what the evaluation found; computes nothing and changes no weight.
"""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import click

from cnnctl.cli import display
from cnnctl.cli.train import Watcher, show_run


@click.command("eval")
@click.argument("run")
@click.option("--runs-dir", default="runs", show_default=True, metavar="DIR", help="Where runs lie.")
@click.option(
    "--checkpoint",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="The weights after the last step, or those best on the validation images.",
)
@click.option("--data-dir", metavar="DIR", help="Where data sets lie.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def evaluate(
    run: str, runs_dir: str, checkpoint: Literal["last", "best"], data_dir: str | None, as_json: bool
) -> None:
    """Score the network of RUN: a run's path, its name, or the start of it, or 'latest'."""
    from cnnctl.train import api
    from cnnctl.train.run_directory import find_run

    found = api.Run.read(find_run(run, Path(runs_dir)))
    started = perf_counter()
    with Watcher() as watcher:
        evaluation = api.evaluate(found, checkpoint=checkpoint, data_dir=data_dir, observer=watcher)
    scored = replace(
        found,
        steps=evaluation.step,
        seconds=perf_counter() - started,
        train=evaluation.train,
        validation=evaluation.validation,
        test=evaluation.test,
    )
    if found.status != "finished":
        display.warn(f"the run is {found.status}; these are its weights after step {evaluation.step}")
    show_run("eval", scored, as_json)
