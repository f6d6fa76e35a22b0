"""Kernels do to photographs what their names say, whatever computes them; figure and numbers show it."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnnctl.backends import BACKENDS, create_backend
from cnnctl.backends.specs import Array
from cnnctl.config.kernel import KernelConfig
from cnnctl.errors import ConfigError, DataError
from cnnctl.plot import convolution as module
from cnnctl.plot.convolution import (
    STANDARD,
    Photo,
    convolve_photo,
    convolve_photos,
    draw_convolutions,
    find_kernels,
    read_photo,
    save_result_numbers,
)

IM2COL = create_backend("im2col")


@pytest.fixture
def photo(tmp_path: Path, rng: np.random.Generator) -> Photo:
    """12 pixels wide, 10 high."""
    pixels = rng.integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return read_photo(tmp_path / "photo.png", 200)


def apply(kernel: str | KernelConfig, pixels: Array) -> Array:
    photo = Photo(Path("none"), pixels.shape[1:], pixels)
    return convolve_photo(photo, STANDARD[kernel] if isinstance(kernel, str) else kernel, IM2COL)


def test_grayscale_is_the_luma(photo: Photo) -> None:
    """As Pillow has it, which rounds the same weights."""
    with Image.open(photo.path) as image:
        expected = np.asarray(image.convert("L"), float)
    np.testing.assert_allclose(apply("grayscale", photo.pixels)[0], expected, atol=0.51)


def test_edges_are_the_horizontal_ones() -> None:
    """Bright below dark is darker than 128 by the step times 4, and upright edges are none."""
    pixels = np.zeros((3, 6, 6), np.uint8)
    pixels[:, 3:] = 10
    rows = apply("edges", pixels)[0]
    assert rows == pytest.approx(np.repeat([128, 128, 88, 88, 128, 128], 6).reshape(6, 6).astype(float))
    assert apply("edges", pixels.transpose(0, 2, 1)) == pytest.approx(128)


@pytest.mark.parametrize("kernel", ["sharpen", "blur"])
def test_what_is_even_stays_so_up_to_the_border(kernel: str) -> None:
    pixels = np.stack([np.full((7, 8), level, np.uint8) for level in (10, 100, 250)])
    np.testing.assert_allclose(apply(kernel, pixels), pixels, rtol=1e-6)


def test_a_point_is_blurred_and_sharpened_in_its_channel() -> None:
    pixels = np.zeros((3, 9, 9), np.uint8)
    pixels[1, 4, 4] = 160
    blurred, sharpened = apply("blur", pixels), apply("sharpen", pixels)
    assert blurred[1].sum() == pytest.approx(160)
    assert (blurred[1, 4, 4], blurred[1, 4, 2], blurred[1, 2, 2]) == pytest.approx((22.5, 3.75, 0.625))
    assert (sharpened[1, 4, 4], sharpened[1, 4, 3], sharpened[1, 3, 3]) == (800, -160, 0)
    assert not blurred[[0, 2]].any()
    assert not sharpened[[0, 2]].any()


def test_beyond_the_border_are_the_pixels_at_it() -> None:
    """Of an even kernel the middle tap is the first of the middle two, as in a layer with padding same."""
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4).repeat(3, 0)
    after = KernelConfig(name="after", weight=[[0, 1]])
    assert np.array_equal(apply(after, pixels)[0], [[1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]])
    corner = KernelConfig(name="corner", weight=[[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert np.array_equal(apply(corner, pixels)[0], [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]])


def test_filters_over_all_channels_have_their_own_bias(photo: Photo) -> None:
    weight = [[[[1]], [[0]], [[0]]], [[[0]], [[2]], [[-1]]]]
    y = apply(KernelConfig(name="two", weight=weight, bias=[1, -5]), photo.pixels)
    red, green, blue = photo.pixels.astype(float)
    assert np.array_equal(y, [red + 1, 2 * green - blue - 5])


def test_filters_of_one_channel_take_the_grey_image(photo: Photo) -> None:
    y = convolve_photo(photo, KernelConfig(name="grey", weight=[[[[2]]]], bias=1), IM2COL)
    with Image.open(photo.path) as image:
        assert np.array_equal(y[0], 2.0 * np.asarray(image.convert("L")) + 1)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_gives_the_same(photo: Photo, name: str) -> None:
    for kernel in STANDARD.values():
        y = convolve_photo(photo, kernel, create_backend(name))
        np.testing.assert_allclose(y, convolve_photo(photo, kernel, IM2COL), rtol=1e-5, atol=1e-3)


class TestReading:
    @pytest.mark.parametrize(
        ("size", "longest", "shape"),
        [((40, 20), 10, (5, 10)), ((20, 40), 10, (10, 5)), ((9, 3), 200, (3, 9))],
    )
    def test_the_longer_side_is_reduced_and_never_enlarged(self, tmp_path, size, longest, shape):
        Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "a.png")
        photo = read_photo(tmp_path / "a.png", longest)
        assert (photo.size, photo.pixels.shape) == (size[::-1], (3, *shape))
        assert photo.pixels[:, 0, 0].tolist() == [10, 20, 30]

    def test_a_line_keeps_a_pixel(self, tmp_path):
        Image.new("L", (1000, 1)).save(tmp_path / "a.png")
        assert read_photo(tmp_path / "a.png", 10).pixels.shape == (3, 1, 10)

    def test_no_image(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.png: no such file"):
            read_photo(tmp_path / "a.png", 10)


class TestKernels:
    def test_all_the_standard_ones_by_default(self):
        names = [kernel.name for kernel in find_kernels([])]
        assert names == list(STANDARD) == ["grayscale", "edges", "sharpen", "blur"]

    def test_names_and_files(self, tmp_path):
        (tmp_path / "k.yaml").write_text("name: mine\nweight: [[1]]\n")
        found = find_kernels(["blur", str(tmp_path / "k.yaml")])
        assert [kernel.name for kernel in found] == ["blur", "mine"]

    @pytest.mark.parametrize(
        ("names", "line"),
        [
            (["edge"], "kernel: 'edge' is neither known nor a .yaml file; did you mean edges?"),
            (["blur", "blur"], "kernel: 'blur' is given twice; give each another name"),
        ],
    )
    def test_what_is_refused(self, names, line):
        with pytest.raises(ConfigError) as caught:
            find_kernels(names)
        assert str(caught.value) == line


class TestPictures:
    KERNELS = (
        STANDARD["blur"],
        KernelConfig(name="two", weight=[[[[9]], [[0]], [[0]]], [[[0]], [[0]], [[-1]]]]),
    )

    def test_a_row_a_photo_with_itself_and_its_results(self, photo, tmp_path, monkeypatch):
        figures: list[Figure] = []
        monkeypatch.setattr(module, "save_figure", lambda figure, _: figures.append(figure))
        other = Photo(tmp_path / "other.png", (3, 4), np.zeros((3, 3, 4), np.uint8))
        results = list(convolve_photos([photo, other], self.KERNELS, IM2COL))
        assert [(result.photo, result.name) for result in results] == [
            (number, name) for number in (0, 1) for name in ("blur", "two-1", "two-2")
        ]
        files = draw_convolutions([photo, other], results, tmp_path / "all.svg")
        panels = figures[0].get_axes()
        names = ["blur", "two-1", "two-2"]
        assert [panel.get_title() for panel in panels] == ["photo.png", *names, "other.png", *names]
        shown = [np.asarray(panel.get_images()[0].get_array()) for panel in panels]
        assert np.array_equal(shown[0], photo.pixels.transpose(1, 2, 0))
        assert np.array_equal(shown[2], np.minimum(9 * photo.pixels[0].astype(int), 255))
        assert not shown[3].any()  # all of it is below 0
        assert {panel.get_images()[0].get_clim() for panel in panels} == {(0, 255)}
        assert [file.name for file in files] == [f"all-{n}-{name}.png" for n in (1, 2) for name in names]
        for file, pixels in zip(files, [*shown[1:4], *shown[5:]], strict=True):
            with Image.open(file) as image:
                assert np.array_equal(np.asarray(image), pixels)

    def test_numbers_are_those_before_they_were_cut_off(self, photo, tmp_path):
        results = list(convolve_photos([photo], self.KERNELS, IM2COL))
        files = [tmp_path / f"{result.name}.png" for result in results]
        with save_result_numbers([photo], results, files, tmp_path / "all.png").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["kernel"] for row in rows] == ["blur", "two-1", "two-2"]
        assert [row["channels"] for row in rows] == ["3", "1", "1"]
        red, _, blue = photo.pixels.astype(float)
        assert {row["image"] for row in rows} == {str(photo.path)}
        assert (rows[1]["file"], rows[1]["height"], rows[1]["width"]) == ("two-1.png", "10", "12")
        for row, y in ((rows[1], 9 * red), (rows[2], -blue)):
            found = [float(row[key]) for key in ("least", "greatest", "mean", "deviation")]
            assert found == pytest.approx([y.min(), y.max(), y.mean(), y.std()])

    @pytest.mark.parametrize("output", ["photo.png", "./photo.png"])
    def test_a_photo_is_never_written_over(self, photo, tmp_path, output):
        before = photo.path.read_bytes()
        results = list(convolve_photos([photo], [STANDARD["blur"]], IM2COL))
        with pytest.raises(ConfigError, match="is one of the images; give another name"):
            draw_convolutions([photo], results, tmp_path / output)
        assert photo.path.read_bytes() == before

    def test_nor_by_a_result(self, photo, tmp_path):
        path = tmp_path / "all-1-blur.png"
        photo.path.rename(path)
        moved = Photo(path, photo.size, photo.pixels)
        results = list(convolve_photos([moved], [STANDARD["blur"]], IM2COL))
        with pytest.raises(ConfigError, match=r"all-1-blur\.png' is one of the images"):
            draw_convolutions([moved], results, tmp_path / "all.png")
        assert [file.name for file in tmp_path.iterdir()] == ["all-1-blur.png"]
