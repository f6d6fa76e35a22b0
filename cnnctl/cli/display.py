"""The only place that prints: data on stdout, all that is said about it on stderr.

On a terminal there are tables and bars; through a pipe, with TERM=dumb or (tables) with
NO_COLOR there is plain text, and a line per interval in place of a bar. Formats what it
is given and computes nothing.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isfinite
from shutil import get_terminal_size
from time import monotonic
from traceback import format_exception
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from cnnctl.errors import describe_alternatives, escape, make_line
from cnnctl.train.observer import EpochInfo, Observer, RunInfo, Scores, StepInfo, Summary

if TYPE_CHECKING:
    from tqdm import tqdm

    from cnnctl.plot.chart import Chart

BUSY = 1.0
"""A load average from which on measured times are doubtful."""

LINE_INTERVAL_S = 10.0
"""Off a terminal, at most one progress line in that time."""

_BRAILLE, _CURVE_COLOURS = "⣿", ("blue", "red", "green", "magenta", "yellow", "cyan", "white")
_BLOCKS, _PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_HALF = "▀"
_EDGE, _SEAM = 1, 3
"""What rich draws at a table's edge, and between its columns."""
_FOLDED = 16
"""Text of a table is folded to no less than this."""
_NUMERIC = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?[%\w/]+)?|-|nan|inf")


def print_text(text: str) -> None:
    """Text on stdout, as it is."""
    print(text.removesuffix("\n"), flush=True)


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout; numbers that are not finite become null."""
    print(json.dumps(_without_nonfinite(document), indent=2, allow_nan=False))


def print_json_line(document: Mapping[str, Any]) -> None:
    """One JSON document on a line of stdout, there at once; numbers that are not finite become null."""
    print(json.dumps(_without_nonfinite(document), allow_nan=False), flush=True)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, spare: Sequence[str] = ()
) -> None:
    """A table on stdout, columns of figures to the right; None is shown as "-".

    On a terminal that is too narrow the `spare` columns go, one after the other; then the heads of
    figures are broken between words, and text is folded. Figures are never: where even that is too
    wide, the terminal breaks whole lines.
    """
    cells = [["-" if cell is None else make_line(str(cell)) for cell in row] for row in rows]
    table = [[*column] for column in zip(columns, *cells, strict=True)]
    width, is_rich = get_terminal_size().columns, _is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    if _is_terminal(sys.stdout):
        for name in spare:
            if _measure_table(table, breaking=is_rich) > width:
                table = [column for column in table if column[0] != name]
    if is_rich and _measure_table(table, breaking=True, folding=True) <= width:
        if _measure_table(table) > width:
            table = [[head.replace(" ", "\n") if _are_figures(own) else head, *own] for head, *own in table]
        _print_rich_table(title, table)
    else:
        _print_plain_table(title, table)


def _are_figures(cells: Sequence[str]) -> bool:
    return all(map(_NUMERIC.fullmatch, cells))


def _measure_table(table: Sequence[Sequence[str]], *, breaking: bool = False, folding: bool = False) -> int:
    """How wide columns are as rich draws them, with heads of figures broken and text folded, if wanted."""
    width = _EDGE
    for head, *cells in table:
        are_figures = _are_figures(cells)
        heads = head.split() if breaking and are_figures else [head]
        own = max(map(len, (*heads, *cells)))
        width += _SEAM + (own if are_figures or not folding else min(own, _FOLDED))
    return width


def find_picture_room() -> tuple[int, int] | None:
    """Pixels a picture may be wide and high on stderr; None unless that is a terminal with colour."""
    if not _is_terminal(sys.stderr) or os.environ.get("NO_COLOR") or not _can_show(_HALF, sys.stderr):
        return None
    size = get_terminal_size()
    return size.columns, 2 * max(0, size.lines - 4)


def show_picture(title: str, rows: Sequence[Sequence[tuple[int, int, int]]]) -> None:
    """A picture of RGB pixels on a terminal's stderr: two rows of them in a line of half blocks."""
    from itertools import zip_longest

    from rich.color import Color
    from rich.console import Console
    from rich.segment import Segment, Segments
    from rich.style import Style

    note(title)
    segments = []
    for upper, lower in zip_longest(rows[::2], rows[1::2]):
        for above, below in zip_longest(upper, lower or ()):
            back = None if below is None else Color.from_rgb(*below)
            segments.append(Segment(_HALF, Style(color=Color.from_rgb(*above), bgcolor=back)))
        segments.append(Segment.line())
    Console(file=sys.stderr).print(Segments(segments), end="")


def find_chart_room() -> tuple[int, bool] | None:
    """Columns for a chart on stderr, and whether it may have dots and colours; None off a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    colours = _is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")
    return get_terminal_size().columns - 1, colours and _can_show(_BRAILLE, sys.stderr)


def show_chart(chart: "Chart") -> None:
    """Curves in characters on a terminal's stderr, each in its colour if the terminal has any."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stderr, highlight=False)

    def paint(text: str, curve: int | None) -> Text:
        return Text(text, "" if curve is None else _CURVE_COLOURS[curve % len(_CURVE_COLOURS)])

    note(chart.title)
    for label, row in zip(chart.labels, chart.rows, strict=True):
        parts = [
            paint("".join(cell.character for cell in cells), curve)
            for curve, cells in groupby(row, key=lambda cell: cell.curve)
        ]
        console.print(Text.assemble(label, "|", *parts), soft_wrap=True)
    names = [paint(f"{mark} {make_line(name)}", number) for number, (mark, name) in enumerate(chart.names)]
    indent = " " * (len(chart.labels[0]) + 1)
    console.print(Text.assemble(indent, Text("  ").join([Text(chart.footer), *names])), soft_wrap=True)


def note(message: str) -> None:
    """Something worth knowing, on stderr."""
    print(escape(message), file=sys.stderr)


def ask(question: str) -> bool:
    """Whether a question on stderr is answered with yes on stdin; no answer is a no."""
    print(f"{make_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin is not None and sys.stdin.readline().strip().lower() in {"y", "yes"}


def can_ask() -> bool:
    """Whether somebody sits there who sees a question and can answer it."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def ask_text(question: str, default: str = "") -> str:
    """What is typed on stdin at a question on stderr. Raises click.Abort where nobody answers."""
    from click import Abort

    suggestion = f" [{default}]" if default else ""
    while True:
        print(f"{make_line(question)}{suggestion}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            note("")
            raise Abort
        if answer := line.strip() or default:
            return answer


def ask_choice(question: str, options: Mapping[str, str], default: str) -> str:
    """One of the options, each with a remark, by its name or number; asked again until it is one."""
    names, width = list(options), max(map(len, options))
    note(question)
    for number, (name, remark) in enumerate(options.items(), 1):
        note(f"{number:3}. {name.ljust(width)}  {make_line(remark)}")
    while True:
        answer = ask_text("Name or number", default)
        if answer in options:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        note(f"{answer!r} is not one of them; {describe_alternatives(answer, names)}")


def warn(message: str) -> None:
    """Something odd that stops nothing: one line on stderr."""
    note(f"cnnctl: warning: {make_line(message)}")


def warn_if_busy(load_average: object) -> None:
    """Say so if the machine had something else to do while it was measured."""
    if isinstance(load_average, float) and load_average > BUSY:
        warn(
            f"something else was running here (load average {load_average:.1f}): "
            "times may be too long, and speeds too low"
        )


def error(message: str) -> None:
    """Something that stopped the command: one line on stderr."""
    note(f"cnnctl: error: {make_line(message)}")


def internal_error(failure: BaseException, *, traceback: bool) -> None:
    """Something that should not have happened: one line on stderr, behind its traceback if wanted."""
    if traceback:
        note("".join(format_exception(failure)))
    hint = "please report it" if traceback else "please report it, with CNNCTL_DEBUG=1 for the traceback"
    note(make_line(f"cnnctl: internal error: {type(failure).__name__}: {failure}; {hint}"))


class _Progress:
    """A bar on a terminal's stderr, and a clock for plain lines elsewhere. Closed by `with`."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; lines written so far stay."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, **settings: Any) -> None:
        self.close()
        self._next_line = monotonic() + LINE_INTERVAL_S
        if _is_terminal(sys.stderr):
            from tqdm import tqdm

            # Left to itself, tqdm shows nothing on a terminal that does not know its own width.
            columns = get_terminal_size().columns
            self._bar = tqdm(file=sys.stderr, ncols=columns, leave=False, **settings)

    def _write(self, line: str) -> None:
        if self._bar is None:
            note(line)
        else:
            self._bar.write(escape(line), file=sys.stderr)

    def _is_line_due(self) -> bool:
        due = self._bar is None and monotonic() >= self._next_line
        if due:
            self._next_line = monotonic() + LINE_INTERVAL_S
        return due


class DownloadProgress(_Progress):
    """Call it with a file's name, the bytes of it that have arrived, and all its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._file_name = ""

    def __call__(self, file_name: str, done_bytes: int, total_bytes: int) -> None:
        if file_name != self._file_name:
            self._file_name = file_name
            self._open(total=total_bytes, desc=file_name, unit="B", unit_scale=True, unit_divisor=1024)
            if self._bar is None:
                note(f"downloading {file_name} ({format_bytes(total_bytes)})")
        if self._bar is not None:
            self._bar.update(done_bytes - self._bar.n)
        elif self._is_line_due() and total_bytes:
            note(f"downloading {file_name}: {done_bytes / total_bytes:.0%}")
        if done_bytes >= total_bytes:
            self.close()


class CheckProgress(_Progress):
    """Call it with the name of each thing that has been checked."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._open(bar_format="{n} checked: {desc} {elapsed}")

    def __call__(self, name: str) -> None:
        self._count += 1
        if self._bar is not None:
            self._bar.set_description_str(name, refresh=False)
            self._bar.update()
        elif self._is_line_due():
            note(f"{self._count:,} checked: {name}")


class TrainProgress(_Progress, Observer):
    """Shows a run as it goes: its size, a bar or lines while it runs, a line an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._epochs = self._total_steps = 0

    def on_start(self, info: RunInfo) -> None:
        self._epochs, self._total_steps = info.epochs, info.total_steps
        note(
            f"{info.run}: {info.parameter_count:,} parameters, {format_bytes(info.memory_bytes)} of memory, "
            f"{format_count(info.total_steps, 'step')} of {format_count(info.batch_size, 'image')}, "
            f"{info.backend} on {format_count(info.threads, 'thread')}"
        )
        if info.start_step:
            note(f"going on from step {info.start_step:,}")
        self._open(
            total=info.total_steps,
            initial=info.start_step,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}",
        )

    def on_step(self, info: StepInfo) -> None:
        figures = f"{_format_scores(info)}, {info.images_per_second:,.0f} images/s"
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {info.epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.update(info.step - self._bar.n)
        elif self._is_line_due():
            note(f"epoch {info.epoch}/{self._epochs}, step {info.step:,}/{self._total_steps:,}: {figures}")

    def on_epoch(self, info: EpochInfo) -> None:
        train, seconds = _format_scores(info.train), f"{info.seconds:.1f} s"
        validation = f"; validation {_format_scores(info.validation)}" if info.validation else ""
        self._write(f"epoch {info.epoch}/{info.epochs}: {train}{validation}; {seconds}")

    def on_scoring(self, split: str, images: int) -> None:
        self.close()
        note(f"scoring the final weights on {format_count(images, f'{split} image')}")

    def on_warning(self, message: str) -> None:
        self._write(f"cnnctl: warning: {make_line(message)}")

    def on_done(self, summary: Summary) -> None:
        self.close()


def draw_sparkline(values: Sequence[float], width: int = 20) -> str | None:
    """Values as a line of blocks between the least and the greatest of them; None where there are none.

    Of more values than fit, those at even distances are shown, the last one among them.

    >>> draw_sparkline([0.1, 0.5, 0.9, 0.8])
    '▁▅█▇'
    >>> draw_sparkline([0.5, 0.5])
    '▁▁'
    """
    finite = [value for value in values if isfinite(value)]
    count = min(len(finite), width)
    shown = [finite[-1 - (len(finite) - 1) * i // max(count - 1, 1)] for i in reversed(range(count))]
    if not shown:
        return None
    least, span = min(shown), max(shown) - min(shown)
    blocks = _BLOCKS if _can_show(_BLOCKS, sys.stdout) else _PLAIN_BLOCKS
    return "".join(blocks[round(7 * (value - least) / span) if span else 0] for value in shown)


def format_count(count: int, noun: str) -> str:
    """A number of things.

    >>> format_count(1, "epoch"), format_count(1200, "step")
    ('1 epoch', '1,200 steps')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_bytes(count: int) -> str:
    """A size in binary units.

    >>> format_bytes(512), format_bytes(170_052_171)
    ('512 B', '162.2 MiB')
    """
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def _format_scores(scores: Scores | StepInfo) -> str:
    return f"loss {scores.loss:.4f}, accuracy {100 * scores.accuracy:.2f} %"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _can_show(text: str, stream: TextIO | None) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _print_plain_table(title: str, table: Sequence[Sequence[str]]) -> None:
    columns = []
    for head, *cells in table:
        width = max(map(len, (head, *cells)))
        pad = str.rjust if _are_figures(cells) else str.ljust
        columns.append([pad(cell, width) for cell in (head, *cells)])
    if title:
        print(title)
    for row in zip(*columns, strict=True):
        print("  ".join(row).rstrip())


def _print_rich_table(title: str, table: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for head, *cells in table:
        are_figures = _are_figures(cells)
        justify: Literal["left", "right"] = "right" if are_figures else "left"
        shown.add_column(head, justify=justify, overflow="fold", no_wrap=are_figures)
    for row in zip(*(cells for _, *cells in table), strict=True):
        shown.add_row(*row)
    Console(markup=False, highlight=False, emoji=False).print(shown)
