"""Options and arguments that several commands have, worded once, with what a shell may complete them to."""

from pathlib import Path

import click


def complete_run(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The names of runs that begin so, the newest first."""
    from cnnctl.train.run_directory import list_names

    names = ["latest", *reversed(list_names(Path(ctx.params.get("runs_dir") or "runs")))]
    return [name for name in names if name.startswith(incomplete)]


def complete_backend(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The backends that begin so."""
    from cnnctl.backends import BACKENDS

    return [name for name in BACKENDS if name.startswith(incomplete)]


def complete_dataset(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The data sets that begin so."""
    from cnnctl.data.catalog import CATALOG

    return [name for name in CATALOG if name.startswith(incomplete)]


PATH = click.Path()
"""Completed to files; whether it is one that serves, the command finds out and says."""

run_argument = click.argument("run", shell_complete=complete_run)
config_argument = click.argument("config", type=PATH)
optional_config_argument = click.argument("config", type=PATH, required=False)
runs_dir_option = click.option(
    "--runs-dir", type=PATH, default="runs", show_default=True, metavar="DIR", help="Where runs lie."
)
data_dir_option = click.option(
    "--data-dir", type=PATH, metavar="DIR", help="Where data sets lie; looked into before CNNCTL_DATA_DIR."
)
override_option = click.option(
    "-o",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a field of the config, as in -o solver.epochs=3. Can be given many times.",
)
checkpoint_option = click.option(
    "--checkpoint",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="The weights after the last step, or those best on the validation images.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
