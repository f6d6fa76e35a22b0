"""What is drawn is what the engine computes; the numbers are the curves."""

import csv
from math import exp
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.errors import ConfigError
from cnnctl.plot import activations as module
from cnnctl.plot.activations import ACTIVATIONS, compute_activations, draw_activations

BACKEND = create_backend("naive")


def test_all_of_the_contract_by_default() -> None:
    assert [curve.name for curve in compute_activations([], BACKEND)] == list(ACTIVATIONS)
    assert {"relu", "leaky_relu", "tanh", "sigmoid"} < set(ACTIVATIONS)


def test_those_that_are_named_in_their_order_and_once() -> None:
    assert [curve.name for curve in compute_activations(["tanh", "relu", "tanh"], BACKEND)] == [
        "tanh",
        "relu",
    ]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_is_that_of_the_curve(name: str) -> None:
    """Away from the kink at 0, against central differences."""
    (curve,) = compute_activations([name], BACKEND)
    slopes = (curve.y[2:] - curve.y[:-2]) / (curve.x[2:] - curve.x[:-2])
    smooth = np.abs(curve.x[1:-1]) > 0.015
    np.testing.assert_allclose(curve.dy[1:-1][smooth], slopes[smooth], atol=1e-4)


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^activation: 'rleu' is not known; did you mean relu\?$"):
        compute_activations(["rleu"], BACKEND)


def test_the_axes_and_the_numbers_hold_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, _: figures.append(figure))
    curves = compute_activations(["leaky_relu", "sigmoid"], BACKEND)
    numbers = draw_activations(curves, tmp_path / "a.png")
    panels = figures[0].get_axes()
    assert [panel.get_title() for panel in panels] == ["leaky_relu (alpha 0.01)", "sigmoid"]
    for panel, curve in zip(panels, curves, strict=True):
        for line, values in zip(panel.get_lines(), (curve.y, curve.dy), strict=True):
            assert np.array_equal(line.get_xydata(), np.stack([curve.x, values], axis=1))
    with numbers.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["x", *(f"{c.name}{part}" for c in curves for part in ("", "_derivative"))]
    last = {key: float(value) for key, value in rows[-1].items()}
    s = 1 / (1 + exp(-5))
    assert last == pytest.approx(
        {"x": 5, "leaky_relu": 5, "leaky_relu_derivative": 1, "sigmoid": s, "sigmoid_derivative": s * (1 - s)}
    )


def test_the_backend_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "activation_forward", lambda self, x, name: 3 * x)
    monkeypatch.setattr(Backend, "activation_backward", lambda self, dy, x, y, name: 7 * dy)
    (curve,) = compute_activations(["relu"], BACKEND)
    assert (curve.y[-1], curve.dy[-1]) == (15, 7)
