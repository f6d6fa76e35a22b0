"""O1: runs never collide: dozens that start at once, and several that want to go on with the same one."""

import signal
import time
from pathlib import Path

from cnnctl.train.run_directory import RunDirectory
from tests.faults.launcher import Ended, Launched, get_launcher
from tests.faults.scenes import (
    Scene,
    begin,
    check_line,
    clear_runs,
    create_scene,
    find_runs,
    finish,
    read_outcome,
)
from tests.torture.mutations import draw_stream
from tests.torture.tally import Mismatch, Tally

STARTS = 32
RIVALS = 8


def check_starts(seed: int, number: int, tally: Tally) -> None:
    """Every second case starts runs, the others go on with one."""
    moment = draw_stream(seed, number).random()
    scene = create_scene("plain")
    runs_dir = clear_runs("starts")
    if number % 2:
        _go_on_together(scene, runs_dir, moment, tally)
    else:
        _start_together(scene, runs_dir, tally)
    tally.counts["cases"] += 1


def _start_together(scene: Scene, runs_dir: Path, tally: Tally) -> None:
    """As many directories as starts, each of them whole."""
    started = time.monotonic()
    for ended in _play_together(begin(scene, runs_dir), STARTS):
        if ended.code:
            raise Mismatch(f"exit code {ended.code}: {ended.err}")
    runs = find_runs(runs_dir)
    if len(runs) != STARTS or len(list(runs_dir.iterdir())) != STARTS:
        raise Mismatch(f"{STARTS} starts made {len(runs)} runs and {len(list(runs_dir.iterdir()))} entries")
    for run in runs:
        if read_outcome(run) != scene.outcome:
            raise Mismatch(f"{run.name} ended otherwise")
    tally.counts["starts"] += STARTS
    tally.counts["seconds"] = max(tally.counts["seconds"], round(time.monotonic() - started))


def _go_on_together(scene: Scene, runs_dir: Path, moment: float, tally: Tally) -> None:
    """While one holds the lock nobody else gets in; after its death one of many does."""
    process = get_launcher().start(begin(scene, runs_dir))
    run = _stop_in_a_run(process, runs_dir, moment * scene.seconds)
    if run is None:
        tally.counts["ended before"] += 1
        return
    args = ["train", "--resume", str(run), "--quiet"]
    for ended in _play_together(args, RIVALS):
        if ended.code != 1 or f"process {process.pid} is training in it" not in ended.err:
            raise Mismatch(f"exit code {ended.code} in a run that is taken: {ended.err!r}")
        check_line(ended)
    process.signal(signal.SIGKILL)
    process.wait()
    codes = []
    for ended in _play_together(args, RIVALS):
        codes.append(ended.code)
        if ended.code:
            check_line(ended)
    if not set(codes) <= {0, 1} or 0 not in codes:
        raise Mismatch(f"nobody or too many went on with a free run: exit codes {codes}")
    finish(scene, run)
    tally.counts["turned away"] += RIVALS + codes.count(1)
    tally.counts["holders killed"] += 1


def _stop_in_a_run(process: Launched, runs_dir: Path, seconds: float) -> Path | None:
    """Freeze it that long after its run is there; None if it is done by then."""
    while not (runs := find_runs(runs_dir)):
        time.sleep(0.001)
    time.sleep(seconds / 2)
    process.signal(signal.SIGSTOP)
    if RunDirectory(runs[0]).read_status().state == "running":
        return runs[0]
    process.signal(signal.SIGCONT)
    process.wait()
    return None


def _play_together(args: list[str], count: int) -> list[Ended]:
    processes = [get_launcher().start(args) for _ in range(count)]
    return [process.wait() for process in processes]
