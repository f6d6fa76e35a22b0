"""What only the C kernels can get wrong: instruction sets, threads, forks, scratch."""

import os
import threading
from typing import get_args

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.fast import INSTRUCTION_SETS, FastBackend
from cnnctl.backends.specs import Activation, Array
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.geometry import Window
from tests.hostile_shapes import (
    CONV_CASES,
    GROUP_NORM_CASES,
    LINEAR_CASES,
    LRN_CASES,
    NORM_CASES,
    POOL_CASES,
    SANDWICH_CASES,
)


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Small integers: every sum of products is exact, so any order gives the same bits."""
    return rng.integers(-4, 5, shape).astype(dtype)


@pytest.fixture(params=INSTRUCTION_SETS)
def fast(request: pytest.FixtureRequest) -> FastBackend:
    return FastBackend(threads=2, isa=request.param)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_instruction_set_is_exact_on_integers(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    for case in SANDWICH_CASES:
        conv = case.conv
        x = integers(rng, conv.x_shape, dtype)
        w = integers(rng, (conv.F, conv.x_shape[1] // conv.groups, *conv.window.kernel), dtype)
        b = integers(rng, (conv.F,), dtype)
        outputs = reference.conv_sandwich_forward(x, w, b, case.sandwich)
        actual = fast.conv_sandwich_forward(x, w, b, case.sandwich)
        np.testing.assert_array_equal(actual.y, outputs.y, err_msg=case.name)
        if outputs.index is not None:
            np.testing.assert_array_equal(actual.index, outputs.index, err_msg=case.name)
        dy = integers(rng, outputs.y.shape, dtype)
        expected = reference.conv_sandwich_backward(dy, x, w, outputs, case.sandwich)
        gradients = fast.conv_sandwich_backward(dy, x, w, outputs, case.sandwich)
        for name, value, wanted in zip(("dx", "dw", "db"), gradients[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(value, wanted, err_msg=f"{case.name}: {name}")


def test_every_instruction_set_is_exact_on_plain_convolutions(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    for case in CONV_CASES:
        x = integers(rng, case.x_shape, dtype)
        w = integers(rng, (case.F, case.x_shape[1] // case.groups, *case.window.kernel), dtype)
        y = reference.conv_forward(x, w, None, case.window, case.groups)
        np.testing.assert_array_equal(
            fast.conv_forward(x, w, None, case.window, case.groups), y, err_msg=case.name
        )
        dy = integers(rng, y.shape, dtype)
        for value, wanted in zip(
            fast.conv_backward(dy, x, w, case.window, case.groups),
            reference.conv_backward(dy, x, w, case.window, case.groups),
            strict=True,
        ):
            np.testing.assert_array_equal(value, wanted, err_msg=case.name)


def test_every_instruction_set_is_exact_on_fully_connected_layers(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    shapes = [(case.N, case.D, case.M) for case in LINEAR_CASES] + [(13, 2500, 41)]
    for N, D, M in shapes:
        x, w, b = (integers(rng, shape, dtype) for shape in ((N, D), (M, D), (M,)))
        y = reference.linear_sandwich_forward(x, w, b, "relu")
        np.testing.assert_array_equal(fast.linear_sandwich_forward(x, w, b, "relu"), y)
        dy = integers(rng, (N, M), dtype)
        for value, wanted in zip(
            fast.linear_sandwich_backward(dy, x, w, y, "relu"),
            reference.linear_sandwich_backward(dy, x, w, y, "relu"),
            strict=True,
        ):
            np.testing.assert_array_equal(value, wanted)


def test_every_instruction_set_is_exact_on_pools(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    """Means too: what is added up exactly is divided in one way."""
    reference = create_backend("im2col")
    for case in POOL_CASES:
        x = integers(rng, case.x_shape, dtype)
        y, index = reference.maxpool_forward(x, case.window)
        for value, wanted in zip(fast.maxpool_forward(x, case.window), (y, index), strict=True):
            np.testing.assert_array_equal(value, wanted, err_msg=case.name)
        dy = integers(rng, y.shape, dtype)
        np.testing.assert_array_equal(
            fast.maxpool_backward(dy, index, case.x_shape, case.window),
            reference.maxpool_backward(dy, index, case.x_shape, case.window),
            err_msg=case.name,
        )
        np.testing.assert_array_equal(
            fast.avgpool_forward(x, case.window),
            reference.avgpool_forward(x, case.window),
            err_msg=case.name,
        )
        assert_close(
            fast.avgpool_backward(dy, case.x_shape, case.window),
            reference.avgpool_backward(dy, case.x_shape, case.window),
            case.name,
        )


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_instruction_set_agrees_on_activations(
    fast: FastBackend, activation: Activation, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    x = np.concatenate([rng.uniform(-12, 12, 2000), [np.inf, -np.inf, np.nan, 0.0]]).astype(dtype)
    dy, y = rng.standard_normal(x.shape).astype(dtype), reference.activation_forward(x, activation)
    actual = fast.activation_forward(x, activation)
    bits = 16 if dtype == "float32" else 200  # of e^(-x^2/2), where im2col rounds x^2
    np.testing.assert_allclose(actual, y, rtol=bits * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
    assert_close(
        fast.activation_backward(dy, x, y, activation),
        reference.activation_backward(dy, x, y, activation),
        activation,
    )


def test_every_instruction_set_agrees_on_norms(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    for case in NORM_CASES:
        x, dy = (rng.standard_normal(case.shape).astype(dtype) for _ in range(2))
        gamma, beta = (rng.standard_normal(case.shape[1]).astype(dtype) for _ in range(2))
        expected = reference.batchnorm_forward(x, gamma, beta, 0.1)
        actual = fast.batchnorm_forward(x, gamma, beta, 0.1)
        for value, wanted in zip(actual, expected, strict=True):
            assert_close(value, wanted, case.name)
        arguments = (x, gamma, *expected[1:], 0.1)
        for value, wanted in zip(
            fast.batchnorm_backward(dy, *arguments), reference.batchnorm_backward(dy, *arguments), strict=True
        ):
            assert_close(value, wanted, case.name)


def test_every_instruction_set_agrees_on_group_norms_and_scales(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    for case in GROUP_NORM_CASES:
        x, dy = (rng.standard_normal(case.shape).astype(dtype) for _ in range(2))
        gamma, beta = (rng.standard_normal(case.shape[1]).astype(dtype) for _ in range(2))
        expected = reference.groupnorm_forward(x, gamma, beta, case.groups, 0.1)
        _, mean, var = expected
        arguments = (x, gamma, mean, var, case.groups, 0.1)
        pairs = [
            *zip(fast.groupnorm_forward(x, gamma, beta, case.groups, 0.1), expected, strict=True),
            *zip(
                fast.groupnorm_backward(dy, *arguments),
                reference.groupnorm_backward(dy, *arguments),
                strict=True,
            ),
            (fast.scale_forward(x, gamma, beta), reference.scale_forward(x, gamma, beta)),
            *zip(fast.scale_backward(dy, x, gamma), reference.scale_backward(dy, x, gamma), strict=True),
        ]
        for value, wanted in pairs:  # dx is 0 but for rounding where a group is a single value
            assert_close(value, wanted, case.name, least=1.0)


def test_every_instruction_set_agrees_on_response_norms_and_dropout(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    for case in LRN_CASES:
        x, dy = (rng.standard_normal(case.x_shape).astype(dtype) for _ in range(2))
        settings = (case.size, 0.7, case.beta, 1.5)
        assert_close(fast.lrn_forward(x, *settings), reference.lrn_forward(x, *settings), case.name)
        assert_close(fast.lrn_backward(dy, x, *settings), reference.lrn_backward(dy, x, *settings), case.name)
        for spatial in (False, True):
            kept = reference.dropout(x, 0.4, 5, spatial)
            np.testing.assert_array_equal(fast.dropout(x, 0.4, 5, spatial), kept)


def test_every_instruction_set_agrees_on_softmax(
    fast: FastBackend, dtype: str, rng: np.random.Generator
) -> None:
    reference = create_backend("im2col")
    for N, K in [(5, 1), (9, 7), (300, 33), (3, 1000), (2, 70_000)]:
        scores, labels = (3 * rng.standard_normal((N, K))).astype(dtype), rng.integers(K, size=N)
        loss, p = reference.softmax_cross_entropy_forward(scores, labels)
        actual_loss, actual_p = fast.softmax_cross_entropy_forward(scores, labels)
        assert actual_loss == pytest.approx(loss, rel=1e-6 if dtype == "float32" else 1e-14, abs=1e-6)
        assert_close(actual_p, p, f"{N}, {K}")
        assert_close(
            fast.softmax_cross_entropy_backward(p, labels),
            reference.softmax_cross_entropy_backward(p, labels),
            f"{N}, {K}",
        )


def assert_close(actual: Array, expected: Array, name: str, least: float = 0.0) -> None:
    """To the last bits of the largest, or of `least` where that is larger."""
    finite = np.abs(expected[np.isfinite(expected)]).max(initial=least)
    tolerance = 64 * np.finfo(expected.dtype).eps * float(finite)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


def test_threads_change_no_bit(dtype: str, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((37, 5, 9, 9)).astype(dtype), rng.standard_normal((21, 5, 3, 3)).astype(dtype)
    window = Window.create(3, padding=1)
    dy = rng.standard_normal((37, 21, 9, 9)).astype(dtype)
    results = []
    for threads in (1, 2, 3, 4, 8):
        backend = create_backend("fast", threads)
        results.append((backend.conv_forward(x, w, None, window), *backend.conv_backward(dy, x, w, window)))
    for other in results[1:]:
        for one, many in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, many)


def test_callers_in_several_threads_get_right_answers(rng: np.random.Generator) -> None:
    """The pool serves one caller at a time; the others work alone."""
    x, w = integers(rng, (20, 300), "float32"), integers(rng, (50, 300), "float32")
    expected = x @ w.T
    backend = create_backend("fast", threads=2)
    wrong: list[int] = []

    def work(worker: int) -> None:
        for _ in range(50):
            if not np.array_equal(backend.linear_forward(x, w, None), expected):
                wrong.append(worker)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own(rng: np.random.Generator) -> None:
    x, w = integers(rng, (40, 200), "float32"), integers(rng, (64, 200), "float32")
    backend = create_backend("fast", threads=3)
    expected = backend.linear_forward(x, w, None)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(backend.linear_forward(x, w, None), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(backend.linear_forward(x, w, None), expected)


def test_floating_point_mode_is_left_as_it_was(rng: np.random.Generator) -> None:
    """The kernels flush subnormals; numpy, before and after, must not."""
    tiny = np.float32(1e-40)
    x = integers(rng, (40, 64), "float32")
    create_backend("fast", threads=2).linear_forward(x, x, None)
    assert np.multiply(tiny, np.float32(0.5)) > 0


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"isa: 'sse9' is not one this processor runs; known: "):
        create_backend("fast", isa="sse9")


@pytest.mark.parametrize("threads", [0, -1, 257, 3_000_000_000, True, 1.0])
def test_an_absurd_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(ConfigError, match="is not an integer from 1 to 256"):
        FastBackend(threads=threads)


@pytest.mark.parametrize(
    ("window", "line"),
    [
        (Window.create(1, stride=2**61, padding=2**60), "^padded image: .* more than 1099511627776$"),
        (
            Window.create(1, 2**61),
            r"^stride: \(2305843009213693952, .*\) is longer than any image; give at most",
        ),
    ],
)
def test_extents_that_overflow_are_refused(window: Window, line: str) -> None:
    x, w = np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ShapeError, match=line):
        create_backend("fast").conv_forward(x, w, None, window)


def test_misaligned_arrays_are_copied(rng: np.random.Generator) -> None:
    x = integers(rng, (3, 2, 4, 4), "float32")
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = bytes_[1:].view(np.float32).reshape(x.shape)
    misaligned[...] = x
    w, window = integers(rng, (2, 2, 3, 3), "float32"), Window.create(3)
    backend = create_backend("fast")
    np.testing.assert_array_equal(
        backend.conv_forward(misaligned, w, None, window), backend.conv_forward(x, w, None, window)
    )


def test_a_pool_with_too_many_taps_is_refused() -> None:
    with pytest.raises(ShapeError, match="more than 65536 taps"):
        create_backend("fast").maxpool_forward(np.zeros((1, 1, 300, 300), np.float32), Window.create(300))
