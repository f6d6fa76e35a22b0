"""The command line, run in this process or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cnnctl.cli.main import main

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`cnnctl` with these arguments, in this process: quick, and patches are seen."""

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def run_process() -> Callable[..., Outcome]:
    """`python -m cnnctl` with these arguments and environment variables; stdout can be a file."""

    def run(*args: object, stdout: int = subprocess.PIPE, **variables: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "cnnctl", *map(str, args)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            text=True,
            timeout=60,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
