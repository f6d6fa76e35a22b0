"""Training: from a config to a run directory, and from there on.

The room can be called: `cnnctl.train(...)` is `cnnctl.train.api.train(...)`, because the
import system puts this module where one expects the function. Draws no progress, parses no
command line.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnctl.train.api import Run


class _Room(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> "Run":
        """Train a network: see `cnnctl.train.api.train`."""
        from cnnctl.train.api import train

        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
