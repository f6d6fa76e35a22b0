"""Convolution layers: what the arguments mean, and how wrong ones are refused."""

import numpy as np
import pytest

from cnnctl.errors import ShapeError
from cnnctl.nn import Conv, Network


@pytest.mark.parametrize(
    ("arguments", "output_shape", "parameters"),
    [
        ({"kernel": 3}, (6, 6, 8), 6 * 4 * 9 + 6),
        ({"kernel": [1, 5]}, (6, 8, 6), 6 * 4 * 5 + 6),
        ({"kernel": 3, "stride": 2}, (6, 3, 4), 6 * 4 * 9 + 6),
        ({"kernel": 3, "stride": [3, 1], "padding": 1}, (6, 3, 10), 6 * 4 * 9 + 6),
        ({"kernel": 4, "padding": "same"}, (6, 8, 10), 6 * 4 * 16 + 6),
        ({"kernel": 3, "dilation": 2}, (6, 4, 6), 6 * 4 * 9 + 6),
        ({"kernel": 3, "padding": ((2, 0), (0, 1))}, (6, 8, 9), 6 * 4 * 9 + 6),
        ({"kernel": 3, "groups": 2}, (6, 6, 8), 6 * 2 * 9 + 6),
        ({"kernel": 3, "bias": False}, (6, 6, 8), 6 * 4 * 9),
    ],
)
def test_output_shape_and_parameters(arguments, output_shape, parameters):
    network = Network([Conv(6, **arguments)], (4, 8, 10))
    assert network.output_shape == output_shape
    assert network.parameter_count == parameters


def test_it_is_the_convolution_that_its_arguments_describe(backend):
    """Ones on an image of ones count the taps inside it: 4 in a corner, 6 at an edge, 9 within."""
    layer = Conv(1, 3, padding=1)
    network = Network([layer], (1, 3, 4))
    layer.params["weight"][...] = 1
    layer.params["bias"][...] = 100
    y = network.forward(np.ones((1, 1, 3, 4), "float32"), backend)
    assert y[0, 0].tolist() == [[104, 106, 106, 104], [106, 109, 109, 106], [104, 106, 106, 104]]


def test_groups_do_not_see_one_another(backend):
    network = Network([Conv(4, 1, groups=2)], (2, 3, 3))
    x = np.zeros((1, 2, 3, 3), "float32")
    x[0, 1] = 1
    y = network.forward(x, backend)
    assert not y[0, :2].any()
    assert y[0, 2:].all()


def test_macs_count_products_of_one_image():
    (row,) = Network([Conv(6, [3, 5], stride=2, groups=2)], (4, 9, 9)).summary()
    assert row.macs == (4 * 3) * 6 * (4 // 2) * (3 * 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv(0, 3), "filters: 0 is below 1"),
        (lambda: Conv(2.0, 3), r"filters: 2\.0 is not an integer"),
        (lambda: Conv(True, 3), "filters: True is not an integer"),
        (lambda: Conv(4, 0), "kernel: 0 is below 1"),
        (lambda: Conv(4, [3, 3, 3]), r"kernel: \[3, 3, 3\] is neither an integer nor"),
        (lambda: Conv(4, 3, stride=0), "stride: 0 is below 1"),
        (lambda: Conv(4, 3, padding=-1), "padding: -1 is below 0"),
        (lambda: Conv(4, 3, padding="full"), "padding: 'full' is not known"),
        (lambda: Conv(4, 3, padding="same", stride=2), "padding: 'same' needs stride 1"),
        (lambda: Conv(4, 3, dilation=0), "dilation: 0 is below 1"),
        (lambda: Conv(4, 3, groups=0), "groups: 0 is below 1"),
        (lambda: Conv(4, 3, groups=3), "groups: 3 does not divide the 4 filters"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ShapeError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("layer", "input_shape", "message"),
    [
        (Conv(4, 5), (1, 4, 9), "conv1: kernel spans 5 pixels of height, more than the 4 of the image"),
        (Conv(4, 3, dilation=3), (1, 9, 6), "conv1: kernel spans 7 pixels of width, more than the 6"),
        (Conv(4, 1, groups=2), (3, 9, 9), "conv1: groups: 2 does not divide the 3 channels of the input"),
        (Conv(4, 3), (9,), r"conv1: input of shape \(9,\) is not an image \(C, H, W\)"),
        (Conv(2**30, 2**10, padding=2**10), (1, 9, 9), r"conv1: weight: shape .* elements, more than"),
        (Conv(2**20, 1, padding=2**10), (1, 9, 9), r"conv1: output: shape .* elements, more than"),
    ],
)
def test_inputs_that_do_not_fit_are_named(layer, input_shape, message):
    with pytest.raises(ShapeError, match=f"^{message}"):
        Network([layer], input_shape)
