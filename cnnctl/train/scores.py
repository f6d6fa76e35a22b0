"""What a network's scores say of its images: right answers class by class, and the worst mistakes.

Works on scores (N,K) and labels (N) alone; runs no network, knows no files. Wherever two classes
have the same score, the first of them counts as the higher, as it does in the backends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnctl.backends.specs import Array

TOP = 5
MAX_MATRIX = 256
"""Of more classes than that there is no confusion matrix, as nobody could read one."""
MAX_MISTAKES = 24


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How well a class is told from the others.

    Of the images of the class tp are taken for it and fn are not; fp others are taken for it, too.

    Attributes:
        images: of the class, tp + fn; its support.
        predicted: images that were taken for it, tp + fp.
        precision: tp / predicted; None when no image was taken for it.
        recall: tp / images; None when there is no image of it.
        f1: their harmonic mean, 2 tp / (images + predicted): 0 when one of them is None, None when
            both are.
    """

    name: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that was taken for another class.

    Attributes:
        image: its number in the split, from 0.
        true, predicted: the classes' names.
        probability: what softmax gives the predicted class; None for a network that was trained
            with another loss.
        score: that of the predicted class.
    """

    image: int
    true: str
    predicted: str
    probability: float | None
    score: float


@dataclass(frozen=True, slots=True)
class Details:
    """More about a split than its loss and accuracy.

    Attributes:
        top5: fraction of the images whose label is among the five highest scores; None when there
            are no more classes than that.
        confusion: how many images of class t were taken for class p, at [t][p]; None when there
            are more than MAX_MATRIX classes.
        classes: in the order of the labels.
        mistakes: the most confident ones, by probability or else by score, at most MAX_MISTAKES.
    """

    top5: float | None
    confusion: tuple[tuple[int, ...], ...] | None
    classes: tuple[ClassScores, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def weakest(self) -> list[ClassScores]:
        """The classes that have images, by F1, the lowest first."""
        return sorted((c for c in self.classes if c.images), key=lambda c: (c.f1 or 0.0, -c.images))

    def find_rival(self, name: str) -> tuple[str, int] | None:
        """The class that images of this one are taken for most often, and how often."""
        if self.confusion is None:
            return None
        names = [c.name for c in self.classes]
        number = names.index(name)
        counts = [0 if k == number else count for k, count in enumerate(self.confusion[number])]
        return (names[counts.index(max(counts))], max(counts)) if max(counts) else None


class Tally:
    """Gathers what a network answered, batch by batch.

    Args:
        loss: the kind of loss the network was trained with.
    """

    def __init__(self, loss: str) -> None:
        self._loss = loss
        self._batches: list[tuple[Array, ...]] = []

    def add(self, scores: Array, labels: Array) -> None:
        """Take in one batch: scores (n, K), labels (n)."""
        scores = spread_scores(scores, self._loss)
        rows, numbers = np.arange(len(scores)), np.arange(scores.shape[1])
        own = scores[rows, labels][:, None]
        ahead = (scores > own) | ((scores == own) & (numbers < labels[:, None]))
        predicted = scores.argmax(axis=1)
        probabilities = compute_probabilities(scores, self._loss)
        confidence = scores if probabilities is None else probabilities
        self._batches.append(
            (labels, predicted, ahead.sum(axis=1), scores[rows, predicted], confidence[rows, predicted])
        )

    def summarize(self, names: Sequence[str]) -> Details:
        """The figures of all images so far; `names` are those of the classes."""
        count = len(names)
        labels, predicted, ranks, scores, confidence = (
            np.concatenate(column) for column in zip(*self._batches, strict=True)
        )
        confusion = None
        if count <= MAX_MATRIX:
            pairs = np.bincount(labels * count + predicted, minlength=count * count)
            confusion = tuple(map(tuple, pairs.reshape(count, count).tolist()))
        wrong = np.flatnonzero(predicted != labels)
        worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
        return Details(
            top5=float((ranks < TOP).mean()) if count > TOP else None,
            confusion=confusion,
            classes=_score_classes(labels, predicted, names),
            mistakes=tuple(
                Mistake(
                    image=int(i),
                    true=names[labels[i]],
                    predicted=names[predicted[i]],
                    probability=float(confidence[i]) if self._loss == "softmax" else None,
                    score=float(scores[i]),
                )
                for i in worst
            ),
        )


def spread_scores(scores: Array, loss: str) -> Array:
    """Scores (N,K) as float64; one score s alone, of a squared error, as (1 - s, s)."""
    scores = scores.astype(np.float64)
    if loss == "squared_error" and scores.shape[1] == 1:
        return np.hstack([1 - scores, scores])
    return scores


def compute_probabilities(scores: Array, loss: str) -> Array | None:
    """p[n,k] = exp(s[n,k]) / sum over j of exp(s[n,j]), or None: only softmax is trained to mean that."""
    if loss != "softmax":
        return None
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _score_classes(labels: Array, predicted: Array, names: Sequence[str]) -> tuple[ClassScores, ...]:
    chosen = (labels, predicted, labels[labels == predicted])
    counts = zip(names, *(np.bincount(c, minlength=len(names)).tolist() for c in chosen), strict=True)
    return tuple(
        ClassScores(
            name=name,
            images=images,
            predicted=taken,
            precision=right / taken if taken else None,
            recall=right / images if images else None,
            f1=2 * right / (images + taken) if images + taken else None,
        )
        for name, images, taken, right in counts
    )
