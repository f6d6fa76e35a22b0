"""Sheets of tiles: every pixel in its place, titles over it, PNG and SVG the same."""

import base64
import xml.etree.ElementTree as ET
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnctl.errors import ConfigError, RunError
from cnnctl.plot.sheet import (
    LINE,
    MARGIN,
    SEAM,
    Panel,
    arrange_tiles,
    choose_zoom,
    draw_sheet,
    stretch,
)

SVG = "{http://www.w3.org/2000/svg}"


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


class TestTiles:
    def test_each_stands_in_its_place_within_seams(self, rng: np.random.Generator) -> None:
        tiles = rng.integers(0, 256, (5, 4, 3, 3), np.uint8)
        grid = arrange_tiles(tiles, 3, zoom=2, gap=1)
        assert grid.shape == (2 * (8 + 1) + 1, 3 * (6 + 1) + 1, 3)
        seen = np.zeros(grid.shape[:2], bool)
        for number, tile in enumerate(tiles):
            row, column = divmod(number, 3)
            y, x = 1 + 9 * row, 1 + 7 * column
            assert np.array_equal(grid[y : y + 8 : 2, x : x + 6 : 2], tile)
            assert np.array_equal(grid[y + 1 : y + 8 : 2, x + 1 : x + 6 : 2], tile)
            seen[y : y + 8, x : x + 6] = True
        blank = np.zeros_like(seen)
        blank[10:, 15:] = True
        assert (grid[~seen & ~blank] == SEAM).all()
        assert (grid[~seen & blank] == 255).all()

    def test_fewer_tiles_than_columns_take_no_more_room(self) -> None:
        assert arrange_tiles(np.zeros((2, 4, 3, 3), np.uint8), 9, gap=0).shape == (4, 6, 3)

    def test_too_many_are_refused(self) -> None:
        tiles = np.broadcast_to(np.uint8(0), (2**20, 8, 8, 3))
        with pytest.raises(ConfigError, match="choose a layer with --layer"):
            arrange_tiles(tiles, 2**10)

    @pytest.mark.parametrize(("size", "zoom"), [((5, 7), 6), ((48, 1), 1), ((99, 1), 1), ((1, 1), 48)])
    def test_zoom_goes_as_far_as_it_may(self, size: tuple[int, int], zoom: int) -> None:
        assert choose_zoom(*size, 48) == zoom


def test_stretching_ends_in_black_and_white() -> None:
    values = np.array([-2.0, 0.0, 1.0, 2.0, 9.0, np.nan, np.inf])
    assert stretch(values, -2.0, 2.0).tolist() == [0, 128, 191, 255, 255, 0, 255]
    assert stretch(
        np.array([[1.0, 1.0], [2.0, 4.0]]), np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])
    ).tolist() == [
        [0, 0],
        [0, 255],
    ]


class TestSheet:
    @pytest.fixture
    def panels(self, rng: np.random.Generator) -> list[Panel]:
        sizes = ((30, 90), (20, 80), (70, 60))
        return [Panel(f"p{i}", rng.integers(0, 128, (*size, 3), np.uint8)) for i, size in enumerate(sizes)]

    def test_columns_stand_beside_one_another(self, tmp_path: Path, panels: list[Panel]) -> None:
        first, second, third = panels
        draw_sheet([[first, second], [third]], tmp_path / "a.png")
        picture = read_picture(tmp_path / "a.png")
        assert picture.shape == (3 * MARGIN + 50 + 2 * LINE, 3 * MARGIN + 90 + 60, 3)
        places = (
            (first, MARGIN, MARGIN),
            (second, 2 * MARGIN + LINE + 30, MARGIN),
            (third, MARGIN, 2 * MARGIN + 90),
        )
        for panel, top, left in places:
            H, W, _ = panel.pixels.shape
            assert np.array_equal(picture[top + LINE : top + LINE + H, left : left + W], panel.pixels)
            assert picture[top : top + LINE, left : left + W].min() < 128  # its title
        assert (picture[:, 2 * MARGIN + 150 :] == 255).all()

    def test_a_long_title_takes_its_room(self, tmp_path: Path, panels: list[Panel]) -> None:
        first, second, _ = panels
        draw_sheet([[Panel("m" * 30, first.pixels)], [second]], tmp_path / "a.png")
        picture = read_picture(tmp_path / "a.png")
        left = picture.shape[1] - MARGIN - 80
        assert left > 300
        assert np.array_equal(picture[MARGIN + LINE :, left : left + 80][:20], second.pixels)

    def test_an_svg_holds_the_same_pixels_and_titles(self, tmp_path: Path, panels: list[Panel]) -> None:
        odd = Panel('<&"\x00\udcff ü', panels[2].pixels)
        draw_sheet([panels[:2], [odd]], tmp_path / "a.svg")
        draw_sheet([panels[:2], [odd]], tmp_path / "a.PNG")
        picture = read_picture(tmp_path / "a.PNG")
        root = ET.parse(tmp_path / "a.svg").getroot()
        assert (int(root.attrib["height"]), int(root.attrib["width"])) == picture.shape[:2]
        assert [text.text for text in root.iter(f"{SVG}text")] == ["p0", "p1", '<&"?? ü']
        images = list(root.iter(f"{SVG}image"))
        assert len(images) == 3
        for image in images:
            kind, _, data = image.attrib["href"].partition(",")
            assert kind == "data:image/png;base64"
            with Image.open(BytesIO(base64.b64decode(data))) as embedded:
                pixels = np.asarray(embedded)
            x, y, width, height = (int(image.attrib[key]) for key in ("x", "y", "width", "height"))
            assert np.array_equal(pixels, picture[y : y + height, x : x + width])
            assert "pixelated" in image.attrib["style"]

    def test_the_same_sheet_has_the_same_bytes(self, tmp_path: Path, panels: list[Panel]) -> None:
        for suffix in ("png", "svg"):
            for name in ("a", "b"):
                draw_sheet([panels], tmp_path / f"{name}.{suffix}")
            assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()

    @pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.gz", ".png"])
    def test_other_formats_are_refused(self, tmp_path: Path, name: str, panels: list[Panel]) -> None:
        with pytest.raises(ConfigError, match=r"does not end in \.png or \.svg"):
            draw_sheet([panels], tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_not_there(self, tmp_path: Path, panels: list[Panel]) -> None:
        with pytest.raises(RunError, match="No such file or directory"):
            draw_sheet([panels], tmp_path / "none" / "a.png")
