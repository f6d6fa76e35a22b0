"""What the readers' tests share: how a refusal reads, what it may cost, and damage to try."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cnnctl.errors import DataError

Refusal = Callable[..., str]


@pytest.fixture
def refusal() -> Refusal:
    """The one line with which a call is refused."""

    def call(function: Callable[..., object], *args: object, **settings: object) -> str:
        with pytest.raises(DataError) as caught:
            function(*args, **settings)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
        return str(caught.value)

    return call


@pytest.fixture
def cheap_refusal(refusal: Refusal) -> Refusal:
    """The same of a call that may not take more than 8 MiB of memory meanwhile."""

    def call(function: Callable[..., object], *args: object) -> str:
        tracemalloc.start()
        try:
            line = refusal(function, *args)
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        finally:
            tracemalloc.stop()
        return line

    return call


@pytest.fixture
def mutate(rng: np.random.Generator) -> Callable[[bytes, int], Iterator[bytes]]:
    """Damaged copies: some bytes replaced, cut off at a random place, or both."""

    def make(data: bytes, count: int) -> Iterator[bytes]:
        for _ in range(count):
            copy = bytearray(data)
            for place in rng.integers(len(copy), size=rng.integers(4)):
                copy[place] = rng.integers(256)
            yield bytes(copy[: rng.integers(1, 2 * len(copy))])

    return make


@pytest.fixture
def data_dir() -> Path:
    """Where the real images are; only for tests marked `data`."""
    return Path(os.environ["CNNCTL_DATA_DIR"])
