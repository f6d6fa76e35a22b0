"""Measures the speeds that the README and the page on the engine show, and writes them there.

    python -m tests.speed [PART ...] [--seconds S]

The parts are roofline, steps, operations, courses and networks; all of them by default. With --seconds
each measurement is cut to about so long: a quick look, which calls itself one where it is written, and
of the networks is only printed. Exit code 3 where two sides do not compute the same. The networks
need PyTorch: without it their tables stay as they are.
"""

import argparse
import os
import sys
from contextlib import suppress
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import floor, log10

import numpy as np

from cnnctl.backends.cpu import available_threads, cpu_model
from tests.speed.commands import (
    Disagreement,
    compare_network,
    tabulate_courses,
    tabulate_networks,
    tabulate_operations,
    tabulate_roofline,
)
from tests.speed.networks import NETWORKS
from tests.speed.steps import BEST, PROBLEMS, StepRow, Wrong, measure_problem
from tests.speed.table import PAGE, README, format_table, name_threads, show, write_block

PARTS = ("roofline", "steps", "operations", "courses", "networks")
SECONDS = {"roofline": 10.0, "steps": 60.0, "operations": 20.0}
"""How long they last by default; of the steps, each table."""
QUICK_STEPS = 16
"""Of a network, in a quick look."""

COLUMNS = ("step", "part", "time a batch", "quartiles", "GFLOP/s", "% of peak", "% of own", "error")


def format_row(row: StepRow, images: int, filters: int) -> list[str]:
    """A line of the steps' tables."""
    step = row.step
    scale, unit = (1.0, "ms") if row.batch_ms.median < 1000 else (1e-3, "s")
    q1, middle, q3 = (
        show_digits(scale * ms) for ms in (row.batch_ms.q1, row.batch_ms.median, row.batch_ms.q3)
    )
    return [
        *(step.name, str(Fraction(step.images * step.filters, images * filters))),
        *(f"{middle} {unit}", f"{q1}–{q3}"),
        show(row.gflops, ".1f" if row.gflops >= 1 else ".3f"),
        *(show(value, ".0f" if value >= 1 else ".2f") for value in (row.percent, row.own_percent)),
        show(row.error, ".0e"),
    ]


def show_digits(value: float) -> str:
    """Three digits, and more before the point if there are: 0.123, 1.23, 12.3, 1,234."""
    return f"{value:,.{max(0, 2 - floor(log10(value)))}f}"


def choose_rows(rows: list[StepRow]) -> list[StepRow]:
    """Those that are shown: of PyTorch, the faster layout for each number of threads."""
    peers = [row for row in rows if row.step.name.startswith("PyTorch")]
    counts = {row.step.threads for row in peers}
    best = [min((p for p in peers if p.step.threads == n), key=lambda p: p.batch_ms.median) for n in counts]
    return [row for row in rows if row not in peers or row in best]


def describe_machine(seconds: float | None) -> str:
    """A line above each table: on what it was measured, and whether it can be relied upon."""
    words = [f"{cpu_model()}, {BEST}, {available_threads()} threads", f"numpy {np.__version__}"]
    with suppress(PackageNotFoundError):
        words.append(f"PyTorch {version('torch')}")
    line = f"Measured on {'; '.join(words)}."
    if seconds is not None:
        line = f"**A quick look of {seconds:g} seconds, not a measurement** (that is `make bench`). {line}"
    return f"{line}\n\n"


def measure_networks(seconds: float | None) -> None:
    """Ratios over PyTorch, into the README and the page; kept to the terminal in a quick look."""
    if find_spec("torch") is None:
        tell("networks: PyTorch is not installed (pip install '.[torch]'): their tables stay as they are")
        return
    threads = sorted({1, available_threads()})
    ratios: dict[tuple[str, int], float] = {}
    for network in NETWORKS:
        for count in threads:
            ratio = compare_network(network, count, None if seconds is None else QUICK_STEPS)
            ratios[network.title, count] = ratio
            tell(f"networks: {network.title}, {name_threads(count)}: {ratio:.2f}")
    table = tabulate_networks(ratios, threads)
    print(table, flush=True)
    if seconds is None:
        for page in (README, PAGE):
            write_block(page, "speed", table)


def measure_part(part: str, seconds: float | None) -> None:
    """Measure and write one part."""
    head, duration = describe_machine(seconds), seconds or SECONDS.get(part, 0.0)
    tables: dict[str, str] = {}
    match part:
        case "roofline":
            tables[part] = tabulate_roofline(duration)
        case "steps":
            for problem in PROBLEMS:
                rows = choose_rows(measure_problem(problem, available_threads(), duration))
                lines = [format_row(row, problem.x_shape[0], problem.filters) for row in rows]
                tables[problem.name] = format_table(COLUMNS, lines)
        case "operations":
            tables[part] = tabulate_operations(duration)
        case "courses":
            tables[part] = tabulate_courses()
        case "networks":
            measure_networks(seconds)
    for name, table in tables.items():
        print(f"{name}\n{table}", flush=True)
        write_block(PAGE, name, head + table)


def tell(text: str) -> None:
    """What is going on, apart from what is printed."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--seconds", type=float, metavar="S", help="a quick look: so long each")
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"no part {part!r}; there are {', '.join(PARTS)}")
    if os.getloadavg()[0] > 0.5:
        tell("something else is running here: figures may be too low")
    try:
        for part in arguments.parts or PARTS:
            tell(part)
            measure_part(part, arguments.seconds)
    except (Wrong, Disagreement) as error:
        tell(str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
