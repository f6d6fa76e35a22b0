"""`cnnctl eval`: how well a run's network does on its data.

Shows what the evaluation found; computes nothing and changes no weight.
"""

from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import checkpoint_option, data_dir_option, json_option, run_argument, runs_dir_option
from cnnctl.cli.watch import Watcher, describe_run
from cnnctl.errors import RunError

if TYPE_CHECKING:
    from cnnctl.train.api import Examination
    from cnnctl.train.evaluate import Evaluation

WORST = 5
"""So many classes are shown in the table; `--json` has all."""


@click.command(
    "eval",
    cls=ExampleCommand,
    examples=(
        "cnnctl eval latest",
        "cnnctl eval mnist-simple --checkpoint best --json",
    ),
)
@run_argument
@runs_dir_option
@checkpoint_option
@data_dir_option
@json_option
def evaluate(
    run: str, runs_dir: str, checkpoint: Literal["last", "best"], data_dir: str | None, as_json: bool
) -> None:
    """Score the network of RUN: a run's path, its name, or the start of it, or 'latest'.

    Tells loss, accuracy and, with more than five classes, top-5 accuracy of each split; then the
    classes it is worst at, by F1. All figures, the confusion matrix too, go into
    eval/CHECKPOINT.json of the run, and its most confident mistakes into a picture beside it.
    """
    from cnnctl.train import api
    from cnnctl.train.run_directory import find_run

    found = api.Run.read(find_run(run, Path(runs_dir)))
    started = perf_counter()
    with Watcher() as watcher:
        examination = api.examine(
            found, checkpoint=checkpoint, data_dir=data_dir, observer=watcher, save=False
        )
    evaluation = examination.evaluation
    picture, failure = None, None
    try:
        api.save_evaluation(found, checkpoint, evaluation)
        picture = draw_mistakes_picture(examination, found.path / "eval" / f"{checkpoint}-mistakes.png")
    except (RunError, OSError) as error:
        failure = error  # the scores are known all the same
    if found.status != "finished":
        display.warn(f"the run is {found.status}; these are its weights after step {evaluation.step}")
    if as_json:
        scored = replace(
            found,
            steps=evaluation.step,
            seconds=perf_counter() - started,
            train=evaluation.train,
            validation=evaluation.validation,
            test=evaluation.test,
        )
        details = {split: asdict(found) for split, found in evaluation.details.items()}
        document = {**describe_run("eval", scored), "checkpoint": checkpoint, "details": details}
        display.print_json({**document, "mistakes_picture": picture and str(picture)})
    else:
        _print_scores(evaluation)
        _print_worst_classes(evaluation)
        if picture:
            display.print_text(f"most confident mistakes: {picture}")
        display.print_text(str(found.path))
    if failure:
        raise failure


def draw_mistakes_picture(examination: "Examination", path: Path) -> Path | None:
    """None without mistakes; a picture of older ones goes then."""
    from cnnctl.plot.mistakes import draw_mistakes

    split = examination.evaluation.closest_split
    mistakes = examination.evaluation.details[split].mistakes if split else ()
    if not split or not mistakes:
        path.unlink(missing_ok=True)
        return None
    draw_mistakes(examination.pixels[split], mistakes, path)
    return path


def _print_scores(evaluation: "Evaluation") -> None:
    """As after training, with top-5 accuracy where there are more classes than that."""
    rows = []
    for name, scores in evaluation.scores.items():
        top5 = evaluation.details[name].top5
        shares = [f"{100 * share:.2f} %" for share in (scores.accuracy, top5) if share is not None]
        rows.append((name, f"{scores.loss:.4f}", *shares, f"{scores.images:,}"))
    top5_column = ["top-5"] if len(rows[0]) == 5 else []
    display.print_table("", ("split", "loss", "accuracy", *top5_column, "images"), rows)


def _print_worst_classes(evaluation: "Evaluation") -> None:
    def show(share: float | None) -> str | None:
        return None if share is None else f"{100 * share:.1f} %"

    split = evaluation.closest_split
    assert split, "at least one split has images"
    details = evaluation.details[split]
    rows = []
    for found in details.weakest[:WORST]:
        rival = details.find_rival(found.name)
        taken_for = rival and f"{rival[0]} ({rival[1]:,})"
        figures = (show(found.precision), show(found.recall), show(found.f1))
        rows.append((found.name, f"{found.images:,}", *figures, taken_for))
    display.print_text("")
    columns = (f"{split} class", "images", "precision", "recall", "F1", "most often taken for")
    title = f"the worst classes by F1, of {len(details.classes):,}"
    display.print_table(title, columns, rows, spare=("images", "precision", "recall"))
