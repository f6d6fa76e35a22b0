"""Random configurations of operations: the one generator that every promise about kernels shares.

A case is a pure function of (seed, number), so that a failing one can be run again by its
number. Extents are drawn from what hurts: every way a vector loop can end, kernels as large
as the image, padding on single sides, strides that do not divide, no images at all. No array
is drawn here but through `draw`, and nothing is computed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnctl.backends.fast import INSTRUCTION_SETS
from cnnctl.backends.specs import Array
from cnnctl.geometry import Window

Operation = Literal["conv", "sandwich", "maxpool", "avgpool", "linear"]

OPERATIONS: dict[Operation, float] = {
    "conv": 0.55,
    "sandwich": 0.15,
    "maxpool": 0.1,
    "avgpool": 0.1,
    "linear": 0.1,
}
"""How often each is drawn."""

TAILS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 24, 25, 31, 32, 33)
NAIVE_OUTPUTS = 100
"""The loops of `naive` are run where they have at most so many outputs."""
MOST_MACS = 600_000


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration.

    Attributes:
        x_shape: (N,C,H,W); of a linear operation (N,D,1,1).
        F: filters, or outputs of a linear operation.
        window, groups: of the convolution.
        pool: behind a sandwich's convolution, or by itself; otherwise None.
        dtype, isa, threads: what the fast kernels are run with.
        winograd: whether they may use Winograd's algorithm.
    """

    seed: int
    number: int
    operation: Operation
    x_shape: tuple[int, int, int, int]
    F: int
    window: Window
    groups: int
    pool: Window | None
    dtype: str
    isa: str
    threads: int
    winograd: bool

    @property
    def conv_shape(self) -> tuple[int, int, int, int]:
        """Of the convolution's result."""
        return (self.x_shape[0], self.F, *self.window.output_size(*self.x_shape[2:]))

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return (self.F, self.x_shape[1] // self.groups, *self.window.kernel)

    @property
    def terms(self) -> tuple[int, int, int, int]:
        """Products in each sum of y, dx, dw, db at most, the bias one of them."""
        taps = self.window.kernel[0] * self.window.kernel[1]
        pixels = self.conv_shape[0] * self.conv_shape[2] * self.conv_shape[3]
        return self.w_shape[1] * taps + 1, self.F // self.groups * taps, pixels, pixels

    @property
    def suits_naive(self) -> bool:
        """Whether the textbook's loops take milliseconds."""
        N, F, OH, OW = self.conv_shape
        return N * F * OH * OW <= NAIVE_OUTPUTS

    @property
    def may_use_winograd(self) -> bool:
        """Whether the kernel and stride are of those that Winograd's algorithm is used for."""
        window = self.window
        wide = window.kernel == (3, 3) or (window.kernel[1] in {5, 7} and self.x_shape[1] > 1)
        plain = window.stride[1] == 1 and window.dilation == (1, 1) and self.groups == 1
        return self.winograd and wide and plain

    def pool_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of a pool's result for such images."""
        assert self.pool is not None
        return (*x_shape[:2], *self.pool.output_size(*x_shape[2:]))

    def create_rng(self) -> np.random.Generator:
        """Random numbers of its own, apart from those it was drawn with."""
        return np.random.default_rng([self.seed, self.number, 1])


def draw_case(seed: int, number: int, operation: Operation | None = None) -> Case:
    """Case `number` of the stream `seed`; of that operation, or of any."""
    rng = np.random.default_rng([seed, number, 0])
    drawn = rng.choice(list(OPERATIONS), p=list(OPERATIONS.values()))
    while True:
        case = _draw(rng, seed, number, operation or str(drawn))
        if case is not None:
            return case


def draw(rng: np.random.Generator, shape: tuple[int, ...], integers: bool, dtype: str = "float32") -> Array:
    """A float64 array of small integers, or of normals that `dtype` can hold.

    The integers are never 0 and lean to the positive side, so that few sums cancel by chance.
    """
    if integers:
        return rng.choice(np.array([-2.0, -1.0, 1.0, 2.0, 3.0, 4.0]), shape)
    return rng.standard_normal(shape).astype(dtype).astype(np.float64)


def _draw(rng: np.random.Generator, seed: int, number: int, operation: str) -> Case | None:
    """A case, or None if what was drawn does not fit together."""
    integer = rng.integers
    settings = {
        "dtype": "float32" if rng.random() < 0.7 else "float64",
        "isa": str(rng.choice(INSTRUCTION_SETS)),
        "threads": int(integer(1, 5)),
        "winograd": bool(integer(2)),
    }
    N = int(rng.choice([0, 1, 1, 1, 2, 2, 3, 4, 5])) if rng.random() < 0.95 else int(integer(6, 48))
    if operation == "linear":
        D, F = (_draw_extent(rng, 0.2) for _ in range(2))
        N = N if rng.random() < 0.6 else _draw_extent(rng, 0.2)
        if N * D * F > MOST_MACS:
            return None
        shape = (N, D, 1, 1)
        return Case(seed, number, "linear", shape, F, Window((1, 1)), 1, None, **settings)  # type: ignore[arg-type]
    large = rng.random() < 0.2
    C, F, groups = _draw_channels(rng, large)
    window = _draw_window(rng, large)
    H, W = _draw_image(rng, window, large)
    if large and rng.random() < 0.5:
        C, F, groups, window = _draw_winograd(rng)
    pool = None
    if operation in {"maxpool", "avgpool"}:
        window, F, groups = Window((1, 1)), C, 1
    if operation in {"maxpool", "avgpool", "sandwich"}:
        pool = _draw_window(rng, large=False, pooling=True)
    case = Case(seed, number, operation, (N, C, H, W), F, window, groups, pool, **settings)  # type: ignore[arg-type]
    return case if _fits(case) else None


def _draw_extent(rng: np.random.Generator, share: float) -> int:
    """A way to end a vector loop, or with that chance anything, mostly below 300 and at most 5000."""
    if rng.random() >= share:
        return int(rng.choice(TAILS))
    return int(rng.integers(1, 300 if rng.random() < 0.8 else 5000))


def _fits(case: Case) -> bool:
    (H, W), window = case.x_shape[2:], case.window
    if any(
        extent + sum(pads) < span
        for extent, pads, span in zip((H, W), window.padding, window.span, strict=True)
    ):
        return False
    if case.pool:
        OH, OW = case.conv_shape[2:]
        for axis, extent in enumerate((OH, OW)):
            if extent + sum(case.pool.padding[axis]) < case.pool.span[axis]:
                return False
        rows, columns = case.pool.output_size(OH, OW)
        if not all(case.pool.row_taps(oh, OH) for oh in range(rows)):
            return False
        if not all(case.pool.column_taps(ow, OW) for ow in range(columns)):
            return False
    N, F, OH, OW = case.conv_shape
    return N * F * OH * OW * case.terms[0] <= MOST_MACS


def _draw_channels(rng: np.random.Generator, large: bool) -> tuple[int, int, int]:
    """C, F, groups: one of the extents large enough for tails, the other small if the case is."""
    integer = rng.integers
    if rng.random() < 0.2:
        groups = int(integer(2, 5)) if rng.random() < 0.7 else int(rng.choice(TAILS))
        filters = 1 if rng.random() < 0.5 else int(integer(1, 4))
        channels = 1 if rng.random() < 0.5 else int(integer(1, 4))
        return groups * channels, groups * filters, groups
    if large:
        return int(integer(1, 49)), int(integer(1, 49)), 1
    small, wide = int(integer(1, 5)), int(rng.choice(TAILS))
    return (small, wide, 1) if rng.random() < 0.5 else (wide, small, 1)


def _draw_winograd(rng: np.random.Generator) -> tuple[int, int, int, Window]:
    """C, F, groups and window as Winograd's algorithms want them, or nearly."""
    integer = rng.integers
    top, bottom, left, right = (int(side) for side in integer(0, 4, 4))
    padding = ((top, bottom), (left, right))
    if rng.random() < 0.6:
        return int(integer(14, 40)), int(integer(14, 40)), 1, Window((3, 3), (1, 1), padding)
    kernel = int(integer(1, 6)), int(rng.choice([5, 7]))
    return int(integer(2, 10)), int(integer(14, 40)), 1, Window(kernel, (int(integer(1, 3)), 1), padding)


def _draw_window(rng: np.random.Generator, large: bool, pooling: bool = False) -> Window:
    integer = rng.integers
    if pooling:
        kernel = (2, 2) if rng.random() < 0.4 else (int(integer(1, 5)), int(integer(1, 5)))
    elif rng.random() < (0.6 if large else 0.4):
        side = int(rng.choice([1, 3, 3, 3, 5, 5, 7]))
        kernel = (side, side)
    else:
        kernel = (int(integer(1, 6)), int(integer(1, 8 if large else 6)))
    plain = rng.random() < (0.6 if large else 0.35)
    stride = (1, 1) if plain else (int(integer(1, 4)), int(integer(1, 4)))
    if pooling and rng.random() < 0.6:
        stride = kernel if rng.random() < 0.5 else (2, 2)
    dilation = (1, 1) if plain or rng.random() < 0.6 else (int(integer(1, 4)), int(integer(1, 4)))
    chance = rng.random()
    if chance < 0.35:
        sides: tuple[int, ...] = (0, 0, 0, 0)
    elif chance < 0.6:
        sides = tuple(side for k in kernel for side in 2 * (k // 2,))  # as "same" has it
    else:
        sides = tuple(int(side) for side in integer(0, 4, 4))
    top, bottom, left, right = sides
    return Window(kernel, stride, ((top, bottom), (left, right)), dilation)


def _draw_image(rng: np.random.Generator, window: Window, large: bool) -> tuple[int, int]:
    """H, W: sometimes just as large as the kernel, with its padding or without."""
    spans = window.span
    chance = rng.random()
    if chance < 0.1:
        return spans
    if chance < 0.2:
        H, W = (max(span - sum(pads), 1) for span, pads in zip(spans, window.padding, strict=True))
        return H, W
    most = 36 if large else 9
    H, W = (int(side) for side in rng.integers(1, most, 2))
    if not large and rng.random() < 0.3:
        W = int(rng.choice(TAILS))
    return H, W
