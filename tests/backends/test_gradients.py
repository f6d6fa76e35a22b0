"""Analytic against numerical gradients in float64, kept clear of kinks, at 1e-7 of the largest."""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Activation, Array, Pool, Sandwich
from cnnctl.geometry import Window

STEP = 1e-5


def compute_numerical_gradient(loss: Callable[[Array], float], array: Array) -> Array:
    """Central differences: (loss(a + h) - loss(a - h)) / 2h for every element."""
    gradient = np.empty(array.shape)
    for position in np.ndindex(array.shape):
        above, below = array.copy(), array.copy()
        above[position] += STEP
        below[position] -= STEP
        gradient[position] = (loss(above) - loss(below)) / (2 * STEP)
    return gradient


def assert_is_gradient(actual: Array | None, loss: Callable[[Array], float], array: Array) -> None:
    expected = compute_numerical_gradient(loss, array)
    largest = np.abs(expected).max()
    assert actual is not None
    assert largest > 0.1
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-7 * largest)


@pytest.mark.parametrize(
    ("window", "groups"),
    [
        (Window.create(3, 1, 1), 1),
        (Window.create((2, 3), 2, ((1, 0), (0, 2))), 1),
        (Window.create(2, 1, 1, 2), 2),
    ],
    ids=["plain", "stride and uneven padding", "dilation and groups"],
)
def test_conv(backend: Backend, window: Window, groups: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 2, 4, 5))
    w = rng.standard_normal((2, 2 // groups, *window.kernel))
    b = rng.standard_normal(2)
    dy = rng.standard_normal((2, 2, *window.output_size(4, 5)))

    def compute_loss(x: Array, w: Array, b: Array) -> float:
        return float(np.sum(backend.conv_forward(x, w, b, window, groups) * dy))

    dx, dw, db = backend.conv_backward(dy, x, w, window, groups)
    assert_is_gradient(dx, lambda x: compute_loss(x, w, b), x)
    assert_is_gradient(dw, lambda w: compute_loss(x, w, b), w)
    assert_is_gradient(db, lambda b: compute_loss(x, w, b), b)


@pytest.mark.parametrize("window", [Window.create(2, 2), Window.create(3, 2, 1)], ids=["2x2", "overlapping"])
def test_maxpool(backend: Backend, window: Window, rng: np.random.Generator) -> None:
    x = rng.permutation(np.linspace(-1, 1, 2 * 2 * 4 * 4)).reshape(2, 2, 4, 4)  # 0.03 between neighbours
    y, index = backend.maxpool_forward(x, window)
    dy = rng.standard_normal(y.shape)
    dx = backend.maxpool_backward(dy, index, (2, 2, 4, 4), window)
    assert_is_gradient(dx, lambda x: float(np.sum(backend.maxpool_forward(x, window)[0] * dy)), x)


def test_linear(backend: Backend, rng: np.random.Generator) -> None:
    x, w, b = rng.standard_normal((3, 5)), rng.standard_normal((4, 5)), rng.standard_normal(4)
    dy = rng.standard_normal((3, 4))

    def compute_loss(x: Array, w: Array, b: Array) -> float:
        return float(np.sum(backend.linear_forward(x, w, b) * dy))

    dx, dw, db = backend.linear_backward(dy, x, w)
    assert_is_gradient(dx, lambda x: compute_loss(x, w, b), x)
    assert_is_gradient(dw, lambda w: compute_loss(x, w, b), w)
    assert_is_gradient(db, lambda b: compute_loss(x, w, b), b)


@pytest.mark.parametrize(
    "window",
    [Window.create(2, 2), Window.create(3, 2, 1), Window.create(4)],
    ids=["2x2", "overlapping", "all"],
)
def test_avgpool(backend: Backend, window: Window, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 2, 4, 4))
    dy = 4 * rng.standard_normal((2, 2, *window.output_size(4, 4)))
    dx = backend.avgpool_backward(dy, (2, 2, 4, 4), window)
    assert_is_gradient(dx, lambda x: float(np.sum(backend.avgpool_forward(x, window) * dy)), x)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activation(backend: Backend, activation: Activation, rng: np.random.Generator) -> None:
    x = rng.uniform(0.1, 3, (3, 7)) * rng.choice([-1, 1], (3, 7))
    dy = rng.standard_normal((3, 7))
    dx = backend.activation_backward(dy, x, backend.activation_forward(x, activation), activation)
    assert_is_gradient(dx, lambda x: float(np.sum(backend.activation_forward(x, activation) * dy)), x)


@pytest.mark.parametrize("shape", [(3, 2, 3, 2), (5, 3)], ids=["images", "vectors"])
def test_batchnorm(backend: Backend, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Through the batch's own mean and variance."""
    x, dy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))

    def compute_loss(x: Array, gamma: Array, beta: Array) -> float:
        return float(np.sum(backend.batchnorm_forward(x, gamma, beta, 1e-3)[0] * dy))

    _, mean, var = backend.batchnorm_forward(x, gamma, beta, 1e-3)
    dx, dgamma, dbeta = backend.batchnorm_backward(dy, x, gamma, mean, var, 1e-3)
    assert_is_gradient(dx, lambda x: compute_loss(x, gamma, beta), x)
    assert_is_gradient(dgamma, lambda gamma: compute_loss(x, gamma, beta), gamma)
    assert_is_gradient(dbeta, lambda beta: compute_loss(x, gamma, beta), beta)


@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 6, 2, 3), 2), ((2, 4, 3, 2), 1), ((2, 3, 2, 3), 3), ((3, 8), 2)], ids=str
)
def test_groupnorm(backend: Backend, shape: tuple[int, ...], groups: int, rng: np.random.Generator) -> None:
    """Through the image's own mean and variance."""
    x, dy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))

    def compute_loss(x: Array, gamma: Array, beta: Array) -> float:
        return float(np.sum(backend.groupnorm_forward(x, gamma, beta, groups, 1e-3)[0] * dy))

    _, mean, var = backend.groupnorm_forward(x, gamma, beta, groups, 1e-3)
    dx, dgamma, dbeta = backend.groupnorm_backward(dy, x, gamma, mean, var, groups, 1e-3)
    assert_is_gradient(dx, lambda x: compute_loss(x, gamma, beta), x)
    assert_is_gradient(dgamma, lambda gamma: compute_loss(x, gamma, beta), gamma)
    assert_is_gradient(dbeta, lambda beta: compute_loss(x, gamma, beta), beta)


@pytest.mark.parametrize("shape", [(3, 2, 3, 2), (5, 3)], ids=["images", "vectors"])
def test_scale(backend: Backend, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((2, *shape))
    w, b = rng.standard_normal((2, shape[1]))
    dx, dw, db = backend.scale_backward(dy, x, w)
    assert_is_gradient(dx, lambda x: float(np.sum(backend.scale_forward(x, w, b) * dy)), x)
    assert_is_gradient(dw, lambda w: float(np.sum(backend.scale_forward(x, w, b) * dy)), w)
    assert_is_gradient(db, lambda b: float(np.sum(backend.scale_forward(x, w, b) * dy)), b)


@pytest.mark.parametrize(("size", "beta"), [(3, 0.75), (4, 0.6), (1, 1.0)])
def test_lrn(backend: Backend, size: int, beta: float, rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((2, 2, 5, 2, 2))
    dx = backend.lrn_backward(dy, x, size, 0.8, beta, 1.2)
    assert_is_gradient(dx, lambda x: float(np.sum(backend.lrn_forward(x, size, 0.8, beta, 1.2) * dy)), x)


@pytest.mark.parametrize("spatial", [False, True])
def test_dropout(backend: Backend, spatial: bool, rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((2, 3, 4, 2, 2))
    dx = backend.dropout(dy, 0.4, 9, spatial)
    assert_is_gradient(dx, lambda x: float(np.sum(backend.dropout(x, 0.4, 9, spatial) * dy)), x)


def test_softmax_cross_entropy(backend: Backend, rng: np.random.Generator) -> None:
    scores, labels = rng.standard_normal((3, 5)), np.array([4, 0, 2])
    _, p = backend.softmax_cross_entropy_forward(scores, labels)
    dscores = backend.softmax_cross_entropy_backward(p, labels)
    assert_is_gradient(dscores, lambda s: backend.softmax_cross_entropy_forward(s, labels)[0], scores)


def test_conv_relu_pool(backend: Backend, rng: np.random.Generator) -> None:
    pool = Pool("max", Window.create(2, 2))
    sandwich = Sandwich(Window.create(3, 1, 1), activation="relu", pool=pool)
    x, w, b = rng.standard_normal((1, 2, 4, 4)), rng.standard_normal((2, 2, 3, 3)), rng.standard_normal(2)
    before_relu = backend.conv_forward(x, w, b, sandwich.window)
    assert np.diff(np.sort(np.append(before_relu, 0))).min() > 100 * STEP, "too near a kink"
    outputs = backend.conv_sandwich_forward(x, w, b, sandwich)
    dy = rng.standard_normal(outputs.y.shape)

    def compute_loss(x: Array, w: Array, b: Array) -> float:
        return float(np.sum(backend.conv_sandwich_forward(x, w, b, sandwich).y * dy))

    dx, dw, db, *_ = backend.conv_sandwich_backward(dy, x, w, outputs, sandwich)
    assert_is_gradient(dx, lambda x: compute_loss(x, w, b), x)
    assert_is_gradient(dw, lambda w: compute_loss(x, w, b), w)
    assert_is_gradient(db, lambda b: compute_loss(x, w, b), b)
