"""Random changes to training images: which ones are drawn, and what they do."""

from itertools import islice

import numpy as np
import pytest

from cnnctl.data import Augment, Batches, Changes, Normalizer, RawBatch, Split
from cnnctl.data.augment import HOLES, MOVES, TONES
from cnnctl.data.dataset import Array
from cnnctl.data.pipeline import draw_codes, draw_words
from cnnctl.errors import ConfigError

IDENTITY = Normalizer(np.ones(3), np.zeros((3, 4, 5)))
COUNT = 400


@pytest.fixture
def images(rng: np.random.Generator) -> Array:
    return rng.integers(1, 256, (COUNT, 3, 4, 5), np.uint8)


def draw_changes(images: Array, augment: Augment, epoch: int = 0) -> Changes:
    numbers = np.arange(len(images))
    return augment.draw_changes(images, numbers, lambda stream: draw_codes(len(images), 0, epoch, stream))


def augment_images(images: Array, augment: Augment) -> Array:
    numbers = np.arange(len(images))
    changes = draw_changes(images, augment)
    return RawBatch(images, numbers, changes, IDENTITY.scale, IDENTITY.shift, numbers).render()


def test_nothing_asked_for_changes_nothing(images: Array) -> None:
    changes = draw_changes(images, Augment())
    assert (changes.moves, changes.tones, changes.holes) == (None, None, None)
    assert Augment().draw_share(iter([])) == 1


class TestMoves:
    """Mirroring and shifting by the bits of a word."""

    def test_about_half_are_mirrored(self, images: Array) -> None:
        augmented = augment_images(images, Augment(flip=True))
        mirrored = (augmented == images[..., ::-1]).all(axis=(1, 2, 3))
        same = (augmented == images).all(axis=(1, 2, 3))
        assert np.array_equal(mirrored, ~same)
        assert 150 < mirrored.sum() < 250

    def test_mirroring_twice_gives_the_image_back(self, images: Array) -> None:
        augmented = augment_images(augment_images(images, Augment(flip=True)), Augment(flip=True))
        assert np.array_equal(augmented, images)

    @pytest.mark.parametrize(
        ("padding", "mode"), [("zero", "constant"), ("edge", "edge"), ("reflect", "reflect")]
    )
    def test_an_image_is_mirrored_then_padded_then_cut_out(
        self, images: Array, padding: str, mode: str
    ) -> None:
        augment = Augment(flip=True, shift=2, padding=padding)
        moves = draw_changes(images, augment).moves
        assert moves is not None
        augmented = augment_images(images, augment)
        for image, result, (flip, down, right) in zip(images, augmented, moves, strict=True):
            mirrored = image[:, :, ::-1] if flip else image
            padded = np.pad(mirrored, ((0, 0), (2, 2), (2, 2)), mode)
            assert np.array_equal(result, padded[:, 2 + down :, 2 + right :][:, :4, :5])

    def test_every_shift_is_equally_likely_and_bares_zeros(self, images: Array) -> None:
        augmented = augment_images(images, Augment(shift=1))
        padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
        counts = np.zeros((3, 3), int)
        for row in range(3):
            for column in range(3):
                shifted = padded[:, :, row : row + 4, column : column + 5]
                counts[row, column] = (augmented == shifted).all(axis=(1, 2, 3)).sum()
        assert counts.sum() == COUNT
        assert counts.min() > 20


class TestTones:
    """Brightness and contrast."""

    def test_brightness_multiplies(self, images: Array) -> None:
        factors = augment_images(images, Augment(brightness=0.3)) / images
        first = factors[:, :1, :1, :1]
        np.testing.assert_allclose(factors, np.broadcast_to(first, factors.shape), rtol=1e-12)
        assert 0.7 <= first.min() < 0.73
        assert 1.27 < first.max() < 1.3

    def test_contrast_stretches_around_the_mean(self, images: Array) -> None:
        augmented = augment_images(images, Augment(contrast=0.4))
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        np.testing.assert_allclose(augmented.mean(axis=(1, 2, 3), keepdims=True), mean, rtol=1e-12)
        factors = (augmented - mean).std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
        assert 0.6 <= factors.min() < 0.64
        assert 1.36 < factors.max() < 1.4

    def test_contrast_comes_after_brightness(self, images: Array) -> None:
        bright, both = (
            draw_changes(images, Augment(brightness=0.3, contrast=contrast)).tones for contrast in (0, 0.4)
        )
        assert bright is not None
        assert both is not None
        stretch = both[:, 0] / bright[:, 0]
        mean = bright[:, 0] * images.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(both[:, 1], (1 - stretch) * mean, rtol=1e-9, atol=1e-9)

    def test_the_two_factors_are_independent(self, images: Array) -> None:
        tones = draw_changes(images, Augment(brightness=0.3, contrast=0.4)).tones
        bright = draw_changes(images, Augment(brightness=0.3)).tones
        assert tones is not None
        assert bright is not None
        assert abs(np.corrcoef(bright[:, 0], tones[:, 0] / bright[:, 0])[0, 1]) < 0.15


class TestCutout:
    """A blank square somewhere."""

    @pytest.mark.parametrize("side", [1, 2, 3])
    def test_a_square_around_a_point_anywhere(self, images: Array, side: int) -> None:
        augmented = augment_images(images, Augment(cutout=side))
        blank = (augmented == 0).all(axis=1)
        assert np.array_equal(augmented[~np.stack([blank] * 3, 1)], images[~np.stack([blank] * 3, 1)])
        sizes = set()
        for mask in blank:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert mask.sum() == len(rows) * len(columns)
            assert len(rows) == rows[-1] - rows[0] + 1
            sizes.add((len(rows), len(columns)))
        assert max(sizes) == (side, side)
        assert blank.any(axis=0).all()

    def test_it_is_zero_after_normalising(self, images: Array) -> None:
        numbers = np.arange(COUNT)
        changes = draw_changes(images, Augment(cutout=2))
        raw = RawBatch(images, numbers, changes, np.ones(3), np.full((3, 4, 5), 1000.0), numbers)
        assert (raw.render() == 0).any(axis=(1, 2, 3)).all()


class TestMixup:
    """The share of each image in a blend."""

    @pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0])
    def test_shares_are_those_of_the_beta_distribution(self, alpha: float) -> None:
        augment = Augment(mixup=alpha)
        shares = np.sort([augment.draw_share(draw_words(0, 0, step)) for step in range(2000)])
        expected = np.sort(np.random.default_rng(0).beta(alpha, alpha, 200_000))
        largest = np.abs(np.searchsorted(expected, shares) / 200_000 - np.arange(2000) / 2000).max()
        assert largest < 1.95 / 2000**0.5  # Kolmogorov and Smirnov's, at one in a thousand
        assert ((shares >= 0) & (shares <= 1)).all()

    def test_the_smallest_numbers_are_borne(self) -> None:
        shares = {Augment(mixup=1e-300).draw_share(draw_words(0, 0, step)) for step in range(100)}
        assert shares <= {0.0, 1.0} | {share for share in shares if share < 1e-300}
        assert len(shares) == 2

    def test_every_batch_has_its_own(self) -> None:
        split = Split(np.zeros((10, 3, 4, 5), np.uint8), np.zeros(10, np.int64))
        batches = Batches(split, IDENTITY, 3, seed=0, augment=Augment(mixup=1.0))
        shares = [batches.draw(epoch, step).share for epoch in range(3) for step in range(4)]
        assert len(set(shares)) == 12
        assert Batches(split, IDENTITY, 3, seed=0).draw(0, 0).share == 1


def test_what_is_drawn_is_pinned(images: Array) -> None:
    """Other draws would mean that no run made before could be gone on with."""
    augment = Augment(flip=True, shift=2, brightness=0.2, contrast=0.1, cutout=2, mixup=0.5)
    changes = draw_changes(images[:2], augment)
    assert changes.moves is not None
    assert changes.tones is not None
    assert changes.holes is not None
    assert changes.moves.tolist() == [[0, 2, -1], [0, 1, -2]]
    assert changes.tones[:, 0].tolist() == pytest.approx([0.8385452801957416, 0.9859924901865172])
    assert changes.holes.tolist() == [[0, 3, 1, 5], [2, 0, 4, 1]]
    assert augment.draw_share(draw_words(7, 3, 1)) == pytest.approx(0.2592070022576762)
    assert list(islice(draw_words(7, 3, 1), 2)) == [8529307939774025025, 14419123576943129474]


def test_one_change_does_not_move_another(images: Array) -> None:
    """Each has a stream of its own."""
    alone, together = Augment(shift=1), Augment(shift=1, contrast=0.5, cutout=2, mixup=0.5)
    moves = [draw_changes(images, augment).moves for augment in (alone, together)]
    assert moves[0] is not None
    assert np.array_equal(moves[0], moves[1])
    streams = [draw_codes(8, 0, 0, stream).tolist() for stream in (MOVES, HOLES, TONES)]
    assert not set(streams[0]) & set(streams[1]) & set(streams[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding": "mirror"}, "data.augment.padding: 'mirror' is not known; known: zero, edge, reflect"),
        ({"brightness": 1}, r"data.augment.brightness: 1 is not a number in \[0, 1\)"),
        ({"contrast": -0.1}, "data.augment.contrast: -0.1 is not a number"),
        ({"mixup": 2}, r"data.augment.mixup: 2 is not a number in \[0, 1\]"),
    ],
)
def test_wrong_numbers_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augment(**settings)


@pytest.mark.parametrize("field", ["shift", "cutout"])
def test_what_leaves_nothing_of_an_image_is_refused(field: str) -> None:
    split = Split(np.zeros((2, 3, 4, 5), np.uint8), np.zeros(2, np.int64))
    assert Batches(split, IDENTITY, 2, seed=0, augment=Augment(**{field: 3})).batch(0, 0)
    with pytest.raises(
        ConfigError, match=rf"^data\.augment\.{field}: 4 pixels do not stay within images of 4x5$"
    ):
        Batches(split, IDENTITY, 2, seed=0, augment=Augment(**{field: 4}))
