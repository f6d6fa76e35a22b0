"""The zoo's table: rows of figures, in the README and in the configs' first lines."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.zoo.entries import CONFIGS, ENTRIES, Entry

README = CONFIGS.parent / "README.md"
BEGIN, END = "<!-- zoo -->\n", "<!-- /zoo -->\n"
HEAD = """\
| config | network | epochs | training | validation | test | seconds | elsewhere |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
REACHED = re.compile(r"^# Reaches (\d+\.\d\d) % on the test images\.\n", re.M)


@dataclass(frozen=True)
class Figures:
    """What a training came to, in percent; means over the seeds.

    Attributes:
        validation: None without a validation split.
    """

    train: float
    validation: float | None
    test: float
    seconds: float
    epochs: int


def format_row(entry: Entry, figures: Figures, elsewhere: str) -> str:
    """A line of the table."""
    validation = "" if figures.validation is None else f"{figures.validation:.2f}"
    network = entry.network if entry.seeds == 1 else f"{entry.network}, mean of {entry.seeds} seeds"
    columns = [
        *(f"`{entry.config}`", network, str(figures.epochs), f"{figures.train:.2f}", validation),
        *(f"{figures.test:.2f}", f"{figures.seconds:.0f}", elsewhere),
    ]
    return f"| {' | '.join(columns)} |\n"


def read_rows(text: str) -> dict[str, str]:
    """The table's lines by their configs."""
    lines = text.partition(BEGIN)[2].partition(END)[0].splitlines(keepends=True)[2:]
    return {line.split("`")[1]: line for line in lines}


def read_columns(row: str) -> list[str]:
    """What stands between the bars."""
    return [column.strip() for column in row.strip().strip("|").split("|")]


def write_rows(text: str, rows: Mapping[str, str]) -> str:
    """The README with these rows in the place of those it had; others stay."""
    rows = {**read_rows(text), **rows}
    before, _, rest = text.partition(BEGIN)
    table = HEAD + "".join(rows[entry.config] for entry in ENTRIES if entry.config in rows)
    return before + BEGIN + table + END + rest.partition(END)[2]


def read_reached(config: str) -> float | None:
    """The test accuracy that the config's first lines promise."""
    found = REACHED.search((CONFIGS / f"{config}.yaml").read_text())
    return float(found[1]) if found else None


def write_reached(path: Path, accuracy: float) -> None:
    """Put the figure below the lines that say what the config is."""
    lines = REACHED.sub("", path.read_text()).splitlines(keepends=True)
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    lines.insert(end, f"# Reaches {accuracy:.2f} % on the test images.\n")
    path.write_text("".join(lines))


def average(parts: Iterable[Figures]) -> Figures:
    """Of several seeds; seconds are those of one run."""
    found = list(parts)

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(found)

    validation = [figures.validation for figures in found if figures.validation is not None]
    return Figures(
        mean(figures.train for figures in found),
        mean(validation) if validation else None,
        mean(figures.test for figures in found),
        mean(figures.seconds for figures in found),
        found[0].epochs,
    )
