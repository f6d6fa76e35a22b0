"""Group norm over the hostile table: statistics, values and gradients against loops in float64."""

from functools import cache
from math import fsum, sqrt
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from tests.backends.direct import cast, create_rng, draw
from tests.backends.test_batchnorm import assert_near
from tests.hostile_shapes import GROUP_NORM_CASES, GroupNormCase

over_the_table = pytest.mark.parametrize("case", GROUP_NORM_CASES, ids=attrgetter("name"))

EPS = 1e-3


class GroupNormTruth(NamedTuple):
    x: Array
    gamma: Array
    beta: Array
    dy: Array
    mean: Array
    var: Array
    y: Array
    dx: Array
    dgamma: Array
    dbeta: Array


@cache
def compute_norm(case: GroupNormCase, fill: str) -> GroupNormTruth:
    """Inputs drawn for a case, and what the formulas make of them, value by value."""
    rng, (N, C, *_) = create_rng(case.name), case.shape
    x, dy = 3 * draw(rng, case.shape, fill) + 1, draw(rng, case.shape, fill)
    gamma, beta = draw(rng, (C,), fill), draw(rng, (C,), fill)
    mean, var = np.zeros((2, N, case.groups))
    y, dx, z = np.zeros((3, *case.shape))
    size = C // case.groups
    for n, g in np.ndindex(N, case.groups):
        own = slice(g * size, (g + 1) * size)
        spread = gamma[own].reshape(-1, *(x.ndim - 2) * (1,))
        values = x[n, own].ravel().tolist()
        mean[n, g] = fsum(values) / len(values)
        var[n, g] = fsum((value - mean[n, g]) ** 2 for value in values) / len(values)
        deviation = sqrt(var[n, g] + EPS)
        z[n, own] = (x[n, own] - mean[n, g]) / deviation
        y[n, own] = spread * z[n, own] + beta[own].reshape(spread.shape)
        dz = spread * dy[n, own]
        along = fsum((dz * z[n, own]).ravel().tolist()) / len(values)
        dx[n, own] = (dz - fsum(dz.ravel().tolist()) / len(values) - z[n, own] * along) / deviation
    dgamma = [fsum((dy[:, c] * z[:, c]).ravel().tolist()) for c in range(C)]
    dbeta = [fsum(dy[:, c].ravel().tolist()) for c in range(C)]
    return GroupNormTruth(x, gamma, beta, dy, mean, var, y, dx, np.array(dgamma), np.array(dbeta))


@over_the_table
def test_statistics_and_values(backend: Backend, case: GroupNormCase, dtype: str) -> None:
    truth = compute_norm(case, dtype)
    x, gamma, beta = cast(dtype, truth.x, truth.gamma, truth.beta)
    y, mean, var = backend.groupnorm_forward(x, gamma, beta, case.groups, EPS)
    largest = np.abs(truth.x).max(initial=1)
    assert_near(mean, truth.mean, largest, dtype)
    assert_near(var, truth.var, truth.var.max(initial=0) + largest, dtype)
    assert_near(y, truth.y, 30, dtype)
    if x.size > 50 * x.shape[0] * case.groups:
        assert np.abs(y).max() > 1


@over_the_table
def test_gradients(backend: Backend, case: GroupNormCase, dtype: str) -> None:
    truth = compute_norm(case, dtype)
    x, gamma, dy, mean, var = cast(dtype, truth.x, truth.gamma, truth.dy, truth.mean, truth.var)
    dx, dgamma, dbeta = backend.groupnorm_backward(dy, x, gamma, mean, var, case.groups, EPS)
    count = max(x.size // len(gamma), 1)
    steepness = float(np.max(1 / np.sqrt(truth.var + EPS), initial=1))
    assert_near(dgamma, truth.dgamma, 3 * count * steepness, dtype)
    assert_near(dbeta, truth.dbeta, 3 * count, dtype)
    assert_near(dx, truth.dx, 30 * steepness * (1 + steepness), dtype)
    if x.size > 50 * x.shape[0] * case.groups:
        assert np.abs(dx).max() > 0.1


def test_one_image_at_a_time_gives_the_same(backend: Backend, dtype: str, rng: np.random.Generator) -> None:
    (x, dy), (gamma, beta) = cast(dtype, *rng.standard_normal((2, 5, 6, 4, 3))), cast(dtype, *np.ones((2, 6)))
    y, mean, var = backend.groupnorm_forward(x, gamma, beta, 3, EPS)
    dx, dgamma, _ = backend.groupnorm_backward(dy, x, gamma, mean, var, 3, EPS)
    alone = np.zeros(6)
    for n in range(5):
        own = slice(n, n + 1)
        np.testing.assert_array_equal(backend.groupnorm_forward(x[own], gamma, beta, 3, EPS)[0], y[own])
        one = backend.groupnorm_backward(dy[own], x[own], gamma, mean[own], var[own], 3, EPS)
        np.testing.assert_array_equal(one[0], dx[own])
        alone += one[1]
    np.testing.assert_allclose(dgamma, alone, rtol=0, atol=100 * np.finfo(dtype).eps)


def test_a_far_mean_does_not_drown_the_variance(backend: Backend, dtype: str) -> None:
    """The mean of squares less the square of the mean would leave no digit of it in float32."""
    (x,) = cast(dtype, 1e4 + np.random.default_rng(0).standard_normal((2, 4, 40, 41)))
    ones = np.ones(4, dtype)
    _, mean, var = backend.groupnorm_forward(x, ones, ones, 2, EPS)
    exact = x.astype(np.float64).reshape(2, 2, -1)
    np.testing.assert_allclose(mean, exact.mean(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(axis=-1), rtol=1e-3)


def test_channels_of_a_group_may_differ_in_their_means(backend: Backend, dtype: str) -> None:
    """The variance is that about the group's mean, not about the channels'."""
    (x,) = cast(dtype, np.arange(4.0).reshape(1, 4, 1, 1) + np.zeros((1, 4, 3, 2)))
    ones, zeros = np.ones(4, dtype), np.zeros(4, dtype)
    y, mean, var = backend.groupnorm_forward(x, ones, zeros, 2, 1e-12)
    np.testing.assert_allclose(mean, [[0.5, 2.5]])
    np.testing.assert_allclose(var, [[0.25, 0.25]])
    np.testing.assert_allclose(y[0, :, 0, 0], [-1, 1, -1, 1], rtol=1e-6)


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_special_value_spoils_its_group_alone(backend: Backend, special: float, dtype: str) -> None:
    rng = np.random.default_rng(1)
    (x, dy), ones = cast(dtype, *rng.standard_normal((2, 3, 6, 3, 3))), np.ones(6, dtype)
    x = x.copy()
    x[1, 2, 1, 1] = special
    y, mean, var = backend.groupnorm_forward(x, ones, ones, 3, EPS)
    dx, *_ = backend.groupnorm_backward(dy, x, ones, mean, var, 3, EPS)
    spoilt = np.zeros(x.shape, bool)
    spoilt[1, 2:4] = True
    for result in (y, dx):
        np.testing.assert_array_equal(np.isnan(result), spoilt)
