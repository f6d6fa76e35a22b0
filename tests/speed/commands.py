"""What `cnnctl bench` measures, run as anybody would run it, and turned into tables.

Measures nothing by itself. Random pixels stand in for the data sets, so that none has to be there.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from tests.speed.networks import NETWORKS, OPERATIONS, Network
from tests.speed.table import ROOT, format_table, name_threads, show

Document = Mapping[str, Any]

NO_PARITY = 3
"""The exit code of a check that did not hold."""


class Disagreement(Exception):
    """Two sides of a comparison do not compute the same, so that there is no speed to show."""


def run_bench(*arguments: object) -> Document:
    """The document of `cnnctl bench ... --json`; its notes and warnings go where ours do.

    Raises Disagreement where a check did not hold, and CalledProcessError where the command failed.
    """
    command = [sys.executable, "-m", "cnnctl", "bench", *map(str, arguments), "--json"]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode == NO_PARITY:
        raise Disagreement(f"cnnctl bench {' '.join(map(str, arguments))}: see above")
    found.check_returncode()
    document: Document = json.loads(found.stdout)
    return document


def tabulate_roofline(seconds: float) -> str:
    """The machine's limits."""
    document = run_bench("roofline", "--seconds", seconds)
    keys = ("fma_gflops", "near_read_gbs", "near_copy_gbs", "far_read_gbs", "far_copy_gbs")
    rows = [
        [row["instruction_set"], str(row["threads"]), *(show(row[key], ".0f") for key in keys[:1])]
        + [show(row[key], ".1f") for key in keys[1:]]
        for row in document["rows"]
    ]
    near, far = (f"{document[key] / 2**20:.0f} MiB" for key in ("near_bytes", "far_bytes"))
    columns = (
        *("instructions", "threads", "GFLOP/s", f"read GB/s, {near} a thread", "copy GB/s, near"),
        *(f"read GB/s, {far}", "copy GB/s, far"),
    )
    return format_table(columns, rows)


def tabulate_operations(seconds: float) -> str:
    """The operations of a whole training step, on one thread."""
    document = run_bench("ops", *_name(OPERATIONS), "--threads", 1, "--seconds", seconds)
    columns = ("operation", "forward ms", "% of peak", "backward ms", "% of peak", "GB/s", "% of step")
    forms = {
        **{"forward_ms": ".2f", "forward_percent": ".0f", "backward_ms": ".2f", "backward_percent": ".0f"},
        **{"gigabytes_per_second": ".1f", "share_percent": ".1f"},
    }
    rows = [[row["name"], *(show(row[key], form) for key, form in forms.items())] for row in document["rows"]]
    return format_table(columns, rows)


def tabulate_courses() -> str:
    """The courses' own comparison: how many times as fast as the loops."""
    with tempfile.TemporaryDirectory() as folder:
        document = run_bench("naive-vs-fast", "--runs-dir", folder)
    cases: dict[tuple[str, str], dict[str, Document]] = {}
    for row in document["rows"]:
        cases.setdefault((row["case"], row["direction"]), {})[row["engine"]] = row
    rivals = [name for name in ("im2col", "fast", "torch") if any(name in case for case in cases.values())]
    columns = ("case", "direction", "naive, seconds", *rivals)
    rows = [
        [case, direction, show(engines["naive"]["seconds"], ".4f")]
        + [f"{engines[name]['speed_up']:,.0f} times" if name in engines else "" for name in rivals]
        for (case, direction), engines in cases.items()
    ]
    return format_table(columns, rows)


def compare_network(network: Network, threads: int, steps: int | None) -> float:
    """How many times longer PyTorch's best takes over a training step. Raises Disagreement."""
    counted = () if steps is None else ("--steps", steps)
    document = run_bench("step", *_name(network), "--threads", threads, "--peer", "torch", *counted)
    ratio: float | None = document["ratio"]
    if ratio is None:
        raise Disagreement(f"{network.title}: the losses differ, so there is no ratio")
    return ratio


def tabulate_networks(ratios: Mapping[tuple[str, int], float], threads: Sequence[int]) -> str:
    """Ratios by title and number of threads: a row a network."""
    rows = [
        [network.title, *(show(ratios.get((network.title, count)), ".1f") for count in threads)]
        for network in NETWORKS
    ]
    return format_table(["network", *map(name_threads, threads)], rows)


def _name(network: Network) -> list[str]:
    overrides = [word for override in network.overrides for word in ("-o", override)]
    return [network.config, *overrides, "--synthetic"]
