"""A report: all that a run has to show, as one HTML file that can be mailed.

Style and script stand in the page, pictures are data in it, and nothing is fetched from anywhere. What is
shown is handed over; nothing is measured, trained or read here but the page's own style and script.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from math import ceil, floor, isfinite, log10
from pathlib import Path
from typing import Any

from cnnctl.nn import SummaryRow
from cnnctl.train.atomic import write_atomically

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 70, 630, 10, 222
MOST_POINTS = 500
"""Of a line, so that a page stays small: those between are left out."""
FEW_POINTS = 40
"""Of a line: each is marked, so that a single one is seen as well."""
TICKS = 5
PALETTE = 4
"""Colours that report.css has."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        is_raw: whether it stands faintly behind the smoothed one of the same colour.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    is_raw: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over steps or epochs.

    Attributes:
        x_label: what is counted along it.
        is_log: whether its heights are decades.
    """

    title: str
    x_label: str
    lines: tuple[Line, ...]
    is_log: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG, and in words what it shows."""

    png: bytes
    words: str


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers under a caption; numbers stand to the right."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Report:
    """What is to be shown.

    Attributes:
        figures: a few figures for the top, name -> value as text.
        input_shape: of one image.
        classes, confusion: [t][p] counts images of class t taken for class p; None where unknown.
        notes: section's title -> why it has less than it might.
    """

    title: str
    lead: str
    figures: dict[str, str]
    input_shape: tuple[int, ...]
    layers: Sequence[SummaryRow]
    charts: Sequence[Chart]
    classes: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] | None = None
    scores: Table | None = None
    classwise: Table | None = None
    timing: Table | None = None
    filters: Sequence[Picture] = ()
    mistakes: Sequence[Picture] = ()
    config: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
    notes: dict[str, str] = field(default_factory=dict)


def write_report(report: Report, path: Path) -> None:
    """Write the page. Raises RunError when the disk refuses."""
    write_atomically(path, render_report(report).encode())


def render_report(report: Report) -> str:
    """The page: the same for the same report."""
    sections = {
        "Curves": f'<div class="charts">{_join(map(_render_chart, report.charts))}</div>',
        "Network": _render_network(report),
        "Filters": _join(map(_render_picture, report.filters)),
        "Scores": _render_scores(report),
        "Mistakes": _join(map(_render_picture, report.mistakes)),
        "Timing": _render_table(report.timing) if report.timing else "",
        "Configuration": f"<pre tabindex='0'>{escape(report.config)}</pre>",
        "Environment": _render_facts(report.environment),
        "How to repeat it": f"<pre tabindex='0'>{escape(chr(10).join(report.commands))}</pre>",
    }
    sections |= {title: f"<p>{escape(note)}</p>{sections[title]}" for title, note in report.notes.items()}
    names = {title: title.lower().replace(" ", "-") for title in sections}
    links = _join(f'<li><a href="#{names[title]}">{title}</a></li>' for title in sections)
    body = _join(
        f'<section><h2 id="{names[title]}">{title}</h2>{content}</section>'
        for title, content in sections.items()
    )
    tiles = _join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in report.figures.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="cnnctl">
<link rel="icon" href="data:,">
<title>{escape(report.title)}</title>
<style>{_read("report.css")}</style>
</head>
<body>
<a class="skip" href="#curves">Skip to the curves</a>
<header>
<h1>{escape(report.title)}</h1>
<p class="lead">{escape(report.lead)}</p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<dl class="figures">{tiles}</dl>
</header>
<main>{body}</main>
<script>{_read("report.js")}</script>
</body>
</html>
"""


def _read(name: str) -> str:
    return files("cnnctl.plot").joinpath(name).read_text(encoding="utf-8")


def _join(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _render_picture(picture: Picture) -> str:
    words, data = escape(picture.words), b64encode(picture.png).decode()
    return (
        f"<figure><figcaption>{words}</figcaption>"
        f'<div class="wide"><img alt="{words}" src="data:image/png;base64,{data}"></div></figure>'
    )


def _render_facts(facts: dict[str, Any]) -> str:
    rows = [
        (name, " ".join(map(str, value)) if isinstance(value, list) else value)
        for name, value in facts.items()
    ]
    return _render_table(Table("What the run was made with", ("fact", "value"), rows))


def _render_table(table: Table) -> str:
    numeric = [
        all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(table.head))
    ]
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(table.head, kinds, strict=True)
    )
    rows = _join(
        "<tr>"
        + "".join(f"<td{kind}>{_show(cell)}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _show(cell: object) -> str:
    if cell is None:
        return "&#8211;"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else escape(str(cell))


def _render_network(report: Report) -> str:
    """The layers in their order, then a table with a bar for each layer's share of the work."""
    shape = "x".join(map(str, report.input_shape))
    boxes = [f"<li>image<small>{shape}</small></li>"]
    for layer in report.layers:
        learns = ' class="learns"' if layer.parameters else ""
        boxes.append(
            f"<li{learns}>{escape(layer.name)}<small>{'x'.join(map(str, layer.output_shape))}</small></li>"
        )
    work = sum(layer.macs for layer in report.layers)
    parameters = sum(layer.parameters for layer in report.layers)
    caption = f"{parameters:,} parameters, {work:,} multiply-accumulates an image"
    head = ["layer", "kind", "output", "parameters", "multiply-accumulates", "share of them"]
    rows = []
    for layer in report.layers:
        share = f"{100 * layer.macs / work if work else 0:.1f} %"
        cells = [
            f'<th scope="row">{escape(layer.name)}</th>',
            f"<td>{escape(layer.kind)}</td><td>{'x'.join(map(str, layer.output_shape))}</td>",
            f'<td class="number">{layer.parameters:,}</td><td class="number">{layer.macs:,}</td>',
            f'<td class="bar"><span style="width:{share.replace(" ", "")}" title="{share}"></span></td>',
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    kinds = ["", "", "", ' class="number"', ' class="number"', ""]
    heads = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(head, kinds, strict=True))
    return (
        f'<ol class="network" aria-label="Layers in their order">{_join(boxes)}</ol>'
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{_join(rows)}</tbody></table></div>"
    )


def _render_scores(report: Report) -> str:
    parts = [_render_table(report.scores)] if report.scores else []
    if report.classwise:
        parts.append(_render_table(report.classwise))
    if report.confusion is not None:
        parts.append(_render_confusion(report.classes, report.confusion))
    return _join(parts)


def _render_confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Right answers in one colour, mistakes in another, the stronger the larger the share of the row."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    rows = []
    for t, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        images = sum(row) or 1
        cells = "".join(
            f'<td style="--share:{count / images:.3f};--cell:var(--series-{int(p != t)})" '
            f'title="{escape(name)} taken for {escape(taken)}: {count}">{count or ""}</td>'
            for p, (taken, count) in enumerate(zip(classes, row, strict=True))
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        '<div class="wide"><table class="confusion"><caption>Rows: what an image shows. Columns: what it '
        f"was taken for.</caption><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{_join(rows)}</tbody></table></div>"
    )


def _render_chart(chart: Chart) -> str:
    """An SVG with a cursor; the numbers are in the page for report.js."""
    lines = [_thin(line) for line in chart.lines if len(line.x)]
    shown = [line for line in lines if not line.is_raw] or lines
    keys = "".join(
        f'<small><span class="key series-{line.color % PALETTE}"></span>{escape(line.name)}</small>'
        for line in shown
    )
    if not lines:
        return f"<figure><figcaption>{escape(chart.title)}</figcaption><p>No figures yet.</p></figure>"
    xs = [x for line in lines for x in line.x]
    low_x, high_x = min(xs), max(xs)
    low, high, ticks = choose_ticks([y for line in lines for y in line.y], is_log=chart.is_log)

    def place_x(x: float) -> float:
        return LEFT + (x - low_x) / ((high_x - low_x) or 1) * (RIGHT - LEFT)

    def place_y(y: float) -> float:
        height = log10(y) if chart.is_log else y
        return BOTTOM - (height - low) / ((high - low) or 1) * (BOTTOM - TOP)

    marks = [
        f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{place_y(y):.1f}" y2="{place_y(y):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{place_y(y) + 4:.1f}" text-anchor="end">{y:,.6g}</text>'
        for y in ticks
    ]
    for x in (low_x, high_x) if high_x > low_x else (low_x,):
        anchor = "start" if x == low_x else "end"
        marks.append(f'<text x="{place_x(x):.1f}" y="{BOTTOM + 18}" text-anchor="{anchor}">{x:,g}</text>')
    middle, label = (LEFT + RIGHT) / 2, escape(chart.x_label)
    marks.append(f'<text x="{middle}" y="{BOTTOM + 34}" text-anchor="middle">{label}</text>')
    drawn = [
        f'<polyline class="series-{line.color % PALETTE}{" raw" if line.is_raw else ""}" points="'
        + " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        + '"/>'
        for line in lines
    ]
    drawn += [
        f'<circle class="series-{line.color % PALETTE}" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3"/>'
        for line in shown
        if len(line.x) <= FEW_POINTS
        for x, y in zip(line.x, line.y, strict=True)
    ]
    series = [{"name": line.name, "x": list(line.x), "y": list(line.y)} for line in shown]
    data = json.dumps({"label": chart.x_label, "left": LEFT, "right": RIGHT, "series": series})
    last = ", ".join(f"{line.name} ends at {line.y[-1]:.4g}" for line in shown)
    return (
        f'<figure data-chart tabindex="0"><figcaption>{escape(chart.title)} {keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{chart.title}: {last}")}">'
        f"{_join(marks)}{_join(drawn)}"
        f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{BOTTOM}"/></svg>'
        f'<output aria-live="polite"></output>'
        f'<script type="application/json">{data.replace("<", chr(92) + "u003c")}</script></figure>'
    )


def _thin(line: Line) -> Line:
    """Its finite points, or evenly chosen ones of them, the last among them."""
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if isfinite(x) and isfinite(y)]
    stride = ceil(len(points) / MOST_POINTS) or 1
    points = points[:-1:stride] + points[-1:]
    return Line(line.name, [x for x, _ in points], [y for _, y in points], line.color, line.is_raw)


def choose_ticks(values: Sequence[float], *, is_log: bool = False) -> tuple[float, float, list[float]]:
    """Ends of an axis that holds the values, and round numbers on it; ends in decades if it is logarithmic.

    >>> choose_ticks([0.1, 2.3])
    (0.0, 2.5, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    >>> choose_ticks([0.002, 0.05], is_log=True)
    (-3.0, -1.0, [0.001, 0.01, 0.1])
    """
    if is_log:
        exponents = [log10(value) for value in values if value > 0] or [0.0]
        low, high = floor(min(exponents)), ceil(max(exponents))
        high += low == high
        return float(low), float(high), [float(f"1e{power}") for power in range(low, high + 1)]
    least, most = min(values), max(values)
    rough = (most - least or abs(most) or 1.0) / TICKS
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if rough <= unit * factor)
    first, last = floor(least / step), ceil(most / step)
    last += first == last
    return first * step, last * step, [round(i * step, 12) for i in range(first, last + 1)]
