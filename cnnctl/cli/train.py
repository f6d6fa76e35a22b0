"""`cnnctl train`: a config goes in, a run directory comes out.

Passes on what was asked for and shows what came of it; trains nothing itself.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import (
    complete_run,
    data_dir_option,
    optional_config_argument,
    override_option,
    runs_dir_option,
)
from cnnctl.cli.report import PAGE, write_run_report
from cnnctl.cli.watch import Watcher, describe_run, print_scores
from cnnctl.errors import CnnctlError, ConfigError, Diverged, Interrupted


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl train configs/quickstart.yaml",
        "cnnctl train my.yaml -o solver.epochs=3 -o engine.backend=im2col --threads 1",
        "cnnctl train --resume latest                    # go on after Ctrl-C",
        "cnnctl train --resume latest --fork -o solver.epochs=30",
    ),
)
@optional_config_argument
@override_option
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=complete_run,
    help="Go on with a run: its path, name, or 'latest'.",
)
@click.option("--fork", is_flag=True, help="With --resume: go on in a new run; -o may change its config.")
@click.option(
    "--checkpoint", metavar="NAME", help="With --fork: last (as usual), best, or one that was kept."
)
@runs_dir_option
@data_dir_option
@click.option("--name", help="Part of the run directory's name, as -o name=...")
@click.option("--seed", metavar="N", help="Settles weights and order, as -o engine.seed=N.")
@click.option("--threads", metavar="N", help="How many threads, or auto, as -o engine.threads=N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--no-report", is_flag=True, help="Write no report.html at the end.")
def train(
    config: str | None,
    overrides: Sequence[str],
    resume: str | None,
    fork: bool,
    checkpoint: str | None,
    runs_dir: str,
    data_dir: str | None,
    name: str | None,
    seed: str | None,
    threads: str | None,
    as_json: bool,
    quiet: bool,
    no_report: bool,
) -> None:
    """Train the network that CONFIG describes, or go on with a run.

    Ctrl-C stops after the current step and leaves a run that --resume goes on with, to the
    same end as if it had never been stopped.
    """
    from cnnctl.train import api

    if config is None and resume is None:
        raise ConfigError(
            "CONFIG: none is given; `cnnctl config init` writes one, and --resume RUN goes on with a run"
        )
    if checkpoint and not fork:
        raise ConfigError(f"--checkpoint {checkpoint}: only a fork begins there; add --fork")
    quoted_name = None if name is None else json.dumps(name)
    flags = {"name": quoted_name, "engine.seed": seed, "engine.threads": threads}
    flag_overrides = [f"{key}={value}" for key, value in flags.items() if value is not None]
    with Watcher(quiet) as watcher:
        try:
            run = api.train(
                config,
                overrides=[*overrides, *flag_overrides],
                runs_dir=runs_dir,
                data_dir=data_dir,
                resume=resume,
                fork=fork,
                checkpoint=checkpoint or "last",
                observer=watcher,
            )
        except (Diverged, Interrupted):
            if as_json and watcher.run:
                display.print_json(describe_run("train", api.Run.read(watcher.run)))
            raise
    if watcher.run is None:
        display.note(f"{run.path} is finished already")
    elif not no_report:
        _report(run.path, data_dir, quiet)
    if as_json:
        display.print_json(describe_run("train", run))
    else:
        print_scores(run)
        display.print_text(str(run.path))


def _report(path: Path, data_dir: str | None, quiet: bool) -> None:
    """The run is whole without it: what prevents it is a warning."""
    try:
        page = write_run_report(path, data_dir, path / PAGE)
    except CnnctlError as error:
        display.warn(f"no report was written: {error}")
    else:
        if not quiet:
            display.note(f"report: {page}")
