"""Operations of a step: which there are, what they count, and how figures come of times."""

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.bench.ops import (
    CASES,
    Operation,
    Timed,
    create_case,
    describe_timed,
    list_operations,
    measure_cases,
    measure_network,
    time_step,
)
from cnnctl.config import EngineConfig
from cnnctl.data import Batches, Normalizer, Split
from cnnctl.nn import Conv, Linear, MaxPool, Network, ReLU
from cnnctl.nn.plan import Plan
from cnnctl.optim import SGD, Adam


def do_nothing(_):
    return None


@pytest.fixture
def draw(rng):
    """Batches of 2 images of 3x6x6 and 4 classes."""
    pixels = rng.integers(0, 256, (6, 3, 6, 6), np.uint8)
    batches = Batches(Split(pixels, np.arange(6) % 4), Normalizer.fit(pixels, "unit"), 2, seed=0)
    return lambda number: batches.draw(0, number % 3)


@pytest.fixture
def make_plan():
    def make(optimizer):
        layers = [Conv(5, 3, padding=1), ReLU(), MaxPool(2), Linear(7), Linear(4)]
        return Plan(Network(layers, (3, 6, 6)), 2, create_backend("fast"), optimizer=optimizer)

    return make


def test_a_step_is_preparation_stages_loss_and_update(make_plan, draw):
    operations = list_operations(make_plan(SGD()), draw)
    names = [operation.name for operation in operations]
    assert names == ["prepare", "conv1+relu1+maxpool1", "linear1", "linear2", "loss", "update"]
    assert [operation.backward is not None for operation in operations] == [False, *[True] * 4, False]


def test_work_is_counted_for_the_whole_batch(make_plan, draw):
    _, conv, first, second, *_ = list_operations(make_plan(SGD()), draw)
    assert [stage.macs for stage in (conv, first, second)] == [2 * 36 * 5 * 27, 2 * 45 * 7, 2 * 7 * 4]
    assert [stage.gradients for stage in (conv, first, second)] == [1, 2, 2]  # the first needs no dx


@pytest.mark.parametrize(("optimizer", "arrays"), [(SGD(), 5), (Adam(), 7)])
def test_bytes_are_what_has_to_be_read_and_written(make_plan, draw, optimizer, arrays):
    plan = make_plan(optimizer)
    prepare, *_, update = list_operations(plan, draw)
    assert prepare.moved_bytes == 2 * 3 * 6 * 6 * (1 + 4)
    parameters = sum(w.size for stage in plan.stages for w in stage.stage.buffers.params.values())
    assert update.moved_bytes == arrays * parameters * 4


def test_running_the_parts_gives_a_step_s_gradients(make_plan, draw):
    whole, parts = make_plan(SGD()), make_plan(SGD())
    for _ in range(2):
        whole.step(draw(0), draw(0).labels)
    *passes, _ = list_operations(parts, draw)  # this makes the first step
    for operation in passes:
        operation.forward(0)
    for operation in reversed(passes):
        if operation.backward:
            operation.backward(0)
    for wanted, found in zip(whole.stages, parts.stages, strict=True):
        for key, gradient in wanted.stage.buffers.grads.items():
            assert np.array_equal(gradient, found.stage.buffers.grads[key])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_has_a_stage_of_its_own(case):
    plan, draw = create_case(case, create_backend("fast"), "float32", 2)
    stages = {stage.name: stage for stage in plan.stages}
    stage = stages[case.layer]
    assert stage.macs > 0
    assert stage.has_dx is not case.is_first
    assert draw(5).shape == (2, *case.input_shape)


def test_figures_follow_from_times():
    stage = Operation("conv1", 10, do_nothing, do_nothing, macs=10**9, gradients=2, memory_bytes=3 * 10**6)
    row = describe_timed(Timed(stage, forward_s=0.02, backward_s=0.08), peak=200e9, step_s=0.4)
    assert (row.name, row.batch_size, row.memory_mb) == ("conv1", 10, 3)
    assert (row.forward_ms, row.backward_ms) == (20, 80)
    assert (row.forward_gflops, row.backward_gflops) == pytest.approx((100, 50))
    assert (row.forward_percent, row.backward_percent) == pytest.approx((50, 25))
    assert (row.share_percent, row.gigabytes_per_second) == (pytest.approx(25), None)


def test_what_moves_memory_has_a_bandwidth_and_no_operations():
    row = describe_timed(
        Timed(Operation("update", 10, do_nothing, moved_bytes=4 * 10**8), 0.02, None), peak=200e9
    )
    assert row.gigabytes_per_second == pytest.approx(20)
    assert (row.backward_ms, row.forward_gflops, row.share_percent, row.memory_mb) == (None,) * 4


def test_what_computes_next_to_nothing_has_times_alone():
    row = describe_timed(Timed(Operation("relu1", 10, do_nothing, do_nothing), 0.001, 0.001), peak=200e9)
    assert (row.forward_gflops, row.gigabytes_per_second) == (None, None)


def test_every_operation_is_timed(make_plan, draw):
    timed, step_s, peak = time_step(make_plan(Adam()), draw, seconds=0.0)
    assert [entry.operation.name for entry in timed][0::5] == ["prepare", "update"]
    assert min(entry.forward_s for entry in timed) > 0
    assert min(step_s, peak) > 0


@pytest.mark.parametrize("backend", ["fast", "im2col"])
def test_a_config_s_operations(make_config, backend):
    report = measure_network(make_config(engine={"backend": backend, "threads": 1}), seconds=0.0)
    assert [row.name for row in report.rows][1:3] == ["conv1+relu1+maxpool1", "dropout1"]
    assert sum(row.share_percent or 0 for row in report.rows) == pytest.approx(100)
    assert (report.conditions["backend"], report.threads) == (backend, 1)
    assert min(report.step_ms or 0, report.fma_peak_gflops or 0) > 0


def test_operations_by_themselves(monkeypatch):
    monkeypatch.setattr("cnnctl.bench.ops.CASES", CASES[7:11])
    report = measure_cases(EngineConfig(threads=2), batch_size=1, seconds=0.0)
    assert [row.name for row in report.rows] == [case.name for case in CASES[7:11]]
    assert {row.batch_size for row in report.rows} == {1}
    assert {row.share_percent for row in report.rows} == {report.step_ms} == {None}
