"""The axes hold the curves, raw and smoothed; the numbers beside the picture are the same."""

import csv
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cnnctl.plot import curves as module
from cnnctl.plot.curves import draw_curves
from cnnctl.plot.figure import COLOURS
from cnnctl.train.curves import Series

LOSS = Series("a", "loss", "training", "step", (1, 50, 100), (3.0, 1.0, 2.0), (3.0, 2.5, 2.25))
VALIDATION = Series("a", "loss", "validation", "step", (100,), (1.5,), None)
ACCURACY = Series("a", "accuracy", "training", "epoch", (1, 2), (0.5, 0.75), None)
RATIO = Series("a", "update-ratio", "update to weights", "step", (1, 50), (0.1, 0.001), (0.1, 0.01))
RATE = Series("a", "lr", "learning rate", "step", (1, 50), (0.1, 0.1), None)


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The figure of some series."""
    figures: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, _: figures.append(figure))

    def call(*series: Series) -> Figure:
        draw_curves(series, tmp_path / "curves.png")
        return figures[-1]

    return call


def read_lines(panel: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()]


def test_a_panel_for_each_metric_with_raw_and_smoothed(draw) -> None:
    loss, accuracy, ratio, rate = draw(LOSS, VALIDATION, ACCURACY, RATIO, RATE).get_axes()
    steps = [1, 50, 100]
    assert read_lines(loss) == [(steps, [3, 1, 2]), (steps, [3, 2.5, 2.25]), ([100], [1.5])]
    raw, smoothed, validation = loss.get_lines()
    assert raw.get_alpha() < 1
    assert to_hex(raw.get_color()) == to_hex(smoothed.get_color()) == COLOURS[0].lower()
    assert to_hex(validation.get_color()) == COLOURS[1].lower()
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert (accuracy.get_title(), accuracy.get_xlabel()) == ("accuracy, %", "epoch")
    assert read_lines(accuracy) == [([1, 2], [50, 75])]
    assert (loss.get_yscale(), ratio.get_yscale()) == ("linear", "log")
    assert rate.get_ylim()[0] == 0


def test_a_curve_without_smoothing_is_drawn_once(draw) -> None:
    (panel,) = draw(Series("a", "loss", "training", "step", (1, 2), (2.0, 1.0), (2.0, 1.0))).get_axes()
    assert read_lines(panel) == [([1, 2], [2, 1])]


def test_a_ratio_of_zero_has_no_logarithm(draw) -> None:
    (panel,) = draw(Series("a", "update-ratio", "x", "step", (1, 2), (0.0, 0.1), None)).get_axes()
    assert panel.get_yscale() == "linear"


def test_epochs_are_whole_numbers_even_if_there_is_but_one(draw) -> None:
    (panel,) = draw(Series("a", "accuracy", "training", "epoch", (1,), (0.5,), None)).get_axes()
    assert set(panel.get_xticks()) == {0, 1, 2}


def test_several_runs_have_a_colour_each_and_their_second_series_are_dashed(draw) -> None:
    other = Series("b", "accuracy", "training", "epoch", (1, 2), (0.1, 0.2), None)
    held_out = Series("b", "accuracy", "validation", "epoch", (1, 2), (0.3, 0.4), None)
    figure = draw(ACCURACY, other, held_out)
    (panel,) = figure.get_axes()
    found = [(to_hex(line.get_color()), line.get_linestyle()) for line in panel.get_lines()]
    first, second = (colour.lower() for colour in COLOURS[:2])
    assert found == [(first, "-"), (second, "-"), (second, "--")]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["training", "validation"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_the_numbers_are_those_of_the_curves(tmp_path: Path) -> None:
    with draw_curves([LOSS, ACCURACY], tmp_path / "curves.svg").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["run", "metric", "series", "axis", "x", "value", "smoothed"],
        ["a", "loss", "training", "step", "1", "3.0", "3.0"],
        ["a", "loss", "training", "step", "50", "1.0", "2.5"],
        ["a", "loss", "training", "step", "100", "2.0", "2.25"],
        ["a", "accuracy", "training", "epoch", "1", "0.5", ""],
        ["a", "accuracy", "training", "epoch", "2", "0.75", ""],
    ]


def test_labels_of_a_logarithmic_axis_are_plain_numbers(tmp_path: Path, monkeypatch) -> None:
    """A power would be set as mathematics, which the house style turns off."""
    figures: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, _: figures.append(figure))
    draw_curves([RATIO], tmp_path / "a.png")
    (panel,) = figures[0].get_axes()
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert "0.01" in labels
    assert not any("$" in label for label in labels)
