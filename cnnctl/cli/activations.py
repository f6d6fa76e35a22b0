"""`cnnctl visualize-activations`: the activation functions and their derivatives as a picture.

Passes names on and says where picture and numbers were written.
"""

from pathlib import Path

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import PATH, complete_backend, json_option


@click.command(
    "visualize-activations",
    cls=ExampleCommand,
    examples=(
        "cnnctl visualize-activations",
        "cnnctl visualize-activations relu elu gelu --output three.svg",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    "--output",
    default="activations.png",
    show_default=True,
    type=PATH,
    metavar="FILE",
    help="The PNG or SVG to write; a CSV of the numbers goes beside it.",
)
@click.option(
    "--backend",
    default="naive",
    show_default=True,
    shell_complete=complete_backend,
    help="Who computes them: naive, im2col or fast.",
)
@json_option
def visualize_activations(names: tuple[str, ...], output: str, backend: str, as_json: bool) -> None:
    """Draw each activation function NAME and its derivative, or all there are."""
    from cnnctl.backends import create_backend
    from cnnctl.plot.activations import compute_activations, draw_activations

    curves = compute_activations(names, create_backend(backend))
    numbers = draw_activations(curves, Path(output))
    if as_json:
        document = {"schema": 1, "command": "visualize-activations", "backend": backend}
        found = {"activations": [curve.name for curve in curves], "output": output, "numbers": str(numbers)}
        display.print_json({**document, **found})
        return
    display.print_text(output)
    display.print_text(str(numbers))
