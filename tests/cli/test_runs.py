"""`cnnctl runs`: tables and documents, and no removal that nobody wanted."""

import io
import json
import signal
import subprocess
import sys
from time import sleep

import pytest

from cnnctl.cli import display
from cnnctl.train import runs as module
from cnnctl.train.api import train
from cnnctl.train.run_directory import RunDirectory


@pytest.fixture
def config(noise_config):
    return noise_config


@pytest.fixture
def start(config, tmp_path):
    """Train a run of that name, with these overrides."""
    return lambda name, *overrides: train(
        {**config, "name": name}, overrides=overrides, runs_dir=tmp_path / "runs"
    )


@pytest.fixture
def runs(run_main, tmp_path):
    """`cnnctl runs`, with those under `runs`."""
    return lambda command, *args: run_main("runs", command, "--runs-dir", tmp_path / "runs", *args)


class TestList:
    def test_a_row_a_run(self, runs, start):
        run = start("first")
        code, out, err = runs("list")
        header, row = out.splitlines()
        assert (code, err) == (0, "")
        assert header.split() == [
            *("run", "state", "epochs", "steps", "best", "last", "test", "seconds", "accuracy"),
        ]
        cells = row.replace(" %", "").split()
        assert cells[:4] == [run.path.name, "finished", "2", "10"]
        assert cells[6:8] == [f"{100 * run.test.accuracy:.2f}", f"{run.seconds:,.1f}"]
        assert len(cells[8]) == 2

    def test_json(self, runs, start, tmp_path):
        run = start("first")
        (tmp_path / "runs" / "foreign").mkdir()
        code, out, err = runs("list", "--json")
        document = json.loads(out)
        assert code == 0
        assert list(document) == ["schema", "command", "runs_dir", "runs", "problems"]
        (row,) = document["runs"]
        assert (row["run"], row["state"], row["steps"]) == (str(run.path), "finished", 10)
        assert row["test"] == {"loss": run.test.loss, "accuracy": run.test.accuracy, "images": 12}
        assert row["last_validation_accuracy"] == row["history"][-1]
        assert err == f"cnnctl: warning: {document['problems'][0]}\n"

    def test_no_runs(self, runs, tmp_path):
        assert runs("list") == (0, "", f"no runs in {tmp_path / 'runs'}\n")
        assert json.loads(runs("list", "--json").out)["runs"] == []

    def test_a_killed_run_is_seen(self, config, tmp_path, runs):
        script = """if True:
            import json, sys
            from cnnctl.train.api import train
            train(json.loads(sys.argv[1]), runs_dir=sys.argv[2])
        """
        config["solver"]["epochs"] = 10**6
        process = subprocess.Popen([sys.executable, "-c", script, json.dumps(config), str(tmp_path / "runs")])
        try:
            while not list((tmp_path / "runs").glob("*/checkpoints/best.safetensors")):
                assert process.poll() is None
                sleep(0.05)
            states = [json.loads(runs("list", "--json").out)["runs"][0]["state"]]
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        states += [json.loads(runs("list", "--json").out)["runs"][0]["state"]]
        assert states == ["running", "killed"]


class TestShow:
    def test_tables(self, runs, start):
        run = start("first")
        code, out, _ = runs("show", "latest")
        facts, scores, files = out.split("\n\n")
        assert code == 0
        assert facts.splitlines()[0].split() == ["run", str(run.path)]
        assert "config" in facts
        assert "backend" in facts
        assert [line.split()[0] for line in scores.splitlines()] == ["split", "train", "validation", "test"]
        assert "checkpoints/best.safetensors" in files

    def test_json(self, runs, start):
        run = start("first")
        document = json.loads(runs("show", "first", "--json").out)
        assert (document["command"], document["run"]) == ("runs show", str(run.path))
        assert len(document["config_sha256"]) == 64
        assert document["environment"]["backend"] == "im2col"
        assert document["files"]["config.yaml"] > 0

    def test_a_measurement_has_no_config(self, runs, start):
        run = start("first")
        for file in ("config.yaml", "resolved.yaml"):
            (run.path / file).unlink()
        assert json.loads(runs("show", run.path, "--json").out)["config_sha256"] is None
        assert runs("show", run.path).code == 0


class TestCompare:
    def test_configs_that_differ_and_figures(self, runs, start):
        first, second = start("first"), start("second", "solver.epochs=1", "solver.l2=0.5")
        code, out, _ = runs("compare", "first", "second")
        configs, figures = out.split("\n\n")
        assert code == 0
        assert configs.splitlines()[0].split() == ["config", first.path.name, second.path.name]
        assert [line.split() for line in configs.splitlines()[1:]] == [
            ["name", "'first'", "'second'"],
            ["solver.epochs", "2", "1"],
            ["solver.l2", "0.0", "0.5"],
        ]
        rows = {line[:24].strip(): line[24:].split() for line in figures.splitlines()}
        assert rows["steps"] == ["10", "5"]
        assert rows["test loss"] == [f"{run.test.loss:.4f}" for run in (first, second)]

    def test_json(self, runs, start):
        first, second = start("first"), start("second", "solver.epochs=1")
        document = json.loads(runs("compare", "first", "second", "first", "--json").out)
        assert [row["run"] for row in document["runs"]] == [str(run.path) for run in (first, second, first)]
        assert document["config"] == {
            "name": ["first", "second", "first"],
            "solver.epochs": [2, 1, 2],
        }

    def test_the_same(self, runs, start):
        start("first")
        assert runs("compare", "first", "latest").out.startswith("the configs are the same\n\n")

    def test_one_alone_is_one_line(self, runs, start):
        start("first")
        assert runs("compare", "first") == (2, "", "cnnctl: error: RUN: give two runs or more to compare\n")


class TestRemove:
    def test_without_asking(self, runs, start, tmp_path):
        first, second = start("first"), start("second")
        assert runs("rm", "--yes", "first").out == f"removed {first.path}\n"
        assert list((tmp_path / "runs").iterdir()) == [second.path]
        document = json.loads(runs("rm", "--yes", "second", second.path, "--json").out)
        assert document == {"schema": 1, "command": "runs rm", "removed": [str(second.path)]}
        assert list((tmp_path / "runs").iterdir()) == []

    @pytest.mark.parametrize(
        ("answer", "is_removed"), [("y\n", 1), ("Yes\n", 1), ("n\n", 0), ("\n", 0), ("", 0)]
    )
    def test_asks(self, runs, start, monkeypatch, answer, is_removed):
        run = start("first")
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code, out, err = runs("rm", "first")
        assert err.startswith(f"remove {run.path}? [y/N] ")
        assert (code, run.path.exists()) == ((0, False) if is_removed else (1, True))
        assert out == (f"removed {run.path}\n" if is_removed else "")

    def test_all_or_nothing(self, runs, start):
        first, second = start("first"), start("second")
        with RunDirectory(second.path).locked():
            code, out, err = runs("rm", "--yes", "first", "second")
        assert (code, out) == (1, "")
        assert err == f"cnnctl: error: {second.path}: somebody is training in it; wait or stop it\n"
        assert runs("rm", "--yes", "first", "secnd").code == 1
        assert first.path.is_dir()


class TestTail:
    def test_of_a_finished_run(self, runs, start):
        run = start("first")
        code, out, err = runs("tail")
        assert code == 0
        lines = out.splitlines()
        assert lines[0].startswith("epoch 1, step 1: loss ")
        assert lines[-1].startswith("epoch 2, step 10: train loss ")
        assert "; validation loss " in lines[-1]
        assert err == f"{run.path}: finished after step 10\n"

    def test_json_lines(self, runs, start):
        run = start("first")
        lines = runs("tail", "first", "--json", "-n", 1).out.splitlines()
        assert [json.loads(line) for line in lines] == run.metrics()[-1:]

    def test_ctrl_c(self, runs, start, monkeypatch):
        run = start("first")

        def press(seconds):
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(module, "sleep", press)
        with RunDirectory(run.path).locked():
            code, _, err = runs("tail")
        assert (code, err) == (130, f"cnnctl: {run.path}: no longer followed; it goes on\n")


@pytest.mark.parametrize("command", ["show", "tail", "rm", "compare"])
def test_a_mistyped_run_is_answered_with_those_near(runs, start, command):
    start("first")
    args = ["latst", "latst"] if command == "compare" else ["latst"]
    code, out, err = runs(command, *args)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.endswith("; near: latest\n")


class TestSparkline:
    """Accuracies as a line of blocks."""

    def test_a_stream_that_knows_no_blocks_gets_plain_signs(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        line = display.draw_sparkline([i / 7 for i in range(8)])
        assert (len(set(line)), line.isascii()) == (8, True)

    def test_more_values_than_fit(self):
        line = display.draw_sparkline([i / 99 for i in range(100)])
        assert (len(line), line[0], line[-1]) == (20, "▁", "█")
        assert list(line) == sorted(line)

    def test_the_last_value_is_always_shown(self):
        assert display.draw_sparkline([0.0] * 40 + [1.0])[-1] == "█"

    def test_what_is_not_finite_is_left_out(self):
        assert display.draw_sparkline([float("nan"), 0.0, 1.0]) == "▁█"
        assert display.draw_sparkline([float("nan")]) is display.draw_sparkline([]) is None
