"""S1 for IDX, CIFAR-10, archives and .npz: damaged files are read as another reader reads them, or not.

The other readers are written the short way, believe the file, and only ever see what was accepted: gzip and
struct for IDX, Python's own tarfile, a pickle.Unpickler that knows four names, and numpy.load.
"""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.data import cifar
from cnnctl.data.dataset import Split
from cnnctl.data.idx import read_mnist_folder
from cnnctl.data.npz import read_npz
from tests.torture.guard import Outcome, guard, make_ground
from tests.torture.mutations import INTERESTING, draw_stream, mutate
from tests.torture.tally import Mismatch, Tally

IDX_NAMES = tuple(
    f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
IDX_SHAPES = ((3, 2, 4), (3,), (2, 2, 4), (2,))
N = 2
"""Images in a batch of CIFAR-10, in place of 10,000."""
BATCH_BYTES = N * (1 + cifar.IMAGE_BYTES)
IDX_TOKENS = tuple(struct.pack(">I", number % 2**32) for number in (0x801, 0x803, 0x80D, 0x103, *INTERESTING))
GZIP_TOKENS = (b"\x1f\x8b\x08\x00", gzip.compress(bytes(1000), mtime=0), bytes(8), b"\x03\x00" + bytes(8))
NPZ_TOKENS = (
    *(
        b"PK\1\2",
        b"PK\3\4",
        b"PK\5\6",
        b"PK\6\6",
        b"PK\6\7",
        b"\x93NUMPY\1\0",
        b"\x93NUMPY\2\0",
        b"x_train.npy",
    ),
    *(
        b"'descr': '|O'",
        b"'|u1'",
        b"'<f8'",
        b"(3, 4, 5)",
        b"(-1, 4, 5)",
        b"(99999999999,)",
        b"True",
        b"__import__('os')",
    ),
    *(b"'shape': ", b"[('a', 'u1')]", b"(" * 300, b"9" * 5000, b"\n", b"\xff"),
)
PICKLE_TOKENS = (
    *(
        b"cos\nsystem\n",
        b"cposix\nsystem\n",
        b"cbuiltins\neval\n",
        b"cbuiltins\nexec\n",
        b"cnumpy\ndtype\n",
        b"(",
        b"t",
    ),
    *(
        b"cnumpy\nndarray.tofile\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"ios\nsystem\n",
        b"\x82\x01",
        b"\x83\x01\x00",
    ),
    *(
        b"\x84\x01\x00\x00\x00",
        b"U\x02osU\x06system\x93",
        b"\x8c\x02os\x8c\x06system\x93",
        b"tR",
        b"R",
        b"b",
        b"o",
    ),
    *(
        b"\x81",
        b"}",
        b"]",
        b")",
        b"0",
        b"2",
        b"1",
        b"e",
        b"u",
        b"s",
        b"a",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x88",
        b"N",
    ),
    *(
        b"q\x01",
        b"h\x01",
        b"r\xff\xff\xff\x7f",
        b"j\xff\xff\xff\x7f",
        b"T\xff\xff\xff\x7f",
        b"J\xff\xff\xff\xff",
        b".",
    ),
    *(
        b"q\x01h\x01\x86" * 60,
        b"\x85" * 5000,
        b"(" * 5000,
        b"P1\n",
        b"Q",
        b"\x97",
        b"\x95" + bytes(8),
        b"I1\n",
    ),
)
TAR_NAMES = (
    *(
        "../data_batch_1.bin",
        "/etc/passwd",
        "cifar-10-batches-bin/../../x",
        "cifar-10-batches-bin/data_batch_1.bin",
    ),
    *(
        "cifar-10-batches-bin/data_batch_6.bin",
        "cifar-10-batches-py/data_batch_1",
        "x",
        "",
        "cifar-10-batches-bin/",
    ),
    *("cifar-10-batches-bin/readme.html", "cifar-10-batches-bin/batches.meta", "a\nb", "\x1b[2J", "\udcff"),
)
TAR_TYPES = (
    b"0",
    b"\0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
    b"7",
    b"S",
    b"x",
    b"g",
    b"L",
    b"K",
    b"D",
    b"Z",
    b"\xff",
)
TAR_SIZES = (0, 1, 511, 512, BATCH_BYTES, 2**16 + 1, 32 * 2**20 + 1, 2**33, 2**63, 2**80, -1, -512)


def check_idx(seed: int, number: int, tally: Tally) -> None:
    """One of the four files of a folder like MNIST's, plain or gzipped, before or after it is damaged."""
    rng = draw_stream(seed, number)
    ground, files = make_ground("idx"), create_idx()
    at = rng.randrange(4)
    content = rng.choice((files[at], *files)) if rng.random() < 0.2 else files[at]
    kind = rng.choice(("plain", "plain", "packed", "gzip"))
    damaged = mutate(rng, pack(content) if kind == "gzip" else content, files, (*IDX_TOKENS, *GZIP_TOKENS))
    damaged = pack(damaged) if kind == "packed" else damaged
    contents = [*files[:at], damaged, *files[at + 1 :]]
    for name, data in zip(IDX_NAMES, contents, strict=True):
        (ground / name).write_bytes(data)
    outcome = guard(lambda: read_mnist_folder(ground), ground, tally)
    wanted = read_idx_plainly(contents)
    if (wanted is None) != (outcome.refusal is not None):
        raise Mismatch(f"{IDX_NAMES[at]}: {outcome.refusal or 'accepted'}: {damaged!r:.2000}")
    if wanted:
        check_splits(outcome.value, wanted)
    count(tally, kind, outcome)


def read_idx_plainly(contents: list[bytes]) -> list[tuple[Array, Array]] | None:
    """Images and labels of both splits; None for what is not MNIST."""
    arrays: list[Array] = []
    try:
        for k, data in enumerate(contents):
            plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            rank = 1 if k % 2 else 3
            magic, *shape = struct.unpack_from(f">{1 + rank}I", plain)
            arrays.append(np.frombuffer(plain[4 * (1 + rank) :], np.uint8).reshape(shape))
            if magic != 0x800 + rank or not arrays[-1].size or (rank == 1 and arrays[-1].max() > 9):
                return None
    except (struct.error, ValueError, EOFError, OSError, zlib.error):
        return None
    images, labels, test_images, test_labels = arrays
    fit = len(images) == len(labels) and len(test_images) == len(test_labels)
    same = images.shape[1:] == test_images.shape[1:]
    return [(images[:, None], labels), (test_images[:, None], test_labels)] if fit and same else None


def check_cifar(seed: int, number: int, tally: Tally) -> None:
    """The first batch of a folder, binary or a pickle."""
    rng = draw_stream(seed, number)
    kind = rng.choice(("binary", "pickle", "pickle", "pickle"))
    ground, files = make_ground(f"cifar-{kind}"), create_cifar(kind)
    data = files[0]
    if kind == "pickle" and rng.random() < 0.7:  # not only in the pixels
        end = data.index(PIXELS_AHEAD) + len(PIXELS_AHEAD)
        damaged = mutate(rng, data[:end], [data[:end], data[-80:]], PICKLE_TOKENS) + data[end:]
    else:
        damaged = mutate(rng, data, [*files, data[-80:]], PICKLE_TOKENS)
    if rng.random() < 0.1:
        damaged = pack(damaged)
    for batch, content in zip(cifar.BATCHES, [damaged, *files[1:]], strict=True):
        (ground / f"{batch}{SUFFIXES[kind]}").write_bytes(content)
    with small_batches():
        outcome = guard(lambda: cifar.read_cifar10(ground), ground, tally)
    plain = gzip.decompress(damaged) if damaged[:2] == b"\x1f\x8b" and outcome.refusal is None else damaged
    if kind == "binary":
        labels = plain[:: 1 + cifar.IMAGE_BYTES]
        whole = len(plain) == BATCH_BYTES and max(labels) < 10
        if whole != (outcome.refusal is None):
            raise Mismatch(f"{outcome.refusal or 'accepted'}: {damaged!r:.2000}")
    if outcome.refusal is None:
        parts = [read_batch_plainly(content, kind) for content in (plain, *files[1:])]
        check_splits(outcome.value, join_batches(parts))
    count(tally, kind, outcome)


def read_batch_plainly(data: bytes, kind: str) -> tuple[Array, Array]:
    if kind == "binary":
        records = np.frombuffer(data, np.uint8).reshape(N, -1)
        return records[:, 1:], records[:, 0]
    batch = OfficialUnpickler(io.BytesIO(data), encoding="bytes").load()
    return batch[b"data"], np.array(batch[b"labels"])


class OfficialUnpickler(pickle._Unpickler):
    """Python's own, for the four names that the official files need; that in C takes memory for any memo."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        raise Mismatch(f"{module}.{name} was accepted")


def join_batches(parts: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    """Training and test split from six batches."""
    images = [pixels.reshape(-1, *cifar.IMAGE_SHAPE) for pixels, _ in parts]
    labels = [labels for _, labels in parts]
    return [(np.concatenate(images[:5]), np.concatenate(labels[:5])), (images[5], labels[5])]


def check_archive(seed: int, number: int, tally: Tally) -> None:
    """CIFAR-10's archive, plain or gzipped, or a .npz file."""
    rng = draw_stream(seed, number)
    kind = rng.choice(("tar", "tar", "gzip", "npz", "npz", "array"))
    if kind in {"npz", "array"}:
        return _check_npz(rng, kind, tally)
    ground = make_ground("archive")
    path = ground / "archive.tar.gz"
    files = create_cifar("binary")
    if kind == "gzip":
        damaged = mutate_large(rng, create_archive(), GZIP_TOKENS)
    else:
        damaged = write_tar(rng, files, rng.choice((0, 1, 1, 1, 2)))
        damaged = (
            mutate_large(rng, damaged, (bytes(512), b"ustar", b"7" * 11)) if rng.random() < 0.3 else damaged
        )
        damaged = pack(damaged) if rng.random() < 0.3 else damaged
    path.write_bytes(damaged)
    with small_batches():
        outcome = guard(lambda: cifar.read_cifar10(path), ground, tally)
    if outcome.refusal is None:
        with tarfile.open(fileobj=io.BytesIO(damaged)) as archive:
            members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
            contents = [archive.extractfile(members[f"{batch}.bin"]).read() for batch in cifar.BATCHES]  # type: ignore[union-attr]
        check_splits(outcome.value, join_batches([read_batch_plainly(data, "binary") for data in contents]))
    return count(tally, kind, outcome)


def write_tar(rng: Random, files: list[bytes], damaged: int) -> bytes:
    """An archive; so many members' names, types, sizes, links or checksums are not what they should be."""
    members = [("cifar-10-batches-bin", b"")]
    members += [
        (f"cifar-10-batches-bin/{batch}.bin", data) for batch, data in zip(cifar.BATCHES, files, strict=True)
    ]
    members.append(("cifar-10-batches-bin/readme.html", b"<html>"))
    chosen = set(rng.sample(range(len(members)), damaged))
    blocks: list[bytes] = []
    for k, (name, content) in enumerate(members):
        member, data = tarfile.TarInfo(name), content
        member.size, member.type = len(data), b"0" if k else b"5"
        if k in chosen:
            match rng.randrange(6):
                case 0:
                    member.name = rng.choice(TAR_NAMES)
                case 1:
                    member.type, member.linkname = rng.choice(TAR_TYPES), rng.choice(TAR_NAMES)
                case 2:
                    member.size = rng.choice(TAR_SIZES)
                case 3:
                    data = mutate(rng, data, files, (b"\0",))
                    member.size = rng.choice((member.size, len(data)))
                case 4:
                    continue
                case 5:
                    blocks += [*blocks[-1:]]
        block = bytearray(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        if k in chosen and rng.random() < 0.3:
            header = mutate(rng, bytes(block), [bytes(block)], (b"\0", b"ustar  \0", b"\x80"))
            header = header[:512].ljust(512, b"\0")
            block[:] = _sum_up(header) if rng.random() < 0.8 else header
        blocks.append(bytes(block) + data + bytes(-len(data) % 512))
    return b"".join(blocks) + bytes(rng.choice((1024, 10_240, 512, 0, 2**17)) if damaged else 10_240)


def _sum_up(header: bytes) -> bytes:
    """With its checksum repaired."""
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    return header[:148] + f"{total:06o}\0 ".encode() + header[156:]


def _check_npz(rng: Random, kind: str, tally: Tally) -> None:
    ground, arrays = make_ground("npz"), create_arrays()
    path = ground / "data.npz"
    chosen = rng.choice(arrays)
    if kind == "npz":
        damaged = mutate(rng, zip_arrays(chosen, rng.randrange(2)), [zip_arrays(chosen, 0)], NPZ_TOKENS)
    else:
        name = rng.choice(list(chosen))
        member = mutate(rng, chosen[name], list(chosen.values()), NPZ_TOKENS)
        damaged = zip_arrays({**chosen, name: member}, rng.randrange(2))
    path.write_bytes(damaged)
    outcome = guard(lambda: read_npz(path), ground, tally)
    if outcome.refusal is None:
        # Not by np.load, which takes a ZIP file with anything in front of it for a pickle.
        with zipfile.ZipFile(io.BytesIO(damaged)) as loaded:
            x_train, y_train, x_test, y_test = (
                np.load(io.BytesIO(loaded.read(f"{name}.npy")), allow_pickle=False)
                for name in ("x_train", "y_train", "x_test", "y_test")
            )
        wanted = [(arrange_plainly(x_train), y_train), (arrange_plainly(x_test), y_test)]
        check_splits(outcome.value, wanted)
    count(tally, kind, outcome)


def arrange_plainly(images: Array) -> Array:
    if images.ndim == 3:
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if images.shape[3] in {1, 3} else images


def check_splits(found: tuple[Any, ...], wanted: list[tuple[Array, Array]]) -> None:
    """The same numbers in both splits."""
    for split, (images, labels) in zip(found[:2], wanted, strict=True):
        assert isinstance(split, Split)
        with np.errstate(over="ignore"):
            same = (
                split.images.shape == images.shape
                and (split.images == images.astype(split.images.dtype)).all()
            )
        if not same or split.labels.tolist() != labels.tolist():
            raise Mismatch(
                f"images {split.images.shape}, labels {split.labels.tolist()} are not what the file says"
            )


def count(tally: Tally, kind: str, outcome: Outcome) -> None:
    tally.counts[f"{kind} {'refused' if outcome.refusal else 'accepted'}"] += 1
    tally.counts["cases"] += 1


def mutate_large(rng: Random, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    """Damage somewhere in a file that is longer than the damage looks at."""
    start = rng.randrange(0, len(data), 512)
    return (
        data[:start] + mutate(rng, data[start : start + 2048], [data[:1024]], tokens) + data[start + 2048 :]
    )


def pack(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


@contextmanager
def small_batches() -> Iterator[None]:
    """Batches of N images; what else is known of them stays."""
    kept, cifar.BATCH_IMAGES = cifar.BATCH_IMAGES, N
    try:
        yield
    finally:
        cifar.BATCH_IMAGES = kept


@cache
def create_idx() -> list[bytes]:
    files = []
    for shape in IDX_SHAPES:
        header = struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape)
        files.append(header + bytes(i % 10 for i in range(int(np.prod(shape)))))
    return files


SUFFIXES = {"binary": ".bin", "pickle": ""}
PIXELS_AHEAD = b"\x89T" + struct.pack("<I", N * cifar.IMAGE_BYTES)


@cache
def create_cifar(kind: str) -> list[bytes]:
    """The six batches; a pickle opcode for opcode as Python 2 wrote the official ones."""
    files = []
    for k in range(len(cifar.BATCHES)):
        labels = bytes((k + i) % 10 for i in range(N))
        pixels = bytes((i * (k + 3)) % 256 for i in range(cifar.IMAGE_BYTES)) * N
        if kind == "binary":
            rows = [pixels[i * cifar.IMAGE_BYTES :][: cifar.IMAGE_BYTES] for i in range(N)]
            files.append(b"".join(labels[i : i + 1] + rows[i] for i in range(N)))
            continue
        files.append(
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05("
            + b"".join(b"K%c" % label for label in labels)
            + b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07"
            + b"cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01b\x87Rq\n"
            + (b"(K\x01K%cM\x00\x0c\x86" % N)
            + b"cnumpy\ndtype\nq\x0bU\x02u1K\x00K\x01\x87Rq\x0c"
            + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + (PIXELS_AHEAD + pixels + b"tbU\tfilenamesq\x0d]q\x0e(U\x05a.pngq\x0fU\x05b.pngq\x10eu.")
        )
    return files


@cache
def create_archive() -> bytes:
    """A whole one, gzipped. Reads it once, so that what is imported late is there before it is watched."""
    data = pack(write_tar(Random(0), create_cifar("binary"), damaged=0))
    (make_ground("archive") / "whole").write_bytes(data)
    with small_batches():
        cifar.read_cifar10(make_ground("archive") / "whole")
    return data


@cache
def create_arrays() -> list[dict[str, bytes]]:
    """Members of .npz files: grey bytes, colours last, floats column by column."""
    files = []
    for shape, dtype, order in (((4, 5), "u1", "C"), ((4, 5, 3), "<f4", "C"), ((3, 4, 5), ">f8", "F")):
        train = np.arange(3 * np.prod(shape)).astype(dtype).reshape(3, *shape, order=order)  # type: ignore[call-overload]
        arrays = {
            "x_train": train,
            "y_train": np.arange(3),
            "x_test": train[1:],
            "y_test": np.array([0, 2], "<i2"),
        }
        files.append({name: save_array(np.asarray(array, order=order)) for name, array in arrays.items()})  # type: ignore[call-overload]
    path = make_ground("npz") / "data.npz"
    for packed in (0, 1):
        path.write_bytes(zip_arrays(files[0], packed))
        read_npz(path)
    return files


def save_array(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zip_arrays(members: dict[str, bytes], packed: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content, compresslevel=1)
    return stream.getvalue()
