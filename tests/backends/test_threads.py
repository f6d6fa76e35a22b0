"""What the number of threads may change: the time, and nothing else."""

from typing import Any, get_args

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from cnnctl.backends import BACKENDS, create_backend, im2col
from cnnctl.backends.specs import Activation, Array
from cnnctl.geometry import Window
from tests.backends.direct import draw

WINDOW = Window.create(3, padding=1)

over_threads = pytest.mark.parametrize("threads", [2, 3, 8])


def compute_all(name: str, threads: int, fill: str) -> list[Array]:
    """Every operation that threads share, on sums long enough to be split."""
    rng = np.random.default_rng(231)
    backend = create_backend(name, threads)
    shapes = [(5, 7, 6, 6), (6, 7, 3, 3), (5, 6, 6, 6), (5, 3000), (9, 3000), (5, 9)]
    x, w, dy, features, matrix, dscores = (draw(rng, shape, fill).astype("float32") for shape in shapes)
    forward = [backend.conv_forward(x, w, None, WINDOW), backend.linear_forward(features, matrix, None)]
    dx, dw, db = backend.conv_backward(dy, x, w, WINDOW)
    dfeatures, dmatrix, dbias = backend.linear_backward(dscores, features, matrix)
    assert dx is not None
    assert dfeatures is not None
    return [*forward, dx, dw, db, dfeatures, dmatrix, dbias]


def compute_elementwise(name: str, threads: int) -> list[Array]:
    """The operations that are cut into blocks of memory, images or rows, each of several blocks."""
    rng = np.random.default_rng(232)
    backend = create_backend(name, threads)
    x, dy = rng.standard_normal((2, 9, 20, 24, 24)).astype("float32")
    gamma, beta = rng.standard_normal((2, 20)).astype("float32")
    results = []
    for activation in get_args(Activation):
        results.append(backend.activation_forward(x, activation))
        results.append(backend.activation_backward(dy, x, results[-1], activation))
    results += [backend.avgpool_forward(x, WINDOW), backend.avgpool_backward(dy, (9, 20, 24, 24), WINDOW)]
    normed = backend.batchnorm_forward(x, gamma, beta, 1e-5)
    results += [*normed, *backend.batchnorm_backward(dy, x, gamma, *normed[1:], 1e-5)]
    results += [backend.lrn_forward(x, 5, 0.1, 0.75, 1.0), backend.lrn_backward(dy, x, 5, 0.1, 0.75, 1.0)]
    grouped = backend.groupnorm_forward(x, gamma, beta, 5, 1e-5)
    results += [*grouped, *backend.groupnorm_backward(dy, x, gamma, *grouped[1:], 5, 1e-5)]
    results += [backend.scale_forward(x, gamma, beta), *backend.scale_backward(dy, x, gamma)]
    results += [backend.dropout(x, 0.5, 3), backend.dropout(x, 0.5, 3, spatial=True)]
    scores, labels = rng.standard_normal((2000, 11)).astype("float32"), rng.integers(11, size=2000)
    loss, p = backend.softmax_cross_entropy_forward(scores, labels)
    return [*results, np.array(loss), p, backend.softmax_cross_entropy_backward(p, labels)]


@over_threads
@pytest.mark.parametrize("name", ["naive", "fast"])
def test_results_are_the_same_to_the_last_bit(name: str, threads: int) -> None:
    alone, together = compute_all(name, 1, "float32"), compute_all(name, threads, "float32")
    for one, several in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, several)


@over_threads
@pytest.mark.parametrize("name", ["im2col", "fast"])
def test_results_of_blocks_are_the_same_to_the_last_bit(name: str, threads: int) -> None:
    alone, together = compute_elementwise(name, 1), compute_elementwise(name, threads)
    for one, several in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, several)


@over_threads
@pytest.mark.parametrize("name", BACKENDS)
def test_integer_sums_are_the_same_even_where_a_blas_splits_them(name: str, threads: int) -> None:
    alone, together = compute_all(name, 1, "integers"), compute_all(name, threads, "integers")
    for one, several in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("threads", [1, 2])
def test_im2col_holds_the_blas_to_its_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives it back as it was."""
    seen = []
    copy_columns = im2col._copy_columns

    def count_and_copy(*arguments: Any) -> Array:
        seen.append(count_blas_threads())
        return copy_columns(*arguments)

    monkeypatch.setattr(im2col, "_copy_columns", count_and_copy)
    before = count_blas_threads()
    x, w = np.ones((3, 2, 4, 4)), np.ones((2, 2, 3, 3))
    create_backend("im2col", threads).conv_forward(x, w, None, WINDOW)
    assert seen == 3 * [threads]
    assert count_blas_threads() == before


def count_blas_threads() -> int:
    (pool,) = ThreadpoolController().select(user_api="blas").info()
    threads: int = pool["num_threads"]
    return threads
