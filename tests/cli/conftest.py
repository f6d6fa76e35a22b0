"""The command line, run in this process or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from cnnctl.cli.main import main

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """An .npz of 6x6 images of noise in four classes: 48 to train on, 12 to test."""
    rng = np.random.default_rng(5)
    arrays = {}
    for split, count in (("train", 48), ("test", 12)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
        arrays[f"y_{split}"] = rng.permutation(np.arange(count) % 4)
    np.savez(tmp_path / "noise.npz", **arrays)
    return tmp_path / "noise.npz"


@pytest.fixture
def noise_config(noise: Path) -> dict[str, Any]:
    """Two epochs of five steps on them; a test may change it."""
    return {
        "name": "tiny",
        "data": {"dataset": "npz", "path": str(noise), "validation": 8},
        "network": {"layers": [{"linear": 4}]},
        "solver": {"optimizer": "sgd", "epochs": 2, "batch_size": 8},
        "engine": {"backend": "im2col", "threads": 1},
    }


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
