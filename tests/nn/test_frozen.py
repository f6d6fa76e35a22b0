"""Frozen layers: a training pass that answers as evaluation does, and its gradients by differences."""

import numpy as np
import pytest

from cnnctl.errors import ConfigError, ShapeError
from cnnctl.nn import BatchNorm, Conv, Dropout, Linear, Network, Residual, Tanh


@pytest.fixture
def network():
    layers = [
        Conv(3, 3, padding=1),
        BatchNorm(),
        Residual([Conv(3, 3, padding=1), BatchNorm(), Tanh()], [Conv(3, 1), Dropout(0.5)]),
        Dropout(0.5),
        Linear(4),
        BatchNorm(),
    ]
    network = Network(layers, (2, 4, 5), dtype="float64", seed=3)
    rng = np.random.default_rng(0)
    for array in network.statistics.values():
        np.copyto(array, rng.uniform(0.5, 2, array.shape))
    network.freeze()
    return network


def test_a_frozen_training_pass_is_an_evaluation_and_moves_nothing(network, backend, rng):
    x = rng.normal(size=(3, 2, 4, 5))
    before = {key: array.copy() for key, array in network.statistics.items()}
    assert np.array_equal(network.forward(x, backend, training=True), network.forward(x, backend))
    assert all(np.array_equal(array, before[key]) for key, array in network.statistics.items())


def test_its_gradients_are_those_of_the_evaluation(network, backend, rng, numerical_gradient, relative_error):
    x, dscores = rng.normal(size=(2, 2, 4, 5)), rng.normal(size=(2, 4))

    def weigh():
        return float((network.forward(x, backend) * dscores).sum())

    network.forward(x, backend, training=True)
    dx = network.backward(dscores, backend, need_dx=True)
    assert relative_error(dx, numerical_gradient(weigh, x)) < 1e-6
    grads = network.grads
    for key in ("conv1.weight", "batchnorm1.weight", "batchnorm1.bias", "residual1.batchnorm1.weight"):
        assert relative_error(grads[key], numerical_gradient(weigh, network.params[key])) < 1e-6


def test_statistics_are_loaded_whole_or_not_at_all(network):
    own = network.statistics
    given = {key: array + 1 for key, array in own.items()}
    with pytest.raises(ConfigError, match=r"statistics: batchnorm1\.running_mean is missing"):
        network.load_statistics(
            {key: array for key, array in given.items() if key != "batchnorm1.running_mean"}
        )
    with pytest.raises(ShapeError, match=r"statistics: batchnorm2\.running_var: shape \(1,\)"):
        network.load_statistics(given | {"batchnorm2.running_var": np.ones(1)})
    assert all(not np.array_equal(array, given[key]) for key, array in own.items())
    network.load_statistics(given)
    assert all(np.array_equal(array, given[key]) for key, array in network.statistics.items())
