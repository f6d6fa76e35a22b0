"""One configuration, whatever computes it: the same losses from every backend and number of threads."""

import pytest

from cnnctl.backends import BACKENDS
from cnnctl.train.api import train


def losses(run):
    return [entry["loss"] for entry in run.metrics() if entry["type"] == "step"]


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "im2col"])
def test_backends_agree_within_rounding(config, tmp_path, backend):
    config["engine"]["dtype"] = "float64"
    config["solver"] |= {"log_every": 1, "epochs": 1}
    reference = train(config, runs_dir=tmp_path)
    config["engine"]["backend"] = backend
    run = train(config, runs_dir=tmp_path)
    assert losses(run) == pytest.approx(losses(reference), rel=1e-9)
    assert len(losses(run)) == 7
    assert run.test.loss == pytest.approx(reference.test.loss, rel=1e-9)


def test_threads_change_nothing(config, tmp_path):
    config["engine"]["backend"] = "fast"
    runs = [train(config, runs_dir=tmp_path, overrides=[f"engine.threads={n}"]) for n in (1, 2, 3)]
    assert len({(run.path / "metrics.jsonl").read_bytes() for run in runs}) == 1
    assert len({(run.path / "eval" / "last.json").read_bytes() for run in runs}) == 1


def test_on_the_built_in_shapes(config, tmp_path):
    config["data"] = {"dataset": "shapes", "train": 64, "validation": 16, "test": 20}
    config["network"]["layers"][-1] = {"linear": 10}
    run = train(config, runs_dir=tmp_path)
    assert [scores.images for scores in (run.train, run.validation, run.test)] == [64, 16, 20]
