"""An embedding as a scatter plot, coloured by class, with its points as CSV beside it.

Draws what it is given, twice: every image is a point in the colour of its class, and beside it in that of
the class it was taken for.
"""

from pathlib import Path

import numpy as np

from cnnctl.plot.figure import draw_figure, save_figure, save_numbers
from cnnctl.plot.pixels import shorten_name
from cnnctl.train.insight import Embedding

MOST_NAMED = 20
"""With more classes than that none is named, as nobody could tell them apart."""


def draw_embedding(embedding: Embedding, path: Path) -> Path:
    """Write the picture, PNG or SVG by the suffix; returns where the numbers are.

    Points lie over one another in the order of the images, so that no class hides the others. Raises
    ConfigError for another suffix, RunError when a file cannot be written.
    """
    points, labels, count = embedding.points, embedding.labels, len(embedding.classes)
    with draw_figure(13, 6) as figure:
        from matplotlib import colormaps
        from matplotlib.lines import Line2D

        colours = colormaps["tab10" if count <= 10 else "tab20" if count <= MOST_NAMED else "turbo"]
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        wrong = int((embedding.predicted != labels).sum())
        titles = "by class", f"by what they are taken for, {wrong:,} of {len(points):,} wrongly"
        for axes, title, shown in zip(panels, titles, (labels, embedding.predicted), strict=True):
            chosen = colours(shown if count <= MOST_NAMED else shown / count)
            axes.scatter(points[:, 0], points[:, 1], s=7, c=chosen, alpha=0.6, linewidths=0, rasterized=True)
            axes.set_title(title)
            axes.set_xlabel(f"first component, {100 * embedding.explained[0]:.1f} % of the variance")
        panels[0].set_ylabel(f"second component, {100 * embedding.explained[1]:.1f} % of the variance")
        figure.suptitle(
            f"{len(points):,} test images in the {embedding.values:,} values of {embedding.layer}"
        )
        if count <= MOST_NAMED:
            marks = [Line2D([], [], marker="o", linestyle="", color=colours(k)) for k in range(count)]
            figure.legend(marks, [*map(shorten_name, embedding.classes)], loc="outside right center")
        save_figure(figure, path)
    names = np.array(embedding.classes)
    columns = ("image", "component_1", "component_2", "label", "predicted")
    rows = zip(
        range(len(points)),
        *([f"{value:.9g}" for value in axis] for axis in points.T),
        names[labels].tolist(),
        names[embedding.predicted].tolist(),
        strict=True,
    )
    return save_numbers(path, columns, list(rows))
