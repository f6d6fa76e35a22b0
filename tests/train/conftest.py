"""A run so small that a test can afford dozens: 8x8 images, 4 classes, 3 epochs of 7 steps."""

import hashlib
import signal
from copy import deepcopy

import pytest

from cnnctl.nn.plan import Plan
from cnnctl.train.api import train
from tests.quarters import write_quarters


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """An .npz of images whose class is the quarter that is bright."""
    return write_quarters(tmp_path_factory.mktemp("data") / "quarters.npz")


@pytest.fixture(scope="session")
def pristine_config(images):
    """64 images to train on in batches of 10, the last one of 4; 16 held out."""
    return {
        "name": "tiny",
        "data": {"dataset": "npz", "path": str(images), "validation": 16, "augment": {"shift": 1}},
        "network": {"layers": [{"conv": {"filters": 3, "kernel": 3}}, "relu", {"maxpool": 2}, {"linear": 4}]},
        "solver": {"optimizer": {"adam": {"lr": 0.01}}, "epochs": 3, "batch_size": 10, "l2": 0.001},
        "engine": {"backend": "im2col", "threads": 1, "seed": 231},
    }


@pytest.fixture
def config(pristine_config):
    """A copy of `pristine_config` that the test may change."""
    return deepcopy(pristine_config)


@pytest.fixture
def signal_at(monkeypatch):
    """Plant a signal that arrives during that step, or that batch of evaluation."""

    def plant(count, number=signal.SIGINT, method="step_over"):
        original = getattr(Plan, method)
        calls = []

        def call(self, *args, **settings):
            calls.append(None)
            if len(calls) == count:
                signal.raise_signal(number)
            return original(self, *args, **settings)

        monkeypatch.setattr(Plan, method, call)

    return plant


@pytest.fixture(scope="session")
def read_outcome():
    """SHA-256 of every file that a resumed run must have in common with an unbroken one."""
    names = ["resolved.yaml", "metrics.jsonl", "metrics.csv", "eval/last.json"]
    names += ["checkpoints/last.safetensors", "checkpoints/best.safetensors"]

    def read(path):
        return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}

    return read


@pytest.fixture(scope="session")
def unbroken(pristine_config, read_outcome, tmp_path_factory):
    """How the run of `config` ends when nothing happens to it."""
    return read_outcome(train(pristine_config, runs_dir=tmp_path_factory.mktemp("unbroken")).path)
