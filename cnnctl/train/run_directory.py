"""The run directory: one folder that anyone can read, resume, compare and trust.

    runs/20260131-235959-mnist-simple-7f3a/
      config.yaml     as it was given             resolved.yaml  with everything filled in
      env.json        what it was made with       status.json    where it stands
      data.json       classes of its images       initial.safetensors  filters before training
      log.txt         what happened, with times   lock           held while somebody trains
      metrics.jsonl   metrics.csv                 timing.json    timing.csv
      origin.json     of a fork, what it goes on from
      checkpoints/    eval/    figures/ (once there are some)

A directory is complete before the first step: status.json comes last, and without it a
directory is no run. No name is ever used twice, and one process at a time trains in it.
Whatever has become of a file, reading it ends, in a value or in one line of error. What a
checkpoint holds and what a metric means is not known here.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from time import sleep
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cnnctl.errors import RunError
from cnnctl.train.atomic import (
    open_regular,
    remove_leftovers,
    reporting_os_errors,
    sync_directory,
    write_atomically,
)

MAX_BYTES = 2**20
"""Of a file that is read at once; tables that grow with the run are read line by line."""
MAX_DETAILS_BYTES = 2**23
"""Of a file that has something for every class: of some ten thousand classes."""
MAX_LINE_BYTES = 2**16
"""Of a line of a table."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
Word = Annotated[str, Field(max_length=64)]
Model = TypeVar("Model", bound=BaseModel)
State = Literal["running", "finished", "interrupted", "failed", "diverged"]
_FOLDERS = ("checkpoints", "eval")
_ATTEMPTS = 100
_LOCK_ATTEMPTS, _LOCK_PAUSE_SECONDS = 5, 0.01


class Status(BaseModel):
    """Where a run stands. "running" in a directory that nobody has locked means: killed.

    Attributes:
        step, epoch: steps and epochs done.
        pid: the process that trains, or trained last.
        started, updated: UTC, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State
    step: Count
    epoch: Count
    pid: Count
    started: Word
    updated: Word


class RunDirectory:
    """A run directory that is there already; `create` makes a new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "eval"
        self.figures = path / "figures"

    @classmethod
    @contextmanager
    def create(
        cls,
        runs_dir: Path,
        name: str,
        files: Mapping[str, bytes | bytearray],
        folders: Iterable[str] = _FOLDERS,
    ) -> Iterator["RunDirectory"]:
        """Make `<runs_dir>/<UTC time>-<name>-<4 hex>/` with these files, and hold its lock.

        What trains nothing has no `folders` for checkpoints and scores.
        Raises RunError when the disk refuses; the directory is gone again then.
        """
        run = cls(_make_directory(runs_dir, name))
        with ExitStack() as stack:
            try:
                stack.enter_context(run.locked())
                run._fill(files, folders)
                with reporting_os_errors(runs_dir):
                    sync_directory(runs_dir)
            except BaseException:
                shutil.rmtree(run.path, ignore_errors=True)
                raise
            yield run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who trains here. The lock is freed even by a holder's death.

        Raises RunError when somebody else holds it.
        """
        path = self.path / "lock"
        with reporting_os_errors(path):
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            with reporting_os_errors(path):
                if not _seize(descriptor):
                    holder = ascii(os.read(descriptor, 32).decode("latin-1"))[1:-1]
                    raise RunError(f"{self.path}: process {holder} is training in it; wait or stop it")
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
            for directory in (self.path, self.checkpoints, self.evaluations, self.figures):
                remove_leftovers(directory)
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Whether somebody trains here now. Finds out by sharing the lock for an instant."""
        path = self.path / "lock"
        if not path.exists():
            return False
        with reporting_os_errors(path), open(path, "rb", opener=open_regular) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def read_text(self, file: str, most_bytes: int = MAX_BYTES) -> str:
        """A file of the directory. Raises RunError when it cannot be read, or is longer than that."""
        path = self.path / file
        with reporting_os_errors(path), open(path, "rb", opener=open_regular) as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise RunError(f"{path}: damaged: more than the {most_bytes:,} bytes it can have")
        return content.decode(errors="replace")

    def read_start(self, file: str, length: int) -> bytes:
        """The first bytes of a file. Raises RunError when it has fewer, or cannot be read."""
        path = self.path / file
        with reporting_os_errors(path), open(path, "rb", opener=open_regular) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size < length:
                raise RunError(f"{path}: {size} bytes where {length} are known to have been written")
            return stream.read(length)

    def read_lines(self, file: str, start: int = 0) -> Iterator[bytes]:
        """Lines from a place in a file, as many as it has now; of one without end, it comes in pieces.

        Raises RunError when it cannot be read.
        """
        path = self.path / file
        with reporting_os_errors(path), open(path, "rb", opener=open_regular) as stream:
            stream.seek(min(start, os.fstat(stream.fileno()).st_size))
            while line := stream.readline(MAX_LINE_BYTES):
                yield line

    def read_json(self, file: str, most_bytes: int = MAX_BYTES) -> Any:
        """What a file says. Raises RunError when it cannot be read or is no JSON."""
        try:
            return json.loads(self.read_text(file, most_bytes))
        except RecursionError:
            reason = "nested too deeply"
        except ValueError as error:
            reason = str(error)
        raise RunError(f"{self.path / file}: damaged: {reason}")

    def read_model(self, model: type[Model], file: str, most_bytes: int = MAX_BYTES) -> Model:
        """A JSON file as that model. Raises RunError when it cannot be read or does not fit."""
        try:
            return model.model_validate(self.read_json(file, most_bytes))
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"{ascii(str(part)[:40])[1:-1]}: " for part in first["loc"][:4])
            raise RunError(f"{self.path / file}: {place}{first['msg']}") from error

    def read_status(self) -> Status:
        """Raises RunError when there is no run here or its status is damaged."""
        if not self.path.is_dir():
            raise RunError(f"{self.path}: there is no such run directory")
        return self.read_model(Status, "status.json")

    def write_status(self, state: State, step: int, epoch: int) -> None:
        """Replace status.json; the time of the start stays what it was."""
        now = read_clock().isoformat(timespec="seconds")
        started = self.read_status().started if (self.path / "status.json").exists() else now
        status = Status(state=state, step=step, epoch=epoch, pid=os.getpid(), started=started, updated=now)
        self.write_json("status.json", status.model_dump())

    def write_json(self, file: str, document: Mapping[str, object]) -> None:
        """Write one document, whole or not at all."""
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / file, text.encode())

    def make_figures(self) -> Path:
        """The folder for pictures, made when it is first needed."""
        with reporting_os_errors(self.figures):
            self.figures.mkdir(exist_ok=True)
        return self.figures

    def log(self, message: str) -> None:
        """Add a line with the time to log.txt."""
        path = self.path / "log.txt"
        with reporting_os_errors(path), open(path, "a", encoding="utf-8", opener=open_regular) as file:
            file.write(f"{read_clock().isoformat(timespec='milliseconds')} {message}\n")

    def _fill(self, files: Mapping[str, bytes | bytearray], folders: Iterable[str]) -> None:
        for directory in (self.path / folder for folder in folders):
            with reporting_os_errors(directory):
                directory.mkdir()
        for file, content in files.items():
            write_atomically(self.path / file, content)
        self.log("created")
        self.write_status("running", 0, 0)


def list_names(runs_dir: Path) -> list[str]:
    """The names of the run directories there, the oldest first."""
    found = sorted(path.parent.name for path in runs_dir.glob("*/status.json"))
    return [name for name in found if not name.startswith(".")]


def find_run(run: str, runs_dir: Path) -> Path:
    """The directory meant by a path, by "latest", or by what one run's name alone has.

    That is the directory's name or the start of it, or the name behind the time, as given to `train`,
    or the start of that. The latest is one that trains: a measurement has no config.

    Raises RunError, with the names that come near, when there is none or more than one.
    """
    if (Path(run) / "status.json").is_file():
        return Path(run)
    runs = {name: runs_dir / name for name in list_names(runs_dir)}
    training = [path for path in runs.values() if (path / "config.yaml").is_file()]
    if run == "latest" and training:
        return max(training, key=_get_start)
    meant = [run] if run in runs else [name for name in runs if run and name.startswith(run)]
    meant = meant or [name for name in runs if run and _get_given_name(name) == run]
    meant = meant or [name for name in runs if run and _get_given_name(name).startswith(run)]
    if len(meant) == 1:
        return runs[meant[0]]
    if meant:
        raise RunError(f"run: {run!r} could be {_join_names(meant)}")
    words = dict.fromkeys([*runs, *map(_get_given_name, runs), *["latest"] * bool(training)])
    near = get_close_matches(run, words, n=3, cutoff=0.6)
    hint = f"near: {_join_names(near)}" if near else f"runs there: {len(runs) or 'none'}"
    raise RunError(f"run: {run!r} is neither a run directory nor the name of one under {runs_dir}; {hint}")


def _get_start(path: Path) -> tuple[str, int]:
    return path.name[:15], (path / "config.yaml").stat().st_mtime_ns


def _get_given_name(directory: str) -> str:
    """The middle of <UTC time>-<name>-<4 hex>."""
    return directory[16:-5]


def _join_names(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _seize(descriptor: int) -> bool:
    """Lock for oneself alone; whoever only looks (`is_locked`) is gone by the next attempt."""
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sleep(_LOCK_PAUSE_SECONDS * (attempt < _LOCK_ATTEMPTS - 1))
        else:
            return True
    return False


def _make_directory(runs_dir: Path, name: str) -> Path:
    with reporting_os_errors(runs_dir):
        runs_dir.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        path = runs_dir / f"{read_clock():%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}"
        with reporting_os_errors(path):
            try:
                path.mkdir()
            except FileExistsError:
                continue
        return path
    raise RunError(f"{runs_dir}: {_ATTEMPTS} names for a new run were all taken")


def read_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)
