"""The solver: steps, epochs, checkpoints, and every way a run can end.

One `Solver` takes one run from where its progress stands to its end. A run that was
stopped or killed and goes on passes through the same states as one that was not: the
order of the images is a pure function of seed and epoch, and all else is in the
checkpoint. A number that is not finite ends the run, and no checkpoint holds one. Reads
no configuration file, decides nothing about the network, prints nothing.
"""

import os
import shlex
from contextlib import closing, suppress
from math import inf
from time import perf_counter

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.data.pipeline import RawBatch
from cnnctl.errors import Diverged, Interrupted, RunError
from cnnctl.optim import Span, scale_step
from cnnctl.train.build import build_schedule
from cnnctl.train.checkpoint import (
    BEST,
    LAST,
    Ending,
    Progress,
    keep_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from cnnctl.train.evaluate import Evaluation, evaluate_split, examine_splits, write_evaluation
from cnnctl.train.experiment import Experiment
from cnnctl.train.memory import predict_peak_bytes
from cnnctl.train.metrics import Metrics, Timing
from cnnctl.train.observer import EpochInfo, Observer, RunInfo, Scores, StepInfo, Summary
from cnnctl.train.run_directory import RunDirectory, State
from cnnctl.train.signals import StopRequest

_REPORT_SECONDS = 0.1
_STATES: dict[type[BaseException], State] = {Interrupted: "interrupted", Diverged: "diverged"}


class Solver:
    """Trains an experiment in a locked run directory.

    Args:
        progress: where the experiment's plan stands. The metrics files are cut to it.
        stop: looked at between two steps.
    """

    def __init__(
        self,
        run: RunDirectory,
        experiment: Experiment,
        progress: Progress,
        *,
        observer: Observer,
        stop: StopRequest,
    ) -> None:
        self._run = run
        self._experiment = experiment
        self._progress = progress
        self._observer = observer
        self._stop = stop
        self._settings = experiment.config.solver
        self._steps_per_epoch = -(-experiment.batches.steps_per_epoch // self._settings.accumulate)
        steps = self._settings.epochs * self._steps_per_epoch
        self._total_steps = min(steps, self._settings.max_steps or steps)
        self._schedule = build_schedule(self._settings.schedule)
        self._span = Span(self._total_steps, self._steps_per_epoch, self._settings.warmup)
        self._epochs = -(-self._total_steps // self._steps_per_epoch)
        self._metrics = Metrics(run.path, progress.jsonl_bytes, progress.csv_bytes)
        self._timing = Timing(run, progress.epoch)
        self._reported_at, self._unreported_images = perf_counter(), 0
        self._saved_at = perf_counter()

    def run(self) -> None:
        """Train to the end, then evaluate the final weights on every split.

        Raises Interrupted after a signal and Diverged after a number that is not finite.
        status.json tells how it ended, whatever the way.
        """
        # Numbers that stop being finite are found and told below, not warned of by numpy.
        with closing(self._metrics), closing(self._timing), np.errstate(all="ignore"):
            try:
                evaluation = self._solve()
            except BaseException as error:
                with suppress(RunError):  # what stopped the run is the error to tell
                    self._record_end(_STATES.get(type(error), "failed"), str(error) or repr(error))
                raise
            self._record_end("finished", f"finished by {self._progress.ended_by}", evaluation)

    def _solve(self) -> Evaluation:
        progress, experiment = self._progress, self._experiment
        self._run.write_status("running", progress.step, progress.epoch)
        self._run.log(f"training from step {progress.step} of {self._total_steps}")
        self._observer.on_start(
            RunInfo(
                run=self._run.path,
                total_steps=self._total_steps,
                steps_per_epoch=self._steps_per_epoch,
                epochs=self._epochs,
                batch_size=experiment.batches.batch_size,
                start_step=progress.step,
                memory_bytes=predict_peak_bytes(experiment.plan),
                parameter_count=experiment.network.parameter_count,
                threads=experiment.backend.threads,
                backend=experiment.backend.name,
            )
        )
        if experiment.batches.batch_size < self._settings.batch_size:
            self._observer.on_warning(
                f"solver.batch_size: {self._settings.batch_size} is more than there are images; "
                f"every batch has all {experiment.batches.batch_size}"
            )
        while not progress.ended_by:
            self._train_epoch()
            self._end_epoch()
        if progress.ended_by == "early_stopping":
            self._restore_best()
        with self._timing.measure("evaluation"):
            evaluation = examine_splits(
                experiment,
                progress.step,
                between=self._stop_if_asked,
                on_scoring=self._observer.on_scoring,
            )
        write_evaluation(self._run, "last", evaluation)
        return evaluation

    def _train_epoch(self) -> None:
        progress = self._progress
        self._reported_at, self._unreported_images = perf_counter(), 0
        first_step = progress.epoch * self._steps_per_epoch
        while progress.position < min(self._steps_per_epoch, self._total_steps - first_step):
            self._take_step()
            if self._is_checkpoint_due():
                self._save(LAST, keep=True)
            self._stop_if_asked()
            if self._is_time_over():
                break

    def _is_checkpoint_due(self) -> bool:
        """Within an epoch; what is due at its end is seen to there."""
        step, every = self._progress.step, self._settings.checkpoints
        if every.steps and step % every.steps == 0:
            return True
        return every.minutes is not None and perf_counter() - self._saved_at >= 60 * every.minutes

    def _is_time_over(self) -> bool:
        minutes = self._settings.max_minutes
        return minutes is not None and self._timing.seconds >= 60 * minutes

    def _take_step(self) -> None:
        progress = self._progress
        batches = self._draw_batches()
        lr = self._settings.optimizer.lr * self._lr_scale
        is_logged = progress.step == 0 or (progress.step + 1) % self._settings.log_every == 0
        plan = self._experiment.plan
        try:
            result = plan.step_over(batches, lr_scale=self._lr_scale, measure=is_logged)
        except Diverged as error:
            raise self._describe_divergence(str(error)) from error
        images = sum(len(labels) for _, labels in batches)
        progress.step += 1
        progress.position += 1
        progress.images += images
        progress.correct += result.correct
        progress.loss_sum += result.loss * images
        if is_logged:
            accuracy = result.correct / images
            self._metrics.add_step(progress.step, progress.epoch + 1, result.loss, accuracy, lr, plan.norms)
        self._report_step(result.loss, images)

    def _draw_batches(self) -> list[tuple[RawBatch, Array]]:
        """The batches of the next step; at the end of an epoch there may be fewer than `accumulate`."""
        source, progress = self._experiment.batches, self._progress
        first = progress.position * self._settings.accumulate
        numbers = range(first, min(first + self._settings.accumulate, source.steps_per_epoch))
        drawn = (source.draw(progress.epoch, number) for number in numbers)
        return [(batch, batch.labels) for batch in drawn]

    @property
    def _lr_scale(self) -> float:
        """What the learning rate of the next step is multiplied by."""
        return self._progress.plateau.scale * scale_step(self._schedule, self._progress.step, self._span)

    def _report_step(self, loss: float, images: int) -> None:
        """Tell the observer, but not so often that it costs anything."""
        self._unreported_images += images
        progress, now = self._progress, perf_counter()
        elapsed = now - self._reported_at
        if elapsed < _REPORT_SECONDS and progress.step < self._total_steps:
            return
        accuracy = progress.correct / progress.images
        speed = self._unreported_images / elapsed
        self._observer.on_step(StepInfo(progress.step, progress.epoch + 1, loss, accuracy, speed))
        self._reported_at, self._unreported_images = now, 0

    def _end_epoch(self) -> None:
        progress = self._progress
        images = progress.images
        train = Scores(progress.loss_sum / images, progress.correct / images, images)
        with self._timing.measure("evaluation"):
            validation = evaluate_split(self._experiment, "validation", self._stop_if_asked)
        epoch = progress.epoch + 1
        self._metrics.add_epoch(progress.step, epoch, train, validation)
        progress.plateau = self._schedule.observe(progress.plateau, (validation or train).loss)
        progress.epoch, progress.position = epoch, 0
        progress.images, progress.correct, progress.loss_sum = 0, 0, 0.0
        seconds = self._timing.end_epoch(epoch, images)

        is_best = validation is not None and self._note_score(validation)
        progress.ended_by = self._find_ending(validation or train)
        every = self._settings.checkpoints
        epochs = every.epochs or (None if every.steps or every.minutes else 1)
        # `best` goes first: if it alone is written, the epoch is done again and ends alike.
        is_due = progress.ended_by or (epochs and epoch % epochs == 0)
        if names := [*[BEST] * is_best, *[LAST] * bool(is_due)]:
            self._save(*names, keep=bool(is_due))
        self._observer.on_epoch(EpochInfo(epoch, self._epochs, train, validation, seconds))

    def _note_score(self, validation: Scores) -> bool:
        """Whether it is the best so far. Epochs that are not better by enough are counted."""
        progress, by_loss = self._progress, self._settings.monitor == "loss"
        score = validation.loss if by_loss else validation.accuracy
        gain = inf if progress.best is None else progress.best - score if by_loss else score - progress.best
        stopping = self._settings.early_stopping
        is_better = gain > (stopping.min_delta if stopping else 0)
        progress.bad_epochs = 0 if is_better else progress.bad_epochs + 1
        if is_better:
            progress.best = score
        return is_better

    def _find_ending(self, scores: Scores) -> Ending | None:
        """What ends the training after this epoch, if anything does."""
        progress, settings = self._progress, self._settings
        if settings.stop_at is not None and scores.accuracy >= settings.stop_at:
            return "stop_at"
        if progress.step >= self._total_steps:
            return "max_steps" if progress.step == settings.max_steps else "epochs"
        if settings.early_stopping and progress.bad_epochs >= settings.early_stopping.patience:
            return "early_stopping"
        return "max_minutes" if self._is_time_over() else None

    def _restore_best(self) -> None:
        """The best epoch's weights in the place of the last one's; slots and place stay."""
        best = load_checkpoint(self._run.checkpoints / BEST)
        self._experiment.plan.load_params(best.params)
        self._experiment.plan.load_statistics(best.statistics)
        self._run.log(f"no better after step {best.metadata.progress.step}: its weights are taken back")
        self._save(LAST)

    def _stop_if_asked(self) -> None:
        if self._stop.signal_number is None:
            return
        self._save(LAST)
        data_dir = self._experiment.data_dir
        options = ["--data-dir", os.fspath(data_dir)] if data_dir else []
        resume = shlex.join(["cnnctl", "train", "--resume", str(self._run.path), *options])
        step = f"step {self._progress.step} of {self._total_steps}"
        raise Interrupted(f"stopped after {step}; go on with: {resume}", self._stop.signal_number)

    def _save(self, *names: str, keep: bool = False) -> None:
        """Write the state as these checkpoints, and as one to keep where the run keeps them.

        Raises Diverged rather than save a NaN. What is due goes before `last`: a run that is cut off
        between them takes up the state before, and writes the same again.
        """
        progress, most_kept = self._progress, self._settings.checkpoints.keep
        with self._timing.measure("checkpoint"):
            progress.jsonl_bytes, progress.csv_bytes = self._metrics.sync()
            checkpoint = self._experiment.capture(progress)
            if key := checkpoint.find_nonfinite():
                raise self._describe_divergence(f"{key} is not finite after step {progress.step}")
            content = checkpoint.pack()
            if LAST in names:
                self._timing.save()
                self._run.write_status("running", progress.step, progress.epoch)
            if keep and most_kept:
                keep_checkpoint(self._run.checkpoints, content, progress.step, most_kept)
            for name in names:
                save_checkpoint(self._run.checkpoints, content, name)
            self._saved_at = perf_counter()

    def _describe_divergence(self, what: str) -> Diverged:
        lr = self._settings.optimizer.lr
        return Diverged(f"diverged: {what}; try a learning rate below {lr:g}")

    def _record_end(self, state: State, message: str, evaluation: Evaluation | None = None) -> None:
        progress = self._progress
        scores = evaluation.scores if evaluation else {}
        summary = Summary(self._run.path, state, progress.step, self._timing.seconds, scores)
        try:
            self._timing.save()
            self._run.write_status(state, progress.step, progress.epoch)
            self._run.log(message)
        finally:
            self._observer.on_done(summary)
