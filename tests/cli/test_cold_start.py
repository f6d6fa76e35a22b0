"""How soon something happens after Enter, told by what has been imported until then: seconds are noise.

`cnnctl --help` is to answer in 150 ms and `train` to take its first step within a second. What those
take is nearly all imports, so that their number is held here; `tests.cold_start` measures the time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HELP = """
import json, sys
from cnnctl.cli.main import main
sys.argv[1:] = ["--help"]
code = main()
print(json.dumps(sorted(sys.modules)))
"""
TRAIN = """
import json, os, sys
from cnnctl.cli.main import main
from cnnctl.cli.watch import Watcher
def on_step(self, info):
    print(json.dumps(sorted(sys.modules)), flush=True)
    os._exit(0)
Watcher.on_step = on_step
sys.argv[1:] = ["train", "config.yaml"]
main()
"""
CONFIG = """
data: {dataset: shapes, train: 100, test: 100}
network: {layers: [{conv: {filters: 4, kernel: 3}}, relu, {maxpool: 2}, {linear: 10}]}
solver: {optimizer: adam, epochs: 1, batch_size: 10, log_every: 1}
"""


def list_modules(script: str, folder: Path) -> set[str]:
    """What a fresh interpreter has imported when the script is through."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("script", "most", "needless"),
    [
        (
            HELP,
            160,
            {"numpy", "pydantic", "yaml", "safetensors", "ctypes", "subprocess", "importlib.metadata"},
        ),
        (TRAIN, 560, {"unittest", "http.client", "ssl", "multiprocessing", "asyncio"}),
    ],
    ids=["help", "first step"],
)
def test_what_is_imported(script, most, needless, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    found = list_modules(script, tmp_path)
    assert not found & (needless | {"matplotlib", "PIL", "rich", "tqdm", "torch", "pooch", "platformdirs"})
    assert len(found) <= most, sorted(found)
    assert "cnnctl.cli.main" in found
