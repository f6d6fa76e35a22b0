"""Gradients of back-propagation against central differences, in float64, tensor by tensor.

Chooses the elements and directions, judges each, and gathers them into rows. A gradient that
is wrong never passes for noise or for a kink: noise is measured where it is claimed, and what
could not be decided is counted and shown. Prints nothing and reads no data.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import isnan, prod

import numpy as np

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.check.catalogue import choose_entries
from cnnctl.check.differences import Derivative, Function, Sides, differentiate, measure_noise
from cnnctl.check.subjects import Elements, LayeredNetwork, PlannedNetwork, Subject, take_elements
from cnnctl.errors import ConfigError, DtypeError, ShapeError, describe_alternatives
from cnnctl.nn import Layer, Network, Shape
from cnnctl.optim import ParameterGroup

BOUND = 1e-6
"""Largest relative error of a gradient that is right."""
FLOOR = 1e-8
"""Below that sum of magnitudes an error is no longer relative to them."""
MARGIN = 6.0
"""Standard deviations of noise that may lie between a gradient and a difference."""
START = 0.1
"""First step, in root mean squares of the tensor."""
SMALLEST = 1e-7
"""Last step, likewise."""
NOISE_RADIUS = 1e-5
"""How far from the start noise is measured at most, likewise."""
SECOND_LOOK = 1e-3
"""First step of another look at a gradient that seems wrong, in first steps of the look before."""
JITTER = 0.1
"""Standard deviation of what is added to parameters that start out all alike."""
BATCH_SIZE = 3

NETWORK = "network"
"""The kind of rows that are a network's."""
OK, FAIL, PARTIAL, UNRESOLVED = "ok", "FAIL", "partial", "unresolved"
"""Verdicts: within the bound; above it; most could not be decided; nothing could."""
VERDICTS = (FAIL, UNRESOLVED, PARTIAL, OK)
"""Gravest first."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of a tensor is tried: all of at most twice `sample` elements, else a sample and directions."""

    sample: int
    directions: int


NETWORK_EFFORT, CATALOGUE_EFFORT = Effort(16, 4), Effort(8, 2)


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor.

    Attributes:
        backend, name: such as "fast", "conv1.weight"; without a network the name begins with the
            catalogue entry's.
        kind: "network", or the catalogue's, such as "conv".
        shape: the tensor's.
        coordinates: elements tried by themselves.
        directions: random directions tried, that move all elements at once.
        kinks: of both, those left out because a kink is too near.
        below_noise: those too small to be told from rounding errors.
        error: the largest relative error of the others; None where there are none.
        at: the element of that error, or "direction 2".
        analytic, numeric: the two derivatives there.
        verdict: "ok", "FAIL", "partial" (fewer than half could be decided) or "unresolved" (none).
    """

    backend: str
    kind: str
    name: str
    shape: Shape
    coordinates: int
    directions: int
    kinks: int
    below_noise: int
    error: float | None
    at: tuple[int, ...] | str | None
    analytic: float | None
    numeric: float | None
    verdict: str

    @property
    def layer(self) -> str:
        """What to ask for to check this tensor again: its layer, or its entry of the catalogue."""
        if self.kind == NETWORK:
            return self.name.rpartition(".")[0] or self.name
        return self.name.partition(".")[0]

    @property
    def described_trials(self) -> str:
        """Such as "16 of 4,608 + 4 directions"."""
        size = prod(self.shape)
        if self.coordinates == size:
            return f"{size:,}"
        return f"{self.coordinates} of {size:,} + {self.directions} directions"

    def __str__(self) -> str:
        found = "nothing to compare"
        if self.error is not None:
            found = f"{self.error:.1e} at {self.at}: {self.analytic!r}, by differences {self.numeric!r}"
        return f"{self.backend} {self.name} {self.shape}: {self.verdict}: {found}"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one backend and kind: how many, what they sum to, the largest error, the gravest verdict."""

    backend: str
    kind: str
    tensors: int
    checked: int
    kinks: int
    below_noise: int
    worst: Row
    verdict: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found; `print(report)` shows a line for each tensor."""

    rows: tuple[Row, ...]
    seed: int

    @property
    def ok(self) -> bool:
        """Whether no gradient is above the bound."""
        return self.worst is None

    @property
    def failing(self) -> tuple[Row, ...]:
        """The rows above the bound."""
        return tuple(row for row in self.rows if row.verdict == FAIL)

    @property
    def worst(self) -> Row | None:
        """The failing row with the largest error."""
        return max(self.failing, key=_rank, default=None)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many rows have which verdict, gravest first."""
        counts = Counter(row.verdict for row in self.rows)
        return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}

    @property
    def groups(self) -> tuple[Group, ...]:
        """The rows of each backend and kind, summed up."""
        gathered: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            gathered.setdefault((row.backend, row.kind), []).append(row)
        return tuple(
            Group(
                backend,
                kind,
                len(rows),
                sum(row.coordinates + row.directions for row in rows),
                sum(row.kinks for row in rows),
                sum(row.below_noise for row in rows),
                max(rows, key=_rank),
                min((row.verdict for row in rows), key=VERDICTS.index),
            )
            for (backend, kind), rows in gathered.items()
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))


def _rank(row: Row) -> float:
    return -1.0 if row.error is None else row.error


OnRow = Callable[[Row], object]


def ignore_row(row: Row) -> None:
    """Nobody is watching."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One derivative to compare: along `delta`, of the elements `where`."""

    at: tuple[int, ...] | str
    where: Elements
    delta: Array


@dataclass(slots=True)
class _Tally:
    """What the trials of one tensor came to."""

    kinks: int = 0
    below_noise: int = 0
    resolved: int = 0
    error: float | None = None
    worst: tuple[tuple[int, ...] | str | None, float | None, float | None] = None, None, None

    def add(self, trial: _Trial, analytic: float, numeric: float) -> None:
        error = relative_error(analytic, numeric)
        self.resolved += 1
        if self.error is None or error > self.error:
            self.error, self.worst = error, (trial.at, analytic, numeric)

    def judge(self, tried: int) -> str:
        if self.error is not None and self.error > BOUND:
            return FAIL
        if not self.resolved:
            return UNRESOLVED
        return OK if 2 * self.resolved >= tried else PARTIAL


def gradcheck(
    subject: Network | Layer,
    input_shape: Shape | None = None,
    *,
    backend: str | Backend = "fast",
    batch_size: int = BATCH_SIZE,
    layer: str | None = None,
    seed: int = 0,
) -> Report:
    """Check a layer, or a network run layer by layer: its input and every parameter.

    Args:
        subject: a network in float64, whose loss is differentiated; or a layer by itself, also
            one of your own. Neither is changed.
        input_shape: of one image, for a layer.
        layer: check only the tensors of the layer with that name.
        seed: settles inputs, labels and which elements are chosen.

    Raises DtypeError for a network in float32 and ConfigError for an unknown layer or backend.

    >>> from cnnctl.nn import Tanh
    >>> class Doubling(Tanh):
    ...     def _forward(self, x, backend, training):
    ...         return 2 * x, (x,)
    ...     def _backward(self, dy, saved, backend, need_dx):
    ...         return dy, {}
    >>> report = gradcheck(Doubling(), (5,), backend="naive")
    >>> report.ok, round(report.rows[0].error, 3)
    (False, 0.333)
    """
    engine = create_backend(backend) if isinstance(backend, str) else backend
    labels: Array | None = None
    rng = np.random.default_rng(seed)
    if isinstance(subject, Network):
        network = deepcopy(subject)
        if len(network.output_shape) == 1:
            labels = rng.integers(network.label_count, size=batch_size)
    elif input_shape is None:
        raise ConfigError("input_shape: missing; give the shape of one image that the layer reads, (C, H, W)")
    else:
        network = Network([deepcopy(subject)], input_shape, dtype="float64", seed=seed)
    check_double(network)
    x = rng.standard_normal((batch_size, *network.input_shape))
    checked = LayeredNetwork(network, x, labels, engine, rng)
    return check_subject(checked, engine.name, seed, names=choose_tensors(checked, layer))


def check_plan(
    network: Network,
    backend: Backend,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    groups: Sequence[ParameterGroup] = (),
    batch_size: int = BATCH_SIZE,
    layer: str | None = None,
    seed: int = 0,
    on_row: OnRow = ignore_row,
) -> Report:
    """Check a network as training runs it: fused, in the backend's own layouts, with its penalties.

    Parameters that start out all alike, such as biases of 0 and norm weights of 1, are moved first
    (in a copy: the network is left as it is), for they would hide mistakes: a factor left out, a
    sum that is not added. Arguments and errors as for `gradcheck`; `on_row` hears of each row.
    """
    if len(network.output_shape) != 1:
        raise ShapeError(f"the loss needs scores (N, K), not images {network.output_shape}")
    check_double(network)
    rng = np.random.default_rng(seed)
    network = deepcopy(network)
    for w in network.params.values():
        if w.size and np.ptp(w) == 0:
            w[...] += JITTER * rng.standard_normal(w.shape)
    x = rng.standard_normal((batch_size, *network.input_shape))
    labels = rng.integers(network.label_count, size=batch_size)
    subject = PlannedNetwork(network, x, labels, backend, rng, l1=l1, l2=l2, groups=groups)
    return check_subject(subject, backend.name, seed, names=choose_tensors(subject, layer), on_row=on_row)


def check_catalogue(
    backends: Sequence[Backend], *, layer: str | None = None, seed: int = 0, on_row: OnRow = ignore_row
) -> Report:
    """Check every layer, loss, regulariser and fused operation, or those of a kind or name."""
    entries = choose_entries(layer)
    rows: list[Row] = []
    for backend in backends:
        for entry in entries:
            rng = np.random.default_rng([seed, zlib.crc32(entry.name.encode())])
            subject = entry.create(backend, rng)
            report = check_subject(
                subject, backend.name, seed, entry.kind, entry.name, effort=CATALOGUE_EFFORT, on_row=on_row
            )
            rows += report.rows
    return Report(tuple(rows), seed)


def check_double(network: Network) -> None:
    """Refuse a network in which differences would drown in rounding errors."""
    if network.dtype != np.float64:
        raise DtypeError(f"network: dtype {network.dtype} is too coarse for differences; give float64")


def choose_tensors(subject: Subject, layer: str | None) -> list[str]:
    """Names of the tensors of a layer or block; all of them for None. Raises ConfigError."""
    names = [name for name in subject.tensors if layer is None or f"{name}.".startswith(f"{layer}.")]
    if not names:
        known = dict.fromkeys(name.rpartition(".")[0] or name for name in subject.tensors)
        raise ConfigError(
            f"layer: {layer!r} is no layer with parameters; {describe_alternatives(layer, known)}"
        )
    return names


def check_subject(
    subject: Subject,
    backend: str,
    seed: int,
    kind: str = NETWORK,
    prefix: str = "",
    *,
    names: Sequence[str] | None = None,
    effort: Effort = NETWORK_EFFORT,
    on_row: OnRow = ignore_row,
) -> Report:
    """A row for each of these tensors; which elements are chosen depends on seed and name alone."""
    rows = []
    for name in subject.tensors if names is None else names:
        full_name = f"{prefix}.{name}" if prefix else name
        rng = np.random.default_rng([seed, zlib.crc32(full_name.encode())])
        row = check_tensor(subject, name, rng, effort)
        rows.append(replace(row, backend=backend, kind=kind, name=full_name))
        on_row(rows[-1])
    return Report(tuple(rows), seed)


def check_tensor(
    subject: Subject, name: str, rng: np.random.Generator, effort: Effort = NETWORK_EFFORT
) -> Row:
    """Compare the gradient of one tensor with differences, element by element and along directions."""
    tensor, gradient = subject.tensors[name], subject.gradients[name]
    scale = float(np.sqrt(np.mean(np.square(tensor)))) or 1.0
    trials, tally, start = list(choose_trials(gradient, rng, effort)), _Tally(), START * scale
    for trial in trials:
        function = _restrict(subject, name, trial)
        derivative = differentiate(function, subject.sides, start, SMALLEST * scale)
        if derivative is None:
            tally.kinks += 1
            continue
        start = min(START * scale, 4 * derivative.clear)
        analytic = float(np.dot(take_elements(gradient, trial.where), trial.delta))
        if relative_error(analytic, derivative.value) > BOUND:
            noise = _measure_error(function, subject.sides, derivative, scale)
            if abs(analytic - derivative.value) <= noise:
                tally.below_noise += 1
                continue
            derivative = _look_again(function, subject.sides, derivative, scale)
        tally.add(trial, analytic, derivative.value)
    directions = sum(isinstance(trial.at, str) for trial in trials)
    counts = len(trials) - directions, directions, tally.kinks, tally.below_noise
    return Row("", "", name, tensor.shape, *counts, tally.error, *tally.worst, tally.judge(len(trials)))


def _restrict(subject: Subject, name: str, trial: _Trial) -> Function:
    """The subject as a function of how far one tensor is moved along `delta`."""
    before = take_elements(subject.tensors[name], trial.where)
    return lambda t: subject.evaluate(name, trial.where, before + t * trial.delta)


def _measure_error(function: Function, sides: Sides, derivative: Derivative, scale: float) -> float:
    """What rounding may have made the derivative wrong by: measured there and then."""
    radius = min(derivative.step, NOISE_RADIUS * scale)
    return MARGIN * measure_noise(function, sides, radius) / derivative.step


def _look_again(function: Function, sides: Sides, first: Derivative, scale: float) -> Derivative:
    """The derivative from far smaller steps, for a kink that no layer declared, or steeply bent functions.

    The first one stands unless the other is so exact that no gradient could agree with it by chance.
    """
    second = differentiate(function, sides, SECOND_LOOK * first.clear, SMALLEST * scale)
    if second is None:
        return first
    error = _measure_error(function, sides, second, scale)
    return second if error <= BOUND * abs(second.value) else first


def choose_trials(gradient: Array, rng: np.random.Generator, effort: Effort) -> Iterator[_Trial]:
    """Every element of a small tensor; of a large one a sample, and random directions.

    A direction goes up the gradient in every element, by random amounts: no two terms of
    the derivative cancel, so that none is hidden.
    """
    size = gradient.size
    small = size <= 2 * effort.sample
    chosen = np.arange(size) if small else np.sort(rng.choice(size, effort.sample, replace=False))
    for position in chosen:
        at = tuple(map(int, np.unravel_index(position, gradient.shape)))
        yield _Trial(at, np.array([position]), np.ones(1))
    for number in range(0 if small else effort.directions):
        signs = np.sign(gradient.ravel())
        flat = ~(abs(signs) > 0)  # zeros, and what is no number
        signs[flat] = rng.choice([-1.0, 1.0], int(flat.sum()))
        delta = signs * abs(rng.standard_normal(size))
        yield _Trial(f"direction {number + 1}", None, delta / np.linalg.norm(delta))


def relative_error(a: float, b: float) -> float:
    """|a - b| / max(1e-8, |a| + |b|), as the courses define it; infinite if one is no number."""
    error = abs(a - b) / max(FLOOR, abs(a) + abs(b))
    return float("inf") if isnan(error) else error
