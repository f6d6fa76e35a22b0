"""K8: subnormals do not slow the kernels down, and numpy's own arithmetic is left as it was."""

from platform import machine
from statistics import median
from time import perf_counter
from typing import get_args

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Activation, Array
from cnnctl.geometry import Window
from tests.torture import threads, truth
from tests.torture.arithmetic import create_engine
from tests.torture.cases import draw_case
from tests.torture.special import SUBNORMAL
from tests.torture.tally import Mismatch, Tally

MOST_COST = 1.5
FLUSHES = machine() in {"x86_64", "AMD64", "aarch64", "arm64"}
"""Where the kernels know how to have subnormals count as 0."""
TURNS = 41


def check_float_mode(seed: int, number: int, tally: Tally) -> None:
    """Rounding and subnormal mode after any operation, also one that was refused, are those before it."""
    case = draw_case(seed, number)
    rng = case.create_rng()
    kinds = threads.RUNS[case.operation]
    kind = str(rng.choice(list(kinds)))
    arrays = threads.draw_batch(case, rng)
    backend = create_engine("fast", case.threads, case.isa, not case.winograd)
    before = truth.read_float_mode()
    kinds[kind](backend, case, *arrays)
    try:
        kinds[kind](backend, case, *(array.astype(">f4") for array in arrays))
    except (TypeError, ValueError):
        tally.counts["refused"] += 1
    if truth.read_float_mode() != before:
        raise Mismatch(f"{kind}: the mode was {before:#x} and is {truth.read_float_mode():#x}")
    tiny = np.full((1, 1), SUBNORMAL["float32"], np.float32)
    if not (tiny * np.float32(0.5) > 0).all():
        raise Mismatch(f"{kind}: numpy now flushes subnormals")
    if FLUSHES and backend.linear_forward(tiny, np.full_like(tiny, 1e30), None).any():
        raise Mismatch(f"{kind}: the kernels compute with subnormals, which can cost a hundredfold")
    tally.counts["cases"] += 1


def check_subnormal_cost(seed: int, number: int, tally: Tally) -> None:
    """All-subnormal data against normal data, in turns: at most half as much time again."""
    name, shape, w_shape = COSTS[number]
    rng = np.random.default_rng([seed, number])
    backend = create_engine("fast")
    normal = rng.standard_normal(shape).astype("float32"), rng.standard_normal(w_shape).astype("float32")
    tiny = tuple((array * SUBNORMAL["float32"]).astype("float32") for array in normal)
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(TURNS):
        for subnormal in (False, True):
            x, w = tiny if subnormal else normal
            started = perf_counter()
            _run(backend, name, x, w)
            if turn:
                times[subnormal].append(perf_counter() - started)
    ratio = median(times[True]) / median(times[False])
    if ratio > MOST_COST:
        raise Mismatch(f"{name}: subnormal data cost {ratio:.2f} times as much")
    tally.note(name, ratio / MOST_COST)
    tally.counts["cases"] += 1


def _run(backend: Backend, name: str, x: Array, w: Array) -> object:
    match name:
        case "conv" | "conv Winograd":
            window = Window.create(w.shape[2], padding=1)
            exact = create_engine("fast", exact=name == "conv")
            y = exact.conv_forward(x, w, None, window)
            return exact.conv_backward(y, x, w, window)
        case "linear":
            return backend.linear_backward(backend.linear_forward(x, w, None), x, w)
        case "batchnorm":
            return backend.batchnorm_forward(x, w, w, 1e-5)
        case "lrn":
            return backend.lrn_backward(x, x, 5, 0.1, 0.75, 1.0)
        case "maxpool":
            return backend.maxpool_forward(x, Window.create(2, 2))
        case "avgpool":
            return backend.avgpool_forward(x, Window.create(2, 2))
        case "adam":
            return backend.adam_update(x.copy(), x, np.zeros_like(x), np.zeros_like(x), step=1, lr=0.1)
        case _:
            return backend.activation_forward(x, name)  # type: ignore[arg-type]


_IMAGES = (8, 32, 32, 32)
COSTS: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
    ("conv", _IMAGES, (32, 32, 3, 3)),
    ("conv Winograd", _IMAGES, (32, 32, 3, 3)),
    ("linear", (100, 2000), (300, 2000)),
    ("batchnorm", _IMAGES, (32,)),
    ("lrn", _IMAGES, (1,)),
    ("maxpool", _IMAGES, (1,)),
    ("avgpool", _IMAGES, (1,)),
    ("adam", _IMAGES, (1,)),
    *((activation, _IMAGES, (1,)) for activation in get_args(Activation)),
]
"""Operation, shape of x, shape of w."""
