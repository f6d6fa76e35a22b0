"""A random sample of operations, each computed by a backend and by the textbook's loops.

What can be tried in seconds on a machine at hand; the proofs at length are the tests'. Small shapes,
because the loops are slow. Judges by the bounds of `parity` alone and times nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.check.parity import Parity, bound_outputs, compare_outputs, draw_arguments
from cnnctl.errors import ShapeError
from cnnctl.nn import AvgPool, Conv, Layer, Linear, MaxPool

NAMES = {"weight": "dw", "bias": "db"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One operation, forward and backward: what it was, and its output that is farthest off."""

    described: str
    parity: Parity


def sample_parity(backend: Backend, dtype: str, count: int, seed: int = 0) -> Iterator[Sample]:
    """Hold `count` random operations of each kind against `naive`: conv, maxpool, avgpool, linear."""
    naive, real = create_backend("naive"), np.dtype(dtype)
    winograd = backend.name == "fast" and not getattr(backend, "exact", False)
    for number in range(count * len(_DRAWS)):
        draw = _DRAWS[number % len(_DRAWS)]
        rng = np.random.default_rng([seed, number])
        layer, x_shape = _draw_fitting(draw, rng)
        layer.build(x_shape[1:], real, rng)
        layer.params = {key: draw_arguments(rng, array.shape, real) for key, array in layer.params.items()}
        x = draw_arguments(rng, x_shape, real)
        dy = draw_arguments(rng, (len(x), *layer.output_shape), real)
        wanted = _compute(layer, x, dy, naive)
        bounds = bound_outputs(layer.spec, x.shape, dy.shape, wanted, winograd=winograd)
        settings = f"{backend.name} {real} x {x_shape}: {layer.spec}"
        yield Sample(settings, compare_outputs(_compute(layer, x, dy, backend), wanted, bounds))


def _compute(layer: Layer, x: Array, dy: Array, backend: Backend) -> dict[str, Array]:
    """Outputs and gradients by the contract's names, without the index that backends may keep otherwise."""
    y = layer.forward(x, backend, training=True)
    dx = layer.backward(dy, backend)
    assert dx is not None
    return {"y": y, "dx": dx, **{NAMES[key]: gradient for key, gradient in layer.grads.items()}}


def _draw_fitting(draw: "_Draw", rng: np.random.Generator) -> tuple[Layer, tuple[int, ...]]:
    """Draw until the window fits its image."""
    while True:
        layer, x_shape = draw(rng)
        try:
            layer.infer_shape(x_shape[1:])
        except ShapeError:
            continue
        return layer, x_shape


_Draw = Callable[[np.random.Generator], tuple[Layer, tuple[int, ...]]]


def _draw_pair(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def _draw_images(rng: np.random.Generator, channels: int) -> tuple[int, int, int, int]:
    return (int(rng.integers(1, 4)), channels, *_draw_pair(rng, 1, 12))


def _draw_conv(rng: np.random.Generator) -> tuple[Layer, tuple[int, ...]]:
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    filters, channels = (groups * int(rng.integers(1, 9)) for _ in range(2))
    # Every other one as networks have them, which is where Winograd's algorithm comes in.
    usual = bool(rng.integers(2))
    kernel = (3, 3) if usual else _draw_pair(rng, 1, 6)
    stride, dilation = ((1, 1), (1, 1)) if usual else (_draw_pair(rng, 1, 4), _draw_pair(rng, 1, 3))
    layer = Conv(
        filters,
        kernel,
        stride=stride,
        padding=1 if usual else _draw_pair(rng, 0, 3),
        dilation=dilation,
        groups=groups,
        bias=bool(rng.integers(2)),
    )
    return layer, _draw_images(rng, channels)


def _draw_pool(kind: Any) -> _Draw:
    def draw(rng: np.random.Generator) -> tuple[Layer, tuple[int, ...]]:
        kernel = _draw_pair(rng, 1, 4)
        padding = (int(rng.integers(kernel[0])), int(rng.integers(kernel[1])))
        layer = kind(kernel, stride=_draw_pair(rng, 1, 4), padding=padding)
        return layer, _draw_images(rng, int(rng.integers(1, 20)))

    return draw


def _draw_linear(rng: np.random.Generator) -> tuple[Layer, tuple[int, ...]]:
    units, inputs = (int(rng.integers(1, 80)) for _ in range(2))
    return Linear(units, bias=bool(rng.integers(2))), (int(rng.integers(1, 20)), inputs)


_DRAWS = (_draw_conv, _draw_pool(MaxPool), _draw_pool(AvgPool), _draw_linear)
