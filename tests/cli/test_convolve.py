"""`cnnctl convolve`: figure, results and numbers of photographs; one line for what cannot be."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo(tmp_path, rng):
    Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_all_kernels_into_the_working_directory(run_main, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["grayscale", "edges", "sharpen", "blur"]
    files = ["convolution.png", "convolution.csv", *(f"convolution-1-{name}.png" for name in names)]
    code, out, err = run_main("convolve", "photo.jpg", "--backend", "im2col")
    assert (code, out.splitlines(), err) == (0, files, "")
    for file in files:
        assert (tmp_path / file).stat().st_size > 100
    before = [(tmp_path / file).read_bytes() for file in files]
    run_main("convolve", "photo.jpg", "--backend", "im2col")
    assert [(tmp_path / file).read_bytes() for file in files] == before


def test_json_svg_and_a_kernel_of_ones_own(run_main, photo, tmp_path):
    (tmp_path / "k.yaml").write_text("name: half\nweight: [[0.5]]\n")
    args = ("--kernel", tmp_path / "k.yaml", "--kernel", "grayscale", "--size", 20, "--backend", "naive")
    code, out, err = run_main("convolve", photo, *args, "--output", tmp_path / "a.svg", "--json")
    document = json.loads(out)
    assert code == 0
    assert err == f"{photo}: reduced from 40x30 to 20x15 pixels; --size has another limit\n"
    assert list(document) == ["schema", "command", "backend", "output", "numbers", "results"]
    assert (document["command"], document["backend"]) == ("convolve", "naive")
    ElementTree.parse(document["output"])
    half, grey = document["results"]
    assert (half["image"], half["kernel"], grey["kernel"]) == (str(photo), "half", "grayscale")
    assert (half["channels"], half["height"], half["width"], grey["channels"]) == (3, 15, 20, 1)
    with Image.open(half["file"]) as image:
        assert np.asarray(image).mean() == pytest.approx(half["mean"], abs=0.5)
    assert Path(document["numbers"]).read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["photo.jpg", "--kernel", "blurr"], 2, "kernel: 'blurr' is neither known nor a .yaml file; did you"),
        (["photo.jpg", "--kernel", "none.yaml"], 2, "none.yaml: no such file"),
        (["none.jpg"], 1, "none.jpg: no such file"),
        (["."], 1, ".: not a regular file"),
        (["photo.jpg", "--output", "a.jpg"], 2, "output: 'a.jpg' does not end in .png or .svg"),
        (["photo.jpg", "--backend", "fats"], 2, "backend: 'fats' is not known; did you mean fast?"),
        (["photo.jpg", "--size", "0"], 2, "Invalid value for '--size'"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(run_main, photo, monkeypatch, args, code, line):
    monkeypatch.chdir(photo.parent)
    outcome = run_main("convolve", *args)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(f"cnnctl: error: {line}")
    assert outcome.err.count("\n") == 1
    assert list(photo.parent.iterdir()) == [photo]
