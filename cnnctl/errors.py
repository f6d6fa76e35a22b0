"""The one family of errors, each with the exit code the command line ends with.

Every message is one line that names the field, the offending value and what would
have been accepted. Nothing here prints.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from math import inf
from numbers import Real
from typing import Any


class CnnctlError(Exception):
    """Something failed for a reason that can be told in one line. Exit code 1.

    As text it is that line, whatever names and words from outside it quotes.
    """

    exit_code = 1

    def __str__(self) -> str:
        return make_line(super().__str__())


class ConfigError(CnnctlError):
    """A configuration, option or argument is not usable. Exit code 2.

    Attributes:
        problems: a line for each thing that is wrong; the first of them is the message.
    """

    exit_code = 2

    def __init__(self, message: str, *more: str) -> None:
        super().__init__(message)
        self.problems = tuple(make_line(problem) for problem in (message, *more))


class ShapeError(CnnctlError, ValueError):
    """An array, window or network has extents that do not fit together. Exit code 2."""

    exit_code = 2


class DtypeError(CnnctlError, TypeError):
    """An array has an element type that the contract does not know. Exit code 2."""

    exit_code = 2


class DataError(CnnctlError):
    """A data set is missing, damaged or not what its name says. Exit code 1."""


class BackendError(CnnctlError):
    """A backend cannot be used here; the message names the command that helps. Exit code 1."""


class RunError(CnnctlError):
    """A run directory is missing, locked, incomplete or not writable. Exit code 1."""


class CheckpointError(RunError):
    """A checkpoint is damaged, incomplete or belongs to another network. Exit code 1."""


class CheckFailed(CnnctlError):
    """A check (gradient, parity, gate) did not hold. Exit code 3."""

    exit_code = 3


class Diverged(CnnctlError):
    """A loss, gradient or weight stopped being finite. Exit code 4."""

    exit_code = 4


class Interrupted(CnnctlError):
    """A signal asked for a clean stop. Exit code 128 + signal number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def make_line(text: str) -> str:
    r"""The text on one line, and nothing in it that could steer a terminal.

    >>> make_line("run\t.yaml:\n  no such file")
    'run\\t.yaml: no such file'
    """
    return escape(re.sub(r"\s*[\r\n]\s*", " ", text.strip()))


def escape(text: str) -> str:
    """Control characters and undecodable bytes as Python writes them; line feeds stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def quote(text: str, most: int = 160) -> str:
    """What comes from outside, as an error tells it: on one line, and not at any length."""
    shown = escape(text[:most]).replace("\n", r"\n")
    return shown if len(text) <= most else f"{shown}..."


def describe_alternatives(value: object, alternatives: Iterable[str]) -> str:
    """The tail of an error line: the nearest known word, or all of them.

    >>> describe_alternatives("maxpol", ["relu", "maxpool"])
    'did you mean maxpool?'
    >>> describe_alternatives("x", ["relu", "maxpool"])
    'known: relu, maxpool'
    """
    known = list(alternatives)
    nearest = get_close_matches(str(value), known, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {nearest[0]}?"
    return f"known: {', '.join(known)}"


def check_real(field: str, value: Any, low: float, high: float = inf, *, above: bool = False) -> None:
    """Refuse what is no number in [low, high), or in (low, high) if it has to be `above` low."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value < high or (above and value == low):
        raise ConfigError(f"{field}: {value!r} is not a number in {'(' if above else '['}{low}, {high})")
