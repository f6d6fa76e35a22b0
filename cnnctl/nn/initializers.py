"""How weights start: Gaussian, Xavier and He. Biases start at 0.

Numbers are drawn in float64 and then cast, so that a float32 network starts where the
float64 one does. A generator comes from the caller; nothing here seeds one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError, check_real, describe_alternatives

Distribution = Literal["normal", "uniform"]


class Initializer(ABC):
    """A distribution with mean 0 that weights are drawn from.

    Attributes:
        kind: the YAML key.
    """

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        """A float64 array of that shape, for units with `fan_in` inputs and `fan_out` outputs."""


@dataclass(frozen=True)
class Gaussian(Initializer):
    """Normal with a given standard deviation, whatever the fans."""

    kind: ClassVar[str] = "gaussian"

    std: float = 0.01

    def __post_init__(self) -> None:
        check_real("std", self.std, 0, above=True)

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.std, shape)


@dataclass(frozen=True)
class Xavier(Initializer):
    """Variance 2 / (fan_in + fan_out). Source: Glorot, Bengio 2010, equations 12 and 16."""

    kind: ClassVar[str] = "xavier"

    distribution: Distribution = "normal"

    def __post_init__(self) -> None:
        _check_distribution(self.distribution)

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return _draw(self.distribution, sqrt(2 / (fan_in + fan_out)), shape, rng)


@dataclass(frozen=True)
class He(Initializer):
    """Variance 2 / fan_in, made for ReLU. Source: He et al. 2015, equation 10."""

    kind: ClassVar[str] = "he"

    distribution: Distribution = "normal"

    def __post_init__(self) -> None:
        _check_distribution(self.distribution)

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return _draw(self.distribution, sqrt(2 / fan_in), shape, rng)


def check_init(init: object) -> None:
    """Refuse what is neither an initializer nor None."""
    if init is not None and not isinstance(init, Initializer):
        raise ConfigError(f"init: {init!r} is not an initializer; give Gaussian(), Xavier() or He()")


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


def _check_distribution(distribution: str) -> None:
    known = get_args(Distribution)
    if distribution not in known:
        raise ConfigError(
            f"distribution: {distribution!r} is not known; {describe_alternatives(distribution, known)}"
        )


def _draw(distribution: Distribution, std: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if distribution == "normal":
        return rng.normal(0.0, std, shape)
    bound = sqrt(3) * std  # uniform on [-bound, bound) has variance bound^2 / 3
    return rng.uniform(-bound, bound, shape)
