"""`cnnctl bench`: tables and documents of the machine, of operations and of whole steps."""

import json

import numpy as np
import pytest

from cnnctl.bench import ops, roofline
from cnnctl.bench import step as step_module
from cnnctl.bench.step import Failure, LossCheck, StepReport, StepRow
from cnnctl.bench.timing import Quartiles

CONFIG = """
data: {{dataset: npz, path: {path}, validation: 4}}
network:
  layers: [{{conv: {{filters: 3, kernel: 3}}}}, relu, {{linear: 4}}]
solver: {{optimizer: adam, epochs: 1, batch_size: 8}}
"""

CONDITIONS = {
    "backend",
    "dtype",
    "instruction_set",
    "cpu",
    "cnnctl",
    "numpy",
    "torch",
    "load_average",
}
STEP_KEYS = [
    "schema",
    "command",
    "config",
    "mode",
    "ratio",
    "loss_difference",
    "conditions",
    "threads",
    "batch_size",
    "failures",
    "losses",
    "rows",
]
ROW_KEYS = [
    "engine",
    "threads",
    "layout",
    "source",
    "step_ms",
    "images_per_second",
    "steps",
    "peak_memory_mb",
]


@pytest.fixture
def config(tmp_path, rng):
    arrays = {}
    for split, count in (("train", 28), ("test", 4)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 1, 6, 6), np.uint8)
        arrays[f"y_{split}"] = rng.permutation(np.arange(count) % 4)
    np.savez(tmp_path / "noise.npz", **arrays)
    file = tmp_path / "tiny.yaml"
    file.write_text(CONFIG.format(path=tmp_path / "noise.npz"))
    return file


@pytest.fixture
def report():
    """Two sides that agree, and a candidate that did not compile."""

    def make_row(engine, median, memory):
        return StepRow(engine, 2, "NCHW", "pixels", Quartiles(1.0, median, 9.0), 1000.0, 20, memory)

    return StepReport(
        conditions={"load_average": 0.0},
        threads=2,
        batch_size=100,
        ours=(make_row("cnnctl fast", 2.0, 120.0),),
        theirs=(make_row("torch eager", 7.0, 440.0), make_row("torch compile", 8.0, None)),
        failures=(Failure("torch compile", "channels_last", "no compiler"),),
        losses=LossCheck(2e-6, 1e-6, 3e-14),
    )


@pytest.fixture
def run_step(run_main, config, monkeypatch, report):
    """`cnnctl bench step` with that report, changed as wanted."""

    def run(*args, **changes):
        for name, value in changes.items():
            object.__setattr__(report, name, value)
        monkeypatch.setattr(step_module, "measure_steps", lambda *_, **__: report)
        return run_main("bench", "step", config, *args)

    return run


def test_the_machine(run_main, monkeypatch):
    monkeypatch.setattr(roofline, "choose_far_bytes", lambda: 2**16)
    monkeypatch.setattr(roofline, "BURST_S", 1e-5)
    code, out, _ = run_main("bench", "roofline", "--seconds", 0, "--dtype", "float64", "--json")
    document = json.loads(out)
    assert (code, list(document)) == (
        0,
        ["schema", "command", "conditions", "near_bytes", "far_bytes", "rows"],
    )
    assert set(document["conditions"]) == CONDITIONS
    assert list(document["rows"][0]) == [
        "instruction_set",
        "threads",
        "fma_gflops",
        "near_read_gbs",
        "near_copy_gbs",
        "far_read_gbs",
        "far_copy_gbs",
    ]
    code, out, _ = run_main("bench", "roofline", "--seconds", 0)
    assert code == 0
    assert "GFLOP/s" in out.splitlines()[1]


def test_the_operations_of_a_config(run_main, config):
    code, out, _ = run_main("bench", "ops", config, "--seconds", 0, "--threads", 1, "--batch", 4, "--json")
    document = json.loads(out)
    assert (code, document["command"], document["config"]) == (0, "bench ops", str(config))
    assert [row["name"] for row in document["rows"]] == [
        "prepare",
        "conv1+relu1",
        "linear1",
        "loss",
        "update",
    ]
    assert {row["batch_size"] for row in document["rows"]} == {4}
    code, out, _ = run_main("bench", "ops", config, "--seconds", 0, "--exact", "--isa", "x86-64")
    assert code == 0
    assert out.startswith("fast, x86-64, float32, ")
    assert out.splitlines()[-1].startswith("a whole step: ")


def test_operations_by_themselves(run_main, monkeypatch):
    monkeypatch.setattr(ops, "CASES", ops.CASES[7:8])
    code, out, _ = run_main("bench", "ops", "--seconds", 0, "--batch", 2, "--json")
    document = json.loads(out)
    assert (code, document["config"], document["step_ms"]) == (0, None, None)
    assert [row["name"] for row in document["rows"]] == ["conv 5x5 1->6 at 28x28, first"]


def test_a_whole_step(run_main, config):
    code, out, err = run_main("bench", "step", config, "--steps", 1, "--threads", 1, "--evaluate", "--json")
    document = json.loads(out)
    assert (code, list(document), list(document["rows"][0])) == (0, STEP_KEYS, ROW_KEYS)
    assert (document["mode"], document["ratio"], document["threads"], document["batch_size"]) == (
        "evaluate",
        None,
        1,
        8,
    )
    assert list(document["rows"][0]["step_ms"]) == ["q1", "median", "q3"]
    assert document["rows"][0]["peak_memory_mb"] > 10
    assert "timing 1 steps each of cnnctl fast NHWC" in err


def test_a_comparison_as_a_document(run_step):
    code, out, err = run_step("--peer", "torch", "--json")
    document = json.loads(out)
    assert (code, document["ratio"], document["loss_difference"]) == (0, 3.5, 2e-6)
    assert document["losses"] == {
        "difference": 2e-6,
        "peer_difference": 1e-6,
        "double_difference": 3e-14,
        "bound": 1e-3,
        "agrees": True,
    }
    assert [row["engine"] for row in document["rows"]] == ["cnnctl fast", "torch eager", "torch compile"]
    assert document["failures"] == [
        {"engine": "torch compile", "layout": "channels_last", "reason": "no compiler"}
    ]
    assert err == "cnnctl: warning: torch compile channels_last does not run here: no compiler\n"


def test_a_comparison_as_a_table(run_step):
    code, out, _ = run_step("--peer", "torch")
    assert code == 0
    assert out.splitlines()[-2:] == [
        "3.50 times as fast as PyTorch's best",
        "losses: they differ from PyTorch's by up to 2.0e-06 (itself, another way: 1.0e-06), "
        "and in float64 by 3.0e-14",
    ]


@pytest.mark.parametrize("difference", [0.002, float("nan")])
def test_losses_that_do_not_agree_end_with_3_and_no_ratio(run_step, difference):
    losses = LossCheck(difference, None, 1e-14)
    code, out, err = run_step("--peer", "torch", "--json", losses=losses)
    assert (code, json.loads(out)["ratio"]) == (3, None)
    assert err.splitlines()[-1].startswith("cnnctl: error: losses: they differ from PyTorch's by ")
    code, out, _ = run_step("--peer", "torch", losses=losses)
    assert code == 3
    assert "times as fast" not in out


def test_a_busy_machine_is_pointed_out(run_step):
    _, _, err = run_step(conditions={"load_average": 3.21})
    assert "something else was running here (load average 3.2)" in err


def test_pytorch_missing(run_main, config, monkeypatch):
    monkeypatch.setattr(step_module, "find_spec", lambda name: None)
    code, out, err = run_main("bench", "step", config, "--peer", "torch")
    assert (code, out) == (2, "")
    assert err == ("cnnctl: error: peer: torch is not installed; install it with: pip install torch\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ops", "-o", "solver.epochs=3"], "-o solver.epochs=3: there is no config to override; give one"),
        (["ops", "--isa", "v9"], "isa: 'v9' is not one this processor runs"),
        (["step", "missing.yaml"], "missing.yaml: "),
        (["step", "CONFIG", "--synthetic"], "synthetic: 'npz' cannot be made up; known: mnist, "),
        (["step", "CONFIG", "--backend", "fats"], "backend: 'fats' is not known; did you mean fast?"),
        (["step", "CONFIG", "-o", "engine.threads=0"], "-o engine.threads=0:"),
        (["step", "CONFIG", "--peer", "caffe"], "Invalid value for '--peer': 'caffe' is not 'torch'."),
        (["rooflin"], "'rooflin' is not a command; did you mean roofline?"),
    ],
)
def test_what_is_not_usable_ends_with_2_and_one_line(run_main, config, args, message):
    code, out, err = run_main("bench", *(config if arg == "CONFIG" else arg for arg in args))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"cnnctl: error: {message}")
