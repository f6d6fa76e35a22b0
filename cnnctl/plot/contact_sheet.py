"""A contact sheet: the first images of each class in a row of a PNG, with the class's name.

Shows pixels as they are, enlarged by a whole number when they are small. Chooses nothing
at random and writes nothing but the file it is told to.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnctl.data.dataset import Split
from cnnctl.errors import ConfigError
from cnnctl.plot.pixels import (
    BACKGROUND,
    FONT_SIZE,
    GAP,
    INK,
    MAX_PIXELS,
    convert_to_rgb,
    encode_image,
    find_range,
    shorten_name,
)
from cnnctl.train.atomic import write_atomically

MIN_SIDE = 56
"""Images with a shorter side than this many pixels are enlarged, to no less."""


def draw_contact_sheet(split: Split, classes: Sequence[str], path: Path, count: int = 8) -> None:
    """Write the first `count` images of each class to `path`, one row a class.

    Float images are stretched so that their least value is black and their greatest white.
    Raises ConfigError when the sheet would be too large, RunError when it cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    labels = [shorten_name(name) for name in classes]
    margin = 2 * GAP + round(max(font.getlength(label) for label in labels))
    H, W = split.images.shape[2:]
    zoom = -(-MIN_SIDE // min(H, W)) if min(H, W) < MIN_SIDE else 1
    step_x, step_y = W * zoom + GAP, H * zoom + GAP
    width, height = margin + count * step_x, GAP + len(classes) * step_y
    if width * height > MAX_PIXELS:
        raise ConfigError(
            f"count: {count} images of {len(classes)} classes make a sheet of {width}x{height} pixels; "
            f"{MAX_PIXELS:,} pixels are the limit"
        )

    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    chosen = [np.flatnonzero(split.labels == label)[:count] for label in range(len(classes))]
    lowest, highest = find_range(split.images[np.concatenate(chosen)])
    for row, (label, numbers) in enumerate(zip(labels, chosen, strict=True)):
        top = GAP + row * step_y
        draw.text((GAP, top + H * zoom // 2), label, INK, font, anchor="lm")
        for column, number in enumerate(numbers):
            pixels = convert_to_rgb(split.images[number], lowest, highest)
            thumbnail = Image.fromarray(pixels).resize((W * zoom, H * zoom), Image.Resampling.NEAREST)
            sheet.paste(thumbnail, (margin + column * step_x, top))
    write_atomically(path, encode_image(sheet))
