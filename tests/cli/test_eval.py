"""`cnnctl eval`: the scores of a checkpoint, as tables or one document, and its mistakes as a picture."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from cnnctl.errors import RunError
from cnnctl.train import scores
from cnnctl.train.api import Run, train
from cnnctl.train.run_directory import RunDirectory


@pytest.fixture
def run(noise_config, tmp_path):
    return train(noise_config, runs_dir=tmp_path / "runs")


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
        "checkpoint",
        "details",
        "mistakes_picture",
    ]
    assert (document["schema"], document["command"], document["run"]) == (1, "eval", str(run.path))
    assert (document["status"], document["steps"]) == ("finished", 10)
    for split in ("train", "validation", "test"):
        found = getattr(run, split)
        assert document[split] == {"loss": found.loss, "accuracy": found.accuracy}


def test_two_tables_and_the_paths(evaluate, run):
    code, out, _ = evaluate("latest")
    scores, classes = (part.splitlines() for part in out.split("\n\n"))
    assert code == 0
    assert scores[0].split() == ["split", "loss", "accuracy", "images"]
    assert [line.split()[0] for line in scores] == ["split", "train", "validation", "test"]
    assert classes[0] == "the worst classes by F1, of 4"
    columns = ["test class", "images", "precision", "recall", "F1", "most often taken for"]
    assert re.split("  +", classes[1]) == columns
    assert sorted(line.split()[0] for line in classes[2:-2]) == ["0", "1", "2", "3"]
    assert classes[-2:] == [
        f"most confident mistakes: {run.path / 'eval' / 'last-mistakes.png'}",
        str(run.path),
    ]


def test_details_agree_with_the_scores(evaluate, run):
    document = json.loads(evaluate("latest", "--json").out)
    written = json.loads((run.path / "eval" / "last.json").read_text())
    assert document["details"] == written["details"]
    assert (written["schema"], written["checkpoint"]) == (2, "last")
    assert list(document["details"]) == ["train", "validation", "test"]
    for split, images in (("train", 40), ("validation", 8), ("test", 12)):
        details = document["details"][split]
        assert details["top5"] is None  # of four classes
        assert np.sum(details["confusion"]) == images
        assert np.trace(details["confusion"]) == round(images * document[split]["accuracy"])
        assert [c["images"] for c in details["classes"]] == np.sum(details["confusion"], axis=1).tolist()
        assert [c["predicted"] for c in details["classes"]] == np.sum(details["confusion"], axis=0).tolist()
        wrong = images - np.trace(details["confusion"])
        assert len(details["mistakes"]) == min(24, wrong)


def test_what_it_writes_is_read_as_training_wrote_it(evaluate, run):
    evaluate("latest")
    assert Run.read(run.path) == run


def test_mistakes_are_drawn(evaluate, run):
    document = json.loads(evaluate("latest", "--checkpoint", "best", "--json").out)
    path = run.path / "eval" / "best-mistakes.png"
    assert document["mistakes_picture"] == str(path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_without_mistakes_an_old_picture_goes(evaluate, run, monkeypatch):
    monkeypatch.setattr(scores, "MAX_MISTAKES", 0)
    path = run.path / "eval" / "last-mistakes.png"
    path.write_bytes(b"old")
    code, out, _ = evaluate("latest", "--json")
    assert (code, json.loads(out)["mistakes_picture"], path.exists()) == (0, None, False)


def test_top5_of_more_than_five_classes(run_main, tmp_path):
    config = {
        "data": {"dataset": "shapes", "image_size": 8, "train": 100, "validation": 50, "test": 100},
        "network": {"layers": [{"linear": 10}]},
        "solver": {"optimizer": "sgd", "epochs": 1, "batch_size": 50},
        "engine": {"backend": "im2col", "threads": 1},
    }
    path = train(config, runs_dir=tmp_path / "runs").path
    document = json.loads(run_main("eval", path, "--json").out)
    assert document["test"]["accuracy"] <= document["details"]["test"]["top5"] < 1
    assert document["details"]["test"]["classes"][0]["name"] == "circle"
    header, *rows = run_main("eval", path).out.splitlines()[:4]
    assert header.split() == ["split", "loss", "accuracy", "top-5", "images"]
    assert rows[2].split()[4] == f"{100 * document['details']['test']['top5']:.2f}"


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


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_scores_that_cannot_be_written_are_told_all_the_same(evaluate, run, monkeypatch, args):
    def refuse(run, file, document):
        raise RunError(f"{run.path / file}: Permission denied")

    monkeypatch.setattr(RunDirectory, "write_json", refuse)
    code, out, err = evaluate("latest", *args)
    assert code == 1
    assert (str(run.test.accuracy) if args else f"{100 * run.test.accuracy:.2f} %") in out
    assert err == f"cnnctl: error: {run.path / 'eval/last.json'}: Permission denied\n"
