"""K1 to K3: kernels compute what the textbook says, rounding stays in its bounds, gradients are adjoint."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend, SandwichOutputs
from cnnctl.backends.specs import Activation, Array, BatchNormSpec, Pool, Sandwich
from tests.backends.direct import compute_gamma
from tests.torture import truth
from tests.torture.cases import Case, draw, draw_case
from tests.torture.tally import Mismatch, Tally, check_bounded, check_equal
from tests.torture.truth import Sums

NONZERO = 0.3
"""A case with a smaller share of outputs that are not 0 shows too little to count."""
WINOGRAD_BOUNDS = {
    "float32": Sums(y=1e-5, dx=1e-5, dw=2e-5, db=0.0),  # type: ignore[arg-type]
    "float64": Sums(y=1e-13, dx=1e-13, dw=1e-13, db=0.0),  # type: ignore[arg-type]
}
"""Of the largest result, as winograd.h states it: its rounding does not stay with small outputs."""
ADJOINT_BOUND = 1e-12
FUSED_BOUND = 1e-11
"""Of the largest result, in float64; norms multiply rounding errors by up to 1/sqrt(eps)."""


def check_exactness(seed: int, number: int, tally: Tally) -> None:
    """K1: on small integers every order of summation is exact, so nothing may differ at all."""
    case = draw_case(seed, number)
    rng = case.create_rng()
    match case.operation:
        case "conv" | "linear":
            x, w, b, dy = draw_arrays(case, rng, integers=True)
            wanted = truth.convolve(case, x, w, b, dy)
            for label, backend in list_engines(case, exact=True):
                found = run_conv(backend, case, *cast(case, x, w, b, dy))
                for name, actual, right in zip(Sums._fields, found, wanted, strict=True):
                    check_equal(label, name, actual, right, case.dtype)
                tally.counts[label] += 1
            shown = wanted.y
        case "sandwich":
            shown = _check_exact_sandwich(case, rng, tally)
        case "maxpool":
            shown = _check_exact_pool(case, rng, tally)
        case "avgpool":
            shown = _check_exact_average(case, rng, tally)
    count_case(tally, shown)


def _check_exact_sandwich(case: Case, rng: np.random.Generator, tally: Tally) -> Array:
    """Convolution, ReLU and max pool, forward and backward."""
    assert case.pool is not None
    x, w, b, _ = draw_arrays(case, rng, integers=True)
    b -= 4 * case.terms[0] // 3  # about half of what the ReLU sees is negative then
    z = np.maximum(truth.convolve_forward(case, x, w, b), 0)
    y, index = truth.find_maxima(case, z)
    dy = draw(rng, y.shape, integers=True)
    dz = np.where(z > 0, truth.return_maxima(case, dy, index, z.shape), 0)
    _, *gradients = truth.convolve(case, x, w, b, dz)
    sandwich = Sandwich(case.window, case.groups, activation="relu", pool=Pool("max", case.pool))
    x, w, b, dy = cast(case, x, w, b, dy)
    for label, backend in list_engines(case, exact=True):
        outputs = backend.conv_sandwich_forward(x, w, b, sandwich)
        check_equal(label, "y", outputs.y, y, case.dtype)
        assert outputs.index is not None
        check_equal(label, "index", outputs.index, index, "int32")
        found = backend.conv_sandwich_backward(dy, x, w, outputs, sandwich)
        for name, actual, right in zip(("dx", "dw", "db"), found, gradients, strict=False):
            assert actual is not None
            check_equal(label, name, actual, right, case.dtype)
        inferred = backend.conv_sandwich_inference(x, w, b, sandwich)
        check_equal(label, "inferred y", inferred, y, case.dtype)
        given = SandwichOutputs(outputs.y, index, outputs.z)  # of another forward pass
        dw = backend.conv_sandwich_backward(dy, x, w, given, sandwich).dw
        check_equal(label, "dw", dw, gradients[1], case.dtype)
        tally.counts[label] += 1
    return np.maximum(y, 0)


def _check_exact_pool(case: Case, rng: np.random.Generator, tally: Tally) -> Array:
    """Max pooling of integers, of which many are equal."""
    assert case.pool is not None
    x = draw(rng, case.x_shape, integers=True)
    y, index = truth.find_maxima(case, x)
    dy = draw(rng, y.shape, integers=True)
    dx = truth.return_maxima(case, dy, index, x.shape)
    for label, backend in list_engines(case, exact=True):
        found, winners = backend.maxpool_forward(x.astype(case.dtype), case.pool)
        check_equal(label, "y", found, y, case.dtype)
        check_equal(label, "index", winners, index, "int32")
        returned = backend.maxpool_backward(dy.astype(case.dtype), winners, case.x_shape, case.pool)
        check_equal(label, "dx", returned, dx, case.dtype)
        tally.counts[label] += 1
    return y


def _check_exact_average(case: Case, rng: np.random.Generator, tally: Tally) -> Array:
    """Average pooling where every division by a number of pixels, from 1 to 4 times 4, comes out even."""
    assert case.pool is not None
    x = 144.0 * draw(rng, case.x_shape, integers=True)
    dy = 144.0 * draw(rng, case.pool_shape(case.x_shape), integers=True)
    y, dx = truth.average(case, x, dy)
    x, dy = cast(case, x, dy)
    for label, backend in list_engines(case, exact=True):
        # A reciprocal in place of a division may err in the last bit, and in nothing else.
        found = np.rint(backend.avgpool_forward(x, case.pool))
        check_equal(label, "y", found, y, case.dtype)
        returned = np.rint(backend.avgpool_backward(dy, case.x_shape, case.pool))
        check_equal(label, "dx", returned, dx, case.dtype)
        tally.counts[label] += 1
    return y


def check_rounding(seed: int, number: int, tally: Tally) -> None:
    """K2: within gamma_K times the sum of magnitudes, and 2 sqrt(K) u of it in the mean square."""
    case = draw_case(seed, number)
    rng = case.create_rng()
    if case.operation == "avgpool":
        shown = _check_rounded_average(case, rng, tally)
    elif case.operation == "maxpool":
        shown = _check_exact_pool(case, rng, tally)
    else:
        x, w, b, dy = draw_arrays(case, rng, integers=False)
        wanted = truth.convolve(case, x, w, b, dy)
        sizes = truth.convolve(case, *map(np.abs, (x, w, b, dy)))
        for label, backend in list_engines(case, exact=False):
            found = run_conv(backend, case, *cast(case, x, w, b, dy))
            winograd = label.startswith("fast") and case.may_use_winograd
            _check_sums(tally, case, label, found, wanted, sizes, winograd)
            tally.counts[label] += 1
        shown = wanted.y
    count_case(tally, shown)


def _check_sums(
    tally: Tally, case: Case, label: str, found: Sums, wanted: Sums, sizes: Sums, winograd: bool
) -> None:
    unit = float(np.finfo(case.dtype).eps) / 2
    for name, terms in zip(Sums._fields, case.terms, strict=True):
        actual, right, size = (getattr(sums, name) for sums in (found, wanted, sizes))
        bound = (compute_gamma(terms, case.dtype) + compute_gamma(terms, "float64")) * size
        stated = getattr(WINOGRAD_BOUNDS[case.dtype], name) if winograd else 0.0
        if stated:
            least = stated * np.abs(right).max(initial=0)
            check_bounded(
                tally, f"{label} Winograd {name}", name, actual, right, np.maximum(bound, least), case.dtype
            )
            continue
        check_bounded(tally, label, name, actual, right, bound, case.dtype)
        if case.dtype == "float32" and size.any():
            shares = (actual - right) / np.maximum(size, 1e-300)
            square = float(np.sqrt(np.mean(np.square(shares)))) / (2 * np.sqrt(terms) * unit)
            if not square <= 1:
                raise Mismatch(f"{label}: {name}: {square:.3g} times 2 sqrt({terms}) u in the mean square")
            tally.note(f"{label} mean square", square)


def _check_rounded_average(case: Case, rng: np.random.Generator, tally: Tally) -> Array:
    assert case.pool is not None
    x = draw(rng, case.x_shape, False, case.dtype)
    dy = draw(rng, case.pool_shape(x.shape), False, case.dtype)
    y, dx = truth.average(case, x, dy)
    y_size, dx_size = truth.average(case, np.abs(x), np.abs(dy))
    gamma = compute_gamma(case.pool.kernel[0] * case.pool.kernel[1] + 2, case.dtype)
    x, dy = cast(case, x, dy)
    for label, backend in list_engines(case, exact=False):
        found = backend.avgpool_forward(x, case.pool)
        check_bounded(tally, label, "y", found, y, 2 * gamma * y_size, case.dtype)
        returned = backend.avgpool_backward(dy, case.x_shape, case.pool)
        check_bounded(tally, label, "dx", returned, dx, 2 * gamma * dx_size, case.dtype)
        tally.counts[label] += 1
    return y


def check_adjoint(seed: int, number: int, tally: Tally) -> None:
    """K3: <A x, dy> = <x, A^T dy> in float64, for every linear map the backends have."""
    case = draw_case(seed, number)
    rng = case.create_rng()
    x, w, b, dy = draw_arrays(case, rng, integers=False, dtype="float64")
    if case.operation in {"maxpool", "avgpool"}:
        dy = draw(rng, case.pool_shape(case.x_shape), False, "float64")
    y = dy
    for label, backend in list_engines(case, exact=False, dtype="float64"):
        if case.operation == "avgpool":
            assert case.pool is not None
            y = backend.avgpool_forward(x, case.pool)
            pairs = {"dx": (x, backend.avgpool_backward(dy, case.x_shape, case.pool))}
        elif case.operation == "maxpool":
            assert case.pool is not None
            y, index = backend.maxpool_forward(x, case.pool)
            pairs = {"dx": (x, backend.maxpool_backward(dy, index, case.x_shape, case.pool))}
        else:
            y, dx, dw, _ = run_conv(backend, case, x, w, np.zeros_like(b), dy)
            pairs = {"dx": (x, dx), "dw": (w, dw)}
        product, scale = float(np.vdot(y, dy)), np.vdot(np.abs(y), np.abs(dy))
        for name, (argument, gradient) in pairs.items():
            error = abs(float(np.vdot(argument, gradient)) - product)
            if not error <= ADJOINT_BOUND * scale:
                raise Mismatch(f"{label}: <x, {name}> differs from <y, dy> by {error:.3g} of {scale:.3g}")
            tally.note(label, error / max(ADJOINT_BOUND * scale, 1e-300))
        tally.counts[label] += 1
    count_case(tally, y)


def check_fused(seed: int, number: int, tally: Tally) -> None:
    """K2 for whatever is fused behind a convolution: one kernel against operations one after the other.

    In float64, where no rounding decides which side of a kink a number falls on; against `im2col`,
    and `naive` where its loops are short.
    """
    case = replace(draw_case(seed, number, "sandwich"), dtype="float64")
    rng = case.create_rng()
    sandwich, (x, w, b, gamma, beta, r) = draw_sandwich(case, rng)
    *references, (label, fast) = list_engines(case, exact=False)
    for reference_label, reference in references:
        wanted = reference.conv_sandwich_forward(x, w, b, sandwich, gamma, beta, r)
        dy = draw(case.create_rng(), wanted.y.shape, False)
        found = fast.conv_sandwich_forward(x, w, b, sandwich, gamma, beta, r)
        right = reference.conv_sandwich_backward(dy, x, w, wanted, sandwich, gamma, beta, r)
        gradients = fast.conv_sandwich_backward(dy, x, w, found, sandwich, gamma, beta, r)
        pairs = {"y": (found.y, wanted.y), "mean": (found.mean, wanted.mean), "var": (found.var, wanted.var)}
        pairs |= {name: (getattr(gradients, name), getattr(right, name)) for name in right._fields}
        if sandwich.norm:
            statistics = wanted.mean, wanted.var
            arguments = (x, w, b, sandwich, gamma, beta, r, *statistics)
            inferred = fast.conv_sandwich_inference(*arguments)
            pairs["inferred y"] = inferred, reference.conv_sandwich_inference(*arguments)
        for name, (actual, target) in pairs.items():
            if actual is None or target is None:
                assert actual is target, name
                continue
            bound = FUSED_BOUND * max(float(np.abs(target).max(initial=0)), 1.0)
            check_bounded(tally, f"{label} {name}", name, actual, target, bound, "float64")
        tally.counts[f"{label} against {reference_label}"] += 1
    count_case(tally, wanted.y)


def draw_sandwich(case: Case, rng: np.random.Generator) -> tuple[Sandwich, tuple[Any, ...]]:
    """Everything that can stand behind a convolution, each with some chance: x, w, b, gamma, beta, r."""
    norm = BatchNormSpec(eps=0.1) if rng.random() < 0.5 else None
    kind = rng.choice(["max", "average", ""])
    pool = Pool(kind, case.pool) if kind and case.pool else None
    activation = rng.choice(np.array([None, *get_args(Activation)], object))
    residual = bool(rng.integers(2))
    sandwich = Sandwich(case.window, case.groups, norm, residual, activation, pool)
    x, w, b, r = draw_arrays(case, rng, integers=False)
    gamma, beta = draw(rng, (2, case.F), False) if norm else (None, None)
    return sandwich, (x, w, b if rng.random() < 0.8 else None, gamma, beta, r if residual else None)


def check_others(seed: int, number: int, tally: Tally) -> None:
    """K2 for norms, dropout, losses and updates: `fast` and `im2col` against `naive`.

    Sums of thousands of numbers differ by their order, so the bounds are shares of the largest result.
    """
    case = draw_case(seed, number, "linear")
    rng = case.create_rng()
    name = str(rng.choice(list(OTHERS)))
    N, extent = (min(e, 20_000) for e in (max(case.x_shape[0], 1), case.x_shape[1]))
    C, pixels = (extent, 1) if rng.random() < 0.5 else (case.F, extent)
    if N * C * pixels > OTHER_ELEMENTS:
        N, C = 1, min(C, OTHER_ELEMENTS // pixels)
    x, dy = (draw(rng, (N, C, pixels, 1), False, case.dtype).astype(case.dtype) for _ in range(2))
    settings = rng.random(4)
    wanted = OTHERS[name](create_engine("naive"), x, dy, settings)
    for label, backend in list_engines(case, exact=False):
        if label.startswith("naive"):
            continue
        for position, (actual, right) in enumerate(
            zip(OTHERS[name](backend, x, dy, settings), wanted, strict=True)
        ):
            bound = OTHER_BOUNDS[case.dtype] * max(float(np.abs(right).max(initial=0)), 1.0)
            what = f"{name} result {position}"
            check_bounded(
                tally, f"{label} {name}", what, np.asarray(actual, case.dtype), right, bound, case.dtype
            )
    tally.counts[name] += 1
    count_case(tally, x)


def _run_batchnorm(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    gamma, beta = (draw(np.random.default_rng(7), (2, x.shape[1]), False) + 2).astype(x.dtype)
    eps = 0.05 + settings[0]
    if settings[1] < 0.3:
        x, dy = x[:, :, 0, 0], dy[:, :, 0, 0]
    y, mean, var = backend.batchnorm_forward(x, gamma, beta, eps)
    inferred = backend.batchnorm_inference(x, gamma, beta, mean + 1, var + 1, eps)
    return [y, mean, var, inferred, *backend.batchnorm_backward(dy, x, gamma, mean, var, eps)]


def _run_groupnorm(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    C = x.shape[1]
    gamma, beta = (draw(np.random.default_rng(7), (2, C), False) + 2).astype(x.dtype)
    divisors = [groups for groups in range(1, C + 1) if C % groups == 0]
    groups, eps = divisors[int(settings[2] * len(divisors))], 0.05 + settings[0]
    if settings[1] < 0.3:
        x, dy = x[:, :, 0, 0], dy[:, :, 0, 0]
    y, mean, var = backend.groupnorm_forward(x, gamma, beta, groups, eps)
    return [y, mean, var, *backend.groupnorm_backward(dy, x, gamma, mean, var, groups, eps)]


def _run_scale(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    w, b = draw(np.random.default_rng(8), (2, x.shape[1]), False).astype(x.dtype)
    if settings[1] < 0.3:
        x, dy = x[:, :, 0, 0], dy[:, :, 0, 0]
    return [backend.scale_forward(x, w, b), *backend.scale_backward(dy, x, w)]


def _run_lrn(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    size = 1 + int(8 * settings[0])
    beta = float(np.array([0.5, 0.75, 1.0, settings[2]])[int(4 * settings[1])])
    arguments = size, 0.5, beta, 1.0 + settings[3]
    return [backend.lrn_forward(x, *arguments), backend.lrn_backward(dy, x, *arguments)]


def _run_dropout(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    rate, seed = float(settings[0]), int(2**60 * settings[1])
    spatial = backend.dropout(x, rate, seed, spatial=True)
    return [backend.dropout(x, rate, seed), backend.dropout(dy[:, :, 0, 0], rate, seed), spatial]


def _run_softmax(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    """Scores of any size: the largest is taken off before e^x could overflow."""
    scores = x[:, :, 0, 0] * x.dtype.type(10 ** (4 * settings[0]))
    labels = np.arange(len(scores)) % scores.shape[1]
    loss, p = backend.softmax_cross_entropy_forward(scores, labels)
    return [np.array(loss), p, backend.softmax_cross_entropy_backward(p, labels)]


def _run_losses(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    """Smoothed and weighted cross-entropy, hinge and squared error."""
    scores = np.ascontiguousarray(x[:, :, 0, 0])
    labels = np.arange(len(scores)) % scores.shape[1]
    smoothing, weights = float(settings[0]), np.abs(dy[0, :, 0, 0]) + 1
    loss, p = backend.softmax_cross_entropy_forward(scores, labels, smoothing, weights)
    margin = 0.1 + float(settings[1])
    losses = (
        loss,
        backend.hinge_forward(scores, labels, margin),
        backend.squared_error_forward(scores, labels),
    )
    return [
        *(np.array(value) for value in losses),
        backend.softmax_cross_entropy_backward(p, labels, smoothing, weights),
        backend.hinge_backward(scores, labels, margin),
        backend.squared_error_backward(scores, labels),
    ]


def _run_sgd(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    w, velocity = x.copy(), np.abs(x)
    rates = {"lr": settings[0], "momentum": settings[1], "dampening": settings[2] / 2, "l2": settings[2]}
    squares = backend.sgd_update(w, dy, velocity, nesterov=settings[3] < 0.5, **rates)
    return [w, velocity, np.array(squares)]


def _run_adam(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    w, m, v = x.copy(), x / 2, np.abs(x)
    rates = {"lr": settings[0], "beta1": 0.99 * settings[1], "l2": settings[2]}
    step, decay = 1 + int(4 * settings[3]), settings[2] / 3
    squares = backend.adam_update(w, dy, m, v, step=step, weight_decay=decay, **rates)
    return [w, m, v, np.array(squares)]


def _run_adagrad(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    w, square = x.copy(), np.abs(x) + 1
    squares = backend.adagrad_update(w, dy, square, lr=settings[0], l2=settings[2])
    return [w, square, np.array(squares)]


def _run_rmsprop(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    """The mean stays well below the root of the squares: rounding would be all of a small difference."""
    w, square, mean = x.copy(), 4 * np.square(x) + 4 * np.square(dy) + 1, x / 2
    velocity = np.abs(x) if settings[3] < 0.6 else None
    slots = square, mean if settings[3] > 0.3 else None, velocity
    rates = {"lr": settings[0], "alpha": 0.5 + settings[1] / 2, "l2": settings[2] / 2}
    squares = backend.rmsprop_update(
        w, dy, *slots, momentum=settings[2] if slots[2] is not None else 0, **rates
    )
    return [w, *(slot for slot in slots if slot is not None), np.array(squares)]


def _run_adamax(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    w, m, u = x.copy(), x / 2, np.abs(x) + 1
    rates = {"lr": settings[0], "beta1": 0.99 * settings[1], "l2": settings[2]}
    squares = backend.adamax_update(w, dy, m, u, step=1 + int(4 * settings[3]), beta2=0.9, **rates)
    return [w, m, u, np.array(squares)]


def _run_lion(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    """Weights and momentum have the gradient's signs, so that rounding decides none."""
    w, m = (np.copysign(x, dy) for _ in range(2))
    rates = {"lr": settings[0], "beta1": settings[1], "weight_decay": settings[2], "l2": settings[3]}
    squares = backend.lion_update(w, dy, m, beta2=0.9, **rates)
    return [w, m, np.array(squares)]


def _run_l1(backend: Backend, x: Array, dy: Array, settings: Array) -> Sequence[Array]:
    """Some weights are 0."""
    w, dw = x * (np.abs(x) > settings[0]), dy.copy()
    return [dw, np.array(backend.add_l1_gradient(w, dw, settings[1]))]


OTHERS: dict[str, Callable[[Backend, Array, Array, Array], Sequence[Array]]] = {
    "batchnorm": _run_batchnorm,
    "groupnorm": _run_groupnorm,
    "scale": _run_scale,
    "lrn": _run_lrn,
    "dropout": _run_dropout,
    "softmax": _run_softmax,
    "losses": _run_losses,
    "sgd": _run_sgd,
    "adam": _run_adam,
    "adagrad": _run_adagrad,
    "rmsprop": _run_rmsprop,
    "adamax": _run_adamax,
    "lion": _run_lion,
    "l1": _run_l1,
}
OTHER_ELEMENTS = 60_000
OTHER_BOUNDS = {"float32": 2e-5, "float64": 1e-12}


# What the rows share


def count_case(tally: Tally, shown: Array) -> None:
    """Count a case, unless nearly everything it compared is 0."""
    counts = shown.size and np.count_nonzero(shown) >= NONZERO * shown.size
    tally.counts["cases" if counts else "void"] += 1


def list_engines(case: Case, *, exact: bool, dtype: str | None = None) -> Iterator[tuple[str, Backend]]:
    """The backends a case is run on, labelled; `naive` where its loops are short."""
    dtype = dtype or case.dtype
    if case.suits_naive:
        yield f"naive {dtype}", create_engine("naive")
    yield f"im2col {dtype}", create_engine("im2col")
    yield f"fast {dtype}", create_engine("fast", case.threads, case.isa, exact or not case.winograd)


@cache
def create_engine(name: str, threads: int = 1, isa: str | None = None, exact: bool = False) -> Backend:
    """A backend, made once."""
    settings = {"isa": isa, "exact": exact} if name == "fast" else {}
    return create_backend(name, threads, **settings)


def draw_arrays(
    case: Case, rng: np.random.Generator, *, integers: bool, dtype: str | None = None
) -> tuple[Array, Array, Array, Array]:
    """x, w, b, dy of the case's convolution, in float64."""
    shapes = (case.x_shape, case.w_shape, (case.F,), case.conv_shape)
    x, w, b, dy = (draw(rng, shape, integers, dtype or case.dtype) for shape in shapes)
    return x, w, b, dy


def cast(case: Case, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in the case's element type."""
    return tuple(array.astype(case.dtype) for array in arrays)


def run_conv(backend: Backend, case: Case, x: Array, w: Array, b: Array, dy: Array) -> Sums:
    """Forward and backward, of a convolution or a linear operation."""
    if case.operation == "linear":
        x, w, dy = (array.reshape(array.shape[:2]) for array in (x, w, dy))
        y = backend.linear_forward(x, w, b)
        dx, dw, db = backend.linear_backward(dy, x, w)
        assert dx is not None
        y, dx, dw = (array.reshape(*array.shape, 1, 1) for array in (y, dx, dw))
        return Sums(y, dx, dw, db)
    y = backend.conv_forward(x, w, b, case.window, case.groups)
    dx, dw, db = backend.conv_backward(dy, x, w, case.window, case.groups)
    assert dx is not None
    return Sums(y, dx, dw, db)
