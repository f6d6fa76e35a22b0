"""A config trained by PyTorch: same weights at first, same batches, same schedule; another engine."""

import time
from pathlib import Path

import torch
from torch import nn

from cnnctl.backends.specs import LossSpec
from cnnctl.bench.torch_peer import build_module, compute_loss, create_optimizer, split_parameters
from cnnctl.config import load_config
from cnnctl.data import RawBatch, iterate_batches
from cnnctl.optim import Span, scale_step
from cnnctl.train.build import build_experiment, build_schedule
from cnnctl.train.experiment import SPLITS, Experiment
from cnnctl.train.observer import Observer
from tests.zoo.table import Figures

EVALUATION_BATCH = 500


def train_peer(config: Path, overrides: list[str]) -> Figures:
    """Figures of one run. Raises ConfigError for what PyTorch has no like of."""
    experiment = build_experiment(load_config(config, overrides), "", data_dir=None, observer=Observer())
    solver, batches, network = experiment.config.solver, experiment.batches, experiment.network
    torch.set_num_threads(experiment.backend.threads)
    model = build_module(network.layers).to(memory_format=torch.channels_last)
    optimizer = create_optimizer(solver.optimizer, *split_parameters(model), solver.l2)
    schedule = build_schedule(solver.schedule)
    span = Span(solver.epochs * batches.steps_per_epoch, batches.steps_per_epoch, solver.warmup)
    start = time.monotonic()
    for step in range(span.steps):
        raw = batches.draw(*divmod(step, batches.steps_per_epoch))
        for group in optimizer.param_groups:
            group["lr"] = solver.optimizer.lr * scale_step(schedule, step, span)
        loss = compute_loss(network.loss.spec, model(load(raw)), torch.from_numpy(raw.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.monotonic() - start
    scores = {name: score(model.eval(), experiment, name, network.loss.spec) for name in SPLITS}
    return Figures(scores["train"] or 0, scores["validation"], scores["test"] or 0, seconds, solver.epochs)


def load(raw: RawBatch) -> torch.Tensor:
    """Images of a batch in the faster layout."""
    return torch.from_numpy(raw.render()).contiguous(memory_format=torch.channels_last)


def score(model: nn.Module, experiment: Experiment, name: str, spec: LossSpec) -> float | None:
    """Percent of a split told right."""
    split, correct = experiment.get_split(name), 0
    with torch.no_grad():
        for raw in iterate_batches(split, experiment.normalizer, EVALUATION_BATCH):
            correct += int((model(load(raw)).argmax(1) == torch.from_numpy(raw.labels)).sum())
    return 100 * correct / len(split) if len(split) else None
