"""How weights start: constant, Gaussian, Xavier, He and orthogonal. Biases start at 0.

Numbers are drawn in float64 and then cast, so that a float32 network starts where the
float64 one does. A generator comes from the caller; nothing here seeds one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, prod, sqrt
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError, check_real, describe_alternatives

Distribution = Literal["normal", "uniform"]
Fan = Literal["in", "out", "average"]


class Initializer(ABC):
    """What weights are before the first step; drawn with mean 0, unless they are constant.

    Attributes:
        kind: the YAML key.
    """

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        """A float64 array of that shape, for units with `fan_in` inputs and `fan_out` outputs."""


@dataclass(frozen=True)
class Gaussian(Initializer):
    """Normal with mean 0 and a given standard deviation. Raises ConfigError unless that is above 0."""

    kind: ClassVar[str] = "gaussian"

    std: float = 0.01

    def __post_init__(self) -> None:
        check_real("std", self.std, 0, above=True)

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.std, shape)


@dataclass(frozen=True)
class Constant(Initializer):
    """The same number everywhere. Raises ConfigError unless it is finite."""

    kind: ClassVar[str] = "constant"

    value: float = 0.0

    def __post_init__(self) -> None:
        check_real("value", self.value, -inf, above=True)

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return np.full(shape, self.value, np.float64)


@dataclass(frozen=True)
class Xavier(Initializer):
    """Variance 1 / fan, by default that of both sides on average: 2 / (fan_in + fan_out).

    Raises ConfigError for an unknown distribution or fan.
    Source: Glorot, Bengio 2010, equations 12 and 16.
    """

    kind: ClassVar[str] = "xavier"

    distribution: Distribution = "normal"
    fan: Fan = "average"

    def __post_init__(self) -> None:
        _check_choice("distribution", self.distribution, get_args(Distribution))
        _check_choice("fan", self.fan, get_args(Fan))

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return _draw(self.distribution, sqrt(1 / _choose_fan(self.fan, fan_in, fan_out)), shape, rng)


@dataclass(frozen=True)
class He(Initializer):
    """Variance 2 / fan, made for ReLU: with fan_in it keeps the outputs' size, with fan_out the gradients'.

    Raises ConfigError for an unknown distribution or fan.
    Source: He et al. 2015, equations 10 and 14.
    """

    kind: ClassVar[str] = "he"

    distribution: Distribution = "normal"
    fan: Fan = "in"

    def __post_init__(self) -> None:
        _check_choice("distribution", self.distribution, get_args(Distribution))
        _check_choice("fan", self.fan, get_args(Fan))

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return _draw(self.distribution, sqrt(2 / _choose_fan(self.fan, fan_in, fan_out)), shape, rng)


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """`gain` times a random orthogonal matrix (outputs, inputs), a filter's taps side by side.

    Its rows are orthonormal, or its columns where there are more rows than columns; uniformly
    distributed. Raises ConfigError for gain outside (0, inf).
    Source: Saxe et al. 2014, section 3; Mezzadri 2007, section 5, for the signs.
    """

    kind: ClassVar[str] = "orthogonal"

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_real("gain", self.gain, 0, above=True)

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        rows, columns = shape[0], prod(shape[1:])
        q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
        matrix: Array = q if rows >= columns else q.T
        return self.gain * matrix.reshape(shape)


def check_init(init: object) -> None:
    """Refuse what is neither an initializer nor None."""
    if init is not None and not isinstance(init, Initializer):
        raise ConfigError(
            f"init: {init!r} is not an initializer; give Gaussian(), Xavier() or He(), for example"
        )


def draw_params(
    init: Initializer | None,
    shape: tuple[int, ...],
    *,
    groups: int = 1,
    bias: bool,
    dtype: np.dtype[Any],
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Weight of that shape, drawn from `init` (He by default), and a bias of zeros if wanted.

    Shapes: (F,C/groups,KH,KW) or (out,in). A unit sees fan_in = C/groups KH KW inputs, and an
    input reaches fan_out = F/groups KH KW outputs; KH = KW = 1 when fully connected.
    """
    fan_in, fan_out = prod(shape[1:]), shape[0] // groups * prod(shape[2:])
    weight = (init or He())(shape, fan_in, fan_out, rng).astype(dtype)
    return {"weight": weight, "bias": np.zeros(shape[0], dtype)} if bias else {"weight": weight}


def _check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{field}: {value!r} is not known; {describe_alternatives(value, known)}")


def _choose_fan(fan: Fan, fan_in: int, fan_out: int) -> float:
    return {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[fan]


def _draw(distribution: Distribution, std: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if distribution == "normal":
        return rng.normal(0.0, std, shape)
    bound = sqrt(3) * std  # uniform on [-bound, bound) has variance bound^2 / 3
    return rng.uniform(-bound, bound, shape)
