"""Dropout: one mask in all backends, spread evenly and independently, a function of the seed alone."""

import numpy as np
import pytest

from cnnctl.backends import BACKENDS, create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.dropout import draw_mask
from cnnctl.backends.specs import mix_seed
from tests.backends.direct import cast
from tests.hostile_shapes import TAILS

SHAPES = [
    *[(0, 3, 2, 2), (2, 3, 4, 5), (1, 1, 1, 1), (3, 70, 40, 11), (0, 4), (5, 33), (2, 40000)],
    *[(2, C, 2, 3) for C in TAILS],
    *[(3, D) for D in TAILS],
]
SEEDS = (0, 1, 2, 2**32, 2**63 + 12345, 2**64 - 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.999])
def test_kept_values_are_scaled_and_the_others_zero(
    backend: Backend, shape: tuple[int, ...], rate: float, dtype: str, rng: np.random.Generator
) -> None:
    (x,) = cast(dtype, rng.uniform(1, 2, shape))
    y = backend.dropout(x, rate, 7)
    scaled = x * np.asarray(1 / (1 - rate), dtype)
    assert (y.dtype, y.shape) == (dtype, shape)
    np.testing.assert_array_equal(y, np.where(draw_mask(shape, rate, 7), scaled, 0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (9, 21)], ids=str)
def test_every_backend_draws_the_same_bits(shape: tuple[int, ...], seed: int, dtype: str) -> None:
    x = np.ones(shape, dtype)
    masks = [create_backend(name).dropout(x, 0.4, seed) for name in BACKENDS]
    for mask in masks[1:]:
        np.testing.assert_array_equal(masks[0], mask)
    assert 0 < np.count_nonzero(masks[0]) < x.size


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_spatial_dropout_keeps_or_clears_whole_channels(
    backend: Backend, shape: tuple[int, ...], rate: float, dtype: str, rng: np.random.Generator
) -> None:
    """By the mask of vectors (N,C): a function of seed, image and channel, whatever the extents."""
    (x,) = cast(dtype, rng.uniform(1, 2, shape))
    y = backend.dropout(x, rate, 7, spatial=True)
    assert (y.dtype, y.shape) == (dtype, shape)
    kept = draw_mask(shape[:2], rate, 7).reshape(*shape[:2], *(len(shape) - 2) * (1,))
    scaled = x * np.asarray(1 / (1 - rate), dtype)
    np.testing.assert_array_equal(y, np.where(kept, scaled, 0))


def test_elements_are_counted_over_pixels_then_channels() -> None:
    """As in the definition, number by number in Python integers."""

    def mix(h: int) -> int:
        h = (h ^ h >> 16) * 0x7FEB352D % 2**32
        h = (h ^ h >> 15) * 0x846CA68B % 2**32
        return h ^ h >> 16

    for seed in SEEDS:
        high, low = divmod(mix_seed(seed, 0), 2**32)
        mask = draw_mask((2, 3, 4, 5), 0.25, seed)
        for n, c, h, w in np.ndindex(mask.shape):
            number = ((n * 4 + h) * 5 + w) * 3 + c
            assert mask[n, c, h, w] == (mix(mix((number + low) % 2**32) ^ high) >= 2**30)
    np.testing.assert_array_equal(draw_mask((2, 6), 0.5, 3), draw_mask((2, 6, 1, 1), 0.5, 3)[..., 0, 0])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_share_kept_is_one_minus_the_rate(rate: float, seed: int) -> None:
    """Within five standard deviations, as are the correlations below."""
    mask = draw_mask((100, 10_000), rate, seed)
    assert abs(mask.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / mask.size)


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbours_are_independent(seed: int) -> None:
    """In memory, along channels, rows and columns, and from image to image."""
    images = draw_mask((16, 16, 64, 64), 0.5, seed) - 0.5
    numbers = np.moveaxis(images, 1, -1).ravel()
    for lag in (1, 2, 3, 4, 8, 15, 16, 17, 64, 256, 1024, 65536):
        assert abs(np.mean(numbers[lag:] * numbers[:-lag])) < 0.25 * 5 / np.sqrt(numbers.size - lag)
    for axis in range(4):
        first, second = np.delete(images, 0, axis), np.delete(images, -1, axis)
        assert abs(np.mean(first * second)) < 0.25 * 5 / np.sqrt(first.size)


def test_other_seeds_draw_other_masks() -> None:
    """Seeds that follow one another, and steps of one seed, are no shifts of one another either."""
    seeds = [0, 1, 2, 3, *(mix_seed(5, step) for step in range(4)), *(mix_seed(6, step) for step in range(4))]
    masks = [draw_mask((1, 200_000), 0.5, seed)[0] - 0.5 for seed in seeds]
    for i, first in enumerate(masks):
        for second in masks[i + 1 :]:
            for shift in range(-3, 4):
                assert abs(np.mean(first * np.roll(second, shift))) < 0.25 * 5 / np.sqrt(first.size)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_is_dropped_is_zero_whatever_it_was(backend: Backend, special: float, dtype: str) -> None:
    x = np.full((2, 5, 3, 3), special, dtype)
    y = backend.dropout(x, 0.5, 11)
    kept = draw_mask(x.shape, 0.5, 11)
    np.testing.assert_array_equal(y[kept], special)
    np.testing.assert_array_equal(y[~kept], 0)


def test_mixed_seeds_are_those_of_splitmix64() -> None:
    """The first numbers that Vigna's program prints for the seed 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix_seed(1234567, step) for step in range(3)] == expected
    assert len({mix_seed(seed, step) for seed in range(50) for step in range(50)}) == 2500
