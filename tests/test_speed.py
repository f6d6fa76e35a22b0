"""`make bench` in small: no speed without parity, and tables find their place. Nothing depends on time."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnctl.backends.fast import INSTRUCTION_SETS
from cnnctl.backends.fast.conv import ConvStage
from cnnctl.bench.timing import Quartiles
from cnnctl.config import load_config
from tests.speed import __main__ as speed
from tests.speed import commands, steps, table
from tests.speed.networks import NETWORKS, Network
from tests.speed.steps import Problem, Step, StepRow, Wrong, check_steps, draw_numbers, list_steps
from tests.speed.table import PAGE, README, ROOT, format_table, name_threads, write_block

PROBLEMS = {
    "norm": Problem("small", (3, 16, 8, 8), 16, 3, norm=True),
    "few channels": Problem("small", (2, 3, 6, 16), 16, 7, norm=False),
}
THREADS = 2


@pytest.fixture(params=list(PROBLEMS))
def problem(request) -> Problem:
    return PROBLEMS[request.param]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few calls as there may be."""
    monkeypatch.setattr(steps, "LEAD_IN_S", 0.0)
    monkeypatch.setattr(steps, "FEWEST_TURNS", 1)
    monkeypatch.setattr(steps, "BURSTS", 1)
    monkeypatch.setattr(steps, "find_spec", lambda _: None)


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Copies of the README and the page, in the place of both."""
    copies = tmp_path / "README.md", tmp_path / "engine.md"
    for original, copy, name in zip((README, PAGE), copies, ("README", "PAGE"), strict=True):
        copy.write_text(original.read_text())
        monkeypatch.setattr(speed, name, copy)
    return copies


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["speed", *arguments])
    return speed.main()


# Steps


def test_every_step_is_held_against_the_truth_and_timed(problem: Problem) -> None:
    rows = steps.measure_problem(problem, THREADS, 0.0)
    found = {row.step.name: row for row in rows}
    assert len(found) == len(rows) == 13 + len(INSTRUCTION_SETS) - 2
    assert {row.step.isa for row in rows} == set(INSTRUCTION_SETS)
    assert {row.step.threads for row in rows} == {1, THREADS}
    assert found["seven loops in Python"].error < 1e-14
    for row in rows:
        assert 0 <= row.error < 1e-5, row.step.name
        assert row.gflops > 0
        # Work a time is the same thing as the speed, however small the part that was computed.
        work = 2 * problem.x_shape[0] * problem.filters * problem.macs
        assert row.gflops == pytest.approx(work / row.batch_ms.median / 1e6)


def test_the_steps_are_different_ones(problem: Problem) -> None:
    """Kernels that sum in another order differ in the last bits: none stands for another by mistake."""
    numbers = draw_numbers(problem)
    found = {step.name: step for step in list_steps(problem, numbers, 1)}
    results = []
    for name in (
        "seven loops in C",
        f"direct kernel, {INSTRUCTION_SETS[-1]}",
        next(filter(_is_winograd, found)),
    ):
        found[name].run()
        results.append(found[name].read())
    for i, result in enumerate(results):
        assert not any(np.array_equal(result, other) for other in results[:i])


def _is_winograd(name: str) -> bool:
    return name.startswith("Winograd")


@pytest.mark.parametrize("spoil", [lambda y: y * 1.001, lambda y: y[..., :-1], lambda y: y * np.nan])
def test_no_step_gets_away_with_another_result(problem: Problem, spoil) -> None:
    numbers = draw_numbers(problem)
    for step in list_steps(problem, numbers, 1):

        def read(step=step):
            return spoil(step.read())

        with pytest.raises(Wrong, match=re.escape(step.name)):
            check_steps(problem, numbers, [replace(step, read=read)])


def test_threads_must_not_show_in_a_bit(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ConvStage.forward

    def forward(self: ConvStage, n: int, training: bool) -> None:
        original(self, n, training)
        if self.input.kernels.threads > 1:
            self.buffers.y[0, 0] = np.nextafter(self.buffers.y[0, 0], np.float32(np.inf))

    monkeypatch.setattr(ConvStage, "forward", forward)
    with pytest.raises(Wrong, match="threads: differs from direct kernel"):
        steps.measure_problem(problem, THREADS, 0.0)


def test_a_wrong_step_ends_the_run_without_a_table(pages, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    before = [page.read_text() for page in pages]
    original = ConvStage.forward

    def forward(self: ConvStage, n: int, training: bool) -> None:
        original(self, n, training)
        self.buffers.y[...] *= 1.001

    monkeypatch.setattr(ConvStage, "forward", forward)
    monkeypatch.setattr(speed, "PROBLEMS", [PROBLEMS["norm"]])
    assert run(monkeypatch, "steps", "--seconds", "0") == 3
    assert "direct kernel, " in capsys.readouterr().err
    assert [page.read_text() for page in pages] == before


# Tables


def test_steps_are_written_to_the_page_alone(pages, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    readme, page = (path.read_text() for path in pages)
    monkeypatch.setattr(speed, "PROBLEMS", [PROBLEMS["norm"]._replace(name="steps-3x3")])
    assert run(monkeypatch, "steps", "--seconds", "0") == 0
    assert pages[0].read_text() == readme
    written = pages[1].read_text()
    begin, end = "<!-- steps-3x3 -->\n", "<!-- /steps-3x3 -->\n"
    assert written.partition(begin)[0] == page.partition(begin)[0]
    assert written.partition(end)[2] == page.partition(end)[2]
    block = written.partition(begin)[2].partition(end)[0]
    assert block.startswith("**A quick look of 0 seconds")
    lines = [line for line in block.splitlines() if line.startswith("|")]
    assert lines[0] == f"| {' | '.join(speed.COLUMNS)} |"
    assert "| seven loops in Python | 1/48 |" in block
    assert {line.count("|") for line in lines} == {len(speed.COLUMNS) + 1}
    assert "\n".join(lines) in capsys.readouterr().out


def test_a_block_changes_nothing_around_it(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter\n")
    write_block(path, "a", "new\n")
    write_block(path, "b", format_table(["x"], [["1"]]))
    assert path.read_text() == (
        "before\n<!-- a -->\nnew\n<!-- /a -->\n<!-- b -->\n| x |\n| --- |\n| 1 |\n<!-- /b -->\nafter\n"
    )
    with pytest.raises(ValueError, match=r"page.md: no <!-- c --> ... <!-- /c -->"):
        write_block(path, "c", "")


def test_of_pytorch_the_faster_layout_is_shown() -> None:
    def row(name: str, ms: float, threads: int = 1) -> StepRow:
        step = Step(name, lambda: None, lambda: np.zeros(1), 1, 1, threads=threads)
        return StepRow(step, Quartiles(ms, ms, ms), 1.0, 1.0, 1.0, 0.0)

    ours, slow, fast = row("direct", 9), row("PyTorch, NCHW", 3), row("PyTorch, channels_last", 2)
    both = [row("PyTorch, NCHW, 2 threads", 1, 2), row("PyTorch, channels_last, 2 threads", 4, 2)]
    assert speed.choose_rows([ours, slow, fast, *both]) == [ours, fast, both[0]]


def test_numbers_of_threads_have_names() -> None:
    assert [name_threads(count) for count in (1, 2, 3)] == ["one thread", "two threads", "3 threads"]


def test_every_table_has_its_place() -> None:
    for name in ("roofline", *(p.name for p in steps.PROBLEMS), "operations", "courses", "speed"):
        assert f"<!-- {name} -->\n" in PAGE.read_text()
        assert f"<!-- /{name} -->\n" in PAGE.read_text()
    shared = [
        path.read_text().partition("<!-- speed -->\n")[2].partition("<!--")[0] for path in (README, PAGE)
    ]
    assert shared[0] == shared[1] != ""
    assert [line.split(" | ")[0] for line in shared[0].splitlines()[2:]] == [
        f"| {network.title}" for network in NETWORKS
    ]


def test_the_excerpts_are_where_the_page_looks_for_them() -> None:
    text = PAGE.read_text()
    excerpts = re.findall(r"^```\{literalinclude\} (\S+)\n(.*?)^```$", text, re.M | re.S)
    assert len(excerpts) == text.count("{literalinclude}") > 8
    for path, options in excerpts:
        source = (PAGE.parent / path).read_text()
        for marker in re.findall(r'^:(?:start|end)-(?:at|after|before): "?(.*?)"?$', options, re.M):
            assert marker.strip() in source, f"{path}: {marker}"
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (PAGE.parent / picture).is_file()


# Commands


def test_operations_are_tabulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "OPERATIONS", Network("small", "configs/mnist_simple.yaml"))
    lines = commands.tabulate_operations(0.0).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        *("| prepare", "| conv1+relu1+maxpool1", "| linear1+relu2", "| linear2", "| loss", "| update"),
    ]
    assert {line.count("|") for line in lines} == {8}


def test_the_roofline_is_tabulated(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"instruction_set": "x86-64-v3", "threads": 2, "fma_gflops": 231.4, "near_read_gbs": 99.96}
    row |= {"near_copy_gbs": 1.0, "far_read_gbs": 2.0, "far_copy_gbs": 3.04}
    document = {"near_bytes": 2**20, "far_bytes": 2**29, "rows": [row]}
    monkeypatch.setattr(commands, "run_bench", lambda *_: document)
    head, _, line = commands.tabulate_roofline(1.0).splitlines()
    assert "1 MiB a thread" in head
    assert "512 MiB" in head
    assert line == "| x86-64-v3 | 2 | 231 | 100.0 | 1.0 | 2.0 | 3.0 |"


def test_the_courses_are_tabulated(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"case": "pool", "direction": "forward", "engine": engine, "seconds": s, "speed_up": 0.5 / s}
        for engine, s in (("naive", 0.5), ("im2col", 0.05), ("fast", 0.0001))
    ]
    monkeypatch.setattr(commands, "run_bench", lambda *_: {"rows": rows})
    head, _, line = commands.tabulate_courses().splitlines()
    assert head == "| case | direction | naive, seconds | im2col | fast |"
    assert line == "| pool | forward | 0.5000 | 10 times | 5,000 times |"


def test_networks_are_compared(pages, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run_bench(*arguments: object) -> commands.Document:
        asked.append(arguments)
        return {"ratio": 1.25 + len(asked)}

    monkeypatch.setattr(commands, "run_bench", run_bench)
    monkeypatch.setattr(speed, "find_spec", lambda _: True)
    monkeypatch.setattr(speed, "available_threads", lambda: 2)
    before = [page.read_text() for page in pages]
    assert run(monkeypatch, "networks", "--seconds", "1") == 0
    assert [page.read_text() for page in pages] == before
    assert all("--steps" in arguments for arguments in asked)
    asked.clear()
    assert run(monkeypatch, "networks") == 0
    assert not any("--steps" in arguments for arguments in asked)
    assert [arguments[1] for arguments in asked] == [n.config for n in NETWORKS for _ in range(2)]
    for page in pages:
        assert f"| {NETWORKS[0].title} | 2.2 | 3.2 |\n" in page.read_text()
        assert f"| {NETWORKS[-1].title} | 14.2 | 15.2 |\n<!-- /speed -->\n" in page.read_text()


def test_losses_that_differ_give_no_ratio(pages, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    before = [page.read_text() for page in pages]
    monkeypatch.setattr(commands, "run_bench", lambda *_: {"ratio": None})
    monkeypatch.setattr(speed, "find_spec", lambda _: True)
    assert run(monkeypatch, "networks") == 3
    assert f"{NETWORKS[0].title}: the losses differ" in capsys.readouterr().err
    assert [page.read_text() for page in pages] == before


def test_without_pytorch_its_tables_stay(pages, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    before = [page.read_text() for page in pages]
    monkeypatch.setattr(speed, "find_spec", lambda _: None)
    assert run(monkeypatch, "networks") == 0
    assert "PyTorch is not installed" in capsys.readouterr().err
    assert [page.read_text() for page in pages] == before


@pytest.mark.parametrize(("code", "error"), [(3, commands.Disagreement), (2, subprocess.CalledProcessError)])
def test_a_command_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, code: int, error: type) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **_: subprocess.CompletedProcess(args, code, "{}"))
    with pytest.raises(error):
        commands.run_bench("roofline")


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.title)
def test_the_networks_can_be_loaded(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(network.config, list(network.overrides))
    batch = re.search(r"batch (\d+)", network.title)
    assert batch is not None
    assert config.solver.batch_size == int(batch[1])
    assert config.data.dataset in {"mnist", "fashion-mnist", "cifar10"}


def test_another_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with pytest.raises(SystemExit) as error:
        run(monkeypatch, "everything")
    assert error.value.code == 2
    assert "no part 'everything'; there are roofline, steps" in capsys.readouterr().err


def test_three_digits_are_shown() -> None:
    shown = [speed.show_digits(value) for value in (0.01234, 0.1234, 1.234, 12.34, 123.4, 1234.5)]
    assert shown == ["0.0123", "0.123", "1.23", "12.3", "123", "1,234"]


def test_show_leaves_out_what_is_not_there() -> None:
    assert [table.show(None, ".1f"), table.show(0.25, ".1f")] == ["", "0.2"]
