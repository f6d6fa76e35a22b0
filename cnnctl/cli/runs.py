"""`cnnctl runs`: the runs there are, one of them, two or more side by side, and what becomes of them.

Shows what the training room has read; reads no file itself, and removes nothing without asking.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnctl.cli import display
from cnnctl.cli.groups import HintingGroup
from cnnctl.cli.options import complete_run, json_option, run_argument, runs_dir_option
from cnnctl.errors import Interrupted

if TYPE_CHECKING:
    from cnnctl.train.observer import Scores
    from cnnctl.train.runs import RunSummary


@click.group(cls=HintingGroup)
def runs() -> None:
    """List, show, compare, remove and follow runs.

    RUN is a run's path, its name, or the start of it, or 'latest'.
    """


@runs.command(
    "list",
    examples=(
        "cnnctl runs list",
        "cnnctl runs list --runs-dir experiments --json",
    ),
)
@runs_dir_option
@json_option
def list_(runs_dir: str, as_json: bool) -> None:
    """List all runs, the newest first.

    Accuracies are the best and the last on the validation images and the final weights' on the
    test images; the line draws those of all epochs, on the training images where none are held
    out. A run is killed if it says that it is running and nobody trains there.
    """
    from cnnctl.train.runs import list_runs

    found, problems = list_runs(Path(runs_dir))
    for problem in problems:
        display.warn(problem)
    if as_json:
        document = {"schema": 1, "command": "runs list", "runs_dir": runs_dir}
        display.print_json({**document, "runs": [_describe(run) for run in found], "problems": problems})
        return
    if not found:
        display.note(f"no runs in {runs_dir}")
        return
    rows = [
        (
            run.path.name,
            run.state,
            f"{run.epochs:,}",
            f"{run.steps:,}",
            _show_share(run.best_validation),
            _show_share(run.last_validation),
            _show_share(run.test.accuracy if run.test else None),
            None if run.seconds is None else f"{run.seconds:,.1f}",
            display.draw_sparkline(run.history),
        )
        for run in found
    ]
    columns = ("run", "state", "epochs", "steps", "best", "last", "test", "seconds", "accuracy")
    display.print_table("", columns, rows, spare=("last", "seconds", "steps", "accuracy", "epochs"))


@runs.command(
    examples=("cnnctl runs show latest",),
)
@run_argument
@runs_dir_option
@json_option
def show(run: str, runs_dir: str, as_json: bool) -> None:
    """Show RUN: its scores, what it was made with, its files."""
    from cnnctl.train.run_directory import find_run
    from cnnctl.train.runs import hash_config, list_files, read_environment, summarize_run

    path = find_run(run, Path(runs_dir))
    summary, environment, files = summarize_run(path), read_environment(path), list_files(path)
    config_hash = hash_config(path) if "resolved.yaml" in files else None
    if as_json:
        document = {"schema": 1, "command": "runs show", **_describe(summary)}
        facts = {"config_sha256": config_hash, "environment": environment, "files": files}
        display.print_json({**document, **facts})
        return
    facts = {
        "state": summary.state,
        "started": summary.started,
        "updated": summary.updated,
        "steps": f"{summary.steps:,}",
        "epochs": f"{summary.epochs:,}",
        "seconds": None if summary.seconds is None else f"{summary.seconds:,.1f}",
        "accuracies": display.draw_sparkline(summary.history),
        "config": config_hash and f"SHA-256 {config_hash}",
        **{key: _show_fact(value) for key, value in environment.items()},
    }
    display.print_table("", ("run", str(path)), list(facts.items()))
    scores = {name: getattr(summary, name) for name in ("train", "validation", "test")}
    rows = [
        (name, f"{s.loss:.4f}", _show_share(s.accuracy), f"{s.images:,}") for name, s in scores.items() if s
    ]
    if rows:
        display.print_text("")
        display.print_table("", ("split", "loss", "accuracy", "images"), rows)
    display.print_text("")
    display.print_table("", ("file", "size"), [(file, display.format_bytes(n)) for file, n in files.items()])


@runs.command(
    short_help="Show where runs differ.",
    examples=("cnnctl runs compare latest 20260131-1200",),
)
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN...", shell_complete=complete_run)
@runs_dir_option
@json_option
def compare(names: tuple[str, ...], runs_dir: str, as_json: bool) -> None:
    """Show where two or more runs differ: their configs, then their figures."""
    from cnnctl.config.strict_yaml import show_value
    from cnnctl.train.run_directory import find_run
    from cnnctl.train.runs import find_differences, summarize_run

    if len(names) < 2:
        raise click.UsageError("RUN: give two runs or more to compare")
    found = [summarize_run(find_run(name, Path(runs_dir))) for name in names]
    differences = find_differences([run.path for run in found])
    if as_json:
        config = {difference.key: difference.values for difference in differences}
        document = {"schema": 1, "command": "runs compare", "runs": [_describe(run) for run in found]}
        display.print_json({**document, "config": config})
        return
    titles = [run.path.name for run in found]
    rows: list[tuple[object, ...]] = [
        (difference.key, *(None if value is None else show_value(value) for value in difference.values))
        for difference in differences
    ]
    if rows:
        display.print_table("", ("config", *titles), rows)
    else:
        display.print_text("the configs are the same")
    figures: dict[str, list[str | None]] = {
        "state": [run.state for run in found],
        "epochs": [f"{run.epochs:,}" for run in found],
        "steps": [f"{run.steps:,}" for run in found],
        "seconds": [None if run.seconds is None else f"{run.seconds:,.1f}" for run in found],
        "best validation accuracy": [_show_share(run.best_validation) for run in found],
        "last validation accuracy": [_show_share(run.last_validation) for run in found],
    }
    for split in ("train", "validation", "test"):
        scores: list[Scores | None] = [getattr(run, split) for run in found]
        figures[f"{split} loss"] = [f"{s.loss:.4f}" if s else None for s in scores]
        figures[f"{split} accuracy"] = [_show_share(s.accuracy) if s else None for s in scores]
    figures["accuracies"] = [display.draw_sparkline(run.history) for run in found]
    display.print_text("")
    shown = [(name, *values) for name, values in figures.items() if any(values)]
    display.print_table("", ("figure", *titles), shown)


@runs.command(
    examples=(
        "cnnctl runs rm quickstart",
        "cnnctl runs rm RUN OTHER-RUN --yes",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_run)
@click.option("--yes", is_flag=True, help="Do not ask.")
@runs_dir_option
@json_option
@click.pass_context
def rm(ctx: click.Context, names: tuple[str, ...], yes: bool, runs_dir: str, as_json: bool) -> None:
    """Remove each RUN for good, after asking. Exit code 1 if the answer is no."""
    from cnnctl.train.run_directory import find_run
    from cnnctl.train.runs import check_removable, remove_run

    folder = Path(runs_dir)
    paths = list(dict.fromkeys(find_run(name, folder) for name in names))
    for path in paths:
        check_removable(path, folder)
    if not yes and not display.ask(f"remove {', '.join(map(str, paths))}?"):
        display.note("nothing is removed")
        ctx.exit(1)
    for path in paths:
        remove_run(path, folder)
        if not as_json:
            display.print_text(f"removed {path}")
    if as_json:
        display.print_json({"schema": 1, "command": "runs rm", "removed": list(map(str, paths))})


@runs.command(
    short_help="Follow a run that trains.",
    examples=(
        "cnnctl runs tail                                # the latest",
        "cnnctl runs tail mnist-simple -n 100 --json",
    ),
)
@click.argument("run", default="latest", shell_complete=complete_run)
@click.option(
    "-n", "count", type=click.IntRange(min=0), default=10, show_default=True, help="Entries to begin with."
)
@click.option("--json", "as_json", is_flag=True, help="Print each entry as a line of JSON.")
@runs_dir_option
def tail(run: str, count: int, as_json: bool, runs_dir: str) -> None:
    """Follow the metrics of RUN (by default the latest), until it ends or Ctrl-C."""
    from cnnctl.train.run_directory import find_run
    from cnnctl.train.runs import follow_metrics, summarize_run
    from cnnctl.train.signals import handling_signals

    path = find_run(run, Path(runs_dir))

    def leave(signal_number: int) -> None:
        raise Interrupted(f"{path}: no longer followed; it goes on", signal_number)

    with handling_signals(leave):
        for entry in follow_metrics(path, count):
            if as_json:
                display.print_json_line(entry)
            else:
                display.print_text(_show_entry(entry))
    summary = summarize_run(path)
    display.note(f"{path}: {summary.state} after step {summary.steps:,}")


def _describe(run: "RunSummary") -> dict[str, Any]:
    return {
        "run": str(run.path),
        **{key: value for key, value in asdict(run).items() if key != "path"},
        "best_validation_accuracy": run.best_validation,
        "last_validation_accuracy": run.last_validation,
    }


def _show_share(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"


def _show_fact(value: Any) -> str | None:
    return " ".join(map(str, value)) if isinstance(value, list) else None if value is None else str(value)


def _show_entry(entry: dict[str, Any]) -> str:
    """A line of metrics.jsonl in words."""
    parts = [f"epoch {entry.get('epoch')}, step {entry.get('step')}:"]
    is_step = entry.get("type") == "step"
    splits = {"": entry if is_step else None, "train ": entry.get("train")}
    for name, scores in {**splits, "validation ": entry.get("validation")}.items():
        if scores:
            parts.append(f"{name}loss {scores['loss']:.4f}, accuracy {_show_share(scores['accuracy'])};")
    return " ".join(parts).rstrip(";")
