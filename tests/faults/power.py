"""R2: a power cut leaves the old checkpoint or the new one, never neither, and the run goes on from it.

A run writes on a disk that takes notes (disk.c). From the notes up to any moment a disk is put together as a
power cut might leave it: what was synced is there; of all else each write, each of its 512-byte sectors and
each change of a name is there or is not, whatever came before or after it (as in SQLite's test6.c, and
Pillai et al. 2014, "All file systems are not created equal").
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from cnnctl.errors import CheckpointError
from cnnctl.train.checkpoint import load_last_checkpoint
from tests.faults.disks import set_up
from tests.faults.launcher import get_launcher
from tests.faults.scenes import begin, create_scene, find_runs, finish
from tests.torture.guard import make_ground
from tests.torture.mutations import draw_stream
from tests.torture.tally import Mismatch, Tally

SECTOR = 512
SCENES = ("often", "early", "plain")
PLAYS = (*SCENES, "resume", "fork")
Change = TypeVar("Change")
WAYS = ("synced alone", "everything", "some", "torn", "all but one")


@dataclass(eq=False)
class Inode:
    """A file or a folder: what is surely on disk, and what is on its way there.

    Attributes:
        content: of a file.
        writes: (offset, data) not synced; (length, None) cuts it.
        names: of a folder, name -> what it names.
        changes: of names, not synced: (name, what it names or None).
    """

    content: bytes = b""
    writes: list[tuple[int, bytes | None]] = field(default_factory=list)
    names: dict[str, "Inode"] = field(default_factory=dict)
    changes: list[list[tuple[str, "Inode | None"]]] = field(default_factory=list)
    is_folder: bool = False

    def sync(self) -> None:
        """Everything on its way arrives."""
        self.content = write_all(self.content, self.writes)
        self.names = change_all(self.names, self.changes)
        self.writes, self.changes = [], []


class Record(NamedTuple):
    """One thing that a process did to its disk."""

    kind: str
    words: tuple[str, ...]
    data: bytes


class Recording(NamedTuple):
    """What a command did, from which state of its folder on."""

    scene: str
    root: Path
    before: dict[Path, bytes | None]
    records: list[Record]


def check_power_cut(seed: int, number: int, tally: Tally) -> None:
    """The disk after a cut at a random record, in one of five ways."""
    rng = draw_stream(seed, number)
    play, way = rng.choice(PLAYS), rng.choice(WAYS)
    recording = record(play)
    moment = rng.randrange(len(recording.records) + 1)
    disk = replay(recording, moment)
    ground = make_ground("faults") / "power"
    shutil.rmtree(ground, ignore_errors=True)
    unsynced = write_out(rng, disk, ground, way)
    what = f"{play} cut after record {moment} of {len(recording.records)}, {way}"
    try:
        check_what_is_left(recording, moment, ground)
    except Mismatch as mismatch:
        raise Mismatch(f"{what}: {mismatch}") from None
    tally.counts[way] += 1
    tally.counts["unsynced changes"] += unsynced
    tally.counts["cases"] += 1


def check_what_is_left(recording: Recording, moment: int, ground: Path) -> None:
    """What the process took for saved is there, and every run that is there ends as it should."""
    marks = [mark.words[0] for mark in recording.records[:moment] if mark.kind == "mark"]
    scene = create_scene(recording.scene)
    runs = {run.name: run for run in find_runs(ground)}
    known = {path.parts[0] for path in recording.before}
    begun = {mark.removeprefix("begun ") for mark in marks if mark.startswith("begun ")}
    if lost := (known | begun) - runs.keys():
        raise Mismatch(f"{sorted(lost)} are gone, or are no runs any more")
    for name, run in runs.items():
        try:
            step = load_last_checkpoint(run / "checkpoints", lambda _: None).metadata.progress.step
        except CheckpointError as error:
            raise Mismatch(f"no checkpoint is left: {error}") from None
        saved = [int(mark.split()[2]) for mark in marks if mark.startswith(f"saved {name} ")]
        if saved and step < saved[-1]:
            raise Mismatch(f"step {saved[-1]} was saved, and step {step} is there")
        finish(scene, run)


@cache
def record(play: str) -> Recording:
    """Let the command run, and read the notes."""
    log = make_ground("faults") / f"{play}.log"
    if play in SCENES:
        scene, root = play, make_ground("faults") / f"{play}-runs"
        args = begin(create_scene(play), root)
        root.mkdir()
    else:
        scene = "often"
        root, args = set_up(play)
    entries = {path.relative_to(root): path for path in sorted(root.rglob("*"))}
    before = {name: None if path.is_dir() else path.read_bytes() for name, path in entries.items()}
    ended = get_launcher().run(args, watched=(root, log))
    if ended.code:
        raise Mismatch(f"{play} fails on a whole disk: {ended.err}")
    recording = Recording(scene, root, before, list(read_records(log.read_bytes())))
    check_notes(recording)
    return recording


def check_notes(recording: Recording) -> None:
    """The notes are complete: with everything in them done, they give the folder as it is."""
    copy = make_ground("faults") / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    write_out(Random(0), replay(recording, len(recording.records)), copy, "everything")
    there, put_together = (
        {path.relative_to(root): path.is_dir() or path.read_bytes() for path in root.rglob("*")}
        for root in (recording.root, copy)
    )
    if there != put_together:
        differing = {name for name in there | put_together if there.get(name) != put_together.get(name)}
        raise Mismatch(f"disk.c has missed a change to {sorted(map(str, differing))}")


def read_records(log: bytes) -> Iterator[Record]:
    """The notes that disk.c takes: words that end in zero bytes, a newline, and a write's data."""
    at = 0
    while at < len(log):
        end = log.index(b"\0\n", at)
        kind, *words = log[at:end].decode().split("\0")
        at = end + 2
        size = int(words[2]) if kind == "write" else 0
        yield Record(kind, tuple(words), log[at : at + size])
        at += size


def replay(recording: Recording, moment: int) -> Inode:
    """The folder of runs after so many records."""
    root = Inode(is_folder=True)
    for path, content in recording.before.items():
        inode = Inode(content or b"", is_folder=content is None)
        _find(root, path.parent).names[path.name] = inode
    live = _Live(recording.root, root)
    for entry in recording.records[:moment]:
        live.play(entry)
    return root


class _Live:
    """The folder as the process sees it: all changes are there at once."""

    def __init__(self, place: Path, root: Inode) -> None:
        self._root, self._place = root, place
        self._open: dict[str, Inode] = {}

    def play(self, entry: Record) -> None:
        words = entry.words
        match entry.kind:
            case "create" | "mkdir":
                self._change(words[0], Inode(is_folder=entry.kind == "mkdir"))
            case "open":
                self._open[words[0]] = self._look_up(words[1])
            case "close":
                self._open.pop(words[0], None)
            case "write":
                self._open[words[0]].writes.append((int(words[1]), entry.data))
            case "truncate":
                self._open[words[0]].writes.append((int(words[1]), None))
            case "sync":
                self._open[words[0]].sync()
            case "rename":
                inode = self._look_up(words[0])
                old, new = (Path(word) for word in words)
                changes = [(new.name, inode), (old.name, None)]
                if old.parent != new.parent:
                    raise ValueError(f"{old} -> {new}: from one folder to another, which nothing here does")
                self._look_up(str(old.parent)).changes.append(changes)
            case "unlink":
                self._change(words[0], None)

    def _change(self, path: str, inode: Inode | None) -> None:
        self._look_up(os.path.dirname(path)).changes.append([(os.path.basename(path), inode)])

    def _look_up(self, path: str) -> Inode:
        inode = self._root
        for name in Path(path).relative_to(self._place).parts:
            inode = change_all(inode.names, inode.changes)[name]
        return inode


def _find(root: Inode, path: Path) -> Inode:
    for name in path.parts:
        root = root.names[name]
    return root


def write_out(rng: Random, inode: Inode, path: Path, way: str) -> int:
    """What a cut leaves of it, as files below `path`; returns how many changes were unsynced."""
    unsynced = len(inode.writes) + len(inode.changes)
    if not inode.is_folder:
        path.write_bytes(
            write_all(inode.content, choose(rng, inode.writes, way), rng if way == "torn" else None)
        )
        return unsynced
    path.mkdir()
    for name, named in change_all(inode.names, choose(rng, inode.changes, way)).items():
        unsynced += write_out(rng, named, path / name, way)
    return unsynced


def choose(rng: Random, changes: list[Change], way: str) -> list[Change]:
    """Those that arrived, in their order."""
    match way:
        case "synced alone":
            return []
        case "everything":
            return changes
        case "all but one":
            dropped = rng.randrange(len(changes)) if changes else 0
            return changes[:dropped] + changes[dropped + 1 :]
        case _:
            return [change for change in changes if rng.random() < 0.5]


def write_all(content: bytes, writes: list[tuple[int, bytes | None]], rng: Random | None = None) -> bytes:
    """The content after these writes, or, torn at random, after some of their sectors."""
    result = bytearray(content)
    for offset, data in writes:
        if data is None:
            del result[offset:]
            result.extend(bytes(max(offset - len(result), 0)))
            continue
        parts = range(0, len(data), SECTOR)
        for start in parts:
            if rng and rng.random() < 0.5:
                continue
            part = data[start : start + SECTOR]
            end = offset + start + len(part)
            result.extend(bytes(max(end - len(result), 0)))
            result[offset + start : end] = part
    return bytes(result)


def change_all(names: dict[str, Inode], changes: list[list[tuple[str, Inode | None]]]) -> dict[str, Inode]:
    """The names after these changes."""
    result = dict(names)
    for change in changes:
        for name, inode in change:
            if inode is None:
                result.pop(name, None)
            else:
                result[name] = inode
    return result
