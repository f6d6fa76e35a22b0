"""Analytic against numerical gradients in float64, kept clear of kinks, at 1e-7 of the largest."""

from collections.abc import Callable

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, Sandwich
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


def test_relu(backend: Backend, rng: np.random.Generator) -> None:
    x = rng.uniform(0.1, 1, (3, 7)) * rng.choice([-1, 1], (3, 7))
    dy = rng.standard_normal((3, 7))
    dx = backend.relu_backward(dy, backend.relu_forward(x))
    assert_is_gradient(dx, lambda x: float(np.sum(backend.relu_forward(x) * dy)), x)


def test_softmax_cross_entropy(backend: Backend, rng: np.random.Generator) -> None:
    scores, labels = rng.standard_normal((3, 5)), np.array([4, 0, 2])
    _, p = backend.softmax_cross_entropy_forward(scores, labels)
    dscores = backend.softmax_cross_entropy_backward(p, labels)
    assert_is_gradient(dscores, lambda s: backend.softmax_cross_entropy_forward(s, labels)[0], scores)


def test_conv_relu_pool(backend: Backend, rng: np.random.Generator) -> None:
    sandwich = Sandwich(Window.create(3, 1, 1), activation="relu", pool=Window.create(2, 2))
    x, w, b = rng.standard_normal((1, 2, 4, 4)), rng.standard_normal((2, 2, 3, 3)), rng.standard_normal(2)
    before_relu = backend.conv_forward(x, w, b, sandwich.window)
    assert np.diff(np.sort(np.append(before_relu, 0))).min() > 100 * STEP, "too near a kink"
    y, index = backend.conv_sandwich_forward(x, w, b, sandwich)
    dy = rng.standard_normal(y.shape)

    def compute_loss(x: Array, w: Array, b: Array) -> float:
        return float(np.sum(backend.conv_sandwich_forward(x, w, b, sandwich)[0] * dy))

    dx, dw, db = backend.conv_sandwich_backward(dy, x, w, y, index, sandwich)
    assert_is_gradient(dx, lambda x: compute_loss(x, w, b), x)
    assert_is_gradient(dw, lambda w: compute_loss(x, w, b), w)
    assert_is_gradient(db, lambda b: compute_loss(x, w, b), b)
