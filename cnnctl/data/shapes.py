"""The built-in data set: ten shapes drawn on the spot, a pure function of the seed.

Needs no file, no network and no picture library. Arithmetic is kept to + - * / and
square roots in float32, which IEEE 754 rounds exactly, on raw PCG64 words: the pixels
are the same to the byte on every machine and with every numpy.

A shape has a random place, size, rotation and colour; it is lighter or darker than its
background with equal chance, so that no pixel's mean tells the class. Backgrounds have
a slope of brightness, specks of the shape's colour, and noise.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cnnctl.data.dataset import Array, Dataset, Split

SIDE = 32
MIN_SIDE, MAX_SIDE = 4, 64
TRAIN_COUNT, TEST_COUNT = 12_000, 2_000
TRAIN_STREAM, TEST_STREAM = 0, 1

RADIUS = (9.0, 12.0)
"""Pixels from the middle of a shape to its outermost point, in images of SIDE pixels."""
TURN = (-0.25, 0.25)
"""Sine of the angle that a shape is turned by: 14 degrees either way."""
CONTRAST = (60.0, 140.0)
"""Grey levels between a shape and its background, averaged over the colours."""
SLOPE = 40.0
"""Grey levels that the background gains from the middle to an edge, at most."""
NOISE = 16.0
"""Greatest grey level that noise adds or takes, with a triangular distribution."""
TINT = (0.3, 1.7)
"""What each colour's contrast is multiplied with."""
BRIGHTNESS = (80.0, 175.0)
SPECKS = 4
SPECK_RADIUS = (0.8, 1.8)
PARAMETERS = 14 + 3 * SPECKS
"""Random numbers that decide how one image looks, apart from class and noise."""
CHUNK_IMAGES = 100


def draw_shapes(seed: int = 0, train: int = TRAIN_COUNT, test: int = TEST_COUNT, side: int = SIDE) -> Dataset:
    """Draw the data set: (N, 3, side, side) uint8, classes equally frequent in either split.

    The same seed gives the same images whatever the counts, as far as both have them.
    """
    splits = _draw_split(seed, TRAIN_STREAM, train, side), _draw_split(seed, TEST_STREAM, test, side)
    return Dataset("shapes", *splits, CLASSES)


def _measure_length(x: Array, y: Array) -> Array:
    return np.asarray(np.sqrt(x * x + y * y))


def _circle(x: Array, y: Array) -> Array:
    return _measure_length(x, y) - 0.9


def _ring(x: Array, y: Array) -> Array:
    return np.abs(_measure_length(x, y) - 0.72) - 0.18


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.75


def _frame(x: Array, y: Array) -> Array:
    return np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.62) - 0.15


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) * 0.8660254 + y * 0.5, -y) - 0.5


def _cross(x: Array, y: Array) -> Array:
    along, across = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(along - 0.95, across - 0.28)


def _star(x: Array, y: Array) -> Array:
    """Five half-planes bound a pentagon; a star's points lie outside of one of them at most."""
    largest = second = np.full_like(x, -np.inf)
    for normal_x, normal_y in PENTAGON:
        side = x * normal_x + y * normal_y
        second = np.maximum(second, np.minimum(largest, side))
        largest = np.maximum(largest, side)
    return second - 0.38


def _crescent(x: Array, y: Array) -> Array:
    bite = x - 0.5
    return np.maximum(_measure_length(x, y) - 0.95, 0.75 - _measure_length(bite, y))


def _heart(x: Array, y: Array) -> Array:
    """A square on its corner and a disc on each of its upper sides."""
    side = np.abs(x) - 0.42
    lobe = y - 0.32
    corner = (np.abs(x) + np.abs(y + 0.1)) * 0.70710678 - 0.6
    return np.minimum(_measure_length(side, lobe) - 0.5, corner)


def _arrow(x: Array, y: Array) -> Array:
    head = np.maximum(np.abs(x) * 0.70710678 + y * 0.70710678 - 0.67, 0.1 - y)
    shaft = np.maximum(np.abs(x) - 0.22, np.maximum(-y - 0.95, y - 0.2))
    return np.minimum(head, shaft)


PENTAGON = (
    (0.0, -1.0),
    (0.95105652, -0.30901699),
    (0.58778525, 0.80901699),
    (-0.58778525, 0.80901699),
    (-0.95105652, -0.30901699),
)
"""Outward normals."""

DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _arrow,
}
"""For each class, about how far (x, y) lies outside of the shape of radius 1 (inside: below 0)."""
CLASSES = tuple(DISTANCES)


def _draw_split(seed: int, stream: int, count: int, side: int) -> Split:
    tens = -(-count // len(CLASSES)) * len(CLASSES)
    words = _draw_words(_open_stream(seed, stream, 0), tens, 1 + PARAMETERS)
    labels, words = _draw_labels(words[:, 0])[:count], words[:count]
    amount = 2 * 3 * side * side
    noise_words = -(-amount // 8)
    images = np.empty((count, 3, side, side), np.uint8)

    def draw_part(first: int, end: int) -> None:
        noise = _open_stream(seed, stream, 1).advance(first * noise_words)
        room = np.empty(
            (2, CHUNK_IMAGES, 3, side, side), np.float32
        )  # fresh memory takes longer than the sums
        for start in range(first, end, CHUNK_IMAGES):
            part = slice(start, min(start + CHUNK_IMAGES, end))
            grain = _draw_words(noise, part.stop - start, noise_words).view(np.uint8)[:, :amount]
            images[part] = _draw_images(labels[part], words[part, 1:], grain, side, room[:, : len(grain)])

    half = count // 2
    with ThreadPoolExecutor(2) as pool:  # where there is a second processor; numpy lets go of the interpreter
        list(pool.map(draw_part, (0, half), (half, count)))
    return Split(images, labels)


def _draw_labels(words: Array) -> Array:
    """Every ten images, counted from the first, show each class once, in random order."""
    return np.argsort(words.reshape(-1, len(CLASSES)), axis=1, kind="stable").reshape(-1).astype(np.int64)


def _draw_images(labels: Array, words: Array, noise: Array, side: int, room: Array) -> Array:
    """Pixels from 0 to below 256, in a part of `room`, to be rounded down."""
    # 23 bits and a half: uniform in (0, 1), exact in float32.
    uniform = ((words >> np.uint64(41)).astype(np.float32) + 0.5) * 2.0**-23
    size, row, column, turn, slope_x, slope_y, contrast, sign, *others = uniform.T[..., None, None]
    colours, specks = others[:6], others[6:]
    axis = np.arange(side, dtype=np.float32) - (side - 1) / 2
    scale = side / SIDE

    radius = _stretch(size, RADIUS) * scale
    reach = side / 2 - radius
    x: Array = (axis - _stretch(column, (-1, 1)) * reach) / radius
    y: Array = (_stretch(row, (-1, 1)) * reach - axis[:, None]) / radius  # upwards, as in the formulas
    sine = _stretch(turn, TURN)
    cosine = np.sqrt(1 - sine * sine)
    outside = _measure_shapes(labels, x * cosine - y * sine, x * sine + y * cosine) * radius
    for speck_size, speck_row, speck_column in zip(specks[::3], specks[1::3], specks[2::3], strict=True):
        x = axis - _stretch(speck_column, (-side / 2, side / 2))
        y = axis[:, None] - _stretch(speck_row, (-side / 2, side / 2))
        speck = _measure_length(x, y) - _stretch(speck_size, SPECK_RADIUS) * scale
        np.minimum(outside, speck, out=outside)
    cover = np.clip(0.5 - outside, 0, 1)[:, None]

    step = np.where(sign < 0.5, -0.5, 0.5).astype(np.float32) * _stretch(contrast, CONTRAST)
    slope = axis * _stretch(slope_x, (-1, 1)) + axis[:, None] * _stretch(slope_y, (-1, 1))
    middle, tint = np.stack(colours[:3], axis=1), np.stack(colours[3:], axis=1)
    difference = 2 * step[:, None] * _stretch(tint, TINT)
    pixels, summand = room
    np.add(_stretch(middle, BRIGHTNESS) - step[:, None], slope[:, None] * (2 * SLOPE / side), out=pixels)
    pixels += np.multiply(cover, difference, out=summand)
    first, second = noise.reshape(len(labels), 2, 3, side, side).swapaxes(0, 1)
    summand[...] = np.subtract(first, second, dtype=np.int16)
    summand *= NOISE / 255
    pixels += summand
    pixels += 0.5
    return np.asarray(np.clip(pixels, 0, 255, out=pixels))


def _measure_shapes(labels: Array, x: Array, y: Array) -> Array:
    outside = np.empty_like(x)
    for label, measure in enumerate(DISTANCES.values()):
        chosen = labels == label
        outside[chosen] = measure(x[chosen], y[chosen])
    return outside


def _stretch(uniform: Array, interval: tuple[float, float]) -> Array:
    low, high = interval
    return low + uniform * (high - low)


def _open_stream(seed: int, stream: int, part: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, part)))


def _draw_words(source: np.random.PCG64, images: int, words: int) -> Array:
    drawn: Any = source.random_raw((images, words))
    return np.asarray(drawn, np.uint64)
