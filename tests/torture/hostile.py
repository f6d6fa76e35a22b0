"""S2: files that somebody made to do harm, each refused in one line that says why.

A table by reader and reason. A file is its bytes, or a function that puts something in its place that is no
file. Nothing here is damaged by chance: that is S1.
"""

import gzip
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
from PIL import Image

from cnnctl.config import load_config
from cnnctl.data.cifar import read_cifar10
from cnnctl.data.folder import read_folder
from cnnctl.data.idx import read_mnist_folder
from cnnctl.data.npz import read_npz
from cnnctl.train import checkpoint
from cnnctl.train.checkpoint import load_checkpoint
from tests.torture import checkpoints, configs, datafiles, images
from tests.torture.guard import guard, make_ground
from tests.torture.tally import Mismatch, Tally

CASES = 300
"""As many as the table has, and some that are run twice: which formats Pillow can write differs."""

Content = bytes | Callable[[Path], None]


class Hostile(NamedTuple):
    """One file: the reader it is meant for, its bytes, and what the refusal has to say."""

    name: str
    reader: str
    content: Content
    said: str


class Reader(NamedTuple):
    """Where the file lies, what lies beside it, and how it is read."""

    file: str
    others: Callable[[], dict[str, bytes]]
    read: Callable[[Path], object]


READERS = {
    "yaml": Reader(
        "run.yaml",
        lambda: {"network.yaml": b"layers: [{linear: 10}]\n"},
        lambda p: load_config(p / "run.yaml"),
    ),
    "images": Reader(datafiles.IDX_NAMES[0], lambda: _list_idx(1, 2, 3), read_mnist_folder),
    "labels": Reader(datafiles.IDX_NAMES[1], lambda: _list_idx(0, 2, 3), read_mnist_folder),
    "pickle": Reader("data_batch_1", dict, read_cifar10),
    "binary": Reader("data_batch_1.bin", dict, read_cifar10),
    "archive": Reader("archive", dict, lambda p: read_cifar10(p / "archive")),
    "npz": Reader("data.npz", dict, lambda p: read_npz(p / "data.npz")),
    "image": Reader(
        "class/0",
        lambda: {"class/1": images.create_images()["png"]},
        lambda p: read_folder(p, seed=0, image_size=4),
    ),
    "checkpoint": Reader("last.safetensors", dict, lambda p: load_checkpoint(p / "last.safetensors")),
}


def check_hostile(seed: int, number: int, tally: Tally) -> None:
    """One line of the table; the seed changes nothing."""
    table = create_table()
    case = table[number % len(table)]
    reader, ground = READERS[case.reader], make_ground("hostile")
    for path in ground.iterdir():
        rmtree(path) if path.is_dir() else path.unlink()
    file = ground / reader.file
    file.parent.mkdir(exist_ok=True)
    for name, content in reader.others().items():
        (ground / name).write_bytes(content)
    if callable(case.content):
        case.content(file)
    else:
        file.write_bytes(case.content)
    outcome = guard(lambda: reader.read(ground), ground, tally)
    if outcome.refusal is None:
        raise Mismatch(f"{case.reader}, {case.name}: accepted")
    if case.said not in outcome.refusal:
        raise Mismatch(f"{case.reader}, {case.name}: {outcome.refusal}, and nothing of {case.said!r}")
    tally.counts[case.reader] += 1
    tally.counts["cases"] += 1


@cache
def create_table() -> list[Hostile]:
    """All of them; made when they are first needed, and everything imported that making them imports."""
    configs.create_files()
    images.create_images()
    checkpoints.create_files()
    datafiles.create_archive()
    datafiles.create_arrays()
    table = [
        *(("yaml", *entry) for entry in _list_yaml()),
        *(("images", *entry) for entry in _list_images()),
        *(("labels", *entry) for entry in _list_labels()),
        *(("pickle", *entry) for entry in _list_pickles()),
        *(("binary", *entry) for entry in _list_binary()),
        *(("archive", *entry) for entry in _list_archives()),
        *(("npz", *entry) for entry in _list_npz()),
        *(("image", *entry) for entry in _list_pictures()),
        *(("checkpoint", *entry) for entry in _list_checkpoints()),
    ]
    return [
        Hostile(name, reader, content, said)
        for reader, said, files in table
        for name, content in files.items()
    ]


Entries = list[tuple[str, dict[str, Content]]]
"""What the refusal says, and the files that are refused so, by name."""


def _list_special(place: str, device: str) -> Entries:
    """What is there, but is no file."""
    return [
        (
            place,
            {
                "a pipe": os.mkfifo,
                "a folder": Path.mkdir,
                "an endless device": lambda p: p.symlink_to("/dev/zero"),
            },
        ),
        (device, {"a ring of links": lambda p: p.symlink_to(p.name)}),
    ]


def _list_yaml() -> Entries:
    run = (
        "network: network.yaml\ndata: {dataset: mnist}\nsolver: {optimizer: adam, epochs: 1, batch_size: 8}\n"
    )
    bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    maps = "a0: &a0 {x: 1, y: 2}\n" + "".join(
        f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 31)
    )
    return [
        *_list_special("not a regular file", "Too many levels of symbolic links"),
        (
            "is not allowed; give plain YAML",
            {
                "a call": run.encode() + b"x: !!python/object/apply:os.system [id]\n",
                "an object": run.encode() + b"x: !!python/object/new:subprocess.Popen [[id]]\n",
                "a name": run.encode() + b"x: !!python/name:os.system\n",
                "a module": run.encode() + b"x: !!python/module:os\n",
                "a tag on a list": run.encode() + b"x: !!set [a]\n",
                "a tag of its own": run.encode() + b"x: !<tag:example.org,2002:x> 1\n",
                "binary": run.encode() + b"x: !!binary aGVsbG8=\n",
            },
        ),
        (
            "more than 20,000 values",
            {"a billion laughs": (bomb + run).encode(), "two to the thirtieth": (maps + run).encode()},
        ),
        ("names no complete value above it", {"a value in itself": b"a: &a [*a]\n" + run.encode()}),
        (
            "nested deeper than 32 levels",
            {
                "brackets": b"a: " + b"[" * 500_000,
                "braces": b"a: " + b"{a: " * 100_000,
                "dashes": b"- " * 400_000,
            },
        ),
        (
            "stands here twice",
            {"a key twice": run.encode() + b"network: other.yaml\n", "in braces": b"{a: 1, a: 2}"},
        ),
        ("merge key", {"a merge key": run.encode() + b"<<: {network: x}\n"}),
        ("is no plain text", {"a list as key": b"? [a, b]\n: 1\n", "a mapping as key": b"{{a: 1}: 2}\n"}),
        (
            "larger than 1,048,576 bytes",
            {"a large file": b"#" * (2**20 + 1), "a huge one": lambda p: _make_sparse(p, 2**40)},
        ),
        ("is not UTF-8", {"UTF-16": run.encode("utf-16"), "Latin-1": b"name: \xe4\n"}),
        (
            "is not allowed; give printable",
            {"a zero": b"name: a\0\n", "an escaped zero": b'name: "\\0"\n', "ESC": b"a: \x1b[2J\n"},
        ),
        (
            "is not usable; give an integer",
            {
                "an integer of a million digits": run.replace("8}", "9" * 10**6 + "}").encode(),
                "an integer above 64 bits": run.replace("8}", f"{2**64}.0}}").encode(),
                "a float too large": run.replace("8}", "1e999}").encode(),
            },
        ),
        (
            "is not known",
            {"20,000 unknown keys": b"".join(b"k%d:\n" % i for i in range(19_000)) + run.encode()},
        ),
        ("is not known", {"a key of a megabyte": b"? " + b"x" * 10**6 + b"\n: 1\n" + run.encode()}),
        ("leads back to itself", {"a base that is itself": b"base: run.yaml\n"}),
        ("no such file", {"a base that is not there": b"base: ../../nowhere/at/all.yaml\n"}),
        ("a second document begins", {"two documents": run.encode() + b"---\n" + run.encode()}),
    ]


def _list_idx(*which: int) -> dict[str, bytes]:
    return {datafiles.IDX_NAMES[k]: datafiles.create_idx()[k] for k in which}


def _make_idx(*shape: int, data: bytes = b"", magic: int = 0x803) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + data


def _list_images() -> Entries:
    huge = 2**32 - 1
    return [
        *_list_special("not a regular file", "holds neither"),
        (
            "more than 8589934592",
            {"all extents huge": _make_idx(huge, huge, huge), "2^64 bytes": _make_idx(2**31, 2**31, 4)},
        ),
        (
            "bytes before what its header promises",
            {
                "8 GiB of which none is there": _make_idx(2**31, 2, 2),
                "60,000 images of which one is there": _make_idx(60_000, 28, 28, data=bytes(784)),
                "cut in the header": _make_idx(3, 2),
                "8 GiB gzipped, none there": gzip.compress(_make_idx(2**31, 2, 2)),
            },
        ),
        ("hence no data", {"no images": _make_idx(0, 28, 28), "no height": _make_idx(2**32 - 1, 0, 28)}),
        (
            "goes on after",
            {
                "a longer body": _make_idx(3, 2, 4, data=bytes(25)),
                "a gzip bomb": _squeeze(_make_idx(3, 2, 4), 2**27),
            },
        ),
        (
            "bytes before what",
            {"a bomb that falls short": _squeeze(_make_idx(2**31, 2, 2), 2**20)},
        ),
        (
            "begins with",
            {
                "little-endian": _make_idx(3, 2, 4, magic=0x03080000),
                "floats": _make_idx(3, 2, 4, magic=0xD03),
            },
        ),
        (
            "damaged gzip data",
            {
                "gzip in gzip": gzip.compress(b"\x1f\x8b\x08")[:-6],
                "gzip cut": gzip.compress(_list_idx(0)[datafiles.IDX_NAMES[0]])[:-1],
            },
        ),
    ]


def _list_labels() -> Entries:
    return [
        ("is not in 0..9", {"a label without a class": _make_idx(3, data=b"\0\xff\1", magic=0x801)}),
        ("begins with", {"images for labels": _make_idx(3, 1, 1, data=bytes(3))}),
        ("labels for the", {"a label too many": _make_idx(4, data=bytes(4), magic=0x801)}),
    ]


def _squeeze(start: bytes, zeros: int) -> bytes:
    """Gzipped a thousand to one."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(start)]
    for _ in range(zeros >> 20):
        parts.append(packer.compress(bytes(2**20)))
    return b"".join([*parts, packer.flush()])


def _make_sparse(path: Path, size: int, start: bytes = b"") -> None:
    path.write_bytes(start)
    os.truncate(path, size)


def _list_pickles() -> Entries:
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    twice = b"q\x01h\x01\x86" * 60
    names = (
        *(
            "os.system",
            "posix.system",
            "subprocess.Popen",
            "builtins.eval",
            "builtins.exec",
            "builtins.__import__",
        ),
        *(
            "builtins.getattr",
            "__builtin__.eval",
            "importlib.import_module",
            "pickle.loads",
            "operator.attrgetter",
        ),
        *(
            "functools.partial",
            "socket.socket",
            "shutil.rmtree",
            "webbrowser.open",
            "ctypes.CDLL",
            "marshal.loads",
        ),
        *(
            "numpy.fromfile",
            "numpy.load",
            "numpy.memmap",
            "numpy.ndarray.tofile",
            "numpy.dtype.__init__.__globals__",
        ),
        *("numpy.core.multiarray.scalar", "numpy.core.multiarray.fromfile", "numpy.f2py.crackfortran.myeval"),
        *(
            "numpy.testing._private.utils.runstring",
            "copyreg._reconstructor",
            "cnnctl.data.cifar._parse_pickle",
        ),
    )
    opcodes: dict[str, Content] = {
        "EXT1": b"\x82\x01.",
        "EXT2": b"\x83\x01\x00.",
        "EXT4": b"\x84\x01\x00\x00\x00.",
        "PERSID": b"Pid\n.",
        "BINPERSID": b"K\x01Q.",
        "INST": b"(S'id'\nios\nsystem\n.".replace(b"S'id'\n", b"U\x02id"),
        "OBJ": b"(cnumpy\ndtype\nU\x02O8o.",
        "NEWOBJ": b"cnumpy\ndtype\nU\x02O8\x85\x81.",
        "NEWOBJ_EX": b"cnumpy\ndtype\nU\x02O8\x85}\x92.",
        "STACK_GLOBAL": b"U\x02osU\x06system\x93U\x02id\x85R.",
        "FRAME": b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "BINBYTES8": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        "BYTEARRAY8": b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f",
        "LONG of a million digits": b"L" + b"9" * 10**6 + b"L\n.",
        "NEXT_BUFFER": b"\x97.",
        "DUP": b"]2.",
    }
    return [
        *_list_special("not a regular file", "holds neither"),
        ("asks for", {name: b"c%s\n%s\n(U\x02idtR." % (*name.encode().rsplit(b".", 1),) for name in names}),
        (
            "asks for",
            {
                "a dotted name": b"cnumpy\nndarray.__class__.__base__\n.",
                "a name of a megabyte": b"c" + b"x" * 2**20,
            },
        ),
        ("is none of CIFAR-10's", opcodes),
        (
            "asks for something else than an array of bytes",
            {
                "an array of objects": array.replace(b"U\x01b", b"U\x01O") + b".",
                "an array of 2^62 elements": array.replace(
                    b"K\x00\x85", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"
                )
                + b".",
                "a dtype in place of an array": array.replace(b"numpy\nndarray", b"numpy\ndtype") + b".",
                "a dtype of objects": b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.",
                "a function called with itself": b"cnumpy\ndtype\nq\x01h\x01\x85R.",
                "a call that would hash for ever": b"cnumpy\ndtype\nK\x01" + twice + b"R.",
            },
        ),
        (
            "its array is not one of",
            {
                "a state that is no state": array + b"}b.",
                "a shape that lies": array
                + b"(K\x01J\xff\xff\xff\x7fM\x00\x0c\x86cnumpy\ndtype\n\x89U\x00tb.",
                "attributes of a type": b"cnumpy\nndarray\n}U\x01xK\x01sb.",
            },
        ),
        ("not a dict", {"a bomb in the memo": b"K\x01" + twice + b".", "a list in itself": b"]q\x01h\x01a."}),
        ("tuple stands where bytes", {"a key that would hash for ever": b"}K\x01" + twice + b"K\x01s."}),
        ("more than 100000 opcodes", {"marks": b"(" * 10**6, "tuples": b"]" + b"\x85" * 10**6}),
        (
            "ends too early",
            {
                "a string of 2 GiB": b"T\xff\xff\xff\x7f",
                "a string of -1 bytes": b"T\xff\xff\xff\xff",
                "none": b"",
            },
        ),
        (
            "never put there",
            {"an empty stack": b"R.", "a huge memo": b"]r\xff\xff\xff\x7fj\xfe\xff\xff\x7f."},
        ),
        ("is in protocol 5", {"another protocol": pickle.dumps({"a": 1}, protocol=5)}),
        (
            "larger than the 33554432 bytes",
            {"a gzip bomb": _squeeze(b"", 2**27), "2^40 bytes": lambda p: _make_sparse(p, 2**40)},
        ),
    ]


def _list_binary() -> Entries:
    return [
        ("0 bytes where", {"nothing": b""}),
        ("30729999 bytes where", {"a byte too few": lambda p: _make_sparse(p, 10_000 * 3073 - 1)}),
        (
            "labels 0..255 are not",
            {"a label without a class": lambda p: _make_sparse(p, 10_000 * 3073, b"\xff")},
        ),
    ]


def _make_tar(name: str, data: bytes = b"", end: bytes = bytes(1024), **attributes: object) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512) + end


def _list_archives() -> Entries:
    good = "cifar-10-batches-bin/data_batch_1.bin"
    types = {
        "a hard link": tarfile.LNKTYPE,
        "a symbolic link": tarfile.SYMTYPE,
        "a character device": tarfile.CHRTYPE,
        "a block device": tarfile.BLKTYPE,
        "a pipe": tarfile.FIFOTYPE,
        "a folder with a batch's name": tarfile.DIRTYPE,
        "a contiguous file": tarfile.CONTTYPE,
        "a sparse file": tarfile.GNUTYPE_SPARSE,
        "a pax header": tarfile.XHDTYPE,
        "a global pax header": tarfile.XGLTYPE,
        "a long name": tarfile.GNUTYPE_LONGNAME,
        "a long link": tarfile.GNUTYPE_LONGLINK,
        "a Solaris header": tarfile.SOLARIS_XHDTYPE,
        "an unknown type": b"Z",
    }
    names = (
        *(
            "../data_batch_1.bin",
            "/etc/passwd",
            "cifar-10-batches-bin/../../x",
            "./data_batch_1.bin",
            "C:\\x",
            "~/x",
        ),
        *(
            "cifar-10-batches-bin/data_batch_1.bin/..",
            "cifar-10-batches-bin//data_batch_1.bin",
            "",
            "a\nb",
            "\x1b[2J",
        ),
    )
    sizes = {"8 GiB": 2**33, "2^80 bytes": 2**80, "-1 bytes": -1, "a byte above the bound": 32 * 2**20 + 1}
    readme = _make_tar("cifar-10-batches-bin/readme.html", b"x", b"")
    with_pax = BytesIO()
    with tarfile.open(fileobj=with_pax, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(good)
        member.pax_headers = {"path": "../../etc/passwd", "size": "99999999999"}
        archive.addfile(member)
    return [
        *_list_special("not a regular file", "no such file")[1:],
        ("not a regular file", {"a pipe in its place": os.mkfifo}),
        (
            "of type",
            {kind: _make_tar(good, type=code, linkname="/etc/passwd") for kind, code in types.items()},
        ),
        ("of type", {f"the name {name!r}": _make_tar(name, b"x") for name in names}),
        ("of type", {"pax headers as tarfile writes them": with_pax.getvalue()}),
        ("bytes are not in 0..", {name: _make_tar(good, size=size) for name, size in sizes.items()}),
        (
            "bytes before what its header",
            {"a size of which nothing is there": _make_tar(good, end=b"", size=30_730_000)},
        ),
        ("holds a second", {"a member twice": readme + readme + bytes(1024)}),
        (
            "goes on after the end",
            {"a bomb behind the end": _squeeze(readme, 2**27), "more behind": readme + bytes(1024) + b"x"},
        ),
        (
            "bytes are not in 0..65536",
            {"a bomb in a file of text": _squeeze(_make_tar(readme[:32].decode(), size=2**27), 2**27)},
        ),
        (
            "not a tar archive",
            {
                "a wrong checksum": readme.replace(b"readme", b"Readme"),
                "a zip": _make_zip({}),
                "text": b"<html>",
            },
        ),
        ("holds no data_batch_1", {"an empty archive": bytes(10_240)}),
        ("damaged gzip data", {"gzip cut short": gzip.compress(readme + bytes(1024))[:-9]}),
    ]


def _make_zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _list_npz() -> Entries:
    arrays = {f"{name}.npy": content for name, content in datafiles.create_arrays()[0].items()}

    def change(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
        return _make_zip({**arrays, "x_train.npy": content}, method)

    def describe(shape: str, descr: str = "'|u1'", data: bytes = b"", version: bytes = b"\1\0") -> bytes:
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
        return change(b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data)

    objects = BytesIO()
    np.save(objects, np.full((3, 4, 5), None), allow_pickle=True)
    good = bytearray(change(arrays["x_train.npy"]))
    directory = good.index(b"PK\1\2")
    many = {f"../{k}": b"" for k in range(3000)}
    return [
        *_list_special("not a regular file", "no such file"),
        ("type '|O' is not known", {"objects to unpickle": change(objects.getvalue())}),
        (
            "its header is none that",
            {
                "a header that is a call": describe("__import__('os').system('id')"),
                "a header nested deep": describe("(" * 400 + ")" * 400),
                "a shape below 0": describe("(-3, 4, 5)"),
                "a type with fields": describe("(3, 4, 5)", "[('a', '|O')]"),
                "an extent of 400 digits": describe(f"({'9' * 400}, 1, 1)"),
            },
        ),
        (
            "more than 1024",
            {
                "a header of 60,000 bytes": change(
                    b"\x93NUMPY\1\0" + struct.pack("<H", 60_000) + b"(" * 60_000
                )
            },
        ),
        (
            "takes more than 8589934592",
            {"2^90 bytes": describe(f"({2**30}, {2**30}, {2**30})"), "no rows": describe("(3, 0, 5)")},
        ),
        ("bytes before what its header", {"8 GiB of which none is there": describe(f"({2**33}, 1, 1)")}),
        ("goes on after the 60 bytes", {"a zip bomb": describe("(3, 4, 5)", data=bytes(2**27))}),
        (
            "not in version 1.0",
            {
                "a header of 4 GiB": change(b"\x93NUMPY\2\0\xff\xff\xff\xff"),
                "a pickle": change(pickle.dumps([]) * 9),
            },
        ),
        (
            "packed otherwise",
            {
                "LZMA": change(arrays["x_train.npy"], zipfile.ZIP_LZMA),
                "bzip2": change(b"x", zipfile.ZIP_BZIP2),
            },
        ),
        ("encrypted", {"encrypted": bytes(good[: directory + 8] + b"\1\0" + good[directory + 10 :])}),
        (
            "not a .npz file",
            {
                "an offset that lies": bytes(
                    good[: directory + 42] + b"\xff\xff\xff\x7f" + good[directory + 46 :]
                )
            },
        ),
        (
            "not a .npz file",
            {
                "text": b"<html>",
                "an end that lies": b"PK\5\6" + b"\xff" * 18,
                "2^40 zeros": lambda p: _make_sparse(p, 2**40),
            },
        ),
        (
            "holds 0 arrays x_train",
            {"3000 names with ..": _make_zip(many), "absolute names": _make_zip({"/x_train.npy": b""})},
        ),
    ]


def _list_pictures() -> Entries:
    pixels = zlib.compress(bytes(3 * 13))
    text = images.make_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**22), 9))
    texts = b"".join(
        images.make_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**20 - 9), 9)) for _ in range(70)
    )
    whole = images.create_images()
    scans = whole["jpeg progressive"]
    last = scans.rindex(b"\xff\xda")
    bomb = images.encode(Image.new("RGB", (4097, 4096)), "PNG")
    foreign: dict[str, Content] = {f"{content[:4]!r}": content for content in images.create_foreign()}
    return [
        (
            "not an image file",
            {
                "a pipe": os.mkfifo,
                "a folder": Path.mkdir,
                "an endless device": lambda p: p.symlink_to("/dev/zero"),
            },
        ),
        (
            "more than 16777216 pixels",
            {"2^62 pixels": images.make_png(2**31 - 1, 2**31 - 1, pixels), "a bomb": bomb},
        ),
        (
            "more than 16777216 pixels",
            {
                "PPM of 10^16 pixels": b"P6 99999999 99999999 255\n",
                "BMP": b"BM" + bytes(12) + b"(\0\0\0" + struct.pack("<IIHH", 2**30, 2**30, 1, 24) + bytes(24),
            },
        ),
        (
            "no image packs so well",
            {
                "16 million pixels in 38 bytes": images.encode(
                    Image.new("RGB", (4000, 4000)), "WEBP", lossless=True
                )
            },
        ),
        ("no image packs so well", {"PNG that ends at once": images.make_png(4096, 4096, pixels)}),
        (
            "an animation",
            {
                f"frames, {content[:4]!r}, {k}": content
                for k, content in enumerate(images.create_animations())
            },
        ),
        ("more than 64 scans", {"JPEG of 5000 scans": scans[:last] + scans[last:-2] * 5000 + scans[-2:]}),
        (
            "larger than 134217728 bytes",
            {"2^40 bytes": lambda p: _make_sparse(p, 2**40, b"RIFF\xff\xff\xff\x7fWEBPVP8L")},
        ),
        (
            "not a whole image",
            {
                "a text of 4 MiB": whole["png"][:33] + text + whole["png"][33:],
                "70 MiB of texts": whole["png"][:33] + texts + whole["png"][33:],
            },
        ),
        (
            "not a whole image",
            {
                f"half of {name}": data[: len(data) // 2]
                for name, data in whole.items()
                if name in {"png", "jpeg", "bmp", "ppm"}
            },
        ),
        (
            "not an image",
            {
                "no width": images.make_png(0, 3, b""),
                "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n",
                "text": b"<svg/>",
            },
        ),
        ("not an image; files of BMP", foreign),
        ("pixels of mode", {"16 bits": images.make_png(4, 3, pixels, bits=16, colour=0)}),
    ]


def _list_checkpoints() -> Entries:
    whole = checkpoints.create_files()[0]
    header, data = checkpoints._open(whole)

    def change(**entries: object) -> bytes:
        text = json.dumps({**header, **entries}, separators=(",", ":"))
        return checkpoints._seal(checkpoints._close(text, data))

    def rename(name: str) -> bytes:
        renamed = {name if key == "params/conv1.bias" else key: entry for key, entry in header.items()}
        return checkpoints._seal(checkpoints._close(json.dumps(renamed, separators=(",", ":")), data))

    def lie(length: int) -> bytes:
        return checkpoints._seal(length.to_bytes(8, "little") + whole[8:])

    def describe(dtype: object = "F32", shape: object = (2,), offsets: object = (24, 32)) -> bytes:
        return change(**{"params/conv1.bias": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})

    text = json.dumps(header, separators=(",", ":"))
    bias = header["params/conv1.bias"]["data_offsets"]
    names = (
        "params/../../etc/passwd",
        "/etc/passwd",
        "../x",
        "params//x",
        "params/..",
        "x",
        "params/a\nb",
        "params/\x1b[2J",
    )
    return [
        *_list_special("not a regular file", "Too many levels of symbolic links"),
        ("is none that a checkpoint has", {f"the name {name!r}": rename(name) for name in names}),
        (
            "unreadable",
            {
                "a header of 2^63 bytes": lie(2**63 - 1),
                "a header of 2^64 bytes": lie(2**64 - 1),
                "a header longer than the file": lie(len(whole)),
                "a header of no bytes": lie(0),
                "overlapping tensors": describe(offsets=(bias[0] - 4, bias[1] - 4)),
                "tensors of one place": describe(offsets=(0, 8)),
                "offsets beyond the end": describe(offsets=(2**40, 2**40 + 8)),
                "offsets backwards": describe(offsets=bias[::-1]),
                "offsets below 0": describe(offsets=(-8, 0)),
                "offsets that are NaN": describe(offsets=(float("nan"), 8)),
                "a shape below 0": describe(shape=(-2,), offsets=bias),
                "a shape that overflows": describe(shape=(2**63, 2), offsets=bias),
                "a shape that is NaN": describe(shape=(float("nan"),), offsets=bias),
                "a shape of text": describe(shape="(2,)", offsets=bias),
                "a type of objects": describe(dtype="O", offsets=bias),
                "a header nested deep": checkpoints._seal(
                    checkpoints._close(f'{text[:-1]},"x":{"[" * 10**5}', data)
                ),
                "bytes that belong to nothing": checkpoints._seal(whole + b"x"),
                "a header that is no object": checkpoints._seal(
                    whole[: checkpoint._DIGEST.stop] + b'"]}' + data
                ),
                "no scale": checkpoints._seal(
                    checkpoints._close(text.replace('"data/scale"', '"data/scal"'), data)
                ),
            },
        ),
        (
            "stands there twice",
            {
                "a tensor twice": checkpoints._seal(
                    checkpoints._close(
                        f'{text[:-1]},"params/conv1.bias":{json.dumps(header["params/conv1.bias"])}}}', data
                    )
                )
            },
        ),
        (
            "metadata: ",
            {
                "a step below 0": checkpoints._seal(whole.replace(rb"\"position\":3", rb"\"position\":-")),
                "metadata nested deep": change(
                    __metadata__={"cnnctl": header["__metadata__"]["cnnctl"][:-1] + ',"x":' + "[" * 10**5}
                ),
                "an unknown field": change(
                    __metadata__={"cnnctl": header["__metadata__"]["cnnctl"][:-1] + ',"__class__":1}'}
                ),
            },
        ),
        (
            "do not match their SHA-256",
            {
                "another digest": whole[: checkpoint._DIGEST.start]
                + b"0" * 64
                + whole[checkpoint._DIGEST.stop :]
            },
        ),
        ("do not match their SHA-256", {"one bit": whole[:-1] + bytes([whole[-1] ^ 1])}),
        (
            "not a checkpoint of cnnctl",
            {
                "a pickle": pickle.dumps({"params": 1}),
                "nothing": b"",
                "2^40 zeros": lambda p: _make_sparse(p, 2**40),
            },
        ),
    ]
