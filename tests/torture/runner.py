"""Runs a row's cases, in one process or several; every failure names the case it came from."""

import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from traceback import format_exc
from typing import NamedTuple

from tests.torture.rows import ROWS, Row
from tests.torture.tally import Mismatch, Tally

CHUNK = 1000
"""Cases a process takes at a time, at most."""
ROOM = 3
"""Numbers a chunk has for each case that has to count: some show too little."""


class Failure(NamedTuple):
    """A broken promise."""

    number: int | None
    message: str


def run_row(row: Row, seed: int, cases: int, jobs: int) -> tuple[Tally, Failure | None]:
    """Cases until so many have counted, in chunks of consecutive numbers; stops at a failure."""
    tally, failure = Tally(), None
    jobs = row.jobs or jobs
    if jobs == 1:
        return run_chunk(row.name, seed, 0, cases)
    chunk = max(1, min(CHUNK, cases // (4 * jobs)))
    starts = iter(range(0, sys.maxsize, ROOM * chunk))
    parts = [min(chunk, cases - done) for done in range(0, cases, chunk)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        names, seeds = [row.name] * len(parts), [seed] * len(parts)
        try:
            for part, failure in pool.map(run_chunk, names, seeds, starts, parts):
                tally.add(part)
                if failure:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        except BrokenProcessPool:
            failure = Failure(None, "a process crashed; --jobs 1 shows where")
    return tally, failure


def run_chunk(name: str, seed: int, first: int, cases: int) -> tuple[Tally, Failure | None]:
    """Case `first` and those after it, until so many have counted."""
    tally, row, number = Tally(), ROWS[name], first
    while tally.counts["cases"] < cases:
        failure = run_case(row, seed, number, tally)
        if failure:
            return tally, failure
        number += 1
    return tally, None


def run_case(row: Row, seed: int, number: int, tally: Tally) -> Failure | None:
    """Any exception is a broken promise: a kernel that raises something unforeseen is one too."""
    try:
        row.check(seed, number, tally)
    except Mismatch as error:
        return Failure(number, str(error))
    except Exception:
        return Failure(number, format_exc())
    return None
