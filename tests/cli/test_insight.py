"""The commands that show what a network sees: a picture, its numbers beside it, and where they are."""

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnctl.train.api import Run, train

CLASSES = ("dark", "light")


def read_picture(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Dark and light images in colour, 8x8, each with some noise of its own."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(4)
    for name, level in zip(CLASSES, (60, 160), strict=True):
        (folder / name).mkdir()
        for i in range(10):
            pixels = rng.integers(level, level + 40, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """A run that tells them apart."""
    conv = {"filters": 4, "kernel": 3}
    config = {
        "data": {"dataset": "folder", "path": str(pictures), "normalize": "standardize", "validation": 2},
        "network": {"layers": [{"conv": conv}, "relu", {"conv": {**conv, "filters": 2}}, {"linear": 2}]},
        "solver": {"optimizer": {"adam": {"lr": 0.01}}, "epochs": 20, "batch_size": 4},
        "engine": {"backend": "im2col", "threads": 1},
    }
    return train(config, runs_dir=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def look(run_main, run):
    """A command with that run."""
    return lambda command, *args: run_main(command, run.path, *args)


@pytest.fixture
def photo(pictures):
    return pictures / "light" / "0.png"


class TestFilters:
    def test_the_picture_and_its_numbers_lie_in_figures(self, look, run):
        code, out, err = look("visualize-filters")
        picture = run.path / "figures" / "filters-conv1.png"
        assert (code, out, err) == (0, f"{picture}\n", "")
        weight = run.network().params["conv1.weight"]
        assert np.array_equal(
            np.array(json.loads(picture.with_suffix(".json").read_text())["trained"], "float32"), weight
        )
        pixels = read_picture(picture)
        levels = np.rint(255 * (weight[0] - weight[0].min()) / np.ptp(weight[0])).transpose(1, 2, 0)
        zoom, (top, left) = 16, (12 + 20 + 2, 12 + 2)
        tile = pixels[top : top + 3 * zoom : zoom, left : left + 3 * zoom : zoom]
        assert abs(tile - levels).max() <= 1

    def test_before_and_after_as_one_document(self, look, run, tmp_path):
        output = tmp_path / "filters.svg"
        code, out, _ = look(
            "visualize-filters", "--before-after", "--normalize", "all", "--output", output, "--json"
        )
        document = json.loads(out)
        assert code == 0
        assert document == {
            "schema": 1,
            "command": "visualize-filters",
            "run": str(run.path),
            "checkpoint": "last",
            "step": run.steps,
            "layer": "conv1",
            "shape": [4, 3, 3, 3],
            "normalize": "all",
            "before_after": True,
            "picture": str(output),
            "numbers": str(tmp_path / "filters.json"),
        }
        numbers = json.loads((tmp_path / "filters.json").read_text())
        assert list(numbers) == ["schema", "layer", "initial", "trained"]
        assert numbers["initial"] != numbers["trained"]
        titles = [text.text for text in ET.parse(output).iter("{http://www.w3.org/2000/svg}text")]
        assert titles == ["conv1, initial", "conv1, trained"]

    def test_another_layer_and_checkpoint(self, look, run):
        code, out, _ = look("visualize-filters", "--layer", "conv2", "--checkpoint", "best")
        assert code == 0
        picture = run.path / "figures" / "filters-conv2-best.png"
        assert out == f"{picture}\n"
        weight = run.network("best").params["conv2.weight"]
        numbers = json.loads(picture.with_suffix(".json").read_text())
        assert np.array_equal(np.array(numbers["trained"], "float32"), weight)

    def test_a_terminal_with_colour_shows_them(self, look, monkeypatch, capsys):
        import sys

        from cnnctl.cli.main import main

        run = look("visualize-filters", "--json")
        assert "▀" not in run.err
        for name, value in {
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "COLUMNS": "60",
            "LINES": "24",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        path = json.loads(run.out)["run"]
        assert main(["visualize-filters", path]) == 0
        out, err = capsys.readouterr()
        assert err.count("▀") == 17 * 3  # four 3x3 filters in a row with their seams: 17 x 5 pixels
        assert out == f"{path}/figures/filters-conv1.png\n"
        monkeypatch.setenv("NO_COLOR", "1")
        assert main(["visualize-filters", path]) == 0
        assert capsys.readouterr().err == ""

    def test_a_run_without_its_beginning_is_one_line(self, look, run, tmp_path, run_main):
        import shutil

        older = shutil.copytree(run.path, tmp_path / "older")
        (older / "initial.safetensors").unlink()
        code, out, err = run_main("visualize-filters", older, "--before-after")
        assert (code, out) == (1, "")
        assert "does not know how they began; leave out --before-after" in err
        assert err.count("\n") == 1
        assert run_main("visualize-filters", older).code == 0


class TestFeatureMaps:
    def test_every_layer_of_an_image(self, look, run, photo):
        code, out, err = look("feature-maps", photo, "--json")
        document = json.loads(out)
        assert (code, err) == (0, "")
        assert document["layers"] == [
            {"name": "conv1", "shape": [4, 6, 6]},
            {"name": "relu1", "shape": [4, 6, 6]},
            {"name": "conv2", "shape": [2, 4, 4]},
            {"name": "linear1", "shape": [2]},
        ]
        assert document["picture"] == str(run.path / "figures" / "maps-0.png")
        layers = json.loads(Path(document["numbers"]).read_text())["layers"]
        assert np.array_equal(np.maximum(layers["conv1"], 0), layers["relu1"])
        assert read_picture(document["picture"]).shape[1] > 224

    def test_one_layer_alone(self, look, run, photo):
        code, out, _ = look("feature-maps", photo, "--layer", "relu1")
        picture = run.path / "figures" / "maps-0-relu1.png"
        assert (code, out) == (0, f"{picture}\n")
        assert list(json.loads(picture.with_suffix(".json").read_text())["layers"]) == ["relu1"]


class TestSaliency:
    def test_the_likeliest_class_unless_another_is_named(self, look, run, photo):
        first = json.loads(look("saliency", photo, "--json").out)
        other = json.loads(look("saliency", photo, "--class", "dark", "--smooth", 0, "--json").out)
        assert (first["class"]["name"], other["class"]["name"]) == ("light", "dark")
        assert first["class"]["probability"] + other["class"]["probability"] == pytest.approx(1)
        maps = json.loads(Path(first["numbers"]).read_text())["saliency"]
        assert list(maps) == ["gradient", "smoothed over 50"]
        assert np.array(maps["gradient"]).shape == (8, 8)
        assert list(json.loads(Path(other["numbers"]).read_text())["saliency"]) == ["gradient"]
        assert other["picture"] == str(run.path / "figures" / "saliency-0-class0.png")


class TestFool:
    def test_the_image_passes_for_the_class_as_predict_sees_it(self, look, run, run_main, photo, tmp_path):
        output = tmp_path / "fool.png"
        code, out, err = look("fool", photo, "--class", "dark", "--output", output)
        assert (code, out) == (0, f"{output}\n")
        assert err.startswith(f"{photo}: light (")
        assert "dark (" in err
        document = json.loads(run_main("predict", run.path, tmp_path / "fool-image.png", "--json").out)
        assert document["images"][0]["classes"][0]["name"] == "dark"
        numbers = json.loads((tmp_path / "fool.json").read_text())
        assert numbers["after"]["score"] == pytest.approx(
            document["images"][0]["classes"][0]["score"], rel=1e-4
        )

    def test_what_fails_says_so_and_shows_how_far_it_came(self, look, photo, tmp_path):
        output = tmp_path / "fool.png"
        code, out, err = look("fool", photo, "--class", "0", "--steps", 1, "--output", output, "--json")
        document = json.loads(out)
        assert (code, document["won"], document["steps"]) == (1, False, 1)
        assert (document["before"]["name"], document["after"]["name"]) == ("light", "light")
        assert document["class"] == {"label": 0, "name": "dark"}
        assert document["after"]["probability"] < document["before"]["probability"]
        assert "could not be made to pass for dark" in err
        assert "after 1 step\n" in err
        assert Path(document["fooling_image"]).exists()


class TestEmbed:
    def test_the_test_images_as_points(self, look, run):
        code, out, err = look("embed", "--json")
        document = json.loads(out)
        assert (code, err) == (0, "")
        assert (document["layer"], document["values"], document["images"]) == ("conv2", 32, 2)
        assert sum(document["explained"]) == pytest.approx(1)
        with open(document["numbers"]) as file:
            rows = list(csv.DictReader(file))
        assert sorted(row["label"] for row in rows) == ["dark", "light"]
        assert all(row["label"] == row["predicted"] for row in rows) == (run.test.accuracy == 1)
        assert sum(float(row["component_1"]) for row in rows) == pytest.approx(0, abs=1e-4)
        assert read_picture(run.path / "figures" / "embedding.png").shape[2] >= 3


@pytest.mark.parametrize(
    ("command", "args", "code", "line"),
    [
        ("visualize-filters", ["--layer", "conv3"], 2, "layer: 'conv3' is not known; did you mean conv2?"),
        (
            "visualize-filters",
            ["--layer", "linear1"],
            2,
            "is a linear layer and has no filters; known: conv1, conv2",
        ),
        ("visualize-filters", ["--layer", "conv2", "--before-after"], 1, "keeps how conv1 began, not conv2"),
        ("visualize-filters", ["--output", "a.gif"], 2, "output: 'a.gif' does not end in .png or .svg"),
        ("visualize-filters", ["--output", "none/a.png"], 1, "No such file or directory"),
        (
            "feature-maps",
            ["IMAGE", "--layer", "relu2"],
            2,
            "layer: 'relu2' is not known; did you mean relu1?",
        ),
        ("feature-maps", ["nowhere.png"], 1, "nowhere.png: no such file"),
        ("feature-maps", [], 2, "Missing argument 'IMAGE'"),
        ("saliency", ["IMAGE", "--class", "lihgt"], 2, "class: 'lihgt' is not known; did you mean light?"),
        ("saliency", ["IMAGE", "--class", "2"], 2, "class: '2' is not known; known: dark, light"),
        ("saliency", ["IMAGE", "--smooth", "-1"], 2, "--smooth"),
        ("fool", ["IMAGE"], 2, "Missing option '--class'"),
        ("fool", ["IMAGE", "--class", "light"], 2, "is taken for light already; choose another"),
        ("embed", ["--output", "a.csv"], 2, "output: 'a.csv' does not end in .png or .svg"),
        ("embed", ["--checkpoint", "first"], 2, "first"),
    ],
)
def test_bad_arguments_are_one_line(look, photo, monkeypatch, tmp_path, command, args, code, line):
    monkeypatch.chdir(tmp_path)
    outcome = look(command, *[photo if arg == "IMAGE" else arg for arg in args])
    assert (outcome.code, outcome.out) == (code, "")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_only_the_embedding_needs_the_data_set(run_main, run, pictures, photo, tmp_path):
    import shutil

    here = shutil.copy(photo, tmp_path / "x.png")
    pictures.rename(tmp_path / "elsewhere")
    try:
        for command in (["visualize-filters"], ["feature-maps", here], ["saliency", here]):
            assert run_main(command[0], run.path, *command[1:]).code == 0
        assert run_main("embed", run.path).code == 1
    finally:
        (tmp_path / "elsewhere").rename(pictures)


def test_a_look_changes_nothing_else(look, run, photo):
    def stamp():
        return {
            path: path.read_bytes()
            for path in run.path.rglob("*")
            if path.is_file() and "figures" not in path.parts
        }

    before = stamp()
    for command in (["visualize-filters"], ["saliency", photo], ["embed"]):
        assert look(*command).code == 0
    assert stamp() == before
    assert Run.read(run.path).test == run.test
