"""Memory shared by buffers that are never alive together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cnnctl.nn.arena import ALIGNMENT, Arena

REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 500), st.sampled_from(["float32", "float64", "uint16"]), *[st.integers(0, 9)] * 2
    ),
    min_size=1,
    max_size=20,
)


def test_buffers_that_never_meet_share_memory() -> None:
    arena = Arena()
    for moment in range(5):
        arena.reserve((1000,), np.float32, moment, moment)
    arena.allocate()
    assert arena.bytes == 4032


def test_a_gap_is_used_by_a_smaller_buffer() -> None:
    arena = Arena()
    arena.reserve((64,), np.uint8, 0, 1)
    arena.reserve((256,), np.uint8, 0, 0)
    arena.reserve((128,), np.uint8, 1, 1)
    arena.allocate()
    assert arena.bytes == 256 + 64


@given(REQUESTS)
def test_buffers_alive_together_never_overlap(requests: list[tuple[int, str, int, int]]) -> None:
    arena = Arena()
    spans = [(min(a, b), max(a, b)) for *_, a, b in requests]
    for (size, dtype, *_), (first, last) in zip(requests, spans, strict=True):
        arena.reserve((size,), dtype, first, last)
    buffers = arena.allocate()
    for i, a in enumerate(buffers):
        assert not a.any()
        assert a.ctypes.data % ALIGNMENT == 0
        for j, b in enumerate(buffers[:i]):
            if spans[i][0] <= spans[j][1] and spans[j][0] <= spans[i][1]:
                assert not np.may_share_memory(a, b)
