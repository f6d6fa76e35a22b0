"""The machine's limits: the arithmetic by a false clock, the bursts by what they do."""

import numpy as np
import pytest

from cnnctl.backends.fast import INSTRUCTION_SETS, FastBackend
from cnnctl.bench import roofline
from cnnctl.bench.roofline import calibrate_burst, measure_bursts, measure_roofline


class Machine:
    """Does `speed` units a second, at every third call only half; its clock is called for time."""

    def __init__(self, speed):
        self.speed, self.now, self.calls = speed, 0.0, 0

    def clock(self):
        return self.now

    def burst(self, rounds):
        self.calls += 1
        work = 5.0 * rounds
        self.now += work / (self.speed / 2 if self.calls % 3 == 0 else self.speed)
        return work


def test_a_burst_is_made_long_enough_to_be_timed():
    machine = Machine(speed=1000.0)
    assert calibrate_burst(machine.burst, 0.1, machine.clock) == 32  # 20 rounds last 0.1 s


def test_the_best_burst_counts():
    machine = Machine(speed=1000.0)
    assert measure_bursts({"work": machine.burst}, 1.0, machine.clock) == {"work": pytest.approx(1000.0)}


def test_the_time_given_is_kept():
    machine = Machine(speed=1000.0)
    measure_bursts({"work": machine.burst}, 10.0, machine.clock)
    assert 8 < machine.now < 16


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"index0/level": "1", "index0/size": "48K", "index2/level": "2", "index2/size": "1024K"}, 2**20),
        ({"index2/level": "2"}, roofline.DEFAULT_CACHE_BYTES[2]),
        ({}, roofline.DEFAULT_CACHE_BYTES[2]),
    ],
)
def test_cache_sizes_are_read_where_linux_tells_them(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(roofline, "CACHES", tmp_path)
    assert roofline.choose_near_bytes() == expected // 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [("1K", roofline.LEAST_FAR_BYTES), ("65536K", 2**27), ("9999999K", roofline.MOST_FAR_BYTES)],
)
def test_far_buffers_are_beyond_the_last_cache_within_reason(tmp_path, monkeypatch, size, expected):
    (tmp_path / "index3").mkdir()
    (tmp_path / "index3" / "level").write_text("3")
    (tmp_path / "index3" / "size").write_text(size)
    monkeypatch.setattr(roofline, "CACHES", tmp_path)
    assert roofline.choose_far_bytes() == expected


def test_every_instruction_set_is_measured_on_one_thread_and_on_all(monkeypatch):
    monkeypatch.setattr(roofline, "choose_near_bytes", lambda: 2**12)
    monkeypatch.setattr(roofline, "choose_far_bytes", lambda: 2**14)
    monkeypatch.setattr(roofline, "available_threads", lambda: 2)
    monkeypatch.setattr(roofline, "BURST_S", 1e-5)
    result = measure_roofline("float64", seconds=0.0)
    settings = [(isa, threads) for isa in INSTRUCTION_SETS for threads in (1, 2)]
    assert [(row.instruction_set, row.threads) for row in result.rows] == settings
    assert (result.conditions["dtype"], result.near_bytes, result.far_bytes) == ("float64", 2**12, 2**14)
    for row in result.rows:
        figures = (row.near_read_gbs, row.near_copy_gbs, row.far_read_gbs, row.far_copy_gbs)
        assert min(row.fma_gflops, *figures) > 0


def test_far_buffers_hold_the_near_ones_of_many_threads(monkeypatch):
    monkeypatch.setattr(roofline, "choose_near_bytes", lambda: 2**14)
    monkeypatch.setattr(roofline, "choose_far_bytes", lambda: 2**15)
    monkeypatch.setattr(roofline, "available_threads", lambda: 5)
    monkeypatch.setattr(roofline, "BURST_S", 1e-5)
    assert measure_roofline(seconds=0.0).far_bytes == 5 * 2**14


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 3])
def test_bursts_tell_how_much_they_did(isa, dtype, threads):
    kernels = FastBackend(threads, isa).kernels(dtype)
    x = np.arange(3 * 4096 + 7, dtype=dtype)
    y = np.full_like(x, -1)
    assert kernels.fma_burst(10) == 10 * kernels.fma_burst(1) > 0
    assert kernels.read_burst(2, 3 * 4096, x) == 2 * 3 * 4096 * x.itemsize
    assert kernels.copy_burst(2, 3 * 4096, x, y) == 2 * 2 * 3 * 4096 * x.itemsize
    assert np.array_equal(y[: 3 * 4096], x[: 3 * 4096])
    assert (y[3 * 4096 :] == -1).all()


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_what_is_left_over_of_a_thread_s_share_is_left_alone(isa):
    kernels = FastBackend(1, isa).kernels("float32")
    x, y = np.ones(1000, np.float32), np.zeros(1000, np.float32)
    moved = kernels.copy_burst(1, 999, x, y)
    copied = int(y.sum())
    assert moved == 2 * 4 * copied
    assert 999 - 128 < copied <= 999  # blocks of eight vectors
    assert not y[copied:].any()
