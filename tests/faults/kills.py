"""R1: killed at any moment, up to five times in a row, a run ends bit for bit as one that was not.

And no more work is lost than since the checkpoint that was due last.
"""

import json
import shutil
import signal
import time
from pathlib import Path

from cnnctl.errors import CheckpointError
from cnnctl.train.checkpoint import LAST, PREVIOUS, load_checkpoint
from tests.faults.scenes import SCENES, Scene, create_scene, find_runs, finish
from tests.faults.stage import raise_curtain
from tests.torture.guard import make_ground
from tests.torture.mutations import draw_stream
from tests.torture.tally import Mismatch, Tally

DEEPEST = 5


def check_kill(seed: int, number: int, tally: Tally) -> None:
    """A chain of SIGKILLs, each at a random moment of what is left; a case is the whole chain."""
    rng = draw_stream(seed, number)
    scene = create_scene(rng.choice(list(SCENES)))
    runs_dir = make_ground("faults") / "kills"
    shutil.rmtree(runs_dir, ignore_errors=True)
    args = ["train", str(scene.config), "--runs-dir", str(runs_dir), "--quiet"]
    for depth in range(rng.randint(1, DEEPEST)):
        actor = raise_curtain().start(args)
        time.sleep(rng.random() * scene.seconds)
        actor.signal(signal.SIGKILL)
        ended = actor.wait()
        if ended.code not in (0, -signal.SIGKILL):
            raise Mismatch(f"{scene.name}: exit code {ended.code} before it was killed: {ended.err}")
        tally.counts["kills" if ended.code else "ended before"] += 1
        runs = find_runs(runs_dir)
        if not runs:
            tally.counts["before there was a run"] += 1
            continue
        check_lost_work(scene, runs[-1], tally)
        tally.counts[f"kills {depth + 1} deep"] += ended.code != 0
        args = ["train", "--resume", str(runs[-1]), "--quiet"]
    for run in find_runs(runs_dir):
        finish(scene, run)
        tally.counts["runs that went on"] += 1
    tally.counts["cases"] += 1


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


def count_steps(metrics: Path) -> int:
    """The last step with an entry of its own; the last line may be torn."""
    lines = metrics.read_text().split("\n")[:-1]
    return max((entry["step"] for entry in map(json.loads, lines)), default=0)
