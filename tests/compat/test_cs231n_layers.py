"""What the course's cells check of its layers: printed values, numerical gradients, naive against fast."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnctl.backends.specs import Array
from cnnctl.compat.cs231n import fast_layers, layer_utils, layers
from cnnctl.compat.cs231n.gradient_check import eval_numerical_gradient_array, rel_error
from cnnctl.errors import ConfigError, ShapeError
from tests.backends.test_course_figures import CONV, MAXPOOL

KINDS = ("naive", "fast", "im2col")
POOL_PARAM = {"pool_height": 2, "pool_width": 2, "stride": 2}


def find(kind: str, operation: str) -> Callable[..., Any]:
    """Such as layers.conv_forward_naive."""
    return getattr(layers if kind == "naive" else fast_layers, f"{operation}_{kind}")  # type: ignore[no-any-return]


def check_gradients(
    forward: Callable[..., tuple[Array, Any]],
    backward: Callable[..., Any],
    arrays: dict[str, Array],
    *settings: Any,
    tolerance: float = 1e-8,
) -> None:
    """Hold every gradient against differences, by the course's own relative error where numbers are large."""
    out, cache = forward(*arrays.values(), *settings)
    dout = np.random.randn(*out.shape)
    found = backward(dout, cache)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(arrays)
    for key, array, gradient in zip(arrays, arrays.values(), found, strict=True):
        wanted = eval_numerical_gradient_array(lambda _: forward(*arrays.values(), *settings)[0], array, dout)
        assert gradient.shape == array.shape
        assert np.abs(wanted).max() > 0.01, key
        np.testing.assert_allclose(gradient, wanted, rtol=tolerance, atol=tolerance, err_msg=key)


def draw(**shapes: tuple[int, ...]) -> dict[str, Array]:
    return {key: np.random.randn(*shape) for key, shape in shapes.items()}


class TestConvolution:
    @pytest.mark.parametrize("kind", KINDS)
    def test_printed_values(self, kind: str) -> None:
        x = np.linspace(-0.1, 0.5, num=96).reshape(2, 3, 4, 4)
        w = np.linspace(-0.2, 0.3, num=144).reshape(3, 3, 4, 4)
        b = np.linspace(-0.1, 0.2, num=3)
        out, _ = find(kind, "conv_forward")(x, w, b, {"stride": 2, "pad": 1})
        assert rel_error(out, np.array(CONV)) < 3e-8

    @pytest.mark.parametrize("kind", KINDS)
    def test_image_processing_with_integer_biases(self, kind: str) -> None:
        """Red, green and blue weighed to grey; horizontal edges of blue around 128."""
        x = np.random.randint(256, size=(2, 3, 12, 9)).astype(np.float64)
        w = np.zeros((2, 3, 3, 3))
        w[0, :, 1, 1] = 0.3, 0.6, 0.1
        w[1, 2] = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
        out, _ = find(kind, "conv_forward")(x, w, np.array([0, 128]), {"stride": 1, "pad": 1})
        np.testing.assert_allclose(out[:, 0], np.einsum("nchw,c->nhw", x, [0.3, 0.6, 0.1]), rtol=1e-12)
        blue = np.pad(x[:, 2], ((0, 0), (1, 1), (1, 1)))
        rows = blue[:, :, :-2] + 2 * blue[:, :, 1:-1] + blue[:, :, 2:]
        np.testing.assert_allclose(out[:, 1], 128 + rows[:, :-2] - rows[:, 2:], rtol=1e-11, atol=1e-9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients(self, kind: str) -> None:
        arrays = draw(x=(2, 3, 5, 5), w=(2, 3, 3, 3), b=(2,))
        forward, backward = find(kind, "conv_forward"), find(kind, "conv_backward")
        check_gradients(forward, backward, arrays, {"stride": 1, "pad": 1})
        check_gradients(forward, backward, arrays, {"stride": 2, "pad": 0})

    @pytest.mark.parametrize("kind", ["fast", "im2col", "strides"])
    def test_fast_is_naive(self, kind: str) -> None:
        """The cell that compares them, with fewer images; any backward takes any cache."""
        x, w, b = draw(x=(3, 3, 31, 31), w=(25, 3, 3, 3), b=(25,)).values()
        conv_param = {"stride": np.int64(2), "pad": 1}
        wanted, naive_cache = layers.conv_forward_naive(x, w, b, conv_param)
        out, cache = find(kind, "conv_forward")(x, w, b, conv_param)
        np.testing.assert_allclose(out, wanted, rtol=1e-10, atol=1e-12)
        dout = np.random.randn(*out.shape)
        gradients = layers.conv_backward_naive(dout, cache)
        for found, gradient in zip(find(kind, "conv_backward")(dout, naive_cache), gradients, strict=True):
            np.testing.assert_allclose(found, gradient, rtol=1e-10, atol=1e-11)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_cache_is_the_arguments(self, kind: str) -> None:
        arrays = list(draw(x=(1, 2, 4, 4), w=(1, 2, 3, 3), b=(1,)).values())
        arguments = (*arrays, {"stride": 1, "pad": 1})
        copies = [array.copy() for array in arrays]
        _, cache = find(kind, "conv_forward")(*arguments)
        assert all(kept is given for kept, given in zip(cache, arguments, strict=True))
        assert all(map(np.array_equal, arrays, copies))

    @pytest.mark.parametrize("kind", KINDS)
    def test_dtypes_mix_as_in_numpy(self, kind: str) -> None:
        x, w, b = (
            array.astype(np.float32) for array in draw(x=(1, 2, 4, 4), w=(1, 2, 3, 3), b=(1,)).values()
        )
        forward, backward = find(kind, "conv_forward"), find(kind, "conv_backward")
        conv_param = {"stride": 1, "pad": 1}
        out, cache = forward(x, w, b, conv_param)
        assert out.dtype == np.float32
        assert {gradient.dtype for gradient in backward(out, cache)} == {np.dtype(np.float32)}
        assert forward(x.astype(np.float64), w, b, conv_param)[0].dtype == np.float64
        assert forward(x, w, np.array([1]), conv_param)[0].dtype == np.float64

    def test_refusals(self) -> None:
        x, w, b = draw(x=(1, 2, 4, 4), w=(1, 2, 3, 3), b=(1,)).values()
        with pytest.raises(ConfigError, match=r"^pad: is missing; given: stride$"):
            layers.conv_forward_naive(x, w, b, {"stride": 1})
        with pytest.raises(ConfigError, match=r"^stride: is missing; given: nothing$"):
            fast_layers.conv_forward_fast(x, w, b, {})
        with pytest.raises(ShapeError, match=r"^stride: 1\.5 is neither"):
            fast_layers.conv_forward_fast(x, w, b, {"stride": 1.5, "pad": 1})
        with pytest.raises(ShapeError, match=r"^w: shape"):
            layers.conv_forward_naive(x[:, :1], w, b, {"stride": 1, "pad": 1})


class TestMaxPool:
    @pytest.mark.parametrize("kind", KINDS)
    def test_printed_values(self, kind: str) -> None:
        x = np.linspace(-0.3, 0.4, num=96).reshape(2, 3, 4, 4)
        out, _ = find(kind, "max_pool_forward")(x, POOL_PARAM)
        assert rel_error(out, np.array(MAXPOOL)) < 5e-8

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradient(self, kind: str) -> None:
        forward, backward = find(kind, "max_pool_forward"), find(kind, "max_pool_backward")
        check_gradients(forward, backward, draw(x=(3, 2, 8, 8)), POOL_PARAM)
        overlapping = {"pool_height": np.int64(3), "pool_width": 2, "stride": 1}
        check_gradients(forward, backward, draw(x=(1, 2, 5, 4)), overlapping)

    @pytest.mark.parametrize("kind", ["fast", "im2col", "reshape"])
    def test_fast_is_naive(self, kind: str) -> None:
        """To the bit, with ties too; any backward takes any cache."""
        x = np.round(np.random.randn(5, 3, 32, 32))
        wanted, naive_cache = layers.max_pool_forward_naive(x, POOL_PARAM)
        out, cache = find(kind, "max_pool_forward")(x, POOL_PARAM)
        np.testing.assert_array_equal(out, wanted)
        dout = np.random.randn(*out.shape)
        gradient = layers.max_pool_backward_naive(dout, naive_cache)
        for known in (cache, naive_cache):
            np.testing.assert_array_equal(find(kind, "max_pool_backward")(dout, known), gradient)
        np.testing.assert_array_equal(layers.max_pool_backward_naive(dout, cache), gradient)

    def test_the_naive_cache_is_the_arguments(self) -> None:
        x = np.random.randn(1, 1, 4, 4)
        kept, pool_param = layers.max_pool_forward_naive(x, POOL_PARAM)[1]
        assert kept is x
        assert pool_param is POOL_PARAM

    def test_refusals(self) -> None:
        with pytest.raises(ConfigError, match=r"^pool_width: is missing; given: pool_height, stride$"):
            layers.max_pool_forward_naive(np.zeros((1, 1, 4, 4)), {"pool_height": 2, "stride": 2})


class TestSandwiches:
    def test_conv_relu_pool(self) -> None:
        arrays = draw(x=(2, 3, 8, 8), w=(3, 3, 3, 3), b=(3,))
        conv_param = {"stride": 1, "pad": 1}
        forward, backward = layer_utils.conv_relu_pool_forward, layer_utils.conv_relu_pool_backward
        check_gradients(forward, backward, arrays, conv_param, POOL_PARAM, tolerance=1e-7)
        x, w, b = arrays.values()
        z, _ = layers.conv_forward_naive(x, w, b, conv_param)
        wanted, _ = layers.max_pool_forward_naive(np.maximum(z, 0), POOL_PARAM)
        np.testing.assert_allclose(forward(x, w, b, conv_param, POOL_PARAM)[0], wanted, atol=1e-12)

    def test_conv_relu(self) -> None:
        arrays = draw(x=(2, 3, 6, 6), w=(3, 3, 3, 3), b=(3,))
        conv_param = {"stride": 1, "pad": 1}
        forward, backward = layer_utils.conv_relu_forward, layer_utils.conv_relu_backward
        check_gradients(forward, backward, arrays, conv_param, tolerance=1e-7)
        x, w, b = arrays.values()
        z, _ = layers.conv_forward_naive(x, w, b, conv_param)
        np.testing.assert_allclose(forward(x, w, b, conv_param)[0], np.maximum(z, 0), atol=1e-12)

    def test_conv_bn_relu(self) -> None:
        arrays = draw(x=(3, 2, 4, 4), w=(3, 2, 3, 3), b=(3,), gamma=(3,), beta=(3,))
        arrays["b"][:] = 0
        bn_param: dict[str, Any] = {"mode": "train"}
        settings = {"stride": 1, "pad": 1}, bn_param
        forward, backward = layer_utils.conv_bn_relu_forward, layer_utils.conv_bn_relu_backward
        x, w, b, gamma, beta = arrays.values()
        out, cache = forward(x, w, b, gamma, beta, *settings)
        dout = np.random.randn(*out.shape)
        for key, found in zip(arrays, backward(dout, cache), strict=True):
            wanted = eval_numerical_gradient_array(
                lambda _: forward(x, w, b, gamma, beta, *settings)[0], arrays[key], dout
            )
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7, err_msg=key)

    def test_affine_relu(self) -> None:
        arrays = draw(x=(3, 2, 4), w=(8, 5), b=(5,))
        check_gradients(layer_utils.affine_relu_forward, layer_utils.affine_relu_backward, arrays)


class TestAffineReluDropout:
    def test_affine(self) -> None:
        arrays = draw(x=(3, 2, 4), w=(8, 5), b=(5,))
        check_gradients(layers.affine_forward, layers.affine_backward, arrays)
        x, w, b = arrays.values()
        out, _ = layers.affine_forward(x, w, b)
        np.testing.assert_allclose(out, np.einsum("nij,ijm->nm", x, w.reshape(2, 4, 5)) + b, atol=1e-12)

    def test_relu(self) -> None:
        out, cache = layers.relu_forward(np.array([[-1.0, 0.0, 2.0]]))
        assert out.tolist() == [[0, 0, 2]]
        assert layers.relu_backward(np.array([[3.0, 4.0, 5.0]]), cache).tolist() == [[0, 0, 5]]

    def test_dropout_keeps_a_share_p_and_the_mean(self) -> None:
        x = np.full((200, 200), 10.0)
        out, cache = layers.dropout_forward(x, {"mode": "train", "p": 0.25, "seed": 5})
        assert set(np.unique(out)) == {0.0, 40.0}
        assert 0.23 < (out > 0).mean() < 0.27
        np.testing.assert_array_equal(layers.dropout_backward(np.ones_like(x), cache), out / 10)
        again, _ = layers.dropout_forward(x, {"mode": "train", "p": 0.25, "seed": 5})
        np.testing.assert_array_equal(again, out)

    def test_dropout_of_integers_is_of_floats_and_keeps_float32(self) -> None:
        out, _ = layers.dropout_forward(np.ones((4, 5), int), {"mode": "train", "p": 0.7, "seed": 5})
        assert out.dtype == np.float64
        np.testing.assert_array_equal(np.unique(out), [0, 1 / 0.7])
        assert layers.dropout_forward(np.ones(3, int), {"mode": "test", "p": 0.7})[0].dtype == np.float64
        single = np.ones((4, 5), np.float32)
        _, cache = layers.dropout_forward(single, {"mode": "train", "p": 0.7, "seed": 5})
        assert layers.dropout_backward(single, cache).dtype == np.float32

    def test_dropout_does_nothing_in_tests(self) -> None:
        x = np.random.randn(4, 3)
        out, cache = layers.dropout_forward(x, {"mode": "test", "p": 0.25})
        np.testing.assert_array_equal(out, x)
        np.testing.assert_array_equal(layers.dropout_backward(x, cache), x)

    def test_refusals(self) -> None:
        x = np.zeros((2, 2))
        with pytest.raises(ConfigError, match=r"^p: 0 is not a probability"):
            layers.dropout_forward(x, {"mode": "train", "p": 0})
        with pytest.raises(ConfigError, match=r"^mode: 'tset' is not known; did you mean test\?$"):
            layers.dropout_forward(x, {"mode": "tset", "p": 0.5})


class TestNormalization:
    @pytest.mark.parametrize("shape", [(50, 3), (2, 3, 4, 5)])
    def test_batchnorm_in_training(self, shape: tuple[int, ...]) -> None:
        """Mean beta and standard deviation gamma, integers too."""
        x = 4 * np.random.randn(*shape) + 10
        axes = (0, 2, 3)[: x.ndim - 1]
        forward = layers.batchnorm_forward if x.ndim == 2 else layers.spatial_batchnorm_forward
        for gamma, beta in (([1, 1, 1], [0, 0, 0]), ([3, 4, 5], [6, 7, 8])):
            out, _ = forward(x, np.asarray(gamma), np.asarray(beta), {"mode": "train"})
            assert out.shape == x.shape
            np.testing.assert_allclose(out.mean(axis=axes), beta, atol=1e-12)
            np.testing.assert_allclose(out.std(axis=axes), gamma, rtol=1e-5)

    def test_batchnorm_in_tests_takes_the_running_statistics(self) -> None:
        bn_param: dict[str, Any] = {"mode": "train"}
        gamma, beta = np.ones(4), np.zeros(4)
        for _ in range(50):
            layers.spatial_batchnorm_forward(2.3 * np.random.randn(10, 4, 11, 12) + 13, gamma, beta, bn_param)
        bn_param["mode"] = "test"
        x = 2.3 * np.random.randn(10, 4, 11, 12) + 13
        before = bn_param["running_mean"].copy()
        out, _ = layers.spatial_batchnorm_forward(x, gamma, beta, bn_param)
        assert np.abs(out.mean(axis=(0, 2, 3))).max() < 0.1
        assert np.abs(out.std(axis=(0, 2, 3)) - 1).max() < 0.1
        np.testing.assert_array_equal(bn_param["running_mean"], before)

    def test_running_statistics_move_as_in_the_course(self) -> None:
        x = np.array([[1.0], [3.0]])
        bn_param: dict[str, Any] = {"mode": "train", "momentum": 0.75}
        layers.batchnorm_forward(x, np.ones(1), np.zeros(1), bn_param)
        assert bn_param["running_mean"].tolist() == [0.5]
        assert bn_param["running_var"].tolist() == [0.25]  # of the biased variance, 1

    @pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
    def test_batchnorm_gradients(self, shape: tuple[int, ...]) -> None:
        arrays = draw(x=shape, gamma=(3,), beta=(3,))
        arrays["x"] = 5 * arrays["x"] + 12
        for backward in (layers.spatial_batchnorm_backward, layers.batchnorm_backward_alt):
            check_gradients(
                layers.spatial_batchnorm_forward, backward, arrays, {"mode": "train"}, tolerance=1e-7
            )

    def test_layernorm(self) -> None:
        arrays = draw(x=(4, 5), gamma=(5,), beta=(5,))
        check_gradients(layers.layernorm_forward, layers.layernorm_backward, arrays, {}, tolerance=1e-7)
        out, _ = layers.layernorm_forward(7 * arrays["x"] + 3, np.full(5, 3), np.full(5, 4), {"eps": 1e-12})
        np.testing.assert_allclose(out.mean(axis=1), 4)
        np.testing.assert_allclose(out.std(axis=1), 3)

    @pytest.mark.parametrize("affine", [(1, 6, 1, 1), (6,)])
    def test_groupnorm(self, affine: tuple[int, ...]) -> None:
        arrays = draw(x=(2, 6, 4, 5), gamma=affine, beta=affine)
        forward, backward = layers.spatial_groupnorm_forward, layers.spatial_groupnorm_backward
        check_gradients(forward, backward, arrays, 2, {}, tolerance=1e-7)
        x = 4 * arrays["x"] + 10
        out, _ = forward(x, np.full(affine, 3), np.full(affine, 5), 2, {})
        groups = out.reshape(2, 2, -1)
        np.testing.assert_allclose(groups.mean(axis=2), 5)
        np.testing.assert_allclose(groups.std(axis=2), 3, rtol=1e-5)

    def test_refusals(self) -> None:
        x = np.zeros((1, 6, 2, 2))
        with pytest.raises(ConfigError, match=r"^G: 4 groups do not divide the 6 channels of x$"):
            layers.spatial_groupnorm_forward(x, np.ones(6), np.zeros(6), 4, {})
        with pytest.raises(ConfigError, match=r"^mode: is missing; given: eps"):
            layers.batchnorm_forward(x, np.ones(6), np.zeros(6), {"eps": 1e-5})


class TestLosses:
    def test_svm_by_hand(self) -> None:
        """Margins 1 and 4 for the first image, none and 0.5 for the second."""
        loss, dx = layers.svm_loss(np.array([[2.0, 2.0, 5.0], [0.5, 3.0, 2.5]]), np.array([0, 1]))
        assert loss == (1 + 4 + 0.5) / 2
        assert dx.tolist() == [[-1.0, 0.5, 0.5], [0.0, -0.5, 0.5]]

    @pytest.mark.parametrize("loss", [layers.svm_loss, layers.softmax_loss])
    def test_gradients(self, loss: Callable[[Array, Array], tuple[float, Array]]) -> None:
        x, y = np.random.randn(5, 4), np.random.randint(4, size=5)
        wanted = eval_numerical_gradient_array(lambda x: np.array(loss(x, y)[0]), x, 1.0)
        np.testing.assert_allclose(loss(x, y)[1], wanted, rtol=1e-7, atol=1e-9)

    def test_even_scores_cost_the_logarithm_of_their_number(self) -> None:
        assert layers.softmax_loss(np.zeros((3, 10)), np.arange(3))[0] == pytest.approx(np.log(10))
