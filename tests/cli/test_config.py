"""`cnnctl config`: validate and show."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnctl.config import load_config

Run = Callable[..., tuple[int, str, str]]

RUN_YAML = """\
data: {dataset: shapes}
network: {layers: [relu, {linear: 10}]}
solver: {optimizer: adam, epochs: 1, batch_size: 10}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good config and a bad one."""
    (tmp_path / "good.yaml").write_text(RUN_YAML)
    (tmp_path / "bad.yaml").write_text(RUN_YAML.replace("adam", "adm"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


BAD_LINE = "bad.yaml:3:21: solver.optimizer: 'adm' is not known; did you mean adam?"


class TestValidate:
    """Every file is checked; one that does not hold makes the exit code 2."""

    def test_good_files(self, run_main: Run) -> None:
        code, out, err = run_main("config", "validate", "good.yaml", "good.yaml")
        assert (code, err) == (0, "")
        assert out == "good.yaml: ok (shapes, 2 layers, adam, 1 epoch)\n" * 2

    def test_a_bad_file_does_not_hide_the_next(self, run_main: Run) -> None:
        code, out, err = run_main("config", "validate", "bad.yaml", "good.yaml")
        assert (code, err) == (2, f"cnnctl: error: {BAD_LINE}\n")
        assert out.startswith("good.yaml: ok")

    def test_all_that_is_wrong_is_told(self, run_main: Run, folder: Path) -> None:
        (folder / "bad.yaml").write_text(RUN_YAML.replace("adam", "adm").replace("epochs: 1", "epochs: 0"))
        reason = "bad.yaml:3:34: solver.epochs: 0 is not usable; give an integer of at least 1"
        code, out, err = run_main("config", "validate", "bad.yaml")
        assert (code, out, err) == (2, "", f"cnnctl: error: {BAD_LINE}\ncnnctl: error: {reason}\n")
        report = json.loads(run_main("config", "validate", "bad.yaml", "--json")[1])["files"][0]
        assert report["errors"] == [BAD_LINE, reason]

    def test_overrides_are_checked(self, run_main: Run) -> None:
        assert run_main("config", "validate", "bad.yaml", "-o", "solver.optimizer=sgd")[0] == 0
        code, out, err = run_main("config", "validate", "good.yaml", "-o", "solver.epoch=2")
        assert (code, out) == (2, "")
        assert err == ("cnnctl: error: -o solver.epoch=2: solver.epoch is not known; did you mean epochs?\n")

    def test_json_is_one_document(self, run_main: Run) -> None:
        code, out, err = run_main("config", "validate", "good.yaml", "bad.yaml", "--json")
        assert (code, err) == (2, "")
        assert json.loads(out) == {
            "schema": 1,
            "command": "config validate",
            "files": [
                {"file": "good.yaml", "ok": True, "error": None, "errors": []},
                {"file": "bad.yaml", "ok": False, "error": BAD_LINE, "errors": [BAD_LINE]},
            ],
        }

    def test_a_file_is_needed(self, run_main: Run) -> None:
        code, _, err = run_main("config", "validate")
        assert (code, err) == (2, "cnnctl: error: Missing argument 'FILE...'.\n")


class TestShow:
    """The resolved config, as YAML that loads or as JSON."""

    def test_yaml_loads_to_the_same_config(self, run_main: Run, folder: Path) -> None:
        code, out, err = run_main("config", "show", "good.yaml", "-o", "solver.l2=1e-4")
        assert (code, err) == (0, "")
        (folder / "shown.yaml").write_text(out)
        assert load_config("shown.yaml") == load_config("good.yaml", ["solver.l2=1e-4"])

    def test_json(self, run_main: Run) -> None:
        _, out, _ = run_main("config", "show", "good.yaml", "--json")
        document = json.loads(out)
        assert (document["schema"], document["command"]) == (1, "config show")
        assert document["config"]["name"] == "good"
        assert document["config"]["network"]["layers"] == ["relu", {"linear": {"units": 10, "bias": True}}]

    def test_a_bad_file(self, run_main: Run) -> None:
        assert run_main("config", "show", "bad.yaml") == (2, "", f"cnnctl: error: {BAD_LINE}\n")
