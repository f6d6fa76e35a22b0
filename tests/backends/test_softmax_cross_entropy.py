"""Softmax cross-entropy: known losses, bounded rounding, gradients, and scores that overflow exp."""

from math import exp, fsum, log

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from tests.backends.direct import cast
from tests.hostile_shapes import TAILS

SHAPES = [(1, 1), (5, 10), *[(3, K) for K in TAILS], *[(N, 4) for N in TAILS]]


def compute_softmax(scores: Array, labels: Array) -> tuple[float, Array]:
    """Loss and p in Python floats, from the definition."""
    rows, losses = [], []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        exps = [exp(score - max(row)) for score in row]
        rows.append([value / fsum(exps) for value in exps])
        losses.append(log(fsum(exps)) + max(row) - row[label])
    return fsum(losses) / len(losses), np.array(rows)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1, 30])
def test_rounding_is_bounded(
    backend: Backend, shape: tuple[int, int], scale: float, dtype: str, rng: np.random.Generator
) -> None:
    """exp passes on the rounding of its argument, at most u times the spread of the scores."""
    N, K = shape
    (scores,) = cast(dtype, scale * rng.standard_normal(shape))
    labels = rng.integers(K, size=N)
    loss, p = backend.softmax_cross_entropy_forward(scores, labels)
    expected_loss, expected_p = compute_softmax(scores, labels)
    tolerance = float(np.finfo(dtype).eps) * (K + N + 8 + 2 * float(np.ptp(scores)))
    assert isinstance(loss, float)
    assert p.dtype == dtype
    assert loss == pytest.approx(expected_loss, rel=tolerance, abs=tolerance)
    np.testing.assert_allclose(p, expected_p, rtol=tolerance, atol=float(np.finfo(dtype).tiny))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_is_p_minus_the_label(
    backend: Backend, shape: tuple[int, int], dtype: str, rng: np.random.Generator
) -> None:
    N, K = shape
    (p,) = cast(dtype, rng.dirichlet(np.ones(K), size=N))
    labels = rng.integers(K, size=N)
    dscores = backend.softmax_cross_entropy_backward(p, labels)
    expected = (p.astype(np.float64) - np.eye(K)[labels]) / N
    assert dscores.dtype == dtype
    np.testing.assert_allclose(dscores, expected, rtol=0, atol=2 * float(np.finfo(dtype).eps) / N)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_equal_scores_lose_log_c(backend: Backend, classes: int, dtype: str) -> None:
    scores, labels = np.full((4, classes), 3, dtype), np.arange(4) % classes
    loss, p = backend.softmax_cross_entropy_forward(scores, labels)
    assert loss == pytest.approx(log(classes), rel=1e-5)
    np.testing.assert_allclose(p, 1 / classes, rtol=1e-5)


def test_scores_that_overflow_exp_lose_their_distance(backend: Backend, dtype: str) -> None:
    """p of the label underflows to 0, its logarithm does not: the loss stays finite."""
    (scores,) = cast(dtype, [[1e4, 0], [-1e4, 0], [0, 1e4]])
    loss, p = backend.softmax_cross_entropy_forward(scores, np.array([0, 0, 0]))
    assert loss == pytest.approx(2e4 / 3, rel=1e-6)
    np.testing.assert_array_equal(p, [[1, 0], [0, 1], [0, 1]])


def test_no_images_lose_nothing(backend: Backend, dtype: str) -> None:
    scores, labels = np.zeros((0, 5), dtype), np.zeros(0, np.int64)
    loss, p = backend.softmax_cross_entropy_forward(scores, labels)
    assert loss == 0
    assert p.shape == backend.softmax_cross_entropy_backward(p, labels).shape == (0, 5)


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_special_score_spoils_its_row_and_the_loss(backend: Backend, special: float, dtype: str) -> None:
    for column in range(5):
        scores = np.zeros((3, 5), dtype)
        scores[1, column] = special
        loss, p = backend.softmax_cross_entropy_forward(scores, np.array([0, 1, 2]))
        assert np.isnan(loss)
        assert np.isnan(p[1]).any()
        np.testing.assert_allclose(p[[0, 2]], 0.2, rtol=1e-6)


def test_minus_infinity_is_a_class_that_cannot_be(backend: Backend, dtype: str) -> None:
    scores = np.array([[0, -np.inf, 0]], dtype)
    loss, p = backend.softmax_cross_entropy_forward(scores, np.array([2]))
    assert loss == pytest.approx(log(2), rel=1e-6)
    np.testing.assert_array_equal(p, [[0.5, 0, 0.5]])


@pytest.mark.parametrize("label_dtype", ["uint8", "int8", "int32", "uint32", "int64", "uint64", ">i4"])
def test_labels_of_any_integer_type(backend: Backend, label_dtype: str) -> None:
    scores, labels = np.eye(4), np.array([3, 0, 1, 2])
    expected_loss, expected_p = backend.softmax_cross_entropy_forward(scores, labels)
    expected = backend.softmax_cross_entropy_backward(expected_p, labels)
    loss, p = backend.softmax_cross_entropy_forward(scores, labels.astype(label_dtype))
    assert loss == expected_loss
    np.testing.assert_array_equal(p, expected_p)
    np.testing.assert_array_equal(
        backend.softmax_cross_entropy_backward(p, labels.astype(label_dtype)), expected
    )
