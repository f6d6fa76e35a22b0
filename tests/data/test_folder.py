"""Image folders: what is read, in which order, and everything that is no image of theirs."""

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnctl.data import folder as folder_module
from cnnctl.data.dataset import Split
from cnnctl.data.folder import list_files, read_folder, read_image
from cnnctl.errors import DataError, ShapeError

Refusal = Callable[..., str]


def save_image(path: Path, value: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (4, 3)) -> None:
    """An image of one value, (width, height) as Pillow has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in "1LP" else (value,) * len(mode)).save(path)


def read_values(split: Split) -> list[int]:
    values: list[int] = split.images[:, 0, 0, 0].tolist()
    return values


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Classes cat, dog and emu; the value of each image tells which it is: 10 class + number."""
    for label, name in enumerate(("cat", "dog", "emu")):
        for i in range(5):
            save_image(tmp_path / "train" / name / f"{i}.png", 10 * label + i)
        for i in range(5, 7):
            save_image(tmp_path / "test" / name / f"{i}.png", 10 * label + i)
    return tmp_path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """One class of 20 images and one of 2, without a folder for testing."""
    for i in range(20):
        save_image(tmp_path / "many" / f"{i:02}.png", i)
    for i in range(100, 102):
        save_image(tmp_path / "few" / f"{i}.png", i)
    return tmp_path


def test_train_and_test_folders_are_the_splits(root: Path) -> None:
    train, test, classes = read_folder(root, seed=0)
    assert classes == ("cat", "dog", "emu")
    assert (train.images.shape, test.images.shape) == ((15, 3, 3, 4), (6, 3, 3, 4))
    assert train.images.dtype == np.uint8
    assert sorted(read_values(train)) == [10 * label + i for label in range(3) for i in range(5)]
    assert sorted(read_values(test)) == [5, 6, 15, 16, 25, 26]
    for split in (train, test):
        assert [value // 10 for value in read_values(split)] == split.labels.tolist()


def test_the_order_depends_on_names_and_seed_alone(root: Path) -> None:
    train, test, _ = read_folder(root, seed=1)
    assert read_values(train) == [23, 4, 21, 11, 1, 3, 20, 24, 14, 13, 2, 0, 22, 10, 12]
    assert read_values(test) == [26, 16, 15, 5, 6, 25]
    again, _, _ = read_folder(root, seed=1)
    assert read_values(again) == read_values(train)
    other, _, _ = read_folder(root, seed=2)
    assert read_values(other) != read_values(train)


def test_a_tenth_of_each_class_is_held_out_without_a_test_folder(flat: Path) -> None:
    train, test, classes = read_folder(flat, seed=0)
    assert classes == ("few", "many")
    assert np.bincount(train.labels).tolist() == [1, 18]
    assert np.bincount(test.labels).tolist() == [1, 2]
    assert sorted(read_values(train) + read_values(test)) == [*range(20), 100, 101]


def test_the_seed_chooses_what_is_held_out(flat: Path) -> None:
    held_out = {seed: frozenset(read_values(read_folder(flat, seed=seed)[1])) for seed in range(20)}
    assert held_out[0] == frozenset(read_values(read_folder(flat, seed=0)[1]))
    assert len(set(held_out.values())) > 10


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        for i in range(2):
            save_image(tmp_path / name / f"{i}.png")
    assert read_folder(tmp_path, seed=0)[2] == ("bus", "train")


@pytest.mark.parametrize("suffix", ["bmp", "jpg", "jpeg", "png", "ppm", "webp", "PNG", "without_meaning"])
def test_the_usual_formats_are_read_whatever_the_name(flat: Path, suffix: str) -> None:
    kind = {"without_meaning": "png"}.get(suffix, suffix)
    save_image(flat / f"few/102.{kind}", 102)
    (flat / f"few/102.{kind}").rename(flat / f"few/102.{suffix}")
    train, test, _ = read_folder(flat, seed=0)
    assert len(train) + len(test) == 23


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [
        ("1", 1, 255),
        ("L", 7, 7),
        ("LA", 7, 7),
        ("P", 0, None),
        ("RGB", 7, None),
        ("RGBA", 7, None),
        ("CMYK", 9, None),
    ],
)
def test_channels_are_1_if_all_files_are_grey(
    tmp_path: Path, mode: str, value: int, grey: int | None
) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    for i in range(2):
        save_image(tmp_path / "grey" / f"{i}.png", value=7, mode="L")
        save_image(tmp_path / "other" / f"{i}.{suffix}", value, mode=mode)
    train, _, _ = read_folder(tmp_path, seed=0)
    assert train.images.shape[1] == (3 if grey is None else 1)
    if grey is not None:
        assert train.images[train.labels == 1].max() == grey


def test_channels_and_size_can_be_asked_for(tmp_path: Path) -> None:
    save_image(tmp_path / "a/0.png", 10, size=(4, 3))
    save_image(tmp_path / "a/1.png", 10, size=(9, 9))
    assert read_folder(tmp_path, seed=0, image_size=5)[0].images.shape == (1, 3, 5, 5)
    assert read_folder(tmp_path, seed=0, image_size=(6, 2), channels=1)[0].images.shape == (1, 1, 6, 2)
    assert (read_folder(tmp_path, seed=0, image_size=2)[0].images == 10).all()


def test_pixels_are_where_they_belong(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(256, size=(3, 4, 3), dtype=np.uint8)
    save_image(tmp_path / "a/0.png")
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"a/{i}.png")
    train, _, _ = read_folder(tmp_path, seed=0)
    np.testing.assert_array_equal(train.images[0], pixels.transpose(2, 0, 1))


def test_hidden_files_are_passed_over(root: Path) -> None:
    (root / ".DS_Store").touch()
    (root / "train/.git").mkdir()
    (root / "train/cat/._0.png").write_bytes(b"Mac OS X")
    assert len(read_folder(root, seed=0)[0]) == 15


def test_images_of_two_sizes_need_image_size(root: Path, refusal: Refusal) -> None:
    save_image(root / "train/cat/0.png", size=(5, 5))
    line = refusal(read_folder, root, seed=0)
    assert "5x5" in line
    assert "3x4" in line
    assert line.endswith("give image_size to resize all")


def test_a_size_below_1_is_refused(root: Path) -> None:
    with pytest.raises(ShapeError, match="image_size: 0 is below 1"):
        read_folder(root, seed=0, image_size=0)


def test_more_than_fits_is_refused_before_it_is_decoded(root: Path, cheap_refusal: Refusal) -> None:
    line = cheap_refusal(lambda: read_folder(root, seed=0, image_size=2**16))
    assert line.endswith(
        "21 images of 3x65536x65536 bytes take more than 8589934592; give a smaller image_size"
    )


def test_both_folders_must_have_the_same_classes(root: Path, refusal: Refusal) -> None:
    (root / "test/emu").rename(root / "test/yak")
    assert "class 'emu' is in one of train and test" in refusal(read_folder, root, seed=0)


def make_text(path: Path) -> None:
    path.write_text("not an image")


def make_empty(path: Path) -> None:
    path.touch()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_ring(path: Path) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_text, "not an image; files of BMP, JPEG, PNG, PPM, WEBP are read"),
        (make_empty, "not an image; files of BMP, JPEG, PNG, PPM, WEBP are read"),
        (make_pipe, "not an image file; a class folder holds nothing else"),
        (make_loop, "not an image file; a class folder holds nothing else"),
        (make_dangling, "not an image file; a class folder holds nothing else"),
        (make_folder, "not an image file; a class folder holds nothing else"),
        (make_ring, "not an image file; a class folder holds nothing else"),
    ],
)
def test_what_is_no_image_is_named(
    root: Path, refusal: Refusal, make: Callable[[Path], None], said: str
) -> None:
    make(root / "train/cat/odd.png")
    assert refusal(read_folder, root, seed=0) == f"{root}/train/cat/odd.png: {said}"


@pytest.mark.parametrize("make", [make_text, make_pipe, make_loop, make_dangling])
def test_what_is_no_class_is_named(root: Path, refusal: Refusal, make: Callable[[Path], None]) -> None:
    make(root / "train/odd")
    assert (
        refusal(read_folder, root, seed=0)
        == f"{root}/train/odd: not a folder, where each is to hold one class"
    )


def test_a_ring_of_folders_is_refused(root: Path, refusal: Refusal) -> None:
    make_ring(root / "train/ring")
    assert refusal(read_folder, root, seed=0).endswith(
        "/train/ring/cat: not an image file; a class folder holds nothing else"
    )


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ([], "holds 0 classes"),
        (["a"], "a: holds no image"),
        (["train", "test"], "train: holds 0 classes"),
        (["train/a", "test/a"], "train/a: holds no image"),
        (["line\nbreak"], "holds 'line\\nbreak'; names must be printable"),
        (["\udcff"], "holds '\\udcff'; names must be printable"),
    ],
)
def test_empty_and_unprintable_folders_are_refused(
    tmp_path: Path, refusal: Refusal, folders: list[str], said: str
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert said in refusal(read_folder, tmp_path, seed=0)


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path, refusal: Refusal) -> None:
    save_image(tmp_path / "one/0.png")
    assert "one: holds 1 image" in refusal(read_folder, tmp_path, seed=0)


def test_what_is_no_folder_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    make_text(tmp_path / "file")
    assert refusal(read_folder, tmp_path / "absent", seed=0).endswith("absent: No such file or directory")
    assert refusal(read_folder, tmp_path / "file", seed=0).endswith("file: Not a directory")
    assert "null" in refusal(read_folder, f"{tmp_path}/a\0b", seed=0)


def make_png(width: int, height: int, *, bits: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    packed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (make_png(2**31 - 1, 2**31 - 1), "more than 16777216 pixels"),
        (make_png(2**14, 2**14), "more than 16777216 pixels"),
        (make_png(2**12, 2**12 + 1), "more than 16777216 pixels; resize the image beforehand"),
        (make_png(4, 3, bits=16, colour=0), "pixels of mode I;16; give images of 8 bits a channel"),
        (make_png(4, 3), "not a whole image"),
        (make_png(0, 3), "not an image"),
        (make_png(4, 3)[:30], "not a"),
        (b"BM" + b"\xff" * 100, "not a"),
        (b"P6 99999999 99999999 255\n", "more than 16777216 pixels"),
        (b"P6 -4 3 255\n", "not a"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n", "not an image; files of BMP"),
        (b"GIF89a\x04\x00\x03\x00\x00\x00\x00;", "not an image; files of BMP"),
        (b"II*\x00\x08\x00\x00\x00", "not an image; files of BMP"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff", "not a"),
    ],
)
def test_bombs_and_damaged_images_are_refused(
    root: Path, cheap_refusal: Refusal, data: bytes, said: str
) -> None:
    path = root / "train/cat/0.png"
    path.write_bytes(data)
    line = cheap_refusal(lambda: read_folder(root, seed=0, image_size=4))
    assert line.startswith(f"{path}: ")
    assert said in line


def test_a_chunk_that_lies_about_its_length_takes_no_memory(root: Path) -> None:
    """Its pixels are all there: what Pillow asks for is the rest."""
    data = bytearray(make_png(4, 3, data=bytes(3 * 13)))
    data[33:37] = b"\x7f\xff\xff\xff"
    (root / "train/cat/0.png").write_bytes(data)
    tracemalloc.start()
    try:
        assert len(read_folder(root, seed=0)[0]) == 15
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def save_frames(path: Path, kind: str, **options: object) -> None:
    frames = [Image.new("RGB", (4, 3), (value, 0, 0)) for value in (0, 200)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(root: Path, refusal: Refusal, kind: str) -> None:
    save_frames(root / "train/cat/0.png", kind)
    line = refusal(read_folder, root, seed=0)
    assert line == f"{root}/train/cat/0.png: an animation; give a single image"


def test_the_previews_of_a_camera_are_no_animation(root: Path) -> None:
    save_frames(root / "train/cat/0.png", "MPO")
    assert len(read_folder(root, seed=0)[0]) == 15


def test_a_large_image_of_one_colour_is_read(root: Path) -> None:
    save_image(root / "train/cat/0.png", 7, size=(2000, 1500))
    assert (root / "train/cat/0.png").stat().st_size * 400 > 2000 * 1500
    train, _, _ = read_folder(root, seed=0, image_size=4)
    assert 7 in read_values(train)


def test_more_pixels_than_a_file_can_have_are_refused(root: Path, cheap_refusal: Refusal) -> None:
    """Lossless WebP says in a few bytes that all pixels are alike."""
    path = root / "train/cat/0.png"
    Image.new("RGB", (4000, 4000), (9, 8, 7)).save(path, "WEBP", lossless=True)
    size = path.stat().st_size
    line = cheap_refusal(lambda: read_folder(root, seed=0, image_size=4))
    assert line == f"{path}: 4000x4000 pixels in {size} bytes; no image packs so well"


def test_a_jpeg_of_many_scans_is_refused(root: Path, refusal: Refusal) -> None:
    path = root / "train/cat/0.png"
    Image.new("RGB", (64, 64), (9, 8, 7)).save(path, "JPEG", progressive=True)
    assert len(read_folder(root, seed=0, image_size=4)[0]) == 15
    data = path.read_bytes()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:last] + data[last:-2] * 64 + data[-2:])
    assert refusal(read_folder, root, seed=0, image_size=4).endswith(
        "a JPEG of more than 64 scans; save it anew"
    )


def test_a_huge_file_is_not_read(root: Path, cheap_refusal: Refusal) -> None:
    path = root / "train/cat/0.png"
    path.write_bytes(b"RIFF\xff\xff\xff\x7fWEBPVP8L")
    os.truncate(path, 2**40)
    assert "larger than 134217728 bytes" in cheap_refusal(lambda: read_folder(root, seed=0, image_size=4))


def test_no_damage_to_an_image_causes_anything_but_a_refusal(
    tmp_path: Path, rng: np.random.Generator, mutate: Callable[[bytes, int], Iterator[bytes]]
) -> None:
    Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(tmp_path / "good.png")
    refusals = []
    for suffix in ("png", "jpg", "bmp", "ppm", "webp"):
        Image.open(tmp_path / "good.png").save(tmp_path / f"good.{suffix}")
        for data in mutate((tmp_path / f"good.{suffix}").read_bytes(), 60):
            (tmp_path / "image").write_bytes(data)
            try:
                folder_module._decode_images([(tmp_path / "image", 0)], (3, 8, 8))
            except DataError as error:
                refusals.append(str(error))
    assert 100 < len(refusals) < 300
    assert "\n" not in "".join(refusals)


def test_a_single_image_is_read_as_those_of_a_folder(flat: Path) -> None:
    train, _, _ = read_folder(flat, seed=0, image_size=(5, 7), channels=1)
    path = flat / "many" / "07.png"
    image = read_image(path, (1, 5, 7))
    assert (image.shape, image.dtype) == ((1, 5, 7), np.uint8)
    assert any(np.array_equal(image, other) for other in train.images)
    assert read_image(path, (3, 3, 4)).tolist() == np.full((3, 3, 4), 7).tolist()


@pytest.mark.parametrize(
    ("name", "line"),
    [("none.png", "no such file"), ("many", "not a regular file"), ("pipe", "not a regular")],
)
def test_what_is_no_file_is_not_opened(flat: Path, name: str, line: str) -> None:
    os.mkfifo(flat / "pipe")
    with pytest.raises(DataError, match=line):
        read_image(flat / name, (1, 2, 2))


def test_a_single_image_has_the_same_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "large.png", size=(40, 30))
    monkeypatch.setattr(folder_module, "MAX_PIXELS", 1199)
    with pytest.raises(DataError, match="more than 1199 pixels"):
        read_image(tmp_path / "large.png", (1, 2, 2))


def test_files_are_listed_to_any_depth_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", "a/d/e.txt", ".hidden/f.png", "a/.g.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path)]
    assert names == ["a/c.png", "a/d/e.txt", "b.png"]


def test_a_folder_without_files_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        list_files(tmp_path)
