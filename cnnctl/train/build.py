"""From a configuration to the objects it names.

Keys of the configuration equal the arguments of the constructors, so that a table of
kinds is all there is to know. Everything is checked, loaded and allocated here, before
there is a run directory; nothing is trained and nothing is written.
"""

import os
from typing import Any

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.cpu import available_threads
from cnnctl.config import EngineConfig, RunConfig
from cnnctl.config.data import AugmentConfig, DataConfig
from cnnctl.config.fields import Kind
from cnnctl.config.solver import SolverConfig
from cnnctl.data import Augment, Batches, Dataset, Normalizer, Splits, load_dataset, make_splits
from cnnctl.data.fetch import OnDownload
from cnnctl.errors import ConfigError, DataError
from cnnctl.nn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Constant,
    Conv,
    Dropout,
    Flatten,
    Gaussian,
    GlobalAvgPool,
    GroupNorm,
    He,
    Hinge,
    InstanceNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    Orthogonal,
    ReLU,
    Residual,
    Shape,
    Sigmoid,
    SiLU,
    SoftmaxCrossEntropy,
    SquaredError,
    Subsampling,
    Tanh,
    Xavier,
)
from cnnctl.nn.plan import Plan
from cnnctl.optim import SGD, AdaGrad, Adam, Adamax, AdamW, Lion, ParameterGroup, RMSprop, schedule
from cnnctl.train.experiment import Experiment
from cnnctl.train.memory import release_unused_memory
from cnnctl.train.observer import Observer

KINDS: dict[str, Any] = {
    cls.kind: cls
    for cls in (
        *(Conv, MaxPool, AvgPool, Subsampling, GlobalAvgPool, Linear, Flatten),
        *(ReLU, LeakyReLU, ELU, Tanh, Sigmoid, GELU, SiLU),
        *(BatchNorm, LayerNorm, GroupNorm, InstanceNorm, LocalResponseNorm, Dropout, Residual),
        *(SoftmaxCrossEntropy, Hinge, SquaredError),
        *(Constant, Gaussian, Xavier, He, Orthogonal),
        *(SGD, Adam, AdamW, Adamax, AdaGrad, RMSprop, Lion),
    )
}
SCHEDULES: dict[str, Any] = {
    cls.kind: cls
    for cls in (
        *(schedule.Constant, schedule.Step, schedule.MultiStep, schedule.Exponential, schedule.Inverse),
        *(schedule.Polynomial, schedule.Cosine, schedule.OneCycle, schedule.ReduceOnPlateau),
    )
}


def build_experiment(
    config: RunConfig,
    resolved: str,
    *,
    normalizer: Normalizer | None = None,
    data_dir: str | os.PathLike[str] | None,
    observer: Observer,
) -> Experiment:
    """Load the data, then build the network, the backend and the plan that joins them.

    `normalizer` is that of a checkpoint; without it one is fitted to the training split.
    `observer` hears of downloads, and of what is odd about the data. Raises ConfigError,
    ShapeError, DataError or BackendError.
    """
    data, solver, engine = config.data, config.solver, config.engine
    dataset, splits = load_splits(data, data_dir, observer)
    if solver.early_stopping and not len(splits.validation):
        raise ConfigError("solver.early_stopping: there are no images to watch; give data.validation")
    if normalizer is None:
        normalizer = Normalizer.fit(splits.train.images, data.normalize)
    elif normalizer.shift.shape != dataset.image_shape:
        raise DataError(
            f"{dataset.name}: the images are {dataset.image_shape} and no longer {normalizer.shift.shape}, "
            "as they were when the run began"
        )
    network = build_network(config, dataset.image_shape)
    if len(network.output_shape) != 1 or network.label_count != len(dataset.classes):
        raise ConfigError(
            f"network: its output is {network.output_shape} where {dataset.name} has {len(dataset.classes)} "
            f"classes; end it with linear: {len(dataset.classes)}"
        )
    batches = Batches(
        splits.train,
        normalizer,
        solver.batch_size,
        seed=engine.seed,
        dtype=engine.dtype,
        augment=build_augment(data.augment),
    )
    backend = build_backend(engine)
    release_unused_memory()  # by loading, which would be resident beside the plan
    plan = build_plan(solver, network, batches.batch_size, backend)
    return Experiment(
        config=config,
        resolved=resolved,
        data_dir=data_dir,
        classes=dataset.classes,
        splits=splits,
        normalizer=normalizer,
        batches=batches,
        network=network,
        backend=backend,
        plan=plan,
    )


def load_splits(
    data: DataConfig, data_dir: str | os.PathLike[str] | None, observer: Observer
) -> tuple[Dataset, Splits]:
    """The data set, and what of it is for what. Errors and `observer` as for `build_experiment`."""
    dataset = open_dataset(data, data_dir, on_download=observer.on_download)
    for note in dataset.notes:
        observer.on_warning(note)
    return dataset, make_splits(dataset, train=data.train, validation=data.validation, test=data.test)


def open_dataset(
    data: DataConfig,
    data_dir: str | os.PathLike[str] | None,
    *,
    download: bool = True,
    on_download: OnDownload | None = None,
) -> Dataset:
    """The data set that a configuration names: see `load_dataset`."""
    return load_dataset(
        data.dataset,
        path=data.path,
        image_size=data.image_size,
        channels=data.channels,
        seed=data.seed,
        data_dir=data_dir,
        download=download,
        on_download=on_download,
    )


def build_augment(settings: AugmentConfig) -> Augment:
    """The changes to training images: a crop is a shift by another name."""
    changes = settings.model_dump(exclude={"crop"})
    return Augment(**{**changes, "shift": settings.shift or settings.crop})


def build_plan(solver: SolverConfig, network: Network, batch_size: int, backend: Backend) -> Plan:
    """The network made ready to train as the solver's settings have it."""
    try:
        return Plan(
            network,
            batch_size,
            backend,
            optimizer=build_kind(solver.optimizer),
            **build_penalties(solver),
            accumulate=solver.accumulate,
            clip_value=solver.clip_value,
            clip_norm=solver.clip_norm,
        )
    except ConfigError as error:  # its message begins with the field
        raise ConfigError(f"solver.{error}") from None


def build_penalties(solver: SolverConfig) -> dict[str, Any]:
    """The arguments by which a plan knows what its weights pay."""
    groups = [ParameterGroup(**dict(group)) for group in solver.groups]
    return {"l1": solver.l1, "l2": solver.l2, "groups": groups}


def build_network(config: RunConfig, input_shape: Shape) -> Network:
    """The network with the weights it starts from."""
    settings = config.network
    return Network(
        [build_kind(layer) for layer in settings.layers],
        input_shape,
        loss=build_kind(settings.loss),
        dtype=config.engine.dtype,
        seed=config.engine.seed,
        init=build_kind(settings.init),
    )


def build_backend(engine: EngineConfig) -> Backend:
    """The backend, with as many threads as are asked for."""
    threads = available_threads() if engine.threads == "auto" else engine.threads
    settings = {"isa": engine.isa, "exact": engine.exact} if engine.backend == "fast" else {}
    return create_backend(engine.backend, threads, **settings)


def build_kind(choice: Kind) -> Any:
    """The layer, initializer or optimizer of that kind, with its settings and the layers in it."""
    return KINDS[choice.kind](**{key: _build_value(value) for key, value in choice})


def build_schedule(choice: Kind) -> schedule.Schedule:
    """The schedule of that kind: their words are their own, as `constant` is an initializer too."""
    built: schedule.Schedule = SCHEDULES[choice.kind](**dict(choice))
    return built


def _build_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_build_value(item) for item in value)
    return build_kind(value) if isinstance(value, Kind) else value
