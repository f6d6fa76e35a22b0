"""Peak memory, by the system's own account of a process that does one thing."""

import operator
import os

import pytest

from cnnctl.bench.memory import measure_peak_memory
from cnnctl.errors import CnnctlError

MB = 10**6


def test_what_the_work_holds_is_counted():
    small, large = (measure_peak_memory(operator.mul, b"x", count) for count in (1, 64 * MB))
    assert 63 * MB < large - small < 70 * MB


def test_what_the_work_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        measure_peak_memory(operator.truediv, 1, 0)


def test_a_process_that_dies_is_an_error():
    with pytest.raises(CnnctlError, match=r"^memory: the measuring process died"):
        measure_peak_memory(os._exit, 1)
