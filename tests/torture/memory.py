"""K6: no kernel reads or writes where it may not, whatever arrays it is given.

Says only what arithmetic shows: the right answer, or TypeError or ValueError, and inputs left
as they were. Run with kernels built by `make sanitize`, every stray access ends the process.
"""

from collections.abc import Callable

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, Pool, Sandwich
from tests.array_forms import FORMS
from tests.torture import truth
from tests.torture.arithmetic import count_case, create_engine, run_conv
from tests.torture.cases import Case, draw, draw_case
from tests.torture.tally import Mismatch, Tally, check_equal


def check_forms(seed: int, number: int, tally: Tally) -> None:
    """Arrays of odd strides and places in memory; now and then of a type that has to be refused."""
    case = draw_case(seed, number)
    rng = case.create_rng()
    forms = [str(form) for form in rng.choice(list(FORMS), 4)]
    shapes = [case.x_shape, case.w_shape, (case.F,), case.conv_shape]
    if case.operation == "sandwich":
        shapes[-1] = case.pool_shape(case.conv_shape)
    elif case.pool:
        shapes = [case.x_shape, case.pool_shape(case.x_shape)]
    arrays = [draw(rng, shape, True).astype(case.dtype) for shape in shapes]
    if rng.random() < 0.1:
        arrays = _share_memory(arrays, rng)
        forms = ["one buffer"] * len(arrays)
    else:
        arrays = [FORMS[form](array) for form, array in zip(forms, arrays, strict=False)]
    before = [array.copy() for array in arrays]
    backend = create_engine("fast", case.threads, case.isa, exact=True)
    if rng.random() < 0.1:
        _check_refused(backend, case, arrays, rng, tally)
    else:
        count_case(tally, _check_answer(backend, case, arrays))
        tally.counts.update(forms[: len(arrays)])
    for array, copy in zip(arrays, before, strict=True):
        check_equal("input", "after the call", array, copy)


def _check_answer(backend: Backend, case: Case, arrays: list[Array]) -> Array:
    exact = [np.array(array, np.float64, order="C") for array in arrays]
    label = f"fast {case.dtype}"
    if case.operation in {"conv", "linear"}:
        wanted = truth.convolve(case, *exact)
        x, w, b, dy = arrays
        for name, actual, right in zip(
            wanted._fields, run_conv(backend, case, x, w, b, dy), wanted, strict=True
        ):
            check_equal(label, name, actual, right, case.dtype)
        return wanted.y
    assert case.pool is not None
    if case.operation == "maxpool":
        y, index = truth.find_maxima(case, exact[0])
        found, winners = backend.maxpool_forward(arrays[0], case.pool)
        check_equal(label, "y", found, y, case.dtype)
        dx = truth.return_maxima(case, exact[1], index, case.x_shape)
        returned = backend.maxpool_backward(arrays[1], winners, case.x_shape, case.pool)
        check_equal(label, "dx", returned, dx, case.dtype)
        return y
    if case.operation == "avgpool":
        y, _ = truth.average(case, exact[0], exact[1])
        found = backend.avgpool_forward(arrays[0], case.pool)
        check_equal(label, "y", np.rint(144 * found), np.rint(144 * y), case.dtype)
        backend.avgpool_backward(arrays[1], case.x_shape, case.pool)
        return y
    _check_sandwich(backend, label, case, arrays)
    return _check_other(backend, label, arrays[0])


def _check_sandwich(backend: Backend, label: str, case: Case, arrays: list[Array]) -> None:
    """Convolution with what is fused behind it: the same answers as for plain copies."""
    assert case.pool is not None
    sandwich = Sandwich(case.window, case.groups, activation="relu", pool=Pool("max", case.pool))

    def run(x: Array, w: Array, b: Array, dy: Array) -> dict[str, Array | None]:
        outputs = backend.conv_sandwich_forward(x, w, b, sandwich)
        gradients = backend.conv_sandwich_backward(dy, x, w, outputs, sandwich)
        inferred = backend.conv_sandwich_inference(x, w, b, sandwich)
        return {"y": outputs.y, "index": outputs.index, "inferred y": inferred, **gradients._asdict()}

    found, wanted = run(*arrays), run(*(np.array(array, order="C") for array in arrays))
    for name, actual in found.items():
        right = wanted[name]
        if actual is not None and right is not None:
            check_equal(label, name, actual, right)


def _check_other(backend: Backend, label: str, x: Array) -> Array:
    """Norms, activations and dropout: the same answer as for a plain copy."""
    copy = np.array(x, order="C")
    gamma = np.full(x.shape[1], 2, x.dtype)
    calls: dict[str, Callable[[Array], Array]] = {
        "batchnorm": lambda a: backend.batchnorm_forward(a, gamma, gamma, 1e-5)[0],
        "groupnorm": lambda a: backend.groupnorm_forward(a, gamma, gamma, 1, 1e-5)[0],
        "scale": lambda a: backend.scale_backward(a, a, gamma)[1],
        "lrn": lambda a: backend.lrn_forward(a, 5, 0.1, 0.75, 1.0),
        "lrn backward": lambda a: backend.lrn_backward(a, a, 5, 0.1, 0.75, 1.0),
        "gelu": lambda a: backend.activation_backward(a, a, a, "gelu"),
        "tanh": lambda a: backend.activation_forward(a, "tanh"),
        "dropout": lambda a: backend.dropout(a, 0.5, 3),
        "softmax": lambda a: backend.softmax_cross_entropy_forward(a[:, :, 0, 0], np.zeros(len(a), np.int64))[
            1
        ],
    }
    for name, run in calls.items():
        check_equal(label, name, run(x), run(copy))
    return copy


def _check_refused(
    backend: Backend, case: Case, arrays: list[Array], rng: np.random.Generator, tally: Tally
) -> None:
    """One array of another element type: TypeError or ValueError, and nothing else."""
    foreign = str(rng.choice(["swapped bytes", "float16", "int32", "complex128", "object"]))
    position = int(rng.integers(len(arrays)))
    dtype = np.dtype(case.dtype).newbyteorder() if foreign == "swapped bytes" else np.dtype(foreign)
    mixed = [array.astype(dtype) if i == position else array for i, array in enumerate(arrays)]
    try:
        _call(backend, case, mixed)
    except (TypeError, ValueError):
        tally.counts[f"refused {foreign}"] += 1
        tally.counts["cases"] += 1
    else:
        raise Mismatch(f"argument {position} of {foreign} was taken")


def _call(backend: Backend, case: Case, arrays: list[Array]) -> None:
    match case.operation:
        case "conv" | "linear":
            run_conv(backend, case, *arrays)
        case "sandwich":
            _check_sandwich(backend, "", case, arrays)
        case "maxpool":
            assert case.pool is not None
            _, index = backend.maxpool_forward(arrays[0], case.pool)
            backend.maxpool_backward(arrays[1], index, case.x_shape, case.pool)
        case "avgpool":
            assert case.pool is not None
            backend.avgpool_forward(arrays[0], case.pool)
            backend.avgpool_backward(arrays[1], case.x_shape, case.pool)


def _share_memory(arrays: list[Array], rng: np.random.Generator) -> list[Array]:
    """Views of one buffer, each beginning inside the one before it."""
    sizes = [array.size for array in arrays]
    buffer = draw(rng, (max(sizes, default=0) + len(sizes),), True).astype(arrays[0].dtype)
    buffer.flags.writeable = bool(rng.integers(2))
    return [buffer[i : i + array.size].reshape(array.shape) for i, array in enumerate(arrays)]
