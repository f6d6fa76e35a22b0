"""Parity first, then time: what is held, what is counted, and that what fails is never timed."""

import csv
import json
import re
import signal
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.fast.conv import ConvStage
from cnnctl.backends.fast.pooling import MaxPoolStage
from cnnctl.backends.specs import Array
from cnnctl.bench import naive_vs_fast as module
from cnnctl.bench.naive_vs_fast import (
    DIRECTIONS,
    StageOperation,
    Work,
    measure_naive_vs_fast,
    record_naive_vs_fast,
)
from cnnctl.bench.shapes import read_cases
from cnnctl.check.parity import bound_outputs, compare_outputs
from cnnctl.config import EngineConfig
from cnnctl.errors import CnnctlError, Interrupted, RunError, ShapeError
from cnnctl.train.run_directory import RunDirectory, find_run

CASES = """
cases:
  - {name: conv, x: [2, 3, 7, 6], layer: {conv: {filters: 5, kernel: 3, stride: 2, padding: 1}}}
  - {name: grouped, x: [2, 4, 7, 6], layer: {conv: {filters: 6, kernel: [2, 3], groups: 2, bias: false}}}
  - {name: winograd, x: [2, 16, 8, 8], layer: {conv: {filters: 16, kernel: 3, padding: same}}}
  - {name: maxpool, x: [2, 3, 6, 6], layer: {maxpool: 2}}
  - {name: overlap, x: [2, 3, 7, 7], layer: {maxpool: {kernel: 3, stride: 2, padding: 1}}}
  - {name: avgpool, x: [2, 3, 7, 7], layer: {avgpool: {kernel: 3, stride: 2, padding: 1}}}
  - {name: linear, x: [3, 20], layer: {linear: 4}, calls: 3}
  - {name: flattened, x: [3, 2, 4, 4], layer: {linear: {units: 4, bias: false}}}
"""
NAMES = re.findall(r"name: (\w+)", CASES)
ENGINE = EngineConfig(threads=1)
FIGURES = ("seconds", "seconds_q1", "seconds_q3", "speed_up")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes") / "shapes.yaml"
    path.write_text(CASES)
    return {case.name: case for case in read_cases(str(path))[1]}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """As few calls as there may be, without PyTorch."""
    for name in ("NAIVE_S", "AIM_S", "LEAD_IN_S"):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(module, "find_spec", lambda name: None)


@pytest.fixture
def measure(cases):
    """The rows of some cases, by engine and direction where there is but one case."""

    def run(*names, **settings):
        engine = ENGINE.model_copy(update=settings)
        return measure_naive_vs_fast([cases[name] for name in names], engine)

    return run


@pytest.fixture
def record(cases, tmp_path):
    def run(*names, describe=lambda report: "a table\n"):
        return record_naive_vs_fast(
            "# as given\n",
            [cases[name] for name in names],
            ENGINE,
            name="tiny",
            runs_dir=tmp_path / "runs",
            describe=describe,
        )

    return run


@pytest.fixture
def break_forward(monkeypatch):
    """Plant an error in a stage of the C kernels: `spoil` changes y."""

    def plant(stage, spoil):
        original = stage.forward

        def forward(self, n, training):
            original(self, n, training)
            spoil(self.buffers)

        monkeypatch.setattr(stage, "forward", forward)

    return plant


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_every_engine_holds_and_has_all_its_figures(measure, name, dtype):
    report = measure(name, dtype=dtype)
    assert [(row.engine, row.direction) for row in report.rows] == [
        (engine, direction) for direction in DIRECTIONS for engine in ("naive", "im2col", "fast")
    ]
    assert [row.parity for row in report.rows] == 2 * ["reference", "ok", "ok"]
    assert report.failures == ()
    for row in report.rows:
        assert min(getattr(row, figure) for figure in FIGURES) > 0
        assert row.seconds_q1 <= row.seconds <= row.seconds_q3
        assert row.spread == pytest.approx((row.seconds_q3 - row.seconds_q1) / row.seconds)
        assert row.runs == (1 if row.engine == "naive" else module.FEWEST_TURNS * module.TURN_CALLS)
        assert (row.difference is None) is (row.engine == "naive")
        assert (row.gflops is None) is ("pool" in name or name == "overlap")
        assert row.speed_up == pytest.approx(_find(report, "naive", row.direction).seconds / row.seconds)


def _find(report, engine, direction):
    (row,) = [row for row in report.rows if (row.engine, row.direction) == (engine, direction)]
    return row


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("conv", 2 * (5 * 4 * 3) * (3 * 3 * 3)),
        ("grouped", 2 * (6 * 6 * 4) * (2 * 2 * 3)),
        ("linear", 3 * 20 * 4),
        ("flattened", 3 * 32 * 4),
        ("avgpool", None),
    ],
)
def test_multiply_accumulates_and_what_follows_from_them(measure, name, macs):
    report = measure(name)
    for row in report.rows:
        wanted = macs and macs * (1 if row.direction == "forward" else 2)
        assert row.macs == wanted
        assert row.calls == (3 if name == "linear" else 1)
        if wanted:
            assert row.gflops == pytest.approx(2 * wanted * row.calls / row.seconds / 1e9)


def test_a_time_is_of_all_calls(cases, monkeypatch):
    calls = []
    work = Work(cases["linear"], ENGINE, 0)
    operation = StageOperation(create_backend("im2col"), work, "forward")
    monkeypatch.setattr(operation, "run", calls.append)
    module._repeat(operation, 3)(17)
    assert calls == [0, 1, 2]


def test_numbers_depend_on_the_seed_and_the_case_alone(cases):
    first, again = (Work(cases["conv"], ENGINE, 0) for _ in range(2))
    others = [Work(cases["conv"], ENGINE.model_copy(update={"seed": 1}), 0), Work(cases["conv"], ENGINE, 1)]
    assert np.array_equal(first.x, again.x)
    assert np.array_equal(first.dy, again.dy)
    assert np.array_equal(first.layer.params["weight"], again.layer.params["weight"])
    assert all((first.x != other.x).any() for other in others)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["conv", "grouped", "overlap", "linear"])
def test_what_a_stage_leaves_is_what_the_contract_computes(cases, name, direction):
    """Else parity would be shown for something that nobody calls."""
    work, backend = Work(cases[name], ENGINE, 0), create_backend("naive")
    work.layer.name = name
    y = work.layer.forward(work.x, backend, training=True)
    if direction == "forward":
        wanted: dict[str, Array | None] = {"y": y}
    else:
        wanted = {"dx": work.layer.backward(work.dy, backend)}
        wanted |= {{"weight": "dw", "bias": "db"}[key]: array for key, array in work.layer.grads.items()}
    for engine in ("naive", "fast"):
        operation = StageOperation(create_backend(engine), work, direction)
        operation.run(0)
        found = operation.read()
        assert found.keys() - {"index"} == wanted.keys()
        bounds = bound_outputs(work.layer.spec, work.x.shape, y.shape, wanted, winograd=False)
        assert compare_outputs(found, wanted, bounds).holds


def test_what_fails_parity_has_no_figures_and_is_not_run_again(measure, break_forward):
    runs = []

    def spoil(buffers):
        runs.append(None)
        buffers.y[0, 0] += 1e-3

    break_forward(ConvStage, spoil)
    report = measure("conv")
    fast = _find(report, "fast", "forward")
    assert (fast.parity, fast.output, fast.runs) == ("FAIL", "y", 0)
    assert fast.difference == pytest.approx(1e-3, rel=0.1)
    assert fast.bound < 1e-4
    assert [getattr(fast, figure) for figure in (*FIGURES, "gflops")] == 5 * [None]
    assert len(runs) == 1
    assert report.failures == (fast,)
    assert _find(report, "im2col", "forward").parity == "ok"
    assert _find(report, "fast", "backward").seconds > 0
    assert report.to_document()["ok"] is False


@pytest.mark.parametrize("output", ["dx", "weight", "bias"])
def test_a_wrong_gradient_fails(measure, monkeypatch, output):
    original = ConvStage.backward

    def backward(self, n):
        original(self, n)
        spoiled = self.buffers.dx if output == "dx" else self.buffers.grads[output]
        spoiled[..., 0] *= 1.001

    monkeypatch.setattr(ConvStage, "backward", backward)
    (row,) = measure("conv").failures
    name = {"dx": "dx", "weight": "dw", "bias": "db"}[output]
    assert (row.direction, row.engine, row.output, row.seconds) == ("backward", "fast", name, None)


def test_what_was_never_computed_fails(measure, monkeypatch):
    monkeypatch.setattr(ConvStage, "forward", lambda self, n, training: None)
    row, *_ = measure("conv").failures
    assert (row.output, row.difference, row.seconds) == ("y", None, None)
    assert row.problem == "120 of 120 numbers are not finite"


def test_a_wrong_winner_fails(measure, break_forward):
    def spoil(buffers):
        buffers.saved["index"][0, 0] ^= 1

    break_forward(MaxPoolStage, spoil)
    row, *_ = measure("maxpool").failures
    assert (row.direction, row.output, row.difference, row.bound) == ("forward", "index", 1, 0)


def test_all_of_it_is_written_down(record, tmp_path):
    path, report = record("conv", "linear", describe=lambda report: f"{len(report.rows)} rows\n")
    assert {file.name for file in path.iterdir()} == {
        *("shapes.yaml", "env.json", "timing.json", "timing.csv", "table.txt"),
        *("status.json", "log.txt", "lock"),
    }
    assert (path / "shapes.yaml").read_text() == "# as given\n"
    assert (path / "table.txt").read_text() == "12 rows\n"
    document = json.loads((path / "timing.json").read_text())
    assert document == json.loads(json.dumps(report.to_document()))
    rows = list(csv.DictReader(StringIO((path / "timing.csv").read_text())))
    assert len(rows) == len(document["rows"]) == 12
    for text, row in zip(rows, document["rows"], strict=True):
        assert text == {key: "" if value is None else str(value) for key, value in row.items()}
    environment = json.loads((path / "env.json").read_text())
    assert (environment["backend"], environment["threads"], environment["seed"]) == ("fast", 1, 0)
    assert RunDirectory(path).read_status().state == "finished"
    assert find_run("tiny", tmp_path / "runs") == path


def test_a_measurement_is_not_the_latest_run(record, tmp_path):
    record("linear")
    with pytest.raises(RunError, match="'latest' is neither"):
        find_run("latest", tmp_path / "runs")
    older = tmp_path / "runs" / "20000101-000000-trained-aaaa"
    older.mkdir()
    for file in ("status.json", "config.yaml"):
        (older / file).touch()
    assert find_run("latest", tmp_path / "runs") == older


def test_rows_without_parity_are_written_down_too(record, break_forward):
    break_forward(ConvStage, lambda buffers: buffers.y.fill(np.nan))
    path, _ = record("conv")
    _, _, row, *_ = csv.DictReader(StringIO((path / "timing.csv").read_text()))
    assert (row["parity"], row["difference"], row["seconds"], row["gflops"]) == ("FAIL", "", "", "")
    assert RunDirectory(path).read_status().state == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(record, monkeypatch, tmp_path, number):
    handler = signal.getsignal(number)
    monkeypatch.setattr(module, "check_parity", lambda *_: signal.raise_signal(number))
    with pytest.raises(Interrupted) as caught:
        record("conv")
    assert caught.value.exit_code == 128 + number
    (path,) = (tmp_path / "runs").iterdir()
    assert RunDirectory(path).read_status().state == "interrupted"
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (MemoryError, CnnctlError, r"conv: x: \(2, 3, 7, 6\) needs more memory than there is"),
        (ShapeError("kernel: too large"), ShapeError, "conv: kernel: too large"),
    ],
)
def test_what_cannot_be_run_names_its_case(record, monkeypatch, tmp_path, raised, error, message):
    def fail(*_):
        raise raised

    monkeypatch.setattr(module, "measure_direction", fail)
    with pytest.raises(error, match=f"^{message}$"):
        record("conv")
    (path,) = (tmp_path / "runs").iterdir()
    assert RunDirectory(path).read_status().state == "failed"


def test_a_place_where_nothing_can_be_written(record, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(RunError, match="runs: "):
        record("conv")


def test_pytorch_missing_is_noted(cases):
    notes = []
    measure_naive_vs_fast([cases["linear"]], ENGINE, note=notes.append)
    assert notes[0] == "PyTorch is not installed, so it has no rows; for some: pip install torch"


class TestPyTorch:
    """Where it is installed."""

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch):
        pytest.importorskip("torch")
        monkeypatch.setattr(module, "find_spec", lambda name: True)

    @pytest.mark.parametrize("name", NAMES)
    def test_it_has_a_row_in_each_direction(self, measure, name):
        rows = [row for row in measure(name).rows if row.engine == "torch"]
        assert [(row.direction, row.parity) for row in rows] == [("forward", "ok"), ("backward", "ok")]
        assert min(row.seconds for row in rows) > 0

    def test_it_is_held_against_the_textbook_in_both_layouts(self, measure, monkeypatch):
        from cnnctl.bench.torch_operation import TorchOperation

        original = TorchOperation.read

        def read(self):
            return {key: 1.001 * array for key, array in original(self).items()}

        monkeypatch.setattr(TorchOperation, "read", read)
        failures = measure("conv").failures
        assert [(row.engine, row.layout, row.direction) for row in failures] == [
            ("torch", layout, direction) for direction in DIRECTIONS for layout in ("NCHW", "channels_last")
        ]

    def test_what_it_has_no_like_of_has_no_row(self, cases):
        notes = []
        layer = cases["maxpool"].config.model_copy(update={"kernel": 3, "stride": 1, "padding": 2})
        case = replace(cases["maxpool"], config=layer)
        report = measure_naive_vs_fast([case], ENGINE, note=notes.append)
        assert {row.engine for row in report.rows} == {"naive", "im2col", "fast"}
        assert any(note.startswith("maxpool, forward: PyTorch does not run this in NCHW: ") for note in notes)
