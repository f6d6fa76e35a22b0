"""The configs that come with the project load, and say what the courses say."""

from pathlib import Path

import pytest

from cnnctl.config import load_config, shipped
from cnnctl.config.json_schema import FILES, SCHEMAS, dump_schema, format_schema_line
from cnnctl.config.network import ConvConfig, GaussianConfig, LinearConfig
from cnnctl.config.shipped import find_configs
from cnnctl.config.solver import AdamConfig
from cnnctl.errors import DataError

CONFIGS = Path(__file__).parents[2] / "configs"
RUNS = sorted(file.name for file in CONFIGS.glob("*.yaml"))
NETWORKS = sorted(file.name for file in CONFIGS.glob("networks/*.yaml"))


def test_there_are_some() -> None:
    assert {"quickstart.yaml", "mnist_simple.yaml", "cifar10_three_layer.yaml"} <= set(RUNS)
    assert "simple_convnet.yaml" in NETWORKS


@pytest.mark.parametrize("name", RUNS)
def test_a_run_loads_and_is_named_after_its_file(name: str) -> None:
    config = load_config(CONFIGS / name)
    assert f"{config.name}.yaml" == name
    [*_, last] = [layer for layer in config.network.layers if isinstance(layer, LinearConfig | ConvConfig)]
    assert 10 in {getattr(last, "units", None), getattr(last, "filters", None)}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_used(name: str) -> None:
    texts = [file.read_text() for file in CONFIGS.rglob("*.yaml")]
    assert any(f"network: networks/{name}" in text for text in texts)


@pytest.mark.parametrize("file", [*RUNS, *(f"networks/{name}" for name in NETWORKS)])
def test_a_file_begins_with_what_it_is_and_where_it_comes_from(file: str) -> None:
    first, *lines = (CONFIGS / file).read_text().splitlines(keepends=True)
    assert first == format_schema_line(FILES["network" if "/" in file else "run"])
    assert all(line.startswith("# ") for line in lines[:2])


@pytest.mark.parametrize(("of", "folder"), [("run", ""), ("network", "networks")])
def test_a_schema_is_current(of: str, folder: str) -> None:
    """After a change to a field: cnnctl schema --force --output FILE, and schema network."""
    assert (CONFIGS / folder / FILES[of]).read_text() == dump_schema(SCHEMAS[of]())


def test_they_are_found_in_a_checkout() -> None:
    assert find_configs() == CONFIGS


def test_they_are_found_beside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "cnnctl")
    with pytest.raises(DataError, match="came without its configs"):
        find_configs()
    (tmp_path / "cnnctl/configs/networks").mkdir(parents=True)
    assert find_configs() == tmp_path / "cnnctl/configs"


@pytest.mark.parametrize(
    ("name", "hidden", "std", "epochs", "batch_size", "l2"),
    [
        ("mnist_simple.yaml", 100, 0.01, 20, 100, 1e-4),
        ("cifar10_three_layer.yaml", 500, 0.001, 1, 50, 0.001),
        ("cifar10_three_layer_200.yaml", 200, 0.001, 10, 50, 0.001),
        ("cifar10_overfit100.yaml", 100, 0.01, 15, 50, 0.0),
    ],
)
def test_the_courses_recipes(
    name: str, hidden: int, std: float, epochs: int, batch_size: int, l2: float
) -> None:
    config = load_config(CONFIGS / name)
    solver, conv, linear = config.solver, config.network.layers[0], config.network.layers[3]
    assert isinstance(conv, ConvConfig)
    assert isinstance(linear, LinearConfig)
    assert (conv.filters, conv.kernel) == ((30, 5) if "mnist" in name else (32, 7))
    assert (linear.units, config.network.init) == (hidden, GaussianConfig(std=std))
    assert (solver.optimizer, solver.epochs) == (AdamConfig(lr=1e-3), epochs)
    assert (solver.batch_size, solver.l2) == (batch_size, l2)
