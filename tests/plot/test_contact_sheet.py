"""A row for each class: the pixels that were asked for, in their places, and nothing half-written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnctl.data import Split
from cnnctl.data.dataset import Array
from cnnctl.errors import ConfigError, RunError
from cnnctl.plot.contact_sheet import draw_contact_sheet
from cnnctl.plot.pixels import GAP


def draw(path: Path, images: Array, labels: list[int], classes: list[str], count: int) -> Array:
    """The sheet's pixels, (H, W, 3)."""
    draw_contact_sheet(Split(images, np.array(labels)), classes, path, count)
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        return np.asarray(sheet)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sheet.png"


def test_images_stand_in_the_row_of_their_class(path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 3, 60, 70), np.uint8)
    sheet = draw(path, images, [1, 0, 1, 1, 0], ["a", "b"], count=2)
    assert sheet.shape[0] == GAP + 2 * (60 + GAP)
    left = sheet.shape[1] - 2 * (70 + GAP)
    for row, numbers in enumerate([(1, 4), (0, 2)]):
        for column, number in enumerate(numbers):
            top, start = GAP + row * (60 + GAP), left + column * (70 + GAP)
            shown = sheet[top : top + 60, start : start + 70]
            assert np.array_equal(shown, images[number].transpose(1, 2, 0))


def test_a_class_with_too_few_images_leaves_its_places_white(path: Path) -> None:
    sheet = draw(path, np.zeros((3, 1, 60, 60), np.uint8), [0, 0, 1], ["a", "b"], count=2)
    assert (sheet[GAP : GAP + 60, -60 - GAP : -GAP] == 0).all()
    assert (sheet[2 * GAP + 60 :, -60 - GAP :] == 255).all()


def test_names_stand_left_of_the_images(path: Path) -> None:
    images = np.full((2, 1, 60, 60), 255, np.uint8)
    short = draw(path, images, [0, 1], ["a", ""], count=1)
    assert short[: 60 + GAP].min() < 128
    assert short[60 + 2 * GAP :].min() == 255
    assert draw(path, images, [0, 1], ["automobile", ""], count=1).shape[1] > short.shape[1]


@pytest.mark.parametrize("name", ["x" * 1000, "line\nbreak", "\N{SNOWMAN}", "\udcff", "\x1b[31m"], ids=ascii)
def test_any_name_can_be_set(path: Path, name: str) -> None:
    assert draw(path, np.zeros((1, 1, 60, 60), np.uint8), [0], [name], count=1).shape[1] < 500


def test_small_images_are_enlarged_by_a_whole_number(path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (1, 1, 28, 20), np.uint8)
    sheet = draw(path, image, [0], ["a"], count=1)
    shown = sheet[GAP:-GAP, -60 - GAP : -GAP]
    assert np.array_equal(shown[..., 0], image[0, 0].repeat(3, axis=0).repeat(3, axis=1))
    assert np.array_equal(shown[..., 0], shown[..., 2])


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([-1, 0, 1], [0, 128, 255]),
        ([0, 0.5, 1], [0, 128, 255]),
        ([10, 1010, 510], [0, 255, 128]),
        ([3, 3, 3], [0, 0, 0]),
    ],
)
def test_floats_are_stretched_over_all_images(path: Path, values: list[float], levels: list[int]) -> None:
    images = np.ones((3, 1, 60, 60), np.float32) * np.array(values, np.float32)[:, None, None, None]
    sheet = draw(path, images, [0, 0, 0], ["a"], count=3)
    middles = [sheet[30, sheet.shape[1] - (3 - column) * (60 + GAP) + 30, 0] for column in range(3)]
    assert middles == levels


def test_a_sheet_that_would_be_too_large_is_refused(path: Path) -> None:
    split = Split(np.zeros((1, 3, 1000, 1000), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(ConfigError, match=r"^count: 100 images of 1 classes make a sheet of \d+x1008 pixels"):
        draw_contact_sheet(split, ["a"], path, 100)
    assert not path.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    split = Split(np.zeros((1, 1, 9, 9), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(RunError, match="No such file or directory"):
        draw_contact_sheet(split, ["a"], tmp_path / "none" / "sheet.png")
    assert list(tmp_path.iterdir()) == []
