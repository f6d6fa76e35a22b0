"""cs231n's grid of images, as an array. Shows nothing: that is a plotting library's business."""

from math import ceil, sqrt

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.errors import ShapeError

__all__ = ["visualize_grid"]


def visualize_grid(Xs: Array, ubound: float = 255.0, padding: int = 1) -> Array:
    """Images side by side in a square grid, each stretched to the range 0 to `ubound`.

    Shapes: Xs (N,H,W,C) -> (rows, columns, C) with G = ceil(sqrt(N)) images a side, so that
    rows = G H + (G - 1) padding; what no image covers is 0, and so is an image of one value.
    Raises ShapeError for others. Source: cs231n, assignment 2.
    """
    if Xs.ndim != 4 or not Xs.size:
        raise ShapeError(f"Xs: shape {Xs.shape} is not (N, H, W, C) with at least one pixel")
    N, H, W, C = Xs.shape
    G = ceil(sqrt(N))
    grid = np.zeros((G * H + (G - 1) * padding, G * W + (G - 1) * padding, C))
    for n, image in enumerate(Xs.astype(np.float64)):
        top, left = n // G * (H + padding), n % G * (W + padding)
        low, high = image.min(), image.max()
        grid[top : top + H, left : left + W] = ubound * (image - low) / ((high - low) or 1.0)
    return grid
