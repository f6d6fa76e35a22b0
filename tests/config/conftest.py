"""Configs to start from: the smallest mapping that is one, and a folder of files."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cnnctl.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "data": {"dataset": "mnist"},
    "network": {"layers": [{"linear": 10}]},
    "solver": {"optimizer": "adam", "epochs": 1, "batch_size": 100},
}

RUN_YAML = """\
name: small
data:
  dataset: mnist
network: networks/one.yaml
solver:
  optimizer: {adam: {lr: 1e-3}}
  epochs: 3
  batch_size: 100
"""

NETWORK_YAML = """\
layers:
  - conv: {filters: 4, kernel: 3}
  - relu
  - linear: 10
init: {gaussian: 0.01}
"""


@pytest.fixture
def minimal() -> dict[str, Any]:
    return deepcopy(MINIMAL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with run.yaml and networks/one.yaml in it."""
    (tmp_path / "networks").mkdir()
    (tmp_path / "run.yaml").write_text(RUN_YAML)
    (tmp_path / "networks/one.yaml").write_text(NETWORK_YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refusal() -> Callable[..., str]:
    """The one line with which a call is refused."""

    def call(function: Callable[..., object], *args: Any, **settings: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            function(*args, **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call
