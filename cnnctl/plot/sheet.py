"""Grids of small pictures with titles over them, side by side, as PNG or SVG by the suffix.

Shows pixels as they are given, enlarged by whole numbers, so that a weight is a square with sharp
edges. In an SVG the titles are text and each grid is an embedded PNG. Chooses nothing, and writes
nothing but the file it is told to.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError
from cnnctl.plot.figure import check_picture_path
from cnnctl.plot.pixels import BACKGROUND, FONT_SIZE, GAP, INK, MAX_PIXELS, encode_image, shorten_name
from cnnctl.train.atomic import write_atomically

LINE = FONT_SIZE + 6
MARGIN = 3 * GAP
SEAM = (146, 168, 192)
"""Between tiles: neither black nor white, which are their extremes."""
TITLE_CHARACTERS = 60


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture under its title.

    Attributes:
        pixels: (H, W, 3) uint8.
    """

    title: str
    pixels: Array


def draw_sheet(columns: Sequence[Sequence[Panel]], path: Path) -> None:
    """Write columns of panels, from left to right, each from top to bottom.

    Raises ConfigError for another suffix or too large a sheet, RunError when it cannot be written.
    """
    from PIL import ImageFont

    check_picture_path(path)
    font = ImageFont.load_default(FONT_SIZE)
    places: list[tuple[Panel, int, int]] = []
    left, height = MARGIN, 0
    for column in columns:
        top = MARGIN
        for panel in column:
            places.append((panel, left, top))
            top += LINE + panel.pixels.shape[0] + MARGIN
        widths = (
            max(p.pixels.shape[1], round(font.getlength(shorten_name(p.title, TITLE_CHARACTERS))))
            for p in column
        )
        left, height = left + max(widths) + MARGIN, max(height, top)
    check_size(left, height)
    write = _write_svg if path.suffix.lower() == ".svg" else _write_png
    write_atomically(path, write(places, left, height))


def check_size(width: int, height: int) -> None:
    """Raises ConfigError for a picture that nobody could look at."""
    if width * height > MAX_PIXELS:
        raise ConfigError(
            f"the picture would have {width:,}x{height:,} pixels; {MAX_PIXELS:,} are the limit: "
            "choose a layer with --layer"
        )


def arrange_tiles(tiles: Array, columns: int, zoom: int = 1, gap: int = 2) -> Array:
    """Tiles (n, H, W, 3) uint8 in rows of `columns`, each pixel `zoom` wide, with seams of `gap` pixels.

    What is left of the last row is blank. Raises ConfigError for too large a picture.
    """
    n, H, W, _ = tiles.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    step_y, step_x = H * zoom + gap, W * zoom + gap
    check_size(columns * step_x, rows * step_y)
    grid = np.full((rows * step_y + gap, columns * step_x + gap, 3), BACKGROUND, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * step_y, number % columns * step_x
        grid[top : top + step_y + gap, left : left + step_x + gap] = SEAM
        enlarged = tile.repeat(zoom, axis=0).repeat(zoom, axis=1)
        grid[top + gap : top + step_y, left + gap : left + step_x] = enlarged
    return grid


def choose_zoom(H: int, W: int, side: int) -> int:
    """The whole number by which H x W pixels come nearest to `side` without going beyond, at least 1."""
    return max(1, side // max(H, W))


def stretch(values: Array, lowest: Array | float, highest: Array | float) -> Array:
    """uint8 levels that are 0 at `lowest` and 255 at `highest`; 0 where these are the same."""
    span = np.asarray(highest - lowest, np.float64)
    levels = (values - lowest) * (255 / np.where(span > 0, span, np.inf))
    return np.rint(np.clip(np.nan_to_num(levels), 0, 255)).astype(np.uint8)


def _write_png(places: Sequence[tuple[Panel, int, int]], width: int, height: int) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for panel, left, top in places:
        draw.text((left, top), shorten_name(panel.title, TITLE_CHARACTERS), INK, font)
        sheet.paste(Image.fromarray(panel.pixels), (left, top + LINE))
    return encode_image(sheet)


def _write_svg(places: Sequence[tuple[Panel, int, int]], width: int, height: int) -> bytes:
    """Source: SVG 2, sections 12.3 and 15."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{FONT_SIZE}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for panel, left, top in places:
        H, W, _ = panel.pixels.shape
        data = b64encode(encode_png(panel.pixels)).decode()
        title = escape(shorten_name(panel.title, TITLE_CHARACTERS))
        lines += [
            f'<text x="{left}" y="{top + FONT_SIZE}">{title}</text>',
            f'<image x="{left}" y="{top + LINE}" width="{W}" height="{H}" '
            f'style="image-rendering: pixelated" href="data:image/png;base64,{data}"/>',
        ]
    return "\n".join([*lines, "</svg>\n"]).encode()


def encode_png(pixels: Array) -> bytes:
    """Pixels (H, W, 3) uint8 as a file."""
    from PIL import Image

    return encode_image(Image.fromarray(pixels))
