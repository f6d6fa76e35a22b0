"""Under what conditions something was measured: what figures cannot be compared without."""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from cnnctl.backends.base import Backend
from cnnctl.train.environment import describe_engine

Conditions = Mapping[str, str | float | None]


def describe_conditions(backend: Backend, dtype: str) -> Conditions:
    """Engine, processor and versions, PyTorch's too, and how busy the machine was just now.

    The load average is that of the last minute: above 0 something else was running, or this.
    """
    try:
        torch: str | None = version("torch")
    except PackageNotFoundError:
        torch = None
    return {**describe_engine(backend, dtype), "torch": torch, "load_average": os.getloadavg()[0]}
