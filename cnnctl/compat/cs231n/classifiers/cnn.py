"""cs231n's three-layer network: conv - relu - 2x2 max pool - affine - relu - affine - softmax.

Weights are drawn from numpy's global generator, as in the course: np.random.seed settles them.
Trains nothing itself; that is the Solver's business.
"""

import numpy as np
from numpy.typing import DTypeLike

from cnnctl.backends.specs import Array
from cnnctl.compat.cs231n.layer_utils import (
    affine_relu_backward,
    affine_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from cnnctl.compat.cs231n.layers import affine_backward, affine_forward, softmax_loss

__all__ = ["ThreeLayerConvNet"]

POOL_PARAM = {"pool_height": 2, "pool_width": 2, "stride": 2}


class ThreeLayerConvNet:
    """loss = softmax cross-entropy + 0.5 reg (sum of the squares of W1, W2, W3).

    Args:
        input_dim: (C, H, W) of an image.
        filter_size: side of the filters; padding (filter_size - 1) // 2, stride 1.
        hidden_dim: units of the hidden affine layer.
        weight_scale: standard deviation of the weights; biases start at 0.
        reg: strength of the L2 penalty.
        dtype: of the parameters; float64 images are computed with in float64 all the same.

    Attributes:
        params: W1 (F,C,HH,WW), b1, W2 (F (H//2) (W//2), hidden_dim), b2, W3 (hidden_dim, classes), b3.

    Source: cs231n, assignment 2.
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (3, 32, 32),
        num_filters: int = 32,
        filter_size: int = 7,
        hidden_dim: int = 100,
        num_classes: int = 10,
        weight_scale: float = 1e-3,
        reg: float = 0.0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        C, H, W = input_dim
        self.reg = reg
        self.dtype = dtype
        self.params: dict[str, Array] = {}
        pad = (filter_size - 1) // 2
        self._conv_param = {"stride": 1, "pad": pad}
        OH, OW = (extent + 2 * pad - filter_size + 1 for extent in (H, W))
        shapes = (
            (num_filters, C, filter_size, filter_size),
            (num_filters * (OH // 2) * (OW // 2), hidden_dim),
            (hidden_dim, num_classes),
        )
        biases = (num_filters, hidden_dim, num_classes)
        for i, (shape, units) in enumerate(zip(shapes, biases, strict=True), 1):
            self.params[f"W{i}"] = (weight_scale * np.random.randn(*shape)).astype(dtype)
            self.params[f"b{i}"] = np.zeros(units, dtype)

    def loss(self, X: Array, y: Array | None = None) -> Array | tuple[float, dict[str, Array]]:
        """Scores (N, classes) of images X (N,C,H,W); with labels y (N): (loss, grads as params)."""
        params = self.params
        out, conv_cache = conv_relu_pool_forward(X, params["W1"], params["b1"], self._conv_param, POOL_PARAM)
        out, hidden_cache = affine_relu_forward(out, params["W2"], params["b2"])
        scores, scores_cache = affine_forward(out, params["W3"], params["b3"])
        if y is None:
            return scores

        grads: dict[str, Array] = {}
        loss, dout = softmax_loss(scores, y)
        dout, grads["W3"], grads["b3"] = affine_backward(dout, scores_cache)
        dout, grads["W2"], grads["b2"] = affine_relu_backward(dout, hidden_cache)
        _, grads["W1"], grads["b1"] = conv_relu_pool_backward(dout, conv_cache)
        for key in ("W1", "W2", "W3"):
            if self.reg:
                loss += 0.5 * self.reg * float(np.vdot(params[key], params[key]))
                grads[key] += self.reg * params[key]
        return loss, grads
