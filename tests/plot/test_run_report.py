"""Which charts a report draws of a run's curves."""

from pathlib import Path

import pytest

from cnnctl.plot import run_report as module
from cnnctl.plot.report import Report, render_report
from cnnctl.train.curves import Series


def make_series(metric: str, values: list[float], *, noisy: bool = False) -> Series:
    x = tuple(range(1, len(values) + 1))
    return Series("run", metric, "training", "step", x, tuple(values), tuple(values) if noisy else None)


@pytest.mark.parametrize(("last", "is_log"), [(0.2, False), (0.05, True), (0.0, False)])
def test_a_loss_that_falls_far_is_drawn_on_decades(
    monkeypatch: pytest.MonkeyPatch, last: float, is_log: bool
) -> None:
    monkeypatch.setattr(module, "read_curves", lambda _: [make_series("loss", [2.0, last])])
    (chart,) = module._gather_charts(Path())
    assert (chart.title, chart.x_label, chart.is_log) == ("Loss", "step", is_log)


def test_one_that_starts_low_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_curves", lambda _: [make_series("accuracy", [0.01, 0.99])])
    assert not module._gather_charts(Path())[0].is_log


@pytest.mark.parametrize("metric", ["lr", "norms", "update-ratio"])
def test_what_has_decades_goes_without_them_where_a_value_is_zero(
    monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    for least, is_log in ((1e-6, True), (0.0, False)):
        monkeypatch.setattr(module, "read_curves", lambda _, least=least: [make_series(metric, [least, 0.1])])
        charts = module._gather_charts(Path())
        assert charts[0].is_log is is_log
        assert "polyline" in render_report(Report("x", "", {}, (1,), [], charts))


@pytest.mark.parametrize(
    ("count", "names"), [(99, ["training"]), (100, ["training, each", "training, smoothed"])]
)
def test_few_points_are_not_smoothed(monkeypatch: pytest.MonkeyPatch, count: int, names: list[str]) -> None:
    series = make_series("norms", [float(i % 2) for i in range(count)], noisy=True)
    monkeypatch.setattr(module, "read_curves", lambda _: [series])
    (chart,) = module._gather_charts(Path())
    assert [line.name for line in chart.lines] == names
    assert [line.is_raw for line in chart.lines] == [True, False][2 - len(names) :]
    assert chart.lines[0].y == series.values
    if len(names) > 1:
        assert max(chart.lines[1].y[1:]) - min(chart.lines[1].y[1:]) < 1
