"""Convolution over images. No transposed, 1-D or 3-D convolution."""

from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, ConvSpec, Sandwich, Shape, Spec
from cnnctl.errors import ShapeError
from cnnctl.geometry import Padding, Pair, Window, check_elements
from cnnctl.nn.initializers import Initializer, check_init, draw_params
from cnnctl.nn.layer import Layer, as_count, as_image


class Conv(Layer):
    """y[n,f] = bias[f] + sum over c of weight[f,c] cross-correlated with x[n,c].

    Shapes: x (N,C,H,W), weight (F,C/groups,KH,KW), bias (F) -> y (N,F,OH,OW), where
    OH = floor((H + padding - dilation (KH-1) - 1) / stride) + 1 and OW likewise.

    Args:
        filters: F, output channels.
        kernel: taps, one integer or [height, width]; so are stride and dilation, in pixels.
        padding: zeros around the image: an integer, [height, width],
            ((top, bottom), (left, right)), or "same" to keep the extents.
        groups: channels fall into this many groups that do not see one another.
        bias: whether to add a learnt constant to each channel.
        init: how the weight starts; the network's initializer by default.

    Raises ShapeError for extents that do not fit. Source: LeCun et al. 1998, section II.A;
    groups: Krizhevsky et al. 2012.
    """

    kind: ClassVar[str] = "conv"
    regularized: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self,
        filters: int,
        kernel: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.filters = as_count(filters, "filters")
        self.window = Window.create(kernel, stride, padding, dilation)
        self.groups = as_count(groups, "groups")
        if self.filters % self.groups:
            raise ShapeError(f"groups: {groups} does not divide the {filters} filters")
        check_init(init)
        self.bias = bias
        self.init = init

    @property
    def spec(self) -> Spec:
        return ConvSpec(Sandwich(self.window, self.groups), self.filters, self.bias)

    @property
    def macs(self) -> int:
        _, OH, OW = self.output_shape
        return OH * OW * self.params["weight"].size

    def infer_shape(self, input_shape: Shape) -> Shape:
        C, H, W = as_image(input_shape)
        if C % self.groups:
            raise ShapeError(f"groups: {self.groups} does not divide the {C} channels of the input")
        output_shape = (self.filters, *self.window.output_size(H, W))
        check_elements(self._weight_shape(input_shape), "weight")
        check_elements(output_shape, "output")
        return output_shape

    def _weight_shape(self, input_shape: Shape) -> Shape:
        return (self.filters, input_shape[0] // self.groups, *self.window.kernel)

    def _draw_params(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None,
    ) -> dict[str, Array]:
        shape = self._weight_shape(input_shape)
        return draw_params(self.init or init, shape, groups=self.groups, bias=self.bias, dtype=dtype, rng=rng)

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        w, b = self.params["weight"], self.params.get("bias")
        return backend.conv_forward(x, w, b, self.window, self.groups), (x,)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        (x,) = saved
        w = self.params["weight"]
        dx, dw, db = backend.conv_backward(dy, x, w, self.window, self.groups, need_dx=need_dx)
        return dx, {"weight": dw, "bias": db} if self.bias else {"weight": dw}
