"""`cnnctl predict`: what a run's network takes image files for.

Shows the classes with the highest scores; reads no image and computes nothing.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import PATH, checkpoint_option, json_option, run_argument, runs_dir_option
from cnnctl.cli.watch import Watcher

if TYPE_CHECKING:
    from cnnctl.train.predict import Prediction
    from cnnctl.train.trained import Answer


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl predict latest photo.jpg",
        "cnnctl predict mnist-simple pictures/ --checkpoint best --top 1 --json",
    ),
)
@run_argument
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGE...")
@runs_dir_option
@checkpoint_option
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes an image.")
@json_option
@click.pass_context
def predict(
    ctx: click.Context,
    run: str,
    images: tuple[str, ...],
    runs_dir: str,
    checkpoint: Literal["last", "best"],
    top: int,
    as_json: bool,
) -> None:
    """Tell what the network of RUN takes each IMAGE for: a file, or a folder of files.

    RUN is a run's path, its name, or the start of it, or 'latest'. Images are resized to the
    network's input, made grey or RGB and normalised as in training. Percentages are
    probabilities by softmax; a network that was trained with another loss (hinge, squared_error)
    has none, and its scores are shown. Exit code 1 if an image cannot be read; the others are told.
    """
    from cnnctl.train import api
    from cnnctl.train.run_directory import find_run

    path = find_run(run, Path(runs_dir))
    predictions = []
    with Watcher() as watcher:
        for prediction in api.predict(path, images, checkpoint=checkpoint, top=top, observer=watcher):
            predictions.append(prediction)
            if prediction.error and not as_json:
                display.error(prediction.error)
    if as_json:
        document = {"schema": 1, "command": "predict", "run": str(path), "checkpoint": checkpoint}
        display.print_json({**document, "images": [_describe(prediction) for prediction in predictions]})
    elif told := [prediction for prediction in predictions if not prediction.error]:
        rows = [(prediction.path, *map(describe_answer, prediction.answers)) for prediction in told]
        display.print_table("", ("image", *map(str, range(1, len(rows[0])))), rows)
    if any(prediction.error for prediction in predictions):
        ctx.exit(1)


def _describe(prediction: "Prediction") -> dict[str, object]:
    answers = [asdict(answer) for answer in prediction.answers]
    return {"image": str(prediction.path), "error": prediction.error, "classes": answers}


def describe_answer(answer: "Answer") -> str:
    """A class with its probability, or its score where there is none."""
    if answer.probability is None:
        return f"{answer.name} ({answer.score:+.3f})"
    return f"{answer.name} ({100 * answer.probability:.1f} %)"
