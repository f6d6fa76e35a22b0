"""From a data set to batches: what each epoch shows, in which order, and in which numbers."""

import hashlib
from itertools import chain

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cnnctl.data import Augment, Batches, Dataset, Normalizer, Split, iterate_batches, make_splits
from cnnctl.data.dataset import Array
from cnnctl.data.pipeline import NormalizerKind, draw_codes, epoch_order
from cnnctl.errors import ConfigError, ShapeError

IDENTITY = Normalizer(np.ones(3), np.zeros((3, 4, 5)))


def make_split(count: int, first: int = 0, dtype: type = np.uint8) -> Split:
    """Image k is filled with first + k, which is also its label."""
    numbers = np.arange(first, first + count)
    return Split(np.tile(numbers[:, None, None, None], (1, 3, 4, 5)).astype(dtype), numbers)


@pytest.fixture
def dataset() -> Dataset:
    return Dataset("x", make_split(10), make_split(6, first=20), tuple(map(str, range(26))))


class TestMakeSplits:
    """Which images go where."""

    @pytest.mark.parametrize(
        ("counts", "train", "validation", "test"),
        [
            ({}, range(10), range(0), range(20, 26)),
            ({"validation": 3}, range(7), range(7, 10), range(20, 26)),
            ({"train": 2, "validation": 3, "test": 1}, range(2), range(7, 10), range(20, 21)),
            ({"train": 7, "validation": 3, "test": 6}, range(7), range(7, 10), range(20, 26)),
            ({"validation": 9}, range(1), range(1, 10), range(20, 26)),
        ],
    )
    def test_counts(
        self, dataset: Dataset, counts: dict[str, int], train: range, validation: range, test: range
    ) -> None:
        splits = make_splits(dataset, **counts)
        assert splits.train.labels.tolist() == list(train)
        assert splits.validation.labels.tolist() == list(validation)
        assert splits.test.labels.tolist() == list(test)

    @pytest.mark.parametrize(
        ("counts", "line"),
        [
            (
                {"validation": 10},
                "data.validation: 10 of the 10 training images of x leaves none to train on; give 0 to 9",
            ),
            (
                {"validation": -1},
                "data.validation: -1 of the 10 training images of x leaves none to train on; give 0 to 9",
            ),
            ({"train": 9, "validation": 2}, "data.train: 9 images; x has 1 to 8 to give"),
            ({"train": 0}, "data.train: 0 images; x has 1 to 10 to give"),
            ({"test": 7}, "data.test: 7 images; x has 1 to 6 to give"),
        ],
    )
    def test_more_than_there_is(self, dataset: Dataset, counts: dict[str, int], line: str) -> None:
        with pytest.raises(ConfigError) as caught:
            make_splits(dataset, **counts)
        assert str(caught.value) == line


class TestNormalizer:
    """Four affine maps, fitted to the training images."""

    @pytest.fixture
    def images(self, rng: np.random.Generator) -> Array:
        """More than one chunk of them, each channel with a mean and a spread of its own."""
        centre, spread = np.array([40, 120, 200]), np.array([5, 20, 40])
        pixels = rng.normal(centre[:, None, None], spread[:, None, None], (300, 3, 4, 5))
        return pixels.clip(0, 255).astype(np.uint8)

    def test_none_changes_nothing(self, images: Array) -> None:
        assert np.array_equal(Normalizer.fit(images, "none").apply(images), images)

    def test_unit(self, images: Array) -> None:
        y = Normalizer.fit(images, "unit").apply(images, dtype=np.float64)
        assert np.allclose(y, images / 255, rtol=1e-14)

    def test_mean_image(self, images: Array) -> None:
        y = Normalizer.fit(images, "mean_image").apply(images, dtype=np.float64)
        assert np.allclose(y, images - images.mean(axis=0), rtol=0, atol=1e-12)
        assert np.abs(y).max() > 50

    def test_standardize(self, images: Array) -> None:
        y = Normalizer.fit(images, "standardize").apply(images, dtype=np.float64)
        assert np.allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-12)
        assert np.allclose(y.std(axis=(0, 2, 3)), 1, rtol=1e-12)

    def test_a_channel_without_contrast_is_centred(self, images: Array) -> None:
        images[:, 1] = 7
        y = Normalizer.fit(images, "standardize").apply(images)
        assert not y[:, 1].any()
        assert np.allclose(y[:, 2].std(), 1, rtol=1e-5)

    def test_float_images(self, images: Array) -> None:
        fitted = Normalizer.fit(images.astype(np.float32) / 255, "standardize")
        assert np.allclose(fitted.scale, Normalizer.fit(images, "standardize").scale * 255, rtol=1e-6)

    def test_fitted_to_one_split_it_is_the_same_map_for_another(self, images: Array) -> None:
        fitted = Normalizer.fit(images[:100], "standardize")
        assert not np.allclose(fitted.apply(images[100:]).mean(axis=(0, 2, 3)), 0, atol=1e-4)
        assert np.array_equal(fitted.apply(images)[100:], fitted.apply(images[100:]))

    @pytest.mark.parametrize("kind", ["none", "unit", "mean_image", "standardize"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_buffer_takes_what_a_new_array_would(
        self, images: Array, kind: NormalizerKind, dtype: type
    ) -> None:
        fitted, before = Normalizer.fit(images, kind), images.copy()
        out = np.full(images.shape, np.nan, dtype)
        assert fitted.astype(dtype).apply(images, out) is out
        assert np.array_equal(out, fitted.apply(images, dtype=dtype))
        assert np.array_equal(images, before)

    def test_an_unknown_kind(self, images: Array) -> None:
        with pytest.raises(ConfigError, match="'standardise' is not known; did you mean standardize"):
            Normalizer.fit(images, "standardise")

    @pytest.mark.data
    def test_the_figures_of_mnist(self) -> None:
        """Mean 0.1307 and deviation 0.3081 of its training pixels, as quoted everywhere."""
        from cnnctl.data import load_dataset

        fitted = Normalizer.fit(load_dataset("mnist").train.images, "standardize")
        assert 1 / fitted.scale[0] / 255 == pytest.approx(0.3081, abs=5e-5)
        assert -fitted.shift[0, 0, 0] / fitted.scale[0] / 255 == pytest.approx(0.1307, abs=5e-5)


class TestOrder:
    """A pure function of count, seed and epoch."""

    @given(count=st.integers(1, 300), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
    def test_it_is_a_permutation(self, count: int, seed: int, epoch: int) -> None:
        order = epoch_order(count, seed, epoch)
        assert np.array_equal(np.sort(order), np.arange(count))
        assert np.array_equal(order, epoch_order(count, seed, epoch))

    @pytest.mark.parametrize(
        ("seed", "epoch", "order"),
        [
            (0, 0, [7, 2, 0, 4, 3, 5, 6, 1]),
            (0, 1, [3, 4, 0, 6, 5, 2, 7, 1]),
            (231, 0, [4, 2, 5, 6, 1, 3, 0, 7]),
        ],
    )
    def test_it_is_pinned(self, seed: int, epoch: int, order: list[int]) -> None:
        """Another order would mean that no run made before could be gone on with."""
        assert epoch_order(8, seed, epoch).tolist() == order

    def test_a_large_one_is_pinned(self) -> None:
        order = epoch_order(60_000, 231, 19).astype("<i8")
        assert (
            hashlib.sha256(order.tobytes()).hexdigest()
            == "e3cb3ba2df777e3b7ee981f2a4bc9f3d49ee907dc08905ab4337c6c5a8050be4"
        )

    def test_codes_are_pinned(self) -> None:
        assert draw_codes(2, 7, 3).tolist() == [4491360187996368185, 5218429943924974633]

    def test_codes_have_nothing_to_do_with_the_order(self) -> None:
        assert np.argsort(draw_codes(8, 0, 0)).tolist() != epoch_order(8, 0, 0).tolist()


class TestBatches:
    """An epoch, batch by batch."""

    @pytest.mark.parametrize(
        ("batch_size", "sizes"), [(1, [1] * 10), (3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (64, [10])]
    )
    def test_an_epoch_shows_every_image_once(self, batch_size: int, sizes: list[int]) -> None:
        batches = Batches(make_split(10), IDENTITY, batch_size, seed=3)
        assert batches.steps_per_epoch == len(sizes)
        for epoch in (0, 1):
            seen = [batches.batch(epoch, step)[1].tolist() for step in range(len(sizes))]
            assert [len(labels) for labels in seen] == sizes
            assert list(chain(*seen)) == epoch_order(10, 3, epoch).tolist()

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_images_stay_with_their_labels(self, dtype: type) -> None:
        batches = Batches(
            make_split(10), Normalizer(np.full(3, 2.0), np.ones((3, 4, 5))), 4, seed=3, dtype=dtype
        )
        for step in range(3):
            x, labels = batches.batch(0, step)
            assert x.dtype == dtype
            assert np.array_equal(x, np.broadcast_to(2 * labels[:, None, None, None] + 1, x.shape))

    def test_a_batch_does_not_depend_on_those_before(self) -> None:
        augment = Augment(flip=True, shift=1)
        steady = Batches(make_split(10), IDENTITY, 3, seed=3, augment=augment)
        for epoch in range(3):
            for step in range(4):
                steady.batch(epoch, step)
        direct = Batches(make_split(10), IDENTITY, 3, seed=3, augment=augment)
        for epoch, step in ((2, 1), (0, 3), (2, 0)):
            for ours, theirs in zip(steady.batch(epoch, step), direct.batch(epoch, step), strict=True):
                assert np.array_equal(ours, theirs)

    def test_augmenting_leaves_the_data_set_alone(self) -> None:
        split = make_split(10)
        batches = Batches(split, IDENTITY, 10, seed=3, augment=Augment(flip=True, shift=2))
        x, labels = batches.batch(0, 0)
        assert not np.array_equal(x, np.broadcast_to(labels[:, None, None, None], x.shape))
        assert np.array_equal(split.images, make_split(10).images)

    def test_augmented_images_do_not_depend_on_the_batch_size(self) -> None:
        augment = Augment(flip=True, shift=2)
        whole = Batches(make_split(10), IDENTITY, 10, seed=3, augment=augment).batch(1, 0)[0].copy()
        parts = Batches(make_split(10), IDENTITY, 4, seed=3, augment=augment)
        assert np.array_equal(np.concatenate([parts.batch(1, step)[0].copy() for step in range(3)]), whole)

    @pytest.mark.parametrize(
        ("count", "batch_size"), [(10, 0), (10, -1), (0, 1)], ids=["no image", "fewer", "no split"]
    )
    def test_a_batch_needs_an_image(self, count: int, batch_size: int) -> None:
        with pytest.raises(ShapeError, match=f"^batch_size: {batch_size} of {count} images; "):
            Batches(make_split(count), IDENTITY, batch_size, seed=0)

    @pytest.mark.parametrize("step", [-1, 4])
    def test_a_step_out_of_range(self, step: int) -> None:
        with pytest.raises(ShapeError, match=rf"^step: {step} is not in 0\.\.3$"):
            Batches(make_split(10), IDENTITY, 3, seed=0).batch(0, step)


class TestIterateBatches:
    """A whole split in its own order."""

    @pytest.mark.parametrize(
        ("count", "batch_size", "sizes"), [(10, 4, [4, 4, 2]), (10, 10, [10]), (3, 64, [3]), (0, 4, [])]
    )
    def test_order_and_sizes(self, count: int, batch_size: int, sizes: list[int]) -> None:
        seen = []
        for batch in iterate_batches(make_split(count), IDENTITY, batch_size, np.float64):
            x = batch.render()
            assert (x.dtype, x.shape) == (batch.dtype, batch.shape) == (np.float64, (len(batch), 3, 4, 5))
            assert np.array_equal(x[:, 0, 0, 0], batch.labels)
            seen.append(batch.labels.tolist())
        assert [len(labels) for labels in seen] == sizes
        assert list(chain(*seen)) == list(range(count))
