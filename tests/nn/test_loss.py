"""Softmax cross-entropy: known values, gradients, stability and errors."""

from math import log

import numpy as np
import pytest

from cnnctl.errors import CnnctlError, DtypeError, ShapeError
from cnnctl.nn import SoftmaxCrossEntropy


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
