"""Prediction: what a run's network takes image files for.

Files are read as those of an image folder are, with the same limits, and brought to the network's
input: resized without regard to proportions, grey or RGB, normalised with the numbers that the
checkpoint holds. Needs no data set, changes no file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.config import RunConfig
from cnnctl.data import Normalizer
from cnnctl.data.folder import list_files, read_image
from cnnctl.errors import DataError
from cnnctl.nn.plan import Plan
from cnnctl.train.build import build_backend, build_network
from cnnctl.train.checkpoint import Checkpoint
from cnnctl.train.data_facts import DataFacts
from cnnctl.train.scores import compute_probabilities, spread_scores

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """One class an image may be of.

    Attributes:
        label: the class's number.
        name: the class's; its number, if the run does not know names.
        probability: by softmax of the scores; None for a network that was trained with another
            loss, as its scores mean none.
    """

    label: int
    name: str
    probability: float | None
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of one image.

    Attributes:
        answers: the classes with the highest scores, those first.
        error: why there are none, if so: one line that names the file.
    """

    path: Path
    answers: tuple[Answer, ...] = ()
    error: str | None = None


class Predictor:
    """A network with the weights of a checkpoint, ready for image files.

    Raises DataError if it learnt from pixels that were no bytes, as there is no telling what range
    an image file's would have to be brought to, or if the classes are not as many as its scores.
    """

    def __init__(self, config: RunConfig, checkpoint: Checkpoint, facts: DataFacts | None) -> None:
        if facts and facts.dtype != "uint8":
            raise DataError(
                f"{checkpoint.origin}: learnt from {facts.dtype} pixels of a range of their own, "
                "which image files do not have; train on uint8 to predict them"
            )
        self.image_shape: tuple[int, int, int] = checkpoint.shift.shape
        self._normalizer = Normalizer(checkpoint.scale, checkpoint.shift)
        network = build_network(config, self.image_shape)
        self._plan = Plan(network, BATCH_SIZE, build_backend(config.engine))
        self._plan.load_params(checkpoint.params)
        self._plan.load_statistics(checkpoint.statistics)
        self.loss = network.loss.kind
        self.classes = facts.classes if facts else tuple(map(str, range(network.label_count)))
        if len(self.classes) != network.label_count:
            raise DataError(
                f"{checkpoint.origin}: tells {network.label_count} classes apart, "
                f"where the run's images had {len(self.classes)}"
            )

    def predict(self, paths: Iterable[Path], top: int) -> Iterator[Prediction]:
        """The `top` likeliest classes of each file, and of each file below a folder."""
        found = [prediction for path in paths for prediction in _find_files(path)]
        for start in range(0, len(found), BATCH_SIZE):
            yield from self._predict_batch(found[start : start + BATCH_SIZE], top)

    def _predict_batch(self, batch: list[Prediction], top: int) -> Iterator[Prediction]:
        images: list[Array] = []
        read = []
        for prediction in batch:
            try:
                if prediction.error is None:
                    images.append(read_image(prediction.path, self.image_shape))
                read.append(prediction)
            except DataError as error:
                read.append(Prediction(prediction.path, error=str(error)))
        answers = self._answer(np.stack(images), top) if images else iter(())
        for prediction in read:
            yield prediction if prediction.error else Prediction(prediction.path, next(answers))

    def _answer(self, images: Array, top: int) -> Iterator[tuple[Answer, ...]]:
        """For each of some images, of the network's shape."""
        x = self._normalizer.apply(images, dtype=self._plan.dtype)
        scores = spread_scores(self._plan.predict(x), self.loss)
        probabilities = compute_probabilities(scores, self.loss)
        for n, order in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :top].tolist()):
            yield tuple(
                Answer(
                    label=k,
                    name=self.classes[k],
                    probability=None if probabilities is None else float(probabilities[n, k]),
                    score=float(scores[n, k]),
                )
                for k in order
            )


def _find_files(path: Path) -> list[Prediction]:
    """Those a path stands for, still without answers."""
    try:
        return [Prediction(file) for file in (list_files(path) if path.is_dir() else [path])]
    except DataError as error:
        return [Prediction(path, error=str(error))]
