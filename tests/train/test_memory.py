"""The peak memory told before the first step, against what the process then had."""

import re
import subprocess
import sys

import pytest

RUN = """
import resource, sys
from cnnctl.cli.main import main
sys.argv[0] = "cnnctl"
code = main()
assert not code, code
usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("peak", usage if sys.platform == "darwin" else usage * 1024)
"""
NETWORK = """
layers:
  - conv: {filters: 32, kernel: 3, padding: same}
  - batchnorm
  - relu
  - conv: {filters: 32, kernel: 3, padding: same}
  - relu
  - maxpool: 2
  - linear: %d
  - relu
  - linear: 10
"""
CONFIG = """
data: {dataset: shapes, train: 600, validation: 100, test: 100}
network: network.yaml
solver: {optimizer: {adam: {lr: 1e-3}}, epochs: 2, batch_size: %d}
engine: {threads: 2}
"""


@pytest.mark.parametrize(("batch_size", "units"), [(1, 1500), (64, 16), (64, 600), (256, 16)])
def test_memory_is_told_within_a_tenth(tmp_path, batch_size, units):
    (tmp_path / "network.yaml").write_text(NETWORK % units)
    (tmp_path / "config.yaml").write_text(CONFIG % batch_size)
    process = subprocess.run(
        [sys.executable, "-c", RUN, "train", "config.yaml", "--runs-dir", "runs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    output = process.stdout + process.stderr
    told = float(re.search(r"([\d.]+) MiB of memory", output).group(1)) * 2**20
    assert told == pytest.approx(int(re.search(r"^peak (\d+)$", output, re.M).group(1)), rel=0.1), output
