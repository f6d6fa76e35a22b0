"""What a run wrote down comes back as series; what is not whole is passed over."""

import json
from pathlib import Path

import numpy as np
import pytest

from cnnctl.errors import ConfigError, RunError
from cnnctl.train.api import train
from cnnctl.train.curves import METRICS, check_metrics, read_curves, smooth


def write_run(folder: Path, entries: list[object], timing: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "timing.csv").write_text(f"epoch,train_seconds,evaluation_seconds,images_per_second\n{timing}")
    return folder


def step(number: int, **values: object) -> dict[str, object]:
    return {"type": "step", "step": number, "epoch": 1, **values}


def test_every_series_of_a_real_run(config, tmp_path):
    config["solver"]["log_every"] = 5
    run = train(config, runs_dir=tmp_path)
    found = {(one.metric, one.name): one for one in read_curves(run.path)}
    steps = [entry for entry in run.metrics() if entry["type"] == "step"]
    epochs = [entry for entry in run.metrics() if entry["type"] == "epoch"]
    for metric, name, key in (
        ("loss", "training", "loss"),
        ("lr", "learning rate", "lr"),
        ("norms", "weights", "weight_norm"),
        ("norms", "gradient", "gradient_norm"),
        ("update-ratio", "update to weights", "update_ratio"),
    ):
        one = found.pop((metric, name))
        assert (one.axis, one.x) == ("step", (1, 5, 10, 15, 20))
        assert one.values == tuple(entry[key] for entry in steps)
        assert (one.smoothed is None) == (name in {"learning rate", "weights"})
    validation = found.pop(("loss", "validation"))
    assert (validation.axis, validation.x) == ("step", (7, 14, 21))
    assert validation.values == tuple(entry["validation"]["loss"] for entry in epochs)
    for name, split in (("training", "train"), ("validation", "validation")):
        one = found.pop(("accuracy", name))
        assert (one.axis, one.x, one.smoothed) == ("epoch", (1, 2, 3), None)
        assert one.values == tuple(entry[split]["accuracy"] for entry in epochs)
    speed = found.pop(("speed", "images per second"))
    rows = (run.path / "timing.csv").read_text().splitlines()[1:]
    assert speed.values == tuple(float(row.split(",")[3]) for row in rows)
    assert (speed.run, speed.x, found) == (run.path.name, (1, 2, 3), {})


def test_metrics_come_in_the_order_they_are_asked_for(tmp_path):
    run = write_run(tmp_path / "run", [step(1, loss=2.0, lr=0.1)])
    assert [one.metric for one in read_curves(run, ["lr", "norms", "loss"])] == ["lr", "loss"]


def test_a_run_of_before_norms_were_written_has_the_rest(tmp_path):
    run = write_run(tmp_path / "run", [step(1, loss=2.0, accuracy=0.5, lr=0.1)])
    assert [one.metric for one in read_curves(run)] == ["loss", "lr"]


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "step", "step": 2, "lo',
        "",
        "[1]",
        "[" * 100_000,
        '{"step": 2, "loss": NaN}',
        '{"step": 2, "loss": 1e999}',
        '{"step": null, "loss": 1}',
        '{"step": 2, "loss": true}',
        '{"step": 2, "loss": {"loss": 1}}',
        '{"step": 2, "loss": 1' + 400 * "0" + "}",
        '{"step": "two", "loss": 1}',
    ],
    ids=lambda line: line[:30],
)
def test_damaged_lines_are_passed_over(tmp_path, line):
    run = write_run(tmp_path / "run", [step(1, loss=2.0), line, step(3, loss=1.0)], "1,2.0,0.1,50.0\n2,3.")
    loss, speed = read_curves(run)
    assert (loss.x, loss.values) == ((1, 3), (2.0, 1.0))
    assert (speed.x, speed.values) == ((1,), (50.0,))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(RunError, match=r"metrics\.jsonl: No such file"):
        read_curves(tmp_path)


def test_an_empty_run_has_no_curves(tmp_path):
    assert read_curves(write_run(tmp_path / "run", [])) == []
    (tmp_path / "run" / "timing.csv").write_text("")
    assert read_curves(tmp_path / "run") == []


class TestSmoothing:
    @pytest.mark.parametrize("span", [1, 2, 7, 1000])
    def test_it_is_the_weighted_mean_of_all_values_so_far(self, rng, span):
        values = rng.standard_normal(50)
        decay = 1 - 1 / span
        for t, value in enumerate(smooth(values.tolist(), span), 1):
            weights = decay ** np.arange(t)[::-1] if span > 1 else np.eye(1, t, t - 1)[0]
            assert value == pytest.approx(np.average(values[:t], weights=weights), abs=1e-12)

    def test_a_constant_stays_one_from_the_start(self):
        assert smooth([3.0] * 5, 10) == pytest.approx([3.0] * 5)

    def test_it_is_handed_on(self, tmp_path):
        run = write_run(tmp_path / "run", [step(i, loss=float(i)) for i in (1, 2, 3)])
        assert read_curves(run, ["loss"], 1)[0].smoothed == (1.0, 2.0, 3.0)
        assert read_curves(run, ["loss"], 3)[0].smoothed == smooth([1.0, 2.0, 3.0], 3) != (1.0, 2.0, 3.0)


def test_metrics_that_are_known():
    assert check_metrics([]) == list(METRICS)
    assert check_metrics(["speed", "loss", "speed"]) == ["speed", "loss"]
    with pytest.raises(ConfigError, match=r"^metric: 'norm' is not known; did you mean norms\?$"):
        check_metrics(["loss", "norm"])
