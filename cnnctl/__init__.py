"""Train, check and time convolutional networks on the CPU.

    import cnnctl
    run = cnnctl.train("configs/quickstart.yaml")
    print(run.test.accuracy)

Names are loaded when they are first used, so that importing this costs nothing.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnctl.backends import create_backend
    from cnnctl.check.gradcheck import gradcheck
    from cnnctl.config import load_config
    from cnnctl.data import load_dataset
    from cnnctl.nn import Conv, Flatten, Linear, MaxPool, Network, ReLU
    from cnnctl.nn.plan import Plan
    from cnnctl.optim import SGD, Adam
    from cnnctl.train.api import Run, evaluate, predict, train

    __version__: str

_HOMES = {
    "Adam": "cnnctl.optim",
    "Conv": "cnnctl.nn",
    "Flatten": "cnnctl.nn",
    "Linear": "cnnctl.nn",
    "MaxPool": "cnnctl.nn",
    "Network": "cnnctl.nn",
    "Plan": "cnnctl.nn.plan",
    "ReLU": "cnnctl.nn",
    "Run": "cnnctl.train.api",
    "SGD": "cnnctl.optim",
    "create_backend": "cnnctl.backends",
    "evaluate": "cnnctl.train.api",
    "gradcheck": "cnnctl.check.gradcheck",
    "load_config": "cnnctl.config",
    "load_dataset": "cnnctl.data",
    "predict": "cnnctl.train.api",
}

__all__ = [
    "SGD",
    "Adam",
    "Conv",
    "Flatten",
    "Linear",
    "MaxPool",
    "Network",
    "Plan",
    "ReLU",
    "Run",
    "__version__",
    "create_backend",
    "evaluate",
    "gradcheck",
    "load_config",
    "load_dataset",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "train":  # both a room and a function: the room can be called
        return import_module("cnnctl.train")
    if name == "__version__":
        return _read_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _read_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cnnctl")
    except PackageNotFoundError:  # run from a source tree
        return "0+uninstalled"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
