"""Image files read through Pillow: a folder with one subfolder a class, or single files.

Reads ROOT/train/CLASS/* and ROOT/test/CLASS/*, or ROOT/CLASS/* alone. Hidden files are passed
over; anything else that is not an image is refused by name. Decodes plain formats only, and
nothing whose size is not known to be sane. Ignores EXIF rotation and transparency, and
changes no file.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cnnctl.data.dataset import MAX_CLASSES, MAX_IMAGE_BYTES, Array, Split
from cnnctl.data.files import check_regular, describe_cause
from cnnctl.errors import DataError
from cnnctl.geometry import as_pair

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
Labelled = list[tuple[Path, int]]

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"CMYK", "P", "PA", "RGB", "RGBA", "YCbCr"}
"""Pillow's names for all pixels of at most 8 bits a channel."""
MAX_PIXELS = 2**24
"""More than this in one image is refused before it is decoded; Pillow takes 4 bytes for each."""
MAX_FILE_BYTES = 2**27
"""Pillow takes some files into memory whole; one of MAX_PIXELS is shorter."""
FREE_PIXELS = 2**20
PIXELS_PER_BYTE = 400
"""An image of more than FREE_PIXELS has at most so many a byte of its file: as PNG packs one colour."""
MAX_SCANS = 64
"""Of one JPEG, each of which visits all its pixels; encoders write about ten."""
ANIMATED = {"PNG", "WEBP"}
"""Formats whose further images are frames, not previews as in the JPEGs of many cameras."""
HELD_OUT = 10
"""One image of so many is for testing where there is no folder of test images."""
TRAIN_STREAM, TEST_STREAM, HELD_OUT_STREAM = 0, 1, 2
"""First word of the spawn key: keeps the streams of one seed apart."""


def read_folder(
    root: str | os.PathLike[str],
    *,
    seed: int,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> tuple[Split, Split, tuple[str, ...]]:
    """The training split, the test split and the names of the classes, sorted.

    Without ROOT/train and ROOT/test, a tenth of each class (rounded, at least one image) is
    held out for testing. Which ones, and the order of the images in both splits, depend on
    their names and the seed alone.

    Args:
        seed: chooses the images held out, and the order of all.
        image_size: (height, width) in pixels, or the one number for both, that images are
            resized to (bilinear, proportions not kept); None: they must all have one size.
        channels: 1 (grey) or 3 (RGB); None: 1 if all the files are grey, otherwise 3.

    Raises DataError.
    """
    train, test, classes = _find_images(Path(root), seed)
    grey, size = _probe_images([path for path, _ in train + test], image_size is None)
    H, W = size if image_size is None else as_pair(image_size, "image_size")
    C = channels or (1 if grey else 3)
    count = len(train) + len(test)
    if count * C * H * W > MAX_IMAGE_BYTES:
        raise DataError(
            f"{root}: {count} images of {C}x{H}x{W} bytes take more than {MAX_IMAGE_BYTES}; "
            "give a smaller image_size"
        )
    return _decode_images(train, (C, H, W)), _decode_images(test, (C, H, W)), classes


def read_image(path: Path, shape: tuple[int, int, int]) -> Array:
    """One image as those of a folder are read: (C, H, W) uint8, resized, C of 1 grey and of 3 RGB.

    Raises DataError when there is no such file, or none that is fit to be decoded.
    """
    check_regular(path)
    return _decode_image(path, shape)


def measure_image(path: Path) -> tuple[int, int]:
    """(height, width) from an image's header, in pixels. Raises DataError as `read_image` does."""
    check_regular(path)
    with _open_image(path) as image:
        return image.height, image.width


def list_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted; hidden ones and links to folders are passed over.

    Raises DataError when there is none, or a folder cannot be read.
    """
    files, folders = [], [folder]
    while folders:
        for path in _list_visible(folders.pop()):
            if not os.path.isdir(path):
                files.append(path)
            elif not os.path.islink(path):
                folders.append(path)
    if not files:
        raise DataError(f"{folder}: holds no image")
    return sorted(files)


def _find_images(root: Path, seed: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    if os.path.isdir(root / "train") and os.path.isdir(root / "test"):
        train, test = _list_classes(root / "train"), _list_classes(root / "test")
        if different := sorted(train.keys() ^ test.keys()):
            raise DataError(f"{root}: class {different[0]!r} is in one of train and test; it must be in both")
    else:
        train, test = {}, {}
        for label, (name, paths) in enumerate(_list_classes(root).items()):
            if len(paths) < 2:
                raise DataError(f"{root / name}: holds 1 image; it takes one to train on and one to test on")
            held_out = max(1, round(len(paths) / HELD_OUT))
            shuffled = _shuffle(paths, seed, HELD_OUT_STREAM, label)
            test[name], train[name] = shuffled[:held_out], shuffled[held_out:]
    return _label(train, seed, TRAIN_STREAM), _label(test, seed, TEST_STREAM), tuple(train)


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class, both in the order of their names."""
    subfolders = _list_visible(folder)
    if not 1 <= len(subfolders) <= MAX_CLASSES:
        raise DataError(f"{folder}: holds {len(subfolders)} classes; it takes 1 to {MAX_CLASSES} subfolders")
    return {subfolder.name: _list_class(subfolder) for subfolder in subfolders}


def _list_class(folder: Path) -> list[Path]:
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: not a folder, where each is to hold one class")
    paths = _list_visible(folder)
    if not paths:
        raise DataError(f"{folder}: holds no image; remove the folder or fill it")
    for path in paths:
        if not os.path.isfile(path):
            raise DataError(f"{path}: not an image file; a class folder holds nothing else")
    return paths


def _list_visible(folder: Path) -> list[Path]:
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {getattr(error, 'strerror', None) or error}") from None
    for name in names:
        if not name.isprintable():
            raise DataError(f"{folder}: holds {name!r}; names must be printable")
    return [folder / name for name in names]


def _label(classes: dict[str, list[Path]], seed: int, stream: int) -> Labelled:
    labelled = [(path, label) for label, paths in enumerate(classes.values()) for path in paths]
    return _shuffle(labelled, seed, stream)


def _shuffle(items: list[T], seed: int, *stream: int) -> list[T]:
    """Sort by the raw words of a stream, like `pipeline.epoch_order`: the same with every numpy."""
    words = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream)).random_raw(len(items))
    return [items[i] for i in np.argsort(words, kind="stable")]


def _probe_images(paths: list[Path], one_size: bool) -> tuple[bool, tuple[int, int]]:
    """Whether all images are grey, and (height, width) of the first, from their headers.

    Raises DataError for an image not fit to be decoded, or not of one size with the first.
    """
    grey, size = True, (0, 0)
    for path in paths:
        with _open_image(path) as image:
            grey &= image.mode in GREY_MODES
            if path == paths[0]:
                size = image.height, image.width
            elif one_size and size != (image.height, image.width):
                raise DataError(
                    f"{path}: {image.height}x{image.width} pixels, where {paths[0]} has {size[0]}x{size[1]}; "
                    "give image_size to resize all"
                )
    return grey, size


def _decode_images(labelled: Labelled, shape: tuple[int, int, int]) -> Split:
    images = np.empty((len(labelled), *shape), np.uint8)
    for i, (path, _) in enumerate(labelled):
        images[i] = _decode_image(path, shape)
    return Split(images, np.array([label for _, label in labelled], np.int64))


def _decode_image(path: Path, shape: tuple[int, int, int]) -> Array:
    from PIL.Image import Resampling

    C, H, W = shape
    with _open_image(path) as image:
        pixels = image.convert("L" if C == 1 else "RGB")
        if pixels.size != (W, H):
            pixels = pixels.resize((W, H), Resampling.BILINEAR)
    return np.asarray(pixels).reshape(H, W, C).transpose(2, 0, 1)


@contextmanager
def _open_image(path: Path) -> Iterator["Image"]:
    """Open an image that is fit to be decoded; what Pillow raises in the block becomes a DataError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), _BoundedFile(path) as file:
            if file.size > MAX_FILE_BYTES:
                raise DataError(f"{path}: larger than {MAX_FILE_BYTES} bytes; resize the image beforehand")
            with Image.open(file, formats=FORMATS) as image:
                _check_image(image, path, file.size)
                yield image
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {MAX_PIXELS} pixels; resize the image beforehand") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image; files of {', '.join(FORMATS)} are read") from None
    except Exception as error:  # a dozen kinds, as the decoders have it
        raise DataError(f"{path}: not a whole image ({describe_cause(error)})") from None


class _BoundedFile(io.BufferedReader):
    """A file that takes memory for no more than its size: Pillow asks for as many bytes as a header says."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.size if size is None or size < 0 else min(size, self.size))


def _check_image(image: "Image", path: Path, size: int) -> None:
    """Raises DataError for what takes more time or memory than an image of its file's length may."""
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise DataError(f"{path}: pixels of mode {image.mode}; give images of 8 bits a channel")
    if image.format in ANIMATED and getattr(image, "is_animated", False):
        raise DataError(f"{path}: an animation; give a single image")
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise DataError(f"{path}: more than {MAX_PIXELS} pixels; resize the image beforehand")
    if pixels > max(FREE_PIXELS, PIXELS_PER_BYTE * size):
        raise DataError(
            f"{path}: {image.width}x{image.height} pixels in {size} bytes; no image packs so well"
        )
    if image.info.get("progressive") and path.read_bytes().count(b"\xff\xda") > MAX_SCANS:
        raise DataError(f"{path}: a JPEG of more than {MAX_SCANS} scans; save it anew")
