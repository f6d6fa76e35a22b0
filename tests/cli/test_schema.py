"""`cnnctl schema`: the schemas, printed or written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnctl.config.json_schema import create_network_schema, create_run_schema

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_printed(run_main: Run) -> None:
    for args, schema in (
        ([], create_run_schema()),
        (["run"], create_run_schema()),
        (["network"], create_network_schema()),
    ):
        code, out, err = run_main("schema", *args)
        assert (code, err) == (0, "")
        assert json.loads(out) == schema


def test_it_is_written(run_main: Run, folder: Path) -> None:
    assert run_main("schema", "network", "--output", "n.json") == (0, "n.json\n", "")
    assert json.loads((folder / "n.json").read_text()) == create_network_schema()


def test_nothing_is_overwritten_by_accident(run_main: Run, folder: Path) -> None:
    (folder / "s.json").write_text("mine")
    line = "s.json: is there already; give another name, or --force to overwrite it"
    assert run_main("schema", "--output", "s.json") == (2, "", f"cnnctl: error: {line}\n")
    assert (folder / "s.json").read_text() == "mine"
    assert run_main("schema", "--output", "s.json", "--force")[0] == 0
    assert json.loads((folder / "s.json").read_text()) == create_run_schema()


def test_what_cannot_be_written(run_main: Run) -> None:
    code, out, err = run_main("schema", "--output", "no/s.json")
    assert (code, out, err) == (1, "", "cnnctl: error: no/s.json: No such file or directory\n")
    assert run_main("schema", "runs")[0] == 2
