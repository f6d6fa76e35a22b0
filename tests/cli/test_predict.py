"""`cnnctl predict`: any image file or folder, classes by name, and one line for what cannot be read."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnctl.train.api import train

CONFIG: dict[str, Any] = {
    "data": {"dataset": "folder", "validation": 2, "test": 1},
    "network": {"layers": [{"linear": 2}]},
    "solver": {"optimizer": {"sgd": {"lr": 0.1}}, "epochs": 20, "batch_size": 4},
    "engine": {"backend": "im2col", "threads": 1},
}


def save_image(path, level, size=(6, 6), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level,) * 3).save(path)


@pytest.fixture
def start(tmp_path):
    """A run that tells dark images from light ones."""

    def call(**network):
        for name, level in (("dark", 0), ("light", 200)):
            for i in range(6):
                save_image(tmp_path / "pictures" / name / f"{i}.png", level + 5 * i)
        config = {**CONFIG, "data": {**CONFIG["data"], "path": str(tmp_path / "pictures")}}
        config["network"] = {**CONFIG["network"], **network}
        return train(config, runs_dir=tmp_path / "runs")

    return call


@pytest.fixture
def predict(run_main, tmp_path):
    """`cnnctl predict` with its runs under `runs`."""
    return lambda *args: run_main("predict", "--runs-dir", tmp_path / "runs", *args)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    save_image(path, 240, size=(50, 40), mode="RGB")
    return path


def test_one_image_of_another_size_and_kind(start, predict, photo):
    run = start()
    code, out, err = predict("latest", photo, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert list(document) == ["schema", "command", "run", "checkpoint", "images"]
    assert (document["schema"], document["command"], document["run"]) == (1, "predict", str(run.path))
    (row,) = document["images"]
    assert (row["image"], row["error"]) == (str(photo), None)
    first, second = row["classes"]
    assert (first["label"], first["name"], second["name"]) == (1, "light", "dark")
    assert first["probability"] + second["probability"] == pytest.approx(1)
    assert first["probability"] == pytest.approx(1 / (1 + np.exp(second["score"] - first["score"])))


def test_a_table_with_a_row_an_image(start, predict, photo, tmp_path):
    start()
    dark = tmp_path / "pictures" / "dark" / "0.png"
    code, out, _ = predict("latest", photo, dark)
    header, *rows = out.splitlines()
    assert code == 0
    assert header.split() == ["image", "1", "2"]
    assert [row.split()[:2] for row in rows] == [[str(photo), "light"], [str(dark), "dark"]]
    assert rows[0].endswith(" %)")


def test_top_limits_the_classes(start, predict, photo):
    start()
    (row,) = json.loads(predict("latest", photo, "--json", "--top", 1).out)["images"]
    assert [answer["name"] for answer in row["classes"]] == ["light"]


def test_a_folder_is_read_to_its_depths_in_order(start, predict, tmp_path):
    start()
    folder = tmp_path / "pictures"
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "loop").symlink_to(folder)
    document = json.loads(predict("latest", folder, "--json").out)
    names = [f"{name}/{i}.png" for name in ("dark", "light") for i in range(6)]
    assert [row["image"] for row in document["images"]] == [str(folder / name) for name in names]
    assert [row["classes"][0]["name"] for row in document["images"]] == ["dark"] * 6 + ["light"] * 6


def test_more_images_than_a_batch_keep_their_order(start, predict, tmp_path):
    start()
    levels = [(0, 250)[i % 3 == 0] for i in range(70)]
    for i, level in enumerate(levels):
        save_image(tmp_path / "many" / f"{i:02}.png", level)
    (tmp_path / "many" / "32.png").write_bytes(b"nothing")
    code, out, _ = predict("latest", tmp_path / "many", "--json")
    rows = json.loads(out)["images"]
    assert code == 1
    assert "not an image" in rows.pop(32)["error"]
    levels.pop(32)
    assert [row["classes"][0]["label"] for row in rows] == [int(level == 250) for level in levels]


def test_what_cannot_be_read_is_one_line_each_and_stops_nothing(start, predict, photo, tmp_path):
    start()
    cut, none, empty = tmp_path / "cut.png", tmp_path / "none.png", tmp_path / "empty"
    cut.write_bytes((tmp_path / "pictures" / "dark" / "0.png").read_bytes()[:45])
    empty.mkdir()
    code, out, err = predict("latest", cut, none, photo, empty)
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["image", str(photo)]
    lines = err.splitlines()
    assert lines[0].startswith(f"cnnctl: error: {cut}: not a")
    assert lines[1:] == [f"cnnctl: error: {none}: no such file", f"cnnctl: error: {empty}: holds no image"]
    document = json.loads(predict("latest", none, "--json").out)
    assert document["images"] == [{"image": str(none), "error": f"{none}: no such file", "classes": []}]


def test_nothing_to_show_is_no_table(start, predict):
    start()
    assert predict("latest", "none.png") == (1, "", "cnnctl: error: none.png: no such file\n")


@pytest.mark.parametrize("loss", ["hinge", "squared_error"])
def test_a_network_of_another_loss_shows_scores(start, predict, photo, loss):
    start(loss=loss)
    (row,) = json.loads(predict("latest", photo, "--json").out)["images"]
    assert [answer["probability"] for answer in row["classes"]] == [None, None]
    score = row["classes"][0]["score"]
    assert f"light ({score:+.3f})" in predict("latest", photo).out


def test_a_run_that_knows_no_names_tells_numbers(start, predict, photo):
    (start().path / "data.json").unlink()
    assert predict("latest", photo).out.splitlines()[1].split()[1] == "1"


def test_the_best_checkpoint(start, predict, photo):
    run = start()
    (run.path / "checkpoints" / "last.safetensors").unlink()
    (run.path / "checkpoints" / "last.previous.safetensors").unlink()
    assert predict("latest", photo, "--checkpoint", "best").code == 0
    assert "last.safetensors: No such file or directory" in predict("latest", photo).err


def test_the_data_set_is_not_needed(start, predict, photo, tmp_path):
    start()
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    assert predict("latest", photo).code == 0


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["latest"], 2, "Missing argument 'IMAGE...'"),
        (["nowhere", "a.png"], 1, "run: 'nowhere' is neither a run directory"),
        (["latest", "a.png", "--top", "0"], 2, "--top"),
        (["latest", "a.png", "--checkpoint", "first"], 2, "first"),
    ],
)
def test_bad_arguments_are_one_line(start, predict, args, code, line):
    start()
    outcome = predict(*args)
    assert (outcome.code, outcome.out) == (code, "")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1
