"""Activation functions and their derivatives, as the engine computes them: a plot and its numbers.

Has no formula of its own: what a backend gives for x, and for dy = 1, is what is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import ALPHAS, Activation, Array
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.plot.figure import COLOURS, draw_figure, save_figure, save_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
REACH = 5
POINTS = 1001
"""Values of x, from -REACH to REACH, 0 among them."""
COLUMNS = 4


@dataclass(frozen=True, eq=False)
class Curve:
    """An activation with the contract's usual parameter.

    Attributes:
        x, y, dy: (POINTS) float64; dy is the derivative.
    """

    name: str
    x: Array
    y: Array
    dy: Array


def compute_activations(names: Sequence[str], backend: Backend) -> list[Curve]:
    """A curve for each name, or for all there are. Raises ConfigError for one that is not known."""
    x = np.linspace(-REACH, REACH, POINTS)
    curves = []
    for name in dict.fromkeys(names) or ACTIVATIONS:
        if name not in ACTIVATIONS:
            near = describe_alternatives(name, ACTIVATIONS)
            raise ConfigError(f"activation: {name!r} is not known; {near}")
        y = backend.activation_forward(x, name)
        curves.append(Curve(name, x, y, backend.activation_backward(np.ones_like(x), x, y, name)))
    return curves


def draw_activations(curves: Sequence[Curve], path: Path) -> Path:
    """Write a panel for each curve to `path`, and the numbers beside it, whose place is returned."""
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    with draw_figure(1 + 2.8 * columns, 0.6 + 2.6 * rows) as figure:
        panels: list[Axes] = []
        for number, curve in enumerate(curves, 1):
            panel = figure.add_subplot(rows, columns, number, sharex=panels[0] if panels else None)
            panels.append(panel)
            alpha = ALPHAS.get(curve.name)  # type: ignore[call-overload]
            panel.set_title(curve.name if alpha is None else f"{curve.name} (alpha {alpha:g})")
            panel.plot(curve.x, curve.y, COLOURS[0], label="y")
            panel.plot(curve.x, curve.dy, COLOURS[1], linestyle="--", label="dy/dx")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        save_figure(figure, path)
    header = [f"{curve.name}{part}" for curve in curves for part in ("", "_derivative")]
    arrays = [curves[0].x, *(array for curve in curves for array in (curve.y, curve.dy))]
    return save_numbers(path, ["x", *header], np.stack(arrays, axis=1).tolist())
