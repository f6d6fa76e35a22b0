"""Checkpoints: one safetensors file with everything a run needs to go on bit for bit.

The tensors are `params/<key>` (natural layout), `statistics/<key>` (what norms gather),
`optimizer/<slot>/<key>`, and the normalizer as `data/scale` and `data/shift`. The
metadata is one JSON text under the key `cnnctl`; it starts with a SHA-256 over the whole
file, in which the digest itself counts as 64 zeros: that finds accidents, not forgers. Any
framework can open the file.

Nothing is unpacked before the digest holds, and no pickle is read or written, ever. A
file whose digest holds is not believed either: unknown names, keys given twice and numbers
that are not finite are refused.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as unpack_tensors
from safetensors.numpy import save as pack_tensors

from cnnctl.backends.specs import Array
from cnnctl.errors import CheckpointError, RunError, describe_alternatives, quote
from cnnctl.optim import PlateauState
from cnnctl.train.atomic import open_regular, reporting_os_errors, write_atomically

Ending = Literal["epochs", "max_steps", "max_minutes", "stop_at", "early_stopping"]
LAST, PREVIOUS, BEST = "last.safetensors", "last.previous.safetensors", "best.safetensors"

_HEAD = rb'{"__metadata__":{"cnnctl":"{\"sha256\":\"'
_DIGEST = slice(8 + len(_HEAD), 8 + len(_HEAD) + 64)
_ZEROS = b"0" * 64
_NAME = re.compile(r"data/(scale|shift)|(params|statistics|optimizer)(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")


def _check_plateau(state: PlateauState) -> PlateauState:
    if not (
        isfinite(state.scale) and isfinite(state.best or 0) and min(state.bad_epochs, state.cooldown) >= 0
    ):
        raise ValueError(f"{state} cannot be")
    return state


@dataclass
class Progress:
    """Where a run stands, between two steps.

    Attributes:
        step: steps done.
        epoch: epochs done.
        position: steps done of the epoch after these.
        loss_sum, correct, images: sums over that epoch's own steps.
        best: what is monitored of the validation split, at its best so far, if there is one.
        bad_epochs: epochs since then.
        ended_by: what ended the training, once it has ended.
        plateau: what a schedule that looks at losses has seen.
        jsonl_bytes, csv_bytes: how much of the metrics files belongs to this state.
    """

    step: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    position: NonNegativeInt = 0
    loss_sum: FiniteFloat = 0.0
    correct: NonNegativeInt = 0
    images: NonNegativeInt = 0
    best: FiniteFloat | None = None
    bad_epochs: NonNegativeInt = 0
    ended_by: Ending | None = None
    plateau: Annotated[PlateauState, AfterValidator(_check_plateau)] = field(default_factory=PlateauState)
    jsonl_bytes: NonNegativeInt = 0
    csv_bytes: NonNegativeInt = 0


class Metadata(BaseModel):
    """What a checkpoint says besides its tensors.

    Attributes:
        config: the text of resolved.yaml.
        seed: the engine's seed; with the epoch it gives the order of the images.
        engine: what bit-for-bit equality rests on: build, instruction set, backend, dtype.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sha256: str = _ZEROS.decode()  # first, so that the digest always lies at one place
    format: Literal[2] = 2
    progress: Progress
    config: str
    seed: int
    engine: dict[str, str]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint's metadata and tensors.

    Attributes:
        params, statistics, slots: key -> array, as the plan's `export_params` and so on give them.
        scale, shift: the normalizer's arrays, (C,) and (C, H, W).
        origin: the file it was read from, for messages.
    """

    metadata: Metadata
    params: Mapping[str, Array]
    statistics: Mapping[str, Array]
    slots: Mapping[str, Array]
    scale: Array
    shift: Array
    origin: str = "the state in memory"

    def find_nonfinite(self) -> str | None:
        """The key of the first parameter, statistic or slot that holds a NaN or an infinity."""
        arrays = {**self.params, **self.statistics, **self.slots}
        return next((key for key, array in arrays.items() if not np.isfinite(array).all()), None)

    def check_fit(self, other: "Checkpoint") -> None:
        """Raises CheckpointError unless keys, shapes and element types are those of the other."""
        for found, expected in zip(self._groups().values(), other._groups().values(), strict=True):
            for key in sorted(found.keys() | expected.keys()):
                if key not in found:
                    raise CheckpointError(f"{self.origin}: {key} is missing")
                if key not in expected:
                    raise CheckpointError(f"{self.origin}: {key} belongs to another network")
                have, want = found[key], expected[key]
                if have.shape != want.shape or have.dtype != want.dtype:
                    raise CheckpointError(
                        f"{self.origin}: {key} is {have.dtype} {have.shape} "
                        f"where {want.dtype} {want.shape} is needed"
                    )

    def pack(self) -> bytearray:
        """The file's bytes: the same state always gives the same bytes."""
        groups = self._groups().items()
        tensors = {prefix + key: array for prefix, group in groups for key, array in group.items()}
        tensors |= {"data/scale": self.scale, "data/shift": self.shift}
        contiguous = {key: np.asarray(array, order="C") for key, array in tensors.items()}
        content = bytearray(pack_tensors(contiguous, {"cnnctl": self.metadata.model_dump_json()}))
        content[_DIGEST] = _compute_digest(content)
        return content

    def _groups(self) -> dict[str, Mapping[str, Array]]:
        """The arrays by what their names in the file begin with."""
        return {"params/": self.params, "statistics/": self.statistics, "optimizer/": self.slots}

    @classmethod
    def unpack(cls, content: bytes, path: Path) -> "Checkpoint":
        """The reverse of `pack`. Raises CheckpointError, naming `path`, for anything else."""
        if content[8 : _DIGEST.start] != _HEAD:
            raise CheckpointError(f"{path}: not a checkpoint of cnnctl, or its first bytes are damaged")
        if content[_DIGEST] != _compute_digest(content):
            raise CheckpointError(f"{path}: damaged: its {len(content)} bytes do not match their SHA-256")
        try:
            tensors = unpack_tensors(content)
            header = _parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
            text = header["__metadata__"]["cnnctl"]
            metadata = Metadata.model_validate_json(text)
            _parse_json(text)
            if strange := sorted(name for name in tensors if not _NAME.fullmatch(name)):
                raise ValueError(f"tensor {strange[0]!r} is none that a checkpoint has")
            scale, shift = tensors["data/scale"], tensors["data/shift"]
            if shift.ndim != 3 or scale.shape != shift.shape[:1]:
                raise ValueError(
                    f"data/scale, data/shift: {scale.shape}, {shift.shape} are not (C,), (C, H, W)"
                )
            for name, array in (("data/scale", scale), ("data/shift", shift)):
                if array.dtype != np.float64 or not np.isfinite(array).all():
                    raise ValueError(f"{name}: {array.dtype} where finite float64 is needed")
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise CheckpointError(f"{path}: metadata: {quote(reason)}") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: unreadable: {quote(str(error))}") from error
        params, statistics, slots = (_select(tensors, p) for p in ("params/", "statistics/", "optimizer/"))
        return cls(metadata, params, statistics, slots, scale, shift, origin=str(path))


def save_checkpoint(directory: Path, content: bytes | bytearray, name: str = LAST) -> None:
    """Write a packed checkpoint; the `last` before it is kept as a second generation."""
    write_atomically(directory / name, content, previous=directory / PREVIOUS if name == LAST else None)


def keep_checkpoint(directory: Path, content: bytes | bytearray, step: int, keep: int) -> None:
    """Write one more under its step's number, then remove all but the newest `keep` of those."""
    write_atomically(directory / f"step-{step:08}.safetensors", content)
    for path in sorted(directory.glob("step-*.safetensors"))[:-keep]:
        with reporting_os_errors(path):
            path.unlink()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one file. Raises CheckpointError when it is missing or damaged."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            content = file.read(_DIGEST.start)
            if content[8:] == _HEAD:
                file.seek(0)
                content = file.read()
    except RunError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: takes more memory than there is") from error
    return Checkpoint.unpack(content, path)


def load_last_checkpoint(directory: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The newest generation that is whole; `warn` hears of a newer one that is not."""
    try:
        return load_checkpoint(directory / LAST)
    except CheckpointError as error:
        try:
            older = load_checkpoint(directory / PREVIOUS)
        except CheckpointError as second:
            raise CheckpointError(f"{error}; {second}") from error
        warn(f"{error}; taking the generation before it, of step {older.metadata.progress.step}")
        return older


def load_named_checkpoint(directory: Path, name: str, warn: Callable[[str], None]) -> Checkpoint:
    """That of a name without its ending: "last", "best", or one that was kept."""
    if name == LAST.partition(".")[0]:
        return load_last_checkpoint(directory, warn)
    path = directory / f"{name}.safetensors"
    known = sorted(file.name.removesuffix(".safetensors") for file in directory.glob("*.safetensors"))
    if name not in known:
        raise CheckpointError(f"checkpoint: {name!r} is not known; {describe_alternatives(name, known)}")
    return load_checkpoint(path)


def _compute_digest(content: bytes | bytearray) -> bytes:
    view = memoryview(content)
    digest = hashlib.sha256(view[: _DIGEST.start])
    digest.update(_ZEROS)
    digest.update(view[_DIGEST.stop :])
    return digest.hexdigest().encode()


def _parse_json(text: str | bytes) -> Any:
    """What the text says. Raises ValueError if it says something twice."""

    def refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"{name!r} stands there twice")
            found[name] = value
        return found

    return json.loads(text, object_pairs_hook=refuse_twins)


def _select(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {key.removeprefix(prefix): array for key, array in tensors.items() if key.startswith(prefix)}
