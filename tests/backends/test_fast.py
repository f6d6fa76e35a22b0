"""What only the C kernels can get wrong: instruction sets, threads, forks, scratch."""

import os
import threading

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.fast import INSTRUCTION_SETS, FastBackend
from cnnctl.backends.specs import Array
from cnnctl.errors import ConfigError, ShapeError
from cnnctl.geometry import Window
from tests.hostile_shapes import CONV_CASES, LINEAR_CASES, SANDWICH_CASES


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
        y, index = reference.conv_sandwich_forward(x, w, b, case.sandwich)
        actual, actual_index = fast.conv_sandwich_forward(x, w, b, case.sandwich)
        np.testing.assert_array_equal(actual, y, err_msg=case.name)
        if index is not None:
            np.testing.assert_array_equal(actual_index, index, err_msg=case.name)
        dy = integers(rng, y.shape, dtype)
        expected = reference.conv_sandwich_backward(dy, x, w, y, index, case.sandwich)
        gradients = fast.conv_sandwich_backward(dy, x, w, y, index, case.sandwich)
        for name, value, wanted in zip(("dx", "dw", "db"), gradients, expected, strict=True):
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
    create_backend("fast", threads=2).linear_forward(*[integers(rng, (40, 64), "float32")] * 2, None)
    assert np.multiply(tiny, np.float32(0.5)) > 0


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"isa: 'sse9' is not one this processor runs; known: "):
        create_backend("fast", isa="sse9")


@pytest.mark.parametrize("threads", [0, -1, 257, 3_000_000_000, True, 1.0])
def test_an_absurd_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(ConfigError, match="is not an integer from 1 to 256"):
        FastBackend(threads=threads)


@pytest.mark.parametrize("window", [Window.create(1, stride=2**61, padding=2**60), Window.create(1, 2**61)])
def test_extents_that_overflow_are_refused(window: Window) -> None:
    x, w = np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ShapeError, match="more than 1099511627776"):
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
