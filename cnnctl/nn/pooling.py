"""Pooling over images: the maximum or the mean of windows, scaled or not, or the mean of all pixels."""

from typing import Any, ClassVar

import numpy as np

from cnnctl.backends.base import Backend, check_pool_window
from cnnctl.backends.specs import Array, Pool, PoolSpec, ScaleSpec, Shape, Spec
from cnnctl.geometry import Padding, Pair, Window
from cnnctl.nn.initializers import Initializer
from cnnctl.nn.layer import Layer, as_image


class WindowPool(Layer):
    """What pools over windows share. Shapes: x (N,C,H,W) -> y (N,C,OH,OW).

    Args:
        kernel: extents of the window, one integer or [height, width].
        stride: pixels between windows; the kernel by default, so that they tile the image.
        padding: border that does not count: an integer, [height, width] or
            ((top, bottom), (left, right)).

    Raises ShapeError for windows that do not fit or that could lie wholly in the padding.
    """

    def __init__(
        self, kernel: Pair, stride: Pair | None = None, padding: Padding = 0, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.window = Window.create(kernel, kernel if stride is None else stride, padding)

    def infer_shape(self, input_shape: Shape) -> Shape:
        C, H, W = as_image(input_shape)
        return (C, *check_pool_window(self.window, H, W))


class MaxPool(WindowPool):
    """y[n,c,oh,ow] = max of x[n,c] over a window; the first maximum in row-major order takes the gradient."""

    kind: ClassVar[str] = "maxpool"

    @property
    def spec(self) -> Spec:
        return PoolSpec(Pool("max", self.window))

    def sides(self) -> tuple[Array, ...]:
        return self._saved or ()

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        y, index = backend.maxpool_forward(x, self.window)
        return y, (index,)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        (index,) = saved
        C, H, W = self.input_shape
        return backend.maxpool_backward(dy, index, (len(index), C, H, W), self.window), {}


class AvgPool(WindowPool):
    """y[n,c,oh,ow] = mean of x[n,c] over a window, whose pixels share the gradient equally."""

    kind: ClassVar[str] = "avgpool"

    @property
    def spec(self) -> Spec:
        return PoolSpec(Pool("average", self.window))

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        return backend.avgpool_forward(x, self.window), ()

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        C, H, W = self.input_shape
        return backend.avgpool_backward(dy, (len(dy), C, H, W), self.window), {}


class Subsampling(WindowPool):
    """y[n,c,oh,ow] = weight[c] (mean of x[n,c] over a window) + bias[c]: LeNet's trainable pooling.

    weight starts at 1 and bias at 0, as an average pool. The paper multiplies the window's sum, so
    that of four pixels its coefficient is a quarter of this weight; a sigmoid comes behind it.

    Shapes: x (N,C,H,W), weight and bias (C) -> y (N,C,OH,OW). Source: LeCun et al. 1998, section II.B.
    """

    kind: ClassVar[str] = "subsampling"

    @property
    def spec(self) -> Spec:
        """Of its second step."""
        return ScaleSpec()

    @property
    def steps(self) -> tuple[Layer, ...]:
        """The mean, which a convolution before it can take in, and then the scaling."""
        mean = AvgPool(self.window.kernel, self.window.stride, self.window.padding)
        mean.assign_name(f"{self.name}.mean")
        return mean, self

    def _draw_params(
        self,
        input_shape: Shape,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        init: Initializer | None,
    ) -> dict[str, Array]:
        return {"weight": np.ones(input_shape[0], dtype), "bias": np.zeros(input_shape[0], dtype)}

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        mean = backend.avgpool_forward(x, self.window)
        return backend.scale_forward(mean, self.params["weight"], self.params["bias"]), (mean,)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        (mean,) = saved
        dmean, dw, db = backend.scale_backward(dy, mean, self.params["weight"])
        C, H, W = self.input_shape
        return backend.avgpool_backward(dmean, (len(dy), C, H, W), self.window), {"weight": dw, "bias": db}


class GlobalAvgPool(Layer):
    """y[n,c] = mean of all pixels of x[n,c]. Shapes: x (N,C,H,W) -> y (N,C).

    Source: Lin, Chen, Yan 2014, section 3.2.
    """

    kind: ClassVar[str] = "globalavgpool"

    @property
    def window(self) -> Window:
        """One window that covers the image; known once the layer is built."""
        _, H, W = as_image(self.input_shape)
        return Window.create((H, W))

    @property
    def spec(self) -> Spec:
        return PoolSpec(Pool("average", self.window))

    def infer_shape(self, input_shape: Shape) -> Shape:
        C, _, _ = as_image(input_shape)
        return (C,)

    def _forward(self, x: Array, backend: Backend, training: bool) -> tuple[Array, tuple[Array, ...]]:
        return backend.avgpool_forward(x, self.window).reshape(len(x), *self.output_shape), ()

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        C, H, W = self.input_shape
        dx = backend.avgpool_backward(dy.reshape(*dy.shape, 1, 1), (len(dy), C, H, W), self.window)
        return dx, {}
