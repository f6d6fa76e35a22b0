"""Data preparation: a layout computes the images of a batch as numpy does, wherever they are moved."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from cnnctl import data
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, LinearSpec, Pool, PoolSpec, Shape
from cnnctl.geometry import Window
from tests.hostile_shapes import TAILS

SHAPES = [(1, 5, 4), (3, 6, 7), (4, 1, 1), *[(1, 2, W) for W in TAILS], *[(C, 2, 3) for C in TAILS]]


@dataclass
class Changes:
    """What augmentation does."""

    moves: Array | None = None
    padding: Literal["zero", "edge", "reflect"] = "zero"
    tones: Array | None = None
    holes: Array | None = None


@dataclass
class Raw:
    """A batch as the data room hands it on."""

    pixels: Array
    chosen: Array
    changes: Changes
    scale: Array
    shift: Array
    share: float = 1.0

    @property
    def shape(self) -> Shape:
        return (len(self.chosen), *self.pixels.shape[1:])

    @property
    def dtype(self) -> object:
        return self.scale.dtype

    def __len__(self) -> int:
        return len(self.chosen)

    def render(self, out: Array | None = None) -> Array:
        """The definition, pixel by pixel."""
        changes, y = self.changes, np.empty(self.shape, self.scale.dtype)
        for n, c, h, w in np.ndindex(y.shape):
            gain, offset = (1, 0) if changes.tones is None else changes.tones[n]
            pixel = gain * self._find_pixel(n, c, h, w) + offset
            y[n, c, h, w] = float(self.scale[c]) * pixel + float(self.shift[c, h, w])
            if changes.holes is not None:
                top, left, bottom, right = changes.holes[n]
                if top <= h < bottom and left <= w < right:
                    y[n, c, h, w] = 0
        if out is not None:
            out[...] = y
        return y

    def _find_pixel(self, n: int, c: int, h: int, w: int) -> float:
        flip, down, right = (0, 0, 0) if self.changes.moves is None else self.changes.moves[n]
        _, H, W = self.pixels.shape[1:]
        row, column = (self._find_inside(at, extent) for at, extent in ((h + down, H), (w + right, W)))
        if row is None or column is None:
            return 0.0
        return float(self.pixels[self.chosen[n], c, row, -1 - column if flip else column])

    def _find_inside(self, at: int, extent: int) -> int | None:
        if 0 <= at < extent or self.changes.padding == "zero":
            return at if 0 <= at < extent else None
        if self.changes.padding == "edge":
            return min(max(at, 0), extent - 1)
        return -at if at < 0 else 2 * (extent - 1) - at


def draw_changes(kind: str, shape: Shape, rng: np.random.Generator) -> Changes:
    """Four images' worth of one kind of change, or of all."""
    _, H, W = shape
    changes, everything = Changes(), kind == "everything"
    if kind in {"zero", "edge", "reflect"} or everything:
        changes.padding = "reflect" if everything else kind  # type: ignore[assignment]
        near = changes.padding == "reflect"  # which does not reach further than the image
        low, high = ([0, 1 - H, 1 - W], [2, H, W]) if near else ([0, -H, -W], [2, H + 1, W + 1])
        changes.moves = rng.integers(low, high, (4, 3)).astype(np.int32)
    if kind == "toned" or everything:
        changes.tones = np.stack([rng.uniform(0.5, 1.5, 4), rng.uniform(-50, 50, 4)], axis=1)
    if kind == "cut" or everything:
        rows, columns = (np.sort(rng.integers(0, extent + 1, (4, 2)), axis=1) for extent in (H, W))
        corners = [rows[:, 0], columns[:, 0], rows[:, 1], columns[:, 1]]
        changes.holes = np.stack(corners, axis=1).astype(np.int32)
    return changes


@pytest.mark.parametrize("kind", ["none", "zero", "edge", "reflect", "toned", "cut", "everything"])
@pytest.mark.parametrize("pixels", ["uint8", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["tight", "padded"])
def test_prepared_images_are_the_definition(
    backend: Backend,
    shape: tuple[int, int, int],
    dtype: str,
    pixels: str,
    kind: str,
    padded: bool,
    rng: np.random.Generator,
) -> None:
    changes = draw_changes(kind, shape, rng)
    raw = draw_raw(shape, dtype, pixels, changes, rng)
    consumer = PoolSpec(Pool("max", Window.create(1))) if padded else LinearSpec(1, False, None)
    layout = backend.create_layout(shape, np.dtype(dtype), [consumer])
    buffer = np.full((5, layout.size), np.nan, dtype)
    layout.prepare(raw, buffer)
    expected = raw.render()
    bound = 8 * np.finfo(dtype).eps * (450 * np.abs(raw.scale).max() + np.abs(raw.shift).max())
    np.testing.assert_allclose(layout.read(buffer, 4), expected, rtol=0, atol=bound)
    assert np.isnan(buffer[4]).all(), "wrote past the batch"
    assert np.isfinite(buffer[:4]).all(), "left padding as it was"


@pytest.mark.parametrize("kind", ["zero", "edge", "reflect", "toned", "cut", "everything"])
def test_the_data_room_means_the_same(kind: str, dtype: str, rng: np.random.Generator) -> None:
    raw = draw_raw((3, 6, 7), dtype, "uint8", draw_changes(kind, (3, 6, 7), rng), rng)
    changes = data.Changes(**vars(raw.changes))
    batch = data.RawBatch(raw.pixels, raw.chosen, changes, raw.scale, raw.shift, raw.chosen)
    bound = 8 * np.finfo(dtype).eps * (450 * np.abs(raw.scale).max() + np.abs(raw.shift).max())
    np.testing.assert_allclose(batch.render(), raw.render(), rtol=0, atol=bound)


def draw_raw(
    shape: tuple[int, int, int], dtype: str, pixels: str, changes: Changes, rng: np.random.Generator
) -> Raw:
    chosen = rng.permutation(6)[:4].astype(np.int64)
    scale, shift = rng.standard_normal(shape[0]).astype(dtype), rng.standard_normal(shape).astype(dtype)
    return Raw(rng.integers(0, 256, (6, *shape)).astype(pixels), chosen, changes, scale, shift)
