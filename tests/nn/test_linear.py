"""Fully connected layers and flattening: the order of an image's pixels, and errors."""

import numpy as np
import pytest

from cnnctl.errors import ShapeError
from cnnctl.nn import Flatten, Linear, Network


def test_images_are_read_in_the_order_channel_row_column(backend):
    layer = Linear(1)
    network = Network([layer], (2, 2, 3), dtype="float64")
    layer.params["weight"][...] = 10.0 ** np.arange(12)
    layer.params["bias"][...] = 0.5
    x = np.arange(12.0).reshape(1, 2, 2, 3) % 10
    assert network.forward(x, backend)[0, 0] == 109876543210.5


def test_a_flatten_before_it_changes_nothing(backend):
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).transpose(0, 1, 3, 2)
    bare = Network([Linear(4)], (2, 5, 4), dtype="float64")
    flattened = Network([Flatten(), Linear(4)], (2, 5, 4), dtype="float64")
    flattened.load_params(bare.params)
    np.testing.assert_array_equal(flattened.forward(x, backend), bare.forward(x, backend))


def test_macs_are_the_weights():
    assert [row.macs for row in Network([Flatten(), Linear(7)], (2, 3, 4)).summary()] == [0, 24 * 7]


@pytest.mark.parametrize(
    ("units", "message"),
    [(0, "units: 0 is below 1"), (-3, "units: -3 is below 1"), ("10", "units: '10' is not an integer")],
)
def test_wrong_units_are_named(units, message):
    with pytest.raises(ShapeError, match=f"^{message}"):
        Linear(units)


def test_numpy_integers_are_integers():
    assert Network([Linear(np.int64(4))], (3,)).output_shape == (4,)


def test_too_large_a_weight_is_refused_before_it_is_made():
    with pytest.raises(ShapeError, match=r"^linear1: weight: shape .* elements, more than"):
        Network([Linear(2**31)], (2**31,))
