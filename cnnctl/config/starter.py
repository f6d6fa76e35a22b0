"""A config to start from: one file, each key with its meaning, what is not set with its default.

Lays out what it is handed; the numbers are those of the shipped configs, the words those of the schema.
An option that is not set stands behind a "#" without a space, so that it is set by taking that away.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from inspect import isclass
from textwrap import wrap
from types import UnionType
from typing import Any, get_args

from pydantic.fields import FieldInfo

from cnnctl.config.data import DATASETS_WITH
from cnnctl.config.fields import Kind, Section
from cnnctl.config.network import NetworkConfig
from cnnctl.config.schema import RunConfig
from cnnctl.config.strict_yaml import dump_line

WIDTH = 110
LEGEND = (
    "A key behind a # is an option with its default: take the # away, and that of its section, to set it."
)


def write_starter(config: Mapping[str, Any], about: Sequence[str], notes: Sequence[str]) -> str:
    """The text of a config that says what `config` does.

    Args:
        config: a mapping as `config_from_dict` takes it, the network in place.
        about: lines on what it is, for its head.
        notes: a remark on each layer.
    """
    dataset = config["data"]["dataset"]
    hidden = {key for key, datasets in DATASETS_WITH.items() if dataset not in datasets}
    lines = [f"# {line}" for line in [*about, LEGEND]]
    for key, field in RunConfig.model_fields.items():
        value = config.get(key)
        lines.append("")
        if key == "network":
            lines += _comment("network:", field)
            lines += _write_network(config["network"], notes)
        else:
            lines += _write_field(key, field, value, "", hidden if key == "data" else ())
    return "\n".join(lines) + "\n"


def set_classes(layers: Sequence[Any], classes: int) -> list[Any]:
    """The layers with so many outputs: units of the last linear layer, or filters of the last convolution."""
    changed = list(layers)
    for index in reversed(range(len(changed))):
        match changed[index]:
            case {"linear": int()}:
                changed[index] = {"linear": classes}
            case {"linear": dict(settings)}:
                changed[index] = {"linear": {**settings, "units": classes}}
            case {"conv": dict(settings)}:
                changed[index] = {"conv": {**settings, "filters": classes}}
            case _:
                continue
        break
    return changed


def _write_field(
    key: str, field: FieldInfo, value: Any, indent: str, hidden: Collection[str] = ()
) -> Iterator[str]:
    """A key that is set, or behind a "#"; a section's keys below it."""
    off = value is None or value == {}
    section = _find_section(field.annotation)
    if section is not None:
        inside = [
            line
            for name, below in section.model_fields.items()
            if name not in hidden
            for line in _write_field(name, below, (value or {}).get(name), indent + "  ")
        ]
        lines = [*_comment(f"{indent}{key}:", field), *inside]
    else:
        shown = value if not off else _show_default(field)
        lines = _comment(f"{indent}{key}: {dump_line(shown)}", field)
    yield from (_switch_off(line, indent) for line in lines) if off else lines


def _switch_off(line: str, indent: str) -> str:
    """The line behind a "#"; a remark has one already."""
    text = line.removeprefix(indent)
    if text.lstrip().startswith("# "):
        return line
    return f"{indent}#{text.replace('#', '', 1) if text.lstrip().startswith('#') else text}"


def _show_default(field: FieldInfo) -> Any:
    default = field.default
    return default.model_dump(mode="json", exclude_defaults=True) if isinstance(default, Section) else default


def _find_section(hint: Any) -> type[Section] | None:
    """The section that a field holds, also if it may hold none; kinds are written on one line."""
    for part in (hint, *(get_args(hint) if isinstance(hint, UnionType) else ())):
        if isclass(part) and issubclass(part, Section):
            return None if issubclass(part, Kind) else part
    return None


def _comment(text: str, field: FieldInfo) -> list[str]:
    """The line with its meaning behind it, or above it where both are too long."""
    line = f"{text}  # {field.description}"
    indent = " " * (len(text) - len(text.lstrip()))
    if len(line) <= WIDTH:
        return [line]
    remark = wrap(field.description or "", WIDTH - len(indent) - 2)
    return [*(f"{indent}# {part}" for part in remark), text]


def _write_network(network: Mapping[str, Any], notes: Sequence[str]) -> Iterator[str]:
    fields = NetworkConfig.model_fields
    yield from _comment("  layers:", fields["layers"])
    blocks = [list(_write_layer(layer, "    ")) for layer in network["layers"]]
    width = max(len(first) for first, *_ in blocks)
    for (first, *rest), note in zip(blocks, notes, strict=True):
        yield f"{first.ljust(width)}  # -> {note}"
        yield from rest
    for key in ("loss", "init"):
        yield from _write_field(key, fields[key], network.get(key), "  ")


def _write_layer(layer: Any, indent: str) -> Iterator[str]:
    """As one writes it by hand: a line, or for a residual block one for each layer in it."""
    if isinstance(layer, str):
        yield f"{indent}- {layer}"
        return
    ((kind, settings),) = layer.items()
    if kind != "residual":
        yield f"{indent}- {kind}: {dump_line(settings)}"
        return
    yield f"{indent}- {kind}:"
    for branch, layers in settings.items():
        yield f"{indent}    {branch}:"
        for inner in layers:
            yield from _write_layer(inner, indent + "      ")
