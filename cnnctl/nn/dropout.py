"""Dropout: in training, elements or whole channels are cleared at random."""

from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, DropoutSpec, Shape, Spec, mix_seed
from cnnctl.errors import check_real
from cnnctl.nn.initializers import Initializer
from cnnctl.nn.layer import Layer, as_image


class Dropout(Layer):
    """y = x / (1 - rate) or, with probability `rate`, 0; outside training y = x.

    Every element is decided by itself, anew in every training pass: pass number i has the mask
    of `mix_seed(seed, i)`. With `spatial`, a channel of an image is cleared or kept as a whole,
    since neighbouring pixels tell much the same. Shapes: x (N,C,H,W) or (N,D) -> y likewise;
    with `spatial` images only.

    Args:
        rate: share of the elements, or channels, cleared, in [0, 1).
        spatial: whether channels are cleared as a whole.

    Attributes:
        seed: drawn when the network is built.
        passes: training passes so far.

    Raises ConfigError for a rate out of range, ShapeError for vectors with `spatial`.
    Source: Srivastava et al. 2014; spatial: Tompson et al. 2015, section 3.2.
    """

    kind: ClassVar[str] = "dropout"

    def __init__(self, rate: float = 0.5, spatial: bool = False, name: str | None = None) -> None:
        super().__init__(name)
        check_real("rate", rate, 0, 1)
        self.rate, self.spatial = rate, spatial
        self.seed = self.passes = 0

    @property
    def spec(self) -> Spec:
        return DropoutSpec(self.rate, self.seed, self.spatial)

    def infer_shape(self, input_shape: Shape) -> Shape:
        return as_image(input_shape) if self.spatial else input_shape

    def _draw_params(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None,
    ) -> dict[str, Array]:
        self.seed = int(rng.integers(2**63))
        return {}

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        if not training or self.frozen:
            return x, ()
        self.passes += 1
        return backend.dropout(x, self.rate, self._find_seed(), self.spatial), ()

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        if self.frozen:
            return dy, {}
        return backend.dropout(dy, self.rate, self._find_seed(), self.spatial), {}

    def _find_seed(self) -> int:
        """That of the last training pass."""
        return mix_seed(self.seed, self.passes - 1)
