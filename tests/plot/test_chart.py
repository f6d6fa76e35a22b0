"""Curves in characters: every point in its cell, whatever the size of the terminal."""

import pytest

from cnnctl.plot.chart import LABEL_CHARACTERS, ROWS, Cell, draw_cells, draw_chart
from cnnctl.train.curves import Series


def read_characters(rows: list[list[Cell]]) -> list[str]:
    return ["".join(cell.character for cell in row) for row in rows]


def test_marks_join_neighbouring_points() -> None:
    curve = ([0, 4], [0, 4])
    rows = draw_cells([curve], 5, 5, braille=False)
    assert read_characters(rows) == ["    *", "   **", "  ** ", " **  ", "**   "]


def test_the_last_curve_lies_on_top_and_every_cell_knows_its_owner() -> None:
    rows = draw_cells([([0, 2], [0, 0]), ([1, 2], [0, 1])], 3, 2, braille=False)
    assert read_characters(rows) == ["  +", "*++"]
    assert [[cell.curve for cell in row] for row in rows] == [[None, None, 1], [0, 1, 1]]


def test_dots_fill_a_cell_from_its_corners() -> None:
    assert read_characters(draw_cells([([0, 1], [0, 0])], 1, 1, braille=True)) == ["⠉"]
    assert read_characters(draw_cells([([0, 1], [1, 0])], 1, 1, braille=True)) == ["⢹"]
    assert read_characters(draw_cells([([0, 3], [0, 3])], 2, 1, braille=True)) == ["⣠⠞"]


@pytest.mark.parametrize("braille", [True, False])
@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("columns", [1, 2, 80])
def test_any_number_of_points_on_any_width(braille: bool, count: int, columns: int) -> None:
    x, y = range(count), [(-1) ** i * i / 7 for i in range(count)]
    rows = draw_cells([(x, y)], columns, 3, braille=braille)
    assert [len(row) for row in rows] == [columns] * 3
    assert any(cell.curve == 0 for row in rows for cell in row)


def test_a_chart_says_what_it_shows() -> None:
    loss = Series("a", "loss", "training", "step", (1, 1000), (9.0, 0.0), (2.5, 0.25))
    held_out = Series("a", "loss", "validation", "step", (500, 1000), (1.0, 0.5), None)
    chart = draw_chart([loss, held_out], 60, braille=False)
    assert chart.title == "loss, nats"
    assert [label.strip() for label in chart.labels] == ["2.5", *[""] * (ROWS - 2), "0.25"]
    assert (chart.footer, chart.names) == ("step 1 to 1,000", [("*", "training"), ("+", "validation")])
    assert {len(row) for row in chart.rows} == {60 - LABEL_CHARACTERS - 1}
    assert (chart.rows[0][0].character, chart.rows[-1][-1].character) == ("*", "*")


def test_of_several_runs_each_is_named() -> None:
    runs = [Series(run, "speed", "images per second", "epoch", (1,), (1.0,), None) for run in "ab"]
    names = [name for _, name in draw_chart(runs, 40, braille=True).names]
    assert names == ["a images per second", "b images per second"]


def test_ratios_are_shown_by_their_logarithm() -> None:
    ratio = Series("a", "update-ratio", "x", "step", (0, 1, 2), (1.0, 0.1, 0.01), None)
    chart = draw_chart([ratio], LABEL_CHARACTERS + 2 + 14, braille=False)
    middle = read_characters(chart.rows)[ROWS // 2]
    assert (chart.labels[0].strip(), chart.labels[-1].strip()) == ("1", "0.01")
    assert middle[7] == "*"


@pytest.mark.parametrize(("last", "words"), [(0.1, ", on a logarithmic scale"), (0.2, ""), (0.0, "")])
def test_a_loss_that_falls_far_says_on_which_scale(last: float, words: str) -> None:
    loss = Series("a", "loss", "training", "step", (1, 2), (2.5, last), None)
    assert draw_chart([loss], 40, braille=True).title == f"loss, nats{words}"
