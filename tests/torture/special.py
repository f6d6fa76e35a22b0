"""K4: NaN, infinities, -0 and subnormals follow the policy in backends/base.py, alike in all backends."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Activation, Array
from tests.torture import truth
from tests.torture.arithmetic import cast, count_case, create_engine, draw_arrays, list_engines, run_conv
from tests.torture.cases import TAILS, Case, draw, draw_case
from tests.torture.tally import Mismatch, Tally, check_equal

Engines = list[tuple[str, Backend]]

MOST_POSITIONS = 24
MOST_MACS = 20_000
MOST_PLACES = 6
SUBNORMAL = {"float32": 1e-40, "float64": 1e-310}
ROUNDING = {"float32": 1e-5, "float64": 1e-13}
"""Of the largest result, between backends that compute e^x differently."""


def check_specials(seed: int, number: int, tally: Tally) -> None:
    """One special value at each position of one argument in turn."""
    case = draw_case(seed, number)
    rng = case.create_rng()
    with np.errstate(invalid="ignore"):
        match case.operation:
            case "conv" | "linear":
                _check_sums(case, rng, tally)
            case "maxpool" | "avgpool":
                _check_pool(case, rng, tally)
            case "sandwich":
                _check_elementwise(case, rng, tally)


def _check_sums(case: Case, rng: np.random.Generator, tally: Tally) -> None:
    """In x everywhere; in w or dy without padding, of which they may make NaN or nothing."""
    bared = bare_rows(case) if case.operation == "conv" and rng.random() < 0.5 else None
    case = bared or case
    if np.prod(case.conv_shape) * case.terms[0] > MOST_MACS:
        tally.counts["void"] += 1
        return
    special = draw_special(rng, case.dtype)
    padded = any(map(any, case.window.padding))
    field = "x" if padded or bared else str(rng.choice(["x", "w", "dy"]))
    arrays = dict(zip(("x", "w", "b", "dy"), draw_arrays(case, rng, integers=True), strict=True))
    clean = arrays[field]
    shown = np.zeros(0)
    for position in choose_positions(rng, clean.shape):
        changed = clean.copy()
        changed[position] = special
        inputs = tuple((arrays | {field: changed}).values())
        wanted = truth.convolve(case, *inputs)
        for label, backend in list_engines(case, exact=False):
            found = run_conv(backend, case, *cast(case, *inputs))
            winograd = label.startswith("fast") and case.may_use_winograd
            for name, actual, right in zip(found._fields, found, wanted, strict=True):
                if winograd or (field, name) == ("w", "dx"):  # it meets outputs that are not there
                    _check_spread(label, name, actual, right, position[0] if field == "x" else None)
                else:
                    _check_alike(label, name, actual, right, case.dtype)
            tally.counts[label] += 1
        shown = wanted.y
    count_case(tally, shown)


def bare_rows(case: Case) -> Case | None:
    """The same with a row of the image behind the last window, which no output may see; None if none fits."""
    (N, C, H, W), window = case.x_shape, case.window
    (top, _), (left, _) = window.padding
    window = replace(
        window,
        stride=(2, window.stride[1]),
        dilation=(1, window.dilation[1]),
        padding=((top, 0), (left, 0)),
    )
    H += 1 - (H + top - window.span[0]) % 2
    fits = H + top >= window.span[0] and W + left >= window.span[1]
    return replace(case, window=window, x_shape=(N, C, H, W)) if fits else None


def _check_alike(label: str, name: str, actual: Array, wanted: Array, dtype: str) -> None:
    """Equal, but a subnormal may have counted as 0."""
    tiny = 2**24 * float(np.finfo(dtype).tiny)
    check_equal(label, name, _round_off(actual, wanted, tiny), wanted.astype(dtype))


def _round_off(actual: Array, wanted: Array, tolerance: float) -> Array:
    """`actual`, with what is wanted in the place of numbers that come so near to it."""
    return np.where(np.abs(actual - wanted) <= tolerance, wanted.astype(actual.dtype), actual)


def _check_spread(label: str, name: str, actual: Array, wanted: Array, image: int | None) -> None:
    """All that has to be special is; of an image that holds the value the rest may be, of no other."""
    missed = ~np.isfinite(wanted) & np.isfinite(actual)
    if missed.any():
        raise Mismatch(f"{label}: {name}{list(np.argwhere(missed)[0])} is finite, not {wanted[missed][0]}")
    if image is None or name not in {"y", "dx"}:
        return
    others = np.delete(np.arange(len(actual)), image)
    if not np.isfinite(actual[others]).all():
        raise Mismatch(f"{label}: {name}: a special value of image {image} spread to another")


def _check_pool(case: Case, rng: np.random.Generator, tally: Tally) -> None:
    """Arrays full of special values; the winner is always a pixel of the image."""
    assert case.pool is not None
    tiny = SUBNORMAL[case.dtype]
    values = [np.nan, np.inf, -np.inf, -0.0, 0.0, tiny, -tiny, 1.0, 2.0, -1.0]
    share = float(rng.choice([0.01, 0.1, 0.9]))
    x = np.where(rng.random(case.x_shape) < share, rng.choice(values, case.x_shape), 3.0)
    if case.operation == "avgpool":
        dy = np.where(rng.random(shape := case.pool_shape(x.shape)) < share, rng.choice(values, shape), 144.0)
        y, dx = truth.average(case, x, dy)
        for label, backend in list_engines(case, exact=False):
            found = backend.avgpool_forward(x.astype(case.dtype), case.pool)
            _check_nearly(label, "y", found, y, case.dtype)
            returned = backend.avgpool_backward(dy.astype(case.dtype), case.x_shape, case.pool)
            _check_nearly(label, "dx", returned, dx, case.dtype)
            tally.counts[label] += 1
        return count_case(tally, y)
    y, _ = truth.find_maxima(case, np.where(np.abs(x) == tiny, 0, x))
    dy = draw(rng, y.shape, integers=True)
    for label, backend in list_engines(case, exact=False):
        found, winners = backend.maxpool_forward(x.astype(case.dtype), case.pool)
        _check_alike(label, "y", found, y, case.dtype)
        _check_winners(label, case, x, y, winners)
        dx = truth.return_maxima(case, dy, np.ascontiguousarray(winners), x.shape)
        returned = backend.maxpool_backward(dy.astype(case.dtype), winners, case.x_shape, case.pool)
        check_equal(label, "dx", returned, dx, case.dtype)
        tally.counts[label] += 1
    count_case(tally, y)


def _check_winners(label: str, case: Case, x: Array, y: Array, winners: Array) -> None:
    """Each winner lies in the image and holds the maximum."""
    assert case.pool is not None
    (top, _), (left, _) = case.pool.padding
    n, c, oh, ow = np.indices(winners.shape)
    kh, kw = np.divmod(winners, case.pool.kernel[1])
    ih = oh * case.pool.stride[0] - top + kh * case.pool.dilation[0]
    iw = ow * case.pool.stride[1] - left + kw * case.pool.dilation[1]
    if not ((ih >= 0) & (ih < x.shape[2]) & (iw >= 0) & (iw < x.shape[3])).all():
        raise Mismatch(f"{label}: a winner lies outside the image")
    _check_alike(label, "winning pixel", x[n, c, ih, iw].astype(case.dtype), y, case.dtype)


def _check_elementwise(case: Case, rng: np.random.Generator, tally: Tally) -> None:
    """Activations, norms, response norm and softmax: NaN stays where it was, infinities give limits."""
    engines = list(list_engines(case, exact=False))
    if not case.suits_naive:
        engines.insert(0, (f"naive {case.dtype}", create_engine("naive")))
    length = int(rng.choice(TAILS))
    special = draw_special(rng, case.dtype)
    for position in rng.permutation(length)[:MOST_PLACES]:
        x, dy = draw(rng, (2, length), False)
        x[position] = special
        x, dy = cast(case, x, dy)
        for activation in get_args(Activation):
            _compare(engines, activation, partial(_run_activation, activation), x, dy)
    images = draw(rng, (2, length, 1, 2), False)
    for position in choose_positions(rng, images.shape)[:MOST_PLACES]:
        changed = images.copy()
        changed[position] = special
        (x,) = cast(case, changed)
        _compare(engines, "batchnorm", _run_batchnorm, x)
        _compare(engines, "groupnorm", _run_groupnorm, x)
        _compare(engines, "scale", _run_scale, x)
        _compare(engines, "lrn", _run_lrn, x)
        _compare(engines, "softmax", _run_softmax, x[:, :, 0, 0])
    for label, _ in engines[1:]:
        tally.counts[label] += 1
    count_case(tally, images)


def _compare(engines: Engines, name: str, run: Callable[..., tuple[Array, ...]], *arrays: Array) -> None:
    """Each backend against the first, for which subnormals may count as themselves or as 0."""
    (_, reference), *others = engines
    tiny = np.finfo(arrays[0].dtype).tiny
    flushed = [np.where(np.abs(array) < tiny, 0, array).astype(array.dtype) for array in arrays]
    wanted = list(zip(run(reference, *arrays), run(reference, *flushed), strict=True))
    for label, backend in others:
        for number, (actual, (right, other)) in enumerate(zip(run(backend, *arrays), wanted, strict=True)):
            either = np.where(np.isclose(actual, other, rtol=1e-5, atol=0), other, right)
            _check_nearly(label, f"{name} result {number}", actual, either, str(right.dtype))


def _check_nearly(label: str, name: str, actual: Array, wanted: Array, dtype: str) -> None:
    """NaN and infinities alike, the rest up to rounding."""
    largest = np.abs(np.where(np.isfinite(wanted), wanted, 0)).max(initial=1.0)
    check_equal(label, name, _round_off(actual, wanted, ROUNDING[dtype] * largest), wanted.astype(dtype))


def _run_activation(activation: Activation, backend: Backend, x: Array, dy: Array) -> tuple[Array, ...]:
    y = backend.activation_forward(x, activation)
    return y, backend.activation_backward(dy, x, y, activation)


def _run_batchnorm(backend: Backend, x: Array) -> tuple[Array, ...]:
    gamma, beta = np.full((2, x.shape[1]), 2, x.dtype)
    y, mean, var = backend.batchnorm_forward(x, gamma, beta, 0.5)
    return y, mean, var, *backend.batchnorm_backward(np.ones_like(x), x, gamma, mean, var, 0.5)


def _run_groupnorm(backend: Backend, x: Array) -> tuple[Array, ...]:
    gamma, beta = np.full((2, x.shape[1]), 2, x.dtype)
    y, mean, var = backend.groupnorm_forward(x, gamma, beta, 1, 0.5)
    return y, mean, var, *backend.groupnorm_backward(np.ones_like(x), x, gamma, mean, var, 1, 0.5)


def _run_scale(backend: Backend, x: Array) -> tuple[Array, ...]:
    w, b = np.full((2, x.shape[1]), 2, x.dtype)
    return backend.scale_forward(x, w, b), *backend.scale_backward(np.ones_like(x), x, w)


def _run_lrn(backend: Backend, x: Array) -> tuple[Array, ...]:
    return backend.lrn_forward(x, 3, 0.1, 0.75, 1.0), backend.lrn_backward(x, x, 3, 0.1, 0.75, 1.0)


def _run_softmax(backend: Backend, scores: Array) -> tuple[Array, ...]:
    scores = np.ascontiguousarray(scores)
    loss, p = backend.softmax_cross_entropy_forward(scores, np.zeros(len(scores), np.int64))
    return np.array(loss, scores.dtype), p


def draw_special(rng: np.random.Generator, dtype: str) -> float:
    """One of those that arithmetic treats in its own way."""
    tiny = SUBNORMAL[dtype]
    return float(rng.choice([np.nan, np.inf, -np.inf, -0.0, tiny, -tiny]))


def choose_positions(rng: np.random.Generator, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All positions in an array, or some of them if there are many."""
    size = int(np.prod(shape))
    chosen = rng.permutation(size)[:MOST_POSITIONS]
    return [tuple(map(int, np.unravel_index(flat, shape))) for flat in chosen]
