"""The catalogue leaves nothing out, and all of it is right on every backend."""

from collections import Counter
from typing import get_args

import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.specs import Activation
from cnnctl.check import catalogue
from cnnctl.check.catalogue import Entry, choose_entries, list_entries
from cnnctl.check.gradcheck import FAIL, UNRESOLVED, check_catalogue
from cnnctl.errors import ConfigError
from cnnctl.nn import Layer, Loss
from cnnctl.train.build import KINDS

CHECKED_KINDS = {kind for kind, cls in KINDS.items() if issubclass(cls, (Layer, Loss))}


def test_nothing_is_missing() -> None:
    kinds = Counter(entry.kind for entry in list_entries())
    assert kinds.keys() == CHECKED_KINDS | {"l1", "l2", "elastic", "conv_sandwich", "linear_sandwich"}
    assert kinds["conv_sandwich"] == 2 * 2 * (1 + len(get_args(Activation))) * 3
    assert kinds["linear_sandwich"] == len(get_args(Activation)) - 1  # none in place of gelu and silu


def test_names_can_be_asked_for() -> None:
    """A name is one entry's, and ends where the tensor's begins."""
    names = [entry.name for entry in list_entries()]
    assert len(set(names)) == len(names)
    assert not any("." in name for name in names)
    assert [entry.name for entry in choose_entries("conv-1x1")] == ["conv-1x1"]
    assert {entry.kind for entry in choose_entries("batchnorm")} == {"batchnorm"}
    assert len(choose_entries("batchnorm")) == 4


@pytest.mark.parametrize(("name", "line"), [("convv", "did you mean conv"), ("zz", "known: conv, maxpool,")])
def test_a_name_that_is_not_there(name: str, line: str) -> None:
    with pytest.raises(ConfigError, match=f"layer: '{name}' is not in the catalogue; {line}"):
        choose_entries(name)


def pick(step: int, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Make the catalogue every so manieth entry of itself; returns their names."""
    chosen: tuple[Entry, ...] = list_entries()[::step]
    monkeypatch.setattr(catalogue, "list_entries", lambda: chosen)
    return {entry.name for entry in chosen}


@pytest.mark.parametrize(("backend", "step"), [("fast", 1), ("im2col", 4), ("naive", 9)])
def test_all_of_it_is_right(backend: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower backends get a share here; the command takes all of it."""
    names = pick(step, monkeypatch)
    report = check_catalogue([create_backend(backend)])
    assert {row.layer for row in report.rows} == names
    assert [row for row in report.rows if row.verdict in {FAIL, UNRESOLVED}] == []
    assert sum(row.kinks for row in report.rows) == 0
    assert sum(group.tensors for group in report.groups) == len(report.rows)
