"""The self-test: passes on what is right, tells what is wrong, leaves nothing behind."""

import json
import tempfile

import pytest

from cnnctl.backends.fast import FastBackend
from cnnctl.cli import selftest
from cnnctl.cli.main import main


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch, tmp_path):
    monkeypatch.setattr(selftest, "SAMPLES", 4)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_what_is_installed_here_passes_and_nothing_is_left(tmp_path, capsys):
    assert main(["selftest", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    names = [finding["name"] for finding in document["findings"] if finding["ok"]]
    assert len(names) == len(document["findings"])
    assert any("float64" in name for name in names)
    assert {"gradients", "a network learns", "a report"} <= set(names)
    assert not list(tmp_path.iterdir())


def test_a_wrong_kernel_is_told(monkeypatch, capsys):
    right = FastBackend._linear_forward

    def compute(self, x, w, b):
        y = right(self, x, w, b)
        y[-1, -1] *= 1.001
        return y

    monkeypatch.setattr(FastBackend, "_linear_forward", compute)
    monkeypatch.setattr(selftest, "_try_all", lambda seed, folder: selftest._try_operations(seed))
    assert main(["selftest"]) == 3
    shown = capsys.readouterr()
    assert "FAIL" in shown.out
    assert "LinearSpec" in shown.err
    assert "y: off by" in shown.err
    assert "Traceback" not in shown.err
