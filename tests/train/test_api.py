"""`cnnctl.train`, `cnnctl.evaluate` and `Run`, as Python code uses them."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import cnnctl
from cnnctl.config import config_from_dict, dump_config, load_config
from cnnctl.errors import CheckpointError, ConfigError, DataError, RunError, ShapeError
from cnnctl.train import api
from cnnctl.train.api import Run, evaluate, examine, recall_examination, train
from cnnctl.train.checkpoint import load_checkpoint
from cnnctl.train.evaluate import read_evaluation
from cnnctl.train.observer import Observer
from cnnctl.train.run_directory import RunDirectory


@pytest.fixture
def run(config, tmp_path):
    return train(config, runs_dir=tmp_path / "runs")


class TestPackage:
    def test_importing_it_imports_nothing_heavy(self):
        script = "import sys, cnnctl; print([m for m in ('numpy', 'pydantic', 'yaml') if m in sys.modules])"
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert found.stdout == "[]\n"

    @pytest.mark.parametrize("name", cnnctl.__all__)
    def test_every_public_name_is_there(self, name):
        assert getattr(cnnctl, name) is not None
        assert name in dir(cnnctl)

    def test_an_unknown_name_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="trian"):
            cnnctl.trian  # noqa: B018

    def test_train_is_a_room_and_can_be_called(self, config, tmp_path):
        assert cnnctl.train(config, runs_dir=tmp_path).status == "finished"
        assert cnnctl.train.api is api  # type: ignore[attr-defined]


class TestConfig:
    def test_from_a_file(self, config, tmp_path):
        path = tmp_path / "some.yaml"
        path.write_text("# as it was written\n" + dump_config(config_from_dict(config)))
        run = train(path, runs_dir=tmp_path / "runs", overrides=["solver.epochs=1"])
        assert (run.path / "config.yaml").read_bytes() == path.read_bytes()
        assert load_config(run.path / "resolved.yaml").solver.epochs == 1
        assert run.steps == 7

    def test_from_a_run_config(self, config, tmp_path):
        run = train(config_from_dict(config), runs_dir=tmp_path, overrides=["engine.seed=7", "name=other"])
        assert load_config(run.path / "resolved.yaml").engine.seed == 7
        assert "-other-" in run.path.name

    def test_the_same_config_gives_the_same_run(self, run, unbroken, read_outcome):
        assert read_outcome(run.path) == unbroken

    def test_another_seed_gives_another(self, run, config, tmp_path):
        config["engine"]["seed"] = 1
        assert train(config, runs_dir=tmp_path / "again").train != run.train

    def test_none_at_all(self):
        with pytest.raises(ConfigError, match="config: none is given"):
            train()

    @pytest.mark.parametrize("threads", ["auto", 2])
    def test_threads(self, config, tmp_path, threads):
        config["engine"]["threads"] = threads
        run = train(config, runs_dir=tmp_path)
        used = json.loads((run.path / "env.json").read_text())["threads"]
        assert used >= 1 if threads == "auto" else used == threads


class TestBadInput:
    @pytest.mark.parametrize(
        ("override", "error", "line"),
        [
            ("solver.epochs=0", ConfigError, r"solver\.epochs"),
            ("data.path=/nowhere.npz", DataError, r"/nowhere\.npz"),
            ("data.validation=80", ConfigError, r"data\.validation: 80"),
            ("data.augment.shift=8", ConfigError, r"data\.augment\.shift: 8"),
            ("network.layers=[{linear: 3}]", ConfigError, r"end it with linear: 4"),
            ("network.layers=[{conv: {filters: 4, kernel: 1}}]", ConfigError, r"its output is \(4, 8, 8\)"),
            ("network.layers=[{maxpool: 9}, {linear: 4}]", ShapeError, "maxpool1: kernel spans 9"),
        ],
    )
    def test_is_one_line_and_nothing_is_made(self, config, tmp_path, override, error, line):
        with pytest.raises(error, match=line) as caught:
            train(config, runs_dir=tmp_path / "runs", overrides=[override])
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "runs").exists()


class TestRun:
    def test_reads_what_training_returned(self, run):
        assert Run.read(run.path) == run
        assert (run.status, run.steps) == ("finished", 21)
        assert run.seconds > 0

    def test_network_has_the_final_weights(self, run):
        network = run.network()
        checkpoint = load_checkpoint(run.path / "checkpoints" / "last.safetensors")
        assert network.params.keys() == checkpoint.params.keys()
        for key, weight in network.params.items():
            assert np.array_equal(weight, checkpoint.params[key])
            assert weight.any()

    def test_network_of_the_best_checkpoint(self, run):
        best = load_checkpoint(run.path / "checkpoints" / "best.safetensors")
        assert np.array_equal(run.network("best").params["conv1.weight"], best.params["conv1.weight"])

    def test_metrics_are_entries(self, run):
        epochs = [entry for entry in run.metrics() if entry["type"] == "epoch"]
        assert [entry["epoch"] for entry in epochs] == [1, 2, 3]

    def test_a_last_entry_that_is_not_whole_is_left_out_and_any_other_refused(self, run, tmp_path):
        path = shutil.copytree(run.path, tmp_path / "copy")
        copy, file = Run.read(path), path / "metrics.jsonl"
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines)[:-1])
        assert copy.metrics() == run.metrics()[:-1]
        file.write_bytes(b"".join([lines[0], lines[1][:-9] + b"\n", *lines[2:]]))
        with pytest.raises(RunError, match=r"metrics\.jsonl: damaged: line 2 is no entry$"):
            copy.metrics()

    def test_no_run_is_one_line(self, tmp_path):
        with pytest.raises(RunError, match="there is no such run directory"):
            Run.read(tmp_path / "nowhere")


class TestEvaluate:
    def test_repeats_the_scores_of_training(self, run):
        evaluation = evaluate(run)
        assert evaluation.step == 21
        assert evaluation.scores == {"train": run.train, "validation": run.validation, "test": run.test}

    def test_scores_the_best_checkpoint(self, run):
        best = load_checkpoint(run.path / "checkpoints" / "best.safetensors").metadata.progress
        evaluation = evaluate(run.path, checkpoint="best")
        assert evaluation.step == best.step
        assert evaluation.validation.accuracy == best.best
        written = json.loads((run.path / "eval" / "best.json").read_text())
        assert written["test"] == {
            "loss": evaluation.test.loss,
            "accuracy": evaluation.test.accuracy,
            "images": 20,
        }

    def test_tells_what_training_told_at_its_end(self, run):
        written = read_evaluation(RunDirectory(run.path), "last")
        assert evaluate(run) == written
        details = written.details["test"]
        assert np.trace(details.confusion) == round(20 * run.test.accuracy)
        assert Run.read(run.path) == run

    def test_mistakes_come_with_their_pixels(self, run, images):
        examination = examine(run, splits=["test"])
        mistakes = examination.evaluation.details["test"].mistakes
        with np.load(images) as arrays:
            for mistake, pixels in zip(mistakes, examination.pixels["test"], strict=True):
                assert np.array_equal(pixels, arrays["x_test"][mistake.image])
                assert mistake.true == str(arrays["y_test"][mistake.image])
        assert mistakes
        recalled = recall_examination(run.path)
        assert recalled.evaluation.details["test"] == examination.evaluation.details["test"]
        assert Run.read(run.path) == run, "scores of one split leave what is written of all"
        assert np.array_equal(recalled.pixels["test"], examination.pixels["test"])

    def test_scores_of_an_older_version_are_read(self, run):
        path = run.path / "eval" / "last.json"
        document = json.loads(path.read_text())
        del document["details"]
        path.write_text(json.dumps({**document, "schema": 1}))
        assert Run.read(run.path) == run

    def test_scores_of_a_version_to_come_are_refused(self, run):
        path = run.path / "eval" / "last.json"
        path.write_text(path.read_text().replace('"schema": 2', '"schema": 3'))
        with pytest.raises(RunError, match=r"last\.json: schema: Input should be 1 or 2"):
            Run.read(run.path)

    def test_leaves_out_what_was_not_asked_for(self, run):
        evaluation = evaluate(run, checkpoint="best", splits=["test"])
        assert list(evaluation.scores) == ["test"]

    def test_finds_a_run_by_name(self, run):
        assert evaluate(run.path.name, runs_dir=run.path.parent).test == run.test

    @pytest.mark.parametrize(
        ("arguments", "error", "line"),
        [
            ({"checkpoint": "lst"}, ConfigError, "did you mean last"),
            ({"splits": ["tset"]}, ConfigError, "did you mean test"),
        ],
    )
    def test_refuses_unknown_words(self, run, arguments, error, line):
        with pytest.raises(error, match=line):
            evaluate(run, **arguments)

    def test_refuses_a_damaged_best_checkpoint(self, run):
        path = run.path / "checkpoints" / "best.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CheckpointError, match="damaged"):
            evaluate(run, checkpoint="best")

    def test_scores_the_generation_before_a_damaged_last_one(self, run, monkeypatch):
        path = run.path / "checkpoints" / "last.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        observer, messages = Observer(), []
        monkeypatch.setattr(observer, "on_warning", messages.append)
        assert evaluate(run, observer=observer).step == 14
        assert "damaged" in messages[0]
        assert Run.read(run.path).test is None  # what is known is not of the final weights

    def test_refuses_images_of_another_shape(self, config, tmp_path, images):
        path = tmp_path / "own.npz"
        path.write_bytes(images.read_bytes())
        run = train(config, runs_dir=tmp_path, overrides=[f"data.path={path}"])
        with np.load(images) as arrays:
            np.savez(
                path, **{key: array[..., :7] if array.ndim == 4 else array for key, array in arrays.items()}
            )
        with pytest.raises(DataError, match=r"are \(1, 8, 7\) and no longer \(1, 8, 8\)"):
            evaluate(run)
