"""R3: a disk that is full, read-only or broken ends a command in one clear line, and nothing saved is lost.

Every single call that concerns the run's folder is made to fail in turn, each in several ways. When the disk
is well again the run goes on to the end it would have come to.
"""

import errno
import shutil
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from cnnctl.train.checkpoint import load_last_checkpoint
from tests.faults.launcher import NAMES, READS, SHORT_WRITE, SYNCS, WRITES, Ended, Failing, get_launcher
from tests.faults.scenes import begin, check_line, clear_runs, create_scene, find_runs, finish, read_outcome
from tests.torture.guard import make_ground
from tests.torture.tally import Mismatch, Tally

_CHANGES = WRITES | NAMES | SYNCS
NEVER = 2**31 - 1
HALFWAY = 130
"""The call that ends the run that is gone on with."""


class Fault(NamedTuple):
    """A way for a disk to fail.

    Attributes:
        kinds: of calls that fail so.
        lasting: whether everything after it fails as well.
        harmless: whether a command has to manage in spite of it.
    """

    error: int
    kinds: int
    lasting: bool = False
    harmless: bool = False


FAULTS = {
    "ENOSPC": Fault(errno.ENOSPC, _CHANGES),
    "ENOSPC for good": Fault(errno.ENOSPC, WRITES | SYNCS, lasting=True),
    "EDQUOT": Fault(errno.EDQUOT, _CHANGES, lasting=True),
    "EIO": Fault(errno.EIO, _CHANGES | READS),
    "EIO for good": Fault(errno.EIO, _CHANGES | READS, lasting=True),
    "EROFS": Fault(errno.EROFS, _CHANGES, lasting=True),
    "EINTR": Fault(errno.EINTR, READS | WRITES | SYNCS, harmless=True),
    "a short write": Fault(SHORT_WRITE, WRITES, harmless=True),
}
SCENE = "often"
PLAYS = ("train", "resume", "fork", "eval")


def check_disk(seed: int, number: int, tally: Tally) -> None:
    """One call of one command that fails in one way: all there are, in an order that the seed gives."""
    cases = list_cases(seed)
    play, fault, n = cases[number % len(cases)]
    check_fault(play, fault, n)
    tally.counts[f"{play}, {fault}"] += 1
    tally.counts["cases"] += 1


@cache
def list_cases(seed: int) -> list[tuple[str, str, int]]:
    """Command, fault and number of the call, for every call that there is."""
    cases = []
    for play in PLAYS:
        runs_dir, args = set_up(play)
        ended = get_launcher().run(args, failing=Failing(str(runs_dir), NEVER, _CHANGES | READS, errno.EIO))
        if ended.code:
            raise Mismatch(f"{play} fails on a whole disk: {ended.err}")
        for name, fault in FAULTS.items():
            calls = sum(count for kind, count in ended.calls.items() if kind & fault.kinds)
            cases += [(play, name, n) for n in range(1, calls + 1)]
    Random(seed).shuffle(cases)
    return cases


def check_fault(play: str, name: str, n: int) -> None:
    """Raises Mismatch unless it ends well, or in a line with nothing lost."""
    fault = FAULTS[name]
    runs_dir, args = set_up(play)
    failing = Failing(str(runs_dir), n, fault.kinds, fault.error, fault.lasting)
    ended = get_launcher().run(args, failing=failing)
    what = f"{play}, {name} at call {n}"
    if ended.code not in (0, 1, 2):  # 2 where a config cannot be read
        raise Mismatch(f"{what}: exit code {ended.code}: {ended.err}")
    if ended.code:
        if fault.harmless:
            raise Mismatch(f"{what}: gave up: {ended.err}")
        check_line(ended)
    try:
        check_runs(play, runs_dir, ended, fault)
    except Mismatch as mismatch:
        raise Mismatch(f"{what}: {mismatch}; it had said {ended.err!r}") from None


def check_runs(play: str, runs_dir: Path, ended: Ended, fault: Fault) -> None:
    """Every run that is there can be finished, and what is no run is gone if that was possible."""
    scene, runs = create_scene(SCENE), find_runs(runs_dir)
    entries = list(runs_dir.iterdir()) if runs_dir.exists() else []
    if len(entries) > len(runs) and not fault.lasting:
        raise Mismatch(f"{len(entries) - len(runs)} directories were left that are no runs")
    for run in runs:
        load_last_checkpoint(run / "checkpoints", lambda _: None)
        if play == "eval":
            if read_outcome(run) not in (scene.outcome, evaluate_whole()):
                raise Mismatch("the scores are neither those of before nor those of after")
        else:
            finish(scene, run)


def set_up(play: str) -> tuple[Path, list[str]]:
    """A folder of runs as the command finds it, and its arguments."""
    scene = create_scene(SCENE)
    runs_dir = clear_runs("disks/runs")
    start = begin(scene, runs_dir)
    if play == "train":
        return runs_dir, start
    kept = make_ground("faults") / "disks" / ("whole" if play == "eval" else "half")
    if not kept.exists():
        lasting = Failing(str(runs_dir), HALFWAY, _CHANGES, errno.EIO)
        get_launcher().run(start, failing=None if play == "eval" else lasting)
        runs_dir.rename(kept)
    shutil.copytree(kept, runs_dir)
    (run,) = find_runs(runs_dir)
    resume = ["train", "--resume", str(run), "--quiet"]
    fork = [*resume, "--fork", "--runs-dir", str(runs_dir)]
    return runs_dir, {"resume": resume, "fork": fork, "eval": ["eval", str(run)]}[play]


@cache
def evaluate_whole() -> dict[str, str]:
    """What is in a run after it was evaluated."""
    runs_dir, args = set_up("eval")
    get_launcher().run(args)
    (run,) = find_runs(runs_dir)
    return read_outcome(run)
