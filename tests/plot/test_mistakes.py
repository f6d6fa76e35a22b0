"""A tile for each mistake: its pixels where they belong, any name and any size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnctl.data.dataset import Array
from cnnctl.errors import RunError
from cnnctl.plot.mistakes import COLUMNS, LINE, MAX_SIDE, MIN_SIDE, draw_mistakes
from cnnctl.plot.pixels import GAP
from cnnctl.train.scores import Mistake


def draw(path: Path, images: Array, name: str = "a", probability: float | None = 0.5) -> Array:
    """The picture's pixels, (H, W, 3)."""
    mistakes = [Mistake(i, name, name, probability, score=1.5) for i in range(len(images))]
    draw_mistakes(images, mistakes, path)
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mistakes.png"


def test_images_stand_in_rows_over_their_captions(path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (COLUMNS + 2, 3, 96, 90), np.uint8)
    picture = draw(path, images)
    step_y = 96 + 2 * LINE + 3 * GAP
    assert picture.shape[0] == GAP + 2 * step_y
    step_x = (picture.shape[1] - GAP) // COLUMNS
    for number, image in enumerate(images):
        top, left = GAP + number // COLUMNS * step_y, GAP + number % COLUMNS * step_x
        assert np.array_equal(picture[top : top + 96, left : left + 90], image.transpose(1, 2, 0))
        assert picture[top + 96 : top + step_y, left : left + 90].min() < 128
    assert (picture[GAP + step_y :, GAP + 2 * step_x :] == 255).all()


def test_the_caption_tells_predicted_class_confidence_and_true_class(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import ImageDraw

    written: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, *_: written.append(text))
    mistakes = [Mistake(3, "cat", "dog", 0.9876, 4.5), Mistake(1, "emu", "cat", None, -0.25)]
    draw_mistakes(np.zeros((2, 1, 9, 9), np.uint8), mistakes, path)
    assert written == ["dog (98.8 %)", "is cat", "cat (-0.25)", "is emu"]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((28, 20), (84, 60)),
        ((1, 1), (MIN_SIDE, MIN_SIDE)),
        ((100, 50), (100, 50)),
        ((400, 200), (133, 66)),
        ((1, 5000), (1, 5000 // 27)),
        ((3000, 3000), (187, 187)),
    ],
)
def test_any_size_is_shown(path: Path, size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = draw(path, np.zeros((1, 1, *size), np.uint8))
    assert max(shown) <= MAX_SIDE
    assert picture.shape[0] == GAP + shown[0] + 2 * LINE + 3 * GAP
    assert (picture[GAP : GAP + shown[0], GAP : GAP + shown[1]] == 0).all()
    assert (picture[GAP : GAP + shown[0], GAP + shown[1] :] == 255).all()


def test_floats_are_stretched_over_all_images(path: Path) -> None:
    images = np.ones((3, 1, 96, 96), np.float32) * np.array([-1, 0, 1], np.float32)[:, None, None, None]
    picture = draw(path, images)
    step_x = (picture.shape[1] - GAP) // 3
    assert [picture[50, GAP + column * step_x + 50, 0] for column in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("name", ["x" * 1000, "line\nbreak", "\N{SNOWMAN}", "\udcff", ""], ids=ascii)
def test_any_name_can_be_set(path: Path, name: str) -> None:
    assert draw(path, np.zeros((1, 1, 60, 60), np.uint8), name, None).shape[1] < 500


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file or directory"):
        draw(tmp_path / "none" / "mistakes.png", np.zeros((1, 1, 9, 9), np.uint8))
    assert list(tmp_path.iterdir()) == []
