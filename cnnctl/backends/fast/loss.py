"""Losses over padded rows of scores."""

from typing import Any, NamedTuple

import numpy as np

from cnnctl.backends.fast.layout import ImageLayout
from cnnctl.backends.specs import Array, CrossEntropySpec, HingeSpec, LossSpec, SquaredErrorSpec
from cnnctl.backends.stage import LossStage

KINDS: dict[type[LossSpec], int] = {CrossEntropySpec: 0, HingeSpec: 1, SquaredErrorSpec: 2}
"""As the enum in kernels.h numbers them."""


class LossSettings(NamedTuple):
    """What the kernels are told of a loss: the first arguments of `loss_forward` and `loss_backward`."""

    kind: int
    smoothing: float
    margin: float
    weights: Array | None


def describe_loss(spec: LossSpec, layout: ImageLayout, dtype: Any) -> LossSettings:
    """Class weights padded as the rows of scores are."""
    kind = KINDS[type(spec)]
    match spec:
        case CrossEntropySpec(smoothing, None) if smoothing == 0:
            return LossSettings(kind, 0.0, 0.0, None)
        case CrossEntropySpec(smoothing, weights):
            padded = np.zeros(layout.size, dtype)
            padded[: layout.channels] = 1 if weights is None else weights
            return LossSettings(kind, smoothing, 0.0, padded)
        case HingeSpec(margin):
            return LossSettings(kind, 0.0, margin, None)
        case SquaredErrorSpec():
            return LossSettings(kind, 0.0, 0.0, None)


class FastLoss(LossStage):
    """A loss on the buffers of a plan."""

    def __init__(self, spec: LossSpec, layout: ImageLayout, scores: Array, dscores: Array | None) -> None:
        self.kernels, self.classes, self.row = layout.kernels, layout.channels, layout.size
        self.settings = describe_loss(spec, layout, scores.dtype)
        self.scores, self.dscores = scores, dscores
        # Without a gradient to write, p may take the scores' place.
        self.p = scores if dscores is None else dscores
        self.source = self.p if isinstance(spec, CrossEntropySpec) else scores

    def forward(self, n: int, labels: Array) -> tuple[float, int]:
        loss, correct = self.kernels.loss_forward(
            *self.settings, n, self.classes, self.row, self.scores, labels, self.p
        )
        return loss, correct

    def backward(self, n: int, labels: Array) -> None:
        self.kernels.loss_backward(
            *self.settings, n, self.classes, self.row, self.source, labels, self.dscores
        )
