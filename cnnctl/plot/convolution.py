"""Convolution as image processing: photographs, and what well-known kernels make of them.

Reads images, lets a backend's `conv_forward` work on their bytes as they are (0 to 255), and draws what
comes out as far as it lies in that range; the numbers beside the picture tell how far it goes. Beyond
its border an image has the pixels at its border, so that no frame is made of zeros.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.config.kernel import KernelConfig, load_kernel
from cnnctl.data.folder import measure_image, read_image
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.geometry import Window
from cnnctl.plot.figure import draw_figure, save_figure, save_numbers
from cnnctl.plot.pixels import encode_image, shorten_name
from cnnctl.train.atomic import write_atomically

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue. Source: ITU-R BT.601."""
SOBEL = ((1, 2, 1), (0, 0, 0), (-1, -2, -1))
BINOMIAL = (1, 4, 6, 4, 1)
TILE, MAX_HEIGHT = 2.4, 3
"""The width of what is shown, in inches, and the most that its height may be of that."""

STANDARD = {
    kernel.name: kernel
    for kernel in (
        KernelConfig(name="grayscale", weight=[[[[part]] for part in LUMA]]),
        # Horizontal edges of the luma; 128 is none. Source: Sobel, Feldman 1968.
        KernelConfig(
            name="edges",
            weight=[[[[part * tap for tap in row] for row in SOBEL] for part in LUMA]],
            bias=128,
        ),
        # The image less its Laplacian. Source: Gonzalez, Woods 2018, section 3.6.
        KernelConfig(name="sharpen", weight=[[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
        # Nearly a Gaussian of variance 1. Source: Burt, Adelson 1983.
        KernelConfig(name="blur", weight=[[a * b / 256 for b in BINOMIAL] for a in BINOMIAL]),
    )
}


@dataclass(frozen=True, eq=False)
class Photo:
    """An image file.

    Attributes:
        size: (height, width) of the file.
        pixels: (3, H, W) uint8, reduced.
    """

    path: Path
    size: tuple[int, int]
    pixels: Array


@dataclass(frozen=True, eq=False)
class Result:
    """What one filter made of one photo.

    Attributes:
        photo: its number, from 0.
        name: the kernel's, and the filter's number if it has several.
        y: (3, H, W) or (1, H, W) float32, as it was computed.
    """

    photo: int
    name: str
    y: Array

    @property
    def pixels(self) -> Array:
        """(H, W, 3) or (H, W) uint8: rounded, and cut off at 0 and 255."""
        levels: Array = np.rint(np.clip(self.y, 0, 255)).astype(np.uint8)
        return levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)


def find_kernels(names: Sequence[str]) -> list[KernelConfig]:
    """A kernel for each name: a standard one's, or a YAML file; all the standard ones for no name.

    Raises ConfigError for one that is neither, for a file that is not usable, and for two of one name.
    """
    kernels: dict[str, KernelConfig] = {}
    for name in names or STANDARD:
        if name not in STANDARD and not name.endswith((".yaml", ".yml")):
            near = describe_alternatives(name, STANDARD)
            raise ConfigError(f"kernel: {name!r} is neither known nor a .yaml file; {near}")
        kernel = STANDARD[name] if name in STANDARD else load_kernel(name)
        if kernel.name in kernels:
            raise ConfigError(f"kernel: {kernel.name!r} is given twice; give each another name")
        kernels[kernel.name] = kernel
    return list(kernels.values())


def read_photo(path: Path, longest: int) -> Photo:
    """Read an image as `predict` does, reduced to `longest` pixels on its longer side if it has more.

    Raises DataError when there is no such file, or none that is fit to be decoded.
    """
    H, W = size = measure_image(path)
    scale = min(1.0, longest / max(size))
    H, W = max(1, round(scale * H)), max(1, round(scale * W))
    return Photo(path, size, read_image(path, (3, H, W)))


def convolve_photo(photo: Photo, kernel: KernelConfig, backend: Backend) -> Array:
    """(F, H, W) float32, or (3, H, W) for rows that each channel is convolved with by itself."""
    w = np.array(kernel.weight, np.float32)
    bias = np.array(kernel.bias, np.float32)
    x, groups = photo.pixels, 1
    if w.ndim == 2:
        w, groups = np.tile(w, (3, 1, 1, 1)), 3
    elif w.shape[1] == 1:
        x = read_image(photo.path, (1, *x.shape[1:]))
    KH, KW = w.shape[2:]
    borders = Window.create((KH, KW), padding="same").padding
    padded = np.pad(x[None].astype(np.float32), ((0, 0), (0, 0), *borders), mode="edge")
    b = np.ascontiguousarray(np.broadcast_to(bias, len(w)))
    y: Array = backend.conv_forward(padded, w, b, Window.create((KH, KW)), groups)[0]
    return y


def convolve_photos(
    photos: Sequence[Photo], kernels: Sequence[KernelConfig], backend: Backend
) -> Iterator[Result]:
    """The results of all kernels on the first photo, then of all on the second, and so on."""
    for number, photo in enumerate(photos):
        for kernel in kernels:
            y = convolve_photo(photo, kernel, backend)
            if len(kernel.shape) == 2 or kernel.filters == 1:
                yield Result(number, kernel.name, y)
            else:
                yield from (Result(number, f"{kernel.name}-{f}", y[f - 1 : f]) for f in range(1, len(y) + 1))


def draw_convolutions(photos: Sequence[Photo], results: Sequence[Result], picture: Path) -> list[Path]:
    """Write a row for each photo, itself and its results; then each result as a PNG of its own beside it.

    Returns where the latter are. Raises ConfigError if a file would take the place of a photo.
    """
    from PIL import Image

    files = [picture.with_name(f"{picture.stem}-{result.photo + 1}-{result.name}.png") for result in results]
    originals = {photo.path.resolve() for photo in photos}
    for file in (picture, *files):
        if file.resolve() in originals:
            raise ConfigError(f"output: {str(file)!r} is one of the images; give another name")
    columns = 1 + len(results) // len(photos)
    shapes = [photo.pixels.shape[1:] for photo in photos]
    heights = [0.4 + TILE * min(H / W, MAX_HEIGHT) for H, W in shapes]
    with draw_figure(TILE * columns, sum(heights)) as figure:
        panels = figure.subplots(len(photos), columns, squeeze=False, height_ratios=heights)
        for number, (photo, row) in enumerate(zip(photos, panels, strict=True)):
            own = [(result.name, result.pixels) for result in results if result.photo == number]
            tiles = [(photo.path.name, photo.pixels.transpose(1, 2, 0)), *own]
            for panel, (title, pixels) in zip(row, tiles, strict=True):
                panel.imshow(pixels, cmap="gray", vmin=0, vmax=255)
                panel.set_title(shorten_name(title))
                panel.set_axis_off()
        save_figure(figure, picture)
    for file, result in zip(files, results, strict=True):
        write_atomically(file, encode_image(Image.fromarray(result.pixels)))
    return files


def save_result_numbers(
    photos: Sequence[Photo], results: Sequence[Result], files: Sequence[Path], picture: Path
) -> Path:
    """Write a row for each result as a CSV beside the picture; returns where.

    Least, greatest, mean and deviation are those of what was computed, before it was cut off.
    """
    rows = [
        (photos[result.photo].path, result.name, file.name, *describe_result(result).values())
        for result, file in zip(results, files, strict=True)
    ]
    return save_numbers(picture, ("image", "kernel", "file", *describe_result(results[0])), rows)


def describe_result(result: Result) -> dict[str, float]:
    """Extents, and what its numbers come to."""
    C, H, W = result.y.shape
    y = result.y.astype(np.float64)
    figures = {"least": y.min(), "greatest": y.max(), "mean": y.mean(), "deviation": y.std()}
    return {
        "channels": C,
        "height": H,
        "width": W,
        **{key: float(value) for key, value in figures.items()},
    }
