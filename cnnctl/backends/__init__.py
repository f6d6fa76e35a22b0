"""Backends: three implementations of the one contract in `base`.

`create_backend` is the only door. It loads what was asked for or says how to get it.
"""

from importlib import import_module
from typing import Any

from cnnctl.backends.base import Backend
from cnnctl.errors import BackendError, ConfigError, describe_alternatives

_CLASSES = {"naive": "NaiveBackend", "im2col": "Im2colBackend", "fast": "FastBackend"}
BACKENDS = tuple(_CLASSES)


def create_backend(name: str, threads: int = 1, **settings: Any) -> Backend:
    """The backend called `name`, allowed that many threads.

    `settings` are the backend's own: `isa` and `exact` of `FastBackend`. Raises ConfigError for an
    unknown name or a setting out of range, TypeError for a setting it does not have, and
    BackendError for a backend that is not built.
    """
    if name not in _CLASSES:
        raise ConfigError(f"backend: {name!r} is not known; {describe_alternatives(name, BACKENDS)}")
    try:
        module = import_module(f"cnnctl.backends.{name}")
    except ImportError as error:
        raise BackendError(
            f"backend: {name} is not built beside these Python files ({error}); "
            f"in the checkout, run: pip install -e ."
        ) from error
    backend: Backend = getattr(module, _CLASSES[name])(threads=threads, **settings)
    return backend
