"""`cnnctl bench naive-vs-fast`: tables and a path, or one document; exit code 3 without parity."""

import json

import pytest

from cnnctl.backends.fast.conv import ConvStage
from cnnctl.bench import naive_vs_fast as module
from cnnctl.cli import naive_vs_fast as command

SHAPES = """\
cases:
  - {name: tiny-conv, x: [2, 3, 6, 6], layer: {conv: {filters: 4, kernel: 3}}, calls: 2}
  - {name: tiny-pool, x: [2, 3, 6, 6], layer: {maxpool: 2}}
"""


@pytest.fixture
def shapes(tmp_path):
    path = tmp_path / "shapes.yaml"
    path.write_text(SHAPES)
    return path


@pytest.fixture
def run(run_main, monkeypatch, tmp_path):
    """The command with as few calls as there may be, and its runs under `runs`."""
    for name in ("NAIVE_S", "AIM_S", "LEAD_IN_S"):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    return lambda *args: run_main("bench", "naive-vs-fast", "--runs-dir", tmp_path / "runs", *args)


@pytest.fixture
def spoil(monkeypatch):
    """A C kernel that is off by a thousandth."""
    original = ConvStage.forward

    def forward(self, n, training):
        original(self, n, training)
        self.buffers.y[...] *= 1.001

    monkeypatch.setattr(ConvStage, "forward", forward)


def find_run(tmp_path):
    (path,) = (tmp_path / "runs").iterdir()
    return path


def test_tables_and_a_path(run, shapes, tmp_path):
    code, out, err = run("--shapes", shapes, "--threads", 1)
    assert code == 0
    *tables, path = out.splitlines()
    assert path == str(find_run(tmp_path))
    assert (find_run(tmp_path) / "table.txt").read_text().splitlines() == tables
    assert (find_run(tmp_path) / "shapes.yaml").read_text() == SHAPES
    assert tables[::6] == [
        "tiny-conv, forward: x [2, 3, 6, 6], conv: {filters: 4, kernel: 3}; float32, 1 thread; "
        "3,456 MACs a call; seconds of 2 calls",
        "tiny-conv, backward: x [2, 3, 6, 6], conv: {filters: 4, kernel: 3}; float32, 1 thread; "
        "6,912 MACs a call; seconds of 2 calls",
        "tiny-pool, forward: x [2, 3, 6, 6], maxpool: {kernel: 2}; float32, 1 thread",
        "tiny-pool, backward: x [2, 3, 6, 6], maxpool: {kernel: 2}; float32, 1 thread",
    ]
    assert tables[1].split() == list(command.COLUMNS)
    assert [line.split()[0] for line in tables[2:5]] == ["naive", "im2col", "fast"]
    assert [line.split()[-1] for line in tables[2:5]] == ["-", "ok", "ok"]
    assert "pip install torch" in err.splitlines()[0]
    assert "tiny-conv, forward: naive, and the others held against it" in err


def test_one_document(run, shapes, tmp_path):
    code, out, _ = run("--shapes", shapes, "--json", "--dtype", "float64", "--seed", 7, "--name", "mine")
    document = json.loads(out)
    assert code == 0
    assert list(document) == [
        *("schema", "command", "conditions", "threads", "dtype", "seed", "ok", "rows", "run"),
    ]
    assert (document["schema"], document["command"]) == (1, "bench naive-vs-fast")
    assert (document["dtype"], document["seed"], document["ok"]) == ("float64", 7, True)
    assert document["run"] == str(find_run(tmp_path))
    assert find_run(tmp_path).name[16:-5] == "mine"
    assert list(document["rows"][0]) == [
        *("case", "direction", "engine", "layout", "calls", "macs", "parity", "output", "difference"),
        *("relative_error", "bound", "problem", "runs", "seconds", "seconds_q1", "seconds_q3"),
        *("speed_up", "gflops"),
    ]
    assert {row["case"] for row in document["rows"]} == {"tiny-conv", "tiny-pool"}


def test_without_parity_exit_code_3_and_no_speed(run, shapes, spoil, tmp_path):
    code, out, err = run("--shapes", shapes, "--threads", 1, "--seed", 5)
    assert code == 3
    path = find_run(tmp_path)
    engine, layout, *figures, difference, bound, relative, verdict = out.splitlines()[4].split()
    assert (engine, layout, figures, verdict) == ("fast", "NHWC", 5 * ["-"], "FAIL")
    assert float(difference) > float(bound) > 0
    last = err.splitlines()[-1]
    assert last == (
        f"cnnctl: error: tiny-conv, forward, fast: y differs from naive's by {difference}, "
        f"more than {bound}; repeat it with: cnnctl bench naive-vs-fast --shapes {path}/shapes.yaml "
        "--dtype float32 --threads 1 --seed 5"
    )
    assert float(relative) > 1e-4
    assert (path / "timing.csv").exists()
    assert json.loads((path / "status.json").read_text())["state"] == "finished"


def test_a_document_without_parity_is_still_printed(run, shapes, monkeypatch):
    monkeypatch.setattr(ConvStage, "forward", lambda self, n, training: None)
    code, out, err = run("--shapes", shapes, "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (3, False)
    row = document["rows"][2]
    assert (row["parity"], row["difference"], row["seconds"]) == ("FAIL", None, None)
    assert "tiny-conv, forward, fast: y 128 of 128 numbers are not finite; repeat it with: " in err


def test_the_replay_command_reads_what_was_written(run, shapes, tmp_path):
    assert run("--shapes", shapes).code == 0
    assert run("--shapes", find_run(tmp_path) / "shapes.yaml", "--seed", 0).code == 0


def test_a_directory_that_cannot_be_written(run, shapes, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    code, out, err = run("--shapes", shapes)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"cnnctl: error: {tmp_path / 'runs'}: ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--shapes", "missing.yaml"], "missing.yaml: no such file"),
        (["--name", "../up"], "name: '../up' is not usable; give 1 to 64 letters"),
        (["--dtype", "float16"], "Invalid value for '--dtype': 'float16' is not one of "),
        (["--threads", "0"], "Invalid value for '--threads': 0 is not in the range 1<=x<=256."),
        (["--seed", "-1"], "Invalid value for '--seed': -1 is not in the range"),
        (["--shape", "x"], "No such option '--shape'."),
    ],
)
def test_what_is_not_usable_ends_with_2_and_makes_nothing(run, tmp_path, args, message):
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"cnnctl: error: {message}")
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_the_file_is_told_with_its_place(run, shapes, tmp_path):
    shapes.write_text(SHAPES.replace("kernel", "kernal"))
    code, out, err = run("--shapes", shapes)
    assert (code, out) == (2, "")
    column = SHAPES.splitlines()[1].index("kernel") + 1
    assert err == (
        f"cnnctl: error: {shapes}:2:{column}: cases.0.layer.conv.kernal is not known; did you mean kernel?\n"
    )
    assert not (tmp_path / "runs").exists()
