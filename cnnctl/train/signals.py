"""SIGINT and SIGTERM as a wish that is granted between two steps.

Nothing is interrupted here; the solver looks when it can stop cleanly.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """The first signal that came, or None so far. Further ones change nothing."""

    signal_number: int | None = None


@contextmanager
def noting_signals() -> Iterator[StopRequest]:
    """For the block's duration, note SIGINT and SIGTERM instead of dying of them.

    Python delivers signals to the main thread: in any other, this changes nothing.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = request.signal_number or number

    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main_thread else ()
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
