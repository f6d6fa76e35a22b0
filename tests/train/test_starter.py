"""Configs to start from: they load, say what the shipped ones say, fit their data, and train."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from cnnctl import Run, load_config, train
from cnnctl.config import compare_configs
from cnnctl.config.data import DATASETS_WITH
from cnnctl.config.json_schema import create_run_schema
from cnnctl.config.shipped import find_configs, list_networks
from cnnctl.config.strict_yaml import read_yaml
from cnnctl.data import catalog
from cnnctl.data.catalog import CATALOG, FIELDS
from cnnctl.data.shapes import draw_shapes
from cnnctl.errors import ConfigError
from cnnctl.train.build import build_network
from cnnctl.train.starter import create_starter

SHAPES = {entry.name: entry.image_shape for entry in CATALOG.values() if entry.image_shape}
PAIRS = [
    (network, dataset)
    for network in list_networks()
    for dataset in SHAPES
    if network != "vgg11" or SHAPES[dataset] != (1, 28, 28)
]
SMALL = ["data.train=24", "data.validation=8", "data.test=8", "solver.batch_size=8", "solver.max_steps=2"]


draw_once = cache(draw_shapes)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixty pictures of noise in three folders, of two sizes."""
    rng = np.random.default_rng(3)
    for index in range(60):
        side = 20 + 20 * (index % 2)
        file = tmp_path / "pictures" / f"class{index % 3}" / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file)
    return tmp_path / "pictures"


def write(folder: Path, text: str) -> Path:
    (folder / "start.yaml").write_text(text)
    return folder / "start.yaml"


@pytest.mark.parametrize(("network", "dataset"), PAIRS)
def test_a_pair_loads_and_fits(network: str, dataset: str, tmp_path: Path) -> None:
    file = write(tmp_path, create_starter(network, dataset))
    assert all(len(line) <= 110 for line in file.read_text().splitlines())
    assert Draft202012Validator(create_run_schema()).is_valid(read_yaml(str(file)).to_data())
    config = load_config(file)
    C, *sides = SHAPES[dataset]
    shape = (C, *([config.data.image_size] * 2 if config.data.image_size else sides))
    assert build_network(config, shape).output_shape == (10,)


def name_network(shipped: Path) -> str:
    """The network that a shipped config names by its file; "" where the layers stand in place."""
    network = read_yaml(str(shipped)).to_data().get("network")
    return Path(network).stem if isinstance(network, str) else ""


@pytest.mark.parametrize(
    "shipped", sorted(filter(name_network, find_configs().glob("*.yaml"))), ids=lambda file: file.stem
)
def test_it_says_what_the_shipped_config_says(shipped: Path, tmp_path: Path) -> None:
    config = load_config(shipped)
    made = load_config(write(tmp_path, create_starter(name_network(shipped), config.data.dataset)))
    assert [key for key, *_ in compare_configs(config, made)] == ["name"]


def set_all(text: str) -> str:
    """Every option that stands behind a "#" set, to its default."""
    return re.sub(r"^( *)#( *\w+:.*)$", r"\1\2", text, flags=re.M)


@pytest.mark.parametrize(("network", "dataset"), [("quickstart", "shapes"), ("resnet20", "mnist")])
def test_an_option_behind_a_mark_is_the_default(network: str, dataset: str, tmp_path: Path) -> None:
    text = create_starter(network, dataset)
    plain = load_config(write(tmp_path, text))
    everything = set_all(text)
    full = load_config(write(tmp_path, everything))
    assert [
        key for key, *_ in compare_configs(plain, full) if not key.startswith("solver.early_stopping")
    ] == ["name"]
    written = read_yaml(str(tmp_path / "start.yaml")).to_data()
    assert set(written["solver"]) == set(type(plain.solver).model_fields)
    assert set(written["engine"]) == set(type(plain.engine).model_fields)
    assert set(written["data"]["augment"]) == set(type(plain.data.augment).model_fields)


@pytest.mark.parametrize("network", list_networks())
def test_every_network_trains_on_shapes(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "draw_shapes", draw_once)
    file = write(tmp_path, create_starter(network, "shapes"))
    run: Run = train(file, overrides=SMALL, runs_dir=tmp_path / "runs")
    assert (run.status, run.steps) == ("finished", 2)


class TestImagesOfOnesOwn:
    """The path is opened: classes and extents come from there."""

    @pytest.mark.parametrize("network", ["lenet5", "all_convolutional", "quickstart"])
    def test_a_folder(self, network: str, pictures: Path, tmp_path: Path) -> None:
        file = write(tmp_path, create_starter(network, "folder", str(pictures)))
        config = load_config(file)
        native = (28, 1) if network == "lenet5" else (32, 3)
        assert (config.data.image_size, config.data.channels) == native
        assert config.data.validation > 0
        run = train(file, overrides=["solver.max_steps=2"], runs_dir=tmp_path / "runs")
        assert run.network().output_shape == (3,)

    def test_arrays(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        arrays: dict[str, Any] = {}
        for split in ("train", "test"):
            arrays[f"x_{split}"] = rng.integers(0, 256, (40, 3, 16, 12), dtype=np.uint8)
            arrays[f"y_{split}"] = np.arange(40) % 5
        np.savez(tmp_path / "arrays.npz", **arrays)
        file = write(tmp_path, create_starter("three_layer", "npz", str(tmp_path / "arrays.npz")))
        run = train(file, overrides=["solver.max_steps=2"], runs_dir=tmp_path / "runs")
        assert run.network().output_shape == (5,)
        with pytest.raises(ConfigError, match=r"vgg11 does not fit npz, images \(3, 16, 12\): maxpool"):
            create_starter("vgg11", "npz", str(tmp_path / "arrays.npz"))

    def test_a_path_is_named_from_where_the_config_lies(
        self, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine").mkdir()
        text = create_starter("lenet5", "folder", "pictures", "mine")
        assert "  path: ../pictures  # the folder" in text
        assert load_config(write(tmp_path / "mine", text)).data.path == str(pictures)


@pytest.mark.parametrize(
    ("network", "dataset", "path", "line"),
    [
        ("vg11", "mnist", None, "network: 'vg11' is not known; did you mean vgg11?"),
        ("vgg11", "mnits", None, "data set: 'mnits' is not known; did you mean mnist?"),
        ("vgg11", "npz", None, "data set: npz is read from a folder or file; give it with --path"),
        ("vgg11", "mnist", "x", "path: 'x' is not usable with data set mnist; it is for folder and npz"),
    ],
)
def test_what_is_refused(network: str, dataset: str, path: str | None, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_starter(network, dataset, path)
    assert line in str(caught.value)


def test_a_refusal_names_what_fits() -> None:
    with pytest.raises(ConfigError) as caught:
        create_starter("vgg11", "mnist")
    line = "network: vgg11 does not fit mnist, images (1, 28, 28): maxpool5: kernel spans 2 pixels of height"
    assert str(caught.value).startswith(line)
    fitting = [network for network in list_networks() if network != "vgg11"]
    assert str(caught.value).endswith(f"; those that fit: {', '.join(fitting)}")


def test_config_and_catalogue_agree_on_what_a_data_set_takes() -> None:
    """Neither may import the other."""
    assert {field: DATASETS_WITH[field] for field in FIELDS} == FIELDS
