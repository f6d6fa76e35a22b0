"""`cnnctl visualize-filters`, `feature-maps`, `saliency`, `fool`, `embed`: what a network sees, as pictures.

Each writes a picture, its numbers beside it, and tells where; computes and draws nothing itself.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import (
    PATH,
    checkpoint_option,
    data_dir_option,
    json_option,
    run_argument,
    runs_dir_option,
)
from cnnctl.cli.predict import describe_answer
from cnnctl.cli.watch import Watcher
from cnnctl.errors import ConfigError

if TYPE_CHECKING:
    from cnnctl.train.trained import Trained

Checkpoint = Literal["last", "best"]
STEM_CHARACTERS = 40
"""Of an image file's name, so many go into that of a picture."""


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all commands here have."""
    options = (
        runs_dir_option,
        checkpoint_option,
        click.option(
            "--output",
            type=PATH,
            metavar="FILE",
            help="The PNG or SVG to write.  [default: in figures/ of the run]",
        ),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


image_argument = click.argument("image", type=click.Path(path_type=Path))


@click.command(
    "visualize-filters",
    cls=ExampleCommand,
    examples=(
        "cnnctl visualize-filters latest",
        "cnnctl visualize-filters latest --layer conv2 --before-after --output filters.svg",
    ),
)
@run_argument
@click.option("--layer", metavar="NAME", help="Which convolution.  [default: the first]")
@click.option("--before-after", is_flag=True, help="Show the filters as training began beside them.")
@click.option(
    "--normalize",
    type=click.Choice(["filter", "all"]),
    default="filter",
    show_default=True,
    help="Stretch each filter from black to white, or all by one scale.",
)
@run_options
def visualize_filters(
    run: str,
    layer: str | None,
    before_after: bool,
    normalize: Literal["filter", "all"],
    runs_dir: str,
    checkpoint: Checkpoint,
    output: str | None,
    as_json: bool,
) -> None:
    """Draw the filters of a convolution of RUN: a run's path, its name, or the start of it, or 'latest'.

    In colour where the layer reads three channels, otherwise a grey tile for each channel. The weights
    go into a JSON file beside the picture. A terminal with colour shows the filters, too.
    """
    from cnnctl.plot.insight import draw_filters, fit_tiles, render_filters
    from cnnctl.train.initial import read_initial_filters
    from cnnctl.train.insight import find_conv
    from cnnctl.train.run_directory import RunDirectory

    path, trained = _open(run, runs_dir, checkpoint, output)
    conv = find_conv(trained.network, layer)
    weight = conv.params["weight"]
    weights = {"trained": weight}
    if before_after:
        weights = {"initial": read_initial_filters(RunDirectory(path), conv.name, weight.shape), **weights}
    picture = _choose_output(path, output, "filters", conv.name, "before-after" * before_after, checkpoint)
    numbers = draw_filters(conv.name, weights, normalize, picture)
    if not as_json and (room := display.find_picture_room()):
        for time, tiles in zip(weights, render_filters([*weights.values()], normalize), strict=True):
            pixels = fit_tiles(tiles, *room)
            if pixels is not None:
                display.show_picture(f"{conv.name}, {time}", pixels.tolist())
    facts = {
        "step": trained.step,
        "layer": conv.name,
        "shape": weight.shape,
        "normalize": normalize,
        "before_after": before_after,
    }
    _tell("visualize-filters", path, checkpoint, picture, numbers, facts, as_json)


@click.command(
    "feature-maps",
    cls=ExampleCommand,
    examples=(
        "cnnctl feature-maps latest photo.jpg",
        "cnnctl feature-maps latest photo.jpg --layer conv1",
    ),
)
@run_argument
@image_argument
@click.option("--layer", metavar="NAME", help="Which one alone, also within a block.  [default: all]")
@run_options
def feature_maps(
    run: str,
    image: Path,
    layer: str | None,
    runs_dir: str,
    checkpoint: Checkpoint,
    output: str | None,
    as_json: bool,
) -> None:
    """Draw what each layer of RUN's network makes of IMAGE, map by map.

    Each map is stretched from black, its least value, to white. The values go into a JSON file beside
    the picture.
    """
    from cnnctl.plot.insight import draw_feature_maps
    from cnnctl.train.insight import compute_feature_maps

    path, trained = _open(run, runs_dir, checkpoint, output)
    pixels = trained.read_image(image)
    maps = compute_feature_maps(trained, pixels, layer)
    picture = _choose_output(path, output, "maps", _shorten_stem(image), layer or "", checkpoint)
    numbers = draw_feature_maps(pixels, image.name, maps, picture)
    shapes = [{"name": name, "shape": values.shape} for name, values in maps.items()]
    facts = {"step": trained.step, "image": str(image), "layers": shapes}
    _tell("feature-maps", path, checkpoint, picture, numbers, facts, as_json)


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl saliency latest photo.jpg",
        "cnnctl saliency latest photo.jpg --class horse --smooth 20",
    ),
)
@run_argument
@image_argument
@click.option("--class", "word", metavar="CLASS", help="Its name or number.  [default: the likeliest]")
@click.option(
    "--smooth",
    type=click.IntRange(0, 10_000),
    default=50,
    show_default=True,
    metavar="N",
    help="Noisy copies of the image to take the mean over; 0 for none.",
)
@run_options
def saliency(
    run: str,
    image: Path,
    word: str | None,
    smooth: int,
    runs_dir: str,
    checkpoint: Checkpoint,
    output: str | None,
    as_json: bool,
) -> None:
    """Draw which pixels of IMAGE the score of a class depends on, for RUN's network.

    The gradient of the score, before softmax, with respect to the pixels; its greatest magnitude over the
    channels. Smoothed, it is the mean of gradients at noisy copies (SmoothGrad).
    """
    from cnnctl.plot.insight import draw_saliency
    from cnnctl.train.insight import compute_saliency

    path, trained = _open(run, runs_dir, checkpoint, output)
    pixels = trained.read_image(image)
    (answers,) = trained.answer(trained.score(pixels[None]))
    label = answers[0].label if word is None else trained.find_class(word)
    answer = next(answer for answer in answers if answer.label == label)
    found = compute_saliency(trained, pixels, label, smooth)
    maps = {"gradient": found.map}
    if found.smoothed_map is not None:
        maps[f"smoothed over {smooth:,}"] = found.smoothed_map
    picture = _choose_output(path, output, "saliency", _shorten_stem(image), f"class{label}", checkpoint)
    numbers = draw_saliency(pixels, describe_answer(answer), maps, picture)
    facts = {"step": trained.step, "image": str(image), "class": asdict(answer), "smooth": smooth}
    _tell("saliency", path, checkpoint, picture, numbers, facts, as_json)


@click.command(
    cls=ExampleCommand,
    examples=("cnnctl fool latest photo.jpg --class cat",),
)
@run_argument
@image_argument
@click.option("--class", "word", required=True, metavar="CLASS", help="What to pass for: a name or number.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    metavar="N",
    help="Give up after these.",
)
@run_options
@click.pass_context
def fool(
    ctx: click.Context,
    run: str,
    image: Path,
    word: str,
    steps: int,
    runs_dir: str,
    checkpoint: Checkpoint,
    output: str | None,
    as_json: bool,
) -> None:
    """Change IMAGE a little, until RUN's network takes it for another class.

    Climbs the gradient of the class's score over that of the class ahead. Draws the image before, after
    and their difference, magnified, and writes the changed image by itself. Exit code 1 if the class
    does not win.
    """
    from cnnctl.plot.insight import draw_fooling
    from cnnctl.train import insight

    path, trained = _open(run, runs_dir, checkpoint, output)
    label = trained.find_class(word)
    pixels = trained.read_image(image)
    found = insight.fool(trained, pixels, label, steps)
    name = trained.classes[label]
    if not found.steps and found.won:
        raise ConfigError(f"class: {image} is taken for {name} already; choose another")
    before, after = (next(trained.answer(scores[None], 1))[0] for scores in (found.before, found.after))
    picture = _choose_output(path, output, "fool", _shorten_stem(image), f"class{label}", checkpoint)
    facts = {
        "step": trained.step,
        "image": str(image),
        "class": {"label": label, "name": name},
        "won": found.won,
        "steps": found.steps,
        "before": asdict(before),
        "after": asdict(after),
    }
    titles = describe_answer(before), describe_answer(after)
    numbers, alone = draw_fooling(pixels, found.image, titles, facts, picture)
    change = f"{titles[0]} before, {titles[1]} after {display.format_count(found.steps, 'step')}"
    if found.won:
        display.note(f"{image}: {change}")
    else:
        display.error(f"{image}: could not be made to pass for {name}: {change}")
    document = {**facts, "fooling_image": str(alone)}
    _tell("fool", path, checkpoint, picture, numbers, document, as_json)
    if not found.won:
        ctx.exit(1)


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl embed latest",
        "cnnctl embed latest --checkpoint best --output embedding.svg",
    ),
)
@run_argument
@data_dir_option
@run_options
def embed(
    run: str, data_dir: str | None, runs_dir: str, checkpoint: Checkpoint, output: str | None, as_json: bool
) -> None:
    """Draw the test images of RUN as its network's last hidden layer has them, in two dimensions.

    These are the two principal components; colours are classes. Coordinates, labels and what the images
    are taken for go into a CSV file beside the picture.
    """
    from cnnctl.plot.embedding import draw_embedding
    from cnnctl.train import api

    path = _find_run(run, runs_dir, output)
    with Watcher() as watcher:
        found = api.embed(path, checkpoint=checkpoint, data_dir=data_dir, observer=watcher)
    picture = _choose_output(path, output, "embedding", checkpoint)
    numbers = draw_embedding(found, picture)
    facts = {
        "step": found.step,
        "layer": found.layer,
        "values": found.values,
        "images": len(found.points),
        "explained": found.explained,
    }
    _tell("embed", path, checkpoint, picture, numbers, facts, as_json)


def _find_run(run: str, runs_dir: str, output: str | None) -> Path:
    """The run's directory; refuses a picture of another format before anything is computed."""
    from cnnctl.plot.figure import check_picture_path
    from cnnctl.train.run_directory import find_run

    if output is not None:
        check_picture_path(Path(output))
    return find_run(run, Path(runs_dir))


def _open(run: str, runs_dir: str, checkpoint: Checkpoint, output: str | None) -> tuple[Path, "Trained"]:
    from cnnctl.train.api import load_trained

    path = _find_run(run, runs_dir, output)
    with Watcher() as watcher:
        return path, load_trained(path, checkpoint=checkpoint, observer=watcher)


def _choose_output(path: Path, output: str | None, *words: str) -> Path:
    """The file asked for, or one in the run's figures/ that is named for what it shows."""
    from cnnctl.train.run_directory import RunDirectory

    if output is not None:
        return Path(output)
    *names, checkpoint = words
    shown = [*filter(None, names), *[checkpoint] * (checkpoint != "last")]
    return RunDirectory(path).make_figures() / f"{'-'.join(shown)}.png"


def _shorten_stem(image: Path) -> str:
    return image.stem[:STEM_CHARACTERS]


def _tell(
    command: str,
    path: Path,
    checkpoint: Checkpoint,
    picture: Path,
    numbers: Path,
    facts: dict[str, Any],
    as_json: bool,
) -> None:
    """Where the picture is, or one document."""
    if as_json:
        document = {"schema": 1, "command": command, "run": str(path), "checkpoint": checkpoint, **facts}
        display.print_json({**document, "picture": str(picture), "numbers": str(numbers)})
    else:
        display.print_text(str(picture))
