"""Tables between markers: what is measured goes where a page shows it, and nothing else of the page changes.

<!-- name -->
| ... |
<!-- /name -->
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "engine.md"

COUNTS = {1: "one thread", 2: "two threads", 4: "four threads"}


def name_threads(count: int) -> str:
    """As a column is headed."""
    return COUNTS.get(count, f"{count} threads")


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(value: float | None, form: str) -> str:
    """A figure, or nothing where there is none."""
    return "" if value is None else format(value, form)


def write_block(path: Path, name: str, block: str) -> None:
    """Put `block` between the file's markers of that name. Raises ValueError where they are not."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    text = path.read_text()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path.name}: no {begin.strip()} ... {end.strip()} to write between")
    path.write_text(before + begin + block + end + after)
