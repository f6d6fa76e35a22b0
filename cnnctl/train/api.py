"""Training and evaluation from Python, and a run as one reads it.

    run = cnnctl.train("configs/quickstart.yaml", overrides=["solver.epochs=2"])
    run.test.accuracy, run.network(), run.metrics()

The command line does no more than call these. Nothing is printed; an observer listens.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnctl.config import RunConfig, config_from_dict, config_to_dict, dump_config, load_config
from cnnctl.data import Normalizer
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.nn import Network
from cnnctl.train.build import build_experiment, build_network
from cnnctl.train.checkpoint import BEST, LAST, Checkpoint, Progress, load_checkpoint, load_last_checkpoint
from cnnctl.train.environment import describe_engine, describe_environment
from cnnctl.train.evaluate import Evaluation, evaluate_split, read_evaluation, write_evaluation
from cnnctl.train.experiment import SPLITS, Experiment
from cnnctl.train.metrics import NEW_FILES, TimingFile
from cnnctl.train.observer import Observer, Scores
from cnnctl.train.run_directory import RunDirectory, find_run
from cnnctl.train.signals import noting_signals
from cnnctl.train.solver import Solver

PathLike = str | os.PathLike[str]
CHECKPOINTS = ("last", "best")


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

        Its inputs are normalised as the training images were; `cnnctl.evaluate` does that.
        """
        _check_word("checkpoint", checkpoint, CHECKPOINTS)
        loaded = load_checkpoint(self.path / "checkpoints" / f"{checkpoint}.safetensors")
        network = build_network(load_config(self.path / "resolved.yaml"), loaded.shift.shape)
        network.load_params(loaded.params)
        return network

    def metrics(self) -> list[dict[str, Any]]:
        """The entries of metrics.jsonl, in order."""
        return [json.loads(line) for line in RunDirectory(self.path).read_text("metrics.jsonl").splitlines()]


def train(
    config: PathLike | Mapping[str, Any] | RunConfig | None = None,
    *,
    overrides: Iterable[str] = (),
    runs_dir: PathLike = "runs",
    data_dir: PathLike | None = None,
    resume: PathLike | None = None,
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
        observer: hears of downloads, steps, epochs and warnings.

    Raises ConfigError for what is not usable, DataError, BackendError and RunError before
    anything is made, Interrupted after SIGINT or SIGTERM, and Diverged.
    """
    observer = observer or Observer()
    if resume is not None:
        if config is not None or list(overrides):
            raise ConfigError(
                "resume: a run goes on with its own configuration; begin a new one to change it"
            )
        return _resume(find_run(os.fspath(resume), Path(runs_dir)), data_dir, observer)
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
    """Score a checkpoint of a run on whole splits, and write that to its `eval/<checkpoint>.json`.

    `run` is a `Run`, a run's directory, its name, or "latest". `observer` hears warnings: of a
    damaged last checkpoint, say, in whose place the one before it is scored. Raises RunError when
    there is no such run, CheckpointError when its checkpoints are missing or damaged.
    """
    splits, observer = tuple(splits), observer or Observer()
    _check_word("checkpoint", checkpoint, CHECKPOINTS)
    for name in splits:
        _check_word("splits", name, SPLITS)
    path = run.path if isinstance(run, Run) else find_run(os.fspath(run), Path(runs_dir))
    directory = RunDirectory(path)
    if checkpoint == "last":
        loaded = load_last_checkpoint(directory.checkpoints, observer.on_warning)
    else:
        loaded = load_checkpoint(directory.checkpoints / BEST)
    experiment = _rebuild(directory, loaded, data_dir, observer)
    scores = {name: evaluate_split(experiment, name) for name in splits}
    evaluation = Evaluation(step=loaded.metadata.progress.step, **scores)
    write_evaluation(directory, checkpoint, evaluation)
    return evaluation


def _load_given(
    config: PathLike | Mapping[str, Any] | RunConfig, overrides: Iterable[str]
) -> tuple[str, RunConfig]:
    """The configuration's text as it was given, and what it comes to."""
    if isinstance(config, RunConfig):
        return dump_config(config), config_from_dict(config_to_dict(config), overrides)
    if isinstance(config, Mapping):
        return dump_config(config_from_dict(config)), config_from_dict(config, overrides)
    loaded = load_config(config, overrides)
    return Path(config).read_text(encoding="utf-8"), loaded


def _start(
    given: str, config: RunConfig, runs_dir: Path, data_dir: PathLike | None, observer: Observer
) -> Run:
    resolved = dump_config(config).encode()
    experiment = build_experiment(config, _hash(resolved), data_dir=data_dir, observer=observer)
    progress = Progress(jsonl_bytes=len(NEW_FILES["metrics.jsonl"]), csv_bytes=len(NEW_FILES["metrics.csv"]))
    environment = describe_environment(experiment.backend, config.engine.dtype)
    files: dict[str, bytes | bytearray] = {
        "config.yaml": given.encode(),
        "resolved.yaml": resolved,
        "env.json": json.dumps(environment, indent=2).encode(),
        f"checkpoints/{LAST}": experiment.capture(progress).pack(),
        **NEW_FILES,
    }
    with noting_signals() as stop, RunDirectory.create(runs_dir, config.name, files) as run:
        files.clear()  # a copy of the state is among them
        Solver(run, experiment, progress, observer=observer, stop=stop).run()
    return Run.read(run.path)


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
    path = run.path / "resolved.yaml"
    config_hash = _hash(run.read_text("resolved.yaml").encode())
    if config_hash != checkpoint.metadata.config_hash:
        raise ConfigError(f"{path}: changed after the run began; put it back, or start a new run from it")
    normalizer = Normalizer(checkpoint.scale, checkpoint.shift)
    experiment = build_experiment(
        load_config(path), config_hash, normalizer=normalizer, data_dir=data_dir, observer=observer
    )
    experiment.restore(checkpoint)
    return experiment


def _check_word(field: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        raise ConfigError(f"{field}: {word!r} is not known; {describe_alternatives(word, known)}")


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
