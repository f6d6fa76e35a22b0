"""`cnnctl selftest`: whether what is installed here computes right, in a minute.

Has operations, gradients, training and a report tried by the rooms that know them; computes nothing
and leaves nothing behind.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import json_option
from cnnctl.errors import CheckFailed

SAMPLES = 60
"""Random operations of each of four kinds, for each instruction set and element type."""


class Finding(NamedTuple):
    """One thing that was tried, what came out in words, and whether that is right."""

    name: str
    outcome: str
    ok: bool


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl selftest",
        "cnnctl selftest --seed 7                        # other operations",
    ),
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Settles which operations are drawn.",
)
@json_option
def selftest(seed: int, as_json: bool) -> None:
    """Check this installation: kernels, gradients, a tiny training, a report. Takes about a minute.

    Random operations are held against the textbook's loops for every instruction set that this processor
    has, every layer's gradients against differences, and a training against itself: on one thread and on
    two, gone on with in the middle, and with numpy alone. Needs no data and no compiler. Exit code 3 if
    anything is wrong.
    """
    from tempfile import TemporaryDirectory

    findings: list[Finding] = []
    with display.CheckProgress() as progress, TemporaryDirectory(prefix="cnnctl-selftest-") as folder:
        for finding in _try_all(seed, Path(folder)):
            progress(finding.name)
            findings.append(finding)
    wrong = [finding for finding in findings if not finding.ok]
    if as_json:
        listed = [finding._asdict() for finding in findings]
        display.print_json(
            {"schema": 1, "command": "selftest", "seed": seed, "ok": not wrong, "findings": listed}
        )
    else:
        rows = [(name, outcome, "ok" if ok else "FAIL") for name, outcome, ok in findings]
        display.print_table("", ("what", "came out", "verdict"), rows)
    if wrong:
        raise CheckFailed(f"{wrong[0].name}: {wrong[0].outcome}; {len(wrong)} of {len(findings)} are wrong")


def _try_all(seed: int, folder: Path) -> Iterator[Finding]:
    from cnnctl.train.rehearsal import rehearse

    yield from _try_operations(seed)
    yield _try_gradients()
    for act in rehearse(folder):
        yield Finding(act.name, act.outcome, act.holds)
    yield _try_report(next(folder.glob("*-selftest-*")), folder / "report.html")


def _try_operations(seed: int) -> Iterator[Finding]:
    from cnnctl.backends import create_backend

    backend = create_backend("fast")  # or the line that says how to get it, before anything else is imported
    from cnnctl.backends.fast import INSTRUCTION_SETS
    from cnnctl.check.sample import sample_parity

    for isa in INSTRUCTION_SETS:
        backend = create_backend("fast", threads=2, isa=isa)
        for dtype in ("float32", "float64"):
            samples = list(sample_parity(backend, dtype, SAMPLES, seed))
            wrong = [sample for sample in samples if not sample.parity.holds]
            outcome = f"{len(samples)} operations as the textbook's loops have them"
            if wrong:
                parity = wrong[0].parity
                what = parity.problem or f"off by {parity.difference:.1e}, more than {parity.bound:.1e}"
                outcome = (
                    f"{len(wrong)} of {len(samples)} are wrong: {wrong[0].described}: {parity.output}: {what}"
                )
            yield Finding(f"kernels, {isa}, {dtype}", outcome, not wrong)


def _try_gradients() -> Finding:
    from cnnctl.backends import create_backend
    from cnnctl.check.gradcheck import check_catalogue

    report = check_catalogue([create_backend("fast", threads=2)])
    outcome = f"{len(report.rows)} tensors of all layers, held against differences"
    return Finding("gradients", str(report.worst or outcome), report.ok)


def _try_report(run: Path, page: Path) -> Finding:
    from cnnctl.cli.report import write_run_report

    size = write_run_report(run, None, page).stat().st_size
    return Finding(
        "a report", f"an HTML page of {display.format_bytes(size)}", page.read_bytes()[:9] == b"<!doctype"
    )
