"""Pooling over images: the maximum. No average, global or adaptive pooling."""

from typing import ClassVar

from cnnctl.backends.base import Backend, check_pool_window
from cnnctl.backends.specs import Array
from cnnctl.geometry import Padding, Pair, Window
from cnnctl.nn.layer import Layer, Shape, as_image


class MaxPool(Layer):
    """y[n,c,oh,ow] = max of x[n,c] over a window. Shapes: x (N,C,H,W) -> y (N,C,OH,OW).

    Args:
        kernel: extents of the window, one integer or [height, width].
        stride: pixels between windows; the kernel by default, so that they tile the image.
        padding: border that never wins: an integer, [height, width] or
            ((top, bottom), (left, right)).

    The first maximum in row-major order takes the gradient. Raises ShapeError for windows
    that do not fit or that could lie wholly in the padding.
    """

    kind: ClassVar[str] = "maxpool"

    def __init__(
        self, kernel: Pair, stride: Pair | None = None, padding: Padding = 0, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.window = Window.create(kernel, kernel if stride is None else stride, padding)

    def infer_shape(self, input_shape: Shape) -> Shape:
        C, H, W = as_image(input_shape)
        return (C, *check_pool_window(self.window, H, W))

    def _forward(self, x: Array, backend: Backend) -> tuple[Array, tuple[Array, ...]]:
        y, index = backend.maxpool_forward(x, self.window)
        return y, (index,)

    def _backward(
        self, dy: Array, saved: tuple[Array, ...], backend: Backend, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        (index,) = saved
        C, H, W = self.input_shape
        return backend.maxpool_backward(dy, index, (len(index), C, H, W), self.window), {}
