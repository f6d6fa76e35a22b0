"""Pictures of what a network sees: known weights, maps and gradients give known pixels and numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnctl.plot import insight
from cnnctl.plot.sheet import LINE, MARGIN, SEAM

TOP = MARGIN + LINE
"""Where the first panel's pixels begin."""


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def read_tiles(
    picture: np.ndarray, size: tuple[int, int], zoom: int, rows: int, columns: int, left: int = MARGIN
):
    """The tiles of a grid, one value a pixel of theirs: (rows, columns, H, W, 3)."""
    H, W = size
    grid = picture[TOP:, left:]
    return np.array(
        [
            [
                grid[2 + r * (H * zoom + 2) :, 2 + c * (W * zoom + 2) :][: H * zoom : zoom, : W * zoom : zoom]
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )


class TestFilters:
    def test_a_known_filter_gives_a_known_tile(self, tmp_path: Path) -> None:
        weight = np.zeros((4, 1, 2, 2), np.float32)
        weight[0, 0] = [[-1, 0], [1, 3]]
        weight[3, 0] = [[5, 5], [5, 0]]
        insight.draw_filters("conv1", {"trained": weight}, "filter", tmp_path / "a.png")
        tiles = read_tiles(read_picture(tmp_path / "a.png"), (2, 2), 24, 2, 2)
        assert (tiles == tiles[..., :1]).all()
        assert tiles[0, 0, ..., 0].tolist() == [[0, 64], [128, 255]]
        assert tiles[0, 1, ..., 0].tolist() == [[0, 0], [0, 0]]
        assert tiles[1, 1, ..., 0].tolist() == [[255, 255], [255, 0]]

    def test_all_together_by_one_scale_over_all_times(self, tmp_path: Path) -> None:
        before, after = np.full((1, 1, 1, 2), 0.0), np.array([[[[-1.0, 4.0]]]])
        insight.draw_filters("c", {"initial": before, "trained": after}, "all", tmp_path / "a.png")
        picture = read_picture(tmp_path / "a.png")
        middle = picture[TOP + 5]
        (dark,) = np.flatnonzero((middle == 51).all(axis=1))[[0]]
        assert dark == MARGIN + 2
        assert (middle[dark : dark + 48] == 51).all()
        black, white = (np.flatnonzero((middle == level).all(axis=1)) for level in (0, 255))
        assert len(black) == 24
        assert set(range(black[-1] + 1, black[-1] + 25)) <= set(white)
        assert black[0] > dark + 48  # beside it

    def test_three_channels_are_colours(self, tmp_path: Path) -> None:
        weight = np.zeros((2, 3, 1, 2))
        weight[0, :, 0, 0], weight[0, :, 0, 1] = [1, 0, 0], [0, 0.5, 1]
        weight[1, :, 0, 1] = [0, 2, 0]
        insight.draw_filters("c", {"trained": weight}, "filter", tmp_path / "a.png")
        tiles = read_tiles(read_picture(tmp_path / "a.png"), (1, 2), 24, 1, 2)
        assert tiles[0, 0].tolist() == [[[255, 0, 0], [0, 128, 255]]]
        assert tiles[0, 1].tolist() == [[[0, 0, 0], [0, 255, 0]]]

    def test_other_channels_are_tiles_of_a_row_that_share_their_scale(self, tmp_path: Path) -> None:
        weight = np.arange(2 * 4 * 1 * 1, dtype=float).reshape(2, 4, 1, 1)
        weight[1] *= -10
        insight.draw_filters("c", {"trained": weight}, "filter", tmp_path / "a.png")
        tiles = read_tiles(read_picture(tmp_path / "a.png"), (1, 1), 48, 2, 4)
        assert tiles[..., 0, 0, 0].tolist() == [[0, 85, 170, 255], [255, 170, 85, 0]]

    def test_its_numbers_are_exact(self, tmp_path: Path, rng: np.random.Generator) -> None:
        weight = rng.normal(size=(3, 2, 3, 3)).astype(np.float32)
        path = insight.draw_filters("conv1", {"trained": weight}, "all", tmp_path / "r.conv1.png")
        assert path == tmp_path / "r.conv1.json"
        document = json.loads(path.read_text())
        assert list(document) == ["schema", "layer", "trained"]
        assert np.array_equal(np.array(document["trained"], np.float32), weight)
        assert len(path.read_text()) < 54 * 16

    @pytest.mark.parametrize(("count", "side"), [(1, 1), (6, 3), (30, 6), (32, 8), (64, 8), (96, 12), (7, 3)])
    def test_grids_are_about_square_and_full_if_they_can_be(self, count: int, side: int) -> None:
        assert insight._find_side(count) == side

    def test_a_terminal_gets_whole_tiles(self) -> None:
        rendered = insight.render_filters([np.arange(7 * 9.0).reshape(7, 1, 3, 3)], "filter")[0]
        pixels = insight.fit_tiles(rendered, 17, 40)
        assert pixels is not None
        assert pixels.shape == (2 * 4 + 1, 4 * 4 + 1, 3)
        assert np.array_equal(pixels[5:8, 1:4], rendered[4, 0])
        few = insight.fit_tiles(rendered, 17, 8)
        assert few is not None
        assert few.shape == (5, 17, 3)
        assert insight.fit_tiles(rendered, 4, 40) is None
        rows = insight.render_filters([np.arange(2 * 5 * 4.0).reshape(2, 5, 2, 2)], "all")[0]
        pixels = insight.fit_tiles(rows, 10, 4)
        assert pixels is not None
        assert pixels.shape == (4, 10, 3)
        assert np.array_equal(pixels[1:3, 7:9], rows[0, 2])


class TestFeatureMaps:
    def test_each_map_is_stretched_by_itself_beside_the_image(self, tmp_path: Path) -> None:
        image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2) * 20
        maps = {
            "conv1": np.array([[[0, 1], [2, 4]], [[9, 9], [9, 9]]], np.float32),
            "linear1": np.array([-1.0, 0.0, 4.0]),
        }
        path = insight.draw_feature_maps(image, "photo", maps, tmp_path / "a.png")
        picture = read_picture(tmp_path / "a.png")
        shown = picture[TOP : TOP + 224, MARGIN : MARGIN + 224]
        assert np.array_equal(shown[::112, ::112], image.transpose(1, 2, 0))
        left = 2 * MARGIN + 224
        conv = read_tiles(picture, (2, 2), 32, 1, 2, left)
        assert conv[0, 0, ..., 0].tolist() == [[0, 64], [128, 255]]
        assert not conv[0, 1].any()
        values = read_tiles(picture[4 + 64 + LINE + MARGIN :], (1, 1), 14, 1, 3, left)
        assert values[0, :, 0, 0, 0].tolist() == [0, 51, 255]
        document = json.loads(path.read_text())
        assert document["layers"]["conv1"] == maps["conv1"].tolist()
        assert document["layers"]["linear1"] == [-1.0, 0.0, 4.0]


class TestSaliency:
    def test_the_strongest_pixel_is_white_and_overlay_hides_it_most(self, tmp_path: Path) -> None:
        image = np.full((1, 8, 8), 200, np.uint8)
        values = np.zeros((8, 8))
        values[2, 5], values[6, 1] = 3.0, 1.0
        path = insight.draw_saliency(image, "seven", {"gradient": values}, tmp_path / "a.png")
        picture = read_picture(tmp_path / "a.png")[TOP:]
        panels = [
            picture[:224:28, x : x + 224 : 28] for x in range(MARGIN, picture.shape[1] - 50, MARGIN + 224)
        ]
        assert len(panels) == 3
        shown, heat, overlay = panels
        assert (shown == 200).all()
        assert heat[2, 5].tolist() == [255, 255, 255]
        assert not heat[0, 0].any()
        red, green, blue = heat[6, 1].astype(int)
        assert red > green >= blue
        assert overlay[2, 5].tolist() == [255, 255, 255]
        assert overlay[0, 0].tolist() == [100, 100, 100]
        assert json.loads(path.read_text())["saliency"]["gradient"] == values.tolist()

    def test_an_image_that_does_not_matter_is_black(self, tmp_path: Path) -> None:
        insight.draw_saliency(
            np.zeros((1, 8, 8), np.uint8), "", {"gradient": np.zeros((8, 8))}, tmp_path / "a.png"
        )
        picture = read_picture(tmp_path / "a.png")
        assert not picture[TOP : TOP + 224, 2 * MARGIN + 224 : 2 * MARGIN + 448].any()


class TestFooling:
    def test_the_difference_is_magnified_around_grey(self, tmp_path: Path) -> None:
        original = np.full((1, 2, 2), 100, np.uint8)
        fooling = np.array([[[100, 110], [80, 100]]], np.uint8)
        numbers, alone = insight.draw_fooling(
            original, fooling, ("a", "b"), {"won": True}, tmp_path / "f.png"
        )
        picture = read_picture(tmp_path / "f.png")[TOP:, :, 0]
        panels = [picture[:224:112, x : x + 224 : 112].tolist() for x in (12, 12 + 236, 12 + 472)]
        assert panels == [original[0].tolist(), fooling[0].tolist(), [[128, 192], [1, 128]]]
        assert read_picture(alone)[..., 0].tolist() == fooling[0].tolist()
        assert alone == tmp_path / "f-image.png"
        document = json.loads(numbers.read_text())
        assert (document["won"], document["fooling"]) == (True, fooling.tolist())

    def test_no_difference_is_grey(self, tmp_path: Path) -> None:
        image = np.full((3, 2, 2), 7, np.uint8)
        insight.draw_fooling(image, image, ("a", "b"), {}, tmp_path / "f.png")
        picture = read_picture(tmp_path / "f.png")
        assert (picture[TOP : TOP + 224, 12 + 472 : 12 + 472 + 224] == 128).all()


def test_seams_are_no_extreme() -> None:
    assert 0 < min(SEAM) <= max(SEAM) < 255
