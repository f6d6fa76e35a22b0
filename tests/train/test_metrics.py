"""Metrics repeat bit for bit; timings add up."""

import csv
import json
import math

import pytest

from cnnctl.errors import RunError
from cnnctl.nn.plan import Norms, Plan
from cnnctl.train import metrics as module
from cnnctl.train.api import train
from cnnctl.train.metrics import NEW_FILES, Metrics, Timing
from cnnctl.train.observer import Scores
from cnnctl.train.run_directory import RunDirectory

LENGTHS = (len(NEW_FILES["metrics.jsonl"]), len(NEW_FILES["metrics.csv"]))


@pytest.fixture
def run(tmp_path):
    with RunDirectory.create(tmp_path, "tiny", NEW_FILES) as run:
        return run


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""

    class Clock:
        now = 100.0

        def advance(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", lambda: clock.now)
    return clock


class TestMetrics:
    def test_a_line_a_step_and_a_line_and_a_row_an_epoch(self, run):
        metrics = Metrics(run.path, *LENGTHS)
        metrics.add_step(1, 1, 2.5, 0.25, 0.1, Norms(weight=4.0, gradient=3.0, update=0.5))
        metrics.add_epoch(7, 1, Scores(2.25, 0.5, 64), Scores(2.0, 0.75, 16))
        metrics.add_epoch(14, 2, Scores(1.25, 0.5, 64), None)
        metrics.close()
        assert (run.path / "metrics.jsonl").read_text().splitlines() == [
            '{"type": "step", "step": 1, "epoch": 1, "loss": 2.5, "accuracy": 0.25, "lr": 0.1, '
            '"weight_norm": 4.0, "gradient_norm": 3.0, "update_ratio": 0.125}',
            '{"type": "epoch", "step": 7, "epoch": 1, "train": {"loss": 2.25, "accuracy": 0.5}, '
            '"validation": {"loss": 2.0, "accuracy": 0.75}}',
            '{"type": "epoch", "step": 14, "epoch": 2, "train": {"loss": 1.25, "accuracy": 0.5}, '
            '"validation": null}',
        ]
        assert (run.path / "metrics.csv").read_text().splitlines() == [
            "epoch,step,train_loss,train_accuracy,validation_loss,validation_accuracy",
            "1,7,2.25,0.5,2.0,0.75",
            "2,14,1.25,0.5,,",
        ]

    def test_reopened_at_a_length_they_go_on_from_there(self, run):
        metrics = Metrics(run.path, *LENGTHS)
        metrics.add_step(1, 1, 2.5, 0.25, 0.1, None)
        lengths = metrics.sync()
        before = (run.path / "metrics.jsonl").read_bytes()
        metrics.add_step(2, 1, 9.0, 0.0, 0.1, None)
        metrics.close()
        Metrics(run.path, *lengths).close()
        assert (run.path / "metrics.jsonl").read_bytes() == before

    def test_every_float_is_written_so_that_it_reads_back_the_same(self, run):
        metrics = Metrics(run.path, *LENGTHS)
        metrics.add_step(1, 1, 0.1 + 0.2, 1 / 3, 1e-3, None)
        metrics.close()
        entry = json.loads((run.path / "metrics.jsonl").read_text())
        assert (entry["loss"], entry["accuracy"]) == (0.1 + 0.2, 1 / 3)

    @pytest.mark.parametrize("norms", [Norms(0.0, math.inf, 1.0), Norms(0.0, math.nan, 0.0)])
    def test_norms_that_are_not_finite_are_null(self, run, norms):
        metrics = Metrics(run.path, *LENGTHS)
        metrics.add_step(1, 1, 2.5, 0.25, 0.1, norms)
        metrics.close()
        entry = json.loads((run.path / "metrics.jsonl").read_text())
        assert (entry["weight_norm"], entry["gradient_norm"], entry["update_ratio"]) == (0.0, None, None)

    def test_only_steps_that_are_logged_are_measured(self, config, tmp_path, monkeypatch):
        measured, original = [], Plan.step_over

        def step(self, batches, **settings):
            measured.append(settings["measure"])
            return original(self, batches, **settings)

        monkeypatch.setattr(Plan, "step_over", step)
        config["solver"]["log_every"] = 5
        run = train(config, runs_dir=tmp_path)
        assert [step for step, yes in enumerate(measured, 1) if yes] == [1, 5, 10, 15, 20]
        entries = [entry for entry in run.metrics() if entry["type"] == "step"]
        assert all(0 < entry["update_ratio"] < 0.5 < entry["weight_norm"] for entry in entries)

    def test_steps_are_logged_first_and_at_intervals(self, config, tmp_path):
        config["solver"]["log_every"] = 5
        run = train(config, runs_dir=tmp_path)
        steps = [entry["step"] for entry in run.metrics() if entry["type"] == "step"]
        assert steps == [1, 5, 10, 15, 20]


class TestTiming:
    def test_the_parts_add_up(self, run, clock):
        timing = Timing(run, 0)
        clock.advance(2)
        with timing.measure("evaluation"):
            clock.advance(3)
            with timing.measure("checkpoint"):
                clock.advance(5)
            clock.advance(7)
        clock.advance(11)
        timing.save()
        parts = {"train_seconds": 13.0, "evaluation_seconds": 10.0, "checkpoint_seconds": 5.0}
        assert json.loads((run.path / "timing.json").read_text()) == {
            "seconds": 28.0,
            "run": parts,
            "epoch": parts,
        }

    def test_a_row_an_epoch(self, run, clock):
        timing = Timing(run, 0)
        for epoch in (1, 2):
            clock.advance(epoch)
            with timing.measure("evaluation"):
                clock.advance(0.5)
            assert timing.end_epoch(epoch, 64) == epoch + 0.5
        timing.close()
        assert (run.path / "timing.csv").read_text().splitlines() == [
            "epoch,train_seconds,evaluation_seconds,images_per_second",
            "1,1.000000,0.500000,64.0",
            "2,2.000000,0.500000,32.0",
        ]

    def test_an_epoch_that_was_stopped_keeps_its_time_and_an_undone_one_loses_its_row(self, run, clock):
        timing = Timing(run, 0)
        clock.advance(1)
        timing.end_epoch(1, 64)
        clock.advance(2)
        timing.save()
        clock.advance(100)
        timing.end_epoch(2, 64)
        timing.close()

        timing = Timing(run, 1)
        clock.advance(3)
        timing.end_epoch(2, 64)
        timing.close()
        with (run.path / "timing.csv").open() as file:
            assert [row["train_seconds"] for row in csv.DictReader(file)] == ["1.000000", "5.000000"]
        assert timing.seconds == 6.0

    @pytest.mark.parametrize("text", ["", "[]", '{"seconds": -1}', '{"run": 1}'])
    def test_a_damaged_file_is_one_line(self, run, text):
        (run.path / "timing.json").write_text(text)
        with pytest.raises(RunError, match=r"timing\.json: [^\n]*$"):
            Timing(run, 0)
