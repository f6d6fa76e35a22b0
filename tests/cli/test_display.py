"""What is printed where: tables, JSON, messages, bars on a terminal and lines off it."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnctl.cli import display
from cnnctl.cli.display import DownloadProgress, TrainProgress
from cnnctl.train.observer import EpochInfo, RunInfo, Scores, StepInfo, Summary

Capture = pytest.CaptureFixture[str]

RUN = RunInfo(
    run=Path("runs/x"),
    total_steps=40,
    steps_per_epoch=20,
    epochs=2,
    batch_size=50,
    start_step=0,
    memory_bytes=3 * 2**20,
    parameter_count=12_345,
    threads=1,
    backend="fast",
)
STEP = StepInfo(step=10, epoch=1, loss=2.25, accuracy=0.5, images_per_second=1234.0)
EPOCH = EpochInfo(1, 2, train=Scores(1.5, 0.25), validation=Scores(1.25, 0.5), seconds=3.0)
ROWS = [("train", "0.1234", "98.73 %", "60,000"), ("test", None, "7.5 %", "10")]


@pytest.fixture
def on_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Capture]:
    """To be called within the test: both standard streams say they are a terminal."""

    def pretend() -> Capture:
        for stream in sys.stdout, sys.stderr:
            monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return capsys

    return pretend


class TestTable:
    """Aligned text off a terminal, a rich table on it."""

    PLAIN = (
        "Scores\n"
        "split    loss  accuracy  images\n"
        "train  0.1234   98.73 %  60,000\n"
        "test        -     7.5 %      10\n"
    )

    def test_through_a_pipe(self, capsys: Capture) -> None:
        display.print_table("Scores", ("split", "loss", "accuracy", "images"), ROWS)
        assert capsys.readouterr() == (self.PLAIN, "")

    @pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_on_a_terminal_that_wants_plain_text(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        terminal = on_terminal()
        monkeypatch.setenv(variable, value)
        display.print_table("Scores", ("split", "loss", "accuracy", "images"), ROWS)
        assert terminal.readouterr().out == self.PLAIN

    @pytest.mark.parametrize("no_color", [None, ""])
    def test_on_a_terminal(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch, no_color: str | None
    ) -> None:
        terminal = on_terminal()
        if no_color is not None:
            monkeypatch.setenv("NO_COLOR", no_color)
        display.print_table("Scores", ("split", "[b]loss"), [("[red]train", "1.5")])
        shown = terminal.readouterr().out
        assert "\x1b[" in shown
        assert "[b]loss" in shown
        assert "[red]train" in shown

    @pytest.mark.parametrize(
        ("columns", "left"),
        [
            ("38", ["split", "loss", "accuracy", "images"]),
            ("37", ["split", "loss", "accuracy"]),
            ("29", ["split", "loss", "accuracy"]),
            ("28", ["split", "accuracy"]),
        ],
    )
    def test_spare_columns_go_where_there_is_no_room_for_them(
        self,
        on_terminal: Callable[[], Capture],
        monkeypatch: pytest.MonkeyPatch,
        columns: str,
        left: list[str],
    ) -> None:
        terminal = on_terminal()
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("NO_COLOR", "1")
        head = ("split", "loss", "accuracy", "images")
        display.print_table("", head, ROWS, spare=("images", "loss"))
        shown, *rows = terminal.readouterr().out.splitlines()
        assert shown.split() == left
        assert all("98.73 %" in row for row in rows if "train" in row)

    def test_none_goes_off_a_terminal(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        monkeypatch.setenv("COLUMNS", "10")
        display.print_table("Scores", ("split", "loss", "accuracy", "images"), ROWS, spare=("images", "loss"))
        assert capsys.readouterr().out == self.PLAIN

    @pytest.mark.parametrize(("columns", "head"), [("40", "forward ms"), ("34", "ms"), ("20", "forward ms")])
    def test_figures_are_never_broken(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch, columns: str, head: str
    ) -> None:
        """Their heads are, between words; where even that is too wide, nothing is."""
        terminal = on_terminal()
        monkeypatch.setenv("COLUMNS", columns)
        rows = [("conv1", "123456.789", "99 %"), ("linear1", None, "1 %")]
        display.print_table("", ("operation", "forward ms", "% of peak"), rows)
        lines = terminal.readouterr().out.splitlines()
        assert any("conv1" in line and "123456.789" in line and "99 %" in line for line in lines)
        assert ("forward ms" in "".join(lines)) is (head == "forward ms")

    def test_without_rows(self, capsys: Capture) -> None:
        display.print_table("", ("a", "b"), [])
        assert capsys.readouterr().out == "a  b\n"


class TestText:
    """Data on stdout, words about it on stderr."""

    def test_json_knows_no_nan(self, capsys: Capture) -> None:
        display.print_json({"schema": 1, "loss": math.nan, "all": [math.inf, (1.5, None)], "name": "é"})
        out, err = capsys.readouterr()
        assert json.loads(out) == {"schema": 1, "loss": None, "all": [None, [1.5, None]], "name": "é"}
        assert err == ""

    def test_text_ends_in_one_newline(self, capsys: Capture) -> None:
        display.print_text("a")
        display.print_text("b\n")
        assert capsys.readouterr() == ("a\nb\n", "")

    def test_messages(self, capsys: Capture) -> None:
        display.note("one\ntwo \x1b[2J")
        display.warn("odd\nvery")
        display.error("no  such\r\n file")
        assert capsys.readouterr() == (
            "",
            "one\ntwo \\x1b[2J\ncnnctl: warning: odd very\ncnnctl: error: no  such file\n",
        )


class TestTrainProgress:
    """A line an epoch and one per interval off a terminal; a bar on it."""

    def test_off_a_terminal(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr(display, "monotonic", lambda: now)
        with TrainProgress() as progress:
            progress.on_start(RUN)
            for now in (1.0, 9.0, 11.0, 12.0):  # noqa: B007 (the clock reads it)
                progress.on_step(STEP)
            progress.on_epoch(EPOCH)
            progress.on_warning("odd")
            progress.on_done(Summary(Path("runs/x"), "finished", 40, 6.0))
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines() == [
            "runs/x: 12,345 parameters, 3.0 MiB of memory, 40 steps of 50 images, fast on 1 thread",
            "epoch 1/2, step 10/40: loss 2.2500, accuracy 50.00 %, 1,234 images/s",
            "epoch 1/2: loss 1.5000, accuracy 25.00 %; validation loss 1.2500, accuracy 50.00 %; 3.0 s",
            "cnnctl: warning: odd",
        ]

    @pytest.mark.parametrize("no_color", [None, ""])
    def test_on_a_terminal(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch, no_color: str | None
    ) -> None:
        terminal = on_terminal()
        if no_color is not None:
            monkeypatch.setenv("NO_COLOR", no_color)
        with TrainProgress() as progress:
            progress.on_start(RUN)
            progress.on_step(STEP)
            progress.on_epoch(EPOCH)
            progress.on_step(STEP)
        shown = terminal.readouterr().err
        assert "epoch 1/2:" in shown
        assert "epoch 1/2  25%|" in shown
        assert "loss 2.2500, accuracy 50.00 %, 1,234 images/s" in shown
        assert "\nepoch 1/2: loss 1.5000, accuracy 25.00 %; validation" in shown.replace("\r", "\n")

    def test_the_bar_is_gone_when_an_error_is_shown(self, on_terminal: Callable[[], Capture]) -> None:
        terminal = on_terminal()
        with TrainProgress() as progress:
            progress.on_start(RUN)
        display.error("diverged")
        assert terminal.readouterr().err.split("\r")[-1] == "cnnctl: error: diverged\n"

    def test_a_resumed_run_and_one_without_validation(self, capsys: Capture) -> None:
        progress = TrainProgress()
        progress.on_start(RunInfo(Path("r"), 40, 20, 2, 50, 30, 512, 1, 2, "naive"))
        progress.on_epoch(EpochInfo(2, 2, Scores(math.nan, 0.1), None, 0.25))
        assert capsys.readouterr().err.splitlines() == [
            "r: 1 parameters, 512 B of memory, 40 steps of 50 images, naive on 2 threads",
            "going on from step 30",
            "epoch 2/2: loss nan, accuracy 10.00 %; 0.2 s",
        ]


class TestDownloadProgress:
    """One line a file and one per interval off a terminal; a bar on it."""

    def test_off_a_terminal(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr(display, "monotonic", lambda: now)
        with DownloadProgress() as progress:
            progress("a.gz", 0, 2048)
            now = 11.0
            progress("a.gz", 1024, 2048)
            progress("a.gz", 2048, 2048)
            progress("b.gz", 10, 10)
        assert capsys.readouterr().err.splitlines() == [
            "downloading a.gz (2.0 KiB)",
            "downloading a.gz: 50%",
            "downloading b.gz (10 B)",
        ]

    @pytest.mark.parametrize("no_color", [None, ""])
    def test_on_a_terminal(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch, no_color: str | None
    ) -> None:
        terminal = on_terminal()
        if no_color is not None:
            monkeypatch.setenv("NO_COLOR", no_color)
        with DownloadProgress() as progress:
            progress("a.gz", 0, 2048)
            progress("a.gz", 1024, 2048)
        shown = terminal.readouterr().err
        assert "a.gz:" in shown
        assert "/2.00k" in shown


class TestPicture:
    """Half blocks on a terminal with colour: the upper pixel before, the lower one behind."""

    ROWS = (((255, 0, 0), (0, 255, 0)), ((0, 0, 255), (1, 2, 3)), ((9, 9, 9), (8, 8, 8)))

    def test_two_rows_of_pixels_are_a_line(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        terminal = on_terminal()
        monkeypatch.setenv("COLORTERM", "truecolor")
        display.show_picture("conv1", self.ROWS)
        out, err = terminal.readouterr()
        assert out == ""
        title, first, second = err.splitlines()
        assert title == "conv1"
        assert first == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m\x1b[38;2;0;255;0;48;2;1;2;3m▀\x1b[0m"
        assert second == "\x1b[38;2;9;9;9m▀\x1b[0m\x1b[38;2;8;8;8m▀\x1b[0m"

    def test_there_is_room_on_a_terminal(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert display.find_picture_room() is None
        on_terminal()
        monkeypatch.setenv("LINES", "24")
        assert display.find_picture_room() == (100, 40)

    @pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_there_is_none_without_colour(
        self, on_terminal: Callable[[], Capture], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        on_terminal()
        monkeypatch.setenv(variable, value)
        assert display.find_picture_room() is None
