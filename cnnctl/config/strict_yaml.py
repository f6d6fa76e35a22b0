"""YAML as configs are written: every value knows where it stands, and nothing is guessed.

Plain words are read as YAML 1.2 reads them: `1e-3` is a number, only `true` and `false`
are booleans, `yes`, `on` and dates are text. Refused, with file, line and column: tags,
duplicate and merge keys, keys that are no text, control characters, several documents,
files above 1 MiB, depth above 32, and aliases that make more than 20,000 values. Only the
parser of PyYAML runs, never a constructor, so no document can make an object.
"""

import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import inf
from typing import Any, NoReturn

import yaml

from cnnctl.errors import ConfigError

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 20_000
SHOWN_CHARACTERS = 60

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML can be built without libyaml

_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}")  # longer ones are numbers, but no counts
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it was written.

    Attributes:
        value: None, bool, int, float, str, a list of nodes, or a dict of nodes.
        origin: "file:line:column" or "-o key=value"; "" for a mapping nobody wrote down.
        key_origin: the same for the key that leads here.
    """

    value: Any
    origin: str = ""
    key_origin: str = ""

    def child(self, part: str | int) -> "Node | None":
        """The node under that key or index, if there is one."""
        known = self.value if isinstance(self.value, dict) else dict(enumerate(self.children()))
        return known.get(part)

    def children(self) -> "Collection[Node]":
        """The nodes inside; none for a scalar."""
        if isinstance(self.value, dict):
            return self.value.values()
        return self.value if isinstance(self.value, list) else ()

    def to_data(self) -> Any:
        """The bare value, positions forgotten."""
        if isinstance(self.value, dict):
            return {key: node.to_data() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.to_data() for node in self.value]
        return self.value


def read_yaml(path: str, named_by: str = "", hint: str = "") -> Node:
    """Read one YAML file. `named_by` says where the file's name was found, for the error line.

    `hint` ends that line where there is no such file, and none of nearly that name.

    Raises ConfigError if it cannot be read or breaks a rule above.
    """
    data = _read_bytes(path, f"{named_by}: {path}" if named_by else path, hint)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ConfigError(
            f"{path}:{line}:{column}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
    return parse_yaml(text.removeprefix("\ufeff"), path)


def parse_yaml(text: str, source: str, *, positions: bool = True) -> Node:
    """Read one document. `source` is what errors cite, followed by line and column if `positions`."""
    if bad := _CONTROL.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        place = f"{source}:{line}:{column}" if positions else source
        raise ConfigError(f"{place}: {_describe_control(bad)}")
    return _Reader(text, source, positions).read_document()


def resolve_plain(text: str) -> str | float | int | bool | None:
    """What an unquoted word means.

    >>> [resolve_plain(word) for word in ("1e-3", "231", "true", "yes", "~", "2026-01-01")]
    [0.001, 231, True, 'yes', None, '2026-01-01']
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return text


def dump_yaml(data: Any) -> str:
    """YAML text of plain data, the innermost collections on one line; reads back to the same data."""
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )


def dump_line(data: Any) -> str:
    """The same on one line, however much it is.

    >>> dump_line({"adam": {"lr": 0.001}}), dump_line(None)
    ('{adam: {lr: 0.001}}', 'null')
    """
    text = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=True, allow_unicode=True, width=inf
    )
    return text.removesuffix("\n").removesuffix("\n...")


def show_value(value: object) -> str:
    """A value as an error line quotes it: on one line, and not at any length.

    >>> [show_value(value) for value in ("3", True, None, [1, 2.5], {"conv": 3})]
    ["'3'", 'true', 'null', '[1, 2.5]', '{"conv": 3}']
    """
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError):  # nothing that YAML could hold
        text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


class _Reader:
    """Builds nodes from parser events and counts them, those that aliases repeat included."""

    def __init__(self, text: str, source: str, positions: bool) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._source = source
        self._positions = positions
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def read_document(self) -> Node:
        try:
            next(self._events)  # start of stream
            if isinstance(next(self._events), yaml.StreamEndEvent):
                return Node(None, f"{self._source}:1:1" if self._positions else self._source)
            node = self._read_node(next(self._events), 1)
            next(self._events)  # end of document
            event = next(self._events)
        except yaml.YAMLError as error:
            mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
            self._refuse(mark, f"not YAML: {problem}")
        if not isinstance(event, yaml.StreamEndEvent):
            self._refuse(event.start_mark, "a second document begins; give one document")
        return node

    def _read_node(self, event: Any, depth: int) -> Node:
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                self._refuse(mark, f"alias {show_value(event.anchor)} names no complete value above it")
            node = self._anchors[event.anchor]
            self._count_again(node, depth, mark)
            return node
        if event.tag is not None:
            self._refuse(mark, f"tag {show_value(event.tag)} is not allowed; give plain YAML")
        self._count_value(isinstance(event, yaml.CollectionStartEvent), depth, mark)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._read_scalar(event), self._cite(mark))
        elif isinstance(event, yaml.SequenceStartEvent):
            items = [self._read_node(item, depth + 1) for item in self._events_until(yaml.SequenceEndEvent)]
            node = Node(items, self._cite(mark))
        else:
            node = Node(self._read_mapping(depth), self._cite(mark))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _read_mapping(self, depth: int) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for event in self._events_until(yaml.MappingEndEvent):
            mark = event.start_mark
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                self._refuse(mark, "this key is no plain text; give a word")
            key = event.value
            if key == "<<":
                self._refuse(mark, "merge key '<<' is not allowed; give base: FILE to inherit")
            if key in nodes:
                first = nodes[key].key_origin
                self._refuse(mark, f"key {show_value(key)} stands here twice, first at {first}")
            nodes[key] = replace(self._read_node(next(self._events), depth + 1), key_origin=self._cite(mark))
        return nodes

    def _read_scalar(self, event: yaml.ScalarEvent) -> str | float | int | bool | None:
        plain, _ = event.implicit
        if bad := _CONTROL.search(event.value):  # written as an escape such as "\0"
            self._refuse(event.start_mark, _describe_control(bad))
        return resolve_plain(event.value) if plain else event.value

    def _events_until(self, end: type[yaml.Event]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _count_value(self, collection: bool, depth: int, mark: Any) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            self._refuse(mark, f"more than {MAX_NODES:,} values (aliases written out)")
        if collection and depth > MAX_DEPTH:
            self._refuse(mark, f"nested deeper than {MAX_DEPTH} levels")

    def _count_again(self, node: Node, depth: int, mark: Any) -> None:
        self._count_value(isinstance(node.value, (dict, list)), depth, mark)
        for child in node.children():
            self._count_again(child, depth + 1, mark)

    def _cite(self, mark: Any) -> str:
        if mark is None or not self._positions:
            return self._source
        return f"{self._source}:{mark.line + 1}:{mark.column + 1}"

    def _refuse(self, mark: Any, reason: str) -> NoReturn:
        raise ConfigError(f"{self._cite(mark)}: {reason}")


class _Dumper(yaml.SafeDumper):
    """Writes text so that `resolve_plain` cannot take it for anything else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(resolve_plain(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _describe_control(found: re.Match[str]) -> str:
    return f"character U+{ord(found[0]):04X} is not allowed; give printable text"


def _read_bytes(path: str, place: str, hint: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or device might never end
            raise ConfigError(f"{place}: not a regular file; give a YAML file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{place}: no such file{_suggest_file(path) or hint}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{place}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{place}: larger than {MAX_BYTES:,} bytes; a config is smaller")
    return data


def _suggest_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        files = [entry for entry in os.listdir(folder or ".") if entry.endswith((".yaml", ".yml"))]
    except OSError:
        return ""
    nearest = get_close_matches(name, files, n=1, cutoff=0.7)
    return f"; did you mean {os.path.join(folder, nearest[0])}?" if nearest else ""
