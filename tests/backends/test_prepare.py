"""Data preparation: a layout computes the images of a batch as numpy does, wherever they are moved."""

from dataclasses import dataclass

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, LinearSpec, Pool, PoolSpec, Shape
from cnnctl.geometry import Window
from tests.hostile_shapes import TAILS

SHAPES = [(1, 5, 4), (3, 6, 7), (4, 1, 1), *[(1, 2, W) for W in TAILS], *[(C, 2, 3) for C in TAILS]]


@dataclass
class Raw:
    """A batch as the data room hands it on."""

    pixels: Array
    chosen: Array
    moves: Array | None
    scale: Array
    shift: Array

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
        y = np.empty(self.shape, self.scale.dtype)
        _, H, W = self.pixels.shape[1:]
        for n, c, h, w in np.ndindex(y.shape):
            flip, down, right = (0, 0, 0) if self.moves is None else self.moves[n]
            row, column = h + down, w + right
            inside = 0 <= row < H and 0 <= column < W
            column = W - 1 - column if flip else column
            pixel = self.pixels[self.chosen[n], c, row, column] if inside else 0
            y[n, c, h, w] = float(self.scale[c]) * float(pixel) + float(self.shift[c, h, w])
        if out is not None:
            out[...] = y
        return y


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
@pytest.mark.parametrize("pixels", ["uint8", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["tight", "padded"])
def test_prepared_images_are_the_definition(
    backend: Backend,
    shape: tuple[int, int, int],
    dtype: str,
    pixels: str,
    moved: bool,
    padded: bool,
    rng: np.random.Generator,
) -> None:
    C, H, W = shape
    chosen = rng.permutation(6)[:4].astype(np.int64)
    moves = rng.integers([0, -H, -W], [2, H + 1, W + 1], (4, 3)).astype(np.int32) if moved else None
    scale, shift = rng.standard_normal(C).astype(dtype), rng.standard_normal(shape).astype(dtype)
    raw = Raw(rng.integers(0, 256, (6, *shape)).astype(pixels), chosen, moves, scale, shift)
    consumer = PoolSpec(Pool("max", Window.create(1))) if padded else LinearSpec(1, False, None)
    layout = backend.create_layout(shape, np.dtype(dtype), [consumer])
    buffer = np.full((5, layout.size), np.nan, dtype)
    layout.prepare(raw, buffer)
    expected = raw.render()
    bound = 4 * np.finfo(dtype).eps * (255 * np.abs(scale).max() + np.abs(shift).max())
    np.testing.assert_allclose(layout.read(buffer, 4), expected, rtol=0, atol=bound)
    assert np.isnan(buffer[4]).all(), "wrote past the batch"
    assert np.isfinite(buffer[:4]).all(), "left padding as it was"
