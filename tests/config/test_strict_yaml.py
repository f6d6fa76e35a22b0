"""The dialect: what words mean, where values stand, and what is refused and where."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnctl.config import strict_yaml
from cnnctl.config.strict_yaml import dump_yaml, parse_yaml, read_yaml, resolve_plain, show_value
from cnnctl.errors import ConfigError

Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("+7", 7),
        ("010", 10),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("99999999999999999999", 10**20 - 1),
        ("1" * 30, float("1" * 30)),
    ],
)
def test_words_are_read_as_yaml_1_2_reads_them(word: str, value: object) -> None:
    assert resolve_plain(word) == value
    assert type(resolve_plain(word)) is type(value)


@pytest.mark.parametrize(
    "word",
    ["yes", "no", "on", "off", "True", "NULL", "0x10", "1_000", "12:30", "2026-01-01", ".nan", "e3", "."],
)
def test_other_words_are_text(word: str) -> None:
    assert resolve_plain(word) == word


def test_quotes_make_text() -> None:
    assert parse_yaml("['1', \"true\", 1]", "f").to_data() == ["1", "true", 1]


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def test_values_and_keys_know_where_they_stand(loader: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_yaml, "_LOADER", loader)
    tree = parse_yaml("solver:\n  lr: 1\n  steps:\n    - 2\n    - {a: x}\n", "f.yaml")
    steps = tree.value["solver"].value["steps"]
    assert tree.value["solver"].key_origin == "f.yaml:1:1"
    assert tree.value["solver"].value["lr"].origin == "f.yaml:2:7"
    assert steps.key_origin == "f.yaml:3:3"
    assert steps.value[1].value["a"].origin == "f.yaml:5:11"


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: key 'a' stands here twice, first at f:1:1"),
        (
            "a: !!python/object/apply:os.system [x]",
            "f:1:4: tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        ("a: ! x", "f:1:4: tag '!' is not allowed"),
        ("!!str a: 1", "f:1:1: this key is no plain text"),
        ("[1, 2]: 3", "f:1:1: this key is no plain text"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "f:3:3: merge key '<<' is not allowed; give base: FILE to inherit"),
        ("a: 1\n---\nb: 2\n", "f:2:1: a second document begins"),
        ("a: [*b]", "f:1:5: alias 'b' names no complete value above it"),
        ("a: &a [*a]", "f:1:8: alias 'a' names no complete value above it"),
        ("a: 1\n b: 2\n", "f:2:3: not YAML: mapping values are not allowed"),
        ("a: [1,\n", "f:2:1: not YAML: "),
        ("a: 1\nb: x\0y\n", "f:2:5: character U+0000 is not allowed"),
        ('a: "x\\0y"', "f:1:4: character U+0000 is not allowed"),
        ("a: \x1b[31m", "f:1:4: character U+001B is not allowed"),
        ("a: \udc80", "f:1:4: character U+DC80 is not allowed"),
        ("[" * 33, "f:1:33: nested deeper than 32 levels"),
        ("- " * 100_000, "f:1:65: nested deeper than 32 levels"),
        ("- a\n" * 20_000, "f:20000:3: more than 20,000 values"),
    ],
)
def test_what_breaks_a_rule_is_refused_where_it_stands(
    text: str, line: str, loader: type, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_yaml, "_LOADER", loader)
    assert refusal(parse_yaml, text, "f").startswith(line)


def test_depth_of_32_is_allowed() -> None:
    parse_yaml("[" * 32 + "1" + "]" * 32, "f")


def test_an_alias_repeats_a_value_under_the_place_of_its_key() -> None:
    tree = parse_yaml("a: &x [1, 2]\nb: *x\n", "f")
    assert tree.to_data() == {"a": [1, 2], "b": [1, 2]}
    assert tree.value["b"].key_origin == "f:2:1"


def test_an_alias_bomb_is_refused(refusal: Refusal) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{c}: &{c} [{', '.join([f'*{b}'] * 9)}]" for b, c in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "more than 20,000 values (aliases written out)" in refusal(parse_yaml, "\n".join(lines), "f")


def test_aliases_do_not_hide_depth(refusal: Refusal) -> None:
    lines = ["a0: &a0 [x]", *(f"a{i + 1}: &a{i + 1} [*a{i}]" for i in range(40))]
    assert "nested deeper than 32 levels" in refusal(parse_yaml, "\n".join(lines), "f")


def test_an_override_is_cited_without_a_position(refusal: Refusal) -> None:
    assert refusal(parse_yaml, "[1", "-o a=[1", positions=False).startswith("-o a=[1: not YAML: ")


class TestReadYaml:
    """Files that cannot be read as text."""

    def test_a_byte_order_mark_is_skipped(self, tmp_path: Path) -> None:
        file = tmp_path / "f.yaml"
        file.write_bytes(b"\xef\xbb\xbfa: 1")
        assert read_yaml(str(file)).value["a"].origin == f"{file}:1:4"

    def test_bytes_that_are_not_utf_8(self, tmp_path: Path, refusal: Refusal) -> None:
        file = tmp_path / "f.yaml"
        file.write_bytes(b"a: 1\nb: x\xff\n")
        assert refusal(read_yaml, str(file)).startswith(f"{file}:2:5: byte 0xff is not UTF-8")

    @pytest.mark.parametrize(("size", "accepted"), [(2**20, True), (2**20 + 1, False)])
    def test_one_mebibyte_is_the_limit(
        self, tmp_path: Path, refusal: Refusal, size: int, accepted: bool
    ) -> None:
        file = tmp_path / "f.yaml"
        file.write_bytes(b"#" * size)
        if accepted:
            assert read_yaml(str(file)).value is None
        else:
            assert refusal(read_yaml, str(file)).startswith(f"{file}: larger than 1,048,576 bytes")

    def test_a_missing_file_suggests_its_neighbour(self, tmp_path: Path, refusal: Refusal) -> None:
        (tmp_path / "mnist.yaml").touch()
        line = refusal(read_yaml, str(tmp_path / "mnits.yaml"), "f:1:1: base")
        assert (
            line == f"f:1:1: base: {tmp_path}/mnits.yaml: no such file; did you mean {tmp_path}/mnist.yaml?"
        )

    def test_a_missing_file_in_a_missing_folder(self, tmp_path: Path, refusal: Refusal) -> None:
        assert refusal(read_yaml, str(tmp_path / "no/f.yaml")) == f"{tmp_path}/no/f.yaml: no such file"

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path, refusal: Refusal) -> None:
        os.mkfifo(tmp_path / "f.yaml")
        assert refusal(read_yaml, str(tmp_path / "f.yaml")).endswith("not a regular file; give a YAML file")

    @pytest.mark.parametrize(
        ("name", "reason"), [("a\0b", "embedded null byte"), ("x" * 300, "File name too long")]
    )
    def test_names_no_file_can_have(self, name: str, reason: str, refusal: Refusal) -> None:
        assert refusal(read_yaml, name).endswith(reason)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{},#&*!|>'\"%@`?~<\n \t\\01.e"), max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    line = "f:"
    try:
        parse_yaml(text, "f")
    except ConfigError as error:
        line = str(error)
    assert line.startswith("f:")
    assert "\n" not in line


PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Cs"]), max_size=20)
KEYS = PRINTABLE.filter(lambda key: key != "<<")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        SCALARS
        | PRINTABLE
        | st.sampled_from(["1e-3", "true", "null", "~", "yes", "0o7", "- a", "a: b", "'", ""]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_dumped_reads_back_the_same(data: object) -> None:
    assert parse_yaml(dump_yaml(data), "f").to_data() == data


def test_long_values_are_shown_short() -> None:
    assert show_value("x" * 100) == f"'{'x' * 56}..."
