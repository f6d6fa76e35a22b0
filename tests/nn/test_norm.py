"""Normalising layers: what a batch norm learns, gathers and uses, and settings that are refused."""

import numpy as np
import pytest

from cnnctl.backends.specs import BatchNormSpec, GroupNormSpec, LrnSpec
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.nn import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Linear, LocalResponseNorm, Network


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_norm_starts_as_plain_normalisation(backend, dtype):
    network = Network([BatchNorm()], (2, 3, 3), dtype=dtype)
    assert {key: set(w.tolist()) for key, w in network.params.items()} == {
        "batchnorm1.weight": {1.0},
        "batchnorm1.bias": {0.0},
    }
    statistics = network.layers[0].statistics
    assert {key: set(s.tolist()) for key, s in statistics.items()} == {
        "running_mean": {0.0},
        "running_var": {1.0},
    }
    assert all(array.dtype == dtype for array in (*network.params.values(), *statistics.values()))
    x = (5 + 3 * np.random.default_rng(0).normal(size=(8, 2, 3, 3))).astype(dtype)
    y = network.forward(x, backend, training=True)
    assert y.mean(axis=(0, 2, 3)) == pytest.approx(0, abs=1e-6)
    assert y.std(axis=(0, 2, 3)) == pytest.approx(1, abs=1e-5)


def test_training_moves_the_running_statistics_and_evaluation_uses_them(backend):
    """By momentum towards the batch, the variance divided by the number of values less one."""
    layer = BatchNorm(momentum=0.25)
    network = Network([layer], (1, 1, 2), dtype="float64")
    first, second = np.array([[[[1.0, 3.0]]], [[[5.0, 7.0]]]]), np.array([[[[4.0, 4.0]]], [[[8.0, 8.0]]]])
    network.forward(first, backend, training=True)
    assert layer.statistics["running_mean"] == pytest.approx([1.0])
    assert layer.statistics["running_var"] == pytest.approx([0.75 * 1 + 0.25 * 20 / 3])
    network.forward(second, backend, training=True)
    mean, var = 0.75 * 1.0 + 0.25 * 6, 0.75 * (0.75 + 0.25 * 20 / 3) + 0.25 * 16 / 3
    assert layer.statistics["running_mean"] == pytest.approx([mean])
    assert layer.statistics["running_var"] == pytest.approx([var])
    y = network.forward(first, backend)
    assert y == pytest.approx((first - mean) / np.sqrt(var + 1e-5))
    assert layer.statistics["running_mean"] == pytest.approx([mean])


def test_evaluation_treats_every_image_by_itself(backend):
    network = Network([BatchNorm()], (3,), dtype="float64")
    x = np.random.default_rng(1).normal(size=(6, 3))
    network.forward(x, backend, training=True)
    together = network.forward(x, backend)
    for image, y in zip(x, together, strict=True):
        assert network.forward(image[None], backend)[0] == pytest.approx(y, rel=1e-14)


def test_no_images_move_nothing(backend):
    network = Network([BatchNorm()], (3,))
    network.forward(np.zeros((0, 3), "float32"), backend, training=True)
    assert network.layers[0].statistics["running_var"].tolist() == [1, 1, 1]


def test_the_penalty_leaves_a_norm_alone(backend):
    network = Network([Linear(3, bias=False), BatchNorm()], (4,), dtype="float64")
    assert network.penalty(l2=2.0) == pytest.approx(np.square(network.params["linear1.weight"]).sum())


@pytest.mark.parametrize(
    ("make_layer", "axes"),
    [
        (lambda: GroupNorm(2), (2, 3, 4)),
        (LayerNorm, (1, 2, 3, 4)),
        (InstanceNorm, (3, 4)),
    ],
    ids=["group", "layer", "instance"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_of_single_images_start_as_plain_normalisation(backend, make_layer, axes, dtype):
    """Over groups, channels of a group, rows and columns; of each image by itself."""
    network = Network([make_layer()], (4, 3, 5), dtype=dtype)
    assert [set(w.tolist()) for w in network.params.values()] == [{1.0}, {0.0}]
    assert network.statistics == {}
    x = (5 + 3 * np.random.default_rng(0).normal(size=(3, 4, 3, 5))).astype(dtype)
    y = network.forward(x, backend, training=True)
    grouped = y.reshape(3, 2, 2, 3, 5)
    assert grouped.mean(axis=axes) == pytest.approx(0, abs=1e-6)
    assert grouped.std(axis=axes) == pytest.approx(1, abs=1e-4)
    assert np.array_equal(network.forward(x, backend), y)
    assert np.array_equal(network.forward(x[1:2], backend), y[1:2])


def test_a_layer_norm_of_vectors_has_a_weight_for_every_element(backend):
    network = Network([LayerNorm()], (4,), dtype="float64")
    network.params["layernorm1.weight"][:] = [1, 2, 3, 4]
    network.params["layernorm1.bias"][:] = [0, 0, 5, 5]
    y = network.forward(np.array([[-1.0, -1.0, 1.0, 1.0]]), backend)
    assert y[0] == pytest.approx([-1, -2, 8, 9], rel=1e-5)


def test_settings_reach_the_backend():
    layer = LocalResponseNorm(3, alpha=0.2, beta=0.5, k=2.0)
    Network([layer], (4, 2, 2))
    assert layer.spec == LrnSpec(3, 0.2, 0.5, 2.0)
    assert LocalResponseNorm().spec == LrnSpec(5, 1e-4, 0.75, 1.0)
    assert BatchNorm(1e-3, 0.2).spec == BatchNormSpec(1e-3, 0.2)
    assert BatchNorm().spec == BatchNormSpec(1e-5, 0.1)
    for norm, groups in ((GroupNorm(3, 0.1), 3), (LayerNorm(0.1), 1), (InstanceNorm(0.1), 6)):
        Network([norm], (6, 2, 2))
        assert norm.spec == GroupNormSpec(groups, 0.1)


def test_a_response_norm_divides_by_its_neighbours(backend):
    network = Network([LocalResponseNorm(3, alpha=3.0, beta=0.5, k=1.0)], (3, 1, 1), dtype="float64")
    y = network.forward(np.array([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1), backend)
    assert y.ravel() == pytest.approx([1 / np.sqrt(6), 2 / np.sqrt(22), 4 / np.sqrt(21)])


@pytest.mark.parametrize(
    ("make_layer", "line"),
    [
        (lambda: BatchNorm(eps=0), r"eps: 0 is not a number in \(0, inf\)"),
        (lambda: BatchNorm(momentum=1.0), r"momentum: 1.0 is not a number in \[0, 1\)"),
        (lambda: BatchNorm(momentum=True), r"momentum: True is not a number in \[0, 1\)"),
        (lambda: GroupNorm(2, eps=0), r"eps: 0 is not a number in \(0, inf\)"),
        (lambda: LayerNorm(-1), r"eps: -1 is not a number in \(0, inf\)"),
        (lambda: InstanceNorm(float("inf")), r"eps: inf is not a number in \(0, inf\)"),
        (lambda: LocalResponseNorm(0), "size: 0 is not an integer of at least 1"),
        (lambda: LocalResponseNorm(alpha=-1), r"alpha: -1 is not a number in \[0, inf\)"),
        (lambda: LocalResponseNorm(beta=float("nan")), r"beta: nan is not a number in \[0, inf\)"),
        (lambda: LocalResponseNorm(k=0), r"k: 0 is not a number in \(0, inf\)"),
    ],
)
def test_wrong_arguments_are_named(make_layer, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        make_layer()


def test_a_response_norm_needs_images():
    with pytest.raises(ShapeError, match=r"^lrn1: input of shape \(9,\) is not an image"):
        Network([LocalResponseNorm()], (9,))


@pytest.mark.parametrize(
    ("make_layer", "input_shape", "line"),
    [
        (lambda: GroupNorm(0), (4, 2, 2), "groups: 0 is below 1"),
        (lambda: GroupNorm(3), (4, 2, 2), "groupnorm1: groups: 3 does not divide the 4 channels"),
        (InstanceNorm, (9,), r"instancenorm1: input of shape \(9,\) is not an image"),
    ],
)
def test_inputs_that_do_not_fit_are_named(make_layer, input_shape, line):
    with pytest.raises(ShapeError, match=f"^{line}"):
        Network([make_layer()], input_shape)
