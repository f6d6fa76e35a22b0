"""The book's layers and functions: held against loops, numerical gradients and its own formulas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.specs import Array
from cnnctl.compat.cs231n.gradient_check import eval_numerical_gradient_array
from cnnctl.compat.dlfs import functions, layers
from cnnctl.compat.dlfs.gradient import numerical_gradient
from cnnctl.compat.dlfs.util import col2im, conv_output_size, im2col, shuffle_dataset, smooth_curve
from cnnctl.errors import DtypeError, ShapeError
from cnnctl.geometry import Window

WINDOWS = [(2, 3, 1, 0), (3, 3, 2, 1), (1, 1, 1, 0), (5, 4, 3, 2)]
"""filter_h, filter_w, stride, pad."""


def check_layer(layer: Any, x: Array, **parameters: Array) -> None:
    """Hold dx and the gradients kept as dW and the like against differences."""
    dout = np.random.randn(*layer.forward(x).shape)
    dx = layer.backward(dout.copy())
    found = {"x": dx} | {key: getattr(layer, f"d{key}") for key in parameters}
    for key, array in ({"x": x} | parameters).items():
        wanted = eval_numerical_gradient_array(lambda _: layer.forward(x), array, dout)
        assert np.abs(wanted).max() > 0.01, key
        np.testing.assert_allclose(found[key], wanted, rtol=1e-7, atol=1e-8, err_msg=key)


class TestColumns:
    @pytest.mark.parametrize(("FH", "FW", "stride", "pad"), WINDOWS)
    def test_im2col(self, FH: int, FW: int, stride: int, pad: int) -> None:
        """Window by window, and as a convolution by one matmul."""
        x = np.random.randn(2, 3, 7, 6)
        columns = im2col(x, FH, FW, stride, pad)
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        OH, OW = (7 + 2 * pad - FH) // stride + 1, (6 + 2 * pad - FW) // stride + 1
        for row, (n, oh, ow) in zip(columns, np.ndindex(2, OH, OW), strict=True):
            top, left = oh * stride, ow * stride
            np.testing.assert_array_equal(row, padded[n, :, top : top + FH, left : left + FW].ravel())

        w = np.random.randn(4, 3, FH, FW)
        out = (columns @ w.reshape(4, -1).T).reshape(2, OH, OW, 4).transpose(0, 3, 1, 2)
        window = Window.create((FH, FW), stride, pad)
        np.testing.assert_allclose(out, create_backend("naive").conv_forward(x, w, None, window), atol=1e-12)

    @pytest.mark.parametrize(("FH", "FW", "stride", "pad"), WINDOWS)
    def test_col2im_is_the_adjoint(self, FH: int, FW: int, stride: int, pad: int) -> None:
        """<im2col(x), c> = <x, col2im(c)>, for numbers without rounding."""
        x = np.random.randint(-9, 9, (2, 3, 7, 6)).astype(np.float64)
        columns = im2col(x, FH, FW, stride, pad)
        c = np.random.randint(-9, 9, columns.shape).astype(np.float64)
        image = col2im(c, (2, 3, 7, 6), FH, FW, stride, pad)
        assert image.shape == x.shape
        assert (columns * c).sum() == (x * image).sum()
        ones = np.ones_like(x)
        counts = col2im(im2col(ones, FH, FW, stride, pad), (2, 3, 7, 6), FH, FW, stride, pad)
        np.testing.assert_array_equal(col2im(columns, (2, 3, 7, 6), FH, FW, stride, pad), counts * x)

    def test_refusals(self) -> None:
        with pytest.raises(ShapeError, match=r"^shape \(3, 3\) is not \(N, C, H, W\)$"):
            im2col(np.zeros((3, 3)), 2, 2)
        with pytest.raises(ShapeError, match=r"^kernel spans 5 pixels"):
            im2col(np.zeros((1, 1, 3, 3)), 5, 5)
        with pytest.raises(ShapeError, match=r"^col: shape \(3, 3\) is not \(4, 4\)$"):
            col2im(np.zeros((3, 3)), (1, 1, 3, 3), 2, 2)

    def test_output_size(self) -> None:
        assert conv_output_size(28, 5) == 24
        assert conv_output_size(7, 2, stride=2, pad=1) == 4.5


class TestLayers:
    @pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1), (np.int64(1), 2)])
    def test_convolution(self, stride: int, pad: int) -> None:
        x, W, b = np.random.randn(2, 3, 6, 5), np.random.randn(4, 3, 3, 2), np.random.randn(4)
        layer = layers.Convolution(W, b, stride, pad)
        check_layer(layer, x, W=W, b=b)
        window = Window.create((3, 2), int(stride), pad)
        wanted = create_backend("naive").conv_forward(x, W, b, window)
        np.testing.assert_allclose(layer.forward(x), wanted, rtol=1e-11, atol=1e-12)

    def test_a_layer_shares_its_weights_and_takes_new_ones(self) -> None:
        x, W = np.random.randn(1, 1, 3, 3), np.ones((1, 1, 1, 1))
        layer = layers.Convolution(W, np.zeros(1))
        W *= 2
        np.testing.assert_array_equal(layer.forward(x), 2 * x)
        layer.W = np.full((1, 1, 1, 1), 3.0)
        np.testing.assert_array_equal(layer.forward(x), 3 * x)

    @pytest.mark.parametrize(("stride", "pad"), [(2, 0), (1, 0), (2, 1)])
    def test_pooling(self, stride: int, pad: int) -> None:
        x = np.random.randn(2, 3, 6, 4)
        layer = layers.Pooling(2, 2, stride, pad)
        check_layer(layer, x)
        wanted, index = create_backend("naive").maxpool_forward(x, Window.create(2, stride, pad))
        np.testing.assert_array_equal(layer.forward(x), wanted)
        np.testing.assert_array_equal(layer.arg_max, index)

    def test_affine_flattens(self) -> None:
        x, W, b = np.random.randn(3, 2, 2, 2), np.random.randn(8, 5), np.random.randn(5)
        layer = layers.Affine(W, b)
        check_layer(layer, x, W=W, b=b)
        np.testing.assert_allclose(layer.forward(x), np.einsum("ni,io->no", x.reshape(3, 8), W) + b)

    def test_relu(self) -> None:
        layer = layers.Relu()
        assert layer.forward(np.array([-1.0, 0.0, 2.0])).tolist() == [0, 0, 2]
        dout = np.array([3.0, 4.0, 5.0])
        assert layer.backward(dout).tolist() == [0, 0, 5]
        assert dout.tolist() == [3, 4, 5]

    def test_sigmoid(self) -> None:
        check_layer(layers.Sigmoid(), np.random.randn(3, 4))

    @pytest.mark.parametrize("one_hot", [False, True])
    def test_softmax_with_loss(self, one_hot: bool) -> None:
        x, labels = np.random.randn(5, 4), np.array([0, 3, 1, 1, 2], np.uint8)
        t = np.eye(4)[labels] if one_hot else labels
        layer = layers.SoftmaxWithLoss()
        loss = layer.forward(x, t)
        np.testing.assert_allclose(layer.y, np.exp(x) / np.exp(x).sum(axis=1, keepdims=True))
        assert loss == layer.loss == pytest.approx(-np.log(layer.y[np.arange(5), labels]).mean())
        assert loss == pytest.approx(functions.softmax_loss(x, t), abs=1e-5)
        dx = layer.backward(2)
        wanted = 2 * numerical_gradient(lambda _: layer.forward(x, t), x)
        np.testing.assert_allclose(dx, wanted, atol=1e-8)

    def test_dropout(self) -> None:
        x = np.full((100, 100), 2.0)
        layer = layers.Dropout(0.3)
        out = layer.forward(x)
        assert set(np.unique(out)) == {0.0, 2.0}
        assert 0.67 < (out > 0).mean() < 0.73
        np.testing.assert_array_equal(layer.backward(x), out)
        np.testing.assert_allclose(layer.forward(x, train_flg=False), 1.4)

    @pytest.mark.parametrize("shape", [(5, 6), (5, 2, 1, 3)])
    def test_batch_normalization(self, shape: tuple[int, ...]) -> None:
        x, gamma, beta = 3 * np.random.randn(*shape) + 1, np.random.randn(6), np.random.randn(6)
        layer = layers.BatchNormalization(gamma, beta)
        check_layer(layer, x, gamma=gamma, beta=beta)

    def test_batch_normalization_remembers(self) -> None:
        layer = layers.BatchNormalization(1.0, 0.0, momentum=0.75)  # numbers, as some of the book's networks
        x = np.array([[1.0], [3.0]])
        np.testing.assert_allclose(layer.forward(x), [[-1], [1]], rtol=1e-6)
        assert layer.running_mean.tolist() == [0.5]
        assert layer.running_var.tolist() == [0.25]
        np.testing.assert_allclose(layer.forward(x, train_flg=False), [[1], [5]], rtol=1e-5)
        given = layers.BatchNormalization(np.ones(1), np.zeros(1), 0.9, np.array([1.0]), np.array([4.0]))
        np.testing.assert_allclose(given.forward(x, train_flg=False), [[0], [1]], rtol=1e-6)


class TestFunctions:
    def test_activations(self) -> None:
        x = np.array([-1000.0, 0.0, 1000.0])
        assert functions.step_function(x).tolist() == [0, 0, 1]
        assert functions.sigmoid(x).tolist() == [0, 0.5, 1]
        assert functions.sigmoid(0) == 0.5
        assert functions.sigmoid_grad(x).tolist() == [0, 0.25, 0]
        assert functions.relu(x).tolist() == [0, 0, 1000]
        assert functions.relu_grad(x).tolist() == [0, 1, 1]
        assert functions.identity_function(x) is x

    @pytest.mark.parametrize("shape", [(3,), (2, 3)])
    def test_softmax(self, shape: tuple[int, ...]) -> None:
        x = np.random.randn(*shape)
        wanted = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(functions.softmax(x), wanted)
        np.testing.assert_allclose(functions.softmax(x + 5000), wanted)

    def test_errors(self) -> None:
        y = np.array([0.1, 0.6, 0.3])
        assert functions.sum_squared_error(y, np.array([0, 1, 0])) == pytest.approx(0.13)
        for t in (np.array([0, 1, 0]), np.array(1), np.array([1])):
            assert functions.cross_entropy_error(y, t) == pytest.approx(-np.log(0.6), abs=1e-6)
        two = functions.cross_entropy_error(np.array([y, y]), np.array([1, 2]))
        assert two == pytest.approx(-(np.log(0.6) + np.log(0.3)) / 2, abs=1e-6)
        assert np.isfinite(functions.cross_entropy_error(np.array([0.0, 1.0, 0.0]), np.array(0)))


def test_numerical_gradient() -> None:
    x = np.random.randn(2, 3)
    before = x.copy()
    sine: Callable[[Array], float] = lambda x: float(np.sin(x).sum())  # noqa: E731
    np.testing.assert_allclose(numerical_gradient(sine, x), np.cos(x), atol=1e-8)
    np.testing.assert_array_equal(x, before)
    with pytest.raises(DtypeError):
        numerical_gradient(sine, np.arange(3))


def test_shuffle_keeps_pairs() -> None:
    x, t = np.arange(20.0).reshape(10, 2), np.arange(10)
    moved, labels = shuffle_dataset(x, t)
    assert labels.tolist() != t.tolist()
    np.testing.assert_array_equal(moved, x[labels])


def test_smooth_curve() -> None:
    """A line is kept where the window reaches neither end, a constant everywhere."""
    np.testing.assert_allclose(smooth_curve(np.full(20, 3.0)), 3)
    line = smooth_curve(np.arange(30.0))
    assert line.shape == (30,)
    np.testing.assert_allclose(line[5:-5], np.arange(5.0, 25.0))
