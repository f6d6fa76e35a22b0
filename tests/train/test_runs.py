"""Runs side by side: what is told of each, whatever its state, and removal that leaves nothing half."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from cnnctl.errors import ConfigError, RunError
from cnnctl.train import runs as module
from cnnctl.train.api import Run, train
from cnnctl.train.checkpoint import load_checkpoint
from cnnctl.train.run_directory import RunDirectory, find_run
from cnnctl.train.runs import (
    Difference,
    find_differences,
    follow_metrics,
    hash_config,
    list_files,
    list_runs,
    read_environment,
    remove_run,
    summarize_run,
)


@pytest.fixture(scope="module")
def trained(pristine_config, tmp_path_factory):
    """A finished run that no test changes."""
    return train(pristine_config, runs_dir=tmp_path_factory.mktemp("trained"))


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def add_run(trained, runs_dir):
    """A copy of the run under another name, in that state and of that start."""

    def add(name="20260101-000000-tiny-aaaa", **status):
        path = runs_dir / name
        shutil.copytree(trained.path, path, symlinks=True)
        document = json.loads((path / "status.json").read_text())
        (path / "status.json").write_text(json.dumps({**document, **status}))
        return path

    return add


class TestSummary:
    def test_of_a_finished_run(self, trained):
        epochs = [entry for entry in trained.metrics() if entry["type"] == "epoch"]
        accuracies = tuple(entry["validation"]["accuracy"] for entry in epochs)
        summary = summarize_run(trained.path)
        assert (summary.state, summary.steps, summary.epochs) == ("finished", 21, 3)
        assert (summary.train, summary.validation, summary.test) == (
            trained.train,
            trained.validation,
            trained.test,
        )
        assert summary.seconds == trained.seconds
        assert (summary.history, summary.is_validation) == (accuracies, True)
        assert summary.best_validation == max(accuracies)
        assert summary.last_validation == accuracies[-1]

    def test_without_validation_the_training_accuracies_are_told(self, config, runs_dir):
        config["data"]["validation"] = 0
        run = train(config, runs_dir=runs_dir)
        epochs = [entry for entry in run.metrics() if entry["type"] == "epoch"]
        summary = summarize_run(run.path)
        assert summary.history == tuple(entry["train"]["accuracy"] for entry in epochs)
        assert summary.best_validation is summary.last_validation is None

    def test_a_run_that_nobody_trains_is_killed(self, add_run):
        path = add_run(state="running")
        assert summarize_run(path).state == "killed"
        assert summarize_run(path).test is None
        with RunDirectory(path).locked():
            assert summarize_run(path).state == "running"

    def test_a_run_that_ends_while_it_is_looked_at_is_not_killed(self, add_run, monkeypatch):
        path = add_run(state="running")
        is_locked = RunDirectory.is_locked

        def look_and_end(run):
            with run.locked():
                found = is_locked(run)
                run.write_status("finished", 21, 3)
            return found

        monkeypatch.setattr(RunDirectory, "is_locked", look_and_end)
        assert summarize_run(path).state == "finished"

    def test_a_row_that_is_not_whole_is_left_out(self, add_run):
        path = add_run()
        before = summarize_run(path).history
        with (path / "metrics.csv").open("a") as file:
            file.write("4,28,0.5,0.")
        assert summarize_run(path).history == before

    def test_a_measurement_has_a_state_alone(self, add_run):
        path = add_run()
        (path / "config.yaml").unlink()
        summary = summarize_run(path)
        assert (summary.state, summary.seconds, summary.test, summary.history) == ("finished", None, None, ())


class TestList:
    def test_the_newest_comes_first(self, add_run, runs_dir):
        older = add_run("20260101-000000-b-aaaa", started="2026-01-01T00:00:00+00:00")
        newest = add_run("20260103-000000-a-bbbb", started="2026-01-03T00:00:00+00:00")
        between = add_run("renamed", started="2026-01-02T00:00:00+00:00")
        found, problems = list_runs(runs_dir)
        assert [run.path for run in found] == [newest, between, older]
        assert problems == []

    def test_what_is_no_run_or_damaged_is_told_and_stops_nothing(self, add_run, runs_dir):
        whole = add_run("20260101-000000-a-aaaa")
        damages = {"status.json": "{", "timing.json": "[]", "eval/last.json": "{}", "metrics.csv": None}
        for number, (file, text) in enumerate(damages.items()):
            path = add_run(f"2026010{number + 2}-000000-a-bbbb") / file
            path.unlink() if text is None else path.write_text(text)
        (runs_dir / "foreign").mkdir()
        (runs_dir / ".hidden").mkdir()
        (runs_dir / "notes.txt").touch()
        (runs_dir / "nowhere").symlink_to(runs_dir / "gone")
        found, problems = list_runs(runs_dir)
        assert [run.path for run in found] == [whole]
        assert len(problems) == len(damages) + 1
        for file, problem in zip(damages, problems, strict=False):
            assert file in problem
            assert "\n" not in problem
        assert problems[-1] == f"{runs_dir / 'foreign'}: no run: it has no status.json"

    def test_of_no_folder(self, tmp_path):
        assert list_runs(tmp_path / "nowhere") == ([], [])


class TestFacts:
    def test_the_hash_is_that_of_the_checkpoints(self, trained):
        checkpoint = load_checkpoint(trained.path / "checkpoints" / "last.safetensors")
        text = checkpoint.metadata.config.encode()
        assert hash_config(trained.path) == hashlib.sha256(text).hexdigest()

    @pytest.mark.parametrize("text", ["", "[]", "\x00"])
    def test_a_damaged_environment_is_one_line(self, add_run, text):
        path = add_run()
        assert read_environment(path)["backend"] == "im2col"
        (path / "env.json").write_text(text)
        with pytest.raises(RunError, match=r"env\.json: damaged"):
            read_environment(path)

    def test_files_with_their_sizes(self, add_run):
        path = add_run()
        (path / "link").symlink_to("/")
        files = list_files(path)
        assert files["resolved.yaml"] == (path / "resolved.yaml").stat().st_size
        assert "checkpoints/last.safetensors" in files
        assert [name for name in files if name.startswith("link")] == ["link"]


class TestComparison:
    @pytest.fixture
    def compare(self, add_run):
        """Differences between the run's configuration and copies in which texts are replaced."""

        def call(*replacements):
            paths = [add_run("first")]
            for number, texts in enumerate(replacements):
                path = add_run(f"other{number}")
                resolved = (path / "resolved.yaml").read_text()
                for old, new in texts.items():
                    assert old in resolved
                    resolved = resolved.replace(old, new)
                (path / "resolved.yaml").write_text(resolved)
                paths.append(path)
            return find_differences(paths)

        return call

    def test_of_the_same(self, compare):
        assert compare({}, {}) == []

    def test_values_stand_under_dotted_keys(self, compare):
        assert compare({"lr: 0.01": "lr: 0.02"}, {"seed: 231": "seed: 7"}) == [
            Difference("solver.optimizer.adam.lr", (0.01, 0.02, 0.01)),
            Difference("engine.seed", (231, 231, 7)),
        ]

    def test_a_key_that_one_has_not(self, compare):
        assert compare({"  epochs: 3\n": ""}) == [Difference("solver.epochs", (3, None))]

    def test_layers_are_compared_one_by_one_if_there_are_as_many(self, compare):
        assert compare({"- relu": "- tanh"}) == [Difference("network.layers[1]", ("relu", "tanh"))]
        ((difference),) = compare_lists([["relu"], ["relu", "tanh"]])
        assert difference == Difference("", (["relu"], ["relu", "tanh"]))

    def test_kinds_that_have_nothing_in_common_stay_whole(self):
        adam, sgd = {"adam": {"lr": 1}}, {"sgd": {"lr": 1}}
        assert compare_lists([{"optimizer": adam, "l2": 0}, {"optimizer": sgd, "l2": 0}]) == [
            Difference("optimizer", (adam, sgd))
        ]

    def test_a_config_that_cannot_be_read_is_one_line(self, add_run):
        paths = [add_run("first"), add_run("second")]
        (paths[1] / "resolved.yaml").unlink()
        with pytest.raises(ConfigError, match=r"second/resolved\.yaml: no such file"):
            find_differences(paths)


def compare_lists(values):
    return list(module._find_differences("", values))


def describe_step(step):
    """A line of metrics.jsonl."""
    return json.dumps({"type": "step", "step": step, "epoch": 1, "loss": 2, "accuracy": 0.5, "lr": 1}) + "\n"


class TestFollow:
    @pytest.fixture
    def path(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text("".join(map(describe_step, (1, 2, 3))))
        return tmp_path

    @pytest.fixture
    def while_waiting(self, path, monkeypatch):
        """Somebody trains in the run, does one of these things at each pause, and ends after the last."""

        def plant(*actions):
            todo = list(actions)
            lock = RunDirectory(path).locked()
            (path / "checkpoints").mkdir()
            (path / "eval").mkdir()
            lock.__enter__()

            def act(seconds):
                todo.pop(0)()
                if not todo:
                    lock.__exit__(None, None, None)

            monkeypatch.setattr(module, "sleep", act)

        return plant

    @staticmethod
    def append(path, text):
        with (path / "metrics.jsonl").open("a") as file:
            file.write(text)

    def follow(self, path, last=10):
        return [entry["step"] for entry in follow_metrics(path, last)]

    @pytest.mark.parametrize(("last", "steps"), [(0, []), (2, [2, 3]), (10, [1, 2, 3])])
    def test_of_a_run_that_is_over_the_last_entries(self, path, last, steps):
        assert self.follow(path, last) == steps

    def test_what_is_written_meanwhile_is_told(self, path, while_waiting):
        while_waiting(
            lambda: self.append(path, describe_step(4) + describe_step(5)[:9]),
            lambda: self.append(path, describe_step(5)[9:]),
            lambda: self.append(path, describe_step(6)),
        )
        assert self.follow(path, last=1) == [3, 4, 5, 6]

    def test_a_run_that_was_cut_back_is_followed_from_there(self, path, while_waiting):
        while_waiting(
            lambda: (path / "metrics.jsonl").write_text(describe_step(1)),
            lambda: self.append(path, describe_step(2)),
        )
        assert self.follow(path) == [1, 2, 3, 2]

    def test_lines_that_are_none_are_passed_over(self, path):
        self.append(path, 'x\n[]\n{"type": "step"}\n' + "[" * 100_000 + "\n" + describe_step(4))
        self.append(path, describe_step(5)[:-1])
        assert self.follow(path) == [1, 2, 3, 4]

    def test_a_run_without_metrics_is_one_line(self, path):
        (path / "metrics.jsonl").unlink()
        with pytest.raises(RunError, match=r"metrics\.jsonl: No such file"):
            self.follow(path)


class TestRemoval:
    def test_of_one_leaves_the_others(self, add_run, runs_dir):
        gone, stays = add_run("20260101-000000-a-aaaa"), add_run("20260102-000000-b-bbbb")
        before = read_files(stays)
        remove_run(gone, runs_dir)
        assert list(runs_dir.iterdir()) == [stays]
        assert read_files(stays) == before

    def test_where_somebody_trains_is_refused(self, add_run, runs_dir):
        path = add_run()
        before = read_files(path)
        with RunDirectory(path).locked(), pytest.raises(RunError, match="somebody is training in it"):
            remove_run(path, runs_dir)
        assert read_files(path).keys() == before.keys()

    @pytest.mark.parametrize("moment", ["rmtree", "sync_directory"])
    def test_that_is_interrupted_leaves_no_run(self, add_run, runs_dir, monkeypatch, moment):
        path, other = add_run("20260101-000000-a-aaaa"), add_run("20260102-000000-b-bbbb")

        def interrupt(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module if moment == "sync_directory" else shutil, moment, interrupt)
            with pytest.raises(KeyboardInterrupt):
                remove_run(path, runs_dir)
        assert [run.path for run in list_runs(runs_dir)[0]] == [other]
        assert find_run("latest", runs_dir) == other
        with pytest.raises(RunError, match="neither a run directory"):
            find_run(path.name, runs_dir)
        remove_run(other, runs_dir)
        assert list(runs_dir.iterdir()) == []

    def test_a_link_is_refused_and_what_it_leads_to_stays(self, add_run, runs_dir, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        shutil.move(add_run(), elsewhere)
        before = read_files(elsewhere)
        (runs_dir / "link").symlink_to(elsewhere)
        with pytest.raises(RunError, match=r"link: a link to .*elsewhere; remove it by other means"):
            remove_run(find_run("link", runs_dir), runs_dir)
        assert read_files(elsewhere) == before

    def test_links_within_are_not_followed(self, add_run, runs_dir, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").write_text("kept")
        path = add_run()
        (path / "link").symlink_to(tmp_path / "precious")
        remove_run(path, runs_dir)
        assert (tmp_path / "precious" / "file").read_text() == "kept"

    @pytest.mark.parametrize("path", ["{run}/checkpoints/..", "{runs}/..", "{run}/checkpoints"])
    def test_what_lies_elsewhere_is_refused(self, add_run, runs_dir, tmp_path, path):
        run = add_run()
        (tmp_path / "other").mkdir()
        with pytest.raises(RunError, match="does not lie in"):
            remove_run(Path(path.format(run=run, runs=runs_dir)), tmp_path / "other")
        assert run.is_dir()

    def test_the_directory_one_stands_in(self, add_run, runs_dir, monkeypatch):
        monkeypatch.chdir(add_run())
        remove_run(Path("."), Path(".."))
        assert list(runs_dir.iterdir()) == []


def read_files(path):
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_removed_run_is_no_longer_read(add_run, runs_dir):
    path = add_run()
    remove_run(path, runs_dir)
    with pytest.raises(RunError, match="there is no such run directory"):
        Run.read(path)
