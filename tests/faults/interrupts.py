"""R5: Ctrl-C and SIGTERM stop cleanly at any moment, also when they come twice: soon, and without loss."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from cnnctl.train.checkpoint import LAST, load_checkpoint
from tests.faults.launcher import Clock, Ended, get_launcher
from tests.faults.scenes import (
    SCENES,
    Scene,
    begin,
    check_line,
    clear_runs,
    count_steps,
    create_scene,
    find_runs,
    finish,
)
from tests.torture.mutations import draw_stream
from tests.torture.tally import Mismatch, Tally

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOST_SECONDS = 2.0
DOUBLED_WITHIN_S = 0.05
STOPPED = re.compile(r"stopped after step (\d+)")
COMMAND = """if True:
    import runpy, signal
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    runpy.run_module("cnnctl", run_name="__main__")
"""
"""`python -m cnnctl`, whose very first milliseconds belong to Python: Ctrl-C has it show a traceback."""
STARTING_S = 1.0
"""What an interpreter takes to start and import, roughly."""


def check_interrupt(seed: int, number: int, tally: Tally) -> None:
    """A run stopped by one signal or two, then finished."""
    rng = draw_stream(seed, number)
    scene = create_scene(list(SCENES)[number % len(SCENES)])
    runs_dir = clear_runs("interrupts")
    args = begin(scene, runs_dir)
    first, second = rng.choice(SIGNALS), None
    if rng.random() < 0.4:
        second = rng.choice(SIGNALS)
    play = _play_process if number % 7 == 6 else _play_forked
    ended, seconds = play(rng, scene, args, first, second)
    if seconds > MOST_SECONDS:
        raise Mismatch(f"{scene.name}: {first.name} took {seconds:.1f} s")
    tally.note("time", seconds / MOST_SECONDS)
    runs = find_runs(runs_dir)
    if ended.code == 0:
        tally.counts["ended before"] += 1
    else:
        _judge(scene, ended, {first, second or first}, runs, is_whole=play is _play_process)
        tally.counts[first.name if second is None else f"{first.name} then {second.name}"] += 1
    for run in runs:
        finish(scene, run)
        tally.counts["runs that went on"] += 1
    tally.counts["cases"] += 1


def _play_forked(
    rng: Random, scene: Scene, args: list[str], first: int, second: int | None
) -> tuple[Ended, float]:
    process = get_launcher().start(args)
    time.sleep(rng.random() * scene.seconds)
    clock = Clock(process.pid)
    process.signal(first)
    if second is not None:
        time.sleep(rng.random() * DOUBLED_WITHIN_S)
        process.signal(second)
    seconds = clock.await_end()
    return process.wait(), seconds


def _play_process(
    rng: Random, scene: Scene, args: list[str], first: int, second: int | None
) -> tuple[Ended, float]:
    """The same with an interpreter of its own, from its first moment on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        time.sleep(rng.random() * (STARTING_S + scene.seconds))
        clock = Clock(process.pid)
        os.kill(process.pid, first)
        if second is not None:
            time.sleep(rng.random() * DOUBLED_WITHIN_S)
            os.kill(process.pid, second)  # send_signal would bury it first
        seconds = clock.await_end()
        out, err = process.communicate()
    return Ended(process.returncode, out, err, seconds), seconds


def _judge(scene: Scene, ended: Ended, signals: set[int], runs: list[Path], *, is_whole: bool) -> None:
    """Exit code 130 or 143 and one line; what had been trained is saved.

    A process may not run the command yet, or, a whole one, no longer, and is killed by the signal then: for
    a shell that is the same code.
    """
    codes = {128 + number for number in signals}
    if ended.code not in codes and not ((is_whole or not runs) and -ended.code in signals):
        raise Mismatch(f"{scene.name}: exit code {ended.code} after signals {signals}: {ended.err}")
    if ended.code > 0:
        check_line(ended)
    elif ended.err.count("\n") > 1:
        raise Mismatch(f"{scene.name}: killed by a signal and said {ended.err}")
    if stopped := STOPPED.search(ended.err):
        step = int(stopped[1])
        saved = load_checkpoint(runs[0] / "checkpoints" / LAST).metadata.progress.step
        if not step == saved == count_steps(runs[0] / "metrics.jsonl"):
            raise Mismatch(f"{scene.name}: stopped after step {step}, and step {saved} is saved")
