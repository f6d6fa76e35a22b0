"""How everything here is timed: in turns, within one run, after a warm-up, by the wall clock.

Runs what it is given and returns seconds. Knows no networks and discards no outlier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import TypeVar

Key = TypeVar("Key")

Action = Callable[[int], object]
"""Called with a number that counts its calls from 0; what it returns is dropped."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """A quarter, half and three quarters of the measured times are at most this long, in milliseconds."""

    q1: float
    median: float
    q3: float

    @classmethod
    def of_seconds(cls, seconds: Sequence[float]) -> "Quartiles":
        """Linear between neighbours, both ends included; one time alone stands for all three."""
        times = [1e3 * second for second in seconds]
        q1, _, q3 = quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
        return cls(q1, median(times), q3)


def time_turns(
    actions: Mapping[Key, Action],
    turns: int,
    *,
    calls: int = 1,
    lead_in: int = 0,
    lead_in_s: float = 0.0,
    warmup: int = 0,
    clock: Callable[[], float] = perf_counter,
) -> dict[Key, list[float]]:
    """Seconds of every action's calls; the actions take turns in the order given.

    What disturbs the machine for a while so disturbs all of them alike.

    Args:
        turns: counted turns of each action.
        calls: timed calls in a turn.
        lead_in: calls before those at least, not counted: they bring caches and threads back to
            where an uninterrupted run has them, so that no action pays for its neighbour's.
        lead_in_s: and at least so many seconds of them: threads may wait busily that long for
            more work before they leave their core to another action's.
        warmup: turns before the first that is counted.
    """
    times: dict[Key, list[float]] = {key: [] for key in actions}
    calls_so_far = dict.fromkeys(actions, 0)

    def call(key: Key) -> float:
        started = clock()
        actions[key](calls_so_far[key])
        calls_so_far[key] += 1
        return clock() - started

    for turn in range(warmup + turns):
        for key in actions:
            led_in, waited = 0, 0.0
            while led_in < lead_in or waited < lead_in_s:
                waited += call(key)
                led_in += 1
            elapsed = [call(key) for _ in range(calls)]
            if turn >= warmup:
                times[key] += elapsed
    return times
