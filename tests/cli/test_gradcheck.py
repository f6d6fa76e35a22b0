"""`cnnctl gradcheck`: tables, documents, and exit code 3 with a command that repeats what failed."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnctl.backends.im2col import Im2colBackend

Run = Callable[..., tuple[int, str, str]]

CONFIG = """
data: {dataset: mnist}
network:
  layers: [{conv: {filters: 2, kernel: 5, stride: 4}}, relu, {maxpool: 2}, {linear: 10}]
solver: {optimizer: adam, epochs: 1, batch_size: 8, l2: 0.01}
engine: {backend: im2col}
"""
ROW_KEYS = [
    *("backend", "kind", "name", "shape", "coordinates", "directions", "kinks", "below_noise"),
    *("error", "at", "analytic", "numeric", "verdict"),
]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config whose data set is nowhere: its shape is known."""
    (tmp_path / "tiny net.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return "tiny net.yaml"


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """im2col's convolutions have one wrong weight gradient."""
    right = Im2colBackend._conv_backward

    def wrong(self: Im2colBackend, *args: object) -> object:
        dx, dw, db = right(self, *args)
        dw[1, 0, 2, 3] *= -1
        return dx, dw, db

    monkeypatch.setattr(Im2colBackend, "_conv_backward", wrong)


def test_a_network(run_main: Run, config: str) -> None:
    code, out, err = run_main("gradcheck", config)
    assert (code, err) == (0, "")
    head, *rows, last = out.splitlines()
    assert " ".join(head.split()) == "backend name shape checked kinks below noise largest error at verdict"
    assert [row.split()[:3] for row in rows] == [
        ["im2col", "input", "3x1x28x28"],
        ["im2col", "conv1.weight", "2x1x5x5"],
        ["im2col", "conv1.bias", "2"],
        ["im2col", "linear1.weight", "10x18"],
        ["im2col", "linear1.bias", "10"],
    ]
    assert "16 of 50 + 4 directions" in rows[1]
    assert all(row.endswith("ok") for row in rows)
    assert last == "5 tensors: 5 ok"


def test_json(run_main: Run, config: str) -> None:
    code, out, err = run_main("gradcheck", config, "--layer", "conv1", "--seed", "7", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    rows = document.pop("rows")
    assert document == {
        "schema": 1,
        "command": "gradcheck",
        "config": config,
        "seed": 7,
        "bound": 1e-6,
        "ok": True,
    }
    assert [list(row) for row in rows] == [ROW_KEYS, ROW_KEYS]
    assert [(row["name"], row["shape"], row["verdict"]) for row in rows] == [
        ("conv1.weight", [2, 1, 5, 5], "ok"),
        ("conv1.bias", [2], "ok"),
    ]


@pytest.mark.usefixtures("careless")
def test_a_wrong_gradient(run_main: Run, config: str) -> None:
    code, out, err = run_main("gradcheck", config, "--seed", "2", "-o", "solver.l2=0")
    assert code == 3
    assert [line.split()[1] for line in out.splitlines() if line.endswith("FAIL")] == ["conv1.weight"]
    assert out.splitlines()[-1] == "5 tensors: 1 FAIL, 4 ok"
    assert err.startswith("cnnctl: error: im2col conv1.weight at ")
    assert "back-propagation gives" in err
    assert err.count("\n") == 1

    command = shlex.split(err.partition("to repeat it: ")[2])
    assert command[:3] == ["cnnctl", "gradcheck", config]
    again = run_main(*command[1:])
    assert (again[0], again[2]) == (3, err)


@pytest.mark.usefixtures("careless")
def test_a_wrong_gradient_as_a_document(run_main: Run, config: str) -> None:
    code, out, err = run_main("gradcheck", config, "--json")
    assert (code, json.loads(out)["ok"]) == (3, False)
    assert "to repeat it: " in err


class TestCatalogue:
    """Without a config."""

    def test_a_kind_on_every_backend(self, run_main: Run) -> None:
        code, out, err = run_main("gradcheck", "--layer", "tanh")
        assert (code, err) == (0, "")
        rows = [line.split()[:2] for line in out.splitlines()[1:-1]]
        assert {backend for backend, _ in rows} == {"naive", "im2col", "fast"}
        assert ["naive", "tanh.input"] in rows
        assert ["fast", "tanh-vectors-planned.linear1.weight"] in rows

    def test_all_of_it_is_summed_up(self, run_main: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from cnnctl.check import catalogue

        chosen = tuple(entry for entry in catalogue.list_entries() if entry.kind in {"relu", "softmax"})
        monkeypatch.setattr(catalogue, "list_entries", lambda: chosen)
        code, out, err = run_main("gradcheck", "--backend", "im2col")
        assert (code, err) == (0, "")
        head, relu, softmax, last = out.splitlines()
        assert head.startswith("backend  kind     tensors  checked")
        assert relu.split()[:3] == ["im2col", "relu", "12"]
        assert softmax.split()[:4] == ["im2col", "softmax", "18", "162"]
        assert last == "30 tensors: 30 ok"

    @pytest.mark.usefixtures("careless")
    def test_a_wrong_gradient(self, run_main: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from cnnctl.check import catalogue

        chosen = tuple(
            entry for entry in catalogue.list_entries() if entry.name in {"conv-whole-image", "tanh"}
        )
        monkeypatch.setattr(catalogue, "list_entries", lambda: chosen)
        code, out, err = run_main("gradcheck", "--backend", "im2col")
        assert code == 3
        assert [line.split()[1] for line in out.splitlines() if line.endswith("FAIL")] == [
            "conv",
            "conv-whole-image.conv1.weight",
        ]
        assert err.endswith("cnnctl gradcheck --backend im2col --layer conv-whole-image --seed 0\n")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["no.yaml"], "no.yaml: no such file"),
        (["CONFIG", "--layer", "conv9"], "layer: 'conv9' is no layer with parameters; did you mean conv1?"),
        (["CONFIG", "--layer", "relu1"], "layer: 'relu1' is no layer with parameters; known: input, conv1,"),
        (["CONFIG", "--backend", "fsat"], "-o engine.backend=fsat: engine.backend: 'fsat' is not known;"),
        (["CONFIG", "-o", "data.dataset=npz"], "data.path"),
        (["--backend", "fsat"], "backend: 'fsat' is not known; did you mean fast?"),
        (["--layer", "convv"], "layer: 'convv' is not in the catalogue; did you mean conv?"),
        (["-o", "solver.l2=1"], "-o solver.l2=1: there is no config to override; give one"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
    ],
)
def test_what_is_mistyped_is_one_line(run_main: Run, config: str, args: list[str], line: str) -> None:
    code, out, err = run_main("gradcheck", *(config if arg == "CONFIG" else arg for arg in args))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cnnctl: error: ")
    assert line in err
