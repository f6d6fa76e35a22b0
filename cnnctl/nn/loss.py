"""Losses: one number for a batch of scores and the classes they should tell."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cnnctl.backends.base import Backend, check_loss_settings
from cnnctl.backends.specs import Array, CrossEntropySpec, HingeSpec, LossSpec, Shape, SquaredErrorSpec
from cnnctl.errors import CnnctlError, ShapeError


class Loss(ABC):
    """What training makes small: a mean over images, given scores (N,K) and labels (N).

    Labels are integers in [0, K). Raises ShapeError or DtypeError for others.

    Attributes:
        kind: the YAML key.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self._saved: tuple[Array, Array] | None = None

    @property
    @abstractmethod
    def spec(self) -> LossSpec:
        """The backend operation it means."""

    def check_output(self, shape: Shape) -> None:
        """Raises ShapeError where settings do not fit the scores of such a network."""
        return

    def forward(self, scores: Array, labels: Array, backend: Backend) -> float:
        """The loss; 0 for no images."""
        loss, saved = self._forward(scores, labels, backend)
        self._saved = saved, labels
        return loss

    def backward(self, backend: Backend) -> Array:
        """dL/dscores of the last forward pass."""
        if self._saved is None:
            raise CnnctlError(f"{self.kind}: backward needs a forward pass before it")
        return self._backward(*self._saved, backend)

    @abstractmethod
    def _forward(self, scores: Array, labels: Array, backend: Backend) -> tuple[float, Array]:
        """The loss, and what the backward pass needs."""

    @abstractmethod
    def _backward(self, saved: Array, labels: Array, backend: Backend) -> Array: ...


class SoftmaxCrossEntropy(Loss):
    """L = mean over n of -log softmax(scores[n])[labels[n]], in nats.

    Args:
        smoothing: share of each label that is spread evenly over all K classes, in [0, 1).
        class_weights: one number of at least 0 a class; the mean becomes a weighted one.

    Raises ConfigError for settings out of range. Source: Goodfellow et al. 2016, section 6.2.2.3;
    smoothing: Szegedy et al. 2016, section 7.
    """

    kind: ClassVar[str] = "softmax"

    def __init__(self, smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = None if class_weights is None else np.array(class_weights, np.float64)
        check_loss_settings(CrossEntropySpec(smoothing), 0 if weights is None else weights.size, weights)
        self.smoothing = smoothing
        self.class_weights = None if weights is None else tuple(map(float, weights))

    @property
    def spec(self) -> LossSpec:
        return CrossEntropySpec(self.smoothing, self.class_weights)

    def check_output(self, shape: Shape) -> None:
        if self.class_weights is not None and shape != (len(self.class_weights),):
            raise ShapeError(
                f"class_weights: {len(self.class_weights)} of them where the network's output is {shape}"
            )

    def _forward(self, scores: Array, labels: Array, backend: Backend) -> tuple[float, Array]:
        return backend.softmax_cross_entropy_forward(scores, labels, self.smoothing, self._cast(scores))

    def _backward(self, saved: Array, labels: Array, backend: Backend) -> Array:
        return backend.softmax_cross_entropy_backward(saved, labels, self.smoothing, self._cast(saved))

    def _cast(self, scores: Array) -> Array | None:
        return None if self.class_weights is None else np.array(self.class_weights, scores.dtype)


class Hinge(Loss):
    """L = mean over n of the sum over other classes k of max(0, s[n,k] - s[n,label] + margin).

    Args:
        margin: how far the label's score should lie above the others, above 0.

    Raises ConfigError for a margin out of range. Source: Weston, Watkins 1999, as cs231n has it.
    """

    kind: ClassVar[str] = "hinge"

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        check_loss_settings(HingeSpec(margin), 0)
        self.margin = margin

    @property
    def spec(self) -> LossSpec:
        return HingeSpec(self.margin)

    def _forward(self, scores: Array, labels: Array, backend: Backend) -> tuple[float, Array]:
        return backend.hinge_forward(scores, labels, self.margin), scores

    def _backward(self, saved: Array, labels: Array, backend: Backend) -> Array:
        return backend.hinge_backward(saved, labels, self.margin)


class SquaredError(Loss):
    """L = mean over n of half the squared distance of the scores from 1 at the label and 0 elsewhere.

    A network with one output has the label itself, 0 or 1, for a target, and its score is right on
    the label's side of 1/2. Source: Rumelhart, Hinton, Williams 1986.
    """

    kind: ClassVar[str] = "squared_error"

    @property
    def spec(self) -> LossSpec:
        return SquaredErrorSpec()

    def _forward(self, scores: Array, labels: Array, backend: Backend) -> tuple[float, Array]:
        return backend.squared_error_forward(scores, labels), scores

    def _backward(self, saved: Array, labels: Array, backend: Backend) -> Array:
        return backend.squared_error_backward(saved, labels)
