"""From a file, or a mapping, to a `RunConfig`: inheritance, file names, overrides, schema.

`base: other.yaml` inherits: mappings merge, everything else replaces, and so does another
kind of optimizer, schedule, loss or initializer. `-o a.b=value` is merged the same way, on top. A network
given as a file name is read in, and a data path made absolute, so that a config stands
for itself. Raises ConfigError, a line for each problem that begins with its place, and nothing else.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cnnctl.config.fields import MOST_PROBLEMS
from cnnctl.config.schema import RunConfig
from cnnctl.config.strict_yaml import MAX_DEPTH, Node, dump_yaml, parse_yaml, read_yaml, show_value
from cnnctl.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

MAX_CHAIN = 8
"""Files that name one another, one after the other."""
CHOICES = frozenset({"optimizer", "schedule", "loss", "init"})
"""Keys whose value is one key, the kind, over its settings."""


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> RunConfig:
    """Read a run's config, `overrides` ("solver.epochs=3") applied in order.

    File names in an override are relative to the working directory, those in a file to it.
    """
    file = os.fspath(path)
    tree = _override(_read_tree(file), overrides)
    if "name" not in tree.value:
        tree = replace(tree, value={"name": Node(_make_name(file)), **tree.value})
    return _validate(tree)


def config_from_dict(config: Mapping[str, Any], overrides: Iterable[str] = ()) -> RunConfig:
    """The same from a mapping laid out as the file is; file names relative to the working directory."""
    return _validate(_override(_bind_files(_from_data(config), ""), overrides))


def config_from_text(text: str) -> RunConfig:
    """The same from what `dump_config` gives."""
    return _validate(parse_yaml(text, "the config"))


def compare_configs(before: RunConfig, after: RunConfig) -> list[tuple[str, Any, Any]]:
    """Fields that differ, as (path, before, after), in the order of the schema; None where there is none.

    >>> from cnnctl.config import config_from_dict
    >>> config = {
    ...     "name": "x",
    ...     "data": {"dataset": "shapes"},
    ...     "network": {"layers": [{"linear": 10}]},
    ...     "solver": {"optimizer": "adam", "epochs": 1, "batch_size": 8},
    ... }
    >>> compare_configs(*(config_from_dict(config, more) for more in ([], ["solver.epochs=3"])))
    [('solver.epochs', 1, 3)]
    """
    first, second = (dict(_flatten(config_to_dict(config))) for config in (before, after))
    keys = dict.fromkeys([*first, *second])
    found = [(key, first.get(key), second.get(key)) for key in keys]
    return [change for change in found if change[1] != change[2]]


def _flatten(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain data that `config_from_dict` makes an equal config of; defaults written out."""
    return config.model_dump(mode="json", exclude_none=True)


def dump_config(config: RunConfig) -> str:
    """YAML text that loads to an equal config and needs no other config file."""
    return dump_yaml(config_to_dict(config))


def read_tree(path: str) -> dict[str, Any]:
    """What a file says, with what it inherits and the network's file in it; not checked."""
    tree: dict[str, Any] = _read_tree(path).to_data()
    return tree


def _read_tree(path: str, named_by: str = "", above: tuple[str, ...] = ()) -> Node:
    tree = read_yaml(path, named_by, "" if named_by else "; cnnctl config init writes one")
    folder, identity = os.path.dirname(path), os.path.realpath(path)
    if identity in above:
        raise ConfigError(f"{named_by}: {path} leads back to itself; give another file")
    if len(above) == MAX_CHAIN:
        raise ConfigError(f"{named_by}: {path} is more than {MAX_CHAIN} files deep; inherit from fewer")
    above = (*above, identity)
    if not isinstance(tree.value, dict):
        raise ConfigError(f"{tree.origin}: {show_value(tree.to_data())} is not usable; give keys with values")
    base = tree.child("base")
    if base is not None:
        tree = replace(tree, value={key: node for key, node in tree.value.items() if key != "base"})
        if not isinstance(base.value, str):
            raise ConfigError(
                f"{base.origin}: base: {show_value(base.to_data())} is not usable; give a file name"
            )
        tree = _merge(_read_tree(os.path.join(folder, base.value), f"{base.origin}: base", above), tree)
    return _bind_files(tree, folder, above)


def _bind_files(tree: Node, folder: str, above: tuple[str, ...] = ()) -> Node:
    """Put the contents of the network's file in place of its name, and make the data path absolute.

    What was inherited is bound already, so names still to be found here are relative to `folder`.
    """
    network = tree.child("network")
    if network is not None and isinstance(network.value, str):
        read = _read_tree(os.path.join(folder, network.value), f"{network.origin}: network", above)
        tree = _merge(tree, _nest(["network"], read))
    data = tree.child("data")
    path = data.child("path") if data else None
    if path is not None and path.value and isinstance(path.value, str):  # '' is for the schema to refuse
        absolute = os.path.abspath(os.path.join(folder, os.path.expanduser(path.value)))
        tree = _merge(tree, _nest(["data", "path"], replace(path, value=absolute)))
    return tree


def _override(tree: Node, overrides: Iterable[str]) -> Node:
    for text in overrides:
        key, equals, value = text.partition("=")
        keys = key.strip().split(".")
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            raise ConfigError(f"-o {text}: not key=value; give for example solver.epochs=3")
        _refuse_lists(tree, keys, text)
        node = parse_yaml(value, f"-o {text}", positions=False)
        tree = _bind_files(_merge(tree, _nest(keys, replace(node, key_origin=node.origin))), "")
    return tree


def _refuse_lists(tree: Node, keys: list[str], text: str) -> None:
    """A list is overridden whole: its items have no names to reach them by."""
    node: Node | None = tree
    for depth, key in enumerate(keys):
        if node is not None and isinstance(node.value, list):
            raise ConfigError(
                f"-o {text}: {'.'.join(keys[:depth])} is a list; give all of it, or edit the file"
            )
        node = node.child(key) if node is not None else None


def _nest(keys: list[str], node: Node) -> Node:
    for key in reversed(keys):
        node = Node({key: node}, key_origin=node.key_origin)
    return node


def _merge(under: Node, over: Node, key: str = "") -> Node:
    """`over` laid on `under`, key by key where both are mappings; neither is changed."""
    merging = isinstance(under.value, dict) and isinstance(over.value, dict)
    if not merging or (key in CHOICES and under.value.keys() != over.value.keys()):
        return over
    merged = dict(under.value)
    for name, node in over.value.items():
        merged[name] = _merge(merged[name], node, name) if name in merged else node
    return Node(merged, over.origin or under.origin, under.key_origin)


def _from_data(value: Any, depth: int = 1) -> Node:
    if depth > MAX_DEPTH:
        raise ConfigError(f"config: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return Node({key: _from_data(item, depth + 1) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return Node([_from_data(item, depth + 1) for item in value])
    return Node(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _make_name(file: str) -> str:
    """A run name from a file name: what is not safe becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file).stem).lstrip("._-")[:64] or "run"


def _validate(tree: Node) -> RunConfig:
    return validate_tree(tree, RunConfig)


def validate_tree(tree: Node, model: type[Model]) -> Model:
    """What a document says as that model. Raises ConfigError, a line for each of the first problems."""
    try:
        return model.model_validate(tree.to_data())
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    lines = [_describe_problem(problem, tree) for problem in details[:MOST_PROBLEMS]]
    if len(details) > MOST_PROBLEMS:
        lines.append(f"there are more: these are the first {MOST_PROBLEMS}")
    raise ConfigError(*lines)


def _describe_problem(error: ErrorDetails, tree: Node) -> str:
    """One line: place in the file, path of the value, what is wrong."""
    context = error["ctx"]
    path = (*error["loc"], *context["field"])
    node, origin = tree, tree.origin
    for part in path:
        child = node.child(part)
        if child is None:
            break
        node, origin = child, child.origin or child.key_origin or origin
    if error["type"] == "key":
        origin = node.key_origin
    place = f"{origin}: " if origin else ""
    return f"{place}{'.'.join(map(_show_part, path)) or 'config'}{context['reason']}"


def _show_part(part: object) -> str:
    text = str(part)
    return text if re.fullmatch(r"[\w<>-]{1,40}", text) else show_value(part)
