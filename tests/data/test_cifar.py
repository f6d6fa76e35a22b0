"""CIFAR-10: the official layouts are read, and neither a pickle nor an archive gets its way.

Batches have three images here in place of 10,000.
"""

import gzip
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnctl.data import cifar
from cnnctl.data.cifar import BATCHES, CLASSES, read_cifar10
from cnnctl.errors import DataError

Refusal = Callable[..., str]
N, SIZE = 3, 3072

RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01b\x87Rq\n"
DTYPE = (
    b"cnumpy\ndtype\nq\x0bU\x02u1K\x00K\x01\x87Rq\x0c(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
SHAPE = b"K\x03M\x00\x0c\x86"


def pack_text(text: bytes) -> bytes:
    return b"T" + struct.pack("<I", len(text)) + text


def pack_array(
    pixels: bytes, reconstruct: bytes = RECONSTRUCT, dtype: bytes = DTYPE, shape: bytes = SHAPE
) -> bytes:
    return reconstruct + b"(K\x01" + shape + dtype + b"\x89" + pack_text(pixels) + b"tb"


def pack_labels(labels: bytes) -> bytes:
    return b"]q\x05(" + b"".join(b"K%c" % label for label in labels) + b"e"


def pack_batch(labels: bytes, data: bytes) -> bytes:
    """Opcode for opcode as Python 2 wrote the official batches; `labels` and `data` are pickled already."""
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03"
        + (b"U\x06labelsq\x04" + labels)
        + (b"U\x04dataq\x06" + data)
        + b"U\tfilenamesq\x0d]q\x0e(U\x05a.pngq\x0fU\x05b.pngq\x10U\x05c.pngr\x11\x00\x00\x00eu."
    )


LABELS = bytes([6, 9, 0])
PIXELS = bytes(range(256)) * (N * SIZE // 256)
GOOD = pack_batch(pack_labels(LABELS), pack_array(PIXELS))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "BATCH_IMAGES", N)


@pytest.fixture
def batches(rng: np.random.Generator) -> dict[str, tuple[bytes, bytes]]:
    """Labels and pixels of each batch."""
    return {
        name: (rng.integers(10, size=N, dtype=np.uint8).tobytes(), rng.bytes(N * SIZE)) for name in BATCHES
    }


@pytest.fixture(params=["cifar-10-batches-bin", "cifar-10-batches-py"])
def files(request: pytest.FixtureRequest, batches: dict[str, tuple[bytes, bytes]]) -> dict[str, bytes]:
    """The files of either layout, by their names with the folder."""
    if request.param == "cifar-10-batches-py":
        contents = {
            name: pack_batch(pack_labels(labels), pack_array(pixels))
            for name, (labels, pixels) in batches.items()
        }
        contents |= {"batches.meta": b"cos\nsystem\n(S'false'\ntR.", "readme.html": b"<html>"}
    else:
        contents = {
            f"{name}.bin": b"".join(labels[i : i + 1] + pixels[i * SIZE : (i + 1) * SIZE] for i in range(N))
            for name, (labels, pixels) in batches.items()
        }
        contents |= {"batches.meta.txt": b"airplane\n", "readme.html": b"<html>"}
    return {f"{request.param}/{name}": content for name, content in contents.items()}


@pytest.fixture
def folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return (tmp_path / name).parent


@pytest.fixture
def archive(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return write_archive(tmp_path, *make_members(files))


def make_members(files: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The folder and its files in an order that is not theirs, as the official archives have it."""
    folder = tarfile.TarInfo(next(iter(files)).partition("/")[0])
    folder.type = tarfile.DIRTYPE
    return [(folder, b""), *(make_member(name, files[name]) for name in sorted(files, reverse=True))]


def make_member(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member, content


def write_archive(
    folder: Path,
    *members: tuple[tarfile.TarInfo, bytes],
    end: bytes = bytes(10_240),
) -> Path:
    """A .tar.gz made block by block, so that it can lie about its members' sizes."""
    with gzip.open(folder / "archive.tar.gz", "wb", compresslevel=1) as file:
        for member, content in members:
            file.write(member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
        file.write(end)
    return folder / "archive.tar.gz"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("place", ["folder", "archive"])
def test_either_layout_is_read_from_folder_and_archive(
    request: pytest.FixtureRequest, batches: dict[str, tuple[bytes, bytes]], place: str
) -> None:
    train, test, classes = read_cifar10(request.getfixturevalue(place))
    *train_batches, test_batch = (batches[name] for name in BATCHES)
    assert train.images.shape == (5 * N, 3, 32, 32)
    assert train.images.tobytes() == b"".join(pixels for _, pixels in train_batches)
    assert bytes(train.labels.tolist()) == b"".join(labels for labels, _ in train_batches)
    assert (test.images.tobytes(), bytes(test.labels.tolist())) == test_batch[::-1]
    assert classes == CLASSES


def test_a_plain_tar_is_read_too(archive: Path) -> None:
    archive.write_bytes(gzip.decompress(archive.read_bytes()))
    assert len(read_cifar10(archive)[0]) == 5 * N


def test_the_machine_agrees_with_pickle() -> None:
    expected = pickle.loads(GOOD, encoding="bytes")
    found = cifar._run_pickle(GOOD)
    np.testing.assert_array_equal(found.pop(b"data"), expected.pop(b"data"))
    assert found == expected


def test_what_newer_python_and_numpy_write_in_protocol_2_is_read() -> None:
    array = RECONSTRUCT.replace(b"core", b"_core") + b"(K\x01K\x03J\x00\x0c\x00\x00\x86"
    dtype = DTYPE.replace(b"K\x00K\x01\x87", b"\x89\x88\x87")
    data = array + dtype + b"\x89" + pack_text(PIXELS) + b"tb"
    labels, pixels = cifar._parse_pickle(pack_batch(pack_labels(LABELS), data), "batch")
    assert (bytes(labels.tolist()), pixels.tobytes()) == (LABELS, PIXELS)


@pytest.fixture
def refuse_pickle(tmp_path: Path, cheap_refusal: Refusal) -> Callable[[bytes], str]:
    """Put a pickle in the place of the first batch; the refusal, without the path before it."""

    def call(data: bytes) -> str:
        path = tmp_path / "data_batch_1"
        path.write_bytes(data)
        line = cheap_refusal(read_cifar10, tmp_path)
        assert line.startswith(f"{path}: ")
        return line.removeprefix(f"{path}: ")

    return call


def call_gadget(name: bytes, *arguments: bytes) -> bytes:
    """A pickle that calls a function of that module and name with text arguments."""
    return b"c" + name + b"\n(" + b"".join(map(pack_text, arguments)) + b"tR."


def test_a_gadget_that_pickle_would_run_is_not_run(
    tmp_path: Path, refuse_pickle: Callable[[bytes], str]
) -> None:
    gadget = call_gadget(b"os\nmkdir", bytes(tmp_path / "made"))
    assert "asks for 'os.mkdir'" in refuse_pickle(gadget)
    assert not (tmp_path / "made").exists()
    pickle.loads(gadget)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"os\nsystem",
        b"posix\nsystem",
        b"nt\nsystem",
        b"subprocess\nPopen",
        b"builtins\neval",
        b"__builtin__\neval",
        b"builtins\nexec",
        b"builtins\ngetattr",
        b"builtins\n__import__",
        b"_codecs\nencode",
        b"copyreg\n_reconstructor",
        b"functools\npartial",
        b"operator\nattrgetter",
        b"importlib\nimport_module",
        b"webbrowser\nopen",
        b"socket\nsocket",
        b"shutil\nrmtree",
        b"pickle\nloads",
        b"numpy\nfromfile",
        b"numpy\nload",
        b"numpy\nmemmap",
        b"numpy\nsave",
        b"numpy\nndarray.tofile",
        b"numpy\nndarray.__class__",
        b"numpy\ndtype.__init__.__globals__",
        b"numpy.core.multiarray\nscalar",
        b"numpy.core.multiarray\nfromfile",
        b"numpy.core.multiarray\n_reconstruct.__class__",
        b"numpy.f2py.crackfortran\nmyeval",
        b"numpy.testing._private.utils\nrunstring",
        b"numpy.distutils.exec_command\nexec_command",
        b"numpy.lib\nformat",
        b"numpy \nndarray",
        b"numpy\n ndarray",
        b"Numpy\nndarray",
        b"cnnctl.data.cifar\n_parse_pickle",
    ],
)
def test_no_other_function_can_be_named(refuse_pickle: Callable[[bytes], str], name: bytes) -> None:
    asked = name.replace(b"\n", b".").decode()
    assert refuse_pickle(call_gadget(name, b"x")) == f"not a Python batch of CIFAR-10: asks for {asked!r}"


@pytest.mark.parametrize(
    ("opcode", "data"),
    [
        ("EXT1", b"\x82\x01."),
        ("EXT2", b"\x83\x01\x00."),
        ("EXT4", b"\x84\x01\x00\x00\x00."),
        ("PERSID", b"P1\n."),
        ("BINPERSID", b"K\x01Q."),
        ("STRING", b"(S'true'\nios\nsystem\n."),
        ("INST", b"(ios\nsystem\n."),
        ("OBJ", b"(cnumpy\ndtype\nU\x02u1o."),
        ("EMPTY_TUPLE", b"cnumpy\ndtype\n)\x81."),
        ("NEWOBJ", b"cnumpy\ndtype\nK\x01\x85\x81."),
        ("SHORT_BINUNICODE", b"\x8c\x02os\x8c\x06system\x93."),
        ("STACK_GLOBAL", b"U\x02osU\x06system\x93."),
        ("NEWOBJ_EX", b"cnumpy\ndtype\nK\x01\x85}\x92."),
        ("DUP", b"K\x012."),
        ("POP", b"K\x010."),
        ("INT", b"I1\n."),
        ("LONG", b"L" + b"9" * 5000 + b"L\n."),
        ("LONG4", b"\x8b\xff\xff\xff\x7f\xff."),
        ("BINBYTES8", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("NEXT_BUFFER", b"\x97."),
        ("FRAME", b"\x95\x01\x00\x00\x00\x00\x00\x00\x00."),
    ],
)
def test_opcodes_that_batches_do_not_consist_of_are_refused(
    refuse_pickle: Callable[[bytes], str], opcode: str, data: bytes
) -> None:
    code = getattr(pickle, opcode)
    assert code in data
    assert f"opcode {code!r} is none of CIFAR-10's" in refuse_pickle(data)


OTHER_ARRAY = "asks for something else than an array of bytes"
OTHER_BUILD = "its array is not one of 3x3072 bytes"


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (pack_array(PIXELS, RECONSTRUCT.replace(b"K\x00\x85", b"J\xff\xff\xff\x7f\x85")), OTHER_ARRAY),
        (pack_array(PIXELS, RECONSTRUCT.replace(b"U\x01b", b"U\x01O")), OTHER_ARRAY),
        (pack_array(PIXELS, RECONSTRUCT.replace(b"ndarray", b"dtype")), OTHER_ARRAY),
        (pack_array(PIXELS, dtype=DTYPE.replace(b"u1", b"O8")), OTHER_ARRAY),
        (pack_array(PIXELS, dtype=DTYPE.replace(b"u1", b"V8")), OTHER_ARRAY),
        (pack_array(PIXELS, dtype=DTYPE.replace(b"|NNN", b"|N}N")), OTHER_BUILD),
        (pack_array(PIXELS, dtype=DTYPE.replace(b"K\x03U", b"K\x04U")), OTHER_BUILD),
        (pack_array(PIXELS, dtype=b"cnumpy\ndtype\n"), OTHER_BUILD),
        (pack_array(PIXELS, shape=b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"), OTHER_BUILD),
        (pack_array(PIXELS, shape=b"J\xff\xff\xff\xffM\x00\x0c\x86"), OTHER_BUILD),
        (pack_array(PIXELS, shape=b"M\x00\x0cK\x03\x86"), OTHER_BUILD),
        (pack_array(PIXELS, shape=b"M\x00$\x85"), OTHER_BUILD),
        (pack_array(PIXELS[:-1]), OTHER_BUILD),
        (pack_array(PIXELS + b"\0"), OTHER_BUILD),
        (pack_array(PIXELS).replace(b"\x89T", b"\x88T"), OTHER_BUILD),
        (pack_array(PIXELS)[:-1] + b"K\x01b", OTHER_BUILD),
        (RECONSTRUCT, "not a dict with an array 'data'"),
        (b"cnumpy\nndarray\n}U\x01xK\x01sb", OTHER_BUILD),
        (b"cnumpy\nndarray\n(tR", OTHER_ARRAY),
        (pack_text(PIXELS), "not a dict with an array 'data'"),
        (b"]", "not a dict with an array 'data'"),
    ],
)
def test_only_the_array_of_a_batch_can_be_built(
    refuse_pickle: Callable[[bytes], str], array: bytes, said: str
) -> None:
    assert said in refuse_pickle(pack_batch(pack_labels(LABELS), array))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pack_labels(b"\1\2"), "and 3 integers as 'labels'"),
        (pack_labels(b"\1\2\3\4"), "and 3 integers as 'labels'"),
        (b"](K\x01K\x02\x88e", "and 3 integers as 'labels'"),
        (b"](K\x01K\x02U\x013e", "and 3 integers as 'labels'"),
        (b"(K\x01K\x02K\x03t", "and 3 integers as 'labels'"),
        (b"N", "and 3 integers as 'labels'"),
        (pack_labels(b"\1\2\x0a"), "labels 1..10 are not in 0..9"),
        (b"](K\x01K\x02J\xff\xff\xff\xffe", "labels -1..2 are not in 0..9"),
    ],
)
def test_only_labels_of_the_ten_classes_are_accepted(
    refuse_pickle: Callable[[bytes], str], labels: bytes, said: str
) -> None:
    assert said in refuse_pickle(pack_batch(labels, pack_array(PIXELS)))


TWICE = b"q\x01h\x01\x86"
"""(value, value): sixty in a row are a tuple of 2^60 leaves."""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends too early"),
        (GOOD[:-1], "ends too early"),
        (GOOD[:5000], "ends too early"),
        (GOOD + b".", "goes on after its end"),
        (b"\xff.", "opcode b'\\xff' is none"),
        (b"\x80\x03" + GOOD[2:], "is in protocol 3 and not 2"),
        (b"\x80\xff.", "is in protocol 255 and not 2"),
        (b".", "never put there"),
        (b"t.", "never put there"),
        (b"K\x01\x86.", "never put there"),
        (b"R.", "never put there"),
        (b"(K\x01K\x02b.", "not one of 3x3072 bytes"),
        (b"K\x01(\x85.", "never put there"),
        (b"K\x01(q\x01.", "never put there"),
        (b"](K\x01(ae.", "never put there"),
        (b"](K\x01(.", "never put there"),
        (b"}(u.", "not a dict"),
        (b"((K\x01tt.", "not a dict"),
        (b"h\x05.", "never put there"),
        (b"q\x05.", "never put there"),
        (b"K\x01a.", "never put there"),
        (b"K\x01K\x02a.", "int stands where list belongs"),
        (b"]K\x01K\x02s.", "int stands where bytes belongs"),
        (b"](U\x01aK\x02u.", "list stands where dict belongs"),
        (b"}(U\x01au.", "argument 2 is shorter"),
        (b"}}K\x01s.", "dict stands where bytes belongs"),
        (b"](K\x01e.", "not a dict"),
        (b"}q\x01U\x01ah\x01s.", "not a dict"),
        (b"r\xff\xff\xff\x7f.", "never put there"),
        (b"]r\xff\xff\xff\x7f.", "not a dict"),
        (b"T\xff\xff\xff\x7f", "ends too early"),
        (b"T\xff\xff\xff\xff", "ends too early"),
        (b"(" * 200_000 + b".", "more than 100000 opcodes"),
        (b"]" + b"\x85" * 50_000 + b".", "not a dict"),
        (b"}K\x01" + b"\x85" * 50_000 + b"K\x01s.", "tuple stands where bytes belongs"),
        (b"}K\x01" + TWICE * 60 + b"K\x01s.", "tuple stands where bytes belongs"),
        (b"cnumpy\ndtype\nK\x01" + TWICE * 60 + b"R.", OTHER_ARRAY),
        (b"K\x01" + TWICE * 60 + b".", "not a dict"),
        (b"c" + b"x" * 10_000 + b"\ny\n.", "asks for 'xxxxxx"),
        (b"cnumpy\nnd\xe4rray\n.", "asks for 'numpy.nd\xe4rray'"),
        (b"cnumpy", "asks for 'numpy'"),
        (b"cnumpy\ndtype", "asks for 'numpy.dtype'"),
        (b"cnumpy\ndtype\n", "ends too early"),
    ],
)
def test_bombs_and_nonsense_are_refused_at_once(
    refuse_pickle: Callable[[bytes], str], data: bytes, said: str
) -> None:
    assert said in refuse_pickle(data)


def test_a_batch_too_large_is_refused(
    refuse_pickle: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "MAX_BATCH_BYTES", len(GOOD) - 1)
    assert "larger than the" in refuse_pickle(GOOD)


def test_no_damage_to_a_batch_causes_anything_but_a_refusal(
    mutate: Callable[[bytes, int], Iterator[bytes]],
) -> None:
    opcodes = GOOD.replace(PIXELS, PIXELS[:16])
    for data in mutate(opcodes, 3000):
        with pytest.raises(DataError):
            cifar._parse_pickle(data, "batch")


def test_a_binary_batch_has_one_size_only(tmp_path: Path, refusal: Refusal) -> None:
    for size in (0, N * 3073 - 1, N * 3073 + 1, (N - 1) * 3073):
        (tmp_path / "data_batch_1.bin").write_bytes(bytes(size))
        assert f"{size} bytes where a batch of 3 images has 9219" in refusal(read_cifar10, tmp_path)


def test_a_binary_label_must_be_one_of_ten(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(b"\x0a" + bytes(N * 3073 - 1))
    assert "data_batch_1.bin: labels 0..10 are not in 0..9" in refusal(read_cifar10, tmp_path)


def test_an_empty_folder_is_told_what_is_wanted(tmp_path: Path, refusal: Refusal) -> None:
    assert "holds neither data_batch_1.bin nor data_batch_1" in refusal(read_cifar10, tmp_path)


def test_a_missing_batch_is_named(folder: Path, refusal: Refusal) -> None:
    next(folder.glob("test_batch*")).unlink()
    assert refusal(read_cifar10, folder).endswith(": no such file")


LIMIT = 4096 + N * 3073


@pytest.fixture
def refuse_archive(
    tmp_path: Path, files: dict[str, bytes], cheap_refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Put members in front of a good archive's; the refusal, without the path before it."""
    monkeypatch.setattr(cifar, "MAX_BATCH_BYTES", LIMIT)

    def call(*members: tuple[tarfile.TarInfo, bytes], end: bytes = bytes(10_240)) -> str:
        path = write_archive(tmp_path, *members, *make_members(files), end=end)
        line = cheap_refusal(read_cifar10, path)
        assert line.startswith(f"{path}: ")
        assert list(tmp_path.iterdir()) == [path]
        return line.removeprefix(f"{path}: ")

    return call


@pytest.mark.parametrize(
    "name",
    [
        "data_batch_1",
        "./cifar-10-batches-py/data_batch_1",
        "/cifar-10-batches-py/data_batch_1",
        "../cifar-10-batches-py/data_batch_1",
        "cifar-10-batches-py/../data_batch_1",
        "cifar-10-batches-py/./data_batch_1",
        "cifar-10-batches-py//data_batch_1",
        "cifar-10-batches-py/DATA_BATCH_1",
        "cifar-10-batches-py/data_batch_6",
        "cifar-10-batches-py/data_batch_1.bin",
        "cifar-10-batches-bin/data_batch_1",
        "cifar-10-batches-py/data_batch_1/x",
        "cifar-10-batches-py/data_batch_1\nx",
        "cifar-10-batches-py",
        "/etc/passwd",
        "x" * 90,
        "\udcff",
        "",
    ],
)
def test_no_other_name_may_be_in_an_archive(refuse_archive: Callable[..., str], name: str) -> None:
    assert f"holds {name[:80]!r} of type b'0'" in refuse_archive(make_member(name, b"content"))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
    ],
)
def test_only_plain_files_may_be_in_an_archive(refuse_archive: Callable[..., str], kind: bytes) -> None:
    member = make_member("cifar-10-batches-bin/data_batch_1.bin", type=kind, linkname="/etc/passwd")
    assert f"'cifar-10-batches-bin/data_batch_1.bin' of type {kind!r}" in refuse_archive(member)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("data_batch_1.bin", LIMIT + 1, f"{LIMIT + 1} bytes are not in 0..{LIMIT}"),
        ("data_batch_1.bin", 2**33, f"{2**33} bytes are not in 0..{LIMIT}"),
        ("data_batch_1.bin", 2**80, f"{2**80} bytes are not in 0..{LIMIT}"),
        ("data_batch_1.bin", -1, f"-1 bytes are not in 0..{LIMIT}"),
        ("data_batch_1.bin", 0, "0 bytes where a batch of 3 images has 9219"),
        ("data_batch_1.bin", 9219 + 512, "9731 bytes where a batch of 3 images has 9219"),
        ("readme.html", 2**16 + 1, "65537 bytes are not in 0..65536"),
        ("batches.meta.txt", 2**20, "1048576 bytes are not in 0..65536"),
    ],
)
def test_no_size_is_believed(refuse_archive: Callable[..., str], name: str, size: int, said: str) -> None:
    member = make_member(f"cifar-10-batches-bin/{name}", size=size)
    assert refuse_archive(member) == f"cifar-10-batches-bin/{name}: {said}"


def test_a_folder_has_no_contents(refuse_archive: Callable[..., str]) -> None:
    folder = make_member("cifar-10-batches-py", bytes(512), type=tarfile.DIRTYPE)
    assert "holds 'cifar-10-batches-py' of type b'5'" in refuse_archive(folder)


@pytest.mark.parametrize("name", ["readme.html", "batches.meta", "batches.meta.txt"])
def test_no_member_may_be_there_twice(refuse_archive: Callable[..., str], name: str) -> None:
    readme = make_member(f"cifar-10-batches-py/{name}")
    assert f"holds a second 'cifar-10-batches-py/{name}'" in refuse_archive(readme, readme)


@pytest.mark.parametrize(
    "name", ["cifar-10-batches-py/data_batch_5", "cifar-10-batches-bin/data_batch_5.bin"]
)
def test_no_batch_may_be_there_in_either_layout_twice(
    refuse_archive: Callable[..., str], batches: dict[str, tuple[bytes, bytes]], name: str
) -> None:
    labels, pixels = batches["data_batch_5"]
    content = b"".join(labels[i : i + 1] + pixels[i * SIZE : (i + 1) * SIZE] for i in range(N))
    batch = make_member(name, content if name.endswith(".bin") else GOOD)
    line = refuse_archive(batch)
    assert "holds a second 'cifar-10-batches-" in line
    assert "/data_batch_5" in line


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (b"", "not a tar archive, or a damaged one"),
        (bytes(511), "not a tar archive, or a damaged one"),
        (b"x" * 10_240, "not a tar archive, or a damaged one"),
        (bytes(512) + b"x", "goes on after the end of the archive"),
        (bytes(2**26), "goes on after the end of the archive"),
    ],
    ids=["none", "short", "nonsense", "more behind", "bomb"],
)
def test_an_archive_ends_where_it_ends(refuse_archive: Callable[..., str], end: bytes, said: str) -> None:
    assert said in refuse_archive(end=end)


def test_an_archive_without_a_batch_names_it(
    archive: Path, files: dict[str, bytes], refusal: Refusal
) -> None:
    members = [member for member in make_members(files) if "data_batch_3" not in member[0].name]
    line = refusal(read_cifar10, write_archive(archive.parent, *members))
    assert line == f"{archive}: holds no data_batch_3"


@pytest.mark.parametrize("unpack", [bytes, gzip.decompress], ids=["gzip", "plain"])
def test_no_damage_to_an_archive_causes_anything_but_a_refusal(
    archive: Path, mutate: Callable[[bytes, int], Iterator[bytes]], unpack: Callable[[bytes], bytes]
) -> None:
    refused = 0
    for data in mutate(unpack(archive.read_bytes()), 100):
        archive.write_bytes(data)
        try:
            assert len(read_cifar10(archive)[0]) == 5 * N
        except DataError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (10, 400), (1000, -30), (-8, -4)])
def test_a_truncated_or_damaged_gzip_archive_is_refused(
    archive: Path, refusal: Refusal, start: int, stop: int
) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[:start])
    refusal(read_cifar10, archive)
    archive.write_bytes(data[:start] + bytes(len(data[start:stop])) + data[stop:])
    refusal(read_cifar10, archive)


@pytest.mark.data
def test_the_real_cifar10(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds for the official images and for copies of them that went through JPEG."""
    monkeypatch.undo()
    train, test, _ = read_cifar10(data_dir / "cifar-10-batches-py")
    assert (train.images.shape, test.images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    mean = train.images.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=3e-4)
