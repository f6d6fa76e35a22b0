# The compiled module's face, for type checkers; see ext/_kernels.pyx.
from collections.abc import Mapping, Sequence
from typing import Any

from cnnctl.geometry import Window

Extents = tuple[int, int, int, int, int]

LINE: int
UPDATE_BLOCK: int

def instruction_sets() -> list[str]: ...
def compiler() -> str: ...

class Kernels:
    threads: int
    def __init__(self, isa: int, is_double: bool, threads: int) -> None: ...
    def activation_forward(self, kind: int, alpha: float, shape: Extents, n: int, x: Any, y: Any) -> None: ...
    def activation_backward(
        self, kind: int, alpha: float, shape: Extents, n: int, dy: Any, x_or_y: Any, dx: Any
    ) -> None: ...
    def dropout(
        self, shape: Extents, n: int, rate: float, spatial: bool, key: int, x: Any, y: Any
    ) -> None: ...
    def prepare_images(
        self,
        shape: Extents,
        n: int,
        pixels: Any,
        bytes: bool,
        chosen: Any,
        padding: int,
        moves: Any,
        tones: Any,
        holes: Any,
        scale: Any,
        shift: Any,
        out: Any,
    ) -> None: ...
    def import_images(self, shape: Extents, n: int, nchw: Any, nhwc: Any) -> None: ...
    def export_images(self, shape: Extents, n: int, nhwc: Any, nchw: Any) -> None: ...
    def loss_forward(
        self,
        kind: int,
        smoothing: float,
        margin: float,
        weights: Any,
        n: int,
        classes: int,
        row: int,
        scores: Any,
        labels: Any,
        p: Any,
    ) -> tuple[float, int]: ...
    def loss_backward(
        self,
        kind: int,
        smoothing: float,
        margin: float,
        weights: Any,
        n: int,
        classes: int,
        row: int,
        p: Any,
        labels: Any,
        dscores: Any,
    ) -> None: ...
    def add_l1_gradient(self, count: int, l1: float, w: Any, dw: Any, sums: Any) -> float: ...
    def update(
        self,
        kind: int,
        count: int,
        w: Any,
        dw: Any,
        slots: Sequence[Any],
        sums: Any,
        *,
        lr: float = 0,
        l2: float = 0,
        weight_decay: float = 0,
        momentum: float = 0,
        dampening: float = 0,
        beta1: float = 0,
        beta2: float = 0,
        eps: float = 0,
        nesterov: bool = False,
        step: int = 1,
    ) -> float: ...
    def fma_burst(self, rounds: int) -> float: ...
    def read_burst(self, rounds: int, count: int, x: Any) -> float: ...
    def copy_burst(self, rounds: int, count: int, x: Any, y: Any) -> float: ...

class ConvKernel:
    def __init__(
        self,
        kernels: Kernels,
        x: Extents,
        z: Extents,
        y: Extents,
        window: Window,
        pool: Window | None,
        *,
        groups: int,
        activation: int,
        alpha: float,
        pooling: int,
        norm: bool,
        residual: bool,
        exact: bool,
        eps: float,
        momentum: float,
    ) -> None: ...
    def scratch(self, n: int) -> int: ...
    def forward(self, n: int, training: bool, arrays: Mapping[str, Any]) -> None: ...
    def backward(
        self, n: int, arrays: Mapping[str, Any], gradients: Mapping[str, Any], accumulate: bool
    ) -> None: ...

class LinearKernel:
    def __init__(self, kernels: Kernels, inputs: int, outputs: int, row: int, relu: bool) -> None: ...
    def scratch(self, n: int) -> int: ...
    def forward(self, n: int, x: Any, w: Any, b: Any, y: Any, scratch: Any) -> None: ...
    def backward(
        self, n: int, dy: Any, x: Any, w: Any, y: Any, dx: Any, dw: Any, db: Any, scratch: Any
    ) -> None: ...

class PoolKernel:
    def __init__(self, kernels: Kernels, x: Extents, y: Extents, window: Window) -> None: ...
    def max_forward(self, n: int, x: Any, y: Any, index: Any) -> None: ...
    def max_backward(self, n: int, dy: Any, index: Any, dx: Any) -> None: ...
    def average_forward(self, n: int, x: Any, y: Any) -> None: ...
    def average_backward(self, n: int, dy: Any, dx: Any) -> None: ...

class BatchNormKernel:
    def __init__(self, kernels: Kernels, x: Extents, eps: float, momentum: float) -> None: ...
    def scratch(self, n: int) -> int: ...
    def forward(
        self,
        n: int,
        x: Any,
        gamma: Any,
        beta: Any,
        y: Any,
        mean: Any,
        var: Any,
        running_mean: Any,
        running_var: Any,
        scratch: Any,
    ) -> None: ...
    def inference(
        self, n: int, x: Any, gamma: Any, beta: Any, mean: Any, var: Any, y: Any, scratch: Any
    ) -> None: ...
    def backward(
        self,
        n: int,
        dy: Any,
        x: Any,
        gamma: Any,
        mean: Any,
        var: Any,
        dx: Any,
        dgamma: Any,
        dbeta: Any,
        scratch: Any,
    ) -> None: ...

class GroupNormKernel:
    def __init__(self, kernels: Kernels, x: Extents, groups: int, eps: float) -> None: ...
    def scratch(self, n: int) -> int: ...
    def forward(
        self, n: int, x: Any, gamma: Any, beta: Any, y: Any, mean: Any, var: Any, scratch: Any
    ) -> None: ...
    def backward(
        self,
        n: int,
        dy: Any,
        x: Any,
        gamma: Any,
        mean: Any,
        var: Any,
        dx: Any,
        dgamma: Any,
        dbeta: Any,
        scratch: Any,
    ) -> None: ...

class ScaleKernel:
    def __init__(self, kernels: Kernels, x: Extents) -> None: ...
    def scratch(self, n: int) -> int: ...
    def forward(self, n: int, x: Any, w: Any, b: Any, y: Any, scratch: Any) -> None: ...
    def backward(self, n: int, dy: Any, x: Any, w: Any, dx: Any, dw: Any, db: Any, scratch: Any) -> None: ...

class LrnKernel:
    def __init__(
        self, kernels: Kernels, x: Extents, size: int, alpha: float, beta: float, k: float
    ) -> None: ...
    def scratch(self) -> int: ...
    def forward(self, n: int, x: Any, y: Any, scratch: Any) -> None: ...
    def backward(self, n: int, dy: Any, x: Any, dx: Any, scratch: Any) -> None: ...
