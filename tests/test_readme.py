"""The README is true: each of its commands is run, each of its snippets executed, each of its links followed.

Commands that would take minutes get overrides that shorten them; what cannot be
run is listed, with the reason.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cnnctl.cli.main import main
from cnnctl.config import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
BLOCKS = [(match[1], match[2]) for match in FENCED.finditer(README)]
SHELL = [block for language, block in BLOCKS if language == "sh"]

NOT_RUN = {
    "make train": "`.ci/run` does",
    "make test": "this is what runs the tests",
    "cnnctl bench step configs/cifar10_vgg.yaml --peer torch": "needs PyTorch",
}
FEW_IMAGES = [
    "-o",
    "data.train=200",
    "-o",
    "data.validation=100",
    "-o",
    "data.test=100",
    "-o",
    "solver.epochs=1",
]
SHORTER = {
    "cnnctl train configs/mnist": FEW_IMAGES,
    "cnnctl train configs/cifar10": FEW_IMAGES,
    "cnnctl bench": ["--seconds", "0"],
}
"""What begins so gets these arguments as well."""


def read_commands(block: str) -> list[str]:
    """The lines of a block without their comments."""
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's configs and somebody's photographs, to work in."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "pictures").mkdir()
    for name in "photo.jpg", "pictures/cat.png":
        Image.effect_mandelbrot((96, 64), (-2, -1, 1, 1), 90).convert("RGB").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def list_runnable() -> list[object]:
    """The blocks of commands; those with real images are run where there are some."""
    found: list[object] = []
    for block in SHELL:
        commands = [command for command in read_commands(block) if command not in NOT_RUN]
        wants_data = any(name in block for name in ("configs/mnist", "configs/cifar10"))
        if commands:
            marks = [pytest.mark.data] if wants_data else []
            found.append(pytest.param(commands, id=commands[0], marks=marks))
    return found


@pytest.mark.parametrize("commands", list_runnable())
def test_commands_run(commands: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in commands:
        more = next((more for start, more in SHORTER.items() if command.startswith(start)), [])
        program, *args = shlex.split(command)
        assert program == "cnnctl", command
        code = main([*args, *more])
        shown = capfd.readouterr()
        assert (code, "error" in shown.err) == (0, False), f"{command}: {shown.err}"


def test_what_is_not_run_is_there() -> None:
    commands = [command for block in SHELL for command in read_commands(block)]
    assert set(NOT_RUN) <= set(commands)


@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python"])
def test_python_runs(code: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("text", [block for language, block in BLOCKS if language == "yaml"])
def test_configs_are_valid(text: str, folder: Path) -> None:
    (folder / "readme.yaml").write_text(text)
    load_config("readme.yaml")


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", README):
        place = "".join(target)
        assert place.removeprefix("#") in anchors if place.startswith("#") else (ROOT / place).exists(), place
