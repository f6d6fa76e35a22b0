"""Run the promises at length: `python -m tests.torture [ROW ...]`.

Prints a line a row: cases, seed, worst error as a share of its bound, time. A broken promise
prints the case and the command that runs it again; the exit code is 3 then.
"""

import argparse
import os
import sys
from textwrap import fill
from time import perf_counter

from cnnctl.backends.cpu import allowed_processors
from tests.torture.rows import ROWS, Row
from tests.torture.runner import Failure, run_case, run_row
from tests.torture.tally import Tally

INDENT = " " * 4


def main() -> int:
    """Run the rows that were asked for; 0 if all held, 3 otherwise."""
    options = parse_options()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the children's: their cores are shared already
    broken = 0
    for name in options.rows or ROWS:
        row = ROWS[name]
        cases = row.slice if options.slice else min(options.cases or row.cases, row.cases)
        if not cases:
            continue
        started = perf_counter()
        if options.case is not None:
            tally = Tally()
            failure = run_case(row, options.seed, options.case, tally)
        else:
            tally, failure = run_row(row, options.seed, cases, options.jobs)
        report(row, options.seed, tally, failure, perf_counter() - started)
        broken += failure is not None
        if failure and options.first:
            break
    return 3 if broken else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}, or how some begin; all by default"
    )
    parser.add_argument("--seed", type=int, default=0, help="another stream of cases")
    parser.add_argument("--case", type=int, help="this case alone, to look at a failure")
    parser.add_argument("--cases", type=int, help="how many, instead of all")
    parser.add_argument("--slice", action="store_true", help="as many as the ordinary tests run")
    parser.add_argument("--first", action="store_true", help="stop at the first broken promise")
    parser.add_argument("--jobs", type=int, default=allowed_processors(), help="processes")
    options = parser.parse_args()
    for name in options.rows:
        if not find_rows(name):
            parser.error(f"{name!r} is not a row; known: {', '.join(ROWS)}")
    options.rows = [row for name in options.rows for row in find_rows(name)]
    return options


def find_rows(name: str) -> list[str]:
    """The row of that name, or all whose names begin so: S1 and K name several."""
    return [name] if name in ROWS else [row for row in ROWS if row.startswith(name)]


def report(row: Row, seed: int, tally: Tally, failure: Failure | None, seconds: float) -> None:
    """A line of the row, what was counted, and how much of each bound was used."""
    cases = tally.counts.pop("cases", 0)
    print(f"{row.name:<13} {row.promise:<30} {cases:>9,} cases, seed {seed}, {seconds:.0f} s", flush=True)
    counts = [f"{label} {count:,}" for label, count in sorted(tally.counts.items())]
    shares = [f"{label} {share:.2g}" for label, share in sorted(tally.worst.items())]
    for title, facts in (("compared", counts), ("worst, of its bound", shares)):
        if facts:
            print(fill(f"{title}: {', '.join(facts)}", 110, initial_indent=INDENT, subsequent_indent=INDENT))
    if failure:
        which = "--jobs 1" if failure.number is None else f"--case {failure.number}"
        print(f"{row.name} FAILED case {failure.number}: {failure.message}")
        print(f"  again: python -m tests.torture {row.name} --seed {seed} {which}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
