"""Pooling layers: windows, the winner of a tie, and errors."""

import numpy as np
import pytest

from cnnctl.errors import ShapeError
from cnnctl.nn import MaxPool, Network


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
def test_windows_tile_the_image_unless_a_stride_is_given(arguments, output_shape):
    assert Network([MaxPool(**arguments)], (3, 7, 8)).output_shape == output_shape


def test_the_first_maximum_of_a_window_takes_the_gradient(backend):
    network = Network([MaxPool(2)], (1, 2, 4))
    x = np.array([[[[1, 5, -2, -2], [5, 0, -2, -2]]]], "float32")
    assert network.forward(x, backend, training=True).tolist() == [[[[5, -2]]]]
    dx = network.backward(np.array([[[[3, 4]]]], "float32"), backend, need_dx=True)
    assert dx.tolist() == [[[[0, 3, 4, 0], [0, 0, 0, 0]]]]


@pytest.mark.parametrize(
    ("arguments", "input_shape", "message"),
    [
        ({"kernel": 5}, (1, 4, 9), "maxpool1: kernel spans 5 pixels of height, more than the 4"),
        ({"kernel": 2}, (9,), r"maxpool1: input of shape \(9,\) is not an image"),
        ({"kernel": 2, "padding": 2}, (1, 4, 4), "maxpool1: padding: .* without any pixel of the image"),
    ],
)
def test_inputs_that_do_not_fit_are_named(arguments, input_shape, message):
    with pytest.raises(ShapeError, match=f"^{message}"):
        Network([MaxPool(**arguments)], input_shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, "kernel: 0 is below 1"),
        ({"kernel": 2, "stride": 0}, "stride: 0 is below 1"),
        ({"kernel": 2, "padding": "all"}, "padding: 'all' is not known"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ShapeError, match=f"^{message}"):
        MaxPool(**arguments)
