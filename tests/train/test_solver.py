"""What a run does on its way: steps, epochs, checkpoints, reports; and how it ends badly."""

import errno
import json
import math
import os
import signal
import threading
from copy import deepcopy
from itertools import count

import numpy as np
import pytest

from cnnctl.errors import Diverged, Interrupted, RunError
from cnnctl.nn.plan import Plan, StepResult
from cnnctl.optim import SGD, PlateauState, ReduceOnPlateau
from cnnctl.train import solver as module
from cnnctl.train.api import Run, train
from cnnctl.train.checkpoint import BEST, LAST, load_checkpoint, save_checkpoint
from cnnctl.train.metrics import Timing
from cnnctl.train.observer import Observer
from cnnctl.train.run_directory import RunDirectory

STEPS_PER_EPOCH, TOTAL_STEPS = 7, 21


class Recorder(Observer):
    """Keeps everything it hears."""

    def __init__(self):
        self.starts, self.steps, self.epochs, self.ends = [], [], [], []
        self.scorings, self.warnings = [], []

    def on_start(self, info):
        self.starts.append(info)

    def on_step(self, info):
        self.steps.append(info)

    def on_epoch(self, info):
        self.epochs.append(info)

    def on_scoring(self, split, images):
        self.scorings.append((split, images))

    def on_warning(self, message):
        self.warnings.append(message)

    def on_done(self, summary):
        self.ends.append(summary)


@pytest.fixture
def recorder():
    return Recorder()


def run_with(config, tmp_path, observer=None, **solver):
    config["solver"].update(solver)
    return train(config, runs_dir=tmp_path / "runs", observer=observer)


def saved_steps(monkeypatch):
    """The (name, step) of every checkpoint written from now on."""
    written = []

    def note(directory, content, name=LAST):
        save_checkpoint(directory, content, name)
        written.append((name, load_checkpoint(directory / name).metadata.progress.step))

    monkeypatch.setattr(module, "save_checkpoint", note)
    return written


class TestReports:
    def test_the_start(self, config, tmp_path, recorder):
        run = run_with(config, tmp_path, recorder)
        (info,) = recorder.starts
        assert (info.run, info.total_steps, info.steps_per_epoch, info.epochs) == (run.path, 21, 7, 3)
        assert (info.batch_size, info.start_step, info.threads, info.backend) == (10, 0, 1, "im2col")
        assert info.parameter_count == (9 + 1) * 3 + (27 + 1) * 4
        assert info.memory_bytes > 0

    def test_the_directory_is_complete_before_the_first_step(self, config, tmp_path):
        found = []

        class Looker(Observer):
            def on_start(self, info):
                found.extend(str(path.relative_to(info.run)) for path in info.run.rglob("*"))
                assert load_checkpoint(info.run / "checkpoints" / LAST).metadata.progress.step == 0

        run_with(config, tmp_path, Looker())
        assert sorted(found) == [
            "checkpoints",
            "checkpoints/last.safetensors",
            "config.yaml",
            "data.json",
            "env.json",
            "eval",
            "initial.safetensors",
            "lock",
            "log.txt",
            "metrics.csv",
            "metrics.jsonl",
            "resolved.yaml",
            "status.json",
            "timing.csv",
            "timing.json",
        ]

    def test_steps_are_reported_when_time_has_passed_and_at_the_end(
        self, config, tmp_path, recorder, monkeypatch
    ):
        monkeypatch.setattr(module, "_REPORT_SECONDS", 1e9)
        run_with(config, tmp_path, recorder)
        assert [info.step for info in recorder.steps] == [TOTAL_STEPS]

    def test_every_step_is_reported_when_each_is_slow(self, config, tmp_path, recorder, monkeypatch):
        monkeypatch.setattr(module, "_REPORT_SECONDS", 0)
        run_with(config, tmp_path, recorder)
        assert [info.step for info in recorder.steps] == list(range(1, TOTAL_STEPS + 1))
        assert {info.epoch for info in recorder.steps} == {1, 2, 3}
        assert all(info.images_per_second > 0 for info in recorder.steps)

    def test_the_final_scoring_is_announced(self, config, tmp_path, recorder):
        run_with(config, tmp_path, recorder, epochs=1)
        assert recorder.scorings == [("train", 64), ("validation", 16), ("test", 20)]
        assert recorder.warnings == []

    def test_a_batch_of_more_images_than_there_are_is_warned_of(self, config, tmp_path, recorder):
        run_with(config, tmp_path, recorder, epochs=1, batch_size=65)
        assert recorder.warnings == [
            "solver.batch_size: 65 is more than there are images; every batch has all 64"
        ]

    def test_an_epoch_sums_up_its_own_steps(self, config, tmp_path, recorder, monkeypatch):
        results = []
        original = Plan.step_over

        def step(self, batches, **settings):
            results.append((original(self, batches, **settings), sum(len(x) for x, _ in batches)))
            return results[-1][0]

        monkeypatch.setattr(Plan, "step_over", step)
        run_with(config, tmp_path, recorder)
        assert [size for _, size in results[:STEPS_PER_EPOCH]] == [10] * 6 + [4]
        for number, info in enumerate(recorder.epochs):
            epoch = results[number * STEPS_PER_EPOCH :][:STEPS_PER_EPOCH]
            assert (info.epoch, info.epochs) == (number + 1, 3)
            assert info.train.loss == pytest.approx(sum(r.loss * n for r, n in epoch) / 64)
            assert info.train.accuracy == sum(r.correct for r, _ in epoch) / 64
            assert info.validation.images == 16

    def test_the_end_tells_the_final_scores(self, config, tmp_path, recorder):
        run = run_with(config, tmp_path, recorder)
        (summary,) = recorder.ends
        assert (summary.run, summary.status, summary.steps) == (run.path, "finished", TOTAL_STEPS)
        assert summary.scores == {"train": run.train, "validation": run.validation, "test": run.test}
        assert [scores.images for scores in summary.scores.values()] == [64, 16, 20]

    def test_an_observer_that_fails_fails_the_run(self, config, tmp_path):
        class Broken(Observer):
            def on_epoch(self, info):
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            run_with(config, tmp_path, Broken())
        (path,) = (tmp_path / "runs").iterdir()
        assert Run.read(path).status == "failed"
        assert "broken" in (path / "log.txt").read_text()


class TestLength:
    def test_max_steps_ends_within_an_epoch(self, config, tmp_path, recorder):
        run = run_with(config, tmp_path, recorder, max_steps=10)
        assert run.steps == 10
        assert [info.epoch for info in recorder.epochs] == [1, 2]
        assert load_checkpoint(run.path / "checkpoints" / LAST).metadata.progress.step == 10

    def test_max_steps_beyond_the_end_changes_nothing(self, config, tmp_path):
        assert run_with(config, tmp_path, max_steps=1000).steps == TOTAL_STEPS

    def test_a_batch_larger_than_the_data_is_all_of_it(self, config, tmp_path):
        assert run_with(config, tmp_path, batch_size=1000).steps == 3

    def test_it_learns(self, config, tmp_path):
        config["data"]["augment"] = {"shift": 0}
        run = run_with(config, tmp_path, epochs=15, optimizer={"adam": {"lr": 0.03}})
        assert run.train.accuracy > 0.9
        assert run.train.loss < 0.5 * math.log(4)


def read_rates(run):
    """The learning rate of every step, as the metrics have it."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [line["lr"] for line in map(json.loads, lines) if line["type"] == "step"]


class TestSchedules:
    """Of 21 steps, in 3 epochs of 7."""

    @pytest.mark.parametrize(
        ("settings", "rates"),
        [
            ({}, [0.5] * 21),
            ({"schedule": {"exponential": 0.5}}, [0.5] * 7 + [0.25] * 7 + [0.125] * 7),
            ({"schedule": {"multistep": [1, 2.5]}}, [0.5] * 7 + [0.05] * 11 + [0.005] * 3),
            ({"warmup": 4}, [0.125, 0.25, 0.375] + [0.5] * 18),
            ({"schedule": "polynomial", "max_steps": 10}, [0.5 * (1 - step / 10) for step in range(10)]),
        ],
    )
    def test_metrics_tell_the_rate_that_was_used(self, config, tmp_path, settings, rates, monkeypatch):
        used, original = [], SGD.update

        def update(self, *args):
            used.append(self.lr * args[-1])
            return original(self, *args)

        monkeypatch.setattr(SGD, "update", update)
        run = run_with(config, tmp_path, optimizer={"sgd": {"lr": 0.5}}, log_every=1, **settings)
        assert read_rates(run) == pytest.approx(rates)
        assert used[::2] == read_rates(run)  # of weights; then of biases

    @pytest.mark.parametrize("validation", [0, 16])
    def test_a_plateau_is_one_of_the_validation_loss_if_there_is_one(
        self, config, tmp_path, validation, recorder
    ):
        config["data"]["validation"] = validation
        plateau = {"plateau": {"factor": 0.5, "patience": 0, "threshold": 0.2}}
        run = run_with(config, tmp_path, recorder, schedule=plateau, epochs=6, log_every=1)
        state, rates = PlateauState(), [0.01]
        for info in recorder.epochs:
            loss = (info.validation if validation else info.train).loss
            state = ReduceOnPlateau(0.5, 0, 0.2).observe(state, loss)
            rates.append(0.01 * state.scale)
        steps = len(read_rates(run)) // 6
        assert read_rates(run)[::steps] == rates[:-1]
        assert 1 < len(set(rates[:-1])) < 6


class TestAccumulation:
    def test_steps_see_several_batches_and_the_last_what_is_left(
        self, config, tmp_path, recorder, monkeypatch
    ):
        sizes, original = [], Plan.step_over

        def step(self, batches, **settings):
            sizes.append([len(x) for x, _ in batches])
            return original(self, batches, **settings)

        monkeypatch.setattr(Plan, "step_over", step)
        run_with(config, tmp_path, recorder, accumulate=3)
        assert sizes == 3 * [[10, 10, 10], [10, 10, 10], [4]]
        assert (recorder.starts[0].steps_per_epoch, recorder.starts[0].total_steps) == (3, 9)
        assert [info.train.images for info in recorder.epochs] == [64] * 3

    def test_equals_batches_as_many_times_the_size(self, config, tmp_path, recorder):
        config["engine"]["dtype"] = "float64"
        other = Recorder()
        run_with(deepcopy(config), tmp_path, recorder, accumulate=3)
        run_with(config, tmp_path, other, batch_size=30)
        for ours, theirs in zip(recorder.epochs, other.epochs, strict=True):
            assert ours.train.loss == pytest.approx(theirs.train.loss, rel=1e-10)
            assert ours.validation.accuracy == theirs.validation.accuracy


class TestEndings:
    """What else than the last epoch can end a training."""

    def test_the_last_epoch_or_step(self, config, tmp_path):
        for settings, ended_by in (({}, "epochs"), ({"max_steps": 9}, "max_steps")):
            run = run_with(deepcopy(config), tmp_path, **settings)
            assert read_progress(run).ended_by == ended_by
            assert f"finished by {ended_by}" in (run.path / "log.txt").read_text()

    def test_an_accuracy_that_was_wanted(self, config, tmp_path, recorder):
        run_with(deepcopy(config), tmp_path, recorder, epochs=8)
        accuracies = [info.validation.accuracy for info in recorder.epochs]
        wanted = accuracies[3]
        first = next(i for i, accuracy in enumerate(accuracies) if accuracy >= wanted)
        run = run_with(config, tmp_path, epochs=8, stop_at=wanted)
        assert (run.status, run.steps) == ("finished", (first + 1) * STEPS_PER_EPOCH)
        assert read_progress(run).ended_by == "stop_at"

    def test_without_validation_it_is_that_of_training(self, config, tmp_path):
        config["data"]["validation"] = 0
        run = run_with(config, tmp_path, stop_at=1e-9)
        assert read_progress(run).epoch == 1

    def test_a_time_that_is_over(self, config, tmp_path, monkeypatch):
        """In the middle of an epoch; what there is of it is scored and written down."""
        monkeypatch.setattr(Timing, "seconds", property(lambda self: 60.0 * len(steps)))
        steps, take = [], module.Solver._take_step

        def count(self):
            steps.append(0)
            take(self)

        monkeypatch.setattr(module.Solver, "_take_step", count)
        run = run_with(config, tmp_path, max_minutes=9)
        assert (run.status, run.steps) == ("finished", 9)
        assert read_progress(run).ended_by == "max_minutes"
        assert [entry["epoch"] for entry in run.metrics() if entry["type"] == "epoch"] == [1, 2]
        assert run.test is not None

    @pytest.mark.parametrize("monitor", ["accuracy", "loss"])
    def test_no_better_one_for_too_long(self, config, tmp_path, recorder, monitor):
        """The best epoch's weights are taken back, and scored."""
        config["solver"]["optimizer"] = {"adam": {"lr": 0.3}}
        run = run_with(config, tmp_path, recorder, epochs=40, monitor=monitor, early_stopping={"patience": 3})
        scores = [getattr(info.validation, monitor) for info in recorder.epochs]
        best = int(np.argmax(scores) if monitor == "accuracy" else np.argmin(scores))
        assert len(scores) == best + 1 + 3 < 40
        progress = read_progress(run)
        assert (progress.ended_by, progress.bad_epochs, progress.best) == ("early_stopping", 3, scores[best])
        assert getattr(run.validation, monitor) == scores[best]
        weights = [run.network(name).params for name in ("last", "best")]
        assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])

    def test_a_better_one_by_too_little_is_none(self, config, tmp_path):
        run = run_with(config, tmp_path, epochs=40, early_stopping={"patience": 2, "min_delta": 2.0})
        assert read_progress(run).epoch == 3

    def test_an_ending_is_not_undone_by_resuming(self, config, tmp_path, monkeypatch):
        """Stopped between the decision and the end: it ends there, and alike."""
        settings = {"epochs": 40, "early_stopping": {"patience": 1}}
        config["solver"]["optimizer"] = {"adam": {"lr": 0.3}}
        whole = run_with(deepcopy(config), tmp_path / "whole", **settings)
        restore = module.Solver._restore_best

        def stop(solver):
            signal.raise_signal(signal.SIGINT)
            solver._stop_if_asked()

        monkeypatch.setattr(module.Solver, "_restore_best", stop)
        with pytest.raises(Interrupted):
            run_with(config, tmp_path / "cut", **settings)
        monkeypatch.setattr(module.Solver, "_restore_best", restore)
        (path,) = (tmp_path / "cut" / "runs").iterdir()
        resumed = train(resume=path)
        assert resumed.steps == whole.steps
        assert resumed.validation == whole.validation


def read_progress(run):
    return load_checkpoint(run.path / "checkpoints" / LAST).metadata.progress


class TestCheckpoints:
    def test_once_an_epoch(self, config, tmp_path, monkeypatch):
        written = saved_steps(monkeypatch)
        run_with(config, tmp_path)
        assert [step for name, step in written if name == LAST] == [7, 14, 21]

    def test_every_few_steps_and_at_the_end(self, config, tmp_path, monkeypatch):
        written = saved_steps(monkeypatch)
        run_with(config, tmp_path, checkpoints={"steps": 5})
        assert [step for name, step in written if name == LAST] == [5, 10, 15, 20, 21]

    def test_every_few_epochs_and_at_the_end(self, config, tmp_path, monkeypatch):
        written = saved_steps(monkeypatch)
        run_with(config, tmp_path, checkpoints={"epochs": 2})
        assert [step for name, step in written if name == LAST] == [14, 21]

    def test_every_few_minutes_and_at_the_end(self, config, tmp_path, monkeypatch):
        """By a clock that goes on by twenty seconds at each look."""
        clock = count(0.0, 20.0)
        monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
        written = saved_steps(monkeypatch)
        run_with(config, tmp_path, checkpoints={"minutes": 2})
        steps = [step for name, step in written if name == LAST]
        assert 3 < len(steps) < 15
        assert steps[-1] == 21

    def test_older_ones_are_kept_under_their_steps(self, config, tmp_path):
        run = run_with(config, tmp_path, checkpoints={"steps": 5, "keep": 2})
        names = sorted(path.name for path in (run.path / "checkpoints").glob("step-*"))
        assert names == ["step-00000020.safetensors", "step-00000021.safetensors"]
        kept = load_checkpoint(run.path / "checkpoints" / names[0])
        assert kept.metadata.progress.step == 20

    def test_best_is_that_of_the_best_validation_accuracy(self, config, tmp_path, recorder, monkeypatch):
        written = saved_steps(monkeypatch)
        run = run_with(config, tmp_path, recorder, epochs=8)
        accuracies = [info.validation.accuracy for info in recorder.epochs]
        best = int(np.argmax(accuracies))
        assert [step for name, step in written if name == BEST][-1] == (best + 1) * STEPS_PER_EPOCH
        progress = load_checkpoint(run.path / "checkpoints" / BEST).metadata.progress
        assert progress.best == accuracies[best]

    def test_without_validation_there_is_no_best(self, config, tmp_path):
        config["data"]["validation"] = 0
        run = run_with(config, tmp_path)
        assert not (run.path / "checkpoints" / BEST).exists()
        assert run.validation is None

    def test_they_hold_what_the_plan_holds(self, config, tmp_path, monkeypatch):
        plans = []
        original = Plan.__init__

        def remember(self, *args, **kwargs):
            plans.append(self)
            original(self, *args, **kwargs)

        monkeypatch.setattr(Plan, "__init__", remember)
        run = run_with(config, tmp_path)
        (plan,) = plans
        checkpoint = load_checkpoint(run.path / "checkpoints" / LAST)
        assert checkpoint.metadata.progress.step == plan.step_count == TOTAL_STEPS
        for have, want in (
            (checkpoint.params, plan.export_params()),
            (checkpoint.slots, plan.export_slots()),
        ):
            assert have.keys() == want.keys()
            assert all(np.array_equal(have[key], want[key]) for key in want)


class TestDivergence:
    def check(self, tmp_path, caught):
        (path,) = (tmp_path / "runs").iterdir()
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
        assert Run.read(path).status == "diverged"
        for checkpoint in (path / "checkpoints").iterdir():
            assert load_checkpoint(checkpoint).find_nonfinite() is None
        return path

    @pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
    def test_a_huge_learning_rate_names_step_and_layer(self, config, tmp_path):
        message = r"^diverged: the loss of step \d+ is (nan|inf): the output of \w+ is not finite; "
        with pytest.raises(Diverged, match=message + r"try a learning rate below 1e\+30$") as caught:
            run_with(config, tmp_path, optimizer={"sgd": {"lr": 1e30}})
        self.check(tmp_path, caught)

    def test_the_loss_of_one_step_is_enough(self, config, tmp_path, monkeypatch):
        original = Plan._run_loss

        def run(self, labels):
            result = original(self, labels)
            return StepResult(math.nan, result.correct) if self.step_count == 9 else result

        monkeypatch.setattr(Plan, "_run_loss", run)
        with pytest.raises(Diverged, match="diverged: the loss of step 10 is nan: the output of") as caught:
            run_with(config, tmp_path)
        path = self.check(tmp_path, caught)
        assert RunDirectory(path).read_status().step == 9

    def test_resuming_goes_on_from_the_last_whole_state_and_diverges_again(
        self, config, tmp_path, monkeypatch
    ):
        original = Plan._clip

        def clip(self):
            if self.step_count == 16:
                self._gradients[0] = np.inf
            return original(self)

        monkeypatch.setattr(Plan, "_clip", clip)
        message = r"^diverged: the gradient of conv1\.weight is not finite in step 17; try a"
        with pytest.raises(Diverged, match=message) as caught:
            run_with(config, tmp_path, checkpoints={"steps": 5, "keep": 3})
        path = self.check(tmp_path, caught)
        assert load_checkpoint(path / "checkpoints" / LAST).metadata.progress.step == 15
        with pytest.raises(Diverged) as again:
            train(resume=path)
        assert str(again.value) == str(caught.value)
        self.check(tmp_path, again)
        monkeypatch.setattr(Plan, "_clip", original)
        assert train(resume=path).steps == TOTAL_STEPS

    @pytest.mark.parametrize("group", ["params", "slots"])
    def test_weights_and_slots_are_looked_at_before_they_are_saved(
        self, config, tmp_path, monkeypatch, group
    ):
        original = getattr(Plan, f"export_{group}")

        def export(self):
            arrays = original(self)
            if self.step_count == 14:
                next(iter(arrays.values())).flat[0] = np.inf
            return arrays

        monkeypatch.setattr(Plan, f"export_{group}", export)
        with pytest.raises(Diverged, match=r"conv1\.weight is not finite after step 14") as caught:
            run_with(config, tmp_path)
        path = self.check(tmp_path, caught)
        assert load_checkpoint(path / "checkpoints" / LAST).metadata.progress.step == 7

    def test_an_evaluation_that_overflows_counts_too(self, config, tmp_path, monkeypatch):
        monkeypatch.setattr(Plan, "evaluate", lambda self, x, labels: StepResult(math.inf, 0))
        message = "validation: the loss is inf: the network's scores overflow float32 in it"
        with pytest.raises(Diverged, match=message) as caught:
            run_with(config, tmp_path)
        self.check(tmp_path, caught)

    def test_an_evaluation_names_the_layer(self, config, tmp_path, monkeypatch):
        """A weight that is lost between the last step of an epoch and its scores."""
        original = Plan.step_over

        def step(self, batches, **settings):
            result = original(self, batches, **settings)
            if self.step_count == STEPS_PER_EPOCH:
                self.load_params({key: w + math.nan for key, w in self.export_params().items()})
            return result

        monkeypatch.setattr(Plan, "step_over", step)
        message = r"^validation: the loss is nan: conv1\.weight is not finite$"
        with pytest.raises(Diverged, match=message) as caught:
            run_with(config, tmp_path)
        self.check(tmp_path, caught)


class TestFullDisk:
    @pytest.fixture
    def fill(self, monkeypatch):
        """Every write fails from the n-th fsync on, until the disk is emptied."""
        fsync = os.fsync
        state: dict[str, int | None] = {"left": None}

        def failing(descriptor):
            if state["left"] is not None:
                state["left"] -= 1
                if state["left"] <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)
        return lambda count: state.update(left=count)

    @pytest.mark.parametrize("nth", [1, 6, 11])
    def test_ends_in_one_line_and_the_last_checkpoint_still_loads(
        self, config, tmp_path, unbroken, read_outcome, fill, nth
    ):
        class Filler(Observer):
            def on_epoch(self, info):
                if info.epoch == 1:
                    fill(nth)

        with pytest.raises(RunError, match=r"^[^\n]*: No space left on device$"):
            run_with(config, tmp_path, Filler())
        (path,) = (tmp_path / "runs").iterdir()
        assert load_checkpoint(path / "checkpoints" / LAST).metadata.progress.step >= STEPS_PER_EPOCH
        fill(None)
        assert read_outcome(train(resume=path).path) == unbroken


def test_runs_in_other_threads_leave_signals_alone(config, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run_with(config, tmp_path)))
    thread.start()
    thread.join()
    assert results[0].status == "finished"


def test_status_and_log_tell_the_story(config, tmp_path):
    run = run_with(config, tmp_path)
    status = json.loads((run.path / "status.json").read_text())
    assert list(status) == ["state", "step", "epoch", "pid", "started", "updated"]
    assert (status["state"], status["step"], status["epoch"]) == ("finished", TOTAL_STEPS, 3)
    log = [line.split(" ", 1)[1] for line in (run.path / "log.txt").read_text().splitlines()]
    assert log == ["created", "training from step 0 of 21", "finished by epochs"]
