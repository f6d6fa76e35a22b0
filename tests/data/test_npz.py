"""Arrays in .npz files: which shapes and types are understood, and which files lie."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnctl.data.npz import read_npz
from cnnctl.errors import DataError

Refusal = Callable[..., str]
Write = Callable[..., Path]
HEADER = "x_train: its header is none that numpy.save writes for an array of numbers"
NAMES = ("x_train", "y_train", "x_test", "y_test")


def make_arrays(*shape: int, dtype: Any = np.uint8) -> dict[str, Any]:
    """Three training and two test images of that shape, the bytes 0, 1, 2, ... in them."""
    train = np.arange(3 * np.prod(shape)).astype(dtype).reshape(3, *shape)
    return {"x_train": train, "y_train": np.arange(3), "x_test": train[1:], "y_test": np.array([0, 2])}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Save good arrays, but those that are given."""

    def save(**arrays: Any) -> Path:
        np.savez(tmp_path / "data.npz", **make_arrays(4, 5) | arrays)
        return tmp_path / "data.npz"

    return save


@pytest.fixture
def write_members(tmp_path: Path) -> Write:
    """Zip bytes under the names of arrays; good arrays otherwise."""

    def save(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "data.npz", "w", compression) as archive:
            for name, array in make_arrays(4, 5).items():
                archive.writestr(f"{name}.npy", members.get(name) or make_npy(array))
        return tmp_path / "data.npz"

    return save


def make_npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def make_header(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode("latin-1") + data


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_both_splits_are_read(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "data.npz", **make_arrays(4, 5))
    train, test, classes = read_npz(tmp_path / "data.npz")
    np.testing.assert_array_equal(train.images, np.arange(60, dtype=np.uint8).reshape(3, 1, 4, 5))
    np.testing.assert_array_equal(test.images, train.images[1:])
    assert (train.labels.tolist(), test.labels.tolist(), classes) == ([0, 1, 2], [0, 2], ("0", "1", "2"))


@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [((1, 4, 5), False), ((3, 4, 5), False), ((4, 5, 1), True), ((4, 5, 3), True), ((4, 3, 3), True)],
)
def test_channels_are_found(write: Write, shape: tuple[int, ...], channels_last: bool) -> None:
    arrays = make_arrays(*shape)
    train, _, _ = read_npz(write(**arrays))
    expected = np.moveaxis(arrays["x_train"], -1, 1) if channels_last else arrays["x_train"]
    np.testing.assert_array_equal(train.images, expected)
    assert train.images.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_floats_become_float32(write: Write, dtype: str) -> None:
    train, _, _ = read_npz(write(**make_arrays(4, 5, dtype=dtype)))
    assert train.images.dtype == np.float32
    assert train.images.ravel().tolist() == list(range(60))


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "<u8", "<i8"])
def test_labels_may_be_any_integers(write: Write, dtype: str) -> None:
    train, _, _ = read_npz(write(y_train=np.array([2, 0, 1], dtype)))
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [2, 0, 1]


def test_column_major_arrays_and_others_beside_are_read(write: Write) -> None:
    images = make_arrays(4, 5)["x_train"]
    path = write(x_train=np.asfortranarray(images), comment=np.array("hello"), objects=np.array([None]))
    np.testing.assert_array_equal(read_npz(path)[0].images[:, 0], images)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": np.zeros((3, 20), np.uint8)}, "x_train: shape (3, 20) is neither (N, H, W), nor"),
        (make_arrays(2, 4, 5), "x_train: shape (3, 2, 4, 5) is neither"),
        (make_arrays(32, 32, 4), "x_train: shape (3, 32, 32, 4) is neither"),
        (make_arrays(3, 8, 3), "can mean (N, C, H, W) and (N, H, W, C)"),
        (make_arrays(1, 8, 1), "give wider images, or grey ones as (N, H, W)"),
        (
            {"x_train": np.zeros((0, 4, 5), np.uint8), "y_train": np.zeros(0, int)},
            "shape (0, 4, 5) has no elements",
        ),
        ({"x_train": np.uint8(1)}, "shape () has no elements"),
        ({"x_test": np.zeros((2, 5, 4), np.uint8)}, "they must be alike"),
        ({"x_test": np.zeros((2, 4, 5), np.float32)}, "they must be alike"),
        (
            {"x_train": np.zeros((3, 4, 5), np.int64)},
            "x_train: type '<i8' is not known; accepted: f2, f4, f8, u1",
        ),
        ({"x_train": np.zeros((3, 4, 5), bool)}, "type '|b1' is not known"),
        ({"x_train": np.zeros((3, 4, 5), np.longdouble)}, "is not known"),
        ({"x_train": np.zeros((3, 4, 5), complex)}, "type '<c16' is not known"),
        ({"x_train": np.zeros((3, 4, 5), "f4,f4")}, HEADER),
        ({"x_train": np.full((3, 4, 5), np.nan)}, "x_train: holds NaN"),
        ({"x_test": np.full((2, 4, 5), -np.inf)}, "x_test: holds NaN"),
        ({"x_train": np.full((3, 4, 5), 1e300)}, "beyond float32"),
        ({"y_train": np.arange(2)}, "y_train: shape (2,) where x_train asks for (3,)"),
        ({"y_train": np.arange(3)[:, None]}, "y_train: shape (3, 1) where x_train asks for (3,)"),
        ({"y_train": np.arange(3.0)}, "y_train: type '<f8' is not known; accepted: i1"),
        ({"y_train": np.array([0, 1, -1])}, "labels -1..1 are not in 0..65535"),
        ({"y_train": np.array([0, 1, 2**64 - 1], np.uint64)}, "labels 0..18446744073709551615 are not"),
        ({"y_train": np.array([0, 1, 3])}, "y_train: no label 2 below the greatest, 3"),
        ({"y_test": np.array([0, 3])}, "y_test: label 3 is not in 0..2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    write: Write, refusal: Refusal, arrays: dict[str, Any], said: str
) -> None:
    path = write(**arrays)
    line = refusal(read_npz, path)
    assert line.startswith(f"{path}: ")
    assert said in line


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_named(tmp_path: Path, refusal: Refusal, name: str) -> None:
    arrays = make_arrays(4, 5)
    del arrays[name]
    np.savez(tmp_path / "data.npz", **arrays)
    assert f"holds 0 arrays {name}; it takes one each" in refusal(read_npz, tmp_path / "data.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_twice_is_refused(write: Write, refusal: Refusal) -> None:
    path = write()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", b"")
    assert "holds 2 arrays x_train" in refusal(read_npz, path)


class Gadget:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('executed')",)


def test_nothing_is_unpickled(write: Write, write_members: Write, refusal: Refusal) -> None:
    objects = np.full((3, 4, 5), None)
    objects[0, 0, 0] = Gadget()
    assert "type '|O' is not known" in refusal(read_npz, write(x_train=objects))
    with pytest.raises(SystemExit):
        np.load(write(x_train=objects), allow_pickle=True)["x_train"]
    assert "not in version 1.0" in refusal(read_npz, write_members(x_train=pickle.dumps(Gadget())))


DESCRIPTION = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (b"", "x_train: ends 7 bytes before"),
        (b"\x93NUMPY", "x_train: ends 2 bytes before"),
        (make_header(DESCRIPTION % "(3, 4, 5)", bytes(59)), "x_train: ends 1 bytes before"),
        (make_header(DESCRIPTION % "(3, 4, 5)", bytes(61)), "x_train: goes on after the 60 bytes"),
        (make_header(DESCRIPTION % "(3, 4, 5)", bytes(2**26)), "x_train: goes on after the 60 bytes"),
        (make_header(DESCRIPTION % "(8589934592, 1, 1)"), "ends 8589934592 bytes before"),
        (make_header(DESCRIPTION % "(8589934593, 1, 1)"), "takes more than 8589934592 bytes"),
        (make_header(DESCRIPTION % "(9999999999999, 9999999999999, 9)"), "takes more than 8589934592 bytes"),
        (make_header(DESCRIPTION % "(-3, -4, 5)", bytes(60)), HEADER),
        (make_header(DESCRIPTION % "(3, 4, 5.0)", bytes(60)), HEADER),
        (make_header(DESCRIPTION % "__import__('os').getpid()"), HEADER),
        (make_header(DESCRIPTION % ("(" * 300 + ")" * 300)), HEADER),
        (make_header("(" * 60_000), "its header takes 60000 bytes, more than 1024"),
        (make_header("{}"), HEADER),
        (make_header("\n"), HEADER),
        (make_header(DESCRIPTION % "(03, 4, 5)", bytes(60)), HEADER),
        (make_header(DESCRIPTION % "(60)", bytes(60)), HEADER),
        (make_header(DESCRIPTION % "(3, 4, 5)" + "x", bytes(60)), HEADER),
        (make_header(DESCRIPTION % ("(3" + " " * 900)), HEADER),
        (make_header(DESCRIPTION % "'(3, 4, 5)'", bytes(60)), HEADER),
        (make_header((DESCRIPTION % "(3, 4, 5)").replace("'|u1'", "True"), bytes(60)), HEADER),
        (make_header((DESCRIPTION % "(3, 4, 5)").replace("False", "()"), bytes(60)), HEADER),
        (make_header((DESCRIPTION % "(3, 4, 5)").replace("shape", "descr"), bytes(60)), HEADER),
        (make_header((DESCRIPTION % "(3, 4, 5)").replace("|u1", "u1"), bytes(60)), "type 'u1' is not known"),
        (make_header((DESCRIPTION % "(3, 4, 5)").replace("|u1", "|u1\x1b"), bytes(60)), "type '|u1\\x1b' is"),
        (make_header(DESCRIPTION % "(3, 4, 5)", bytes(60), b"\2\0"), "not in version 1.0 of the .npy format"),
        (
            make_header(DESCRIPTION % "(3, 4, 5)", bytes(60), b"\x09\0"),
            "not in version 1.0 of the .npy format",
        ),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(2**26), "not in version 1.0 of the .npy format"),
        (
            make_header((DESCRIPTION % "(3, 4, 5)").replace("|u1", "|O"), bytes(480)),
            "type '|O' is not known",
        ),
        (
            make_header((DESCRIPTION % "(3, 4, 5)").replace("'|u1'", "[('a', 'u1')]"), bytes(60)),
            HEADER,
        ),
    ],
)
def test_headers_that_lie_are_refused(
    write_members: Write, cheap_refusal: Refusal, member: bytes, said: str
) -> None:
    assert said in cheap_refusal(read_npz, write_members(x_train=member or b" "))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 4, 5), }" + " " * 50 + "\n",
        "{'shape':(3,4,5),'descr':'<u1','fortran_order':False}",
        "{ 'fortran_order' : False ,\n'shape' : ( 3L , 4L , 5L , ) , 'descr' : '=u1' , }",
    ],
)
def test_headers_as_others_write_them_are_read(write_members: Write, header: str) -> None:
    train, _, _ = read_npz(write_members(x_train=make_header(header, bytes(range(60)))))
    assert train.images.ravel().tolist() == list(range(60))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(write_members: Write, refusal: Refusal, compression: int) -> None:
    assert "packed otherwise than numpy.savez_compressed does" in refusal(
        read_npz, write_members(compression)
    )


def patch_directory(path: Path, offset: int, value: bytes) -> None:
    """Overwrite a field of the first entry of the zip's central directory."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\1\2") + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (8, b"\1\0", "x_train: encrypted"),
        (10, b"\x63\0", "x_train: encrypted, or packed otherwise"),
        (16, b"\0\0\0\0", "Bad CRC-32"),
        (24, b"\x20\0\0\0", "not a .npz file, or a damaged one"),
        (42, b"\xff\xff\xff\x7f", "not a .npz file, or a damaged one"),
    ],
    ids=["encrypted", "method", "checksum", "size", "offset"],
)
def test_a_zip_directory_that_lies_is_refused(
    write: Write, cheap_refusal: Refusal, offset: int, value: bytes, said: str
) -> None:
    path = write()
    patch_directory(path, offset, value)
    assert said in cheap_refusal(read_npz, path)


def test_what_is_no_npz_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "text").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert "text: not a .npz file, or a damaged one (File is not a zip file)" in refusal(
        read_npz, tmp_path / "text"
    )
    assert "one.npy: not a .npz file" in refusal(read_npz, tmp_path / "one.npy")
    assert refusal(read_npz, tmp_path).endswith("not a regular file")
    assert refusal(read_npz, tmp_path / "absent").endswith("absent: no such file")


def test_no_damage_causes_anything_but_a_refusal(
    write: Write, mutate: Callable[[bytes, int], Iterator[bytes]]
) -> None:
    refusals = []
    path = write()
    for data in mutate(path.read_bytes(), 300):
        path.write_bytes(data)
        try:
            read_npz(path)
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) > 200
    assert "\n" not in "".join(refusals)
