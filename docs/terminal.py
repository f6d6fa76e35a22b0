"""A terminal session as an animated SVG: commands really run, what they print kept with its time, then drawn.

Commands run in a pseudo-terminal and are answered by nobody; a screen as terminals have it (pyte) tells
what stands where at which moment. The drawing is one file without script, font or anything to fetch, and
holds only what changes. Shortens stretches in which nothing happens, and changes nothing else: what is
shown was printed, at that pace.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

PROMPT = "$ "
TYPING_S = 0.03
THINKING_S = 0.3
"""Between the prompt and the first key, and between the last one and Enter."""
READING_S = 1.2
"""After a command has ended."""
IDLE_S = 0.4
"""Silence within a command that lasts longer is cut to this."""
HOLD_S = 4.0
"""The last picture stays that long before all begins again."""
TICK_S = 0.1
"""Pictures follow one another no faster."""
HISTORY = 400
"""Lines there may be in all."""

CELL, LINE, FONT_SIZE, PADDING, BAR = 8.4, 18, 14, 16, 30
BASELINE, DOT = 13.5, 3.4
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
PAPER, FRAME, INK = "#12161b", "#3d4753", "#d8dee6"
COLORS = {
    "default": INK,
    "black": "#5b6570",
    "red": "#ff7b72",
    "green": "#56d364",
    "brown": "#e3b341",
    "blue": "#6cb2ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": "#f0f4f8",
}
"""By pyte's names; it calls yellow brown."""
EIGHTHS = {chr(0x2580 + n): (0.0, 1 - n / 8, 1.0, n / 8) for n in range(1, 9)} | {
    chr(0x2590 - n): (0.0, 0.0, n / 8, 1.0) for n in range(1, 8)
}
LINES = {"▀": (0.0, 0.0, 1.0, 0.5), "▐": (0.5, 0.0, 0.5, 1.0), "─": (0.0, 0.47, 1.0, 0.06)} | {
    "━": (0.0, 0.44, 1.0, 0.12),
    "│": (0.44, 0.0, 0.12, 1.0),
}
SHAPES = EIGHTHS | LINES
"""Characters that must meet their neighbours, whatever the font: left, top, width and height in a cell."""
BRAILLE = 0x2800
BRAILLE_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of each bit."""

Box = tuple[float, float, float, float]


class Event(NamedTuple):
    """What came at a moment, and whether it was typed."""

    seconds: float
    data: bytes
    is_typed: bool = False


class Cell(NamedTuple):
    """A character and its looks; background None is that of the terminal."""

    text: str = " "
    color: str = INK
    background: str | None = None
    is_bold: bool = False


@dataclass(frozen=True)
class Span:
    """Neighbours on a line that look alike, appear together at tick `start`, and go together at `end`."""

    start: int
    end: int
    row: int
    column: int
    text: str
    style: Cell


@dataclass(frozen=True)
class Film:
    """What a screen has shown.

    Attributes:
        ticks: its length.
        spans: everything that stood on it; rows count from the first line ever printed.
        tops: tick -> the first row in sight, where that changes.
        cursors: tick -> column and row, or None where there is no prompt, where that changes.
    """

    columns: int
    rows: int
    ticks: int
    spans: Sequence[Span]
    tops: dict[int, int]
    cursors: dict[int, tuple[int, int] | None]


def record(
    commands: Sequence[tuple[str, Sequence[str]]],
    folder: Path,
    environment: dict[str, str],
    size: tuple[int, int],
) -> list[Event]:
    """Run commands in `folder`, one after the other, in a terminal of `size` columns and rows.

    Each is what seems to be typed, and what is run.
    """
    events, clock = [Event(0.0, PROMPT.encode(), True)], 0.0
    for typed, arguments in commands:
        clock += THINKING_S
        for key in typed:
            clock += TYPING_S
            events.append(Event(clock, key.encode(), True))
        clock += THINKING_S
        events.append(Event(clock, b"\r\n"))
        for event in run(arguments, folder, environment, size):
            clock += min(event.seconds, IDLE_S)
            events.append(event._replace(seconds=clock))
        events.append(Event(clock, PROMPT.encode(), True))
        clock += READING_S
    return events


def run(
    arguments: Sequence[str], folder: Path, environment: dict[str, str], size: tuple[int, int]
) -> Iterator[Event]:
    """What a command prints, with the seconds since it has last printed anything."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    last = monotonic()
    while data := _read(ours):
        now = monotonic()
        yield Event(now - last, data)
        last = now
    os.close(ours)
    process.wait()


def _read(terminal: int) -> bytes:
    """The next output; none at its end, which Linux tells by an error."""
    try:
        return os.read(terminal, 2**16)
    except OSError:
        return b""


def play(events: Iterable[Event], size: tuple[int, int]) -> Film:
    """Show it to a screen and note what changes from tick to tick. Raises ValueError for too many lines."""
    import pyte

    columns, rows = size
    # As high as all that is ever printed: what has scrolled out of sight keeps its row.
    screen = pyte.Screen(columns, HISTORY)
    stream = pyte.ByteStream(screen)
    shown: dict[tuple[int, int], tuple[int, Cell]] = {}
    pieces: list[tuple[int, int, int, int, Cell]] = []
    tops, cursors = {0: 0}, {}
    tick = 0
    for tick, group in groupby(events, key=lambda event: round(event.seconds / TICK_S)):
        screen.dirty.clear()
        for event in group:
            stream.feed(event.data)
        if screen.cursor.y >= HISTORY - 1:
            raise ValueError(f"more than {HISTORY} lines were printed; show less")
        cursors[tick] = (screen.cursor.x, screen.cursor.y) if event.is_typed else None
        if (top := max(0, screen.cursor.y - rows + 1)) > max(tops.values()):
            tops[tick] = top
        for row in screen.dirty:
            for column in range(columns):
                cell = _read_cell(screen.buffer[row][column])
                start, before = shown.get((row, column), (0, Cell()))
                if cell != before:
                    pieces.append((start, tick, row, column, before))
                    shown[row, column] = tick, cell
    ticks = tick + round(HOLD_S / TICK_S)
    pieces += [(start, ticks, row, column, cell) for (row, column), (start, cell) in shown.items()]
    return Film(columns, rows, ticks, list(join_pieces(pieces)), tops, cursors)


def _read_cell(found: Any) -> Cell:
    """A cell from pyte's, all of whose blanks are alike."""
    color = COLORS.get(found.fg, f"#{found.fg}")
    background = None if found.bg == "default" else COLORS.get(found.bg, f"#{found.bg}")
    if found.reverse:
        color, background = background or PAPER, color
    return Cell(found.data, color, background, found.bold) if found.data.strip() or background else Cell()


def join_pieces(pieces: Iterable[tuple[int, int, int, int, Cell]]) -> Iterator[Span]:
    """Start, end, row, column and cell of each piece -> neighbours that are alike but for their text.

    >>> list(join_pieces([(0, 9, 2, 4, Cell("o")), (0, 9, 2, 3, Cell("n"))]))[0].text
    'no'
    """

    def tell_apart(piece: tuple[int, int, int, int, Cell]) -> tuple[object, ...]:
        start, end, row, _, cell = piece
        return start, end, row, cell._replace(text="")

    order = sorted(pieces, key=lambda piece: (*piece[:3], piece[3]))
    numbered = enumerate(piece for piece in order if piece[4] != Cell() and piece[1] > piece[0])
    # A gap breaks the run of column minus position.
    for _, group in groupby(numbered, key=lambda item: (tell_apart(item[1]), item[1][3] - item[0])):
        found = [piece for _, piece in group]
        start, end, row, column, style = found[0]
        yield Span(start, end, row, column, "".join(piece[4].text for piece in found), style)


def render(film: Film, title: str) -> str:
    """The film as SVG. Where readers want no motion, or there is none, it is its last picture."""
    width = film.columns * CELL + 2 * PADDING
    height = film.rows * LINE + 2 * PADDING + BAR
    rules, groups = [], []
    lifetimes = sorted(film.spans, key=lambda span: (span.start, span.end))
    for number, ((start, end), spans) in enumerate(groupby(lifetimes, lambda span: (span.start, span.end))):
        drawn = "".join(draw(list(spans)))
        if (start, end) == (0, film.ticks):
            groups.append(drawn)
            continue
        frames = {0: "visibility:hidden", start: "visibility:visible"}
        if end < film.ticks:
            frames[end] = "visibility:hidden"
        rules.append(_write_keyframes(f"k{number}", frames, film.ticks))
        gone = " gone" if end < film.ticks else ""
        groups.append(f'<g class="t{gone}" style="animation-name:k{number}">{drawn}</g>')
    top, cursor = max(film.tops.values()), list(film.cursors.values())[-1]
    scrolls = {tick: f"transform:translateY({-LINE * row}px)" for tick, row in film.tops.items()}
    rules.append(_write_keyframes("scroll", scrolls, film.ticks))
    blinks = {tick: _place_cursor(place) for tick, place in film.cursors.items()}
    rules.append(_write_keyframes("cursor", blinks, film.ticks))
    dots = "".join(f'<circle cx="{PADDING + 4 + 18 * i}" cy="19" r="5"/>' for i in range(3))
    label = escape(title, {'"': "&quot;"})
    style = (
        f"text{{font:{FONT_SIZE}px {FONTS};fill:{INK}}}\n"
        ".b{font-weight:700}.gone{visibility:hidden}path{shape-rendering:crispEdges}\n"
        f".t{{animation:{film.ticks * TICK_S:g}s step-end infinite}}\n"
        f"#all{{animation-name:scroll;transform:translateY({-LINE * top}px)}}\n"
        f"#cursor{{animation-name:cursor;{_place_cursor(cursor)}}}\n"
        "@media (prefers-reduced-motion:reduce){*{animation:none!important}}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{label}">',
        "<style>",
        style,
        *rules,
        "</style>",
        f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="8" fill="{PAPER}" '
        f'stroke="{FRAME}"/>',
        f'<g fill="{FRAME}">{dots}</g>',
        f'<svg x="{PADDING}" y="{PADDING + BAR - 8}" width="{film.columns * CELL:g}" '
        f'height="{film.rows * LINE}">',
        '<g id="all" class="t">',
        *groups,
        f'<rect id="cursor" class="t" width="{CELL}" height="{LINE - 2}" y="1" fill="{INK}"/>',
        "</g>",
        "</svg>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _write_keyframes(name: str, frames: dict[int, str], ticks: int) -> str:
    steps = "".join(f"{100 * tick / ticks:.4g}%{{{rule}}}" for tick, rule in frames.items())
    return f"@keyframes {name}{{{steps}}}"


def _place_cursor(place: tuple[int, int] | None) -> str:
    if place is None:
        return "visibility:hidden"
    return f"visibility:visible;transform:translate({place[0] * CELL:.4g}px,{place[1] * LINE}px)"


def draw(spans: Sequence[Span]) -> Iterator[str]:
    """Elements of spans: backgrounds, then shapes, a path for each colour, then text."""
    boxes: dict[str, list[Box]] = {}
    texts = []
    for span in spans:
        x, y = span.column, span.row
        if span.style.background:
            boxes.setdefault(span.style.background, []).append((x, y, len(span.text), 1))
        for i, character in enumerate(span.text):
            boxes.setdefault(span.style.color, []).extend(
                (x + i + left, y + top, width, height) for left, top, width, height in find_shapes(character)
            )
        plain = "".join(" " if find_shapes(character) else character for character in span.text)
        # Words keep their columns in any font if each is an element of its own.
        for word in re.finditer(r"\S+", plain):
            texts.append(_write_text(x + word.start(), y, word.group(), span.style))
    for color, found in boxes.items():
        path = "".join(
            f"M{_show(CELL * x)} {_show(LINE * y)}h{_show(CELL * w)}v{_show(LINE * h)}h{_show(-CELL * w)}z"
            for x, y, w, h in merge_boxes(found)
        )
        if path:
            yield f'<path fill="{color}" d="{path}"/>'
    yield from texts


def _write_text(column: int, row: int, text: str, style: Cell) -> str:
    bold = ' class="b"' if style.is_bold else ""
    fill = f' style="fill:{style.color}"' if style.color != INK else ""
    fitted = f' textLength="{_show(CELL * len(text))}"' if len(text) > 1 else ""
    return (
        f'<text x="{_show(CELL * column)}" y="{_show(LINE * row + BASELINE)}"{fitted}{bold}{fill}>'
        f"{escape(text)}</text>"
    )


def find_shapes(character: str) -> list[Box]:
    """The boxes that a character is drawn as, in parts of its cell; none if it is text.

    >>> find_shapes("▌"), find_shapes("A")
    ([(0.0, 0.0, 0.5, 1.0)], [])
    """
    if character in SHAPES:
        return [SHAPES[character]]
    bits = ord(character) - BRAILLE
    if not 0 <= bits < 256:
        return []
    across, down = DOT / CELL, DOT / LINE
    return [
        (0.25 + column / 2 - across / 2, 0.125 + row / 4 - down / 2, across, down)
        for bit, (column, row) in enumerate(BRAILLE_DOTS)
        if bits >> bit & 1
    ]


def merge_boxes(boxes: Iterable[Box]) -> list[Box]:
    """Boxes of which those that touch side by side are one.

    >>> merge_boxes([(0, 0, 1, 1), (1, 0, 0.5, 1), (4, 0, 1, 1)])
    [(0, 0, 1.5, 1), (4, 0, 1, 1)]
    """
    merged: list[Box] = []
    for x, y, width, height in sorted(boxes, key=lambda box: (box[1], box[3], box[0])):
        if merged and merged[-1][1::2] == (y, height) and abs(sum(merged[-1][::2]) - x) < 1e-9:
            merged[-1] = (merged[-1][0], y, merged[-1][2] + width, height)
        else:
            merged.append((x, y, width, height))
    return merged


def _show(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
