"""The most confident mistakes, as a PNG: each image over what it was taken for and what it is.

Shows them in the order they come in, enlarged by a whole number when they are small and reduced
by one when they are large. Chooses nothing, and writes nothing but the file it is told to.
"""

from collections.abc import Sequence
from pathlib import Path

from cnnctl.data.dataset import Array
from cnnctl.plot.pixels import (
    BACKGROUND,
    FONT_SIZE,
    GAP,
    INK,
    convert_to_rgb,
    encode_image,
    find_range,
    shorten_name,
)
from cnnctl.train.atomic import write_atomically
from cnnctl.train.scores import Mistake

COLUMNS = 6
MIN_SIDE, MAX_SIDE = 96, 192
"""Of what is shown, the longer side: enlarged to at most the first, reduced to at most the second."""
LINE = FONT_SIZE + 4
WRONG = (176, 0, 32)


def draw_mistakes(images: Array, mistakes: Sequence[Mistake], path: Path) -> None:
    """Write a tile for each mistake, of which images[i] (C, H, W) shows the i-th.

    Float images are stretched so that their least value is black and their greatest white. Raises
    RunError when the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    captions = [_describe(mistake) for mistake in mistakes]
    H, W = _fit(*images.shape[2:])
    text_width = max(round(font.getlength(line)) for caption in captions for line in caption)
    step_x, step_y = max(W, text_width) + 3 * GAP, H + 2 * LINE + 3 * GAP
    columns = min(COLUMNS, len(captions))
    rows = -(-len(captions) // columns)
    sheet = Image.new("RGB", (GAP + columns * step_x, GAP + rows * step_y), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    lowest, highest = find_range(images)
    for number, (image, (taken_for, is_really)) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        left, top = GAP + column * step_x, GAP + row * step_y
        pixels = Image.fromarray(convert_to_rgb(image, lowest, highest))
        resampling = Image.Resampling.BOX if pixels.height > H else Image.Resampling.NEAREST
        sheet.paste(pixels.resize((W, H), resampling), (left, top))
        draw.text((left, top + H + GAP), taken_for, WRONG, font)
        draw.text((left, top + H + GAP + LINE), is_really, INK, font)
    write_atomically(path, encode_image(sheet))


def _fit(H: int, W: int) -> tuple[int, int]:
    """The size an image is shown in."""
    longer = max(H, W)
    zoom, divisor = max(1, MIN_SIDE // longer), -(-longer // MAX_SIDE)
    return max(1, H * zoom // divisor), max(1, W * zoom // divisor)


def _describe(mistake: Mistake) -> tuple[str, str]:
    """A probability ends in a percent sign; a score begins with its sign."""
    probability = mistake.probability
    confidence = f"{mistake.score:+.2f}" if probability is None else f"{100 * probability:.1f} %"
    return f"{shorten_name(mistake.predicted)} ({confidence})", f"is {shorten_name(mistake.true)}"
