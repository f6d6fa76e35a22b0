"""The house rules, read from the source: imports run downwards, and only the display prints.

Looks at every import there is, also inside functions and under TYPE_CHECKING. Runs none of
what it reads.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cnnctl"

FLOORS = {
    **dict.fromkeys(("errors", "geometry"), 1),
    **dict.fromkeys(("backends", "data", "config"), 2),
    **dict.fromkeys(("nn", "optim"), 3),
    **dict.fromkeys(("train", "check"), 4),
    **dict.fromkeys(("bench", "plot", "compat"), 5),
    "cli": 6,
}

NEIGHBOURS = {("geometry", "errors"), ("nn", "optim")}
"""The pairs on one floor of which the first may know the second. An optimizer knows no layer."""

STRANGERS = {(room, other) for room in ("nn", "optim") for other in ("config", "data")}
"""Pairs that may not know each other although the way would be downwards."""

FRONT_DOORS = {"__init__": set(FLOORS) - {"cli"}, "__main__": {"cli"}}
"""The modules outside every room, and what each opens."""

TERMINAL_LIBRARIES = {"click", "rich", "tqdm"}
FILE_LIBRARIES = {"io", "os", "pathlib", "safetensors", "yaml"}
FORBIDDEN_LIBRARIES = {
    **dict.fromkeys(set(FLOORS) - {"cli"}, TERMINAL_LIBRARIES),
    **dict.fromkeys(("nn", "optim"), TERMINAL_LIBRARIES | FILE_LIBRARIES),
}

PRINTER = "cli/display.py"
PRINTING_NAMES = {"print", "pprint", "echo", "secho", "echo_via_pager"}
STREAMS = {f"sys.{name}" for name in ("stdout", "stderr", "__stdout__", "__stderr__")}
STREAM_WRITERS = {"write", "writelines", "buffer"}


def find_violations(package: Path) -> list[str]:
    """One line for each breach of the rules below `package`, with its place."""
    violations = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        tree = ast.parse(path.read_text())
        room = place.parts[0].removesuffix(".py")
        found = [(line, judge_import(room, name)) for line, name in find_imports(tree, place)]
        if place.as_posix() != PRINTER:
            found += [(line, f"{name} outside {PRINTER}") for line, name in find_prints(tree)]
        violations += [f"{place.as_posix()}:{line}: {verdict}" for line, verdict in found if verdict]
    return violations


def judge_import(room: str, name: str) -> str | None:
    """What is wrong with `room` importing the dotted `name`, if anything."""
    library, _, inner = name.partition(".")
    if library != "cnnctl":
        wrong = library in FORBIDDEN_LIBRARIES.get(room, set())
        return f"{room} imports {library}" if wrong else None
    other = inner.partition(".")[0]
    if other == room or other.startswith("__"):
        return None
    if room in FRONT_DOORS:
        allowed = other in FRONT_DOORS[room]
    else:
        known = {room, other} <= set(FLOORS) and (room, other) not in STRANGERS
        allowed = known and (FLOORS[other] < FLOORS[room] or (room, other) in NEIGHBOURS)
    return None if allowed else f"{room} imports {name}"


def find_imports(tree: ast.Module, place: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is imported, in whatever way."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name != "cnnctl")
        elif isinstance(node, ast.ImportFrom):
            above = ("cnnctl", *place.parent.parts)
            base = above[: len(above) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cnnctl":
            yield node.lineno, f"cnnctl.{node.attr}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield node.lineno, read_prefix(node.args[0])


def read_prefix(argument: ast.expr) -> str:
    """As much of a string as stands in the source: "cnnctl.cli." for f"cnnctl.cli.{name}"."""
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
    return str(first.value) if isinstance(first, ast.Constant) else ""


def find_prints(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of everything that writes to the terminal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rpartition(".")[2] in PRINTING_NAMES:
                yield node.lineno, name
        elif isinstance(node, ast.Attribute):
            if node.attr in STREAM_WRITERS and ast.unparse(node.value) in STREAMS:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            names = {f"sys.{alias.name}" for alias in node.names}
            yield from ((node.lineno, name) for name in sorted(names & STREAMS))


def test_everybody_keeps_the_rules() -> None:
    assert find_violations(PACKAGE) == []


def test_every_rule_has_something_to_look_at() -> None:
    """A walk that finds no modules would find no violations either."""
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert {"errors", "geometry", "backends", "config", "data", "nn", "optim", "train", "cli"} <= found


@pytest.mark.parametrize(
    ("place", "source", "verdict"),
    [
        ("errors.py", "from cnnctl.geometry import Window", "errors imports cnnctl.geometry.Window"),
        ("geometry.py", "import cnnctl.nn", "geometry imports cnnctl.nn"),
        ("backends/naive.py", "from cnnctl.data import Split", "backends imports cnnctl.data.Split"),
        ("config/load.py", "from cnnctl import backends", "config imports cnnctl.backends"),
        ("data/fetch.py", "from ..config import schema", "data imports cnnctl.config.schema"),
        ("data/fetch.py", "from .. import train", "data imports cnnctl.train"),
        ("nn/conv.py", "import cnnctl.config.load", "nn imports cnnctl.config.load"),
        ("nn/conv.py", "from pathlib import Path", "nn imports pathlib"),
        ("optim/sgd.py", "from cnnctl.nn import Layer", "optim imports cnnctl.nn.Layer"),
        ("optim/sgd.py", "from cnnctl.data import Split", "optim imports cnnctl.data.Split"),
        ("train/solver.py", "from tqdm import tqdm", "train imports tqdm"),
        ("train/solver.py", "import rich.console", "train imports rich"),
        ("check/parity.py", "import click", "check imports click"),
        ("train/solver.py", "from cnnctl.bench import peers", "train imports cnnctl.bench.peers"),
        ("train/solver.py", "import cnnctl\ncnnctl.plot.draw()", "train imports cnnctl.plot"),
        ("train/solver.py", "from cnnctl import Network", "train imports cnnctl.Network"),
        ("bench/time.py", "from cnnctl.plot import curves", "bench imports cnnctl.plot.curves"),
        ("nn/a/b.py", "from ...train import api", "nn imports cnnctl.train.api"),
        ("utils.py", "from cnnctl.errors import CnnctlError", "utils imports cnnctl.errors.CnnctlError"),
        ("nn/conv.py", "from cnnctl.utils import pad", "nn imports cnnctl.utils.pad"),
        ("__init__.py", "from cnnctl.cli import main", "__init__ imports cnnctl.cli.main"),
        ("__main__.py", "from cnnctl.train import api", "__main__ imports cnnctl.train.api"),
        ("nn/conv.py", "def f():\n    from cnnctl.train import api", "nn imports cnnctl.train.api"),
        (
            "nn/conv.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cnnctl.cli import main",
            "nn imports cnnctl.cli.main",
        ),
        ("data/catalogue.py", "import_module('cnnctl.train')", "data imports cnnctl.train"),
        ("data/catalogue.py", "importlib.import_module(f'cnnctl.nn.{name}')", "data imports cnnctl.nn."),
        ("train/solver.py", "print('epoch 1')", "print outside cli/display.py"),
        ("cli/train.py", "click.echo('done')", "click.echo outside cli/display.py"),
        ("cli/train.py", "Console().print('done')", "Console().print outside cli/display.py"),
        ("cli/train.py", "sys.stdout.write('done')", "sys.stdout.write outside cli/display.py"),
        ("cli/train.py", "sys.stderr.buffer.write(b'')", "sys.stderr.buffer outside cli/display.py"),
        ("data/fetch.py", "from sys import stderr", "sys.stderr outside cli/display.py"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, place: str, source: str, verdict: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert find_violations(tmp_path) == [f"{place}:{1 + source.rstrip().count(chr(10))}: {verdict}"]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("geometry.py", "from cnnctl.errors import ShapeError"),
        ("nn/plan.py", "from cnnctl.optim import Optimizer\nfrom . import conv\nfrom ..backends import base"),
        ("train/solver.py", "import cnnctl\nfrom cnnctl.nn import Network\nversion = cnnctl.__version__"),
        ("backends/__init__.py", "import_module(f'cnnctl.backends.{name}')"),
        ("cli/train.py", "import click\nfrom cnnctl import __version__\nsys.stdout.flush()"),
        ("cli/display.py", "import sys\nimport rich\nprint('done', file=sys.stderr)"),
        ("__init__.py", "from cnnctl.train.api import train"),
        ("__main__.py", "from cnnctl.cli.main import main"),
    ],
)
def test_what_is_allowed_is_let_through(tmp_path: Path, place: str, source: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert find_violations(tmp_path) == []
