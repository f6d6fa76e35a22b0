"""`cnnctl eval`: the scores of a run's checkpoint, as a table or one document."""

import json

import numpy as np
import pytest

from cnnctl.train.api import train


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(5)
    arrays = {}
    for split, count in (("train", 48), ("test", 12)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
        arrays[f"y_{split}"] = rng.permutation(np.arange(count) % 4)
    np.savez(tmp_path / "noise.npz", **arrays)
    config = {
        "name": "tiny",
        "data": {"dataset": "npz", "path": str(tmp_path / "noise.npz"), "validation": 8},
        "network": {"layers": [{"linear": 4}]},
        "solver": {"optimizer": "sgd", "epochs": 2, "batch_size": 8},
        "engine": {"backend": "im2col", "threads": 1},
    }
    return train(config, runs_dir=tmp_path / "runs")


@pytest.fixture
def evaluate(run_main, run):
    """`cnnctl eval` with its runs under `runs`."""
    return lambda *args: run_main("eval", "--runs-dir", run.path.parent, *args)


@pytest.mark.parametrize("name", ["latest", "the path", "the name", "a prefix"])
def test_repeats_what_training_reported(evaluate, run, name):
    words = {"the path": run.path, "the name": run.path.name, "a prefix": run.path.name[:10]}
    code, out, err = evaluate(words.get(name, name), "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert list(document) == [
        "schema",
        "command",
        "run",
        "status",
        "steps",
        "seconds",
        "train",
        "validation",
        "test",
    ]
    assert (document["schema"], document["command"], document["run"]) == (1, "eval", str(run.path))
    assert (document["status"], document["steps"]) == ("finished", 10)
    for split in ("train", "validation", "test"):
        scores = getattr(run, split)
        assert document[split] == {"loss": scores.loss, "accuracy": scores.accuracy}


def test_a_table_and_the_path(evaluate, run):
    code, out, _ = evaluate("latest")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[:-1]] == ["split", "train", "validation", "test"]
    assert lines[-1] == str(run.path)


def test_the_best_checkpoint(evaluate, run):
    code, out, _ = evaluate("latest", "--checkpoint", "best", "--json")
    document = json.loads(out)
    written = json.loads((run.path / "eval" / "best.json").read_text())
    assert code == 0
    assert document["steps"] == written["step"]
    assert document["test"]["loss"] == written["test"]["loss"]


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["nowhere"], 1, "run: 'nowhere' is neither a run directory nor the name of one under"),
        (["latest", "--checkpoint", "first"], 2, "first"),
        ([], 2, "Missing argument 'RUN'"),
    ],
)
def test_bad_arguments_are_one_line(evaluate, args, code, line):
    outcome = evaluate(*args)
    assert (outcome.code, outcome.out) == (code, "")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_misspelt_name_is_answered_with_those_near(evaluate, run):
    misspelt = run.path.name[:-1] + "x"
    assert f"near: {run.path.name}" in evaluate(misspelt).err


def test_a_damaged_checkpoint_is_one_line(evaluate, run):
    path = run.path / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = evaluate("latest", "--checkpoint", "best")
    assert (code, out) == (1, "")
    assert err.startswith(f"cnnctl: error: {path}: damaged")


def test_a_damaged_last_checkpoint_is_warned_of(evaluate, run):
    path = run.path / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = evaluate("latest", "--json")
    assert (code, json.loads(out)["steps"]) == (0, 5)
    assert err.startswith(f"cnnctl: warning: {path}: damaged")


def test_a_missing_checkpoint_is_one_line(evaluate, run):
    (run.path / "checkpoints" / "best.safetensors").unlink()
    code, _, err = evaluate("latest", "--checkpoint", "best")
    assert code == 1
    assert err.endswith("best.safetensors: No such file or directory\n")


def test_weights_of_an_unfinished_run_are_scored_with_a_warning(evaluate, run):
    status = run.path / "status.json"
    status.write_text(status.read_text().replace("finished", "diverged"))
    code, out, err = evaluate("latest")
    assert (code, "test" in out) == (0, True)
    assert err == "cnnctl: warning: the run is diverged; these are its weights after step 10\n"
