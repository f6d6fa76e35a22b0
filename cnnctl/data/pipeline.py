"""From a data set to normalised batches in a reproducible order.

Order and augmentation are pure functions of (seed, epoch), so that a run can be taken
up at any step. They are read from the raw 64-bit stream of PCG64 seeded by
SeedSequence, both of which numpy promises never to change (NEP 19), and not from
`Generator` methods, about which it promises nothing. Keeps no float copy of a data set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike

from cnnctl.data.augment import MOVES, Augment, Changes, change_images, cut_holes
from cnnctl.data.dataset import Array, Dataset, Split, Splits
from cnnctl.errors import ConfigError, ShapeError, describe_alternatives

NormalizerKind = Literal["none", "unit", "mean_image", "standardize"]

ORDER_STREAM, BATCH_STREAM = 0, 4
"""First word of the spawn key: keeps the streams of one seed apart. Those between are `Augment`'s."""
CHUNK_IMAGES = 256


def make_splits(
    dataset: Dataset, *, train: int | None = None, validation: int = 0, test: int | None = None
) -> Splits:
    """Hold the last `validation` training images out, then keep the first `train` and `test`.

    CIFAR-10 with 1,000 for validation gives images 0..48,999 to train on, as cs231n has
    it. Without validation that split is empty. Raises ConfigError when a count asks for
    more than there is.
    """
    rest = len(dataset.train) - validation
    if validation < 0 or rest < 1:
        raise ConfigError(
            f"data.validation: {validation} of the {len(dataset.train)} training images of {dataset.name} "
            f"leaves none to train on; give 0 to {len(dataset.train) - 1}"
        )
    for field, count, available in (("train", train, rest), ("test", test, len(dataset.test))):
        if count is not None and not 1 <= count <= available:
            raise ConfigError(f"data.{field}: {count} images; {dataset.name} has 1 to {available} to give")
    return Splits(
        train=dataset.train.select(0, rest if train is None else train),
        validation=dataset.train.select(rest, len(dataset.train)),
        test=dataset.test.select(0, len(dataset.test) if test is None else test),
    )


@dataclass(frozen=True, eq=False, slots=True)
class Normalizer:
    """The affine map y[n,c,h,w] = x[n,c,h,w] * scale[c] + shift[c,h,w].

    Attributes:
        scale: (C,), float64.
        shift: (C, H, W), float64.
    """

    scale: Array
    shift: Array

    @classmethod
    def fit(cls, images: Array, kind: NormalizerKind) -> "Normalizer":
        """The map of that kind for these (N, C, H, W) images: the training split, no others.

        * none: y = x.
        * unit: y = x / 255.
        * mean_image: y = x - mean over n of x; pixels keep their range of 0..255.
        * standardize: y = (x - mean) / std per channel, over n, h and w. A channel
          without any contrast is only centred.

        Raises ConfigError for another kind.
        """
        C = images.shape[1]
        scale, shift = np.ones(C), np.zeros(images.shape[1:])
        if kind == "unit":
            scale /= 255
        elif kind == "mean_image":
            shift -= _mean_image(images)
        elif kind == "standardize":
            mean = _mean_image(images).mean(axis=(1, 2))
            std = np.sqrt(_measure_variance(images, mean))
            scale /= np.where(std > 0, std, 1)
            shift -= (mean * scale)[:, None, None]
        elif kind != "none":
            raise ConfigError(
                f"data.normalize: {kind!r} is not known; "
                f"{describe_alternatives(kind, get_args(NormalizerKind))}"
            )
        return cls(scale, shift)

    def apply(self, images: Array, out: Array | None = None, dtype: DTypeLike = np.float32) -> Array:
        """Normalised images, written to `out` when given, otherwise to a new array of `dtype`."""
        if out is None:
            out = np.empty(images.shape, dtype)
        np.multiply(images, self.scale.astype(out.dtype, copy=False)[:, None, None], out=out)
        out += self.shift.astype(out.dtype, copy=False)
        return out

    def astype(self, dtype: DTypeLike) -> "Normalizer":
        """The same map with its arrays in another float type, so that `apply` need not convert them."""
        return Normalizer(self.scale.astype(dtype), self.shift.astype(dtype))


@dataclass(frozen=True, eq=False, slots=True)
class RawBatch:
    """A batch before it is computed: which pixels, how changed, how normalised.

    Attributes:
        pixels: (N, C, H, W), the whole split's.
        chosen: (n,) int64, numbers of the batch's images in it.
        changes: what augmentation does to them.
        scale, shift: the normalizer's, in the dtype the batch is to have.
        labels: (n,) int64.
        share: of each image and its loss; the rest is the next image's, the last one's the first's.
    """

    pixels: Array
    chosen: Array
    changes: Changes
    scale: Array
    shift: Array
    labels: Array
    share: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C, H, W)."""
        return (len(self.chosen), *self.pixels.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type of the images to come."""
        return self.scale.dtype

    def __len__(self) -> int:
        return len(self.chosen)

    def render(self, out: Array | None = None) -> Array:
        """The images, (n, C, H, W), in `out` when given; before they are blended."""
        raw = change_images(self.pixels[self.chosen], self.changes)
        images = Normalizer(self.scale, self.shift).apply(raw, out, self.dtype)
        if self.changes.holes is not None:
            cut_holes(images, self.changes.holes)
        return images


def epoch_order(count: int, seed: int, epoch: int) -> Array:
    """The order in which an epoch shows its images: a permutation of 0..count-1, int64.

    A stable sort of `count` raw words of PCG64(SeedSequence(seed, spawn_key=(0, epoch))):
    the same on every machine and with every numpy.
    """
    return np.argsort(_raw_words(count, seed, ORDER_STREAM, epoch), kind="stable").astype(np.int64)


def draw_codes(count: int, seed: int, epoch: int, stream: int = MOVES) -> Array:
    """One uint64 of random bits for each image of the training split, for `Augment`."""
    return _raw_words(count, seed, stream, epoch)


def draw_words(seed: int, epoch: int, step: int) -> Iterator[int]:
    """As many uint64 of random bits for a batch as are asked for."""
    words = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(BATCH_STREAM, epoch, step)))
    while True:
        yield int(words.random_raw())


class Batches:
    """Shuffled, augmented, normalised batches of a training split.

    Every epoch shows every image exactly once; its last batch is smaller when the batch
    size does not divide the number of images.
    """

    def __init__(
        self,
        split: Split,
        normalizer: Normalizer,
        batch_size: int,
        *,
        seed: int,
        dtype: DTypeLike = np.float32,
        augment: Augment | None = None,
    ) -> None:
        if batch_size < 1 or not len(split):
            raise ShapeError(f"batch_size: {batch_size} of {len(split)} images; both must be at least 1")
        augment = augment or Augment()
        augment.check_size(*split.images.shape[2:])
        self.split = split
        self.batch_size = min(batch_size, len(split))
        self.steps_per_epoch = -(-len(split) // batch_size)
        self.seed = seed
        self._augment = augment
        self._normalizer = normalizer.astype(dtype)
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._codes: dict[int, Array] = {}

    def draw(self, epoch: int, step: int) -> RawBatch:
        """Batch `step` (from 0) of an epoch."""
        if not 0 <= step < self.steps_per_epoch:
            raise ShapeError(f"step: {step} is not in 0..{self.steps_per_epoch - 1}")
        self._prepare_epoch(epoch)
        chosen = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        changes = self._augment.draw_changes(
            self.split.images, chosen, lambda stream: self._draw_codes(stream)[chosen]
        )
        share = self._augment.draw_share(draw_words(self.seed, epoch, step))
        scale, shift = self._normalizer.scale, self._normalizer.shift
        return RawBatch(self.split.images, chosen, changes, scale, shift, self.split.labels[chosen], share)

    def batch(self, epoch: int, step: int) -> tuple[Array, Array]:
        """The same batch computed, before it is blended: x (n, C, H, W) and labels (n)."""
        raw = self.draw(epoch, step)
        return raw.render(), raw.labels

    def _prepare_epoch(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._order = epoch_order(len(self.split), self.seed, epoch)
        self._codes.clear()
        self._epoch = epoch

    def _draw_codes(self, stream: int) -> Array:
        """Of all images in this epoch."""
        if stream not in self._codes:
            self._codes[stream] = draw_codes(len(self.split), self.seed, self._epoch, stream)
        return self._codes[stream]


def iterate_batches(
    split: Split, normalizer: Normalizer, batch_size: int, dtype: DTypeLike = np.float32
) -> Iterator[RawBatch]:
    """All images of a split in order, the last batch perhaps smaller."""
    normalizer = normalizer.astype(dtype)
    for start in range(0, len(split), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(split)))
        labels = split.labels[start : start + batch_size]
        yield RawBatch(split.images, chosen, Changes(), normalizer.scale, normalizer.shift, labels)


def _raw_words(count: int, seed: int, stream: int, epoch: int) -> Array:
    words: Any = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, epoch))).random_raw(count)
    return np.asarray(words, np.uint64)


def _chunks(images: Array) -> Iterator[Array]:
    for start in range(0, len(images), CHUNK_IMAGES):
        yield images[start : start + CHUNK_IMAGES]


def _mean_image(images: Array) -> Array:
    total = np.zeros(images.shape[1:])
    for chunk in _chunks(images):
        total += chunk.sum(axis=0, dtype=np.float64)
    return total / len(images)


def _measure_variance(images: Array, mean: Array) -> Array:
    """Per channel; of bytes by sums of whole numbers, which are exact and need no copy in float64."""
    count, axes = images.size // images.shape[1], (0, 2, 3)
    if images.dtype == np.uint8:
        total = np.zeros(images.shape[1], object)  # of Python's integers, which do not overflow
        squares = total.copy()
        for chunk in _chunks(images):
            total += chunk.sum(axis=axes, dtype=np.int64)
            squares += np.square(chunk, dtype=np.uint16).sum(axis=axes, dtype=np.int64)
        return np.asarray((count * squares - total * total) / count**2, np.float64)
    deviations = (chunk - mean[:, None, None] for chunk in _chunks(images))
    return np.asarray(sum(np.square(deviation).sum(axis=axes) for deviation in deviations) / count)
