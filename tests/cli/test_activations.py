"""`cnnctl visualize-activations`: a picture, its numbers, and one line for a name that is not known."""

import csv
import json
from xml.etree import ElementTree


def test_all_of_them_into_the_working_directory(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_main("visualize-activations") == (0, "activations.png\nactivations.csv\n", "")
    assert (tmp_path / "activations.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "activations.csv").open() as file:
        header, *rows = csv.reader(file)
    assert (len(header), len(rows)) == (15, 1001)


def test_json_and_svg(run_main, tmp_path):
    output = tmp_path / "some.svg"
    code, out, err = run_main(
        "visualize-activations", "relu", "--output", output, "--backend", "im2col", "--json"
    )
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "schema": 1,
        "command": "visualize-activations",
        "backend": "im2col",
        "activations": ["relu"],
        "output": str(output),
        "numbers": str(tmp_path / "some.csv"),
    }
    ElementTree.parse(output)


def test_errors_are_one_line(run_main, tmp_path):
    known = "cnnctl: error: activation: 'sigmod' is not known; did you mean sigmoid?\n"
    assert run_main("visualize-activations", "sigmod", "--output", tmp_path / "a.png") == (2, "", known)
    code, out, err = run_main("visualize-activations", "--output", tmp_path / "a.pdf")
    assert (code, out) == (2, "")
    assert err.endswith("does not end in .png or .svg\n")
    assert run_main("visualize-activations", "--backend", "fats").code == 2
    assert list(tmp_path.iterdir()) == []
