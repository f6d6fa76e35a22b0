"""An embedding as a picture: its points, coloured by class and by prediction, and as numbers."""

import csv
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from cnnctl.plot import embedding as module
from cnnctl.plot.embedding import draw_embedding
from cnnctl.train.insight import Embedding


@pytest.fixture
def embedding() -> Embedding:
    return Embedding(
        step=7,
        layer="relu1",
        values=5,
        points=np.array([[0.0, 0.0], [1.0, 0.5], [-1.0, 0.25]]),
        explained=(0.5, 0.25),
        labels=np.array([0, 1, 1]),
        predicted=np.array([0, 1, 0]),
        classes=("cat", "dog, brown"),
    )


def test_points_are_coloured_by_class_and_by_prediction(
    embedding: Embedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: figures.append(figure))
    draw_embedding(embedding, tmp_path / "e.png")
    colours = mpl.colormaps["tab10"]
    panels = [axes.collections[0] for axes in figures[0].axes]
    for panel, shown in zip(panels, (embedding.labels, embedding.predicted), strict=True):
        assert np.array_equal(panel.get_offsets(), embedding.points)
        assert panel.get_facecolors()[:, :3] == pytest.approx(colours(shown)[:, :3])
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "dog, brown"]


def test_its_numbers(embedding: Embedding, tmp_path: Path) -> None:
    path = draw_embedding(embedding, tmp_path / "e.svg")
    with path.open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "component_1", "component_2", "label", "predicted"],
        ["0", "0", "0", "cat", "cat"],
        ["1", "1", "0.5", "dog, brown", "dog, brown"],
        ["2", "-1", "0.25", "dog, brown", "cat"],
    ]
    assert (tmp_path / "e.svg").read_text().startswith("<?xml")


def test_hundreds_of_classes_have_colours_but_no_legend(embedding: Embedding, tmp_path: Path) -> None:
    draw_embedding(replace(embedding, classes=tuple(map(str, range(300)))), tmp_path / "e.png")
    with Image.open(tmp_path / "e.png") as picture:
        assert picture.width > 1000
