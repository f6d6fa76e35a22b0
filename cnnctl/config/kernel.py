"""A convolution kernel in a YAML file: a name, weights and biases.

    name: emboss
    weight: [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]
    bias: 0

Knows shapes and ranges; what a kernel does to an image is not known here.
"""

import os
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from cnnctl.config.fields import Number, RunName, Section, accept, refuse
from cnnctl.config.load import validate_tree
from cnnctl.config.strict_yaml import read_yaml, show_value

MAX_FILTERS = 16
MAX_EXTENT = 63
CHANNELS = {1, 3}


def _check_weight(weight: Any) -> Any:
    shape = measure_weight(weight)
    if shape is None or len(shape) not in {2, 4}:
        raise refuse(
            f": {show_value(weight)} is not usable; give rows of numbers (KH, KW), or those nested as "
            "(F, C, KH, KW), all of one length"
        )
    F, C = shape[:-2] or (1, 3)
    if C not in CHANNELS:
        raise refuse(f": shape {shape} has {C} channels; give 3 for RGB, or 1 for grey")
    if F > MAX_FILTERS or max(shape[-2:]) > MAX_EXTENT:
        raise refuse(f": shape {shape} is above {MAX_FILTERS} filters of {MAX_EXTENT}x{MAX_EXTENT}")
    return weight


def measure_weight(value: Any) -> tuple[int, ...] | None:
    """The shape of nested lists of numbers; None if they are ragged, empty or hold anything else.

    >>> measure_weight([[1, 2.5, 3], [4, 5, 6]]), measure_weight([[1], [2, 3]])
    ((2, 3), None)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return () if isfinite(value) else None
    shapes = {measure_weight(item) for item in value} if isinstance(value, list) else set()
    shape = shapes.pop() if len(shapes) == 1 else None
    return None if shape is None else (len(value), *shape)


class KernelConfig(Section):
    """What a kernel file holds."""

    name: RunName = Field(description="what the kernel is called in titles and file names")
    weight: Annotated[Any, AfterValidator(_check_weight)] = Field(
        description="rows (KH, KW), for each channel by itself; or (F, C, KH, KW): F grey pictures of C "
        "channels, 3 (RGB) or 1 (grey)"
    )
    bias: Annotated[Number | list[Number], accept("a number, or a list of one for each filter")] = Field(
        default=0.0, description="is added to each pixel, or a list of one for each filter"
    )

    @model_validator(mode="after")
    def _check_bias(self) -> "KernelConfig":
        if isinstance(self.bias, list) and len(self.bias) != self.filters:
            raise refuse(f": {len(self.bias)} numbers for a weight of {self.filters} filters", "bias")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """(KH, KW) or (F, C, KH, KW)."""
        return measure_weight(self.weight) or ()

    @property
    def filters(self) -> int:
        """How many pictures it makes of one."""
        return 1 if len(self.shape) == 2 else self.shape[0]


def load_kernel(path: str | os.PathLike[str]) -> KernelConfig:
    """Read a kernel file. Raises ConfigError, one line that begins with the place."""
    return validate_tree(read_yaml(os.fspath(path)), KernelConfig)
