"""Every part of a fused convolution, in every combination, against the single operations in a row.

The single operations are held against their definitions elsewhere; here they are the
reference, run by the naive backend in float64.
"""

from functools import cache
from typing import NamedTuple, get_args

import numpy as np
import pytest
from numpy.typing import DTypeLike

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend, SandwichGradients, SandwichOutputs
from cnnctl.backends.specs import Activation, Array, BatchNormSpec, ConvSpec, Pool, Sandwich
from cnnctl.backends.stage import Buffers
from cnnctl.errors import ShapeError
from cnnctl.geometry import Window
from tests.backends.direct import create_rng

NORM = BatchNormSpec(eps=1e-3, momentum=0.25)
ACTIVATIONS: tuple[Activation | None, ...] = (None, *get_args(Activation))
POOLS = {
    "no pool": None,
    "max": Pool("max", Window.create(2, 2)),
    "overlapping max": Pool("max", Window.create(3, 2, 1)),
    "average": Pool("average", Window.create(2, 2)),
    "padded average": Pool("average", Window.create(3, 2, 1)),
}
CONVOLUTIONS = {
    "same": ((3, 3, 6, 5), 5, Window.create(3, 1, 1), 1),
    "many channels": ((2, 17, 5, 6), 33, Window.create(3, 1, 1), 1),
    "strided groups": ((2, 4, 9, 8), 6, Window.create(3, 2, 1), 2),
}


class Case(NamedTuple):
    """Arguments of one fused convolution, in float64."""

    x: Array
    w: Array
    b: Array | None
    sandwich: Sandwich
    gamma: Array | None
    beta: Array | None
    r: Array | None
    mean: Array | None
    var: Array | None
    dy: Array

    def cast(self, dtype: str) -> "Case":
        return Case(*(part.astype(dtype) if isinstance(part, np.ndarray) else part for part in self))


@cache
def make_case(conv: str, norm: bool, residual: bool, activation: Activation | None, pool: str) -> Case:
    x_shape, F, window, groups = CONVOLUTIONS[conv]
    rng = create_rng(f"{conv} {norm} {residual} {activation} {pool}")
    size = window.output_size(*x_shape[2:])
    pooling = POOLS[pool]
    pooled = pooling.window.output_size(*size) if pooling else size

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    return Case(
        x=draw(*x_shape),
        w=0.3 * draw(F, x_shape[1] // groups, *window.kernel),
        b=None if norm else draw(F),
        sandwich=Sandwich(window, groups, NORM if norm else None, residual, activation, pooling),
        gamma=draw(F) if norm else None,
        beta=draw(F) if norm else None,
        r=draw(x_shape[0], F, *size) if residual else None,
        mean=draw(F) if norm else None,
        var=np.abs(draw(F)) + 0.1 if norm else None,
        dy=draw(x_shape[0], F, *pooled),
    )


class Truth(NamedTuple):
    outputs: SandwichOutputs
    gradients: SandwichGradients
    inferred: Array


@cache
def compute_truth(*key: object) -> Truth:
    """One operation after the other."""
    naive = create_backend("naive")
    x, w, b, sandwich, gamma, beta, r, mean, var, dy = make_case(*key)

    def finish(u: Array) -> tuple[Array, Array, Array | None]:
        u = u if r is None else u + r
        a = naive.activation_forward(u, sandwich.activation) if sandwich.activation else u
        if sandwich.pool is None:
            return u, a, None
        if sandwich.pool.kind == "max":
            return u, *naive.maxpool_forward(a, sandwich.pool.window)
        return u, naive.avgpool_forward(a, sandwich.pool.window), None

    z = naive.conv_forward(x, w, b, sandwich.window, sandwich.groups)
    normed, inferred = z, z
    batch: tuple[Array | None, Array | None] = (None, None)
    if sandwich.norm:
        results = naive.batchnorm_forward(z, gamma, beta, NORM.eps)
        normed, batch = results[0], results[1:]
        inferred = naive.batchnorm_inference(z, gamma, beta, mean, var, NORM.eps)
    u, y, index = finish(normed)

    du = dy
    if sandwich.pool and sandwich.pool.kind == "max":
        du = naive.maxpool_backward(du, index, z.shape, sandwich.pool.window)
    elif sandwich.pool:
        du = naive.avgpool_backward(du, z.shape, sandwich.pool.window)
    if sandwich.activation:
        a = naive.activation_forward(u, sandwich.activation)
        du = naive.activation_backward(du, u, a, sandwich.activation)
    dz = du
    dnorm: tuple[Array | None, Array | None] = (None, None)
    if sandwich.norm:
        results = naive.batchnorm_backward(du, z, gamma, *batch, NORM.eps)
        dz, dnorm = results[0], results[1:]
    gradients = naive.conv_backward(dz, x, w, sandwich.window, sandwich.groups)
    outputs = SandwichOutputs(y, index, z if sandwich.keeps_z else None, *batch)
    truth = SandwichGradients(*gradients, *dnorm, du if r is not None else None)
    return Truth(outputs, truth, finish(inferred)[1])


def assert_near(actual: Array | None, expected: Array | None, dtype: str, name: str) -> None:
    if expected is None:
        assert actual is None, name
        return
    assert actual is not None, name
    assert actual.dtype == dtype, name
    scale = np.abs(expected).max()
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale + 1e-30, err_msg=name)


def over_all_combinations(test: object) -> object:
    for name, values in {
        "pool": POOLS,
        "activation": ACTIVATIONS,
        "residual": [False, True],
        "norm": [False, True],
        "conv": CONVOLUTIONS,
    }.items():
        test = pytest.mark.parametrize(name, values)(test)
    return test


@over_all_combinations
def test_parts(
    backend: Backend,
    conv: str,
    norm: bool,
    residual: bool,
    activation: Activation | None,
    pool: str,
    dtype: str,
) -> None:
    key = (conv, norm, residual, activation, pool)
    truth, case = compute_truth(*key), make_case(*key).cast(dtype)
    arguments, (mean, var, dy) = case[:7], case[7:]
    x, w, _, sandwich, *extras = arguments
    outputs = backend.conv_sandwich_forward(*arguments)
    for name in ("y", "z", "mean", "var"):
        assert_near(getattr(outputs, name), getattr(truth.outputs, name), dtype, name)
    assert_near(backend.conv_sandwich_inference(*arguments, mean, var), truth.inferred, dtype, "inference")

    # A rounding error may let another tap win: backward is given the winners and values of the truth.
    given = SandwichOutputs(
        *(
            part.astype(dtype) if part is not None and part.dtype == np.float64 else part
            for part in (getattr(truth.outputs, name) for name in ("y", "index", "z", "mean", "var"))
        )
    )
    gradients = backend.conv_sandwich_backward(dy, x, w, given, sandwich, *extras)
    dz_is_near_zero_sum = norm  # db is then 0 but for rounding
    for name, actual, expected in zip(gradients._fields, gradients, truth.gradients, strict=True):
        if name == "db" and dz_is_near_zero_sum:
            assert actual is not None
            assert np.abs(actual).max() < (1e-3 if dtype == "float32" else 1e-11)
            continue
        assert_near(actual, expected, dtype, name)
    without_dx = backend.conv_sandwich_backward(dy, x, w, given, sandwich, *extras, need_dx=False)
    assert without_dx.dx is None
    assert gradients.dw is not None
    np.testing.assert_array_equal(without_dx.dw, gradients.dw)


def test_a_training_stage_moves_its_statistics(
    backend: Backend, dtype: str, rng: np.random.Generator
) -> None:
    """running <- (1 - momentum) running + momentum batch, with the unbiased variance."""
    sandwich = Sandwich(Window.create(3, 1, 1), norm=NORM)
    x = rng.standard_normal((4, 2, 3, 3)).astype(dtype)
    w = rng.standard_normal((5, 2, 3, 3)).astype(dtype)
    z = create_backend("naive").conv_forward(x, w, None, sandwich.window)
    spec = ConvSpec(sandwich, 5, bias=False)
    layout = backend.create_layout((2, 3, 3), np.dtype(dtype), [spec])
    stage = backend.create_stage(spec, layout, np.dtype(dtype))

    def make(size: int, kind: DTypeLike | None = None) -> Array:
        return np.zeros(size, kind or dtype)

    stage.buffers = Buffers(
        x=make(4 * layout.size).reshape(4, -1),
        y=make(4 * stage.output.size).reshape(4, -1),
        params={key: np.ones(p.inner, dtype) for key, p in stage.parameters.items()},
        statistics={key: np.zeros(p.inner, dtype) for key, p in stage.statistics.items()},
        saved={key: make(4 * size, kind).reshape(4, -1) for key, (size, kind) in stage.saved.items()}
        | {key: make(size, kind) for key, (size, kind) in stage.saved_once.items()},
        scratch=make(stage.scratch_elements(4)),
    )
    layout.load(x, stage.buffers.x)
    stage.parameters["weight"].load(w, stage.buffers.params["weight"])
    for key, start in (("running_mean", 3.0), ("running_var", 2.0)):
        stage.statistics[key].load(np.full(5, start, dtype), stage.buffers.statistics[key])
    stage.forward(4, training=True)
    mean, var = z.mean(axis=(0, 2, 3)), z.var(axis=(0, 2, 3), ddof=1)
    for key, expected in (("running_mean", 0.75 * 3 + 0.25 * mean), ("running_var", 0.75 * 2 + 0.25 * var)):
        found = stage.statistics[key].read(stage.buffers.statistics[key])
        np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == "float32" else 1e-13)
        before = found.copy()
        stage.forward(4, training=False)
        np.testing.assert_array_equal(stage.statistics[key].read(stage.buffers.statistics[key]), before)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"gamma": 5}, "gamma: given, but the sandwich says otherwise"),
        ({"norm": NORM, "gamma": 5}, "beta: missing, but the sandwich says otherwise"),
        ({"norm": NORM, "gamma": 4, "beta": 5}, r"gamma: shape \(4,\) where \(5,\) is needed"),
        ({"residual": True}, "r: missing, but the sandwich says otherwise"),
    ],
)
def test_what_a_sandwich_refuses(backend: Backend, parts: dict[str, object], line: str) -> None:
    x, w = np.zeros((1, 2, 4, 4)), np.zeros((5, 2, 1, 1))
    arrays = {key: np.zeros(parts[key]) for key in ("gamma", "beta") if key in parts}
    settings = {key: value for key, value in parts.items() if key not in arrays}
    sandwich = Sandwich(Window.create(1), **settings)
    with pytest.raises(ShapeError, match=line):
        backend.conv_sandwich_forward(x, w, None, sandwich, **arrays)
