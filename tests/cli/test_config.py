"""`cnnctl config`: init, validate and show."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from cnnctl.cli import display
from cnnctl.config import load_config
from cnnctl.config.json_schema import create_run_schema
from cnnctl.config.shipped import list_networks
from cnnctl.train.starter import create_starter

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
        assert (code, err) == (
            2,
            "cnnctl: error: Missing argument 'FILE...'; usage: cnnctl config validate [OPTIONS] FILE...\n",
        )


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


class TestInit:
    """A config to start from; asked for on a terminal only, and over nothing by accident."""

    @pytest.fixture
    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """What somebody types at a terminal."""

        def type_in(text: str) -> None:
            monkeypatch.setattr("sys.stdin", StringIO(text))
            monkeypatch.setattr(display, "can_ask", lambda: True)

        return type_in

    def test_off_a_terminal_nothing_is_asked(self, run_main: Run, folder: Path) -> None:
        code, out, err = run_main("config", "init")
        assert (code, out) == (0, "shapes_quickstart.yaml\n")
        assert err == "next: cnnctl train shapes_quickstart.yaml\n"
        config = load_config("shapes_quickstart.yaml")
        assert (config.data.dataset, config.solver.epochs) == ("shapes", 10)
        first, *_, last = (folder / "shapes_quickstart.yaml").read_text().splitlines()
        assert first == "# yaml-language-server: $schema=cnnctl.schema.json"
        assert last == "# Next: cnnctl train shapes_quickstart.yaml"
        assert json.loads((folder / "cnnctl.schema.json").read_text()) == create_run_schema()

    def test_network_data_set_and_file(self, run_main: Run, folder: Path) -> None:
        (folder / "my configs").mkdir()
        args = ("config", "init", "my configs/a.yaml", "--network", "lenet5", "--dataset", "mnist")
        assert run_main(*args) == (0, "my configs/a.yaml\n", "next: cnnctl train 'my configs/a.yaml'\n")
        assert load_config("my configs/a.yaml").data.dataset == "mnist"
        assert (folder / "my configs/cnnctl.schema.json").exists()

    @pytest.mark.parametrize("args", [["-"], ["--stdout"], ["x.yaml", "--stdout"]])
    def test_it_can_be_printed(self, run_main: Run, folder: Path, args: list[str]) -> None:
        before = sorted(folder.iterdir())
        code, out, err = run_main("config", "init", *args, "--network", "vgg6")
        assert (code, out, err) == (0, create_starter("vgg6", "shapes"), "")
        assert sorted(folder.iterdir()) == before

    def test_nothing_is_overwritten_by_accident(self, run_main: Run, folder: Path) -> None:
        (folder / "cnnctl.schema.json").write_text("mine")
        code, out, err = run_main("config", "init", "good.yaml")
        line = "good.yaml: is there already; give another name, or --force to overwrite it"
        assert (code, out, err) == (2, "", f"cnnctl: error: {line}\n")
        assert (folder / "good.yaml").read_text() == RUN_YAML
        assert run_main("config", "init", "new.yaml")[0] == 0
        assert (folder / "cnnctl.schema.json").read_text() == "mine"
        assert run_main("config", "init", "good.yaml", "--force")[0] == 0
        assert "Next: cnnctl train good.yaml" in (folder / "good.yaml").read_text()
        assert (folder / "cnnctl.schema.json").read_text() != "mine"

    def test_json(self, run_main: Run) -> None:
        code, out, err = run_main("config", "init", "a.yaml", "--json")
        assert (code, err) == (0, "")
        assert json.loads(out) == {
            "schema": 1,
            "command": "config init",
            "file": "a.yaml",
            "schema_file": "cnnctl.schema.json",
            "network": "quickstart",
            "dataset": "shapes",
            "next": "cnnctl train a.yaml",
        }
        assert run_main("config", "init", "-", "--json")[0] == 2

    def test_a_pair_that_does_not_fit(self, run_main: Run, folder: Path) -> None:
        before = sorted(folder.iterdir())
        code, out, err = run_main("config", "init", "--network", "vgg11", "--dataset", "mnist")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(
            "cnnctl: error: network: vgg11 does not fit mnist, images (1, 28, 28): maxpool5"
        )
        assert sorted(folder.iterdir()) == before

    def test_answers_by_number_by_name_and_by_default(
        self, run_main: Run, answer: Callable[[str], None]
    ) -> None:
        answer("1\nlent5\nlenet5\n\n")
        code, out, err = run_main("config", "init")
        assert (code, out) == (0, "mnist_lenet5.yaml\n")
        assert "  1. mnist          70,000 handwritten digits, 28x28 grey\n" in err
        assert "'lent5' is not one of them; did you mean lenet5?" in err
        assert "vgg11 " not in err  # it does not fit
        assert load_config("mnist_lenet5.yaml").data.dataset == "mnist"

    def test_what_is_given_is_not_asked_for(self, run_main: Run, answer: Callable[[str], None]) -> None:
        answer("\n")
        code, out, err = run_main("config", "init", "--dataset", "shapes", "a.yaml")
        assert (code, out) == (0, "a.yaml\n")
        assert "Which network?" in err
        assert f"{len(list_networks()):3}. vgg6" in err
        assert "Which data set?" not in err

    def test_a_file_that_is_there_is_told_before_anything_is_asked(
        self, run_main: Run, answer: Callable[[str], None]
    ) -> None:
        answer("\n\n")
        code, out, err = run_main("config", "init", "good.yaml")
        assert (code, out, err.count("\n")) == (2, "", 1)

    def test_nobody_answers(self, run_main: Run, answer: Callable[[str], None]) -> None:
        answer("2\n")
        code, out, err = run_main("config", "init")
        assert (code, out) == (1, "")
        assert err.endswith("cnnctl: error: aborted: there was no answer\n")
