"""The JSON Schema: no line under a config that loads, and one under every wrong key and type."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cnnctl.config import config_from_dict
from cnnctl.config.fields import Kind, Section
from cnnctl.config.json_schema import SCHEMAS, create_network_schema, create_run_schema
from cnnctl.config.network import NetworkConfig
from cnnctl.config.schema import RunConfig
from cnnctl.config.strict_yaml import read_yaml
from cnnctl.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
RUN = Draft202012Validator(create_run_schema())
NETWORK = Draft202012Validator(create_network_schema())

FULL: dict[str, Any] = {
    "name": "full",
    "data": {
        "dataset": "folder",
        "path": "images",
        "train": 100,
        "validation": 10,
        "normalize": "unit",
        "augment": {"flip": True, "shift": 2, "padding": "edge", "brightness": 0.1, "mixup": 1},
        "image_size": [32, 24],
        "channels": 3,
        "seed": 7,
    },
    "network": {
        "layers": [
            {"conv": {"filters": 4, "kernel": [3, 5], "padding": "same", "groups": 2, "init": "he"}},
            "batchnorm",
            {"relu": None},
            {"maxpool": 2},
            {"maxpool": {"kernel": 2, "stride": [2, 1], "padding": 0}},
            {"residual": {"layers": ["tanh", {"elu": 0.5}], "shortcut": [{"dropout": {"rate": 0.1}}]}},
            {"groupnorm": 2},
            {"linear": {"units": 10, "bias": False, "name": "last", "init": {"gaussian": 0.01}}},
        ],
        "loss": {"softmax": {"smoothing": 0.1, "class_weights": [1, 2]}},
        "init": {"xavier": {"distribution": "uniform"}},
    },
    "solver": {
        "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True}},
        "schedule": {"step": {"epochs": 2, "gamma": 0.5}},
        "warmup": 10,
        "epochs": 3,
        "batch_size": 8,
        "groups": [{"match": "*.bias", "lr_scale": 2}],
        "clip_norm": None,
        "stop_at": 0.9,
        "monitor": "loss",
        "early_stopping": {"patience": 2},
        "checkpoints": {"minutes": 0.5, "keep": 1},
    },
    "engine": {"backend": "fast", "threads": "auto", "isa": None},
}
BETWEEN_FIELDS = (
    *("is not usable with", "is missing (data set", "is not usable without", "it is for", "needs stride 1"),
    *("does not divide", "is the name of two layers", "is not in ascending order", "all of them are 0"),
)
"""What the models see that no schema of single values can."""
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 0.5, -1, 1.5, 257, "auto", "same", "he", "relu", "adam", "x y", ""),
    *([], [3, 3], [0, 1], [1, 2, 3], ["relu"], {}, {"x": 1}, {"relu": {}}, {"sgd": None}, {"linear": 3}),
    *({"step": 2}, {"multistep": [1, 2]}, {"hinge": 2}, {"constant": 0.5}, {"adam": {}, "sgd": {}}),
    *({"conv": 3}, {"cosine": 0.1}, [{"linear": 3}], [[3]], "step", "mnist", "fast"),
]


def find_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for key, child in children for found in find_paths(child, (*path, key)))]


PATHS = find_paths(FULL)[1:]


def change(config: Any, path: tuple[Any, ...], value: Any) -> None:
    """Put the value there, or take what is there away (`...`), or add a key (a str and `...`)."""
    for key in path[:-1]:
        if not isinstance(config, (dict, list)) or (isinstance(config, dict) and key not in config):
            return
        if isinstance(config, list) and not (isinstance(key, int) and key < len(config)):
            return
        config = config[key]
    key = path[-1]
    if isinstance(config, dict):
        if value is ...:
            config.pop(key, None)
        else:
            config[key] = value
    elif isinstance(config, list) and isinstance(key, int) and key < len(config):
        config[key] = {"x": 1} if value is ... else value


def find_refusal(config: dict[str, Any]) -> list[str]:
    try:
        config_from_dict(deepcopy(config))
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    schema = SCHEMAS[name]()
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema


def test_every_reference_leads_somewhere() -> None:
    schema = create_run_schema()
    text = json.dumps(schema)
    assert {part.partition('"')[0] for part in text.split('"#/$defs/')[1:]} == set(schema["$defs"])


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda file: file.name)
def test_a_shipped_config_is_without_a_line(file: Path) -> None:
    schema = NETWORK if file.parent.name == "networks" else RUN
    assert [error.message for error in schema.iter_errors(read_yaml(str(file)).to_data())] == []


def all_below(section: type[Section]) -> list[type[Section]]:
    below = section.__subclasses__()
    return [*below, *(found for kind in below for found in all_below(kind))]


@pytest.mark.parametrize("kind", [kind for kind in all_below(Kind) if "kind" in vars(kind)])
def test_every_kind_and_field_is_described(kind: type[Kind]) -> None:
    definitions = create_run_schema()["$defs"]
    found = [value for key, value in definitions.items() if key.endswith(f".{kind.kind}")]
    forms = [form for value in found for form in [value, *value.get("anyOf", [])]]
    settings = [form for form in forms if set(form.get("properties", {"": 0})) == set(kind.model_fields)]
    assert any(
        {key: about["description"] for key, about in form["properties"].items()}
        == {key: field.description for key, field in kind.model_fields.items()}
        for form in settings
    )


def test_a_full_config() -> None:
    assert find_refusal(FULL) == []
    RUN.validate(FULL)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("solvr",), 1),
        (("data",), ...),
        (("data", "dataset"), ...),
        (("data", "dataset"), "mnits"),
        (("data", "channels"), 2),
        (("data", "channels"), True),
        (("data", "augment", "mixup"), 1.5),
        (("data", "augment", "flip"), 1),
        (("data", "augment", "rotate"), 1),
        (("network",), 3),
        (("network",), ""),
        (("network", "base"), "x.yaml"),
        (("network", "layers"), []),
        (("network", "layers", 0), "conv"),
        (("network", "layers", 0), {"conv": 3}),
        (("network", "layers", 0), {"conv": {"filters": 3, "kernel": [1, 2, 3]}}),
        (("network", "layers", 0), {"relu": 3}),
        (("network", "layers", 0), {"relu": {}, "tanh": {}}),
        (("network", "layers", 0), {}),
        (("network", "layers", 5, "residual", "layers"), []),
        (("network", "layers", 5, "residual", "layers", 0), "tan"),
        (("network", "layers", 5, "residual", "shortcut"), "tanh"),
        (("network", "loss"), "hing"),
        (("network", "loss", "softmax", "smoothing"), 1),
        (("network", "init"), 0.5),
        (("solver", "optimizer"), "adm"),
        (("solver", "optimizer", "sgd", "lr"), "0.1"),
        (("solver", "optimizer", "sgd", "beta1"), 0.5),
        (("solver", "schedule"), "step"),
        (("solver", "schedule"), {"step": None}),
        (("solver", "schedule"), {"multistep": 3}),
        (("solver", "groups"), {"match": "x"}),
        (("solver", "groups", 0, "match"), ...),
        (("solver", "stop_at"), 1.5),
        (("solver", "epochs"), None),
        (("solver", "early_stopping"), True),
        (("engine", "threads"), 257),
        (("engine", "isa"), ""),
        (("engine",), None),
    ],
)
def test_a_wrong_key_or_type_is_seen(path: tuple[Any, ...], value: Any) -> None:
    config = deepcopy(FULL)
    change(config, path, value)
    assert find_refusal(config)
    assert not RUN.is_valid(config)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(PATHS), st.one_of(st.just(...), st.sampled_from(VALUES))),
        min_size=1,
        max_size=3,
    )
)
def test_schema_and_models_agree(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    config = deepcopy(FULL)
    for path, value in changes:
        change(config, path, deepcopy(value))
    if isinstance(config.get("network"), str):
        return  # a file that is not there
    problems = find_refusal(config)
    if not problems:
        assert RUN.is_valid(config)
    elif not any(word in problem for problem in problems for word in BETWEEN_FIELDS):
        assert not RUN.is_valid(config)


class TestAnHeir:
    """What a base brings may be missing; what is there has to be right."""

    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"network": "networks/two.yaml"},
            {"network": {"init": "he"}},
            {"network": {"loss": {"softmax": {"smoothing": 0.1}}}},
            {"data": {"augment": {"flip": True}}},
            {"solver": {"epochs": 3, "optimizer": {"sgd": {"momentum": 0.9}}}},
            {"solver": {"schedule": {"step": {"gamma": 0.5}}}},
        ],
    )
    def test_it_may_be_short(self, config: dict[str, Any], tmp_path: Path) -> None:
        from cnnctl.config import load_config

        (tmp_path / "base.yaml").write_text(json.dumps({**FULL, "name": "base"}))
        (tmp_path / "networks").mkdir()
        (tmp_path / "networks/two.yaml").write_text("layers: [{linear: 10}]\n")
        heir = {"base": "base.yaml", **config}
        (tmp_path / "heir.yaml").write_text(json.dumps(heir))
        assert load_config(tmp_path / "heir.yaml").name == "base"
        RUN.validate(heir)
        if config:
            assert not RUN.is_valid(config)

    @pytest.mark.parametrize(
        "config",
        [
            {"base": 3},
            {"solvr": {}},
            {"solver": {"epoch": 3}},
            {"solver": {"optimizer": {}}},
            {"solver": {"schedule": "step"}},
            {"solver": {"schedule": {"step": None}}},
            {"network": {"layers": [{"conv": {"filters": 3}}]}},
            {"network": {"layers": []}},
            {"solver": {"groups": [{"lr_scale": 2}]}},
        ],
    )
    def test_it_is_checked(self, config: dict[str, Any]) -> None:
        assert not RUN.is_valid({"base": "base.yaml", **config})

    def test_a_network(self) -> None:
        assert NETWORK.is_valid({"base": "one.yaml", "init": "he"})
        assert not NETWORK.is_valid({"init": "he"})
        assert not NETWORK.is_valid({"base": "one.yaml", "inti": "he"})


def test_descriptions_and_defaults_are_those_of_the_models() -> None:
    schema = create_run_schema()

    def definitions(name: str) -> Any:
        return schema["$defs"][name]["properties"]

    assert definitions("run")["solver"]["description"] == RunConfig.model_fields["solver"].description
    assert definitions("network")["loss"]["default"] == "softmax"
    assert definitions("network")["layers"]["description"] == NetworkConfig.model_fields["layers"].description
    assert definitions("solver")["groups"]["default"] == []
    assert definitions("data")["augment"]["default"] == {}
    assert definitions("engine")["threads"]["default"] == "auto"
