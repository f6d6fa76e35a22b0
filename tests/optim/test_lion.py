"""Lion, which PyTorch has not: against its algorithm written out element by element."""

import numpy as np
import pytest

from cnnctl.optim import Lion


def sign(c):
    return int(c > 0) - int(c < 0)


@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", [Lion(0.1), Lion(0.1, 0.5, 0.8, 0.3)])
def test_follows_the_algorithm(backend, optimizer, l2):
    """Chen et al. 2023, algorithm 2: the step is taken before the momentum moves."""
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    gradients = np.random.default_rng(4).normal(size=(100, 5))
    w, m = np.array([1.0, -2.0, 0.5, 3.0, 0.1]), np.zeros(5)
    slots = {"m": np.zeros(5)}
    expected = w.copy()
    for step, dw in enumerate(gradients, start=1):
        for i in range(5):
            g = dw[i] + l2 * expected[i]
            direction = sign(beta1 * m[i] + (1 - beta1) * g)
            expected[i] -= optimizer.lr * (direction + optimizer.weight_decay * expected[i])
            m[i] = beta2 * m[i] + (1 - beta2) * g
        optimizer.update(backend, w, dw.copy(), slots, step, l2)
    np.testing.assert_allclose(w, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(slots["m"], m, rtol=0, atol=1e-12)


def test_every_step_has_length_lr(backend):
    w, dw = np.zeros(4), np.array([1e-300, -5.0, 1e4, 0.0])
    Lion(lr=0.25).update(backend, w, dw, {"m": np.zeros(4)}, step=1, l2=0.0)
    np.testing.assert_array_equal(w, [-0.25, 0.25, -0.25, 0.0])
