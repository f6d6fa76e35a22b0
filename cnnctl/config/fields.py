"""What fields are made of: numbers with a range, choices among kinds, sections with known keys.

Closed, strict and frozen: an unknown key, a number given as text, a boolean given as a
number, NaN and infinities are refused. Each refusal carries its own words, in pydantic's
error context, to be put behind the field's place by `load`. Names no field of a config.
"""

from collections.abc import Callable, Mapping
from inspect import isclass
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cnnctl.config.strict_yaml import show_value
from cnnctl.errors import describe_alternatives

MOST_PROBLEMS = 20
"""So many mistakes of one file are told: whoever makes more has given another kind of file."""


def refuse(reason: str, *field: str | int, kind: Literal["value", "key"] = "value") -> PydanticCustomError:
    """An error whose line reads: place, path to `field`, `reason`."""
    return PydanticCustomError(kind, "{reason}", {"reason": reason, "field": field})


def explain(describe: Callable[[Any], str]) -> WrapValidator:
    """Say what is wrong with a value in place of whatever pydantic would say."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise refuse(f": {show_value(value)} is not {describe(value)}") from None

    return WrapValidator(validate)


def accept(expected: str) -> WrapValidator:
    """Say what would have been usable in place of whatever pydantic would say."""
    return explain(lambda value: f"usable; give {expected}")


def choose(literal: Any) -> WrapValidator:
    """Say which words are known in place of whatever pydantic would say."""
    return explain(lambda value: f"known; {describe_alternatives(value, get_args(literal))}")


def list_of(items: str) -> BeforeValidator:
    """Refuse what is no list before pydantic looks into it; what is wrong with an item, its own words say."""

    def validate(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise refuse(f": {show_value(value)} is not usable; give a list of {items}")
        return value

    return BeforeValidator(validate)


Count = Annotated[int, Field(ge=1), accept("an integer of at least 1")]
CountOrZero = Annotated[int, Field(ge=0), accept("an integer of at least 0")]
Number = Annotated[float, accept("a number")]
Positive = Annotated[float, Field(gt=0), accept("a number above 0")]
NotNegative = Annotated[float, Field(ge=0), accept("a number of at least 0")]
Fraction = Annotated[float, Field(ge=0, lt=1), accept("a number of at least 0 and below 1")]
Share = Annotated[float, Field(gt=0, lt=1), accept("a number above 0 and below 1")]
Flag = Annotated[bool, accept("true or false")]
Seed = Annotated[int, Field(ge=0, lt=2**63), accept("an integer from 0 to 2^63 - 1")]
RunName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    accept("1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"),
]
LayerName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"),
    accept("a letter followed by up to 63 letters, digits, '_' and '-'"),
]
PathText = Annotated[str, Field(min_length=1), accept("a path")]

_One = Annotated[int, Field(ge=1)]
_Zero = Annotated[int, Field(ge=0)]
Extent = Annotated[
    _One | Annotated[tuple[_One, _One], Field(strict=False)],
    accept("an integer of at least 1, or [height, width]"),
]
Border = Annotated[
    _Zero | Annotated[tuple[_Zero, _Zero], Field(strict=False)] | Literal["same"],
    accept("an integer of at least 0, [height, width], or same"),
]
PoolBorder = Annotated[
    _Zero | Annotated[tuple[_Zero, _Zero], Field(strict=False)],
    accept("an integer of at least 0, or [height, width]"),
]


class Section(BaseModel):
    """A mapping with known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        value, fields = cls._unwrap(value), cls.model_fields
        if not isinstance(value, Mapping):
            known = f"a mapping of {', '.join(fields)}"
            raise refuse(f": {show_value(value)} is not usable; give {known}")
        unknown = islice((key for key in value if key not in fields), MOST_PROBLEMS + 1)
        problems = [
            *(refuse(f" is not known; {cls._suggest(key)}", key, kind="key") for key in unknown),
            *(
                refuse(f" is missing ({field.description})", key)
                for key, field in fields.items()
                if field.is_required() and key not in value
            ),
        ]
        if problems:
            raise ValidationError.from_exception_data(
                cls.__name__, [{"type": problem, "input": value} for problem in problems]
            )
        return value

    @classmethod
    def _suggest(cls, key: Any) -> str:
        """The tail of an error line: the sections that have this very key, or keys of this one."""
        places = cls.find_places(key)
        return (
            f"did you mean {' or '.join(places)}?" if places else describe_alternatives(key, cls.model_fields)
        )

    @classmethod
    def find_places(cls, key: Any) -> list[str]:
        """Where this very key stands one level below, as "solver.epochs"."""
        owners = [name for name, field in cls.model_fields.items() if _has_field(field.annotation, key)]
        return [f"{owner}.{key}" for owner in owners]

    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        return value


def _has_field(hint: Any, key: Any) -> bool:
    return isclass(hint) and issubclass(hint, Section) and key in hint.model_fields


class Kind(Section):
    """A choice among several, written as a word, {word: settings} or {word: shorthand}.

    Attributes:
        kind: the word.
        shorthand: the field that a value in place of the settings stands for.
    """

    kind: ClassVar[str]
    shorthand: ClassVar[str | None] = None

    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and list(value) != [cls.kind]:
            return value
        settings = value[cls.kind] if isinstance(value, Mapping) else None
        if settings is None:
            return {}
        if cls.shorthand and not isinstance(settings, Mapping):
            return {cls.shorthand: settings}
        return settings

    @model_serializer(mode="wrap")
    def _wrap(self, handler: SerializerFunctionWrapHandler) -> Any:
        settings = handler(self)
        if list(settings) == [self.kind]:  # pydantic comes here twice for a model that can hold itself
            return settings
        return {self.kind: settings} if settings else self.kind


def kind_of(value: Any) -> Any:
    """The kind that a word, or a word with its settings, names; anything else as it is."""
    if isinstance(value, Kind):
        return value.kind
    return next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else value


def one_of(*kinds: type[Kind]) -> BeforeValidator:
    """Refuse what names none of these kinds, before pydantic looks for it."""
    known = [kind.kind for kind in kinds]

    def validate(value: Any) -> Any:
        name = kind_of(value)
        if not isinstance(name, str):
            alternatives = f"{', '.join(known)}: the word, or the word with its settings"
            raise refuse(f": {show_value(value)} is not usable; give one of {alternatives}")
        if name not in known:
            raise refuse(f": {show_value(name)} is not known; {describe_alternatives(name, known)}")
        return value

    return BeforeValidator(validate)
