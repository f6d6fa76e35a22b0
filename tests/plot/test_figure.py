"""The same figure gives the same bytes, whatever the user's settings; other formats are refused."""

import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cnnctl.errors import ConfigError, RunError
from cnnctl.plot.figure import DPI, draw_figure, save_figure, save_numbers


def draw(path: Path, title: str = "a title") -> bytes:
    with draw_figure(3, 2) as figure:
        panel = figure.add_subplot()
        panel.plot([0, 1, 2], [1, 3, 2], label="curve")
        panel.set_title(title)
        panel.legend()
        save_figure(figure, path)
    return path.read_bytes()


def test_a_png_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    draw(tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as picture:
        assert (picture.format, picture.size) == ("PNG", (3 * DPI, 2 * DPI))
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_an_svg_is_well_formed_and_has_no_date(tmp_path: Path) -> None:
    content = draw(tmp_path / "a.svg")
    assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"dc:date" not in content


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    import matplotlib as mpl

    first = draw(tmp_path / f"a.{suffix}")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None}):
        assert draw(tmp_path / f"b.{suffix}") == first
        assert mpl.rcParams["font.size"] == 30  # the user's settings are given back
    assert draw(tmp_path / f"c.{suffix}", "another") != first


@pytest.mark.parametrize("title", ["$x", "$\\frac{1$", "\N{HIRAGANA LETTER A}\N{SNOWMAN}", "a_b^c"])
def test_any_name_is_set_as_it_is_and_nothing_is_warned_of(tmp_path: Path, title: str) -> None:
    with warnings.catch_warnings(action="error"):
        assert draw(tmp_path / "a.png", title) != draw(tmp_path / "b.png", "")


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.csv", "a.png.txt"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^output: '.*{name}' does not end in \.png or \.svg$"):
        draw(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the picture would have 240x120,000 pixels"), draw_figure(2, 1000):
        raise AssertionError


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file or directory"):
        draw(tmp_path / "none" / "a.png")


def test_numbers_go_beside_the_picture(tmp_path: Path) -> None:
    path = save_numbers(tmp_path / "a.svg", ("name", "value"), [("b,c", 0.1), ("d\udcff", None)])
    assert path == tmp_path / "a.csv"
    assert path.read_bytes() == b'name,value\n"b,c",0.1\nd\\udcff,\n'
