"""Every test here that asks for `backend` runs on all of them; one that is not built fails."""

import pytest

from cnnctl.backends import BACKENDS, create_backend
from cnnctl.backends.base import Backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return create_backend(request.param)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
