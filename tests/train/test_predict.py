"""Prediction from Python: the scores that evaluation sees, from pixels that went through files."""

import json

import numpy as np
import pytest
from PIL import Image

from cnnctl.errors import ConfigError, DataError, RunError
from cnnctl.train.api import predict, train
from cnnctl.train.data_facts import read_data_facts
from cnnctl.train.run_directory import RunDirectory


@pytest.fixture
def run(config, tmp_path):
    return train(config, runs_dir=tmp_path / "runs")


@pytest.fixture
def files(images, tmp_path):
    """The test images as files."""
    with np.load(images) as arrays:
        pixels = arrays["x_test"]
    paths = [tmp_path / f"{i:02}.png" for i in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image[0]).save(path)
    return paths


def test_files_get_the_answers_that_the_data_set_gets(run, files, images):
    predictions = list(predict(run, files, top=4))
    with np.load(images) as arrays:
        labels = arrays["y_test"]
    found = [prediction.answers[0].label for prediction in predictions]
    assert np.mean(np.array(found) == labels) == run.test.accuracy
    losses = []
    for prediction, label in zip(predictions, labels, strict=True):
        assert sum(answer.probability or 0 for answer in prediction.answers) == pytest.approx(1)
        (own,) = (answer for answer in prediction.answers if answer.label == label)
        losses.append(-np.log(own.probability))
    assert np.mean(losses) == pytest.approx(run.test.loss, rel=1e-5)


def test_one_path_alone_and_a_run_by_name(run, files):
    (alone,) = predict(run.path.name, str(files[3]), runs_dir=run.path.parent)
    together = list(predict(run.path, files))[3]
    assert (alone.path, alone.error) == (together.path, None) == (files[3], None)
    assert [answer.label for answer in alone.answers] == [answer.label for answer in together.answers]


def test_a_run_remembers_its_images(run):
    assert json.loads((run.path / "data.json").read_text()) == {
        "schema": 1,
        "classes": ["0", "1", "2", "3"],
        "dtype": "uint8",
    }


def test_an_older_run_remembers_nothing(run):
    (run.path / "data.json").unlink()
    assert read_data_facts(RunDirectory(run.path)) is None


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2, "classes": [], "dtype": "uint8"}'])
def test_damaged_facts_are_one_line(run, files, text):
    (run.path / "data.json").write_text(text)
    with pytest.raises(RunError, match=r"data\.json: ") as caught:
        predict(run, files)
    assert "\n" not in str(caught.value)


def test_facts_of_other_classes_are_refused(run, files):
    path = run.path / "data.json"
    path.write_text(path.read_text().replace('"3"', '"3", "4"'))
    with pytest.raises(DataError, match=r"4 classes apart, where the run's images had 5"):
        predict(run, files)


def test_floats_of_an_unknown_range_are_refused(config, tmp_path, images, files):
    with np.load(images) as arrays:
        floats = {key: array / 255 if array.ndim == 4 else array for key, array in arrays.items()}
    np.savez(tmp_path / "floats.npz", **floats)
    config["data"]["path"] = str(tmp_path / "floats.npz")
    with pytest.raises(DataError, match="learnt from float32 pixels of a range of their own"):
        predict(train(config, runs_dir=tmp_path / "runs"), files)


def test_an_unknown_checkpoint_is_refused_at_once(run, files):
    with pytest.raises(ConfigError, match="did you mean last"):
        predict(run, files, checkpoint="lst")


def test_a_changed_config_is_refused(run, files):
    path = run.path / "resolved.yaml"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ConfigError, match="changed after the run began"):
        predict(run, files)
