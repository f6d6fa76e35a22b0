"""`cnnctl completion`: a script that lets a shell complete commands, options, files and the names of runs.

The script is click's own; nothing is installed and no file of the user's is touched.
"""

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=ExampleCommand,
    examples=(
        'eval "$(cnnctl completion bash)"                # for this shell; in ~/.bashrc, for all',
        'eval "$(cnnctl completion zsh)"                 # in ~/.zshrc, behind compinit',
        "cnnctl completion fish > ~/.config/fish/completions/cnnctl.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script for SHELL that lets the Tab key complete commands, options, files and names of runs."""
    from click.shell_completion import get_completion_class

    from cnnctl.cli.main import cli

    complete = get_completion_class(shell)
    assert complete, shell
    display.print_text(complete(cli, {}, "cnnctl", "_CNNCTL_COMPLETE").source().strip())
