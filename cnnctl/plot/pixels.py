"""What pictures made of pixels have in common: colours and gaps, levels of grey, names, the PNG file."""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from cnnctl.backends.specs import Array

if TYPE_CHECKING:
    from PIL.Image import Image

GAP = 4
FONT_SIZE = 14
LABEL_CHARACTERS = 24
BACKGROUND, INK = (255, 255, 255), (0, 0, 0)
MAX_PIXELS = 2**26
"""A sheet with more is refused before it is drawn."""


def encode_image(image: "Image") -> bytes:
    """A picture as a PNG file."""
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def shorten_name(name: str, most: int = LABEL_CHARACTERS) -> str:
    """A name on one line that every font can set."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= most else f"{printable[: most - 3]}..."


def find_range(images: Array) -> tuple[float, float]:
    """What is to be black and what white."""
    if images.dtype == np.uint8:
        return 0, 255
    return float(images.min()), float(images.max())


def convert_to_rgb(image: Array, lowest: float, highest: float) -> Array:
    """(C, H, W) -> (H, W, 3) uint8."""
    levels = (image.astype(np.float64) - lowest) * (255 / ((highest - lowest) or 1.0))
    rounded = np.rint(levels).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rounded, (3, *image.shape[1:])).transpose(1, 2, 0))
