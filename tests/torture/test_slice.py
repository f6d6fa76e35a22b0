"""A slice of every promise among the ordinary tests; the whole of it is `make torture`."""

import pytest

from tests.torture.rows import ROWS
from tests.torture.runner import ROOM, run_chunk

SLICE_JOBS = 4
"""Tests a row is cut into, so that several processes can share it."""


@pytest.mark.parametrize("part", range(SLICE_JOBS))
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.slice])
def test_the_promise_holds(name: str, part: int) -> None:
    row = ROWS[name]
    cases = len(range(part, row.slice, SLICE_JOBS))
    tally, failure = run_chunk(name, 231, part * ROOM * row.slice, cases)
    assert failure is None, f"case {failure.number}: {failure.message}"
    assert tally.counts["cases"] == cases
