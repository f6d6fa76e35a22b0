"""What this machine can do at best: multiply-adds a second, and memory bandwidth.

Short bursts of the C kernels' own vectors, on one thread and on all, with every instruction
set the processor has. The best burst of many counts: anything else that runs here can only
slow one down.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cnnctl.backends import create_backend
from cnnctl.backends.cpu import available_threads
from cnnctl.backends.specs import Array
from cnnctl.bench.conditions import Conditions, describe_conditions
from cnnctl.bench.timing import time_turns

if TYPE_CHECKING:
    from cnnctl.backends._kernels import Kernels

Key = TypeVar("Key")
Burst = Callable[[int], float]
"""Does so many rounds of work and returns how much that was: operations, or bytes."""

GIGA = 1e9
BURST_S, FEWEST_BURSTS = 0.01, 3

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
DEFAULT_CACHE_BYTES = {2: 2**18, 3: 2**23}
"""By level, where the operating system does not tell."""
LEAST_FAR_BYTES, MOST_FAR_BYTES = 2**26, 2**29


@dataclass(frozen=True, slots=True)
class RooflineRow:
    """The limits of one instruction set on a number of threads, in 10^9 a second.

    Attributes:
        fma_gflops: operations; a multiply-add counts as two.
        near_read_gbs, near_copy_gbs: bytes in buffers that the second-level caches hold; what is
            copied counts twice, as read and as written.
        far_read_gbs, far_copy_gbs: the same in buffers that no cache holds.
    """

    instruction_set: str
    threads: int
    fma_gflops: float
    near_read_gbs: float
    near_copy_gbs: float
    far_read_gbs: float
    far_copy_gbs: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """The limits of this machine.

    Attributes:
        near_bytes: what a thread reads over and over, or half of which it copies to the other.
        far_bytes: what all threads read together, or copy to another buffer of the size.
    """

    conditions: Conditions
    near_bytes: int
    far_bytes: int
    rows: tuple[RooflineRow, ...]


def measure_roofline(dtype: str = "float32", *, seconds: float = 5.0) -> Roofline:
    """All limits, in about that time. Raises BackendError where the kernels are not built."""
    conditions = describe_conditions(create_backend("fast"), dtype)
    from cnnctl.backends.fast import INSTRUCTION_SETS, FastBackend

    near_bytes, most_threads = choose_near_bytes(), available_threads()
    far_bytes = max(choose_far_bytes(), most_threads * near_bytes)  # all near ones lie within a far one
    source = np.ones(far_bytes // np.dtype(dtype).itemsize, dtype)
    target = np.ones_like(source)
    bursts: dict[tuple[str, int, str], Burst] = {}
    for isa in INSTRUCTION_SETS:
        for threads in sorted({1, most_threads}):
            kernels = FastBackend(threads, isa).kernels(dtype)
            for figure, burst in _list_bursts(kernels, near_bytes, source, target).items():
                bursts[isa, threads, figure] = burst
    speeds = measure_bursts(bursts, seconds)
    figures: dict[tuple[str, int], list[float]] = {}
    for isa, threads, figure in bursts:
        figures.setdefault((isa, threads), []).append(speeds[isa, threads, figure] / GIGA)
    rows = [RooflineRow(isa, threads, *values) for (isa, threads), values in figures.items()]
    return Roofline(conditions, near_bytes, far_bytes, tuple(rows))


def measure_bursts(
    bursts: Mapping[Key, Burst], seconds: float, clock: Callable[[], float] = perf_counter
) -> dict[Key, float]:
    """Work a second of each burst's best of several, taken in turns for about `seconds` in all."""
    rounds = {key: calibrate_burst(burst, BURST_S, clock) for key, burst in bursts.items()}
    work = {key: burst(rounds[key]) for key, burst in bursts.items()}
    actions = {key: _bind(burst, rounds[key]) for key, burst in bursts.items()}
    once = sum(times[0] for times in time_turns(actions, 1, clock=clock).values())
    times = time_turns(actions, max(FEWEST_BURSTS, int(seconds / once)), clock=clock)
    return {key: work[key] / min(times[key]) for key in bursts}


def calibrate_burst(burst: Burst, least_s: float, clock: Callable[[], float] = perf_counter) -> int:
    """How many rounds of it last at least so long."""
    rounds = 1
    while True:
        started = clock()
        burst(rounds)
        if clock() - started >= least_s:
            return rounds
        rounds *= 2


def choose_near_bytes() -> int:
    """Half the second-level cache of one processor."""
    return _read_cache_bytes(2) // 2


def choose_far_bytes() -> int:
    """Twice the last-level cache, within reason."""
    return min(max(2 * _read_cache_bytes(3), LEAST_FAR_BYTES), MOST_FAR_BYTES)


def _list_bursts(kernels: "Kernels", near_bytes: int, source: Array, target: Array) -> dict[str, Burst]:
    """One for each figure of a `RooflineRow`, in its order."""
    near, far = kernels.threads * near_bytes // source.itemsize, source.size
    return {
        "fma_gflops": kernels.fma_burst,
        "near_read_gbs": lambda rounds: kernels.read_burst(rounds, near, source),
        "near_copy_gbs": lambda rounds: kernels.copy_burst(rounds, near // 2, source, target),
        "far_read_gbs": lambda rounds: kernels.read_burst(rounds, far, source),
        "far_copy_gbs": lambda rounds: kernels.copy_burst(rounds, far, source, target),
    }


def _bind(burst: Burst, rounds: int) -> Callable[[int], float]:
    return lambda _: burst(rounds)


def _read_cache_bytes(level: int) -> int:
    """The size of the first processor's cache of that level, as Linux tells it."""
    for index in sorted(CACHES.glob("index*")):
        try:
            found, size = ((index / name).read_text(encoding="ascii").strip() for name in ("level", "size"))
        except OSError:
            continue
        if found == str(level) and size.endswith("K"):
            return 1024 * int(size.removesuffix("K"))
    return DEFAULT_CACHE_BYTES[level]
