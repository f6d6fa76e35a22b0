"""The docs' config reference: every definition is in it, every key in its table, every example holds."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cnnctl.config import config_from_dict
from cnnctl.config.json_schema import create_run_schema
from cnnctl.config.network import NetworkConfig
from cnnctl.config.strict_yaml import parse_yaml

FILE = Path(__file__).parents[1] / "docs" / "config_reference.py"
SCHEMA = create_run_schema()


def load_reference() -> Any:
    spec = spec_from_file_location("config_reference", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load_reference()
PAGE = REFERENCE.write_config_reference()
BASE: dict[str, Any] = {
    "data": {"dataset": "shapes"},
    "network": {"layers": [{"linear": 10}]},
    "solver": {"optimizer": "adam", "epochs": 1, "batch_size": 8},
}


def put_in_place(name: str, piece: Any) -> dict[str, Any]:
    """A config with that piece where it belongs."""
    places: dict[str, Callable[[], dict[str, Any]]] = {
        "run": lambda: {**piece, "network": BASE["network"]},
        "data": lambda: {**BASE, "data": piece},
        "augment": lambda: {**BASE, "data": {"dataset": "shapes", "augment": piece}},
        "network": lambda: {**BASE, "network": piece},
        "solver": lambda: {**BASE, "solver": piece},
        "engine": lambda: {**BASE, "engine": piece},
        "layer": lambda: {**BASE, "network": {"layers": [piece]}},
        "loss": lambda: {**BASE, "network": {**BASE["network"], "loss": piece}},
        "init": lambda: {**BASE, "network": {**BASE["network"], "init": piece}},
        "group": lambda: {**BASE, "solver": {**BASE["solver"], "groups": [piece]}},
    }
    choice = name.partition(".")[0]
    return places.get(choice, lambda: {**BASE, "solver": {**BASE["solver"], choice: piece}})()


@pytest.mark.parametrize("name", REFERENCE.EXAMPLES)
def test_an_example_holds(name: str) -> None:
    piece = parse_yaml(REFERENCE.EXAMPLES[name], name).to_data()
    config = put_in_place(name, piece)
    assert config_from_dict(config)
    Draft202012Validator(SCHEMA).validate(config)


def test_every_definition_has_a_section_with_its_example_and_keys() -> None:
    described = {name: about for name, about in SCHEMA["$defs"].items() if name not in REFERENCE.CHOICES}
    assert set(REFERENCE.EXAMPLES) == set(described)
    for name, about in described.items():
        section = PAGE.partition(f"({REFERENCE._anchor(name)})=\n")[2].partition("\n(config-")[0]
        assert about["description"].split("*")[0] in section
        assert REFERENCE.EXAMPLES[name].rstrip() in section
        settings = next(form for form in about.get("anyOf", [about]) if "properties" in form)
        for key, field in settings["properties"].items():
            (row,) = [line for line in section.splitlines() if line.startswith(f"| `{key}` |")]
            assert row.replace("\\", "").endswith(f"| {field['description']} |")
            assert bool(row.split(" | ")[2]) == ("default" in field)


@pytest.mark.parametrize(
    "line",
    [
        "| `epochs` | integer ≥ 1 |  | passes over the training set, at least 1 |",
        "| `seed` | integer ≥ 0, < 2^63 | `0` | settles initial weights, order, augmentation and dropout, "
        "0 to 2^63 - 1 |",
        "| `backend` | `naive`, `im2col`, `fast` | `fast` | naive: loops; im2col: numpy; fast: C kernels |",
        "| `mixup` | number ≥ 0, ≤ 1 | `0.0` | blend images, and their losses, in shares drawn from "
        "Beta(mixup, mixup), 0 to 1 |",
        "| `image_size` | integer ≥ 1 or two of integer ≥ 1 or `null` | `null` | resize images to this, an "
        "integer of at least 1 or [height, width]; for folder, and, as a side, for shapes |",
        "| `loss` | [loss](#config-loss) | `softmax` | softmax cross-entropy, hinge or squared_error |",
        "| `flip` | `true`, `false` | `false` | mirror training images left to right with probability 1/2 |",
        "`linear: UNITS` is short for its `units`.",
    ],
)
def test_a_line(line: str) -> None:
    assert line in PAGE.splitlines()


def test_every_link_leads_somewhere() -> None:
    anchors = {part.partition(")=")[0] for part in PAGE.split("\n(")[1:]}
    links = {part.partition(")")[0] for part in PAGE.split("](#")[1:]}
    assert links
    assert links <= anchors


def test_the_page_is_about_the_models() -> None:
    assert all(f"| `{key}` |" in PAGE for key in NetworkConfig.model_fields)
