"""Whole steps: who is compared with whom, which losses agree, and what a report says."""

import sys
from dataclasses import dataclass
from math import nan
from types import ModuleType

import pytest

from cnnctl.backends.fast import FastBackend
from cnnctl.bench import step as step_module
from cnnctl.bench.engine import Engine
from cnnctl.bench.step import (
    LossCheck,
    StepReport,
    StepRow,
    Task,
    check_losses,
    find_wrong,
    measure_steps,
    read_losses,
    run_briefly,
)
from cnnctl.bench.timing import Quartiles
from cnnctl.errors import ConfigError


@dataclass(frozen=True)
class Peer:
    """A contender of a made-up peer, whose losses are ours times `factor`."""

    layout: str
    compiled: bool = False
    factor: float = 1.0
    breaks: bool = False
    name: str = "torch"
    source: str = "pixels"

    @property
    def frugal(self):
        return self

    def create_side(self, workload, *, evaluate, dropout=True):
        side = Engine("im2col").create_side(workload, evaluate=evaluate, dropout=dropout)
        return PeerSide(self, side)


class PeerSide:
    def __init__(self, peer, side):
        self._peer, self._side = peer, side

    def step(self, number):
        if self._peer.breaks:
            raise RuntimeError("no compiler\nand more to be read")

    def read_loss(self, number):
        return self._peer.factor * self._side.read_loss(number)


@pytest.fixture
def with_peers(monkeypatch):
    """Puts candidates in place of PyTorch's, and a constant in place of peak memory."""

    def put(*candidates):
        module = ModuleType("cnnctl.bench.torch_peer")
        vars(module)["list_candidates"] = lambda workload: list(candidates)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(step_module, "find_spec", lambda name: object())

    monkeypatch.setattr(step_module, "measure_peak_memory", lambda *_: 5_000_000)
    return put


@pytest.fixture
def task(make_config):
    return Task(make_config())


def test_engines_alone_have_rows_and_no_ratio(task, with_peers):
    report = measure_steps(task, [Engine("fast"), Engine("im2col")], steps=3)
    assert [(row.engine, row.layout) for row in report.ours] == [
        ("cnnctl fast", "NHWC"),
        ("cnnctl im2col", "NCHW"),
    ]
    assert (report.theirs, report.ratio, report.losses) == ((), None, None)
    assert (report.threads, report.batch_size) == (1, 16)
    for row in report.ours:
        assert (row.threads, row.steps, row.peak_memory_mb) == (1, 4, 5.0)  # two steps a turn
        assert row.images_per_second == pytest.approx(16e3 / row.step_ms.median)


def test_the_peer_s_best_is_compared_and_the_others_are_listed(task, with_peers):
    with_peers(Peer("NCHW"), Peer("channels_last"))
    report = measure_steps(task, [Engine("fast")], peer=True, steps=1)
    assert {row.layout for row in report.theirs} == {"NCHW", "channels_last"}
    assert report.losses.difference < 1e-5
    assert report.losses.peer_difference == 0
    assert report.losses.double_difference < 1e-12
    assert report.ratio == report.theirs[0].step_ms.median / report.ours[0].step_ms.median


def test_losses_that_do_not_agree_leave_no_ratio(task, with_peers):
    with_peers(Peer("NCHW", factor=0.5))
    report = measure_steps(task, [Engine("fast")], peer=True, steps=1)
    assert report.losses.difference == pytest.approx(1.0, rel=1e-4)
    assert (report.losses.agrees, report.ratio) == (False, None)


def test_a_candidate_that_does_not_compile_is_named(task, with_peers):
    with_peers(Peer("NCHW"), Peer("NCHW", compiled=True, breaks=True, name="torch compile"))
    report = measure_steps(task, [Engine("fast")], peer=True, steps=1)
    assert [row.engine for row in report.theirs] == ["torch"]
    [failure] = report.failures
    assert (failure.engine, failure.layout) == ("torch compile", "NCHW")
    assert failure.reason == "RuntimeError: no compiler"


def test_what_compiles_to_something_else_is_not_compared_with(task):
    eager, right = Peer("NCHW"), Peer("channels_last", compiled=True, factor=1 + 1e-12)
    wrong = Peer("NCHW", compiled=True, factor=1 + 1e-6, name="torch compile")
    found = find_wrong(task, task.load(), [wrong, right, eager])
    assert {peer: failure.reason for peer, failure in found.items()} == {
        wrong: "its losses differ by 1.0e-06 from those of torch, in float64"
    }
    assert find_wrong(task, task.load(), [eager, wrong]) == {}  # slower than what is compared with


def test_a_peer_that_fails_without_a_compiler_is_an_error(task, with_peers):
    with_peers(Peer("NCHW", breaks=True))
    with pytest.raises(RuntimeError, match="no compiler"):
        measure_steps(task, [Engine("fast")], peer=True, steps=1)


def test_a_peer_that_is_not_installed(task, monkeypatch):
    monkeypatch.setattr(step_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^peer: torch is not installed.* pip install torch$"):
        measure_steps(task, [Engine("fast")], peer=True)


@pytest.mark.parametrize("evaluate", [False, True])
def test_our_engines_have_the_same_losses(make_config, evaluate):
    task = Task(make_config(), evaluate=evaluate)
    losses = check_losses(task, task.load(), [Engine("fast")], [Engine("im2col")])
    assert losses.difference < 1e-5
    assert losses.double_difference < 1e-12


def test_what_rounding_would_hide_shows_in_double_precision(task):
    losses = check_losses(task, task.load(), [Engine("fast")], [Peer("NCHW", factor=1 + 1e-5)])
    assert losses.difference < losses.bound
    assert losses.double_difference == pytest.approx(1e-5, rel=0.01)
    assert not losses.agrees


def test_losses_are_those_of_the_first_batches_without_dropout(task):
    first, again = (read_losses(Engine("im2col"), task.load(), 3, evaluate=False) for _ in range(2))
    assert len(set(first)) == 3
    assert (first == again).all()


@pytest.mark.parametrize(
    ("difference", "peer_difference", "double_difference", "agrees"),
    [
        (9e-4, None, 1e-12, True),
        (1.1e-3, None, 1e-12, False),
        (1.1e-3, 1e-5, 1e-12, False),
        (3.9e-2, 1e-2, 1e-12, True),
        (4.1e-2, 1e-2, 1e-12, False),
        (0.0, 1e-2, 2e-9, False),
        (nan, 1e-2, 1e-12, False),
        (1e-6, nan, 1e-12, True),
        (1e-6, None, nan, False),
    ],
)
def test_losses_agree_as_far_as_the_peer_agrees_with_itself(
    difference, peer_difference, double_difference, agrees
):
    assert LossCheck(difference, peer_difference, double_difference).agrees is agrees


def test_the_ratio_is_of_medians():
    def make_row(median):
        return StepRow("x", 1, "NCHW", "pixels", Quartiles(1.0, median, 99.0), 0.0, 1, None)

    ours, theirs = (make_row(2.0), make_row(50.0)), (make_row(7.0), make_row(8.0))
    assert StepReport({}, 1, 1, ours, theirs, (), LossCheck(1e-6, None, 1e-12)).ratio == 3.5


def test_steps_are_as_many_as_the_time_allows_within_bounds():
    counts = [step_module._choose_steps(seconds) for seconds in (1e-6, 0.2, 100.0)]
    assert counts == [step_module.MOST_STEPS, 100, step_module.FEWEST_STEPS]


def test_what_memory_is_measured_of_runs_in_this_process_too(task):
    run_briefly(task, Engine("fast"))


def test_an_unknown_backend_is_refused(task):
    with pytest.raises(ConfigError, match=r"^backend: 'fats' is not known; did you mean fast"):
        measure_steps(task, [Engine("fats")])


def test_an_instruction_set_is_for_fast_alone(make_config):
    task = Task(make_config(engine={"isa": "x86-64", "threads": 1}))
    workload = task.load()
    backend = Engine("fast").create_backend(workload)
    assert isinstance(backend, FastBackend)
    assert backend.isa == "x86-64"
    assert Engine("im2col").create_backend(workload).name == "im2col"
