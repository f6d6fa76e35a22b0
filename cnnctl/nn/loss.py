"""Losses: one number for a batch of scores. Softmax cross-entropy only, on class indices."""

from typing import ClassVar

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import CnnctlError


class SoftmaxCrossEntropy:
    """L = mean over n of -log softmax(scores[n])[labels[n]], in nats.

    Shapes: scores (N,K), labels (N) integers in [0, K). Raises ShapeError or DtypeError
    for others. Source: Goodfellow et al. 2016, section 6.2.2.3.
    """

    kind: ClassVar[str] = "softmax"

    def __init__(self) -> None:
        self._saved: tuple[Array, Array] | None = None

    def forward(self, scores: Array, labels: Array, backend: Backend) -> float:
        """The loss; 0 for no images."""
        loss, p = backend.softmax_cross_entropy_forward(scores, labels)
        self._saved = p, labels
        return loss

    def backward(self, backend: Backend) -> Array:
        """dL/dscores of the last forward pass."""
        if self._saved is None:
            raise CnnctlError(f"{self.kind}: backward needs a forward pass before it")
        p, labels = self._saved
        return backend.softmax_cross_entropy_backward(p, labels)
