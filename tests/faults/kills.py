"""R1: killed at any moment, up to five times in a row, a run ends bit for bit as one that was not.

And no more work is lost than since the checkpoint that was due last.
"""

import signal
import time
from pathlib import Path
from random import Random

from cnnctl.errors import CheckpointError
from cnnctl.train.checkpoint import LAST, PREVIOUS, load_checkpoint
from tests.faults.launcher import Launched, get_launcher
from tests.faults.scenes import SCENES, Scene, begin, clear_runs, count_steps, create_scene, find_runs, finish
from tests.torture.mutations import draw_stream
from tests.torture.tally import Mismatch, Tally

DEEPEST = 5


def check_kill(seed: int, number: int, tally: Tally) -> None:
    """A chain of SIGKILLs, each at a random moment of what is left; a case is the whole chain."""
    rng = draw_stream(seed, number)
    scene = create_scene(list(SCENES)[number % len(SCENES)])
    runs_dir = clear_runs("kills")
    args = begin(scene, runs_dir)
    for depth in range(rng.randint(1, DEEPEST)):
        process = get_launcher().start(args)
        await_moment(rng, scene, process, runs_dir)
        process.signal(signal.SIGKILL)
        ended = process.wait()
        if ended.code not in (0, -signal.SIGKILL):
            raise Mismatch(f"{scene.name}: exit code {ended.code} before it was killed: {ended.err}")
        if ended.code == 0:
            tally.counts["ended before"] += 1
            break
        tally.counts["kills"] += 1
        runs = find_runs(runs_dir)
        if not runs:
            tally.counts["before there was a run"] += 1
            continue
        check_lost_work(scene, runs[-1], tally)
        tally.counts[f"kills {depth + 1} deep"] += 1
        args = ["train", "--resume", str(runs[-1]), "--quiet"]
    for run in find_runs(runs_dir):
        finish(scene, run)
        tally.counts["runs that went on"] += 1
    tally.counts["cases"] += 1


def await_moment(rng: Random, scene: Scene, process: Launched, runs_dir: Path) -> None:
    """Until a random moment of the clock, or just behind a random step that is still to be done."""
    if rng.random() < 0.2:
        time.sleep(rng.random() * scene.seconds)
        return
    runs = find_runs(runs_dir)
    done = count_steps(runs[-1] / "metrics.jsonl") if runs else 0
    step = rng.randint(min(done + 1, scene.steps), scene.steps)
    while process.is_running():
        runs = find_runs(runs_dir)
        if runs and count_steps(runs[-1] / "metrics.jsonl") >= step:
            break
        time.sleep(0.0005)
    time.sleep(rng.random() * scene.seconds / scene.steps)


def check_lost_work(scene: Scene, run: Path, tally: Tally) -> None:
    """Steps that were written down and have to be done again are fewer than from checkpoint to checkpoint."""
    try:
        saved = load_checkpoint(run / "checkpoints" / LAST).metadata.progress.step
    except CheckpointError:  # between two renames
        saved = load_checkpoint(run / "checkpoints" / PREVIOUS).metadata.progress.step
    done = count_steps(run / "metrics.jsonl")
    if done - saved > scene.interval:
        raise Mismatch(f"{scene.name}: {done} steps done, {saved} saved, {scene.interval} between two")
    tally.note("work lost", max(done - saved, 0) / scene.interval)
