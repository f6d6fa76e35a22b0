"""S1 for checkpoints: damaged anywhere, and the digest repaired, they load as they are or not at all.

What loads is held against a reader of its own: each tensor the bytes that the header promises, all bytes of
the file used once, every name once. A file whose digest was not repaired may not load.
"""

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from random import Random
from typing import Any

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.train import checkpoint as module
from cnnctl.train.checkpoint import Checkpoint, Metadata, Progress, load_checkpoint
from tests.torture.guard import guard, make_ground
from tests.torture.mutations import INTERESTING, draw_stream, mutate
from tests.torture.tally import Mismatch, Tally

HEAD_BYTES = 8
TOKENS = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', rb"\"", rb"\u0000", rb"\n", b"\n", b"\r", b"\0", b"\xff"),
    *(b"\xc2\x85", b"\xe2\x80\xa8", b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"2" * 20),
    *(
        b'"dtype":"F64"',
        b'"shape":[]',
        b'"data_offsets":[0,0]',
        b'"__metadata__":{}',
        b"params/",
        b"data/scale",
    ),
    *(b"optimizer/", b"../", b"/etc/passwd"),
)
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "I32": 4, "U32": 4, "F32": 4}
SIZES |= {"F64": 8, "I64": 8, "U64": 8, "C64": 8}
DTYPES = (*SIZES, "BF16", "F8_E4M3", "O", "", "f4")
NAMES = (
    *("params/../x", "params/", "params//etc/passwd", "params/..", "params/a\nb", "params/\u2028"),
    *("/etc/passwd", "../../x", "data/scale", "data/shift", "x", "", "__metadata__", "params/" + "x" * 5000),
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    1e308,
    float("nan"),
    "",
    "x",
    "\n",
    [],
    [1],
    {},
    {"a": 1},
)


def check_checkpoint(seed: int, number: int, tally: Tally) -> None:
    """One damaged file, its digest repaired or, in one case of eight, not."""
    rng = draw_stream(seed, number)
    ground = make_ground("checkpoint")
    files = create_files()
    whole = rng.choice(files)
    kind = rng.choice(("bytes", "header", "metadata", "unsealed"))
    match kind:
        case "header":
            damaged = _seal(_change_header(rng, whole))
        case "metadata":
            damaged = _seal(_change_metadata(rng, whole))
        case "bytes":
            damaged = _seal(mutate(rng, whole, files, TOKENS))
        case _:
            damaged = mutate(rng, whole, files, TOKENS)
    path = ground / module.LAST
    path.write_bytes(damaged)
    outcome = guard(lambda: load_checkpoint(path), ground, tally)
    if outcome.refusal is None:
        if _seal(damaged) != damaged:
            raise Mismatch(f"accepted without its digest: {damaged!r}")
        check_tensors(outcome.value, damaged)
    elif damaged in files:
        raise Mismatch(f"a whole file was refused: {outcome.refusal}")
    tally.counts[f"{kind} {'refused' if outcome.refusal else 'accepted'}"] += 1
    tally.counts["cases"] += 1


def check_tensors(checkpoint: Checkpoint, content: bytes) -> None:
    """What was loaded is what the file says, read another way."""
    end = HEAD_BYTES + int.from_bytes(content[:HEAD_BYTES], "little")
    header = json.loads(content[HEAD_BYTES:end], object_pairs_hook=_refuse_twins)
    groups = {
        "params/": checkpoint.params,
        "statistics/": checkpoint.statistics,
        "optimizer/": checkpoint.slots,
    }
    loaded = {prefix + key: array for prefix, group in groups.items() for key, array in group.items()}
    loaded |= {"data/scale": checkpoint.scale, "data/shift": checkpoint.shift}
    metadata = json.loads(header.pop("__metadata__")["cnnctl"], object_pairs_hook=_refuse_twins)
    if not _covers(checkpoint.metadata.model_dump(mode="json"), metadata):
        raise Mismatch(f"{checkpoint.metadata} was read from {metadata}")
    if loaded.keys() != header.keys():
        raise Mismatch(f"{sorted(loaded)} were read from {sorted(header)}")
    used = []
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        _check_tensor(name, loaded[name], entry, content[end + start : end + stop])
        used.append((start, stop))
    used.sort()
    if [start for start, _ in used] != [0, *(stop for _, stop in used)][:-1] or used[-1][1] != len(
        content
    ) - end:
        raise Mismatch(f"tensors at {used} do not fill {len(content) - end} bytes")
    checkpoint.pack()


def _covers(found: object, given: object) -> bool:
    """Whether all that was given is there; fields that were left out have defaults."""
    if isinstance(found, dict) and isinstance(given, dict):
        return all(key in found and _covers(found[key], value) for key, value in given.items())
    if isinstance(found, float) and isinstance(given, int):
        given = float(given)  # as JSON is read elsewhere, too: large integers are rounded
    return found == given


def _check_tensor(name: str, array: Array, entry: dict[str, Any], data: bytes) -> None:
    shape = tuple(entry["shape"])
    if array.shape != shape or array.tobytes() != data or array.size * SIZES[entry["dtype"]] != len(data):
        raise Mismatch(f"{name}: {array.dtype} {array.shape} was read from {entry}")


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Mismatch(f"a name twice was accepted: {[name for name, _ in pairs]}")
    return dict(pairs)


@cache
def create_files() -> list[bytes]:
    """Small whole checkpoints; loads them, so that what is imported late is there before it is watched."""
    files = []
    for step, shape in enumerate(((2, 3), (4, 1, 3, 3), (0, 5))):
        weight = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7
        progress = Progress(step=step, epoch=1, position=3, loss_sum=0.1, correct=5, images=12, best=0.75)
        checkpoint = Checkpoint(
            Metadata(progress=progress, config="name: x\n", seed=231, engine={"backend": "naive"}),
            params={"conv1.weight": weight, "conv1.bias": np.array([0, -0.0], np.float32)},
            statistics={"batchnorm1.running_mean": np.full(2, 0.5)},
            slots={"m/conv1.weight": weight, "v/conv1.weight": weight**2},
            scale=np.full(1, 1 / 255),
            shift=np.zeros((1, 1, 3)),
        )
        files.append(bytes(checkpoint.pack()))
        check_tensors(Checkpoint.unpack(files[-1], make_ground("checkpoint") / module.LAST), files[-1])
    return files


def _seal(content: bytes) -> bytes:
    """What somebody does who wants to get past the digest."""
    zeroed = content[: module._DIGEST.start] + b"0" * 64 + content[module._DIGEST.stop :]
    if len(zeroed) != len(content):
        return content
    digest = hashlib.sha256(zeroed).hexdigest().encode()
    return content[: module._DIGEST.start] + digest + content[module._DIGEST.stop :]


def _draw_value(rng: Random) -> Any:
    """A copy, since what goes into a header may be changed there."""
    return deepcopy(rng.choice(VALUES))


def _open(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = HEAD_BYTES + int.from_bytes(content[:HEAD_BYTES], "little")
    return json.loads(content[HEAD_BYTES:end]), content[end:]


def _close(header: str, data: bytes, length: int | None = None) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return (len(text) if length is None else length).to_bytes(HEAD_BYTES, "little") + text + data


def _change_header(rng: Random, whole: bytes) -> bytes:
    """Names, types, shapes and offsets that lie, entries twice or gone, lengths that no file has."""
    header, data = _open(whole)
    length = None
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice([name for name in header if name != "__metadata__"] or [""])
        entry = header.get(name)
        if not isinstance(entry, dict):
            break
        match rng.randrange(10):
            case 0:
                entry["dtype"] = rng.choice(DTYPES)
            case 1:
                entry["shape"] = [rng.choice(INTERESTING) for _ in range(rng.randrange(5))]
            case 2:
                entry["data_offsets"] = [rng.choice((0, 8, 24, len(data), *INTERESTING)) for _ in range(2)]
            case 3:
                field = rng.choice(("dtype", "shape", "data_offsets", "more"))
                entry[field] = _draw_value(rng)
            case 4:
                header[rng.choice(NAMES)] = header.pop(name)
            case 5:
                header.pop(name)
            case 6:
                header[name] = _draw_value(rng)
            case 7:
                other = rng.choice(list(header))
                header[name] = header[other]
            case 8:
                data = data[: rng.randrange(len(data) + 1)] + rng.randbytes(rng.choice((0, 1, 8)))
            case _:
                length = rng.choice((0, 1, 7, len(data), *(abs(number) for number in INTERESTING)))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=rng.random() < 0.5)
    match rng.randrange(8):
        case 0:
            text = text[:-1] + "," + text[text.rindex('"', 0, text.index(":{", 20)) :]
        case 1:
            twin = rng.choice(('"data/scale":', '"params/x":', '"__metadata__":'))
            text = f"{text[:-1]},{twin}{rng.choice(list(map(json.dumps, header.values())))}}}"
        case 2:
            deep = rng.choice((10, 127, 128, 1000, 20_000))
            text = f'{text[:-1]},"x":{"[" * deep}{"]" * deep}}}'
        case 3:
            text += " " * rng.choice((1, 8, 5000))
    return _close(text, data, None if length is None else min(length, 2**64 - 1))


def _change_metadata(rng: Random, whole: bytes) -> bytes:
    """Fields of the JSON text inside the header: of other types and values, twice, gone or unknown."""
    header, data = _open(whole)
    text = header["__metadata__"]["cnnctl"]
    for _ in range(rng.choice((1, 1, 2))):
        text = rng.choice(METADATA_CHANGES)(rng, text)
    header["__metadata__"] = rng.choice(
        (*({"cnnctl": text},) * 8, {"cnnctl": text, "x": "y"}, text, {}, {"cnnctl": 3})
    )
    return _close(json.dumps(header, separators=(",", ":")), data)


def _change_field(rng: Random, text: str) -> str:
    try:
        metadata = json.loads(text)
        part = metadata
        for name in rng.choice(((), ("progress",), ("progress", "plateau"), ("engine",))):
            part = part[name]
        part[rng.choice((*part, "unknown", "a\nb"))] = _draw_value(rng)
    except (ValueError, LookupError, TypeError, RecursionError):  # damaged already
        return text
    return json.dumps(metadata, separators=(",", ":"))


METADATA_CHANGES: tuple[Callable[[Random, str], str], ...] = (
    _change_field,
    _change_field,
    _change_field,
    lambda rng, text: text.replace(
        rng.choice((":0", ":3", ":12", ":0.75", ":231")), rng.choice((":-1", ":NaN", ":1e999")), 1
    ),
    lambda rng, text: text[:-1] + rng.choice((',"seed":1}', ',"progress":{}}', ',"sha256":"x"}', ',"x":1}')),
    lambda rng, text: text[:-1] + ',"x":' + "[" * 5000 + "]" * 5000 + "}",
    lambda rng, text: mutate(rng, text.encode(), [text.encode()], TOKENS).decode("utf-8", "replace"),
)
