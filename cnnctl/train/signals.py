"""SIGINT and SIGTERM as a wish that is granted between two steps, or as whatever else is to be done.

A wish interrupts nothing: the solver looks when it can stop cleanly.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StopRequest:
    """The first signal that came, or None so far. Further ones change nothing."""

    signal_number: int | None = None


@contextmanager
def handling_signals(handle: Callable[[int], None]) -> Iterator[None]:
    """For the block's duration, SIGINT and SIGTERM call `handle` with their number.

    Python delivers signals to the main thread: in any other, this changes nothing.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main_thread else ()
    previous = {number: signal.signal(number, lambda number, _: handle(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def noting_signals() -> Iterator[StopRequest]:
    """For the block's duration, note SIGINT and SIGTERM instead of dying of them."""
    request = StopRequest()

    def note(number: int) -> None:
        request.signal_number = request.signal_number or number

    with handling_signals(note):
        yield request
