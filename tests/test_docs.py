"""What the documentation shows is what happens: its commands and scripts are run, its outputs compared.

Every `console` and `python` block of docs/ runs in order, a page in a folder of its own that has configs/ in
it; `test_readme.py` sees to the README. What a page shows of an output has to come, word by word; measured
figures and the names of runs may be others, a line of `...` stands for any lines, and stderr may be shown or
not. A block with a caption is a file, and a block behind a comment `not run: REASON` is left alone.
"""

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from cnnctl.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n+)?"
    r"^(?P<fence>```+)(?:\{code-block\} )?(?P<language>[a-z]+)\n"
    r"(?::caption: (?P<caption>\S+)\n\n?)?(?P<text>.*?)^(?P=fence)$",
    re.M | re.S,
)
RUN_NAME = re.compile(r"\d{8}-\d{6}-([\w-]+)-[0-9a-f]{4}")
FIGURE = re.compile(
    r"(?>[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?! (?:tensors|parameters|layers|epochs|steps)\b)"
)
"""What another machine or moment may change; how many there are of something is the same everywhere."""
TIMEOUT_S = 300


@dataclass(frozen=True)
class Block:
    """A fenced block: what is in it, which file it is if it is one, and why it is not run, if it is not."""

    line: int
    language: str
    text: str
    caption: str | None
    reason: str | None


def read_blocks(text: str) -> list[Block]:
    """All of a page's, in order."""
    return [
        Block(text[: m.start()].count("\n") + 1, m["language"], m["text"], m["caption"], m["reason"])
        for m in FENCE.finditer(text)
    ]


def is_run(block: Block) -> bool:
    return block.language in {"console", "python"} and not block.caption and not block.reason


def list_pages() -> list[Path]:
    """Those that have something to run."""
    return [page for page in sorted(DOCS.glob("*.md")) if any(map(is_run, read_blocks(page.read_text())))]


def level(text: str) -> str:
    """The words alone: figures, names of runs, bars and room between columns may differ."""
    text = re.sub(r"[▁▂▃▄▅▆▇█]+", "|", RUN_NAME.sub(r"RUN-\1", text))
    return "\n".join(" ".join(FIGURE.sub("0", line).split()) for line in text.strip().splitlines())


def agrees(shown: str, got: str) -> bool:
    """Whether this is the output; lines of `...` stand for any lines, also for none."""
    parts = re.split(r"^\.\.\.$", level(shown), flags=re.M)
    pattern = "(?s:.*)".join(re.escape(part.strip("\n")) for part in parts)
    return re.fullmatch(rf"\s*{pattern}\s*", level(got)) is not None


def read_commands(text: str) -> list[tuple[str, str]]:
    """Each command behind a $ with what is shown of its output."""
    pieces = [piece.partition("\n") for piece in re.split(r"^\$ ", text, flags=re.M)[1:]]
    return [(command.partition(" #")[0].strip(), shown) for command, _, shown in pieces]


class Session:
    """A folder with configs/ in it, the command on the path, and the names that scripts have made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, dict[str, Any](__name__="__main__")
        (folder / "configs").symlink_to(ROOT / "configs")
        programs = folder / ".programs"
        programs.mkdir()
        (programs / "cnnctl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cnnctl "$@"\n')
        (programs / "cnnctl").chmod(0o755)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CNNCTL_")},
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "OPENBLAS_NUM_THREADS": "1",
        }

    def run_command(self, command: str) -> tuple[str, str]:
        """Its stdout and its stderr."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return done.stdout, done.stderr

    def run_script(self, text: str) -> str:
        """What it prints."""
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(text, "<page>", "exec"), self.names)
        return out.getvalue()


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.stem)
def test_what_a_page_shows_happens(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session, blocks = Session(tmp_path), read_blocks(page.read_text())
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.caption and not block.reason:
            (tmp_path / block.caption).write_text(block.text)
        elif is_run(block) and block.language == "console":
            for command, shown in read_commands(block.text):
                out, err = session.run_command(command)
                told = f"{page.name}:{block.line}: $ {command}\n{err}{out}"
                assert agrees(shown or "...", out) or agrees(shown, err + out), told
        elif is_run(block):
            got = session.run_script(block.text)
            shown = after.text if after and after.language == "text" and not after.reason else ""
            assert agrees(shown or "...", got), f"{page.name}:{block.line}:\n{got}"


def test_every_block_is_run_or_says_why_not() -> None:
    """No language that nobody runs, and no reason that is none."""
    known = {"console", "python", "text", "yaml", "diff"}
    for page in DOCS.glob("*.md"):
        if page.name == "engine.md":  # tells of C and assembly as well
            continue
        for block in read_blocks(page.read_text()):
            assert block.language in known, f"{page.name}:{block.line}"
            assert block.reason is None or len(block.reason) > 8, f"{page.name}:{block.line}"


@pytest.mark.parametrize(
    ("shown", "got", "same"),
    [
        ("loss 0.25, 11,000 images", "loss  1e-3, 9 images\n", True),
        ("runs/20260101-000000-first-12ab", "runs/20270908-112233-first-00ff", True),
        ("runs/20260101-000000-first-12ab", "runs/20270908-112233-second-00ff", False),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nb\nc", False),
        ("accuracy 5 %", "loss 5 %", False),
        ("ok", "ok\nand more", False),
        ("12 tensors: 12 ok", "18 tensors: 18 ok", False),
        ("1,720 steps of 64 images", "172 steps of 64 images", False),
    ],
)
def test_words_are_compared(shown: str, got: str, same: bool) -> None:
    assert agrees(shown, got) is same


def test_blocks_are_found() -> None:
    commands = "# A\n\n<!-- not run: no network -->\n```console\n$ a\n```\n"
    skipped, file = read_blocks(f"{commands}\n```{{code-block}} yaml\n:caption: f.yaml\n\nx: 1\n```\n")
    assert (skipped.reason, skipped.language, skipped.text) == ("no network", "console", "$ a\n")
    assert (file.caption, file.text) == ("f.yaml", "x: 1\n")
    assert read_commands("$ a  # why\n1\n2\n$ b\n") == [("a", "1\n2\n"), ("b", "")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the patch that the page on a new layer shows."""
    tree = tmp_path_factory.mktemp("layer")
    for name in ("cnnctl", "configs", "ext", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    text = (DOCS / "tutorial-layer.md").read_text()
    patch = "".join(block.text for block in read_blocks(text) if block.language == "diff")
    assert patch.count("\n+++ ") > 10
    command = ["patch", "-p1", "--fuzz=0", "--forward", "--no-backup-if-mismatch"]
    done = subprocess.run(command, cwd=tree, input=patch, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return tree


class TestLayerTutorial:
    """With its patch, the new layer is right, as far as that can be told without compiling all of it."""

    def run(self, tree: Path, *command: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("backend", ["naive", "im2col"])
    def test_the_gradients_are_right(self, tree: Path, backend: str) -> None:
        command = ["-m", "cnnctl", "gradcheck", "--layer", "hard_swish", "--backend", backend]
        self.run(tree, sys.executable, *command)

    def test_its_tests_pass_without_the_kernels(self, tree: Path) -> None:
        numpy_alone = ["tests/backends/test_activation.py", "-k", "hard_swish and (naive or im2col)"]
        schema = ["tests/config/test_schema.py::TestLayers", "tests/train/test_build.py"]
        for arguments in (numpy_alone, schema):
            self.run(tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)

    @pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here to read C with")
    @pytest.mark.parametrize("source", ["conv.c", "elementwise.c"])
    def test_the_kernels_compile(self, tree: Path, source: str) -> None:
        options = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-DREAL_BITS=32", "-DVARIANT=baseline_f32"]
        self.run(tree, "gcc", "-std=gnu11", *options, f"ext/{source}")


@pytest.fixture(scope="module")
def command_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("command_reference", DOCS / "command_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_is_in_the_reference(command_reference: ModuleType) -> None:
    page = command_reference.write_command_reference()
    paths = []
    with click.Context(cli, info_name="cnnctl") as ctx:
        for name in COMMANDS:
            command = cli.get_command(ctx, name)
            inner = getattr(command, "commands", {})
            paths += [f"cnnctl {name}", *(f"cnnctl {name} {below}" for below in inner)]
            for one in (command, *inner.values()):
                for option in [param for param in one.params if isinstance(param, click.Option)]:
                    assert f"`{option.opts[0]}" in page or f", {option.opts[0]}" in page
    assert sorted(re.findall(r"^##+ (cnnctl .*)$", page, re.M)) == sorted(paths)


def test_help_becomes_markdown(command_reference: ModuleType) -> None:
    @click.command(help="A *star*.\n\n\b\nExamples:\n  cnnctl x  # <y>\n  cnnctl z\n\nEnd.")
    @click.option("--most", type=click.IntRange(min=1), default=3, show_default=True, help="So many | more.")
    def x() -> None: ...

    with click.Context(cli, info_name="cnnctl") as parent:
        (section,) = command_reference.write_sections(parent, "x", x, 2)
    assert section == (
        "## cnnctl x\n\n```text\ncnnctl x [OPTIONS]\n```\n\nA \\*star\\*.\n\n"
        "Examples:\n\n```text\ncnnctl x  # <y>\ncnnctl z\n```\n\nEnd.\n\n"
        "`--most INTEGER`\n: So many \\| more. *Default: 3; x\\>=1.*\n"
    )
