"""Losses over padded rows of scores."""

from cnnctl.backends.fast.layout import ImageLayout
from cnnctl.backends.specs import Array
from cnnctl.backends.stage import LossStage


class SoftmaxLoss(LossStage):
    """Softmax cross-entropy over padded rows of scores."""

    def __init__(self, layout: ImageLayout, scores: Array, dscores: Array | None) -> None:
        self.kernels, self.classes, self.row = layout.kernels, layout.channels, layout.size
        self.scores, self.dscores = scores, dscores
        # Without a gradient to write, p may take the scores' place.
        self.p = scores if dscores is None else dscores

    def forward(self, n: int, labels: Array) -> tuple[float, int]:
        loss, correct = self.kernels.softmax_forward(n, self.classes, self.row, self.scores, labels, self.p)
        return loss, correct

    def backward(self, n: int, labels: Array) -> None:
        self.kernels.softmax_backward(n, self.classes, self.row, self.p, labels, self.dscores)
