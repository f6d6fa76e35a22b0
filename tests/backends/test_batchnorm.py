"""Batch norm over the hostile table: statistics, values and gradients against loops in float64."""

from functools import cache
from math import fsum, sqrt
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from tests.backends.direct import cast, create_rng, draw
from tests.hostile_shapes import NORM_CASES, NormCase

over_the_table = pytest.mark.parametrize("case", NORM_CASES, ids=attrgetter("name"))

EPS = 1e-5


class NormTruth(NamedTuple):
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
def compute_norm(case: NormCase, fill: str) -> NormTruth:
    """Inputs drawn for a case, and what the formulas make of them, channel by channel."""
    rng, C = create_rng(case.name), case.shape[1]
    x, dy = 3 * draw(rng, case.shape, fill) + 1, draw(rng, case.shape, fill)
    gamma, beta = draw(rng, (C,), fill), draw(rng, (C,), fill)
    mean, var, dgamma, dbeta = np.zeros((4, C))
    y, dx = np.zeros(case.shape), np.zeros(case.shape)
    for c in range(C):
        values, slopes = x[:, c].ravel().tolist(), dy[:, c].ravel().tolist()
        count = max(len(values), 1)
        mean[c] = fsum(values) / count
        var[c] = fsum((value - mean[c]) ** 2 for value in values) / count
        deviation = sqrt(var[c] + EPS)
        z = (x[:, c] - mean[c]) / deviation
        dgamma[c], dbeta[c] = fsum((dy[:, c] * z).ravel().tolist()), fsum(slopes)
        y[:, c] = gamma[c] * z + beta[c]
        dx[:, c] = gamma[c] / deviation * (dy[:, c] - dbeta[c] / count - z * dgamma[c] / count)
    return NormTruth(x, gamma, beta, dy, mean, var, y, dx, dgamma, dbeta)


def assert_near(actual: Array, expected: Array, scale: float, dtype: str) -> None:
    """Within a few last bits of `scale`, the size of what had to be added up."""
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=64 * np.finfo(dtype).eps * scale)


@over_the_table
def test_statistics_and_values(backend: Backend, case: NormCase, dtype: str) -> None:
    truth = compute_norm(case, dtype)
    x, gamma, beta = cast(dtype, truth.x, truth.gamma, truth.beta)
    y, mean, var = backend.batchnorm_forward(x, gamma, beta, EPS)
    largest = np.abs(truth.x).max(initial=1)
    assert_near(mean, truth.mean, largest, dtype)
    assert_near(var, truth.var, truth.var.max() + largest, dtype)
    assert_near(y, truth.y, 30, dtype)
    if x.size > 50:
        assert np.abs(y).max() > 1


@over_the_table
def test_gradients(backend: Backend, case: NormCase, dtype: str) -> None:
    truth = compute_norm(case, dtype)
    x, gamma, dy, mean, var = cast(dtype, truth.x, truth.gamma, truth.dy, truth.mean, truth.var)
    dx, dgamma, dbeta = backend.batchnorm_backward(dy, x, gamma, mean, var, EPS)
    count = max(x.size // len(gamma), 1)
    steepness = float(np.max(1 / np.sqrt(truth.var + EPS)))
    assert_near(dgamma, truth.dgamma, 3 * count, dtype)
    assert_near(dbeta, truth.dbeta, 3 * count, dtype)
    assert_near(dx, truth.dx, 30 * steepness * (1 + steepness), dtype)
    if x.size > 50:
        assert np.abs(dx).max() > 0.1


@over_the_table
def test_inference_takes_the_statistics_it_is_given(backend: Backend, case: NormCase, dtype: str) -> None:
    truth = compute_norm(case, dtype)
    x, gamma, beta = cast(dtype, truth.x, truth.gamma, truth.beta)
    mean, var = cast(dtype, truth.beta, truth.gamma**2 + 0.5)
    y = backend.batchnorm_inference(x, gamma, beta, mean, var, EPS)
    spread = (-1, *(case.shape[2:] and (1, 1)))
    g, b, m, v = (array.astype(np.float64).reshape(spread) for array in (gamma, beta, mean, var))
    assert_near(y, g * (x - m) / np.sqrt(v + EPS) + b, 100, dtype)


@over_the_table
def test_forward_is_inference_with_the_batch_s_own_statistics(
    backend: Backend, case: NormCase, dtype: str
) -> None:
    truth = compute_norm(case, dtype)
    x, gamma, beta = cast(dtype, truth.x, truth.gamma, truth.beta)
    y, mean, var = backend.batchnorm_forward(x, gamma, beta, EPS)
    np.testing.assert_array_equal(backend.batchnorm_inference(x, gamma, beta, mean, var, EPS), y)


def test_a_far_mean_does_not_drown_the_variance(backend: Backend, dtype: str) -> None:
    """The mean of squares less the square of the mean would leave no digit of it in float32."""
    x = 1e4 + np.random.default_rng(0).standard_normal((40, 3, 9, 11))
    x[0, :, 0, 0] = -1e4  # nor does a first value that is far from all others
    (x,) = cast(dtype, x)
    gamma, beta = np.ones(3, dtype), np.zeros(3, dtype)
    expected = x.astype(np.float64).var(axis=(0, 2, 3))
    _, mean, var = backend.batchnorm_forward(x, gamma, beta, EPS)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, expected, rtol=1e-5)
    assert expected.min() > 1e4

    (x,) = cast(dtype, np.where(x < 0, 1e4, x))
    _, _, var = backend.batchnorm_forward(x, gamma, beta, EPS)
    expected = x.astype(np.float64).var(axis=(0, 2, 3))
    np.testing.assert_allclose(var, expected, rtol=1e-3)
    assert expected.max() < 2


def test_a_channel_of_one_value_is_its_offset(backend: Backend, dtype: str) -> None:
    x = np.full((4, 2, 3, 3), 7, dtype)
    gamma, beta = cast(dtype, [2, -3], [0.5, 8])
    y, mean, var = backend.batchnorm_forward(x, gamma, beta, EPS)
    np.testing.assert_array_equal(mean, 7)
    np.testing.assert_array_equal(var, 0)
    np.testing.assert_array_equal(y, np.broadcast_to(beta.reshape(2, 1, 1), x.shape))


def test_no_images_have_no_statistics(backend: Backend, dtype: str) -> None:
    x, ones = np.zeros((0, 3, 2, 2), dtype), np.ones(3, dtype)
    y, mean, var = backend.batchnorm_forward(x, ones, ones, EPS)
    assert (y.shape, mean.tolist(), var.tolist()) == (x.shape, [0, 0, 0], [0, 0, 0])
    dx, dgamma, dbeta = backend.batchnorm_backward(x, x, ones, mean, var, EPS)
    assert (dx.shape, dgamma.tolist(), dbeta.tolist()) == (x.shape, [0, 0, 0], [0, 0, 0])


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_special_value_spoils_its_channel_alone(backend: Backend, special: float, dtype: str) -> None:
    rng = np.random.default_rng(1)
    (x, dy), ones = cast(dtype, *rng.standard_normal((2, 5, 4, 3, 3))), np.ones(4, dtype)
    x = x.copy()
    x[3, 2, 1, 1] = special
    y, mean, var = backend.batchnorm_forward(x, ones, ones, EPS)
    dx, *_ = backend.batchnorm_backward(dy, x, ones, mean, var, EPS)
    for result in (y, dx):
        assert np.isnan(result[:, 2]).all()
        assert np.isfinite(np.delete(result, 2, axis=1)).all()
