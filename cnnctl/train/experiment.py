"""An experiment: a configuration made real, and its state taken out and put back.

Holds data, network, backend and plan together. It runs nothing and touches no file.
"""

import os
from dataclasses import dataclass, replace

from cnnctl.backends.base import Backend
from cnnctl.config import RunConfig
from cnnctl.data import Batches, Normalizer, Split, Splits
from cnnctl.nn import Network
from cnnctl.nn.plan import Plan
from cnnctl.train.checkpoint import Checkpoint, Metadata, Progress
from cnnctl.train.environment import describe_engine

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that one configuration stands for.

    Attributes:
        resolved: the configuration as text, with everything filled in.
        data_dir: where data sets were asked to be looked for first.
        classes: the name of class k at position k.
        splits: the images; the validation split may be empty.
        batches: the training split in its reproducible order.
        plan: owns the parameters; those of `network` are where they started.
    """

    config: RunConfig
    resolved: str
    data_dir: str | os.PathLike[str] | None
    classes: tuple[str, ...]
    splits: Splits
    normalizer: Normalizer
    batches: Batches
    network: Network
    backend: Backend
    plan: Plan

    def get_split(self, name: str) -> Split:
        """The split of that name, one of SPLITS."""
        split: Split = getattr(self.splits, name)
        return split

    def capture(self, progress: Progress) -> Checkpoint:
        """The state between two steps."""
        metadata = Metadata(
            progress=replace(progress),
            config=self.resolved,
            seed=self.config.engine.seed,
            engine=describe_engine(self.backend, self.config.engine.dtype),
        )
        plan, normalizer = self.plan, self.normalizer
        arrays = (plan.export_params(), plan.export_statistics(), plan.export_slots())
        return Checkpoint(metadata, *arrays, normalizer.scale, normalizer.shift)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint's weights, statistics, slots and step count into the plan.

        Raises CheckpointError, before anything changes, when it belongs to another network.
        """
        checkpoint.check_fit(self.capture(checkpoint.metadata.progress))
        self.plan.load_params(checkpoint.params)
        self.plan.load_statistics(checkpoint.statistics)
        self.plan.load_slots(checkpoint.slots)
        self.plan.step_count = checkpoint.metadata.progress.step
