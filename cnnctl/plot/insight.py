"""What a network sees, as pictures: filters, feature maps, the pixels that matter, a fooling image.

Draws what it is given and writes the same numbers as JSON beside each picture. Computes nothing but
colours.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.plot.pixels import convert_to_rgb
from cnnctl.plot.sheet import Panel, arrange_tiles, choose_zoom, draw_sheet, encode_png, stretch
from cnnctl.train.atomic import write_atomically

Normalize = Literal["filter", "all"]

FILTER_SIDE, MAP_SIDE, VALUE_SIDE, IMAGE_SIDE = 48, 64, 14, 224
"""To what side, in pixels, a filter, a map, a single value and an image are enlarged at most."""
WIDTH = 1060
"""Of a row of tiles, about, in pixels; rows of filters with many channels may be wider."""
CAP_PERCENTILE = 99.0
"""Of a saliency map: what lies above is white as well. Source: Smilkov et al. 2017, section 3.2."""


def render_filters(weights: Sequence[Array], normalize: Normalize) -> list[Array]:
    """For each of some weights (F, C, KH, KW): tiles (F, n, KH, KW, 3) uint8, n for each filter.

    With three channels a filter is one tile in RGB, otherwise it is a grey tile for each channel. Black
    and white are the least and the greatest weight, of each filter or of all weights together.
    """
    lowest, highest = min(w.min() for w in weights), max(w.max() for w in weights)
    rendered = []
    for w in weights:
        low: Any = w.min(axis=(1, 2, 3), keepdims=True) if normalize == "filter" else lowest
        high: Any = w.max(axis=(1, 2, 3), keepdims=True) if normalize == "filter" else highest
        levels = stretch(w, low, high)
        is_colour = w.shape[1] == 3
        tiles = levels.transpose(0, 2, 3, 1)[:, None] if is_colour else levels[..., None].repeat(3, axis=-1)
        rendered.append(tiles)
    return rendered


def fit_tiles(tiles: Array, width: int, height: int) -> Array | None:
    """As many whole tiles (F, n, KH, KW, 3) as fit into so many pixels, each weight one; None if none fits.

    A filter that has more tiles than one keeps a row to itself.
    """
    n, KH, KW = tiles.shape[1:4]
    across, down = (width - 1) // (KW + 1), (height - 1) // (KH + 1)
    if min(across, down) < 1:
        return None
    if n == 1:
        chosen = tiles[: across * down, 0]
        return arrange_tiles(chosen, _balance(len(chosen), across), gap=1)
    across = min(n, across)
    return arrange_tiles(tiles[:down, :across].reshape(-1, KH, KW, 3), across, gap=1)


def draw_filters(layer: str, weights: Mapping[str, Array], normalize: Normalize, path: Path) -> Path:
    """Draw a layer's filters (F, C, KH, KW) at each of some times side by side.

    Returns where the numbers are. Raises ConfigError and RunError as `draw_sheet` does.
    """
    columns = []
    for time, tiles in zip(weights, render_filters([*weights.values()], normalize), strict=True):
        F, n, KH, KW, _ = tiles.shape
        per_row = _find_side(F) if n == 1 else n
        zoom = min(choose_zoom(KH, KW, FILTER_SIDE), choose_zoom(1, per_row * KW, WIDTH))
        columns.append(
            [Panel(f"{layer}, {time}", arrange_tiles(tiles.reshape(-1, KH, KW, 3), per_row, zoom))]
        )
    draw_sheet(columns, path)
    return write_numbers(path, {"layer": layer, **weights})


def draw_feature_maps(image: Array, title: str, maps: Mapping[str, Array], path: Path) -> Path:
    """Draw an image (C, H, W) uint8, and what each layer makes of it beside it.

    Black and white are the least and the greatest value of each map; of all values together where they
    come one by one. Returns where the numbers are. Raises ConfigError and RunError as `draw_sheet` does.
    """
    panels = []
    for name, values in maps.items():
        shape = " x ".join(map(str, values.shape))
        tiles = values.reshape(len(values), *(values.shape[1:] or (1, 1)))
        _, H, W = tiles.shape
        single = H == W == 1
        axes = None if single else (1, 2)
        levels = stretch(tiles, tiles.min(axis=axes, keepdims=True), tiles.max(axis=axes, keepdims=True))
        zoom = choose_zoom(H, W, VALUE_SIDE if single else MAP_SIDE)
        grey = np.broadcast_to(levels[..., None], (*levels.shape, 3))
        per_row = _balance(len(grey), max(1, WIDTH // (W * zoom + 2)))
        panels.append(Panel(f"{name}: {shape}", arrange_tiles(grey, per_row, zoom)))
    draw_sheet([[_show_image(title, image)], panels], path)
    return write_numbers(path, {"layers": maps})


def draw_saliency(image: Array, title: str, maps: Mapping[str, Array], path: Path) -> Path:
    """Draw an image (C, H, W) uint8, its saliency maps (H, W), and the last of them laid over the image.

    Returns where the numbers are. Raises ConfigError and RunError as `draw_sheet` does.
    """
    panels = [_show_image(title, image)]
    heat = np.zeros(image.shape[1:])
    for name, values in maps.items():
        heat = stretch(values, 0.0, float(np.percentile(values, CAP_PERCENTILE)) or float(values.max())) / 255
        panels.append(_show_pixels(name, _colour_heat(heat)))
    grey = convert_to_rgb(image, 0, 255).mean(axis=2, keepdims=True)
    overlay = (1 - heat[..., None]) * grey / 2 + heat[..., None] * _colour_heat(heat)
    panels.append(_show_pixels("overlay", np.rint(overlay).astype(np.uint8)))
    draw_sheet([[panel] for panel in panels], path)
    return write_numbers(path, {"saliency": maps})


def draw_fooling(
    original: Array, fooling: Array, titles: tuple[str, str], scores: Mapping[str, Any], path: Path
) -> tuple[Path, Path]:
    """Draw two images (C, H, W) uint8 and their difference around grey, magnified as far as it goes.

    `scores` go with the numbers. Returns where the numbers are, and the fooling image by itself in its
    own size. Raises ConfigError and RunError as `draw_sheet` does.
    """
    difference = fooling.astype(np.int64) - original
    factor = 127 / max(1, int(np.abs(difference).max()))
    shown = np.rint(128 + factor * difference).astype(np.uint8)
    panels = [
        _show_image(titles[0], original),
        _show_image(titles[1], fooling),
        _show_image(f"difference x {factor:.1f}", shown),
    ]
    draw_sheet([[panel] for panel in panels], path)
    alone = path.with_name(f"{path.stem}-image.png")
    write_atomically(alone, encode_png(convert_to_rgb(fooling, 0, 255)))
    return write_numbers(path, {**scores, "original": original, "fooling": fooling}), alone


def write_numbers(picture: Path, document: Mapping[str, Any]) -> Path:
    """Write what a picture shows as JSON beside it, under its name; returns where.

    Arrays become nested lists, of the shortest decimals that give the same floats.
    """

    def convert(value: object) -> object:
        if isinstance(value, np.ndarray):
            is_float = value.dtype.kind == "f"
            return (value.astype(str).astype(np.float64) if is_float else value).tolist()
        raise TypeError(f"{type(value).__name__} is no array")

    path = picture.with_suffix(".json")
    write_atomically(path, (json.dumps({"schema": 1, **document}, default=convert) + "\n").encode())
    return path


def _balance(count: int, most: int) -> int:
    """So many in a row, `most` or fewer, fill as few rows evenly."""
    return -(-count // -(-count // most))


def _find_side(count: int) -> int:
    """So many in a row make a grid about square, without a gap at its end if it can be."""
    root = int(np.ceil(np.sqrt(count)))
    return next((k for k in range(root, 2 * root) if count % k == 0), root)


def _show_image(title: str, image: Array) -> Panel:
    return _show_pixels(title, convert_to_rgb(image, 0, 255))


def _show_pixels(title: str, pixels: Array) -> Panel:
    H, W, _ = pixels.shape
    return Panel(title, arrange_tiles(pixels[None], 1, choose_zoom(H, W, IMAGE_SIDE), gap=0))


def _colour_heat(heat: Array) -> Array:
    """Black over red and yellow to white for 0 to 1: (H, W) -> (H, W, 3) uint8."""
    return stretch(3 * heat[..., None] - np.array([0, 1, 2]), 0.0, 1.0)
