"""Losses: known values, gradients, stability and errors."""

from math import log

import numpy as np
import pytest

from cnnctl.errors import CnnctlError, ConfigError, DtypeError, ShapeError
from cnnctl.nn import Hinge, Linear, Network, SoftmaxCrossEntropy, SquaredError
from cnnctl.nn.plan import Plan
from cnnctl.optim import SGD


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_scores_cost_the_logarithm_of_the_number_of_classes(backend, dtype):
    loss = SoftmaxCrossEntropy().forward(np.full((4, 10), 3, dtype), np.arange(4), backend)
    assert loss == pytest.approx(log(10), rel=1e-6)


def test_two_classes_by_hand(backend):
    """softmax of (log 3, 0) is (3/4, 1/4)."""
    loss = SoftmaxCrossEntropy()
    scores = np.array([[log(3), 0.0], [log(3), 0.0]])
    value = loss.forward(scores, np.array([0, 1]), backend)
    assert value == pytest.approx((log(4 / 3) + log(4)) / 2, rel=1e-14)
    np.testing.assert_allclose(loss.backward(backend), [[-1 / 8, 1 / 8], [3 / 8, -3 / 8]], rtol=1e-14)


def test_gradient(backend, numerical_gradient, relative_error):
    rng = np.random.default_rng(4)
    scores, labels = rng.normal(size=(5, 7)), rng.integers(0, 7, 5)
    loss = SoftmaxCrossEntropy()
    loss.forward(scores, labels, backend)
    dscores = loss.backward(backend)
    expected = numerical_gradient(lambda: loss.forward(scores, labels, backend), scores)
    assert dscores.all()
    assert relative_error(dscores, expected) < 1e-6


def test_huge_scores_do_not_overflow(backend):
    loss = SoftmaxCrossEntropy()
    scores = np.array([[1e4, 0.0], [-1e4, 1e4]], "float32")
    assert loss.forward(scores, np.array([1, 1]), backend) == pytest.approx(5000)
    assert loss.backward(backend).tolist() == [[0.5, -0.5], [0, 0]]


def test_no_images_cost_nothing(backend):
    loss = SoftmaxCrossEntropy()
    assert loss.forward(np.zeros((0, 3)), np.zeros(0, int), backend) == 0
    assert loss.backward(backend).shape == (0, 3)


@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), ShapeError, r"labels: values 0\.\.3 do not fit the 3 classes"),
        (np.zeros((2, 3)), np.array([-1, 0]), ShapeError, r"labels: values -1\.\.0 do not fit"),
        (np.zeros((2, 3)), np.array([0]), ShapeError, r"shapes \(2, 3\), \(1,\) are not"),
        (np.zeros((2, 3, 1, 1)), np.array([0, 0]), ShapeError, r"shapes \(2, 3, 1, 1\)"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), DtypeError, "labels: float64 is not an integer type"),
        (np.zeros((2, 3), int), np.array([0, 1]), DtypeError, "scores: dtype int64 is neither"),
    ],
)
def test_wrong_arrays_are_named(backend, scores, labels, error, message):
    with pytest.raises(error, match=message):
        SoftmaxCrossEntropy().forward(scores, labels, backend)


def test_backward_needs_a_forward_pass(backend):
    with pytest.raises(CnnctlError, match="softmax: backward needs a forward pass before it"):
        SoftmaxCrossEntropy().backward(backend)


def test_hinge_by_hand(backend):
    """Margin 1: of the first image one score comes too near, by 1.5; of the second none."""
    loss = Hinge()
    scores = np.array([[1.0, 1.5, -2.0], [3.0, 0.0, 1.0]])
    assert loss.forward(scores, np.array([0, 0]), backend) == 0.75
    assert loss.backward(backend).tolist() == [[-0.5, 0.5, 0], [0, 0, 0]]


def test_squared_error_by_hand(backend):
    loss = SquaredError()
    assert loss.forward(np.array([[0.5, 0.0], [0.0, 2.0]]), np.array([0, 1]), backend) == 0.3125
    assert loss.backward(backend).tolist() == [[-0.25, 0], [0, 0.5]]


@pytest.mark.parametrize(
    "loss",
    [SoftmaxCrossEntropy(0.2, [1, 2, 0.5, 1, 1]), Hinge(0.5), SquaredError()],
    ids=lambda loss: loss.kind,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plan_trains_by_the_networks_loss(backend, loss, dtype):
    network = Network([Linear(5)], (4,), loss=loss, dtype=dtype, seed=3)
    rng = np.random.default_rng(5)
    x, labels = rng.normal(size=(6, 4)).astype(dtype), np.array([0, 4, 2, 3, 3, 1])
    plan = Plan(network, 6, backend, optimizer=SGD(lr=0.5))
    expected, grads = network.loss_and_grads(x, labels, backend)
    result = plan.step(x, labels)
    assert result.loss == pytest.approx(expected, rel=1e-6)
    assert result.correct == (network.forward(x, backend).argmax(axis=1) == labels).sum()
    for key, w in plan.export_params().items():
        np.testing.assert_allclose(w, network.params[key] - 0.5 * grads[key], rtol=1e-5, atol=1e-6)


def test_one_output_is_right_on_its_labels_side_of_a_half(backend):
    network = Network([Linear(1)], (2,), loss=SquaredError(), dtype="float64")
    network.load_params({"linear1.weight": np.array([[1.0, 0.0]]), "linear1.bias": np.zeros(1)})
    x = np.array([[0.9, 0], [0.4, 0], [0.6, 0], [0.1, 0]])
    result = Plan(network, 4, backend).evaluate(x, np.array([1, 0, 0, 1]))
    assert (network.label_count, result.correct) == (2, 2)
    assert result.loss == pytest.approx(0.5 * (0.01 + 0.16 + 0.36 + 0.81) / 4, rel=1e-12)


def test_class_weights_have_to_be_as_many_as_the_scores():
    with pytest.raises(ShapeError, match=r"class_weights: 3 of them where the network's output is \(5,\)"):
        Network([Linear(5)], (4,), loss=SoftmaxCrossEntropy(class_weights=[1, 1, 1]))


@pytest.mark.parametrize(
    "make", [lambda: SoftmaxCrossEntropy(1.0), lambda: Hinge(0), lambda: SoftmaxCrossEntropy(0, [-1, 1])]
)
def test_settings_out_of_range(make):
    with pytest.raises(ConfigError):
        make()
