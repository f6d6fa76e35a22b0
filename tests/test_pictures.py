"""The README's pictures: recordings are drawn as they were, and what is committed is small and bare."""

import re
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from docs import terminal
from docs.terminal import Cell, Event, Film, Span, play, record, render

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
SIZE = (20, 3)
PLAIN = Cell("")
OUTWARD = re.compile(r"<script|<image|<foreignObject|\bhref|\bsrc=|url\(|@import|@font-face|\bon[a-z]+=|://")
MACHINE = re.compile(r"/(tmp|home|root|work|Users|var|usr)\b")


def read_lines(drawing: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def read_last_picture(film: Film) -> dict[int, str]:
    """Row -> its text at the end."""
    rows: dict[int, str] = {}
    for span in sorted(film.spans, key=lambda span: span.column):
        if span.end == film.ticks:
            rows[span.row] = rows.get(span.row, "").ljust(span.column) + span.text
    return rows


def find_outward(drawing: str) -> str | None:
    found = OUTWARD.search(drawing.replace('xmlns="http://www.w3.org/2000/svg"', ""))
    return found and found.group()


class TestRender:
    def test_text_is_escaped_and_timed(self) -> None:
        spans = [
            Span(0, 40, 0, 0, "a < b && c", PLAIN),
            Span(10, 20, 1, 2, "gone", PLAIN._replace(color="#ff0000", is_bold=True)),
        ]
        drawing = render(Film(*SIZE, 40, spans, {0: 0}, {0: None}), 'a "title" & more')
        assert read_lines(drawing) == ["a", "<", "b", "&&", "c", "gone"]
        assert ElementTree.fromstring(drawing).get("aria-label") == 'a "title" & more'
        assert "{0%{visibility:hidden}25%{visibility:visible}50%{visibility:hidden}}" in drawing
        assert 'class="b" style="fill:#ff0000"' in drawing
        assert "animation:4s step-end infinite" in drawing
        assert find_outward(drawing) is None

    def test_without_motion_it_is_the_last_picture(self) -> None:
        spans = [Span(0, 10, 0, 0, "first", PLAIN), Span(10, 40, 0, 0, "last", PLAIN)]
        drawing = render(Film(*SIZE, 40, spans, {0: 0, 10: 5}, {0: (0, 0), 30: (2, 5)}), "")
        groups = {
            group.findtext(f"{SVG}text"): group for group in ElementTree.fromstring(drawing).iter(f"{SVG}g")
        }
        assert groups["first"].get("class") == "t gone"
        assert groups["last"].get("class") == "t"
        assert "(prefers-reduced-motion:reduce){*{animation:none!important}}" in drawing
        assert f"#all{{animation-name:scroll;transform:translateY({-5 * terminal.LINE}px)}}" in drawing

    def test_columns_are_kept_in_any_font(self) -> None:
        drawing = render(Film(*SIZE, 10, [Span(0, 10, 0, 1, "abcd   e", PLAIN)], {0: 0}, {0: None}), "")
        words = [element.attrib for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]
        assert [float(word["x"]) for word in words] == pytest.approx([terminal.CELL, 8 * terminal.CELL])
        assert float(words[0]["textLength"]) == pytest.approx(4 * terminal.CELL)

    def test_blocks_are_one_shape(self) -> None:
        drawing = render(Film(*SIZE, 10, [Span(0, 10, 0, 0, "█▌x", PLAIN)], {0: 0}, {0: None}), "")
        (path,) = ElementTree.fromstring(drawing).iter(f"{SVG}path")
        assert path.get("d") == f"M0 0h{1.5 * terminal.CELL:.1f}v18h-{1.5 * terminal.CELL:.1f}z"
        assert read_lines(drawing) == ["x"]

    def test_braille_has_its_dots(self) -> None:
        assert len(terminal.find_shapes("⣿")) == 8
        ((left, top, *_),) = terminal.find_shapes("⠈")  # dot 4: to the right, on top
        assert left > 0.5
        assert top < 0.25
        assert terminal.find_shapes("\u2800") == []


class TestPlay:
    @pytest.fixture(autouse=True)
    def _needs_pyte(self) -> None:
        pytest.importorskip("pyte", reason="pip install '.[docs]'")

    def test_what_is_written_over_is_gone(self) -> None:
        events = [
            Event(0.0, b"$ ", True),
            Event(0.5, b"go\r\n"),
            Event(1.0, b"10 % <&>"),
            Event(2.0, b"\r\x1b[1;31m99\x1b[0m"),
        ]
        film = play(events, SIZE)
        assert read_last_picture(film) == {0: "$ go", 1: "99 % <&>"}
        old = next(span for span in film.spans if span.text == "10")
        assert (old.start, old.end, old.row, old.column) == (10, 20, 1, 0)
        new = next(span for span in film.spans if span.text == "99")
        assert new.style.is_bold
        assert new.style.color == terminal.COLORS["red"]
        assert film.ticks == 20 + terminal.HOLD_S / terminal.TICK_S
        assert film.cursors == {0: (2, 0), 5: None, 10: None, 20: None}
        assert read_lines(render(film, "")) == ["$", "go", "10", "%", "<&>", "99"]

    def test_it_scrolls(self) -> None:
        film = play([Event(n / 10, b"line %d\r\n" % n) for n in range(5)], SIZE)
        assert film.tops == {0: 0, 2: 1, 3: 2, 4: 3}
        assert read_last_picture(film) == {n: f"line {n}" for n in range(5)}

    def test_too_much_is_refused(self) -> None:
        with pytest.raises(ValueError, match=f"more than {terminal.HISTORY} lines"):
            play([Event(0.0, b"\r\n" * terminal.HISTORY)], SIZE)


class TestRecord:
    def test_a_command_sees_a_terminal(self, tmp_path: Path) -> None:
        script = "import os, sys; print(sys.stdout.isatty(), *os.get_terminal_size(), os.environ['TERM'])"
        arguments = [sys.executable, "-c", script]
        events = record([("look", arguments)], tmp_path, {"TERM": "xterm-256color"}, SIZE)
        assert b"".join(event.data for event in events) == b"$ look\r\nTrue 20 3 xterm-256color\r\n$ "
        assert b"".join(event.data for event in events if event.is_typed) == b"$ look$ "

    def test_silence_is_shortened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal, "IDLE_S", 0.01)
        script = "import time; print(1, flush=True); time.sleep(0.1); print(2)"
        events = record([("wait", [sys.executable, "-c", script])], tmp_path, {}, SIZE)
        printed = [event.seconds for event in events if not event.is_typed]
        assert len(printed) >= 3
        assert all(0 <= after - before <= 0.01 + 1e-9 for before, after in pairwise(printed))


class TestCommitted:
    def test_the_recording_is_small_and_stands_alone(self) -> None:
        drawing = (PICTURES / "train.svg").read_text(encoding="ascii")
        assert len(drawing) < 150_000
        assert find_outward(drawing) is None
        assert MACHINE.search(drawing) is None
        seconds = float(re.findall(r"animation:([\d.]+)s", drawing)[0])
        assert 10 < seconds < 30
        said = " ".join(read_lines(drawing))
        assert "'trian' is not a command; did you mean train?" in said
        assert "epoch 1/" in said

    @pytest.mark.parametrize(
        ("name", "most_bytes", "least_width"),
        [
            ("report-light.png", 250_000, 2000),
            ("report-dark.png", 250_000, 2000),
            ("filters.png", 60_000, 400),
        ],
    )
    def test_a_picture_is_small_and_bare(self, name: str, most_bytes: int, least_width: int) -> None:
        assert (PICTURES / name).stat().st_size < most_bytes
        with Image.open(PICTURES / name) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.width >= least_width
            assert len(picture.convert("L").getcolors()) > 2
            assert picture.info.keys() <= {"transparency"}
