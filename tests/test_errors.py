"""The one family of errors: what callers may catch, and what the command line exits with."""

import re
import signal

import pytest

from cnnctl import errors
from cnnctl.errors import CnnctlError, DtypeError, Interrupted, RunError, ShapeError, describe_alternatives

FAMILY = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CnnctlError)
]


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        ("CnnctlError", 1),
        ("ConfigError", 2),
        ("ShapeError", 2),
        ("DtypeError", 2),
        ("DataError", 1),
        ("BackendError", 1),
        ("RunError", 1),
        ("CheckpointError", 1),
        ("CheckFailed", 3),
        ("Diverged", 4),
    ],
)
def test_exit_code(name: str, exit_code: int) -> None:
    error = getattr(errors, name)("kernel: 0 is below 1")
    assert error.exit_code == exit_code
    assert str(error) == "kernel: 0 is below 1"
    assert isinstance(error, CnnctlError)


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_with_its_number_above_128(number: signal.Signals, exit_code: int) -> None:
    error = Interrupted("stopped after step 7", number)
    assert error.exit_code == exit_code
    assert str(error) == "stopped after step 7"


@pytest.mark.parametrize("error", [error for error in FAMILY if error is not Interrupted])
def test_docstrings_tell_the_truth_about_exit_codes(error: type[CnnctlError]) -> None:
    assert re.findall(r"Exit code (\d)\.", error.__doc__ or "") == [str(error.exit_code)]


def test_wrong_arrays_are_the_errors_python_users_expect() -> None:
    assert issubclass(ShapeError, ValueError)
    assert issubclass(DtypeError, TypeError)


def test_a_damaged_checkpoint_is_a_damaged_run() -> None:
    assert issubclass(errors.CheckpointError, RunError)


@pytest.mark.parametrize(
    ("value", "alternatives", "expected"),
    [
        ("maxpol", ["relu", "maxpool"], "did you mean maxpool?"),
        ("learning_rat", ["learning_rate", "rate"], "did you mean learning_rate?"),
        ("x", ["relu", "maxpool"], "known: relu, maxpool"),
        (7, ["relu"], "known: relu"),
        ("convv", iter(["conv", "linear"]), "did you mean conv?"),
    ],
)
def test_alternatives(value: object, alternatives: list[str], expected: str) -> None:
    assert describe_alternatives(value, alternatives) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n  b", "a b"),
        ("run\t.yaml: no such file", r"run\t.yaml: no such file"),
        ("\x1b[2J\udcff", r"\x1b[2J\udcff"),
    ],
)
def test_an_error_is_one_line(text: str, line: str) -> None:
    assert str(CnnctlError(text)) == line
    assert line.isprintable()


def test_what_comes_from_outside_is_quoted_at_no_length() -> None:
    assert errors.quote("a\nb" + 500 * "x", 5) == r"a\nbxx..."
    assert errors.quote("short") == "short"
