"""IDX files: what MNIST's folder gives, and every lie a header can tell."""

import errno
import gzip
import hashlib
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from cnnctl.data import files
from cnnctl.data.idx import read_idx_images, read_idx_labels, read_mnist_folder
from cnnctl.errors import DataError

Refusal = Callable[..., str]
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def make_idx(*shape: int, data: bytes | None = None, magic: int | None = None) -> bytes:
    """A file with the header for that shape, and the bytes 0, 1, 2, ... mod 10 unless others are given."""
    if data is None:
        data = bytes(i % 10 for i in range(math.prod(shape)))
    return struct.pack(f">{1 + len(shape)}I", magic or 0x0800 + len(shape), *shape) + data


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training and two test images of 2x4 pixels."""
    for name, shape in zip(NAMES, [(3, 2, 4), (3,), (2, 2, 4), (2,)], strict=True):
        (tmp_path / name).write_bytes(make_idx(*shape))
    return tmp_path


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_images_are_read_plain_or_gzipped_whatever_the_name(
    file: Callable[[bytes], Path], pack: Callable[[bytes], bytes]
) -> None:
    images = read_idx_images(file(pack(make_idx(3, 2, 4))))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, (np.arange(24) % 10).reshape(3, 1, 2, 4))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_labels_are_read(file: Callable[[bytes], Path], pack: Callable[[bytes], bytes]) -> None:
    labels = read_idx_labels(file(pack(make_idx(12))), classes=10)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends 16 bytes before"),
        (make_idx(3, 2, 4)[:15], "ends 1 bytes before"),
        (make_idx(3, 2, 4)[:-1], "ends 1 bytes before"),
        (make_idx(3, 2, 4) + b"\0", "goes on after the 24 bytes"),
        (
            make_idx(3, 2, 4, magic=0x0D03),
            "begins with 0x00000d03 where this kind of IDX file has 0x00000803",
        ),
        (make_idx(3, 2, 4, magic=0x03080000), "begins with 0x03080000"),
        (make_idx(24, data=bytes(24)), "begins with 0x00000801"),
        (b"<!DOCTYPE html><title>404</title>", "begins with 0x3c21444f"),
        (make_idx(0, 28, 28), "promises extents (0, 28, 28)"),
        (make_idx(3, 0, 28), "promises extents (3, 0, 28)"),
        (make_idx(2**32 - 1, 2**32 - 1, 2**32 - 1, data=b""), "more than 8589934592"),
        (make_idx(2**31, 2, 2, data=b""), "ends 8589934592 bytes before"),
        (make_idx(3, 2, 4, data=bytes(2**26)), "goes on after the 24 bytes"),
    ],
)
def test_images_that_lie_are_refused(
    file: Callable[[bytes], Path],
    cheap_refusal: Refusal,
    pack: Callable[[bytes], bytes],
    data: bytes,
    said: str,
) -> None:
    path = file(pack(data))
    line = cheap_refusal(read_idx_images, path)
    assert line.startswith(f"{path}: ")
    assert said in line


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (make_idx(4, data=bytes([0, 9, 10, 3])), "label 10 of image 2 is not in 0..9"),
        (make_idx(4, data=b"\0\0\0"), "ends 1 bytes before"),
        (make_idx(4, 1, 1), "begins with 0x00000803 where this kind of IDX file has 0x00000801"),
    ],
)
def test_labels_that_lie_are_refused(
    file: Callable[[bytes], Path], refusal: Refusal, data: bytes, said: str
) -> None:
    assert said in refusal(read_idx_labels, file(data), 10)


PACKED = gzip.compress(make_idx(3, 2, 4))


@pytest.mark.parametrize(
    "data",
    [
        PACKED[:5],
        PACKED[:20],
        PACKED[:-1],
        PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
        PACKED[:2] + b"\x07" + PACKED[3:],
        PACKED[:12] + b"\xff\xff\xff" + PACKED[15:],
        PACKED + b"more",
    ],
    ids=["header cut", "body cut", "end cut", "checksum", "method", "deflate", "more behind"],
)
def test_damaged_gzip_is_refused(file: Callable[[bytes], Path], refusal: Refusal, data: bytes) -> None:
    assert "damaged gzip data" in refusal(read_idx_images, file(data))


def test_what_is_no_file_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(read_idx_images, tmp_path / "pipe").endswith("pipe: not a regular file")
    assert refusal(read_idx_images, tmp_path).endswith("not a regular file")
    assert refusal(read_idx_images, tmp_path / "absent").endswith("absent: no such file")
    assert refusal(read_idx_images, tmp_path / "loop").endswith("loop: no such file")
    assert refusal(read_idx_images, f"{tmp_path}/a\0b").endswith("no such file")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "takes more memory than there is"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_trouble_on_the_way_is_told_in_one_line(
    file: Callable[[bytes], Path],
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
) -> None:
    monkeypatch.setattr(files, "read_at_most", Mock(side_effect=error))
    path = file(make_idx(3))
    assert refusal(read_idx_labels, path, 10) == f"{path}: {said}"


def test_a_folder_gives_both_splits(folder: Path) -> None:
    train, test = read_mnist_folder(folder)
    assert (train.images.shape, test.images.shape) == ((3, 1, 2, 4), (2, 1, 2, 4))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [0, 1])


def test_an_unpacked_file_is_preferred_to_a_gzipped_one(folder: Path) -> None:
    (folder / f"{NAMES[1]}.gz").write_bytes(gzip.compress(make_idx(3, data=b"\7\7\7")))
    assert read_mnist_folder(folder)[0].labels.tolist() == [0, 1, 2]
    (folder / NAMES[1]).unlink()
    assert read_mnist_folder(folder)[0].labels.tolist() == [7, 7, 7]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(folder: Path, refusal: Refusal, name: str) -> None:
    (folder / name).unlink()
    assert refusal(read_mnist_folder, folder) == f"{folder}: holds neither {name} nor {name}.gz"


def test_counts_must_agree(folder: Path, refusal: Refusal) -> None:
    (folder / NAMES[3]).write_bytes(make_idx(3))
    assert f"{NAMES[3]}: 3 labels for the 2 images of {NAMES[2]}" in refusal(read_mnist_folder, folder)


def test_both_splits_must_have_one_image_size(folder: Path, refusal: Refusal) -> None:
    (folder / NAMES[2]).write_bytes(make_idx(2, 4, 2))
    assert "(height, width) is (2, 4) for training and (4, 2) for testing" in refusal(
        read_mnist_folder, folder
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_no_damage_causes_anything_but_a_refusal(
    file: Callable[[bytes], Path],
    mutate: Callable[[bytes, int], Iterator[bytes]],
    pack: Callable[[bytes], bytes],
) -> None:
    refused = 0
    for data in mutate(pack(make_idx(3, 2, 4)), 300):
        try:
            assert read_idx_images(file(data)).ndim == 4
        except DataError:
            refused += 1
    assert 50 < refused < 300


@pytest.mark.data
@pytest.mark.parametrize(
    ("split", "count", "mean", "images_sum", "labels_sum"),
    [
        (
            0,
            60_000,
            0.1307,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        (
            1,
            10_000,
            0.1325,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ],
)
def test_the_real_mnist_is_read_to_the_byte(
    data_dir: Path, split: int, count: int, mean: float, images_sum: str, labels_sum: str
) -> None:
    """The sums are those of the original files, unpacked."""
    read = read_mnist_folder(data_dir / "mnist")[split]
    images = make_idx(count, 28, 28, data=read.images.tobytes())
    labels = make_idx(count, data=read.labels.astype(np.uint8).tobytes())
    assert read.images.mean() / 255 == pytest.approx(mean, abs=5e-5)
    assert hashlib.sha256(images).hexdigest() == images_sum
    assert hashlib.sha256(labels).hexdigest() == labels_sum
