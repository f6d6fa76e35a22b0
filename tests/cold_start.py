"""How long after Enter something happens: `python -m tests.cold_start [CONFIG ...]`.

Starts fresh interpreters in turns, and prints median and quartiles of the milliseconds from start
until `cnnctl --help` has ended and until `cnnctl train CONFIG` is through its first step, images read
and normalised. The first turn, which fills the disk's cache, is left out.
"""

import subprocess
import sys
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter

CONFIGS = ("configs/quickstart.yaml", "configs/mnist_simple.yaml")
TURNS = 11
TRAIN = """
import os, sys
from cnnctl.nn.plan import Plan
from cnnctl.cli.main import main
step = Plan.step_over
def first_step(*args, **settings):
    step(*args, **settings)
    os._exit(0)
Plan.step_over = first_step
sys.exit(main(["train", *sys.argv[1:]]))
"""


def main() -> int:
    """Measure and print; 1 if a command failed."""
    configs = [str(Path(config).resolve()) for config in sys.argv[1:] or CONFIGS]
    with TemporaryDirectory() as folder:
        commands = {"--help": ["-m", "cnnctl", "--help"]}
        for config in configs:
            train = ["-c", TRAIN, config, "--quiet", "--runs-dir", folder]
            commands[f"train {Path(config).name}"] = train
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(TURNS + 1):
            for name, command in commands.items():
                started = perf_counter()
                done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.stderr.write(done.stderr)
                    return 1
                if turn:
                    times[name].append(1e3 * (perf_counter() - started))
    for name, found in times.items():
        q1, median, q3 = quantiles(found, n=4)
        print(f"{name:<28} {median:6.0f} ms ({q1:.0f} to {q3:.0f}), {len(found)} starts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
