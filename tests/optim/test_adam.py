"""Adam against its formula written out, and against figures recorded from PyTorch."""

import numpy as np
import pytest

from cnnctl.optim import Adam


@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize(("beta1", "beta2", "eps"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-2), (0.0, 0.0, 1e-8)])
def test_follows_the_formula(backend, beta1, beta2, eps, l2):
    gradients = np.random.default_rng(2).normal(size=(8, 5))
    w = np.array([1.0, -2.0, 0.5, 3.0, 0.1])
    slots = {"m": np.zeros(5), "v": np.zeros(5)}
    expected, m, v = w.copy(), np.zeros(5), np.zeros(5)
    optimizer = Adam(0.1, beta1, beta2, eps)
    for t, dw in enumerate(gradients, start=1):
        g = dw + l2 * expected
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        expected = expected - 0.1 * m_hat / (np.sqrt(v_hat) + eps)
        optimizer.update(backend, w, dw.copy(), slots, t, l2)
        np.testing.assert_allclose(w, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("optimizer", "l2", "recorded"),
    [
        (
            Adam(0.1),
            0.0,
            [1.923750829354559, -1.0141884113604451, -0.4620465856605836, 2.0141884087452095],
        ),
        (
            Adam(0.1, beta1=0.8, beta2=0.99, eps=1e-3),
            0.0,
            [1.882608633506882, -1.025848533175409, -0.43701509792083765, 2.0255933738567924],
        ),
        (
            Adam(0.1),
            0.05,
            [1.8878220917975175, -1.0144838819978543, -0.4610422562016031, 2.014188408734447],
        ),
    ],
)
def test_ten_steps_in_a_bowl_end_where_pytorch_ends(backend, optimizer, l2, recorded):
    """L = sum of 0.5 a (w - c)^2; figures of torch.optim.Adam, PyTorch 2.13, float64."""
    a, c = np.array([0.5, 1.0, 2.0, 4.0]), np.array([2.0, 1.0, -1.0, 0.0])
    w = np.array([1.0, -2.0, 0.5, 3.0])
    slots = {"m": np.zeros(4), "v": np.zeros(4)}
    for step in range(1, 11):
        optimizer.update(backend, w, a * (w - c), slots, step, l2)
    np.testing.assert_allclose(w, recorded, rtol=1e-11)


def test_the_first_step_has_length_lr_whatever_the_gradient(backend):
    w, dw = np.zeros(3), np.array([1e-3, -5.0, 1e4])
    Adam(lr=0.25).update(backend, w, dw, {"m": np.zeros(3), "v": np.zeros(3)}, step=1, l2=0.0)
    np.testing.assert_allclose(w, [-0.25, 0.25, -0.25], rtol=1e-4)
