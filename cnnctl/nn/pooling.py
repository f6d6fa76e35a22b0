"""Pooling over images: the maximum or the mean of windows, or the mean of all pixels."""

from typing import ClassVar

from cnnctl.backends.base import Backend, check_pool_window
from cnnctl.backends.specs import Array, Pool, PoolSpec, Spec
from cnnctl.geometry import Padding, Pair, Window
from cnnctl.nn.layer import Layer, Shape, as_image


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
