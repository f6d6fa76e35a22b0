"""`cnnctl report`: a page that says what the run's files say, and what it lacks."""

import json
import re

import pytest

from cnnctl.cli import report as module
from cnnctl.errors import RunError
from cnnctl.train.api import train
from tests.plot.browser import Page, find_browser

CONV = {"conv": {"filters": 3, "kernel": 3}}


@pytest.fixture
def config(noise_config):
    noise_config["network"]["layers"] = [CONV, "relu", {"linear": 4}]
    noise_config["solver"]["log_every"] = 1
    noise_config["engine"]["backend"] = "fast"
    return noise_config


@pytest.fixture
def run(config, tmp_path):
    return train(config, runs_dir=tmp_path / "runs")


@pytest.fixture(autouse=True)
def quick_timing(monkeypatch):
    monkeypatch.setattr(module, "TIMING_SECONDS", 0.01)


def read_charts(page):
    """Title -> what stands in the page for its cursor."""
    found = re.findall(
        r"<figcaption>([\w ]+?) <small>.*?<script type=\"application/json\">(.*?)</script>", page, re.S
    )
    return {title: json.loads(text) for title, text in found}


def test_says_what_the_files_say(run_main, run):
    code, out, _ = run_main("report", run.path)
    assert (code, out) == (0, f"{run.path / 'report.html'}\n")
    page = (run.path / "report.html").read_text()
    assert f"{100 * run.test.accuracy:.2f} %" in page
    assert "finished after 10 steps, 2 epochs" in page
    charts = read_charts(page)
    assert charts.keys() >= {"Loss", "Accuracy", "Learning rate", "Norms", "Images per second"}
    validation = next(line for line in charts["Accuracy"]["series"] if line["name"] == "validation")
    epochs = [entry for entry in run.metrics() if entry["type"] == "epoch"]
    assert validation["x"] == [1, 2]
    assert validation["y"] == [entry["validation"]["accuracy"] for entry in epochs]
    assert "Filters of conv1, as training began and trained" in page
    assert page.count("data:image/png;base64,") == 2
    assert re.search(r"<td>conv1[^<]*</td><td class=\"number\">[\d.e-]+</td>", page)
    for text in ("forward ms", "epochs: 2", f"cnnctl eval {run.path}"):
        assert text in page
    scores = json.loads((run.path / "eval" / "last.json").read_text())["details"]["test"]
    cells = re.findall(r'title="\d taken for \d: (\d+)"', page)
    assert [int(cell) for cell in cells] == [count for row in scores["confusion"] for count in row]


def test_as_one_document_and_elsewhere(run_main, run, tmp_path):
    _, out, err = run_main("report", run.path, "--json", "--output", tmp_path / "page.html")
    document = json.loads(out)
    assert (document["schema"], document["run"], document["report"]) == (
        1,
        str(run.path),
        str(tmp_path / "page.html"),
    )
    assert err == ""
    assert not (run.path / "report.html").exists()


def test_what_is_lacking_is_told(run_main, config, tmp_path):
    config["network"]["layers"] = [{"linear": 4}]
    run = train(config, runs_dir=tmp_path / "runs")
    (run.path / "eval" / "last.json").unlink()
    (tmp_path / "noise.npz").unlink()
    code, _, _ = run_main("report", run.path)
    page = (run.path / "report.html").read_text()
    assert code == 0
    assert "no convolution, and so no filters" in page
    assert re.search(r"<h2 id=\"mistakes\">Mistakes</h2>\s*<p>[^<]*noise\.npz", page)


def test_a_step_is_timed_on_images_drawn_on_the_spot(run_main, config, tmp_path):
    config["data"] = {"dataset": "shapes", "image_size": 12, "train": 20, "test": 20}
    config["network"] = {"layers": ["flatten", {"linear": 10}]}
    run = train(config, runs_dir=tmp_path / "runs")
    run_main("report", run.path)
    assert "A training step of" in (run.path / "report.html").read_text()


def test_training_writes_one_unless_told_not_to(run_main, config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    code, out, err = run_main("train", path, "--runs-dir", tmp_path / "runs")
    page = tmp_path / "runs" / out.split()[-1] / "report.html"
    assert code == 0
    assert f"report: {page}\n" in err
    assert "finished after 10 steps" in page.read_text()
    _, out, err = run_main("train", path, "--runs-dir", tmp_path / "runs", "--no-report")
    assert "report" not in err
    assert not (tmp_path / "runs" / out.split()[-1] / "report.html").exists()


def test_a_run_is_whole_without_one(run_main, config, tmp_path, monkeypatch):
    def fail(*_):
        raise RunError("report.html: No space left on device")

    monkeypatch.setattr("cnnctl.plot.report.write_report", fail)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    code, _, err = run_main("train", path, "--runs-dir", tmp_path / "runs", "--quiet")
    assert code == 0
    assert err == "cnnctl: warning: no report was written: report.html: No space left on device\n"


@pytest.mark.skipif(find_browser() is None, reason="no headless browser is installed")
def test_in_a_browser(run_main, run):
    run_main("report", run.path)
    with Page(find_browser()) as page:
        page.open(run.path / "report.html")
        assert page.complaints == []
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        assert page.evaluate("document.querySelectorAll('figure[data-chart]').length") >= 5
