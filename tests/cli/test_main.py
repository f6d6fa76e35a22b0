"""The entry point: help without heavy imports, and one line with an exit code for every failure."""

import os
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from cnnctl.backends.fast import COMPILER, INSTRUCTION_SETS
from cnnctl.cli import main as cli_main
from cnnctl.cli.completion import SHELLS
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.main import COMMANDS, Stopped, cli
from cnnctl.errors import (
    BackendError,
    CheckFailed,
    CnnctlError,
    ConfigError,
    DataError,
    Diverged,
    Interrupted,
    ShapeError,
)

Run = Callable[..., tuple[int, str, str]]


def list_commands(group: click.Group = cli) -> list[ExampleCommand]:
    """All that can be run, those of groups among them."""
    found: list[ExampleCommand] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            found += list_commands(command)
        else:
            assert isinstance(command, ExampleCommand), name
            found.append(command)
    return found


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `cnnctl info` raise this."""

    def plant(error: BaseException) -> None:
        @click.command()
        def info() -> None:
            raise error

        monkeypatch.setattr(cli_main, "import_module", lambda _: type("module", (), {"info": info}))

    return plant


class TestHelp:
    """What is shown without running anything."""

    def test_it_lists_every_command(self) -> None:
        result = CliRunner().invoke(cli, ["--help"])
        assert result.exit_code == 0
        for name, (_, _, line) in COMMANDS.items():
            assert any(name in shown and line in shown for shown in result.output.splitlines())

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_is_there(self, name: str) -> None:
        module, attribute, _ = COMMANDS[name]
        assert isinstance(getattr(import_module(module), attribute), click.Command)

    def test_a_command_or_group_alone_shows_its_help(self, run_main: Run) -> None:
        for args in [], ["config"]:
            code, out, err = run_main(*args)
            assert (code, out) == (2, "")
            assert err.startswith("Usage: cnnctl")

    def test_version(self, run_main: Run) -> None:
        code, out, err = run_main("--version")
        assert (code, err) == (0, "")
        version, kernels, system = out.splitlines()
        assert version.startswith("cnnctl ")
        assert INSTRUCTION_SETS[-1] in kernels
        assert COMPILER in kernels
        assert f"numpy {np.__version__}" in system

    @pytest.mark.parametrize("line", [line for command in list_commands() for line in command.examples])
    def test_examples_are_command_lines_that_click_takes(self, line: str) -> None:
        args = shlex.split(line.removeprefix('eval "$(').replace(')"', ""), comments=True)
        args = args[: args.index(">")] if ">" in args else args
        assert args.pop(0) == "cnnctl"
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), args.pop(0))
            assert found
            command = found
        command.make_context("x", args)

    def test_every_command_shows_an_example_of_itself(self) -> None:
        for command in list_commands():
            assert command.examples, command.name
            assert all(f" {command.name}" in line for line in command.examples)

    def test_examples_are_shown_as_they_are(self, run_main: Run) -> None:
        code, out, _ = run_main("gradcheck", "--help")
        assert code == 0
        assert "\nExamples:\n  cnnctl gradcheck      " in out


class TestCompletion:
    """What the shell's Tab key gets."""

    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_script_for_each_shell(self, run_main: Run, shell: str) -> None:
        code, out, err = run_main("completion", shell)
        assert (code, err) == (0, "")
        assert f"_CNNCTL_COMPLETE={shell}_complete" in out

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("cnnctl gr", ["gradcheck"]),
            ("cnnctl runs s", ["show"]),
            ("cnnctl train --res", ["--resume"]),
            ("cnnctl eval 2026", ["20260102-000000-cifar-cccc", "20260101-000000-mnist-aaaa"]),
            ("cnnctl eval l", ["latest"]),
            ("cnnctl gradcheck --backend i", ["im2col"]),
            ("cnnctl data show s", ["shapes"]),
        ],
    )
    def test_words(
        self,
        run_main: Run,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        words: str,
        found: list[str],
    ) -> None:
        for name in "20260101-000000-mnist-aaaa", "20260102-000000-cifar-cccc":
            (tmp_path / "runs" / name).mkdir(parents=True)
            (tmp_path / "runs" / name / "status.json").write_text("{}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("_CNNCTL_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        with pytest.raises(SystemExit):
            run_main()
        assert capsys.readouterr().out.split() == [f"plain,{word}" for word in found]


class TestUsage:
    """What click finds: one line, exit code 2."""

    @pytest.mark.parametrize(
        ("args", "line"),
        [
            (["trian"], "'trian' is not a command; did you mean train?"),
            (["x"], f"'x' is not a command; known: {', '.join(COMMANDS)}"),
            (["runs", "lst"], "'lst' is not a command; did you mean list?"),
            (["config", "vlidate"], "'vlidate' is not a command; did you mean validate?"),
            (["--vesion"], "No such option"),
            (
                ["train", "--epochs", "3"],
                "No such option '--epochs'; for the config's field give -o solver.epochs=...",
            ),
            (
                ["train", "--batch-size=3"],
                "No such option '--batch-size'; for the config's field give -o solver.b",
            ),
            (
                ["train", "c.yaml", "solver.l2=0"],
                "Got unexpected extra argument (solver.l2=0); for a config's field give -o solver.l2=0",
            ),
            (["train", "--jason"], "No such option '--jason'. Did you mean '--json'?"),
            (["config", "show"], "Missing argument 'FILE'; usage: cnnctl config show [OPTIONS] FILE"),
            (["config", "show", "a", "b"], "Got unexpected extra argument (b)"),
        ],
    )
    def test_one_line(self, run_main: Run, args: list[str], line: str) -> None:
        code, out, err = run_main(*args)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"cnnctl: error: {line}")


class TestFailures:
    """What a command raises: one line, the error's exit code."""

    @pytest.mark.parametrize(
        ("error", "code", "line"),
        [
            (CnnctlError("no"), 1, "error: no"),
            (ConfigError("f:1:1: no"), 2, "error: f:1:1: no"),
            (ShapeError("no"), 2, "error: no"),
            (DataError("no"), 1, "error: no"),
            (BackendError("no"), 1, "error: no"),
            (CheckFailed("no"), 3, "error: no"),
            (Diverged("no"), 4, "error: no"),
            (Interrupted("stopped", 2), 130, "stopped"),
            (Interrupted("stopped", 15), 143, "stopped"),
            (Stopped(2), 130, "interrupted"),
            (Stopped(15), 143, "terminated"),
            (click.Abort(), 1, "error: aborted: there was no answer"),
            (
                FileNotFoundError(2, "No such file or directory", "a.npz"),
                1,
                "error: a.npz: No such file or directory",
            ),
            (OSError(28, "No space left on device"), 1, "error: No space left on device"),
            (OSError("timed out"), 1, "error: timed out"),
            (MemoryError("3 TiB"), 1, "error: out of memory (3 TiB); a smaller solver.batch_size needs less"),
            (MemoryError(), 1, "error: out of memory; a smaller solver.batch_size needs less"),
            (CnnctlError("two\n  lines\x1b[31m"), 1, r"error: two lines\x1b[31m"),
        ],
    )
    def test_one_line(
        self,
        run_main: Run,
        fail_with: Callable[[BaseException], None],
        error: BaseException,
        code: int,
        line: str,
    ) -> None:
        fail_with(error)
        done, out, err = run_main("info")
        assert (done, out, err.strip("\n")) == (code, "", f"cnnctl: {line}")

    def test_an_internal_error(
        self,
        run_main: Run,
        fail_with: Callable[[BaseException], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("CNNCTL_DEBUG", raising=False)
        fail_with(ZeroDivisionError("by zero"))
        code, out, err = run_main("info")
        assert (code, out) == (1, "")
        assert err == (
            "cnnctl: internal error: ZeroDivisionError: by zero; "
            "please report it, with CNNCTL_DEBUG=1 for the traceback\n"
        )
        monkeypatch.setenv("CNNCTL_DEBUG", "1")
        code, _, err = run_main("info")
        assert code == 1
        assert err.startswith("Traceback")
        assert err.endswith("cnnctl: internal error: ZeroDivisionError: by zero; please report it\n")

    def test_a_click_runner_sees_the_error_itself(self) -> None:
        result = CliRunner().invoke(cli, ["config", "show", "no.yaml"])
        assert isinstance(result.exception, ConfigError)


class TestProcess:
    """What only a process of its own can show."""

    def test_a_missing_config(self, run_process: Run, tmp_path: Path) -> None:
        code, out, err = run_process("config", "show", tmp_path / "no.yaml")
        assert (code, out, err) == (
            2,
            "",
            f"cnnctl: error: {tmp_path}/no.yaml: no such file; cnnctl config init writes one\n",
        )

    def test_a_name_that_is_no_text(self, run_process: Run, tmp_path: Path) -> None:
        name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml")
        code, out, err = run_process("config", "show", name)
        assert (code, out, err) == (
            2,
            "",
            f"cnnctl: error: {tmp_path}/\\udcff.yaml: no such file; cnnctl config init writes one\n",
        )

    def test_a_full_disk(self, run_process: Run) -> None:
        with open("/dev/full", "w") as full:
            code, _, err = run_process("--version", stdout=full.fileno())
        assert (code, err) == (1, "cnnctl: error: No space left on device\n")

    def test_a_reader_that_left(self, run_process: Run) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        code, _, err = run_process("--version", stdout=writer)
        os.close(writer)
        assert (code, err) == (1, "")
