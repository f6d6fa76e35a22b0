"""SGD against its formula written out, and against figures recorded from PyTorch."""

import numpy as np
import pytest

from cnnctl.optim import SGD


@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_follows_the_formula(backend, momentum, nesterov, l2):
    gradients = np.random.default_rng(1).normal(size=(8, 5))
    w = np.array([1.0, -2.0, 0.5, 3.0, 0.0])
    velocity = np.zeros(5)
    expected, v = w.copy(), np.zeros(5)
    optimizer = SGD(0.1, momentum, nesterov)
    for step, dw in enumerate(gradients, start=1):
        g = dw + l2 * expected
        v = momentum * v + g
        expected = expected - 0.1 * (g + momentum * v if nesterov else v)
        optimizer.update(backend, w, dw.copy(), {"velocity": velocity}, step, l2)
        np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("optimizer", "l2", "recorded"),
    [
        (
            SGD(0.1),
            0.0,
            [1.4012630607616214, -0.046035320300000016, -0.8389387264, 0.01813985279999999],
        ),
        (
            SGD(0.1, momentum=0.9),
            0.0,
            [2.310922910669629, 2.7663681664000004, -0.9934001940999998, 1.5500362499999993],
        ),
        (
            SGD(0.1, momentum=0.9, nesterov=True),
            0.0,
            [2.261992453382427, 2.039734514937181, -0.9229588965056473, 0.06667253967289445],
        ),
        (
            SGD(0.1, momentum=0.9, nesterov=True),
            0.05,
            [2.066083977932696, 1.9262876510497724, -0.8819203511448926, 0.0555875464746071],
        ),
    ],
)
def test_ten_steps_in_a_bowl_end_where_pytorch_ends(backend, optimizer, l2, recorded):
    """L = sum of 0.5 a (w - c)^2; figures of torch.optim.SGD, PyTorch 2.13, float64."""
    a, c = np.array([0.5, 1.0, 2.0, 4.0]), np.array([2.0, 1.0, -1.0, 0.0])
    w = np.array([1.0, -2.0, 0.5, 3.0])
    slots = {"velocity": np.zeros(4)}
    for step in range(1, 11):
        optimizer.update(backend, w, a * (w - c), slots, step, l2)
    np.testing.assert_allclose(w, recorded, rtol=1e-11)
