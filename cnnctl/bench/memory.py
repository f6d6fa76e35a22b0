"""How much memory something takes: the peak of a process that does nothing else.

Starts a fresh interpreter for each measurement, since a process's peak never comes down
again, and subtracts nothing.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from cnnctl.errors import CnnctlError
from cnnctl.train.memory import read_peak_bytes


def measure_peak_memory(work: Callable[..., object], *arguments: Any) -> int:
    """Bytes that a process of its own has held at most once `work(*arguments)` is done.

    `work` must be importable by name. Raises what it raises, and CnnctlError when the
    process dies.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_run_and_read, work, arguments).result()
        except BrokenProcessPool as error:
            raise CnnctlError("memory: the measuring process died, perhaps for want of memory") from error


def _run_and_read(work: Callable[..., object], arguments: tuple[Any, ...]) -> int:
    work(*arguments)
    return read_peak_bytes()
