"""Arrays as users really hand them over: any strides, read-only, misaligned, byte-swapped.

The right answer, or a TypeError or ValueError; and what came in is left as it was.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest

from cnnctl.backends.base import Backend, SandwichOutputs
from cnnctl.backends.specs import Activation, Array, Pool, Sandwich
from cnnctl.errors import DtypeError, ShapeError
from cnnctl.geometry import Window
from tests.array_forms import FORMS, lock, misalign

CONV = Window.create(3, padding=1)
POOL = Window.create(3, 2, 1)
FUSED = Sandwich(CONV, 2, activation="relu", pool=Pool("max", Window.create(2, 2)))
X, W, B, Y, C = (2, 4, 6, 6), (6, 2, 3, 3), (6,), (2, 6, 6, 6), (4,)
INDEX = np.array([[4, 3, 3], [1, 8, 0], [1, 0, 4]], np.int32)
LABELS = np.array([2, 0, 3])


class Operation(NamedTuple):
    """What a backend is asked for, and the shapes of the arrays it takes."""

    shapes: list[tuple[int, ...]]
    call: Callable[..., Any]


OPERATIONS = {
    "conv forward": Operation([X, W, B], lambda backend, x, w, b: backend.conv_forward(x, w, b, CONV, 2)),
    "conv backward": Operation([Y, X, W], lambda backend, dy, x, w: backend.conv_backward(dy, x, w, CONV, 2)),
    "conv sandwich forward": Operation(
        [X, W, B],
        lambda backend, x, w, b: attrgetter("y", "index")(backend.conv_sandwich_forward(x, w, b, FUSED)),
    ),
    "conv sandwich backward": Operation(
        [(2, 6, 3, 3), X, W, (2, 6, 3, 3)],
        lambda backend, dy, x, w, y: backend.conv_sandwich_backward(
            dy, x, w, SandwichOutputs(y, np.full((2, 6, 3, 3), 3, np.int32)), FUSED
        )[:3],
    ),
    "maxpool forward": Operation([(2, 4, 5, 5)], lambda backend, x: backend.maxpool_forward(x, POOL)),
    "maxpool backward": Operation(
        [(2, 4, 3, 3)],
        lambda backend, dy: backend.maxpool_backward(
            dy, np.broadcast_to(INDEX, dy.shape), (2, 4, 5, 5), POOL
        ),
    ),
    "linear forward": Operation(
        [(3, 5), (4, 5), (4,)], lambda backend, x, w, b: backend.linear_forward(x, w, b)
    ),
    "linear backward": Operation(
        [(3, 4), (3, 5), (4, 5)], lambda backend, dy, x, w: backend.linear_backward(dy, x, w)
    ),
    "linear sandwich forward": Operation(
        [(3, 5), (4, 5), (4,)],
        lambda backend, x, w, b: backend.linear_sandwich_forward(x, w, b, "relu"),
    ),
    "linear sandwich backward": Operation(
        [(3, 4), (3, 5), (4, 5), (3, 4)],
        lambda backend, dy, x, w, y: backend.linear_sandwich_backward(dy, x, w, y, "relu"),
    ),
    "avgpool forward": Operation([(2, 4, 5, 5)], lambda backend, x: backend.avgpool_forward(x, POOL)),
    "avgpool backward": Operation(
        [(2, 4, 3, 3)], lambda backend, dy: backend.avgpool_backward(dy, (2, 4, 5, 5), POOL)
    ),
    **{
        f"{name} forward": Operation([X], lambda backend, x, name=name: backend.activation_forward(x, name))
        for name in get_args(Activation)
    },
    **{
        f"{name} backward": Operation(
            [X, X, X], lambda backend, dy, x, y, name=name: backend.activation_backward(dy, x, y, name)
        )
        for name in get_args(Activation)
    },
    "batchnorm forward": Operation(
        [X, C, C], lambda backend, x, gamma, beta: backend.batchnorm_forward(x, gamma, beta, 1e-5)
    ),
    "batchnorm inference": Operation(
        [(3, 4), C, C, C, C],
        lambda backend, x, gamma, beta, mean, var: backend.batchnorm_inference(
            x, gamma, beta, mean, var, 2.0
        ),
    ),
    "batchnorm backward": Operation(
        [X, X, C, C, C],
        lambda backend, dy, x, gamma, mean, var: backend.batchnorm_backward(dy, x, gamma, mean, var, 2.0),
    ),
    "groupnorm forward": Operation(
        [X, C, C], lambda backend, x, gamma, beta: backend.groupnorm_forward(x, gamma, beta, 2, 1e-5)
    ),
    "groupnorm backward": Operation(
        [X, X, C, (2, 2), (2, 2)],
        lambda backend, dy, x, gamma, mean, var: backend.groupnorm_backward(dy, x, gamma, mean, var, 2, 2.0),
    ),
    "scale forward": Operation([X, C, C], lambda backend, x, w, b: backend.scale_forward(x, w, b)),
    "scale backward": Operation([X, X, C], lambda backend, dy, x, w: backend.scale_backward(dy, x, w)),
    "lrn forward": Operation([X], lambda backend, x: backend.lrn_forward(x, 3, 1.0, 0.75, 1.0)),
    "lrn backward": Operation([X, X], lambda backend, dy, x: backend.lrn_backward(dy, x, 3, 1.0, 0.75, 1.0)),
    "dropout": Operation([X], lambda backend, x: backend.dropout(x, 0.5, 3)),
    "spatial dropout": Operation([X], lambda backend, x: backend.dropout(x, 0.5, 3, spatial=True)),
    "softmax forward": Operation(
        [(3, 4)], lambda backend, scores: backend.softmax_cross_entropy_forward(scores, LABELS)
    ),
    "softmax backward": Operation(
        [(3, 4)], lambda backend, p: backend.softmax_cross_entropy_backward(p, LABELS)
    ),
}


over_operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
over_forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def draw_integers(rng: np.random.Generator, shapes: list[tuple[int, ...]], dtype: str) -> list[Array]:
    return [rng.integers(-1, 9, shape).astype(dtype) for shape in shapes]


def assert_same_results(actual: Any, expected: Any, dtype: str) -> None:
    """Integers agree exactly, what has to be rounded to the last bits of the largest."""
    if not isinstance(expected, tuple):
        actual, expected = (actual,), (expected,)
    for one, other in zip(actual, expected, strict=True):
        tolerance = 8 * float(np.finfo(dtype).eps) * float(np.abs(other).max(initial=0))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
    assert any(np.any(result) for result in expected)


@over_operations
@over_forms
def test_any_layout_gives_the_same_answer(
    backend: Backend,
    operation: Operation,
    form: Callable[[Array], Array],
    dtype: str,
    rng: np.random.Generator,
) -> None:
    arrays = [form(array) for array in draw_integers(rng, operation.shapes, dtype)]
    plain = [np.array(array, order="C") for array in arrays]
    expected = operation.call(backend, *plain)
    assert_same_results(operation.call(backend, *arrays), expected, dtype)
    for array, before in zip(arrays, plain, strict=True):
        np.testing.assert_array_equal(array, before)


@over_operations
@pytest.mark.parametrize("wrong", ["swapped bytes", "float16", "int32", "complex128", "object"])
def test_other_element_types_are_refused(
    backend: Backend, operation: Operation, wrong: str, dtype: str, rng: np.random.Generator
) -> None:
    """Each argument in turn; the message names the type that was given."""
    arrays = draw_integers(rng, operation.shapes, dtype)
    foreign = np.dtype(dtype).newbyteorder() if wrong == "swapped bytes" else np.dtype(wrong)
    for position in range(len(arrays)):
        mixed = [array.astype(foreign) if i == position else array for i, array in enumerate(arrays)]
        with pytest.raises(DtypeError) as caught:
            operation.call(backend, *mixed)
        assert isinstance(caught.value, TypeError)
        assert str(foreign) in str(caught.value)


@pytest.mark.parametrize("operation", [op for op in OPERATIONS.values() if len(op.shapes) > 1])
def test_mixed_precision_is_refused(backend: Backend, operation: Operation, rng: np.random.Generator) -> None:
    first, *others = draw_integers(rng, operation.shapes, "float32")
    with pytest.raises(DtypeError, match="where the other arrays have float"):
        operation.call(backend, first.astype("float64"), *others)


@over_forms
def test_index_and_labels_may_have_any_layout(
    backend: Backend, form: Callable[[Array], Array], dtype: str, rng: np.random.Generator
) -> None:
    dy, scores = draw_integers(rng, [(2, 4, 3, 3), (3, 4)], dtype)
    index, labels = form(np.broadcast_to(INDEX, dy.shape).copy()), form(LABELS.copy())
    dx = backend.maxpool_backward(dy, index, (2, 4, 5, 5), POOL)
    expected = backend.maxpool_backward(dy, np.array(index, order="C"), (2, 4, 5, 5), POOL)
    np.testing.assert_array_equal(dx, expected)
    loss, p = backend.softmax_cross_entropy_forward(scores, labels)
    assert loss == backend.softmax_cross_entropy_forward(scores, labels.copy())[0]
    dscores = backend.softmax_cross_entropy_backward(p, labels)
    np.testing.assert_array_equal(dscores, backend.softmax_cross_entropy_backward(p, labels.copy()))


def test_arguments_may_be_one_array(backend: Backend, dtype: str) -> None:
    x = np.arange(-4, 5).astype(dtype).reshape(3, 3)
    np.testing.assert_array_equal(backend.activation_backward(x, x, x, "relu"), np.maximum(x, 0))
    np.testing.assert_array_equal(backend.linear_forward(x, x, None), [[29, 2, -25], [2, 2, 2], [-25, 2, 29]])
    images = x.reshape(3, 3, 1, 1)
    y = backend.conv_forward(images, images, None, Window.create(1))
    np.testing.assert_array_equal(y[:, :, 0, 0], backend.linear_forward(x, x, None))


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("spoil", [misalign, lambda array: np.repeat(array, 2, axis=1)[:, ::2]])
def test_updates_refuse_what_they_cannot_change_in_place(
    backend: Backend, position: int, spoil: Callable[[Array], Array], dtype: str
) -> None:
    arrays = [np.ones((4, 4), dtype) for _ in range(4)]
    arrays[position] = spoil(arrays[position])
    with pytest.raises(ShapeError, match="C-contiguous"):
        backend.adam_update(*arrays, step=1, lr=0.1)
    assert all((array == 1).all() for array in arrays)


@pytest.mark.parametrize("position", [0, 2, 3])
def test_updates_refuse_read_only_weights_and_slots(backend: Backend, position: int, dtype: str) -> None:
    arrays = [np.ones(5, dtype) for _ in range(4)]
    lock(arrays[position])
    with pytest.raises(ValueError, match="read-only"):
        backend.adam_update(*arrays, step=1, lr=0.1)
    assert all((array == 1).all() for array in arrays)
