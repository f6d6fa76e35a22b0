"""Peak memory, by the system's own account of a process that does one thing."""

import operator
import os

import pytest

from cnnctl.bench.memory import measure_peak_memory, read_high_water_mark
from cnnctl.errors import CnnctlError
from cnnctl.train.memory import read_peak_bytes

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


def test_linux_tells_the_high_water_mark(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython3\nVmPeak:\t  900 kB\nVmHWM:\t  321 kB\nVmRSS:\t  300 kB\n")
    assert read_high_water_mark(status) == 321 * 1024


def test_elsewhere_the_usage_stands_in(tmp_path):
    assert read_high_water_mark(tmp_path / "missing") == read_peak_bytes()
