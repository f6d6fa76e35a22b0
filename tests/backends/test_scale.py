"""Scaling of channels: values and sums over the hostile table of norms, against loops in float64."""

from math import fsum
from operator import attrgetter

import numpy as np
import pytest

from cnnctl.backends.base import Backend
from tests.backends.direct import cast, create_rng, draw
from tests.hostile_shapes import NORM_CASES, NormCase

over_the_table = pytest.mark.parametrize("case", NORM_CASES, ids=attrgetter("name"))


@over_the_table
def test_values_and_gradients(backend: Backend, case: NormCase, dtype: str) -> None:
    rng, C = create_rng(case.name), case.shape[1]
    shapes = (case.shape, case.shape, (C,), (C,))
    exact = [draw(rng, shape, dtype) for shape in shapes]
    x, dy, w, b = cast(dtype, *exact)
    y = backend.scale_forward(x, w, b)
    dx, dw, db = backend.scale_backward(dy, x, w)
    assert {array.dtype for array in (y, dx, dw, db)} == {np.dtype(dtype)}
    eps, count = np.finfo(dtype).eps, max(x.size // C, 1)
    for c in range(C):
        values, slopes, factor, offset = exact[0][:, c], exact[1][:, c], exact[2][c], exact[3][c]
        bound = 2 * eps * (np.abs(factor * values) + abs(offset)) + np.finfo(dtype).tiny
        assert (np.abs(y[:, c] - (factor * values + offset)) <= bound).all()
        np.testing.assert_allclose(dx[:, c], factor * slopes, rtol=2 * eps)
        products = (slopes * values).ravel().tolist()
        assert abs(dw[c] - fsum(products)) <= count * eps * fsum(map(abs, products))
        assert abs(db[c] - fsum(slopes.ravel().tolist())) <= count * eps * fsum(
            np.abs(slopes).ravel().tolist()
        )
    if x.size:
        assert np.count_nonzero(y) > x.size // 2


def test_a_special_value_stays_where_it_is(backend: Backend, dtype: str) -> None:
    x, ones = np.ones((3, 5, 2, 2), dtype), np.ones(5, dtype)
    x[1, 3, 0, 1] = np.nan
    y = backend.scale_forward(x, ones, ones)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    dx, dw, db = backend.scale_backward(np.ones_like(x), x, ones)
    np.testing.assert_array_equal(dx, 1)
    np.testing.assert_array_equal(np.isnan(dw), np.arange(5) == 3)
    np.testing.assert_array_equal(db, 12)
