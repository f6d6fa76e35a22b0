"""Dropout as a layer: new masks in every training pass, none outside, the same ones from the same seed."""

import numpy as np
import pytest

from cnnctl.backends.dropout import draw_mask
from cnnctl.backends.specs import DropoutSpec, mix_seed
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.nn import Dropout, Flatten, Network

SHAPE = (4, 5, 5)


def run_passes(seed, backend, passes=3):
    """What a few training passes make of ones."""
    network = Network([Dropout(0.5)], SHAPE, seed=seed)
    x = np.ones((2, *SHAPE), "float32")
    return [network.forward(x, backend, training=True) for _ in range(passes)]


def test_outside_training_nothing_happens(backend):
    layer = Dropout(0.9)
    network = Network([layer], SHAPE)
    x = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    assert np.array_equal(network.forward(x, backend), x)
    assert layer.passes == 0


def test_every_training_pass_has_a_mask_of_its_own(backend):
    first, second, third = run_passes(3, backend)
    assert set(np.unique(first)) == {0, 2}
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_the_network_s_seed_settles_all_of_them(backend):
    assert np.array_equal(run_passes(3, backend), run_passes(3, backend))
    assert not np.array_equal(run_passes(3, backend), run_passes(4, backend))


def test_pass_number_i_draws_from_the_seed_mixed_with_i(backend):
    layer = Dropout(0.3)
    network = Network([layer], SHAPE)
    x = np.ones((2, *SHAPE), "float32")
    for step in range(3):
        y = network.forward(x, backend, training=True)
        assert np.array_equal(y != 0, draw_mask(x.shape, 0.3, mix_seed(layer.seed, step)))
    assert layer.spec == DropoutSpec(0.3, layer.seed)


def test_layers_of_one_network_have_seeds_of_their_own(backend):
    first, second = Dropout(), Dropout()
    Network([first, Flatten(), second], SHAPE)
    assert first.seed != second.seed


def test_the_gradient_passes_where_the_values_did(backend):
    """Also after an evaluation in between."""
    network = Network([Dropout(0.5)], SHAPE)
    x = np.ones((2, *SHAPE), "float32")
    y = network.forward(x, backend, training=True)
    network.forward(x, backend)
    assert np.array_equal(network.backward(x, backend, need_dx=True), y)


def test_spatial_dropout_clears_whole_channels(backend):
    layer = Dropout(0.5, spatial=True)
    network = Network([layer], (40, 3, 2))
    x = np.ones((2, 40, 3, 2), "float32")
    y = network.forward(x, backend, training=True)
    kept = draw_mask((2, 40), 0.5, mix_seed(layer.seed, 0))
    assert 0 < kept.sum() < kept.size
    assert np.array_equal(y, np.broadcast_to(2 * kept[..., None, None], y.shape))
    assert np.array_equal(network.backward(x, backend, need_dx=True), y)
    assert np.array_equal(network.forward(x, backend), x)
    assert layer.spec == DropoutSpec(0.5, layer.seed, spatial=True)


def test_spatial_dropout_needs_images():
    with pytest.raises(ShapeError, match=r"^dropout1: input of shape \(9,\) is not an image"):
        Network([Dropout(spatial=True)], (9,))


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), "half", True])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ConfigError, match=r"^rate: .* is not a number in \[0, 1\)$"):
        Dropout(rate)
