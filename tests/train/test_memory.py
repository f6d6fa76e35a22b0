"""What the process has had in memory, by the system's own account. What is told beforehand: tests.faults."""

import resource
import subprocess
import sys

import numpy as np
import pytest

from cnnctl.train.memory import read_peak_bytes

READ = "from cnnctl.train.memory import read_peak_bytes; print(read_peak_bytes())"


def test_linux_tells_the_high_water_mark(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython3\nVmPeak:\t  900 kB\nVmHWM:\t  321 kB\nVmRSS:\t  300 kB\n")
    assert read_peak_bytes(status) == 321 * 1024


def test_elsewhere_the_usage_stands_in(tmp_path):
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_peak_bytes(tmp_path / "missing") in {usage, usage * 1024}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it cannot be told apart")
def test_what_the_starter_holds_does_not_count():
    held = np.ones(2**25)
    told = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    assert int(told.stdout) < held.nbytes
