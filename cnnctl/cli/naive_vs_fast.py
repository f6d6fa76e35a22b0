"""`cnnctl bench naive-vs-fast`: every engine beside the textbook's loops, held against them, then timed.

Shows what the bench room measured; computes nothing.
"""

import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import PATH, json_option, runs_dir_option
from cnnctl.errors import CheckFailed

if TYPE_CHECKING:
    from cnnctl.bench.naive_vs_fast import Report, Row
    from cnnctl.config.schema import DtypeName

COLUMNS = (
    "engine",
    "seconds",
    "spread",
    "runs",
    "speed-up",
    "GFLOP/s",
    "difference",
    "allowed",
    "relative",
    "parity",
)
SPARE = ("runs", "relative", "spread", "allowed")


@click.command(
    "naive-vs-fast",
    cls=ExampleCommand,
    short_help="Time kernels beside the loops, parity first.",
    examples=(
        "cnnctl bench naive-vs-fast",
        "cnnctl bench naive-vs-fast --shapes my_shapes.yaml --threads 1 --dtype float64",
    ),
)
@click.option(
    "--shapes", type=PATH, metavar="FILE", help="YAML of the cases to time; those of the courses by default."
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option(
    "--threads", type=click.IntRange(1, 256), metavar="N", help="How many threads; all there are by default."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Settles the random numbers.",
)
@runs_dir_option
@click.option("--name", default="naive-vs-fast", show_default=True, help="Part of the run directory's name.")
@json_option
def naive_vs_fast(
    shapes: str | None,
    dtype: "DtypeName",
    threads: int | None,
    seed: int,
    runs_dir: str,
    name: str,
    as_json: bool,
) -> None:
    """Time convolution and pooling by naive loops, im2col, the C kernels and, if installed, PyTorch.

    Parity first: each result is held against that of the loops, and what differs by more than
    rounding can explain gets no time, and exit code 3. Seconds are medians, of all calls of a case;
    the spread is between the quartiles. Arrays lie as each engine keeps them from layer to layer.
    Table, CSV and JSON go into a run directory.

    \b
    A file of shapes:
      cases:
        - {x: [100, 3, 32, 32], layer: {conv: {filters: 32, kernel: 5, padding: 2}}}
        - {name: mine, x: [100, 3, 32, 32], layer: {maxpool: 2}, calls: 10}
    """
    from cnnctl.bench.naive_vs_fast import record_naive_vs_fast
    from cnnctl.bench.shapes import check_name, read_cases
    from cnnctl.config import EngineConfig

    given, cases = read_cases(shapes)
    path, report = record_naive_vs_fast(
        given,
        cases,
        EngineConfig(dtype=dtype, threads=threads or "auto", seed=seed),
        name=check_name(name),
        runs_dir=Path(runs_dir),
        describe=_render_tables,
        note=display.note,
    )
    display.warn_if_busy(report.conditions["load_average"])
    if as_json:
        display.print_json({**report.to_document(), "run": str(path)})
    else:
        _print_tables(report)
        display.print_text(str(path))
    if report.failures:
        raise CheckFailed(_describe_failures(path, report))


def _print_tables(report: "Report") -> None:
    conditions = f"{report.dtype}, {display.format_count(report.threads, 'thread')}"
    for case in report.cases:
        for direction in ("forward", "backward"):
            rows = [row for row in report.rows if (row.case, row.direction) == (case.name, direction)]
            facts = [f"{case.name}, {direction}: {case.describe()}", conditions]
            if rows[0].macs:
                facts.append(f"{display.format_count(rows[0].macs, 'MAC')} a call")
            if case.calls > 1:
                facts.append(f"seconds of {display.format_count(case.calls, 'call')}")
            if (case, direction) != (report.cases[0], "forward"):
                display.print_text("")
            display.print_table("; ".join(facts), COLUMNS, [_show_row(row) for row in rows], spare=SPARE)


def _render_tables(report: "Report") -> str:
    """The tables as text, wherever stdout goes."""
    with redirect_stdout(StringIO()) as text:
        _print_tables(report)
    return text.getvalue()


def _show_row(row: "Row") -> tuple[object, ...]:
    def show(value: float | None, form: str) -> str | None:
        return None if value is None else format(value, form)

    return (
        f"{row.engine} {row.layout}",
        show(row.seconds, ".6f"),
        show(row.spread, ".0%"),
        row.runs or None,
        show(row.speed_up, ",.1f"),
        show(row.gflops, ",.4f" if row.gflops and row.gflops < 1 else ",.1f"),
        show(row.difference, ".1e"),
        show(row.bound, ".1e"),
        show(row.relative_error, ".1e"),
        None if row.parity == "reference" else row.parity,
    )


def _describe_failures(path: Path, report: "Report") -> str:
    """The first failure, how many more there are, and the command that repeats them."""
    row, *others = report.failures
    reason = row.problem
    if row.difference is not None and row.bound is not None:
        reason = f"differs from naive's by {row.difference:.1e}, more than {row.bound:.1e}"
    more = f" (and {display.format_count(len(others), 'more row')})" if others else ""
    options = {"--shapes": path / "shapes.yaml", "--dtype": report.dtype, "--threads": report.threads}
    words = [str(word) for option in (options | {"--seed": report.seed}).items() for word in option]
    command = shlex.join(["cnnctl", "bench", "naive-vs-fast", *words])
    return (
        f"{row.case}, {row.direction}, {row.engine}: {row.output} {reason}{more}; repeat it with: {command}"
    )
