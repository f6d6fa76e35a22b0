"""Which operations are timed beside the textbook's loops: the courses' own, or those of a file.

    calls: 1                                   # of every case that says nothing else
    cases:
      - {name: mine, x: [100, 3, 32, 32], layer: {conv: {filters: 32, kernel: 5, padding: 2}}}
      - {x: [100, 4608], layer: {linear: 100}, calls: 10}

A layer is written as in a network. Everything is checked before anything runs, with line and
column. Draws no numbers and times nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter, ValidationError

from cnnctl.config.fields import Count, RunName, Section, accept, kind_of, one_of, refuse
from cnnctl.config.load import validate_tree
from cnnctl.config.network import AvgPoolConfig, ConvConfig, LayerConfig, LinearConfig, MaxPoolConfig
from cnnctl.config.strict_yaml import Node, parse_yaml, read_yaml, show_value
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.geometry import check_elements
from cnnctl.nn import Layer
from cnnctl.train.build import build_kind

COURSE_CASES = """\
# The courses' own: the first two of Stanford's cs231n (assignment 2, "fast layers"), the third
# the comparison of a 3x3 image and 16 filters whose time is that of 100 calls.
cases:
  - name: conv-31x31
    x: [100, 3, 31, 31]
    layer: {conv: {filters: 25, kernel: 3, stride: 2, padding: 1}}
  - name: maxpool-32x32
    x: [100, 3, 32, 32]
    layer: {maxpool: {kernel: 2, stride: 2}}
  - name: conv-3x3-image
    x: [1, 1, 3, 3]
    layer: {conv: {filters: 16, kernel: 3, bias: false}}
    calls: 100
"""

TimedLayer = Annotated[
    Annotated[ConvConfig, Tag("conv")]
    | Annotated[MaxPoolConfig, Tag("maxpool")]
    | Annotated[AvgPoolConfig, Tag("avgpool")]
    | Annotated[LinearConfig, Tag("linear")],
    Discriminator(kind_of),
    one_of(ConvConfig, MaxPoolConfig, AvgPoolConfig, LinearConfig),
]


class CaseConfig(Section):
    """A layer and what goes into it."""

    name: RunName | None = Field(default=None, description="what the case is called; unique")
    x: Annotated[
        tuple[Count, ...],
        Field(strict=False),
        accept("[N, C, H, W] or [N, D], integers of at least 1"),
    ] = Field(description="the input's shape, [N, C, H, W] or [N, D]")
    layer: TimedLayer = Field(description="conv, maxpool, avgpool or linear, as in a network")
    calls: Count | None = Field(default=None, description="how many calls one time is of, at least 1")


def _check_cases(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise refuse(f": {show_value(value)} is not usable; give a list of cases, at least one")
    return tuple(value)


class ShapesConfig(Section):
    """A file of cases."""

    cases: Annotated[tuple[CaseConfig, ...], BeforeValidator(_check_cases)] = Field(
        description="the operations to time, at least one"
    )
    calls: Count = Field(default=1, description="how many calls one time is of, at least 1")


@dataclass(frozen=True, slots=True)
class Case:
    """An operation to be held against the textbook and timed.

    Attributes:
        x_shape: (N, C, H, W) or (N, D).
        calls: how many calls one time is of.
    """

    name: str
    x_shape: tuple[int, ...]
    config: LayerConfig
    calls: int = 1

    def create_layer(self) -> Layer:
        """The layer, without parameters. Raises ShapeError where x does not fit it."""
        if len(self.x_shape) not in {2, 4}:
            raise ShapeError(f"x: {list(self.x_shape)} is neither [N, C, H, W] nor [N, D]")
        layer: Layer = build_kind(self.config)
        check_elements(self.x_shape, "x")
        check_elements((self.x_shape[0], *layer.infer_shape(self.x_shape[1:])), "y")
        return layer

    def describe(self) -> str:
        """Shape and layer in the words of the file, on one line."""
        kind = self.config.kind
        layer = self.config.model_dump(mode="json", exclude_defaults=True, exclude={"name", "init"})
        settings = ", ".join(f"{key}: {show_value(value)}" for key, value in layer[kind].items())
        return f"x {list(self.x_shape)}, {kind}: {{{settings}}}"


def read_cases(path: str | None = None) -> tuple[str, tuple[Case, ...]]:
    """A file's text and the cases in it; without one, the courses'.

    Raises ConfigError, a line for each problem, first the place, for what is not usable.
    """
    if path is None:
        text, tree = COURSE_CASES, parse_yaml(COURSE_CASES, "courses")
    else:
        tree = read_yaml(path)
        text = Path(path).read_text(encoding="utf-8")
    config = validate_tree(tree, ShapesConfig)
    cases: dict[str, Case] = {}
    for number, settings in enumerate(config.cases):
        kind = settings.layer.kind
        name = settings.name or f"{kind}{1 + sum(case.config.kind == kind for case in cases.values())}"
        place = _find_origin(tree, number)
        if name in cases:
            raise ConfigError(f"{place}: cases.{number}: {name!r} is the name of two cases; give one another")
        case = Case(name, settings.x, settings.layer, settings.calls or config.calls)
        try:
            case.create_layer()
        except ShapeError as error:
            raise ConfigError(f"{place}: cases.{number} ({name}): {error}") from None
        cases[name] = case
    return text, tuple(cases.values())


def check_name(name: str) -> str:
    """A run's name as it is; raises ConfigError for one that a directory should not have."""
    try:
        return str(TypeAdapter(RunName).validate_python(name))
    except ValidationError as error:
        raise ConfigError(f"name{error.errors()[0]['ctx']['reason']}") from None


def _find_origin(tree: Node, number: int) -> str:
    cases = tree.child("cases")
    case = cases.child(number) if cases else None
    return case.origin if case else tree.origin
