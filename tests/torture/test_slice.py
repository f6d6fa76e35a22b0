"""A slice of every promise among the ordinary tests; the whole of it is `make torture`."""

import pytest

from tests.torture.hostile import CASES, create_table
from tests.torture.rows import ROWS
from tests.torture.runner import ROOM, run_chunk

SLICE_JOBS = 4
"""Tests a row is cut into, so that several processes can share it."""


@pytest.mark.parametrize("part", range(SLICE_JOBS))
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.slice])
def test_the_promise_holds(name: str, part: int) -> None:
    row = ROWS[name]
    cases = len(range(part, row.slice, SLICE_JOBS))
    first = row.cases * part // SLICE_JOBS if row.slice == row.cases else part * ROOM * row.slice
    tally, failure = run_chunk(name, 231, first, cases)
    assert failure is None, f"case {failure.number}: {failure.message}"
    assert tally.counts["cases"] == cases


def test_every_hostile_file_is_tried() -> None:
    table = create_table()
    assert 250 < len(table) <= CASES
    assert len({case[:2] for case in table}) == len(table)
