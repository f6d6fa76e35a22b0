"""Prediction: what a run's network takes image files for.

Runs a batch of files at a time. Needs no data set, changes no file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.data.folder import list_files
from cnnctl.errors import DataError
from cnnctl.nn.plan import Plan
from cnnctl.train.scores import spread_scores
from cnnctl.train.trained import Answer, Trained

BATCH_SIZE = 32


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
    """A network with the weights of a checkpoint, ready for many image files.

    Raises DataError if it learnt from pixels that were no bytes.
    """

    def __init__(self, trained: Trained) -> None:
        trained.check_pixels()
        self._trained = trained
        self._plan = Plan(trained.network, BATCH_SIZE, trained.backend)

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
                    images.append(self._trained.read_image(prediction.path))
                read.append(prediction)
            except DataError as error:
                read.append(Prediction(prediction.path, error=str(error)))
        answers = self._answer(np.stack(images), top) if images else iter(())
        for prediction in read:
            yield prediction if prediction.error else Prediction(prediction.path, next(answers))

    def _answer(self, images: Array, top: int) -> Iterator[tuple[Answer, ...]]:
        """For each of some images, of the network's shape."""
        scores = self._plan.predict(self._trained.normalize(images))
        return self._trained.answer(spread_scores(scores, self._trained.network.loss.kind), top)


def _find_files(path: Path) -> list[Prediction]:
    """Those a path stands for, still without answers."""
    try:
        return [Prediction(file) for file in (list_files(path) if path.is_dir() else [path])]
    except DataError as error:
        return [Prediction(path, error=str(error))]
