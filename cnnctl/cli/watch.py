"""How a training is followed while it runs, and told when it has ended.

Shared by all commands that train, score or open a run; computes nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnctl.cli import display
from cnnctl.train.observer import EpochInfo, RunInfo, StepInfo

if TYPE_CHECKING:
    from cnnctl.train.api import Run

SPLITS = ("train", "validation", "test")


class Watcher(display.TrainProgress):
    """The usual progress, or warnings alone; remembers which run it is."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        self.run: Path | None = None
        self._quiet = quiet
        self._downloads = display.DownloadProgress()

    def on_download(self, file_name: str, done_bytes: int, total_bytes: int) -> None:
        if not self._quiet:
            self._downloads(file_name, done_bytes, total_bytes)

    def on_start(self, info: RunInfo) -> None:
        self.run = info.run
        if not self._quiet:
            super().on_start(info)

    def on_step(self, info: StepInfo) -> None:
        if not self._quiet:
            super().on_step(info)

    def on_epoch(self, info: EpochInfo) -> None:
        if not self._quiet:
            super().on_epoch(info)

    def on_scoring(self, split: str, images: int) -> None:
        if not self._quiet:
            super().on_scoring(split, images)

    def close(self) -> None:
        super().close()
        self._downloads.close()


def describe_run(command: str, run: "Run") -> dict[str, Any]:
    """The JSON document of `train`, and what that of `eval` begins with."""
    scores = {name: getattr(run, name) for name in SPLITS}
    return {
        "schema": 1,
        "command": command,
        "run": str(run.path),
        "status": run.status,
        "steps": run.steps,
        "seconds": run.seconds,
        **{name: s and {"loss": s.loss, "accuracy": s.accuracy} for name, s in scores.items()},
    }


def print_scores(run: "Run") -> None:
    """A table with a row for each split that has images."""
    splits = [(name, getattr(run, name)) for name in SPLITS]
    rows = [(name, f"{s.loss:.4f}", f"{100 * s.accuracy:.2f} %", f"{s.images:,}") for name, s in splits if s]
    display.print_table("", ("split", "loss", "accuracy", "images"), rows)
