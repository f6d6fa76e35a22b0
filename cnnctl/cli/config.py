"""`cnnctl config`: check configs, and show them with everything filled in.

Reads configs and writes nothing; whether the data is there and the shapes fit is for
`train` to find out, before its first step.
"""

from typing import TYPE_CHECKING, Any

import click

from cnnctl.cli import display
from cnnctl.cli.groups import HintingGroup
from cnnctl.cli.options import PATH, json_option
from cnnctl.errors import ConfigError

if TYPE_CHECKING:
    from cnnctl.config import RunConfig

override_option = click.option(
    "-o",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one field, as in -o solver.epochs=3. Can be given many times.",
)


@click.group(cls=HintingGroup)
def config() -> None:
    """Check configs and show them resolved."""


@config.command(
    examples=(
        "cnnctl config validate my.yaml",
        "cnnctl config validate configs/*.yaml -o solver.epochs=3",
    ),
)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@override_option
@json_option
@click.pass_context
def validate(ctx: click.Context, files: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check each FILE; exit code 2 if one does not hold.

    Tells all that is wrong, a line each; the values of a section are looked at once its keys are right.
    """
    from cnnctl.config import load_config

    reports: list[dict[str, Any]] = []
    for file in files:
        try:
            loaded = load_config(file, overrides)
        except ConfigError as error:
            reports.append({"file": file, "ok": False, "error": str(error), "errors": list(error.problems)})
            if not as_json:
                for problem in error.problems:
                    display.error(problem)
        else:
            reports.append({"file": file, "ok": True, "error": None, "errors": []})
            if not as_json:
                display.print_text(f"{file}: ok ({_summarize(loaded)})")
    if as_json:
        display.print_json({"schema": 1, "command": "config validate", "files": reports})
    if not all(report["ok"] for report in reports):
        ctx.exit(2)


@config.command(
    short_help="Print FILE with bases and defaults filled in.",
    examples=(
        "cnnctl config show my.yaml",
        "cnnctl config show my.yaml -o engine.backend=naive --json",
    ),
)
@click.argument("file", type=PATH, metavar="FILE")
@override_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document in place of YAML.")
def show(file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print FILE resolved: bases merged, the network read in, defaults written out."""
    from cnnctl.config import config_to_dict, dump_config, load_config

    loaded = load_config(file, overrides)
    if as_json:
        display.print_json({"schema": 1, "command": "config show", "config": config_to_dict(loaded)})
    else:
        display.print_text(dump_config(loaded))


def _summarize(config: "RunConfig") -> str:
    layers = display.format_count(len(config.network.layers), "layer")
    epochs = display.format_count(config.solver.epochs, "epoch")
    return f"{config.data.dataset}, {layers}, {config.solver.optimizer.kind}, {epochs}"
