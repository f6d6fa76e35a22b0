"""What the courses' tests share: their global generator, seeded and put back."""

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _global_generator() -> Iterator[None]:
    """The courses draw from numpy's global generator; no test may see or leave another's state."""
    state = np.random.get_state()
    np.random.seed(231)
    yield
    np.random.set_state(state)
