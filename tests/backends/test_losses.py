"""Losses in full: smoothing and class weights of cross-entropy, the hinge, squared error.

Against their definitions in Python floats, and against figures recorded from PyTorch 2.13.
"""

from math import exp, fsum, log

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError, ShapeError
from tests.hostile_shapes import TAILS

SHAPES = [(1, 2), (5, 10), *[(3, K) for K in TAILS if K > 1]]


def draw_case(rng: np.random.Generator, shape: tuple[int, int], dtype: str) -> tuple[Array, Array]:
    return rng.standard_normal(shape).astype(dtype), rng.integers(shape[1], size=shape[0])


def compute_cross_entropy(scores: Array, labels: Array, smoothing: float, weights: Array) -> float:
    """sum of t (-log p) over sum of w[label]."""
    terms = []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        log_sum = log(fsum(map(exp, row)))
        for k, score in enumerate(row):
            share = (1 - smoothing) * (k == label) + smoothing / len(row)
            terms.append(share * float(weights[k]) * (log_sum - score))
    return fsum(terms) / fsum(float(weights[label]) for label in labels)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_its_definition(
    backend: Backend,
    shape: tuple[int, int],
    smoothing: float,
    weighted: bool,
    dtype: str,
    rng: np.random.Generator,
) -> None:
    scores, labels = draw_case(rng, shape, dtype)
    weights = rng.random(shape[1]).astype(dtype) if weighted else None
    loss, p = backend.softmax_cross_entropy_forward(scores, labels, smoothing, weights)
    w = np.ones(shape[1]) if weights is None else weights
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    assert loss == pytest.approx(compute_cross_entropy(scores, labels, smoothing, w), rel=tolerance)
    dscores = backend.softmax_cross_entropy_backward(p, labels, smoothing, weights)
    t = smoothing / shape[1] * np.tile(w, (shape[0], 1))
    t[np.arange(shape[0]), labels] += (1 - smoothing) * w[labels]
    expected = (p * t.sum(axis=1, keepdims=True) - t) / w[labels].sum()
    assert dscores.dtype == dtype
    np.testing.assert_allclose(dscores, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("margin", [1.0, 0.25])
def test_hinge_is_its_definition(
    backend: Backend, shape: tuple[int, int], margin: float, dtype: str, rng: np.random.Generator
) -> None:
    scores, labels = draw_case(rng, shape, dtype)
    total = 0.0
    expected = np.zeros(shape)
    for n, label in enumerate(labels):
        for k in set(range(shape[1])) - {int(label)}:
            excess = float(scores[n, k]) - float(scores[n, label]) + margin
            if excess > 0:
                total += excess
                expected[n, k] += 1 / shape[0]
                expected[n, label] -= 1 / shape[0]
    assert backend.hinge_forward(scores, labels, margin) == pytest.approx(total / shape[0], rel=1e-5)
    np.testing.assert_allclose(backend.hinge_backward(scores, labels, margin), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_squared_error_is_its_definition(
    backend: Backend, shape: tuple[int, int], dtype: str, rng: np.random.Generator
) -> None:
    scores, labels = draw_case(rng, shape, dtype)
    away = scores.astype(np.float64) - np.eye(shape[1])[labels]
    expected = 0.5 * fsum(np.square(away).ravel()) / shape[0]
    assert backend.squared_error_forward(scores, labels) == pytest.approx(expected, rel=1e-5)
    tolerance = 4 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(
        backend.squared_error_backward(scores, labels), away / shape[0], rtol=tolerance, atol=tolerance
    )


def test_a_single_output_is_held_against_the_label_itself(backend: Backend, dtype: str) -> None:
    scores, labels = np.array([[0.75], [0.25]], dtype), np.array([0, 1])
    assert backend.squared_error_forward(scores, labels) == 0.5 * (0.75**2 + 0.75**2) / 2
    np.testing.assert_array_equal(backend.squared_error_backward(scores, labels), [[0.375], [-0.375]])
    with pytest.raises(ShapeError, match=r"labels: values 0\.\.2 do not fit the 2 classes"):
        backend.squared_error_forward(scores, np.array([0, 2]))


SCORES = np.array([[0.5, -1.25, 2.0], [1.5, 0.25, -0.5], [-2.0, 3.0, 0.75]])
LABELS = np.array([2, 0, 0])
RECORDED = {
    "smoothing 0.1": 1.8997302413930484,
    "weights": 2.2298185597179185,
    "smoothing 0.1 and weights": 2.274076715318931,
    "hinge": 1.0833333333333333,
}
"""By torch.nn.functional: cross_entropy (weights 1, 2, 0.5) and multi_margin_loss."""


def test_pytorch_gives_the_same(backend: Backend) -> None:
    weights = np.array([1.0, 2.0, 0.5])
    found = {
        "smoothing 0.1": backend.softmax_cross_entropy_forward(SCORES, LABELS, 0.1)[0],
        "weights": backend.softmax_cross_entropy_forward(SCORES, LABELS, 0.0, weights)[0],
        "smoothing 0.1 and weights": backend.softmax_cross_entropy_forward(SCORES, LABELS, 0.1, weights)[0],
        "hinge": backend.hinge_forward(SCORES, LABELS) / 3,
    }
    assert found == pytest.approx(RECORDED, rel=1e-14)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "hinge", "squared_error"])
def test_no_images_lose_nothing(backend: Backend, loss: str, dtype: str) -> None:
    scores, labels = np.zeros((0, 5), dtype), np.zeros(0, np.int64)
    found = getattr(backend, f"{loss}_forward")(scores, labels)
    assert (found[0] if isinstance(found, tuple) else found) == 0
    assert getattr(backend, f"{loss}_backward")(scores, labels).shape == (0, 5)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(4), ShapeError, r"class_weights: shape \(4,\) where \(3,\) is needed"),
        (np.array([1.0, -1.0, 1.0]), ConfigError, "are not numbers of at least 0"),
        (np.array([1.0, np.nan, 1.0]), ConfigError, "are not numbers of at least 0"),
        (np.zeros(3), ConfigError, "with one above it"),
    ],
)
def test_weights_that_do_not_fit(
    backend: Backend, weights: Array, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        backend.softmax_cross_entropy_forward(SCORES, LABELS, 0.0, weights)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, np.nan])
def test_smoothing_out_of_range(backend: Backend, smoothing: float) -> None:
    with pytest.raises(ConfigError, match=r"smoothing: .* is not a number in \[0, 1\)"):
        backend.softmax_cross_entropy_forward(SCORES, LABELS, smoothing)


@pytest.mark.parametrize("margin", [0.0, -1.0, np.inf])
def test_a_margin_out_of_range(backend: Backend, margin: float) -> None:
    with pytest.raises(ConfigError, match=r"margin: .* is not a number in \(0, inf\)"):
        backend.hinge_forward(SCORES, LABELS, margin)
