"""What a training run tells whoever watches it.

The solver reports, an observer listens: a progress bar, a log, a test. These classes
carry figures and do nothing with them; nothing here prints, and nothing an observer
does changes the run.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a network does on a set of images.

    Attributes:
        loss: mean loss per image, in nats if it is cross-entropy; penalties excepted, but for
            `EpochInfo.train`.
        accuracy: fraction of the images whose highest score is that of their label.
        images: how many images were scored.
    """

    loss: float
    accuracy: float
    images: int = 0


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run that is about to begin, or to go on.

    Attributes:
        run: the run directory.
        total_steps: the step after which the run is finished.
        start_step: the step it goes on from; 0 for a new run.
        memory_bytes: the most the process is going to have resident.
        threads: how many threads the backend uses.
        backend: its name.
    """

    run: Path
    total_steps: int
    steps_per_epoch: int
    epochs: int
    batch_size: int
    start_step: int
    memory_bytes: int
    parameter_count: int
    threads: int
    backend: str


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One step is done, counted from 1. `accuracy` runs over the epoch so far."""

    step: int
    epoch: int
    loss: float
    accuracy: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class EpochInfo:
    """One epoch is done, counted from 1.

    Attributes:
        train: mean over the epoch's own steps, penalty included in the loss.
        validation: the held-out images after the epoch, or None without any.
        seconds: wall clock of the epoch's steps and its evaluation.
    """

    epoch: int
    epochs: int
    train: Scores
    validation: Scores | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    Attributes:
        run: the run directory.
        status: finished, interrupted, diverged or failed.
        steps: steps done over the whole life of the run.
        seconds: wall clock spent in the solver, over the whole life of the run.
        scores: split name -> scores of the final weights; empty unless finished.
    """

    run: Path
    status: str
    steps: int
    seconds: float
    scores: dict[str, Scores] = field(default_factory=dict)


class Observer:
    """Listens to a run. Override what you want to hear; the rest is ignored."""

    def on_download(self, file_name: str, done_bytes: int, total_bytes: int) -> None:
        """A data set that was missing is on its way."""

    def on_start(self, info: RunInfo) -> None:
        """The run directory is complete and the first step is next."""

    def on_step(self, info: StepInfo) -> None:
        """A step is done. Called at most about ten times a second."""

    def on_epoch(self, info: EpochInfo) -> None:
        """An epoch is done and evaluated."""

    def on_scoring(self, split: str, images: int) -> None:
        """All steps are done; the final weights are about to be scored on a whole split."""

    def on_warning(self, message: str) -> None:
        """Something is odd, but the run goes on."""

    def on_done(self, summary: Summary) -> None:
        """The run ended: finished, or stopped cleanly."""
