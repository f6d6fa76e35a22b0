"""`cnnctl plot`: a picture, its numbers and, on a terminal, the curves in characters."""

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cnnctl.train.api import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    """Two runs, first and second, of 2 epochs of 5 steps."""
    folder = tmp_path_factory.mktemp("plot")
    rng = np.random.default_rng(5)
    arrays = {}
    for split, count in (("train", 48), ("test", 12)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
        arrays[f"y_{split}"] = rng.permutation(np.arange(count) % 4)
    np.savez(folder / "noise.npz", **arrays)
    for name in ("first", "second"):
        config = {
            "name": name,
            "data": {"dataset": "npz", "path": str(folder / "noise.npz"), "validation": 8},
            "network": {"layers": [{"linear": 4}]},
            "solver": {"optimizer": "sgd", "epochs": 2, "batch_size": 8, "log_every": 1},
            "engine": {"backend": "im2col", "threads": 1},
        }
        train(config, runs_dir=folder / "runs")
    return folder / "runs"


@pytest.fixture
def plot(run_main, runs_dir):
    return lambda *args: run_main("plot", "--runs-dir", runs_dir, *args)


def read_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_one_run_into_its_own_folder(plot, runs_dir):
    (run,) = runs_dir.glob("*-first-*")
    picture, numbers = run / "figures" / "curves.png", run / "figures" / "curves.csv"
    assert plot("first") == (0, f"{picture}\n{numbers}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = read_rows(numbers)
    assert {row["metric"] for row in rows} == {"loss", "accuracy", "lr", "norms", "update-ratio", "speed"}
    losses = [float(row["value"]) for row in rows if (row["metric"], row["series"]) == ("loss", "training")]
    entries = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert losses == [entry["loss"] for entry in entries if entry["type"] == "step"]
    before = picture.read_bytes()
    assert plot("first").code == 0
    assert picture.read_bytes() == before


def test_several_runs_and_json(plot, runs_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = plot("first", "second", "first", "--metric", "loss,norms", "--smooth", 1, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert list(document) == ["schema", "command", "runs", "smooth", "output", "numbers", "series"]
    assert [Path(run).name[16:-5] for run in document["runs"]] == ["first", "second"]
    assert (document["output"], document["numbers"]) == ("curves.png", "curves.csv")
    assert [(one["metric"], one["name"]) for one in document["series"]] == (
        2 * [("loss", "training"), ("loss", "validation")] + 2 * [("norms", "weights"), ("norms", "gradient")]
    )
    first = document["series"][0]
    assert (first["axis"], first["points"]) == ("step", 10)
    assert first["last"] == first["last_smoothed"]
    rows = read_rows(tmp_path / "curves.csv")
    of_first = [row for row in rows if row["run"] == first["run"] and row["series"] == "training"]
    assert len(of_first) == 10
    assert float(of_first[-1]["value"]) == first["last"]


def test_svg(plot, tmp_path):
    assert plot("first", "--output", tmp_path / "a.svg", "--metric", "lr").code == 0
    ElementTree.parse(tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["first", "--metric", "loss,acuracy"], 2, "metric: 'acuracy' is not known; did you mean accuracy?"),
        (["fist"], 1, "run: 'fist' is neither a run directory nor the name of one"),
        (["first", "--output", "curves.pdf"], 2, "output: 'curves.pdf' does not end in .png or .svg"),
        (["first", "--smooth", "0"], 2, "Invalid value for '--smooth'"),
    ],
)
def test_errors_are_one_line(plot, args, code, line):
    outcome = plot(*args)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"cnnctl: error: {line}")
    assert outcome.err.count("\n") == 1


def test_a_run_without_such_entries(plot, runs_dir, tmp_path):
    """One of before norms were written: they are left out, unless they are asked for."""
    (run,) = runs_dir.glob("*-second-*")
    old = tmp_path / "old"
    old.mkdir()
    for name in ("status.json", "timing.csv"):
        (old / name).write_bytes((run / name).read_bytes())
    (old / "metrics.jsonl").write_text('{"type": "step", "step": 1, "epoch": 1, "loss": 2.0, "lr": 0.1}\n')
    assert plot(old).code == 0
    found = {row["metric"] for row in read_rows(old / "figures" / "curves.csv")}
    assert found == {"loss", "lr", "speed"}
    code, out, err = plot(old, "--metric", "loss,norms", "--output", tmp_path / "a.png")
    assert (code, out) == (1, "")
    assert err == f"cnnctl: error: {old}: there are no entries of norms to draw yet\n"
    assert not (tmp_path / "a.png").exists()


def show_on_terminal(runs_dir, output, **variables):
    """What `cnnctl plot` writes to a terminal of 60 columns, and what to stdout."""
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "cnnctl",
        "plot",
        "first",
        "--metric",
        "loss",
        "--runs-dir",
        str(runs_dir),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "60",
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
    }
    environment.pop("NO_COLOR", None)
    done = subprocess.run(
        [*command, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment | variables,
        text=True,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the end, as Linux has it
        pass
    os.close(ours)
    return shown.decode().replace("\r\n", "\n").splitlines(), done.stdout


@pytest.mark.parametrize(
    ("variables", "has_dots"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_shows_the_curves(runs_dir, tmp_path, variables, has_dots):
    lines, out = show_on_terminal(runs_dir, tmp_path / "a.png", **variables)
    assert out.splitlines() == [str(tmp_path / "a.png"), str(tmp_path / "a.csv")]
    text = "\n".join(lines)
    assert (len(lines), lines[0]) == (10, "loss, nats")
    assert "step 1 to 10" in lines[-1]
    assert any("\u2800" < character <= "\u28ff" for character in text) == has_dots
    assert ("\x1b[" in text) == has_dots
    if not has_dots:
        assert max(map(len, lines)) == 59
        assert "* training  + validation" in lines[-1]
