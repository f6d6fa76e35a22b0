"""What the tests of optimizers share: every backend, each of which has to be built."""

import pytest

from cnnctl.backends import BACKENDS, create_backend
from cnnctl.backends.base import Backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return create_backend(request.param)
