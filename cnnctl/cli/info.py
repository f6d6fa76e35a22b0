"""`cnnctl info`: what this installation is, what it runs on, and how it will use it.

Reads only. What concerns the engine is what a training run records in its env.json.
"""

from typing import Any

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import json_option


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl info",
        "cnnctl info --json",
    ),
)
@json_option
def info(as_json: bool) -> None:
    """Show CPU, kernels, threads, BLAS, versions and build."""
    facts = _collect_facts()
    if as_json:
        display.print_json({"schema": 1, "command": "info", **facts})
        return
    rows = [
        (f"{section} {key}".replace("_", " "), value if value is not None else "none")
        for section, entries in facts.items()
        for key, value in entries.items()
    ]
    display.print_table("", ("what", "value"), rows)


def describe_version() -> str:
    """The version, and on two more lines what was built and what it runs on."""
    import platform
    from importlib.metadata import version

    from cnnctl import __version__

    kernels = _describe_kernels()
    built = kernels.get("reason")
    if kernels["built"]:
        built = f"by {kernels['compiler']}, for {kernels['available']}; {kernels['instruction_set']} is used"
    system = f"Python {platform.python_version()}, numpy {version('numpy')}, {platform.platform()}"
    return f"cnnctl {__version__}\nkernels: {built}\n{system}"


def _collect_facts() -> dict[str, dict[str, Any]]:
    import platform
    import sys
    from importlib.metadata import version

    import numpy as np

    from cnnctl import __version__
    from cnnctl.backends import cpu

    packages = ("numpy", "click", "pydantic", "pyyaml", "safetensors", "pillow")
    return {
        "cpu": {
            "model": cpu.cpu_model(),
            "architecture": platform.machine(),
            "processors_allowed": cpu.allowed_processors(),
            "quota": cpu.cpu_quota(),
            "threads_auto": cpu.available_threads(),
        },
        "kernels": _describe_kernels(),
        "blas": _describe_blas(np),
        "versions": {
            "cnnctl": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "build": {"platform": platform.platform(), "executable": sys.executable},
    }


def _describe_kernels() -> dict[str, Any]:
    """The instruction set `fast` runs, and why; or how to get it built."""
    from cnnctl.backends import create_backend
    from cnnctl.errors import BackendError

    try:
        create_backend("fast")
    except BackendError as error:
        return {"built": False, "reason": str(error)}
    from cnnctl.backends.fast import COMPILER, INSTRUCTION_SETS

    return {
        "built": True,
        "compiler": COMPILER,
        "instruction_set": INSTRUCTION_SETS[-1],
        "reason": "the best of those this processor runs",
        "available": ", ".join(INSTRUCTION_SETS),
    }


def _describe_blas(np: Any) -> dict[str, Any]:
    """The matrix library behind numpy, which the im2col backend uses."""
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))  # some are loaded at first use only
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if not libraries:
        return {"library": "not recognised"}
    first = libraries[0]
    return {
        "library": first["internal_api"],
        "version": first["version"],
        "kernels": first.get("architecture"),
        "threads": first["num_threads"],
    }
