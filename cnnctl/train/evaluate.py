"""Evaluation: how well the weights of a checkpoint do on whole splits.

One forward pass a split, through the same plan that trains. Changes no weight and no
checkpoint; what it finds goes to `eval/<checkpoint>.json`.
"""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from cnnctl.data import iterate_batches
from cnnctl.errors import Diverged
from cnnctl.train.experiment import SPLITS, Experiment
from cnnctl.train.observer import Scores
from cnnctl.train.run_directory import MAX_DETAILS_BYTES, RunDirectory
from cnnctl.train.scores import Details, Tally


class Evaluation(BaseModel):
    """The scores of one checkpoint's weights; None for a split that is empty or was not asked for.

    Attributes:
        version: of the file; 1 had no details.
        step: the step after which the weights were so.
        details: split -> more about it.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    version: Literal[1, 2] = Field(default=2, alias="schema")
    step: NonNegativeInt
    train: Scores | None = None
    validation: Scores | None = None
    test: Scores | None = None
    details: dict[str, Details] = Field(default_factory=dict)

    @property
    def scores(self) -> dict[str, Scores]:
        """Split -> scores, where there are any."""
        splits = {name: getattr(self, name) for name in SPLITS}
        return {name: scores for name, scores in splits.items() if scores}

    @property
    def closest_split(self) -> str | None:
        """Of the splits with details, the one that says most about new images."""
        return next((name for name in reversed(SPLITS) if name in self.details), None)


def examine_splits(
    experiment: Experiment,
    step: int,
    names: Iterable[str] = SPLITS,
    *,
    between: Callable[[], None] | None = None,
    on_scoring: Callable[[str, int], None] | None = None,
) -> Evaluation:
    """Scores and details of the plan's weights on some of SPLITS, after that step; errors as below.

    `on_scoring` hears of a split that has images, and of how many, before it is scored.
    """
    scores, details = {}, {}
    for name in names:
        images = len(experiment.get_split(name))
        if on_scoring and images:
            on_scoring(name, images)
        tally = Tally(experiment.network.loss.kind)
        scores[name] = evaluate_split(experiment, name, between, tally)
        if images:
            details[name] = tally.summarize(experiment.classes)
    return Evaluation.model_validate({"step": step, **scores, "details": details})


def evaluate_split(
    experiment: Experiment,
    name: str,
    between: Callable[[], None] | None = None,
    tally: Tally | None = None,
) -> Scores | None:
    """Scores of the plan's weights on one of SPLITS, None when it is empty.

    `between` is called after each batch, and `tally` takes in what the network answered. Raises
    Diverged, naming the layer, when the loss of a batch is not finite.
    """
    split = experiment.get_split(name)
    if not len(split):
        return None
    loss_sum, correct = 0.0, 0
    dtype, batch_size = experiment.config.engine.dtype, experiment.batches.batch_size
    for batch in iterate_batches(split, experiment.normalizer, batch_size, dtype):
        if tally:
            result, scores = experiment.plan.examine(batch, batch.labels)
            tally.add(scores, batch.labels)
        else:
            result = experiment.plan.evaluate(batch, batch.labels)
        if not isfinite(result.loss):
            origin = experiment.plan.find_nonfinite(batch)
            why = f"{origin} is not finite" if origin else f"the network's scores overflow {dtype} in it"
            raise Diverged(f"{name}: the loss is {result.loss}: {why}")
        loss_sum += result.loss * len(batch)
        correct += result.correct
        if between:
            between()
    return Scores(loss_sum / len(split), correct / len(split), len(split))


def write_evaluation(run: RunDirectory, checkpoint: str, evaluation: Evaluation) -> None:
    """Replace `eval/<checkpoint>.json`."""
    facts = evaluation.model_dump(by_alias=True)
    document = {"schema": facts.pop("schema"), "checkpoint": checkpoint, **facts}
    run.write_json(f"eval/{checkpoint}.json", document)


def read_evaluation(run: RunDirectory, checkpoint: str) -> Evaluation | None:
    """What `write_evaluation` wrote, None where nothing is written. Raises RunError if damaged."""
    file = f"eval/{checkpoint}.json"
    if not (run.path / file).exists():
        return None
    return run.read_model(Evaluation, file, MAX_DETAILS_BYTES)
