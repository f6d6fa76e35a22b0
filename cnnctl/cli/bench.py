"""`cnnctl bench`: how fast this machine, a network's operations and its whole steps are.

Shows what the bench room measured; computes nothing.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cnnctl.cli import display
from cnnctl.cli.groups import HintingGroup
from cnnctl.cli.naive_vs_fast import naive_vs_fast
from cnnctl.cli.options import (
    config_argument,
    data_dir_option,
    json_option,
    optional_config_argument,
    override_option,
)
from cnnctl.errors import CheckFailed, ConfigError

if TYPE_CHECKING:
    from cnnctl.bench.ops import OpsReport
    from cnnctl.bench.roofline import Roofline
    from cnnctl.bench.step import LossCheck, StepReport
    from cnnctl.config import RunConfig

synthetic_option = click.option("--synthetic", is_flag=True, help="Random pixels in place of the data set.")
threads_option = click.option(
    "--threads", type=click.IntRange(1, 256), metavar="N", help="How many threads, as -o engine.threads=N."
)
batch_option = click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Images a step, as -o solver.batch_size=N."
)
seconds_option = click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=5.0,
    show_default=True,
    help="For how long, roughly.",
)
isa_option = click.option("--isa", metavar="NAME", help="Instruction set, as -o engine.isa=NAME.")
exact_option = click.option("--exact", is_flag=True, help="No Winograd convolution, as -o engine.exact=true.")


@click.group(cls=HintingGroup)
def bench() -> None:
    """Measure the machine, operations and whole steps."""


bench.add_command(naive_vs_fast)


@bench.command(
    short_help="Measure multiply-adds and memory bandwidth.",
    examples=(
        "cnnctl bench roofline",
        "cnnctl bench roofline --dtype float64 --seconds 20",
    ),
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@seconds_option
@json_option
def roofline(dtype: str, seconds: float, as_json: bool) -> None:
    """Measure what the processor can do at best: multiply-adds, and memory bandwidth.

    For every instruction set it has, on one thread and on all: GFLOP/s with two operations a
    multiply-add, and GB/s in buffers that a second-level cache holds (near) or no cache (far).
    """
    from cnnctl.bench.roofline import measure_roofline

    result = measure_roofline(dtype, seconds=seconds)
    display.warn_if_busy(result.conditions["load_average"])
    if as_json:
        display.print_json({"schema": 1, "command": "bench roofline", **asdict(result)})
    else:
        _print_roofline(result)


@bench.command(
    short_help="Time each operation of a network's step.",
    examples=(
        "cnnctl bench ops configs/cifar10_vgg.yaml",
        "cnnctl bench ops configs/cifar10_vgg.yaml --synthetic --threads 1 --isa x86-64-v3",
    ),
)
@optional_config_argument
@override_option
@threads_option
@batch_option
@seconds_option
@synthetic_option
@isa_option
@exact_option
@data_dir_option
@json_option
def ops(
    config: str | None,
    overrides: tuple[str, ...],
    threads: int | None,
    batch: int | None,
    seconds: float,
    synthetic: bool,
    isa: str | None,
    exact: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Time each operation of CONFIG's training step, or single convolutions and linear layers.

    GFLOP/s count two operations a multiply-add of the textbook's sums; percentages are of the
    peak measured in the same run.
    """
    from cnnctl.bench.ops import measure_cases, measure_network
    from cnnctl.config import EngineConfig

    if config is not None:
        loaded = _load(config, overrides, threads, batch, isa, exact)
        report = measure_network(loaded, synthetic=synthetic, data_dir=data_dir, seconds=seconds)
    elif overrides:
        raise ConfigError(f"-o {overrides[0]}: there is no config to override; give one")
    else:
        engine = EngineConfig(threads=threads or "auto", isa=isa or None, exact=exact)
        report = measure_cases(engine, batch_size=batch, seconds=seconds)
    display.warn_if_busy(report.conditions["load_average"])
    if as_json:
        display.print_json({"schema": 1, "command": "bench ops", "config": config, **asdict(report)})
    else:
        _print_ops(report)


@bench.command(
    short_help="Time whole steps, also beside PyTorch.",
    examples=(
        "cnnctl bench step configs/mnist_simple.yaml --synthetic",
        "cnnctl bench step configs/cifar10_vgg.yaml --peer torch --threads 2",
    ),
)
@config_argument
@override_option
@threads_option
@batch_option
@click.option("--peer", type=click.Choice(["torch"]), help="Compare with the same network in PyTorch.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    help="Time this engine too. Can be given many times.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Steps to time; 20 s of them by default."
)
@click.option("--evaluate", is_flag=True, help="Forward passes alone, without gradients.")
@synthetic_option
@isa_option
@exact_option
@data_dir_option
@json_option
def step(
    config: str,
    overrides: tuple[str, ...],
    threads: int | None,
    batch: int | None,
    peer: str | None,
    backends: tuple[str, ...],
    steps: int | None,
    evaluate: bool,
    synthetic: bool,
    isa: str | None,
    exact: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Time whole steps of CONFIG's network: gather, normalise, forward, backward, update.

    With --peer torch the same network runs beside it in PyTorch, in NCHW and channels_last, eager
    and compiled, from the same weights on the same batches, all without augmentation. Exit code 3
    when the losses do not agree: then there is no ratio.
    """
    from cnnctl.bench.engine import Engine
    from cnnctl.bench.step import Task, measure_steps

    loaded = _load(config, overrides, threads, batch, isa, exact)
    report = measure_steps(
        Task(loaded, evaluate=evaluate, synthetic=synthetic, data_dir=data_dir),
        [Engine(name) for name in dict.fromkeys((loaded.engine.backend, *backends))],
        peer=peer is not None,
        steps=steps,
        note=display.note,
    )
    display.warn_if_busy(report.conditions["load_average"])
    for failure in report.failures:
        display.warn(f"{failure.engine} {failure.layout} does not run here: {failure.reason}")
    if as_json:
        display.print_json(_describe_steps(config, evaluate, report))
    else:
        _print_steps(report)
    if report.losses and not report.losses.agrees:
        raise CheckFailed(f"losses: {_describe_losses(report.losses)}: no ratio is given")


def _describe_losses(losses: "LossCheck") -> str:
    own = "" if losses.peer_difference is None else f" (itself, another way: {losses.peer_difference:.1e})"
    return (
        f"they differ from PyTorch's by up to {losses.difference:.1e}{own}, "
        f"and in float64 by {losses.double_difference:.1e}"
    )


def _load(
    config: str,
    overrides: tuple[str, ...],
    threads: int | None,
    batch: int | None,
    isa: str | None,
    exact: bool,
) -> "RunConfig":
    from cnnctl.config import load_config

    flags = {
        "engine.threads": threads,
        "solver.batch_size": batch,
        "engine.isa": isa,
        "engine.exact": "true" if exact else None,
    }
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return load_config(config, [*overrides, *given])


def _describe_steps(config: str, evaluate: bool, report: "StepReport") -> dict[str, Any]:
    facts = asdict(report)
    rows = [*facts.pop("ours"), *facts.pop("theirs")]
    losses = report.losses
    return {
        "schema": 1,
        "command": "bench step",
        "config": config,
        "mode": "evaluate" if evaluate else "train",
        "ratio": report.ratio,
        "loss_difference": losses and losses.difference,
        **facts,
        "losses": losses and {**asdict(losses), "bound": losses.bound, "agrees": losses.agrees},
        "rows": rows,
    }


def _print_steps(report: "StepReport") -> None:
    rows = [
        (
            row.engine,
            row.layout,
            row.threads,
            f"{row.step_ms.q1:.2f}",
            f"{row.step_ms.median:.2f}",
            f"{row.step_ms.q3:.2f}",
            f"{row.images_per_second:,.0f}",
            row.peak_memory_mb and f"{row.peak_memory_mb:,.0f}",
            row.steps,
        )
        for row in (*report.ours, *report.theirs)
    ]
    columns = ("engine", "layout", "threads", "q1 ms", "median ms", "q3 ms", "images/s", "peak MB", "steps")
    display.print_table("", columns, rows, spare=("steps", "q1 ms", "q3 ms", "peak MB"))
    if report.losses and report.ratio is not None:
        display.print_text(f"{report.ratio:.2f} times as fast as PyTorch's best")
        display.print_text(f"losses: {_describe_losses(report.losses)}")


def _print_roofline(result: "Roofline") -> None:
    rows = [
        (
            row.instruction_set,
            row.threads,
            f"{row.fma_gflops:.0f}",
            f"{row.near_read_gbs:.1f}",
            f"{row.near_copy_gbs:.1f}",
            f"{row.far_read_gbs:.1f}",
            f"{row.far_copy_gbs:.1f}",
        )
        for row in result.rows
    ]
    columns = (
        "instruction set",
        "threads",
        "GFLOP/s",
        "near read GB/s",
        "near copy GB/s",
        "far read GB/s",
        "far copy GB/s",
    )
    near, far = display.format_bytes(result.near_bytes), display.format_bytes(result.far_bytes)
    display.print_table(f"{result.conditions['dtype']}; near: {near} a thread; far: {far}", columns, rows)


def _print_ops(report: "OpsReport") -> None:
    def show(value: float | None, digits: int) -> str | None:
        return None if value is None else f"{value:.{digits}f}"

    rows = [
        (
            row.name,
            row.batch_size,
            show(row.forward_ms, 3),
            show(row.forward_gflops, 0),
            show(row.forward_percent, 0),
            show(row.backward_ms, 3),
            show(row.backward_gflops, 0),
            show(row.backward_percent, 0),
            show(row.gigabytes_per_second, 1),
            show(row.share_percent, 1),
            show(row.memory_mb, 2),
        )
        for row in report.rows
    ]
    columns = (
        "operation",
        "images",
        "forward ms",
        "GFLOP/s",
        "% of peak",
        "backward ms",
        "GFLOP/s",
        "% of peak",
        "GB/s",
        "% of step",
        "MB",
    )
    threads, peak = display.format_count(report.threads, "thread"), f"{report.fma_peak_gflops:.0f} GFLOP/s"
    conditions = report.conditions
    engine = f"{conditions['backend']}, {conditions['instruction_set']}, {conditions['dtype']}"
    title = f"{engine}, {threads}; peak {peak}"
    display.print_table(title, columns, rows, spare=("MB", "images", "GB/s", "GFLOP/s"))
    shares = [share for row in report.rows for share in (row.forward_percent, row.backward_percent) if share]
    if max(shares, default=0) > 100:
        display.print_text("above 100 %: Winograd's algorithm multiplies less than the sum that is counted")
    if report.step_ms is not None:
        display.print_text(f"a whole step: {report.step_ms:.3f} ms")
