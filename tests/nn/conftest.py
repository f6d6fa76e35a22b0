"""What the tests of networks share: every backend (each has to be built), and gradients by differences."""

from collections.abc import Callable

import numpy as np
import pytest

from cnnctl.backends import BACKENDS, create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return create_backend(request.param)


@pytest.fixture
def numerical_gradient() -> Callable[[Callable[[], float], Array], Array]:
    """df/dx by central differences: (f, x, step=1e-5), where f reads the array x, changed in place."""

    def differentiate(f: Callable[[], float], x: Array, step: float = 1e-5) -> Array:
        gradient = np.empty_like(x)
        for at in np.ndindex(x.shape):
            value = x[at]
            x[at] = value + step
            above = f()
            x[at] = value - step
            below = f()
            x[at] = value
            gradient[at] = (above - below) / (2 * step)
        return gradient

    return differentiate


@pytest.fixture
def relative_error() -> Callable[[Array, Array], float]:
    """max |a - b| / max(1e-8, |a| + |b|), element by element."""

    def compare(a: Array, b: Array) -> float:
        return float((abs(a - b) / np.maximum(1e-8, abs(a) + abs(b))).max())

    return compare
