"""Curves as characters: braille dots, eight to a cell, or one mark a cell.

Gives rows of cells, each with the curve it belongs to, and leaves colour and printing to others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import NamedTuple

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.plot.curves import TITLES, is_logarithmic
from cnnctl.train.curves import Series

ROWS = 8
LABEL_CHARACTERS = 9

MARKS = "*+xo#%@"
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bits of a braille character. Source: Unicode 15, section 21.1."""


class Cell(NamedTuple):
    """A character, and the number of the curve that lies on top in it; None for an empty one."""

    character: str
    curve: int | None


@dataclass(frozen=True, slots=True)
class Chart:
    """A metric's curves in characters.

    Attributes:
        labels: what stands left of each row, all of one length.
        footer: what x goes from and to.
        names: of the curves; in front of each the character it is drawn with where there are no dots.
    """

    title: str
    rows: list[list[Cell]]
    labels: list[str]
    footer: str
    names: list[tuple[str, str]]


def draw_chart(series: Sequence[Series], columns: int, *, braille: bool) -> Chart:
    """The series of one metric, smoothed where they are, on so many columns with their labels."""
    values = [one.smoothed or one.values for one in series]
    low, high = min(map(min, values)), max(map(max, values))
    labels = [f"{high:.3g}", *[""] * (ROWS - 2), f"{low:.3g}" if low < high else ""]
    width = max(1, columns - LABEL_CHARACTERS - 1)
    title = TITLES[series[0].metric].replace("%", "as a fraction")
    scaled: list[Sequence[float]] = [*values]
    if is_logarithmic(series):
        title, scaled = f"{title}, on a logarithmic scale", [list(map(log10, shown)) for shown in values]
    curves = [(one.x, shown) for one, shown in zip(series, scaled, strict=True)]
    left, right = min(one.x[0] for one in series), max(one.x[-1] for one in series)
    several = len({one.run for one in series}) > 1
    names = [f"{one.run} {one.name}" if several else one.name for one in series]
    return Chart(
        title,
        draw_cells(curves, width, ROWS, braille=braille),
        [label.rjust(LABEL_CHARACTERS) for label in labels],
        f"{series[0].axis} {left:,} to {right:,}",
        [("•" if braille else MARKS[number % len(MARKS)], name) for number, name in enumerate(names)],
    )


def draw_cells(
    curves: Sequence[tuple[Sequence[float], Sequence[float]]], columns: int, rows: int, *, braille: bool
) -> list[list[Cell]]:
    """Curves (x ascending, y) on one scale, over the whole width and height; the last lies on top.

    Neighbouring points are joined. All numbers have to be finite.
    """
    fine, tall = (2, 4) if braille else (1, 1)
    W, H = fine * columns, tall * rows
    every_x, every_y = (np.concatenate([curve[axis] for curve in curves]) for axis in (0, 1))
    left, right, low, high = every_x.min(), every_x.max(), every_y.min(), every_y.max()
    owners = np.full((H, W), -1)
    for number, (x, y) in enumerate(curves):
        places = (np.asarray(x, float) - left) * ((W - 1) / ((right - left) or 1))
        heights = (high - np.asarray(y, float)) * ((H - 1) / ((high - low) or 1))
        first, last = round(places[0]), round(places[-1])
        lines = np.rint(np.interp(np.arange(first, last + 1), places, heights)).astype(int)
        for column, (before, line) in enumerate(pairwise([lines[0], *lines]), first):
            owners[min(before, line) : max(before, line) + 1, column] = number
    cells = owners.reshape(rows, tall, columns, fine).transpose(0, 2, 1, 3)
    return [[_draw_cell(cell, braille) for cell in row] for row in cells]


def _draw_cell(cell: Array, braille: bool) -> Cell:
    curve = int(cell.max())
    if curve < 0:
        return Cell(" ", None)
    dots = int(_DOTS[cell >= 0].sum()) if braille else 0
    return Cell(chr(0x2800 + dots) if braille else MARKS[curve % len(MARKS)], curve)
