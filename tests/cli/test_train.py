"""`cnnctl train`: a table and a path, or one document; progress on stderr; every ending has its code."""

import json
import re
import signal
import subprocess
import sys

import pytest

from cnnctl.cli import display
from cnnctl.config import load_config
from cnnctl.nn.plan import Plan

CONFIG = """\
name: tiny
data: {{dataset: npz, path: {path}, validation: 8}}
network: {{layers: [{{linear: 4}}]}}
solver: {{optimizer: sgd, epochs: 2, batch_size: 8}}
engine: {{backend: im2col, threads: 1}}
"""
STEPS = 10


@pytest.fixture
def config(noise, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.format(path=noise))
    return path


@pytest.fixture
def train(run_main, tmp_path):
    """`cnnctl train` with its runs under `runs`."""
    return lambda *args: run_main("train", "--runs-dir", tmp_path / "runs", *args)


@pytest.fixture
def stop_at(monkeypatch):
    """Plant a signal that arrives, once, during that step."""

    def plant(step, number):
        original, calls = Plan.step_over, []

        def call(self, *args, **settings):
            calls.append(None)
            if len(calls) == step:
                signal.raise_signal(number)
            return original(self, *args, **settings)

        monkeypatch.setattr(Plan, "step_over", call)

    return plant


def find_run(tmp_path):
    (path,) = (tmp_path / "runs").iterdir()
    return path


class TestReport:
    def test_a_table_and_the_path_on_stdout(self, train, config, tmp_path):
        code, out, err = train(config)
        assert code == 0
        header, *rows, path = out.splitlines()
        assert header.split() == ["split", "loss", "accuracy", "images"]
        assert [row.split()[0] for row in rows] == ["train", "validation", "test"]
        assert [row.split()[-1] for row in rows] == ["40", "8", "12"]
        assert path == str(find_run(tmp_path))
        assert "epoch 2/2" in err

    def test_json_is_one_document_with_exactly_these_keys(self, train, config, tmp_path):
        code, out, _ = train(config, "--json")
        document = json.loads(out)
        assert code == 0
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
        assert (document["schema"], document["command"]) == (1, "train")
        assert (document["run"], document["status"]) == (str(find_run(tmp_path)), "finished")
        assert document["steps"] == STEPS
        assert document["seconds"] > 0
        for split in ("train", "validation", "test"):
            assert list(document[split]) == ["loss", "accuracy"]
            assert 0 <= document[split]["accuracy"] <= 1

    def test_without_validation_it_is_null(self, train, config):
        _, out, _ = train(config, "--json", "-o", "data.validation=0")
        assert json.loads(out)["validation"] is None

    def test_quiet_says_nothing(self, train, config):
        code, _, err = train(config, "--quiet")
        assert (code, err) == (0, "")


class TestOptions:
    def test_they_override_the_config_and_what_was_overridden(self, train, config, tmp_path):
        code, _, _ = train(
            config,
            "-o",
            "engine.seed=1",
            "-o",
            "solver.epochs=1",
            "--seed",
            7,
            "--threads",
            2,
            "--name",
            "123",
        )
        resolved = load_config(find_run(tmp_path) / "resolved.yaml")
        assert code == 0
        assert (resolved.engine.seed, resolved.engine.threads, resolved.solver.epochs) == (7, 2, 1)
        assert resolved.name == "123"
        assert "-123-" in find_run(tmp_path).name

    @pytest.mark.parametrize(
        ("args", "line"),
        [
            (["--seed", "x"], "engine.seed: 'x' is not usable"),
            (["--threads", "0"], "engine.threads: 0 is not usable"),
            (["--name", "a/b"], "name: 'a/b' is not usable"),
            (["-o", "solver.epoch=1"], "did you mean epochs?"),
            (["-o", "solver.epochs"], "not key=value"),
            (["--resume", "latest"], "is not usable with resume: a run has its own; leave it out"),
            (["--fork"], "fork: there is no run to go on from; give one to resume"),
            (["--checkpoint", "best"], "--checkpoint best: only a fork begins there; add --fork"),
        ],
    )
    def test_a_wrong_one_is_one_line_and_makes_nothing(self, train, config, tmp_path, args, line):
        code, out, err = train(config, *args)
        assert (code, out) == (2, "")
        assert err.startswith("cnnctl: error: ")
        assert err.count("\n") == 1
        assert line in err
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("args", "code", "line"),
        [
            ([], 2, "CONFIG: none is given; `cnnctl config init` writes one"),
            (["nowhere.yaml"], 2, "nowhere.yaml"),
            (["--resume", "nowhere"], 1, "'nowhere' is neither a run directory nor the name of one"),
        ],
    )
    def test_nothing_to_train_is_one_line(self, train, args, code, line):
        outcome = train(*args)
        assert outcome.code == code
        assert line in outcome.err
        assert outcome.err.count("\n") == 1


class TestEndings:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_leaves_a_run_to_resume(self, train, config, tmp_path, stop_at, number, code):
        stop_at(4, number)
        outcome = train(config)
        path = find_run(tmp_path)
        assert outcome.code == code
        assert outcome.out == ""
        assert outcome.err.splitlines()[-1] == (
            f"cnnctl: stopped after step 4 of 10; go on with: cnnctl train --resume {path}"
        )
        resumed = train("--resume", path, "--json")
        assert resumed.code == 0
        assert json.loads(resumed.out)["steps"] == STEPS
        assert "going on from step 4" in resumed.err

    def test_a_stopped_run_has_its_document_too(self, train, config, stop_at):
        stop_at(4, signal.SIGINT)
        code, out, _ = train(config, "--json")
        document = json.loads(out)
        assert code == 130
        assert (document["status"], document["steps"]) == ("interrupted", 4)
        assert document["train"] is document["validation"] is document["test"] is None

    @pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
    def test_a_diverged_run_has_its_document_too(self, train, config):
        code, out, err = train(config, "--json", "--quiet", "-o", "solver.optimizer.sgd.lr=1e38")
        assert code == 4
        assert json.loads(out)["status"] == "diverged"
        what = r"the loss of step \d+ is (nan|inf): the output of \w+ is .+"
        assert re.fullmatch(rf"cnnctl: error: diverged: {what}; try a learning rate below 1e\+38\n", err)

    def test_a_finished_run_is_shown_again(self, train, config):
        first = train(config, "--json")
        second = train("--resume", "latest", "--json")
        assert (second.code, second.out) == (0, first.out)
        assert second.err.rstrip().endswith("is finished already")

    def test_from_outside_the_process(self, config, tmp_path):
        """Ctrl-C at a moment that nobody chose."""
        config.write_text(config.read_text().replace("epochs: 2", "epochs: 100000"))
        command = [sys.executable, "-m", "cnnctl", "train", str(config), "--runs-dir", str(tmp_path / "runs")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err
        line = r"cnnctl: stopped after step \d+ of 500000; go on with: cnnctl train --resume .*"
        assert re.fullmatch(line, err.splitlines()[-1])


def test_a_warning_reaches_stderr_even_when_quiet(train, config, tmp_path, stop_at):
    stop_at(8, signal.SIGINT)
    train(config)
    last = find_run(tmp_path) / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    code, _, err = train("--resume", "latest", "--quiet")
    assert code == 0
    assert re.fullmatch(r"cnnctl: warning: .*last\.safetensors: damaged.*of step 5\n", err)


def test_progress_is_told_of_every_epoch(train, config, monkeypatch):
    heard = []
    monkeypatch.setattr(display.TrainProgress, "on_epoch", lambda self, info: heard.append(info.epoch))
    train(config)
    assert heard == [1, 2]
