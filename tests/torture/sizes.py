"""K7: sizes never overflow: what no memory could hold is refused before anything is allocated."""

import tracemalloc
from collections.abc import Callable

import numpy as np

from cnnctl.backends.fast.layout import count_lanes
from cnnctl.backends.specs import (
    AddSpec,
    Array,
    BatchNormSpec,
    ConvSpec,
    GroupNormSpec,
    LinearSpec,
    LrnSpec,
    Pool,
    PoolSpec,
    Sandwich,
    ScaleSpec,
    Spec,
)
from cnnctl.errors import CnnctlError
from cnnctl.geometry import MAX_ELEMENTS, Window
from tests.torture.arithmetic import create_engine
from tests.torture.tally import Mismatch, Tally, check_equal

MOST_BYTES = 1 << 20
"""What a refusal may allocate."""


def check_sizes(seed: int, number: int, tally: Tally) -> None:
    """Extents around 2^31, 2^32 and 2^63, and below 1: refused, or their memory counted without overflow."""
    rng = np.random.default_rng([seed, number])
    check = [_check_refusal, _check_planning, _check_bad_extents, _check_many_taps][number % 4]
    check(rng, tally)
    tally.counts["cases"] += 1


def _check_refusal(rng: np.random.Generator, tally: Tally) -> None:
    """Outputs of more than `MAX_ELEMENTS`: by their images, filters, strides or padding."""
    name = str(rng.choice(["x", "padding", "stride", "dilation", "kernel"]))
    backend = create_engine(str(rng.choice(["naive", "im2col", "fast"])))
    around = int(rng.choice([2**31, 2**32, 2**62, 2**63])) + int(rng.integers(-2, 3))
    H, W = _split(around, rng)
    padding: object = 0
    stride: object = 1
    dilation: object = 1
    kernel: object = 1
    x_shape, F = (1, 1, 3, 3), 2
    match name:
        case "x":
            # More elements than any output may have, in an array of four bytes.
            C, F = 64, 2**20
            x_shape = (1, C, min(H, 2**20), min(W, 2**20))
            F = MAX_ELEMENTS // (x_shape[2] * x_shape[3]) + 1
            if F * C > 2**40:
                F = 2**34
        case "padding":
            padding = ((around, 0), (0, around))
        case "stride":
            stride = (around, around)
        case "dilation":
            dilation, kernel = (around, around), 2
            padding = ((around, 0), (around, 0))
        case "kernel":
            kernel = (around, 1)
            padding = ((around, around), (0, 0))
    window = Window.create(kernel, stride, padding, dilation)  # type: ignore[arg-type]
    w = spread(F, x_shape[1], *window.kernel) if name != "kernel" else spread(2, 1, 1, 1)
    x = spread(*x_shape)
    _expect_refusal(name, lambda: backend.conv_forward(x, w, None, window))
    if name != "x":
        _expect_refusal(f"{name} of a pool", lambda: backend.maxpool_forward(x, window))
    tally.counts[name] += 1


def _check_planning(rng: np.random.Generator, tally: Tally) -> None:
    """Stages of huge images: buffers and scratch are counted, never below what they must hold."""
    C, F = (int(2 ** rng.uniform(0, 8)) for _ in range(2))
    H, W = _split(int(2 ** rng.uniform(16, 30)), rng)
    kernel = int(rng.choice([1, 3, 5]))
    window = Window.create(kernel, padding=kernel // 2)
    specs: dict[str, Spec] = {
        "conv": ConvSpec(Sandwich(window), F, True),
        "sandwich": ConvSpec(
            Sandwich(window, norm=BatchNormSpec(), activation="relu", pool=Pool("max", Window.create(1))),
            F,
            True,
        ),
        "maxpool": PoolSpec(Pool("max", window)),
        "avgpool": PoolSpec(Pool("average", window)),
        "batchnorm": BatchNormSpec(),
        "groupnorm": GroupNormSpec(1),
        "scale": ScaleSpec(),
        "lrn": LrnSpec(5, 1e-4, 0.75, 1.0),
        "add": AddSpec(),
        "linear": LinearSpec(F, True, None),
    }
    name = str(rng.choice(list(specs)))
    backend = create_engine("fast")
    layout = backend.create_layout((C, H, W), "float32", [specs[name]])
    stage = backend.create_stage(specs[name], layout, "float32")
    least = C * H * W
    if layout.size < least or (name in {"conv", "sandwich"} and stage.output.size < F * H * W):
        raise Mismatch(f"{name}: {(C, H, W)} were given {layout.size} elements")
    scratch = [stage.scratch_elements(n) for n in (1, 2, 64, 1024)]
    if scratch != sorted(scratch) or scratch[0] < 0 or scratch[-1] > 2**62:
        raise Mismatch(f"{name}: {(C, H, W)}: scratch for 1, 2, 64, 1024 images: {scratch}")
    tally.counts[f"planned {name}"] += 1


def _check_many_taps(rng: np.random.Generator, tally: Tally) -> None:
    """Windows of about 2^15 or 2^16 taps: the winner is found wherever it is, or the window refused."""
    KH = int(2 ** rng.uniform(0, 16))
    KW = max(int(rng.choice([2**15, 2**16])) // KH + int(rng.integers(-1, 2)), 1)
    backend, window = create_engine("fast"), Window.create((KH, KW))
    x = np.zeros((1, 1, KH, KW), np.float32)
    winner = int(rng.choice([KH * KW - 1, int(rng.integers(KH * KW))]))
    x.flat[winner] = 1
    try:
        y, index = backend.maxpool_forward(x, window)
        dx = backend.maxpool_backward(y, index, (1, 1, KH, KW), window)
    except CnnctlError:
        if KH * KW < 2**16:
            raise
        tally.counts["taps refused"] += 1
        return
    check_equal(backend.name, "winner", np.array(int(index.item())), np.array(winner))
    check_equal(backend.name, "dx", dx, x)
    tally.counts["taps"] += 1


def _check_bad_extents(rng: np.random.Generator, tally: Tally) -> None:
    """Zero and negative extents, in every place that takes one."""
    backend = create_engine(str(rng.choice(["naive", "im2col", "fast"])))
    wrong = int(rng.choice([0, -1, -(2**31), -(2**63)]))
    zero = spread(1, 1, 3, 3), spread(1, 1, 1, 1)
    places: dict[str, Callable[[], object]] = {
        "kernel": lambda: Window.create(wrong),
        "stride": lambda: Window.create(1, wrong),
        "dilation": lambda: Window.create(1, 1, 0, wrong),
        "padding": lambda: Window.create(1, 1, wrong - 1),
        "padding of one side": lambda: Window.create(1, 1, ((0, wrong - 1), (0, 0))),
        "groups": lambda: backend.conv_forward(*zero, None, Window.create(1), wrong),
        "no channels": lambda: backend.conv_forward(spread(1, 0, 3, 3), zero[1], None, Window.create(1)),
        "no rows": lambda: backend.conv_forward(spread(1, 1, 0, 3), zero[1], None, Window.create(1)),
        "no columns": lambda: backend.maxpool_forward(spread(1, 1, 3, 0), Window.create(1)),
        "no filters": lambda: backend.conv_forward(zero[0], spread(0, 1, 1, 1), None, Window.create(1)),
        "shape to return to": lambda: backend.maxpool_backward(
            zero[0], np.zeros((1, 1, 3, 3), np.int32), (1, 1, wrong, 3), Window.create(1)
        ),
        "size of a response norm": lambda: backend.lrn_forward(zero[0], wrong, 0.1, 0.75, 1.0),
    }
    place = str(rng.choice(list(places)))
    _expect_refusal(f"{place} {wrong}", places[place])
    tally.counts[place] += 1


def spread(*shape: int) -> Array:
    """An array of any extents that takes up four bytes."""
    return np.broadcast_to(np.float32(0), shape)


def _split(product: int, rng: np.random.Generator) -> tuple[int, int]:
    """Two extents whose product is about that."""
    first = int(2 ** rng.uniform(0, np.log2(product)))
    return max(first, 1), max(product // max(first, 1), 1)


def _expect_refusal(name: str, call: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        call()
    except CnnctlError as error:
        if "\n" in str(error):
            raise Mismatch(f"{name}: refused in more than one line: {error}") from error
        if not isinstance(error, (ValueError, TypeError)) and type(error).__name__ != "ConfigError":
            raise Mismatch(f"{name}: refused with {type(error).__name__}") from error
    else:
        raise Mismatch(f"{name} was not refused")
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    if peak > MOST_BYTES:
        raise Mismatch(f"{name}: {peak} bytes were allocated before it was refused")


def check_large(seed: int, number: int, tally: Tally) -> None:
    """An image of more than 2^31 elements within, where its one channel takes a whole vector.

    Needs some 10 GB of memory, so it is no part of the slice.
    """
    name = ("maxpool", "avgpool", "relu")[number]
    backend = create_engine("fast", 2)
    H = 2**14
    W = 2**17 // count_lanes("float32") + 64
    x = np.zeros((1, 1, H, W), np.float32)
    x[0, 0, ::64] = np.arange(W)
    x[0, 0, -63:] = -np.arange(W)
    window = Window.create(2, 64)
    parts = [x[:, :, i::64, j::64] for i in (0, 1) for j in (0, 1)]
    if name == "maxpool":
        found, _ = backend.maxpool_forward(x, window)
        wanted = np.maximum.reduce(parts)
    elif name == "avgpool":
        found = backend.avgpool_forward(x, window)
        wanted = sum(parts) / np.float32(4)
    else:
        found = backend.activation_forward(x, "relu")
        wanted = np.maximum(x, 0)
    check_equal("fast", name, found, wanted)
    tally.counts[name] += 1
    tally.counts["cases"] += 1
