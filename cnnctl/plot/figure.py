"""Matplotlib figures: one style for all, and files whose bytes depend on what is drawn alone.

Figures are made without pyplot, so there is no window, no global state and nothing to close. The
user's matplotlibrc is not read into them, no date is written, and no name is taken for mathematics.
Matplotlib is imported when the first figure is drawn.
"""

import csv
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnctl.errors import ConfigError
from cnnctl.train.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind readers too. Source: Okabe, Ito 2008, without the yellow that paper swallows."""
DPI = 120
MAX_SIDE = 2**14
"""A picture with more pixels than this on a side is refused before it is drawn."""

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": DPI,
    "svg.hashsalt": "cnnctl",
    "text.parse_math": False,
}


def check_picture_path(path: Path) -> None:
    """Raises ConfigError unless its suffix is that of a format figures are written in."""
    if path.suffix.lower() not in {".png", ".svg"}:
        raise ConfigError(f"output: {str(path)!r} does not end in .png or .svg")


@contextmanager
def draw_figure(width: float, height: float) -> "Iterator[Figure]":
    """An empty figure of that size in inches, to be drawn on in the block, where the style holds.

    Raises ConfigError when it would have more than MAX_SIDE pixels on a side.
    """
    if max(width, height) * DPI > MAX_SIDE:
        size = f"{width * DPI:,.0f}x{height * DPI:,.0f}"
        raise ConfigError(f"the picture would have {size} pixels; {MAX_SIDE:,} on a side are the limit")
    with _house_style():
        from matplotlib.figure import Figure

        yield Figure(figsize=(width, height))


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG or SVG, by the suffix; the same figure gives the same bytes.

    Raises ConfigError for another suffix and RunError when the file cannot be written.
    """
    check_picture_path(path)
    is_svg = path.suffix.lower() == ".svg"
    stream = BytesIO()
    with _house_style():
        figure.savefig(
            stream,
            format="svg" if is_svg else "png",
            metadata={"Date": None} if is_svg else {"Software": None},
        )
    write_atomically(path, stream.getvalue())


def save_numbers(picture: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write what a picture shows as CSV beside it, under its name; returns where. None is an empty cell."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([columns, *rows])
    path = picture.with_suffix(".csv")
    write_atomically(path, stream.getvalue().encode("utf-8", "backslashreplace"))
    return path


@contextmanager
def _house_style() -> Iterator[None]:
    """Matplotlib's own defaults and ours; what it has to say about fonts and caches is not passed on."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib as mpl

        with warnings.catch_warnings(action="ignore"), mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            yield
    finally:
        logger.setLevel(level)
