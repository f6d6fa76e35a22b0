"""`cnnctl schema`: what may stand in a config, as editors read it.

Prints a JSON Schema or writes it to a file; checks no config itself: `config validate` does.
"""

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.new_file import force_option, write_new_file
from cnnctl.cli.options import PATH


@click.command(
    cls=ExampleCommand,
    examples=("cnnctl schema --output cnnctl.schema.json", "cnnctl schema network"),
)
@click.argument("of", type=click.Choice(["run", "network"]), default="run", metavar="[run|network]")
@click.option("--output", type=PATH, metavar="FILE", help="Write it there in place of printing it.")
@force_option
def schema(of: str, output: str | None, force: bool) -> None:
    """Print the JSON Schema of a run's config, or of a network in a file of its own.

    An editor completes and explains keys by it, and underlines what is wrong. Those that know YAML by
    yaml-language-server (VS Code, Neovim, Emacs and others) find it by a line at the top of the config:

        # yaml-language-server: $schema=cnnctl.schema.json
    """
    from cnnctl.config.json_schema import SCHEMAS, dump_schema

    text = dump_schema(SCHEMAS[of]())
    if output is None:
        display.print_text(text)
    else:
        write_new_file(output, text, force=force)
        display.print_text(output)
