"""`cnnctl config`: write a config to start from, check configs, and show them with everything filled in.

Writes nothing but what `init` is told to; whether the data is there and the shapes of a config of yours fit
is for `train` to find out, before its first step.
"""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnctl.cli import display
from cnnctl.cli.groups import HintingGroup
from cnnctl.cli.new_file import force_option, refuse_existing, write_new_file
from cnnctl.cli.options import PATH, complete_dataset, json_option, override_option
from cnnctl.errors import ConfigError

if TYPE_CHECKING:
    from cnnctl.config import RunConfig


@click.group(cls=HintingGroup)
def config() -> None:
    """Write configs, check them, show them resolved."""


@config.command(
    examples=(
        "cnnctl config init",
        "cnnctl config init my.yaml --network lenet5 --dataset mnist",
        "cnnctl config init my.yaml --network vgg6 --dataset folder --path pictures",
    ),
)
@click.argument("file", required=False, type=PATH, metavar="[FILE]")
@click.option("--network", metavar="NAME", help="One of the shipped networks.  [default: quickstart]")
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=complete_dataset,
    help="A data set, as `data list` names it.  [default: shapes]",
)
@click.option(
    "--path", type=PATH, metavar="PATH", help="The folder of images or .npz file, for folder and npz."
)
@click.option("--stdout", "to_stdout", is_flag=True, help="Print it, as with - for FILE; write nothing.")
@force_option
@json_option
def init(
    file: str | None,
    network: str | None,
    dataset: str | None,
    path: str | None,
    to_stdout: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write a config to start from, every option in it explained.

    It trains a shipped network as the configs that come with cnnctl do, on the data set of your choice. On a
    terminal, what is not given is asked for. Beside FILE goes the schema that editors complete keys by.
    """
    from cnnctl.config.json_schema import FILES, SCHEMAS, dump_schema, format_schema_line
    from cnnctl.train.starter import DATASET, NETWORK, create_starter

    to_stdout = to_stdout or file == "-"
    if to_stdout and as_json:
        raise ConfigError("--json: a config that is printed leaves no room for a document; give a FILE")
    asking = display.can_ask()
    if file is not None and not to_stdout:
        refuse_existing(file, force=force)  # before anything is asked
    if dataset is None:
        dataset = _ask_dataset(DATASET) if asking else DATASET
    if asking and path is None and dataset in _named_by_path():
        path = display.ask_text(f"Where is the {'folder' if dataset == 'folder' else '.npz file'}?")
    if network is None:
        network = _ask_network(dataset, path, NETWORK) if asking else NETWORK
    if file is None and not to_stdout:
        file = f"{dataset}_{network}.yaml"
        file = display.ask_text("What is the file to be called?", file) if asking else file
    if file is None or to_stdout:
        display.print_text(create_starter(network, dataset, path))
        return
    folder = os.path.dirname(file)
    text = create_starter(network, dataset, path, folder)
    following = f"cnnctl train {shlex.quote(file)}"
    text = f"{format_schema_line(FILES['run'])}{text}\n# Next: {following}\n"
    write_new_file(file, text, force=force)
    schema = os.path.join(folder, FILES["run"])
    if force or not Path(schema).exists():
        write_new_file(schema, dump_schema(SCHEMAS["run"]()), force=True)
    if as_json:
        written = {"file": file, "schema_file": schema, "network": network, "dataset": dataset}
        display.print_json({"schema": 1, "command": "config init", **written, "next": following})
    else:
        display.print_text(file)
        display.note(f"next: {following}")


def _named_by_path() -> tuple[str, ...]:
    from cnnctl.data.catalog import FIELDS

    return FIELDS["path"]


def _ask_dataset(default: str) -> str:
    from cnnctl.data.catalog import CATALOG

    return display.ask_choice(
        "Which data set?", {entry.name: entry.description for entry in CATALOG.values()}, default
    )


def _ask_network(dataset: str, path: str | None, default: str) -> str:
    from cnnctl.config.shipped import read_network
    from cnnctl.train.starter import list_fitting_networks

    networks = list_fitting_networks(dataset, path)
    options = {name: read_network(name).about.partition("\n")[0] for name in networks}
    return display.ask_choice("Which network?", options, default)


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
