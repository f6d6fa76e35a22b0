"""Trains the shipped configs to their end, and writes what they reach into the README and into themselves.

    python -m tests.zoo [CONFIG ...] [--peer] [-o KEY=VALUE ...]

With --peer PyTorch trains those whose figure is to be held against its own. An override leaves all
files as they are. Exit code 3 where a config stays more than a third of a point below what it promises.
"""

import argparse
import sys
import tempfile

import cnnctl
from tests.zoo.entries import CONFIGS, Entry, choose_entries
from tests.zoo.table import (
    HEAD,
    README,
    Figures,
    average,
    format_row,
    read_columns,
    read_reached,
    read_rows,
    write_reached,
    write_rows,
)

SLACK = 0.33
"""Points that other last bits may cost."""


def train_entry(entry: Entry, overrides: list[str]) -> Figures:
    """Figures of ours."""
    found = []
    for seed in range(entry.seeds):
        more = [f"engine.seed={seed}"] if entry.seeds > 1 else []
        with tempfile.TemporaryDirectory() as folder:
            config = CONFIGS / f"{entry.config}.yaml"
            run = cnnctl.train(config, overrides=[*overrides, *more], runs_dir=folder)
            epochs = run.metrics()[-1]["epoch"]
        assert run.train is not None
        assert run.test is not None
        validation = 100 * run.validation.accuracy if run.validation else None
        train, test = 100 * run.train.accuracy, 100 * run.test.accuracy
        found.append(Figures(train, validation, test, run.seconds, epochs))
    return average(found)


def measure_elsewhere(entry: Entry, old: str | None, overrides: list[str], peer: bool) -> str:
    """What others say: the entry, PyTorch itself, or what stood there before."""
    if entry.elsewhere != "PyTorch":
        return entry.elsewhere
    if not peer:
        return read_columns(old)[-1] if old else ""
    from tests.zoo.peer import train_peer

    seeds = [[f"engine.seed={seed}"] if entry.seeds > 1 else [] for seed in range(entry.seeds)]
    found = average(train_peer(CONFIGS / f"{entry.config}.yaml", [*overrides, *seed]) for seed in seeds)
    validation = "" if found.validation is None else f" validation {found.validation:.2f},"
    return f"training {found.train:.2f},{validation} test {found.test:.2f}, {found.seconds:.0f} s (PyTorch)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="CONFIG", help="all by default")
    parser.add_argument("--peer", action="store_true", help="let PyTorch train as well")
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    try:
        entries = choose_entries(arguments.names)
    except KeyError as error:
        parser.error(f"no config {error} in the zoo")
    short = 0
    print(HEAD, end="", flush=True)
    for entry in entries:
        figures = train_entry(entry, arguments.overrides)
        old = read_rows(README.read_text()).get(entry.config)
        row = format_row(entry, figures, measure_elsewhere(entry, old, arguments.overrides, arguments.peer))
        print(row, end="", flush=True)
        promised = read_reached(entry.config)
        if promised is not None and figures.test < promised - SLACK:
            print(
                f"{entry.config}: {figures.test:.2f} % where {promised:.2f} % were promised", file=sys.stderr
            )
            short += 1
        elif not arguments.overrides:
            README.write_text(write_rows(README.read_text(), {entry.config: row}))
            write_reached(CONFIGS / f"{entry.config}.yaml", figures.test)
    return 3 if short else 0


if __name__ == "__main__":
    sys.exit(main())
