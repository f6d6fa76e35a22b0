"""Pooling layers: windows, the winner of a tie, shares of a mean, and errors."""

import numpy as np
import pytest

from cnnctl.backends.specs import Pool, PoolSpec, ScaleSpec
from cnnctl.errors import ShapeError
from cnnctl.geometry import Window
from cnnctl.nn import AvgPool, Conv, GlobalAvgPool, Linear, MaxPool, Network, Sigmoid, Subsampling
from cnnctl.nn.plan import Plan

over_windows = pytest.mark.parametrize("make_layer", [MaxPool, AvgPool, Subsampling])


@pytest.mark.parametrize(
    ("arguments", "output_shape"),
    [
        ({"kernel": 2}, (3, 3, 4)),
        ({"kernel": [3, 2]}, (3, 2, 4)),
        ({"kernel": 3, "stride": 1}, (3, 5, 6)),
        ({"kernel": 3, "stride": 2, "padding": 1}, (3, 4, 4)),
        ({"kernel": [7, 8]}, (3, 1, 1)),
    ],
)
@over_windows
def test_windows_tile_the_image_unless_a_stride_is_given(make_layer, arguments, output_shape):
    assert Network([make_layer(**arguments)], (3, 7, 8)).output_shape == output_shape


def test_the_first_maximum_of_a_window_takes_the_gradient(backend):
    network = Network([MaxPool(2)], (1, 2, 4))
    x = np.array([[[[1, 5, -2, -2], [5, 0, -2, -2]]]], "float32")
    assert network.forward(x, backend, training=True).tolist() == [[[[5, -2]]]]
    dx = network.backward(np.array([[[[3, 4]]]], "float32"), backend, need_dx=True)
    assert dx.tolist() == [[[[0, 3, 4, 0], [0, 0, 0, 0]]]]


@pytest.mark.parametrize(
    ("arguments", "input_shape", "message"),
    [
        ({"kernel": 5}, (1, 4, 9), "kernel spans 5 pixels of height, more than the 4"),
        ({"kernel": 2}, (9,), r"input of shape \(9,\) is not an image"),
        ({"kernel": 2, "padding": 2}, (1, 4, 4), "padding: .* without any pixel of the image"),
    ],
)
@over_windows
def test_inputs_that_do_not_fit_are_named(make_layer, arguments, input_shape, message):
    with pytest.raises(ShapeError, match=f"^{make_layer.kind}1: {message}"):
        Network([make_layer(**arguments)], input_shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, "kernel: 0 is below 1"),
        ({"kernel": 2, "stride": 0}, "stride: 0 is below 1"),
        ({"kernel": 2, "padding": "all"}, "padding: 'all' is not known"),
    ],
)
@over_windows
def test_wrong_arguments_are_named(make_layer, arguments, message):
    with pytest.raises(ShapeError, match=f"^{message}"):
        make_layer(**arguments)


def test_pixels_of_a_mean_share_its_gradient(backend):
    network = Network([AvgPool(2, padding=((0, 0), (0, 1)))], (1, 2, 3))
    x = np.array([[[[1, 5, 3], [7, 3, 6]]]], "float32")
    assert network.forward(x, backend, training=True).tolist() == [[[[4, 4.5]]]]
    dx = network.backward(np.array([[[[8, 6]]]], "float32"), backend, need_dx=True)
    assert dx.tolist() == [[[[2, 2, 3], [2, 2, 3]]]]


def test_subsampling_scales_the_mean_of_each_channel(backend):
    layer = Subsampling(2)
    network = Network([layer], (2, 2, 4), dtype="float64")
    assert {key: w.tolist() for key, w in network.params.items()} == {
        "subsampling1.weight": [1, 1],
        "subsampling1.bias": [0, 0],
    }
    layer.params["weight"][:], layer.params["bias"][:] = [2, -1], [0.5, 10]
    x = np.arange(16.0).reshape(1, 2, 2, 4)
    assert network.forward(x, backend, training=True).tolist() == [[[[5.5, 9.5]], [[-0.5, -2.5]]]]
    dx = network.backward(np.array([[[[4.0, 8.0]], [[1.0, 2.0]]]]), backend, need_dx=True)
    assert dx[0, :, 1].tolist() == [[2, 2, 4, 4], [-0.25, -0.25, -0.5, -0.5]]
    assert {key: dw.tolist() for key, dw in network.grads.items()} == {
        "subsampling1.weight": [4 * 2.5 + 8 * 4.5, 10.5 + 2 * 12.5],
        "subsampling1.bias": [12, 3],
    }
    assert layer.spec == ScaleSpec()


def test_a_convolution_takes_in_the_mean_of_a_subsampling(backend):
    network = Network([Conv(4, 3), Subsampling(2, name="s2"), Sigmoid(), Linear(3)], (1, 8, 8))
    names = [stage.name for stage in Plan(network, 2, backend).stages]
    assert names == ["conv1+s2.mean", "s2", "sigmoid1", "linear1"]


def test_a_global_mean_makes_vectors_of_images(backend):
    layer = GlobalAvgPool()
    network = Network([layer, Linear(3)], (2, 2, 4))
    x = np.arange(32, dtype="float32").reshape(2, 2, 2, 4)
    assert layer.output_shape == (2,)
    assert network.params["linear1.weight"].shape == (3, 2)
    assert layer.forward(x, backend, training=True).tolist() == [[3.5, 11.5], [19.5, 27.5]]
    dx = layer.backward(np.array([[8, 16], [24, 32]], "float32"), backend)
    assert dx[:, :, 1, 2].tolist() == [[1, 2], [3, 4]]
    assert layer.spec == PoolSpec(Pool("average", Window.create((2, 4))))


def test_a_global_mean_needs_images():
    with pytest.raises(ShapeError, match=r"^globalavgpool1: input of shape \(9,\) is not an image"):
        Network([GlobalAvgPool()], (9,))
