"""A network as a run's checkpoint has it, ready to be asked: what an image is, and why.

Image files are read as those of an image folder are, with the same limits, and brought to the network's
input: resized without regard to proportions, grey or RGB, normalised with the numbers that the
checkpoint holds. Needs no data set, trains nothing, changes no file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.config import RunConfig
from cnnctl.data import Normalizer
from cnnctl.data.folder import read_image
from cnnctl.errors import ConfigError, DataError, describe_alternatives
from cnnctl.nn import Network
from cnnctl.train.build import build_backend, build_network
from cnnctl.train.checkpoint import Checkpoint
from cnnctl.train.data_facts import DataFacts
from cnnctl.train.scores import compute_probabilities, spread_scores


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


def restore_network(config: RunConfig, checkpoint: Checkpoint) -> Network:
    """The configuration's network with a checkpoint's weights and statistics."""
    network = build_network(config, checkpoint.shift.shape)
    network.load_params(checkpoint.params)
    network.load_statistics(checkpoint.statistics)
    return network


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with the weights of a checkpoint.

    Attributes:
        network: frozen, so that gradients are those of what it answers.
        classes: the name of class k at position k; its number, if the run does not know names.
        dtype: of the pixels it learnt from.
        step: steps done.
        origin: the checkpoint's file, for messages.
    """

    network: Network
    backend: Backend
    normalizer: Normalizer
    classes: tuple[str, ...]
    dtype: str
    step: int
    origin: str

    @classmethod
    def restore(cls, config: RunConfig, checkpoint: Checkpoint, facts: DataFacts | None) -> "Trained":
        """Raises DataError if the classes are not as many as the network's scores."""
        network = restore_network(config, checkpoint)
        network.freeze()
        classes = facts.classes if facts else tuple(map(str, range(network.label_count)))
        if len(classes) != network.label_count:
            raise DataError(
                f"{checkpoint.origin}: tells {network.label_count} classes apart, "
                f"where the run's images had {len(classes)}"
            )
        return cls(
            network=network,
            backend=build_backend(config.engine),
            normalizer=Normalizer(checkpoint.scale, checkpoint.shift),
            classes=classes,
            dtype=facts.dtype if facts else "uint8",
            step=checkpoint.metadata.progress.step,
            origin=checkpoint.origin,
        )

    def check_pixels(self) -> None:
        """Raises DataError if it learnt from pixels that were no bytes: there is no telling what range
        an image file's would have to be brought to."""
        if self.dtype != "uint8":
            raise DataError(
                f"{self.origin}: learnt from {self.dtype} pixels of a range of their own, "
                "which image files do not have; train on uint8 to predict them"
            )

    def read_image(self, path: Path) -> Array:
        """A file's pixels, (C, H, W) uint8, in the size of the network's input. Raises DataError."""
        self.check_pixels()
        C, H, W = self.network.input_shape
        return read_image(path, (C, H, W))

    def normalize(self, images: Array) -> Array:
        """The network's input x (N, C, H, W) for pixels of any element type."""
        return self.normalizer.apply(images, dtype=self.network.dtype)

    def score(self, images: Array) -> Array:
        """Scores (N, K), float64, of pixels (N, C, H, W)."""
        scores = self.network.forward(self.normalize(images), self.backend)
        return spread_scores(scores, self.network.loss.kind)

    def answer(self, scores: Array, top: int | None = None) -> Iterator[tuple[Answer, ...]]:
        """For each image's scores (N, K), float64: the `top` classes or all, the likeliest first."""
        probabilities = compute_probabilities(scores, self.network.loss.kind)
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

    def find_class(self, word: str) -> int:
        """The class of that name, or else of that number. Raises ConfigError if there is none."""
        if word in self.classes:
            return self.classes.index(word)
        if word.isascii() and word.isdigit() and len(word) < 9 and int(word) < len(self.classes):
            return int(word)
        raise ConfigError(f"class: {word!r} is not known; {describe_alternatives(word, self.classes)}")
