"""Winograd's algorithm, where `fast` uses it: within its own bound, and without it where asked.

Errors are measured against float64 sums of the same float32 numbers and stated as a share of
the largest result, as the algorithm's authors do: its rounding does not stay with small outputs.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.fast import INSTRUCTION_SETS, FastBackend
from cnnctl.backends.specs import Array
from cnnctl.geometry import Window

FORWARD_BOUND, WEIGHT_BOUND, EXACT_BOUND = 1e-5, 2e-5, 2e-6
DOUBLE_BOUND = 1e-13


class Case(NamedTuple):
    x_shape: tuple[int, int, int, int]
    filters: int
    window: Window

    def __str__(self) -> str:
        return (
            f"{self.x_shape}-{self.filters}-{self.window.kernel}-{self.window.stride}-{self.window.padding}"
        )


SQUARES = [  # 3x3 at stride 1 over 16 channels and more: tiles of 4x4
    Case((2, 16, 8, 8), 16, Window.create(3, 1, 1)),
    Case((3, 20, 7, 9), 37, Window.create(3, 1, 1)),
    Case((1, 33, 6, 13), 16, Window.create(3)),
    Case((40, 16, 6, 6), 32, Window.create(3, 1, ((0, 2), (2, 1)))),
    Case((2, 48, 17, 30), 20, Window.create(3, 1, 1)),
]
ROWS = [  # 5 or 7 wide over few channels: tiles along a row
    Case((2, 3, 32, 32), 32, Window.create(7, 1, 3)),
    Case((3, 2, 12, 19), 17, Window.create((3, 7), 1, (1, 0))),
    Case((1, 8, 9, 24), 48, Window.create((1, 5), (2, 1), ((3, 0), (0, 5)))),
    Case((20, 3, 6, 17), 20, Window.create(5, 1, 2)),
    Case((2, 5, 15, 13), 33, Window.create((9, 5), 1, ((0, 1), (2, 2)))),
    Case((1, 4, 5, 31), 16, Window.create((5, 7), (3, 1), ((2, 9), (6, 4)))),
]


def compute_all(backend: Backend, case: Case, dtype: str, rng: np.random.Generator) -> dict[str, Any]:
    """Outputs and gradients from float32 normals."""
    weight_shape = (case.filters, case.x_shape[1], *case.window.kernel)
    x, w = (rng.standard_normal(shape).astype("float32") for shape in (case.x_shape, weight_shape))
    b = rng.standard_normal(case.filters).astype("float32")
    x, w, b = x.astype(dtype), w.astype(dtype), b.astype(dtype)
    y = backend.conv_forward(x, w, b, case.window)
    dy = rng.standard_normal(y.shape).astype("float32").astype(dtype)
    dx, dw, db = backend.conv_backward(dy, x, w, case.window)
    return {"y": y, "dx": dx, "dw": dw, "db": db}


def find_errors(found: dict[str, Array], wanted: dict[str, Array]) -> dict[str, float]:
    return {key: float(np.abs(found[key] - wanted[key]).max() / np.abs(wanted[key]).max()) for key in wanted}


def create_rng(case: Case) -> np.random.Generator:
    return np.random.default_rng([*case.x_shape, case.filters, *case.window.kernel])


@pytest.fixture(params=[*SQUARES, *ROWS], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def truth(case: Case) -> dict[str, Array]:
    return compute_all(create_backend("im2col"), case, "float64", create_rng(case))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_errors_stay_within_the_bound(case: Case, truth: dict[str, Array], isa: str) -> None:
    errors = find_errors(compute_all(FastBackend(2, isa), case, "float32", create_rng(case)), truth)
    assert max(errors["y"], errors["dx"]) < FORWARD_BOUND
    assert errors["dw"] < WEIGHT_BOUND
    assert errors["db"] < EXACT_BOUND


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_in_double_precision_nothing_but_rounding_differs(
    case: Case, truth: dict[str, Array], isa: str
) -> None:
    errors = find_errors(compute_all(FastBackend(2, isa), case, "float64", create_rng(case)), truth)
    assert max(errors.values()) < DOUBLE_BOUND


def test_exact_is_without_it(case: Case, truth: dict[str, Array]) -> None:
    rng = create_rng(case)
    exact = compute_all(FastBackend(2, exact=True), case, "float32", rng)
    assert max(find_errors(exact, truth).values()) < EXACT_BOUND
    plain = compute_all(FastBackend(2), case, "float32", create_rng(case))
    assert (plain["y"] != exact["y"]).any(), "the case does not use what this file is about"


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_change_nothing(case: Case, threads: int) -> None:
    alone = compute_all(FastBackend(1), case, "float32", create_rng(case))
    together = compute_all(FastBackend(threads), case, "float32", create_rng(case))
    for key, array in alone.items():
        np.testing.assert_array_equal(together[key], array, strict=True)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_with_its_image(case: Case, value: float) -> None:
    n, _, height, width = case.x_shape
    rng = create_rng(case)
    x = rng.standard_normal((n + 1, *case.x_shape[1:])).astype("float32")
    w = rng.standard_normal((case.filters, x.shape[1], *case.window.kernel)).astype("float32")
    x[0, 0, height // 2, width // 2] = value
    y = FastBackend(2).conv_forward(x, w, None, case.window)
    reference = create_backend("im2col").conv_forward(x, w, None, case.window)
    assert not np.isfinite(y[0][~np.isfinite(reference[0])]).any()
    assert np.isfinite(y[1:]).all()
