# The compiled module's face, for type checkers; see ext/_kernels.pyx.
from typing import Any

from cnnctl.geometry import Window

Extents = tuple[int, int, int, int, int]

LINE: int
UPDATE_BLOCK: int

def instruction_sets() -> list[str]: ...

class Kernels:
    threads: int
    def __init__(self, isa: int, is_double: bool, threads: int) -> None: ...
    def relu_forward(self, count: int, x: Any, y: Any) -> None: ...
    def relu_backward(self, count: int, dy: Any, y: Any, dx: Any) -> None: ...
    def import_images(self, shape: Extents, n: int, nchw: Any, nhwc: Any) -> None: ...
    def export_images(self, shape: Extents, n: int, nhwc: Any, nchw: Any) -> None: ...
    def softmax_forward(
        self, n: int, classes: int, row: int, scores: Any, labels: Any, p: Any
    ) -> tuple[float, int]: ...
    def softmax_backward(self, n: int, classes: int, row: int, p: Any, labels: Any, dscores: Any) -> None: ...
    def sgd_update(
        self,
        count: int,
        w: Any,
        dw: Any,
        velocity: Any,
        sums: Any,
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        l2: float,
    ) -> float: ...
    def adam_update(
        self,
        count: int,
        w: Any,
        dw: Any,
        m: Any,
        v: Any,
        sums: Any,
        *,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        l2: float,
    ) -> float: ...

class ConvKernel:
    def __init__(
        self,
        kernels: Kernels,
        x: Extents,
        z: Extents,
        y: Extents,
        window: Window,
        pool: Window | None,
        groups: int,
        relu: bool,
    ) -> None: ...
    def scratch(self, n: int) -> int: ...
    def forward(self, n: int, x: Any, w: Any, b: Any, y: Any, index: Any, scratch: Any) -> None: ...
    def backward(
        self, n: int, dy: Any, x: Any, w: Any, y: Any, index: Any, dx: Any, dw: Any, db: Any, scratch: Any
    ) -> None: ...

class LinearKernel:
    def __init__(self, kernels: Kernels, inputs: int, outputs: int, row: int, relu: bool) -> None: ...
    def scratch(self, n: int) -> int: ...
    def forward(self, n: int, x: Any, w: Any, b: Any, y: Any, scratch: Any) -> None: ...
    def backward(
        self, n: int, dy: Any, x: Any, w: Any, y: Any, dx: Any, dw: Any, db: Any, scratch: Any
    ) -> None: ...

class MaxPoolKernel:
    def __init__(self, kernels: Kernels, x: Extents, y: Extents, window: Window) -> None: ...
    def forward(self, n: int, x: Any, y: Any, index: Any) -> None: ...
    def backward(self, n: int, dy: Any, index: Any, dx: Any) -> None: ...
