"""`cnnctl gradcheck`: whether the gradients are right, of everything there is or of one network.

Shows what the check room found; computes nothing.
"""

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cnnctl.cli import display
from cnnctl.cli.groups import ExampleCommand
from cnnctl.cli.options import (
    complete_backend,
    data_dir_option,
    json_option,
    optional_config_argument,
    override_option,
)
from cnnctl.errors import CheckFailed, ConfigError

if TYPE_CHECKING:
    from cnnctl.check.gradcheck import OnRow, Report, Row


@click.command(
    cls=ExampleCommand,
    examples=(
        "cnnctl gradcheck                                # all there is, on every backend",
        "cnnctl gradcheck --layer conv --backend naive",
        "cnnctl gradcheck configs/mnist_simple.yaml",
    ),
)
@optional_config_argument
@override_option
@click.option(
    "--backend",
    metavar="NAME",
    shell_complete=complete_backend,
    help="Which backend; without a config all of them by default.",
)
@click.option(
    "--layer", metavar="NAME", help="Only this layer's tensors; without a config, a kind of layer or a row."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Settles images, labels and elements.",
)
@data_dir_option
@json_option
def gradcheck(
    config: str | None,
    overrides: tuple[str, ...],
    backend: str | None,
    layer: str | None,
    seed: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Hold gradients against central differences, in float64.

    With CONFIG: its network as training runs it, every parameter and the input. Without: every
    layer, loss, regulariser and fused operation. Exit code 3 when a relative error is above 1e-6,
    with the command that repeats it.
    """
    with display.CheckProgress() as progress:

        def on_row(row: "Row") -> None:
            progress(f"{row.backend} {row.name}")

        if config is not None:
            report = _check_config(config, overrides, backend, layer, seed, data_dir, on_row)
        elif overrides:
            raise ConfigError(f"-o {overrides[0]}: there is no config to override; give one")
        else:
            report = _check_catalogue(backend, layer, seed, on_row)
    if as_json:
        display.print_json(_describe(config, report))
    else:
        _print_report(report, grouped=config is None and layer is None)
    if report.worst:
        options = [*(f"-o{text}" for text in overrides), *(["--data-dir", data_dir] if data_dir else [])]
        raise CheckFailed(_describe_failure(report.worst, config, options, seed))


def _check_config(
    config: str,
    overrides: tuple[str, ...],
    backend: str | None,
    layer: str | None,
    seed: int,
    data_dir: str | None,
    on_row: "OnRow",
) -> "Report":
    from cnnctl.check.gradcheck import check_plan
    from cnnctl.check.images import find_image_shape
    from cnnctl.config import load_config
    from cnnctl.train.build import build_backend, build_network, build_penalties

    choice = [] if backend is None else [f"engine.backend={backend}"]
    loaded = load_config(config, [*overrides, "engine.dtype=float64", *choice])
    network = build_network(loaded, find_image_shape(loaded.data, data_dir))
    engine = build_backend(loaded.engine)
    return check_plan(
        network, engine, **build_penalties(loaded.solver), layer=layer, seed=seed, on_row=on_row
    )


def _check_catalogue(backend: str | None, layer: str | None, seed: int, on_row: "OnRow") -> "Report":
    from cnnctl.backends import BACKENDS, create_backend
    from cnnctl.check.gradcheck import check_catalogue

    names = BACKENDS if backend is None else (backend,)
    return check_catalogue([create_backend(name) for name in names], layer=layer, seed=seed, on_row=on_row)


def _describe(config: str | None, report: "Report") -> dict[str, object]:
    from cnnctl.check.gradcheck import BOUND

    return {
        "schema": 1,
        "command": "gradcheck",
        "config": config,
        "seed": report.seed,
        "bound": BOUND,
        "ok": report.ok,
        "rows": [asdict(row) for row in report.rows],
    }


def _describe_failure(row: "Row", config: str | None, options: list[str], seed: int) -> str:
    from cnnctl.check.gradcheck import BOUND

    again = ["cnnctl", "gradcheck", *([config] if config else []), *options]
    again += ["--backend", row.backend, "--layer", row.layer, "--seed", str(seed)]
    return (
        f"{row.backend} {row.name} at {_show_place(row.at)}: back-propagation gives {row.analytic!r}, "
        f"differences {row.numeric!r}: relative error {row.error:.1e}, above {BOUND:.0e}; "
        f"to repeat it: {shlex.join(again)}"
    )


def _print_report(report: "Report", *, grouped: bool) -> None:
    if grouped:
        columns = (
            "backend",
            "kind",
            "tensors",
            "checked",
            "kinks",
            "below noise",
            "largest error",
            "at",
            "verdict",
        )
        groups = [
            (
                group.backend,
                group.kind,
                group.tensors,
                f"{group.checked:,}",
                group.kinks,
                group.below_noise,
                _show_error(group.worst.error),
                f"{group.worst.name} {_show_place(group.worst.at)}",
                group.verdict,
            )
            for group in report.groups
        ]
        display.print_table("", columns, groups)
    shown = report.failing if grouped else report.rows
    if shown:
        columns = (
            "backend",
            "name",
            "shape",
            "checked",
            "kinks",
            "below noise",
            "largest error",
            "at",
            "verdict",
        )
        spare = ("below noise", "kinks", "backend", "at", "shape")
        display.print_table("", columns, [_show_row(row) for row in shown], spare=spare)
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in report.verdicts.items())
    display.print_text(f"{display.format_count(len(report.rows), 'tensor')}: {counts}")


def _show_row(row: "Row") -> tuple[object, ...]:
    return (
        row.backend,
        row.name,
        "x".join(map(str, row.shape)),
        row.described_trials,
        row.kinks,
        row.below_noise,
        _show_error(row.error),
        _show_place(row.at),
        row.verdict,
    )


def _show_error(error: float | None) -> str | None:
    return None if error is None else f"{error:.1e}"


def _show_place(at: tuple[int, ...] | str | None) -> str | None:
    return ", ".join(map(str, at)) if isinstance(at, tuple) else at
