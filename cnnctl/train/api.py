"""Training and evaluation from Python, and a run as one reads it.

    run = cnnctl.train("configs/quickstart.yaml", overrides=["solver.epochs=2"])
    run.test.accuracy, run.network(), run.metrics()

The command line does no more than call these. Nothing is printed; an observer listens.
"""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cnnctl.backends.specs import Array
from cnnctl.config import (
    RunConfig,
    compare_configs,
    config_from_dict,
    config_from_text,
    config_to_dict,
    dump_config,
    load_config,
)
from cnnctl.data import Normalizer, Splits
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.nn import Network
from cnnctl.train import data_facts
from cnnctl.train.build import build_experiment, load_splits
from cnnctl.train.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    Progress,
    load_checkpoint,
    load_last_checkpoint,
    load_named_checkpoint,
)
from cnnctl.train.environment import describe_engine, describe_environment
from cnnctl.train.evaluate import Evaluation, examine_splits, read_evaluation, write_evaluation
from cnnctl.train.experiment import SPLITS, Experiment
from cnnctl.train.initial import FILE as INITIAL
from cnnctl.train.initial import pack_initial_filters
from cnnctl.train.insight import Embedding, compute_embedding
from cnnctl.train.metrics import NEW_FILES, TimingFile, read_metrics
from cnnctl.train.observer import Observer, Scores
from cnnctl.train.predict import Prediction, Predictor
from cnnctl.train.run_directory import RunDirectory, find_run
from cnnctl.train.signals import noting_signals
from cnnctl.train.solver import Solver
from cnnctl.train.trained import Trained, restore_network

PathLike = str | os.PathLike[str]
CHECKPOINTS = ("last", "best")


@dataclass(frozen=True, eq=False)
class Examination:
    """An evaluation, and what the mistakes look like that its details name.

    Attributes:
        pixels: split -> (n, C, H, W), the images of its mistakes in their order, as the data set
            has them.
    """

    evaluation: Evaluation
    pixels: Mapping[str, Array]


@dataclass(frozen=True)
class Run:
    """A run directory as it was when it was read.

    Attributes:
        status: running, finished, interrupted, failed or diverged.
        steps: steps done.
        seconds: wall clock of training, evaluation and checkpoints over its whole life.
        train, validation, test: the final weights' scores; None before the run is
            finished, and for a validation split that is empty.
    """

    path: Path
    status: str
    steps: int
    seconds: float
    train: Scores | None = None
    validation: Scores | None = None
    test: Scores | None = None

    @classmethod
    def read(cls, path: PathLike) -> "Run":
        """Raises RunError when there is no run, or only a damaged one."""
        run = RunDirectory(Path(path))
        status = run.read_status()
        scores = {}
        evaluation = read_evaluation(run, "last")
        if evaluation and status.state == "finished" and evaluation.step == status.step:
            scores = evaluation.scores
        return cls(run.path, status.state, status.step, TimingFile.read(run).seconds, **scores)

    def network(self, checkpoint: str = "last") -> Network:
        """A network with the weights of a checkpoint: "last" or "best".

        Its inputs are normalised as the training images were; `cnnctl.evaluate` does that. Raises
        CheckpointError when that checkpoint is missing or damaged.
        """
        _check_word("checkpoint", checkpoint, CHECKPOINTS)
        loaded = load_checkpoint(self.path / "checkpoints" / f"{checkpoint}.safetensors")
        return restore_network(load_config(self.path / "resolved.yaml"), loaded)

    def metrics(self) -> list[dict[str, Any]]:
        """The entries of metrics.jsonl, in order. Raises RunError when it is damaged."""
        return read_metrics(RunDirectory(self.path))


def train(
    config: PathLike | Mapping[str, Any] | RunConfig | None = None,
    *,
    overrides: Iterable[str] = (),
    runs_dir: PathLike = "runs",
    data_dir: PathLike | None = None,
    resume: PathLike | None = None,
    fork: bool = False,
    checkpoint: str = "last",
    observer: Observer | None = None,
) -> Run:
    """Train a network, or go on with a run that was stopped.

    Args:
        config: a YAML file, or its contents as a mapping or a RunConfig.
        overrides: "solver.epochs=3" and the like, applied in order.
        runs_dir: where the new run directory goes, and where names of runs are looked up.
        data_dir: where the data sets lie.
        resume: in place of `config`: a run's directory, its name, or "latest". It goes on in
            place, with the configuration it has. A finished run is only read.
        fork: go on from `resume` in a new run directory; `overrides` may change its configuration.
        checkpoint: where a fork begins: "last", "best", or the name of one that was kept.
        observer: hears of downloads, steps, epochs and warnings.

    Raises ConfigError or ShapeError for what is not usable, and DataError, BackendError or RunError,
    before anything is made; RunError also when the disk refuses later, Interrupted after SIGINT or
    SIGTERM, and Diverged.
    """
    observer = observer or Observer()
    if checkpoint != "last" and not fork:
        raise ConfigError(
            f"checkpoint: {checkpoint!r} is where a fork begins; give fork, and a run to resume"
        )
    if resume is not None:
        if config is not None:
            raise ConfigError(f"config: {config} is not usable with resume: a run has its own; leave it out")
        path = find_run(os.fspath(resume), Path(runs_dir))
        if fork:
            return _fork(path, checkpoint, overrides, Path(runs_dir), data_dir, observer)
        _refuse_changes(path, overrides)
        return _resume(path, data_dir, observer)
    if fork:
        raise ConfigError("fork: there is no run to go on from; give one to resume")
    if config is None:
        raise ConfigError("config: none is given; give a YAML file, or a run to resume")
    given, loaded = _load_given(config, overrides)
    return _start(given, loaded, Path(runs_dir), data_dir, observer)


def evaluate(
    run: PathLike | Run,
    *,
    checkpoint: Literal["last", "best"] = "last",
    splits: Iterable[str] = SPLITS,
    runs_dir: PathLike = "runs",
    data_dir: PathLike | None = None,
    observer: Observer | None = None,
) -> Evaluation:
    """Score a checkpoint of a run on whole splits: see `examine`, of which this is the evaluation."""
    examination = examine(
        run, checkpoint=checkpoint, splits=splits, runs_dir=runs_dir, data_dir=data_dir, observer=observer
    )
    return examination.evaluation


def examine(
    run: PathLike | Run,
    *,
    checkpoint: Literal["last", "best"] = "last",
    splits: Iterable[str] = SPLITS,
    runs_dir: PathLike = "runs",
    data_dir: PathLike | None = None,
    observer: Observer | None = None,
    save: bool = True,
) -> Examination:
    """Score a checkpoint of a run on whole splits; save that, if it is of all: see `save_evaluation`.

    Besides loss and accuracy that has top-5 accuracy, a confusion matrix, figures for each class, and
    the most confident mistakes. `run` is a `Run`, a run's directory, its name, or "latest". `observer`
    hears warnings: of a damaged last checkpoint, say, in whose place the one before it is scored.
    Raises RunError when there is no such run, CheckpointError when its checkpoints are missing or
    damaged.
    """
    splits, observer = tuple(splits), observer or Observer()
    for name in splits:
        _check_word("splits", name, SPLITS)
    directory, loaded = _open(run, checkpoint, runs_dir, observer)
    experiment = _rebuild(directory, loaded, data_dir, observer)
    evaluation = examine_splits(experiment, loaded.metadata.progress.step, splits)
    if save and set(splits) == set(SPLITS):  # what is there tells of all
        write_evaluation(directory, checkpoint, evaluation)
    return _illustrate(evaluation, experiment.splits)


def save_evaluation(run: Run, checkpoint: Literal["last", "best"], evaluation: Evaluation) -> None:
    """Write it to the run's `eval/<checkpoint>.json`. Raises RunError when the disk refuses."""
    write_evaluation(RunDirectory(run.path), checkpoint, evaluation)


def recall_examination(
    run: PathLike, *, data_dir: PathLike | None = None, observer: Observer | None = None
) -> Examination:
    """What the last evaluation of a run's last checkpoint found, as training leaves it at its end.

    Of a run that has none with details, it is made now: see `examine`. `run` is a run's directory.
    """
    path, observer = Path(run), observer or Observer()
    found = read_evaluation(RunDirectory(path), "last")
    if found is None or not found.details:
        return examine(path, data_dir=data_dir, observer=observer)
    _, splits = load_splits(load_config(path / "resolved.yaml").data, data_dir, observer)
    return _illustrate(found, splits)


def predict(
    run: PathLike | Run,
    images: PathLike | Iterable[PathLike],
    *,
    checkpoint: Literal["last", "best"] = "last",
    top: int = 3,
    runs_dir: PathLike = "runs",
    observer: Observer | None = None,
) -> Iterator[Prediction]:
    """What a checkpoint of a run takes image files for, one after the other; needs no data set.

    `images` are files, or folders of them. One that cannot be read is told in its prediction and
    stops nothing. `run` and `observer` are as for `examine`, and so are the errors.
    """
    predictor = Predictor(load_trained(run, checkpoint=checkpoint, runs_dir=runs_dir, observer=observer))
    paths = [images] if isinstance(images, str | os.PathLike) else images
    return predictor.predict(map(Path, paths), top)


def load_trained(
    run: PathLike | Run,
    *,
    checkpoint: Literal["last", "best"] = "last",
    runs_dir: PathLike = "runs",
    observer: Observer | None = None,
) -> Trained:
    """The network of a checkpoint, to be looked into; arguments and errors are as for `predict`."""
    directory, loaded = _open(run, checkpoint, runs_dir, observer or Observer())
    return _restore_trained(directory, loaded)


def embed(
    run: PathLike | Run,
    *,
    checkpoint: Literal["last", "best"] = "last",
    runs_dir: PathLike = "runs",
    data_dir: PathLike | None = None,
    observer: Observer | None = None,
) -> Embedding:
    """The test images as the last hidden layer of a checkpoint has them, in two principal components.

    Arguments and errors are as for `examine`.
    """
    observer = observer or Observer()
    directory, loaded = _open(run, checkpoint, runs_dir, observer)
    test = _rebuild(directory, loaded, data_dir, observer).splits.test
    return compute_embedding(_restore_trained(directory, loaded), test)


def _illustrate(evaluation: Evaluation, splits: Splits) -> Examination:
    """With the images of the mistakes that it names."""
    pixels = {
        name: getattr(splits, name).images[[mistake.image for mistake in found.mistakes]]
        for name, found in evaluation.details.items()
    }
    return Examination(evaluation, pixels)


def _load_given(
    config: PathLike | Mapping[str, Any] | RunConfig, overrides: Iterable[str]
) -> tuple[str, RunConfig]:
    """The configuration's text as it was given, and what it comes to."""
    if isinstance(config, RunConfig):
        return dump_config(config), config_from_dict(config_to_dict(config), overrides)
    if isinstance(config, Mapping):
        loaded = config_from_dict(config, overrides)
        return dump_config(loaded), loaded
    loaded = load_config(config, overrides)
    return Path(config).read_text(encoding="utf-8"), loaded


def _start(
    given: str, config: RunConfig, runs_dir: Path, data_dir: PathLike | None, observer: Observer
) -> Run:
    experiment = build_experiment(config, dump_config(config), data_dir=data_dir, observer=observer)
    progress = Progress(jsonl_bytes=len(NEW_FILES["metrics.jsonl"]), csv_bytes=len(NEW_FILES["metrics.csv"]))
    initial = pack_initial_filters(experiment.network)
    return _begin(given, experiment, progress, initial, runs_dir, observer)


def _begin(
    given: str,
    experiment: Experiment,
    progress: Progress,
    more: Mapping[str, bytes],
    runs_dir: Path,
    observer: Observer,
) -> Run:
    """Train in a new run directory, which has `more` files, or others than a new run has."""
    environment = describe_environment(experiment.backend, experiment.config.engine.dtype)
    files: dict[str, bytes | bytearray] = {
        "config.yaml": given.encode(),
        "resolved.yaml": experiment.resolved.encode(),
        "env.json": json.dumps(environment, indent=2).encode(),
        data_facts.FILE: data_facts.pack_data_facts(experiment),
        f"checkpoints/{LAST}": experiment.capture(progress).pack(),
        **NEW_FILES,
        **more,
    }
    with noting_signals() as stop, RunDirectory.create(runs_dir, experiment.config.name, files) as run:
        files.clear()  # a copy of the state is among them
        Solver(run, experiment, progress, observer=observer, stop=stop).run()
    return Run.read(run.path)


def _fork(
    path: Path,
    name: str,
    overrides: Iterable[str],
    runs_dir: Path,
    data_dir: PathLike | None,
    observer: Observer,
) -> Run:
    """A new run that begins where a checkpoint stands, with the metrics up to there."""
    source = RunDirectory(path)
    checkpoint = load_named_checkpoint(source.checkpoints, name, observer.on_warning)
    progress = replace(checkpoint.metadata.progress, ended_by=None)
    config = load_config(path / "resolved.yaml", overrides)
    if config.solver.max_steps is not None and progress.step >= config.solver.max_steps:
        raise ConfigError(
            f"fork: {checkpoint.origin} has done {progress.step} steps, and solver.max_steps is "
            f"{config.solver.max_steps}; give more with -o solver.max_steps=..."
        )
    experiment = _restore(config, dump_config(config), checkpoint, data_dir, observer)
    steps = -(-experiment.batches.steps_per_epoch // config.solver.accumulate)
    if progress.step != progress.epoch * steps + progress.position:
        raise ConfigError(
            f"fork: an epoch would have {steps} steps, which does not fit step {progress.step} in epoch "
            f"{progress.epoch + 1}; keep data, batch_size and accumulate as they were, and begin before an "
            "epoch that max_steps or max_minutes cut short (--checkpoint NAME)"
        )
    if progress.epoch >= config.solver.epochs:
        raise ConfigError(
            f"fork: {checkpoint.origin} has done all {config.solver.epochs} epochs; "
            "give more with -o solver.epochs=..."
        )
    origin = {"run": os.fspath(path), "checkpoint": name, "step": progress.step}
    files = {
        "origin.json": json.dumps(origin).encode(),
        "metrics.jsonl": source.read_start("metrics.jsonl", progress.jsonl_bytes),
        "metrics.csv": source.read_start("metrics.csv", progress.csv_bytes),
    }
    if (path / INITIAL).exists():
        files[INITIAL] = source.read_start(INITIAL, (path / INITIAL).stat().st_size)
    best = source.checkpoints / BEST
    if progress.best is not None and best.exists():
        kept = load_checkpoint(best)
        if kept.metadata.progress.step <= progress.step:
            files[f"checkpoints/{BEST}"] = best.read_bytes()
        else:  # the best of before that was written over
            progress = replace(progress, best=None, bad_epochs=0)
    return _begin(source.read_text("config.yaml"), experiment, progress, files, runs_dir, observer)


def _refuse_changes(path: Path, overrides: Iterable[str]) -> None:
    """A run that goes on in place keeps its configuration; overrides that change nothing are let pass."""
    overrides = tuple(overrides)
    if not overrides:
        return
    before, after = (load_config(path / "resolved.yaml", more) for more in ((), overrides))
    if changes := compare_configs(before, after):
        raise ConfigError(
            f"resume: {_describe_changes(changes)}; a run goes on as it began: "
            "leave that out, or add --fork to go on in a new run"
        )


def _describe_changes(changes: Sequence[tuple[str, Any, Any]]) -> str:
    return ", ".join(f"{key} is {before} and would be {after}" for key, before, after in changes)


def _resume(path: Path, data_dir: PathLike | None, observer: Observer) -> Run:
    run = RunDirectory(path)
    if run.read_status().state == "finished":
        return Run.read(path)

    def warn(message: str) -> None:
        run.log(f"warning: {message}")
        observer.on_warning(message)

    with run.locked():
        checkpoint = load_last_checkpoint(run.checkpoints, warn)
        experiment = _rebuild(run, checkpoint, data_dir, observer)
        engine = describe_engine(experiment.backend, experiment.config.engine.dtype)
        for key, before in checkpoint.metadata.engine.items():
            if engine.get(key) != before:
                warn(f"{key} was {before} and is {engine.get(key)}: the run may end in other last bits")
        with noting_signals() as stop:
            Solver(run, experiment, checkpoint.metadata.progress, observer=observer, stop=stop).run()
    return Run.read(path)


def _rebuild(
    run: RunDirectory, checkpoint: Checkpoint, data_dir: PathLike | None, observer: Observer
) -> Experiment:
    """The run's experiment in the state of a checkpoint."""
    return _restore(*_read_config(run, checkpoint), checkpoint, data_dir, observer)


def _restore(
    config: RunConfig,
    resolved: str,
    checkpoint: Checkpoint,
    data_dir: PathLike | None,
    observer: Observer,
) -> Experiment:
    """An experiment in the state of a checkpoint, which has to be of the same network."""
    normalizer = Normalizer(checkpoint.scale, checkpoint.shift)
    experiment = build_experiment(
        config, resolved, normalizer=normalizer, data_dir=data_dir, observer=observer
    )
    experiment.restore(checkpoint)
    return experiment


def _load_checkpoint(run: RunDirectory, checkpoint: str, observer: Observer) -> Checkpoint:
    """The checkpoint of that name; in place of a damaged last one, the one before it."""
    if checkpoint == "last":
        return load_last_checkpoint(run.checkpoints, observer.on_warning)
    return load_checkpoint(run.checkpoints / BEST)


def _open(
    run: PathLike | Run, checkpoint: str, runs_dir: PathLike, observer: Observer
) -> tuple[RunDirectory, Checkpoint]:
    """A run's directory and a checkpoint in it."""
    _check_word("checkpoint", checkpoint, CHECKPOINTS)
    path = run.path if isinstance(run, Run) else find_run(os.fspath(run), Path(runs_dir))
    directory = RunDirectory(path)
    return directory, _load_checkpoint(directory, checkpoint, observer)


def _restore_trained(run: RunDirectory, checkpoint: Checkpoint) -> Trained:
    config, _ = _read_config(run, checkpoint)
    return Trained.restore(config, checkpoint, data_facts.read_data_facts(run))


def _read_config(run: RunDirectory, checkpoint: Checkpoint) -> tuple[RunConfig, str]:
    """The configuration that a checkpoint was written under, and its text."""
    path = run.path / "resolved.yaml"
    resolved, config = run.read_text("resolved.yaml"), load_config(path)
    if resolved != checkpoint.metadata.config:
        changes = compare_configs(config_from_text(checkpoint.metadata.config), config)
        what = ", ".join(f"{key} was {before} and is {after}" for key, before, after in changes)
        raise ConfigError(
            f"{path}: changed after the run began ({what or 'in its wording'}); put it back, "
            "or go on in a new run with --fork"
        )
    return config, resolved


def _check_word(field: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        raise ConfigError(f"{field}: {word!r} is not known; {describe_alternatives(word, known)}")
