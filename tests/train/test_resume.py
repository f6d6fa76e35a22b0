"""A run that was stopped, killed or robbed of its last checkpoint ends as an unbroken one, bit for bit."""

import json
import os
import signal
import subprocess
import sys

import pytest

from cnnctl.errors import CheckpointError, ConfigError, Interrupted, RunError
from cnnctl.train.api import train
from cnnctl.train.checkpoint import LAST, load_checkpoint
from cnnctl.train.initial import FILE as INITIAL
from cnnctl.train.observer import Observer
from cnnctl.train.run_directory import RunDirectory

STEPS_PER_EPOCH, TOTAL_STEPS = 7, 21


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


class Warnings(Observer):
    def __init__(self):
        self.messages = []

    def on_warning(self, message):
        self.messages.append(message)


def resume(runs_dir):
    return train(resume="latest", runs_dir=runs_dir)


class TestSignals:
    @pytest.mark.parametrize("step", [1, 4, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, TOTAL_STEPS])
    def test_stopped_after_a_step(self, config, runs_dir, unbroken, read_outcome, signal_at, step):
        signal_at(step)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        assert read_outcome(resume(runs_dir).path) == unbroken

    @pytest.mark.parametrize(
        ("method", "batch"),
        [("evaluate", 1), ("evaluate", 2), ("evaluate", 6), ("examine", 1), ("examine", 6)],
    )
    def test_stopped_while_evaluating(
        self, config, runs_dir, unbroken, read_outcome, signal_at, method, batch
    ):
        """After an epoch, and at the end."""
        signal_at(batch, method=method)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        assert read_outcome(resume(runs_dir).path) == unbroken

    def test_stopped_five_times(self, config, runs_dir, unbroken, read_outcome, signal_at):
        signal_at(3)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        for _ in range(4):
            signal_at(3)
            with pytest.raises(Interrupted):
                resume(runs_dir)
        assert read_outcome(resume(runs_dir).path) == unbroken

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_says_how_to_go_on_and_leaves_the_handlers_as_they_were(
        self, config, runs_dir, signal_at, number
    ):
        handler = signal.getsignal(number)
        signal_at(4, number)
        with pytest.raises(Interrupted) as caught:
            train(config, runs_dir=runs_dir)
        (path,) = runs_dir.iterdir()
        assert str(caught.value) == f"stopped after step 4 of 21; go on with: cnnctl train --resume {path}"
        assert caught.value.exit_code == 128 + number
        assert RunDirectory(path).read_status().state == "interrupted"
        assert signal.getsignal(number) == handler

    def test_the_way_on_names_the_data_directory_that_was_given(self, config, runs_dir, signal_at, tmp_path):
        signal_at(1)
        with pytest.raises(Interrupted, match=f"--data-dir {tmp_path}$"):
            train(config, runs_dir=runs_dir, data_dir=tmp_path)

    def test_a_second_signal_changes_nothing(self, config, runs_dir, unbroken, read_outcome, signal_at):
        signal_at(4, signal.SIGTERM)
        signal_at(4, signal.SIGINT)
        with pytest.raises(Interrupted) as caught:
            train(config, runs_dir=runs_dir)
        assert caught.value.exit_code == 130
        assert read_outcome(resume(runs_dir).path) == unbroken

    def test_on_the_fast_backend(self, config, runs_dir, tmp_path, read_outcome, signal_at):
        config["engine"] = {"backend": "fast", "threads": 2, "seed": 1}
        unbroken = read_outcome(train(config, runs_dir=tmp_path / "unbroken").path)
        signal_at(10)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        assert read_outcome(resume(runs_dir).path) == unbroken

    def test_between_accumulated_steps(self, config, runs_dir, tmp_path, read_outcome, signal_at):
        config["solver"] |= {
            "accumulate": 2,
            "clip_norm": 0.5,
            "groups": [{"match": "*.bias", "lr_scale": 2}],
        }
        unbroken = read_outcome(train(config, runs_dir=tmp_path / "unbroken").path)
        signal_at(6)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        assert read_outcome(resume(runs_dir).path) == unbroken

    @pytest.mark.parametrize(
        "schedule", ["cosine", {"plateau": {"factor": 0.5, "patience": 0, "threshold": 0.5}}]
    )
    @pytest.mark.parametrize("step", [3, 2 * STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 1])
    def test_on_a_schedule(self, config, runs_dir, tmp_path, read_outcome, signal_at, schedule, step):
        config["solver"] |= {"schedule": schedule, "warmup": 5, "log_every": 1}
        unbroken = train(config, runs_dir=tmp_path / "unbroken").path
        signal_at(step)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        assert read_outcome(resume(runs_dir).path) == read_outcome(unbroken)
        plateau = load_checkpoint(unbroken / "checkpoints" / LAST).metadata.progress.plateau
        assert (plateau.scale < 1) == (schedule != "cosine")


class TestKills:
    SCRIPT = """if True:
        import json, os, signal, sys
        from cnnctl.nn.plan import Plan
        from cnnctl.train.api import train

        config, runs_dir, owner, method, counts = json.loads(sys.argv[1])
        owner = {"os": os, "Plan": Plan}[owner]
        for count in counts:
            if os.fork() == 0:
                original, calls = getattr(owner, method), []

                def call(*args, **kwargs):
                    calls.append(None)
                    if len(calls) == count:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return original(*args, **kwargs)

                setattr(owner, method, call)
                train(config, runs_dir=f"{runs_dir}/{count}")
                os._exit(0)
            os.wait()
    """

    def kill(self, config, runs_dir, owner, method, counts):
        """Start a run for each count, killed by SIGKILL in that call of os.<method> or Plan.<method>.

        Returns their directories: <runs_dir>/<count>/<run>. The children are forked off a
        process that has no threads, which one that has computed something may have.
        """
        argument = json.dumps([config, str(runs_dir), owner, method, counts])
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", self.SCRIPT, argument], env=environment, check=True, timeout=60)
        return [next((runs_dir / str(count)).iterdir()) for count in counts]

    def test_between_two_checkpoints(self, config, tmp_path, runs_dir, read_outcome):
        config["solver"]["checkpoints"] = {"steps": 3}
        unbroken = read_outcome(train(config, runs_dir=tmp_path / "unbroken").path)
        saved_before = {1: 0, 3: 0, 4: 3, 8: 6, 21: 18}
        paths = self.kill(config, runs_dir, "Plan", "step_over", list(saved_before))
        for path, saved in zip(paths, saved_before.values(), strict=True):
            assert load_checkpoint(path / "checkpoints" / LAST).metadata.progress.step == saved
            assert RunDirectory(path).read_status().state == "running"
            assert read_outcome(train(resume=path).path) == unbroken

    @pytest.mark.parametrize(("method", "counts"), [("replace", range(1, 28, 4)), ("fsync", range(1, 60, 7))])
    def test_in_the_middle_of_writing(self, config, runs_dir, unbroken, read_outcome, method, counts):
        paths = self.kill(config, runs_dir, "os", method, list(counts))
        # status.json comes last: without it, the directory was not complete and is no run.
        runs = [path for path in paths if (path / "status.json").exists()]
        assert [RunDirectory(path).read_status().state for path in runs].count("running") >= 4
        for path in runs:
            assert read_outcome(train(resume=path).path) == unbroken


class TestDamage:
    @pytest.fixture
    def stopped(self, config, runs_dir, signal_at):
        signal_at(10)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        (path,) = runs_dir.iterdir()
        return path

    def test_the_older_generation_takes_over_with_a_warning(self, stopped, unbroken, read_outcome):
        last = stopped / "checkpoints" / LAST
        last.write_bytes(last.read_bytes()[:-1])
        observer = Warnings()
        assert read_outcome(train(resume=stopped, observer=observer).path) == unbroken
        assert len(observer.messages) == 1
        assert "damaged" in observer.messages[0]
        assert "of step 7" in observer.messages[0]
        assert observer.messages[0] in (stopped / "log.txt").read_text()

    def test_without_any_whole_one_nothing_goes_on(self, stopped):
        before = (stopped / "metrics.jsonl").read_bytes()
        for path in (stopped / "checkpoints").glob("last*"):
            path.write_bytes(b"x" * 100)
        with pytest.raises(CheckpointError, match=r"last\.safetensors.*last\.previous\.safetensors"):
            train(resume=stopped)
        assert (stopped / "metrics.jsonl").read_bytes() == before

    def test_metrics_that_lost_lines_are_not_made_up(self, stopped):
        (stopped / "metrics.jsonl").write_bytes(b"")
        with pytest.raises(RunError, match=r"metrics\.jsonl: 0 bytes where \d+ are known"):
            train(resume=stopped)

    def test_a_config_changed_afterwards_is_refused(self, stopped):
        path = stopped / "resolved.yaml"
        path.write_text(path.read_text().replace("lr: 0.01", "lr: 0.02"))
        with pytest.raises(ConfigError, match=r"resolved\.yaml: changed after the run began"):
            train(resume=stopped)

    def test_another_machine_is_warned_of(self, stopped, monkeypatch):
        monkeypatch.setattr("cnnctl.train.environment.cpu_model", lambda: "another")
        observer = Warnings()
        train(resume=stopped, observer=observer)
        assert len(observer.messages) == 1
        assert observer.messages[0].startswith("cpu was ")

    def test_two_at_once_are_refused(self, stopped):
        with RunDirectory(stopped).locked(), pytest.raises(RunError, match="is training in it"):
            train(resume=stopped)


class TestFinished:
    def test_is_read_and_nothing_is_touched(self, config, runs_dir):
        first = train(config, runs_dir=runs_dir)
        before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
        assert train(resume=first.path) == first
        assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before

    def test_a_resumed_run_keeps_its_configuration(self, config, runs_dir):
        first = train(config, runs_dir=runs_dir)
        with pytest.raises(ConfigError, match="is not usable with resume: a run has its own"):
            train({}, resume=first.path)
        line = (
            r"^resume: solver\.epochs is 3 and would be 9, engine\.seed is 231 and would be 1; a run goes on"
        )
        with pytest.raises(ConfigError, match=line):
            train(resume=first.path, overrides=["solver.epochs=9", "engine.seed=1"])
        assert train(resume=first.path, overrides=["solver.epochs=3"]) == first

    def test_an_edited_configuration_is_told(self, config, runs_dir, signal_at):
        signal_at(4)
        with pytest.raises(Interrupted):
            train(config, runs_dir=runs_dir)
        (path,) = runs_dir.iterdir()
        file = path / "resolved.yaml"
        file.write_text(file.read_text().replace("epochs: 3", "epochs: 5"))
        with pytest.raises(
            ConfigError, match=r"resolved\.yaml: changed .* \(solver\.epochs was 3 and is 5\)"
        ):
            train(resume=path)


class TestForks:
    """On in a new run, from any checkpoint; the old run stays as it is."""

    def test_more_epochs_end_as_if_they_had_been_asked_for_at_first(self, config, runs_dir, tmp_path):
        """The learning rate being constant."""
        whole = train(config | {"solver": config["solver"] | {"epochs": 5}}, runs_dir=tmp_path / "whole")
        first = train(config, runs_dir=runs_dir)
        before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
        forked = train(resume=first.path, fork=True, overrides=["solver.epochs=5"], runs_dir=runs_dir)
        assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before
        assert forked.path != first.path
        assert (forked.steps, forked.test) == (whole.steps, whole.test)
        for name in ("metrics.jsonl", "metrics.csv"):
            assert (forked.path / name).read_bytes() == (whole.path / name).read_bytes()
        assert (forked.path / INITIAL).read_bytes() == (first.path / INITIAL).read_bytes()
        origin = json.loads((forked.path / "origin.json").read_text())
        assert origin == {"run": str(first.path), "checkpoint": "last", "step": first.steps}

    def test_no_step_left_to_take_is_one_line_and_makes_no_run(self, config, runs_dir):
        config["solver"]["max_steps"] = 3
        first = train(config, runs_dir=runs_dir)
        with pytest.raises(ConfigError, match=r"done 3 steps, and solver\.max_steps is 3; give more with"):
            train(resume=first.path, fork=True, runs_dir=runs_dir)
        assert [path for path in runs_dir.iterdir() if path.is_dir()] == [first.path]

    def test_a_checkpoint_without_a_fork_is_refused(self, config, runs_dir):
        with pytest.raises(ConfigError, match="'best' is where a fork begins"):
            train(config, checkpoint="best", runs_dir=runs_dir)

    def test_from_one_that_was_kept(self, config, runs_dir):
        config["solver"]["checkpoints"] = {"steps": 4, "keep": 9}
        first = train(config, runs_dir=runs_dir)
        settings = {"fork": True, "checkpoint": "step-00000012", "runs_dir": runs_dir}
        same = train(resume=first.path, **settings)
        assert (same.steps, same.test) == (first.steps, first.test)
        assert (same.path / "metrics.jsonl").read_bytes() == (first.path / "metrics.jsonl").read_bytes()
        other = train(resume=first.path, overrides=["solver.optimizer.adam.lr=0.05"], **settings)
        assert other.test != first.test

    @pytest.mark.parametrize(
        ("settings", "line"),
        [
            ({}, "has done all 3 epochs; give more with -o solver.epochs=..."),
            ({"checkpoint": "lst"}, "checkpoint: 'lst' is not known; did you mean last?"),
            ({"overrides": ["solver.epochs=5", "solver.batch_size=9"]}, "fork: an epoch would have 8 steps"),
            (
                {"overrides": ["solver.epochs=5", "network.layers=[{linear: 4}]"]},
                "conv1.bias belongs to another",
            ),
        ],
    )
    def test_what_cannot_be(self, config, runs_dir, settings, line):
        path = train(config, runs_dir=runs_dir).path
        with pytest.raises((ConfigError, CheckpointError)) as caught:
            train(resume=path, fork=True, runs_dir=runs_dir, **settings)
        assert line in str(caught.value)
        assert list(runs_dir.iterdir()) == [path]

    @pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.csv"])
    def test_with_metrics_that_were_cut_short_makes_nothing(self, config, runs_dir, name):
        path = train(config, runs_dir=runs_dir).path
        file = path / name
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(RunError, match=rf"{file}: \d+ bytes where \d+ are known to have been written"):
            train(resume=path, fork=True, overrides=["solver.epochs=5"], runs_dir=runs_dir)
        assert list(runs_dir.iterdir()) == [path]

    def test_there_has_to_be_a_run(self, config):
        with pytest.raises(ConfigError, match="fork: there is no run to go on from"):
            train(config, fork=True)
