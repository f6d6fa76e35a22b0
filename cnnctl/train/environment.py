"""Where a run takes place: versions, processor, and what bit-for-bit equality rests on.

Describes only; nothing here changes how a run behaves.
"""

import os
import platform
import subprocess
import sys

import numpy as np

import cnnctl
from cnnctl.backends.base import Backend
from cnnctl.backends.cpu import cpu_model


def describe_engine(backend: Backend, dtype: str) -> dict[str, str]:
    """What must stay the same for a resumed run to equal an unbroken one to the last bit."""
    return {
        "backend": backend.name,
        "dtype": dtype,
        "instruction_set": read_instruction_set(backend),
        "cpu": cpu_model(),
        "cnnctl": cnnctl.__version__,
        "numpy": np.__version__,
    }


def describe_environment(backend: Backend, dtype: str) -> dict[str, object]:
    """What env.json holds: the engine, and what helps to repeat or to understand a run."""
    return {
        **describe_engine(backend, dtype),
        "threads": backend.threads,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_revision": read_git_revision(),
        "working_directory": os.getcwd(),
        "command": sys.argv,
    }


def read_instruction_set(backend: Backend) -> str:
    """What the kernels were compiled for; numpy chooses for itself, so there the machine's name."""
    if backend.name != "fast":
        return platform.machine()
    from cnnctl.backends.fast import INSTRUCTION_SETS

    return getattr(backend, "isa", None) or INSTRUCTION_SETS[-1]


def read_git_revision() -> str | None:
    """The commit checked out in the working directory; None where there is no git or no commit."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
