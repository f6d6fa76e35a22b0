"""What all tests share: a generator of their own, steady properties, a visible skip without data."""

import os
import zlib

import hypothesis
import numpy as np
import pytest

# The same examples in every run, and no clock: the cores may be busy with something else.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("steady")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name alone: no seed to choose, none to share."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("data") and not os.environ.get("CNNCTL_DATA_DIR"):
        pytest.skip("CNNCTL_DATA_DIR is not set: no real images here")
