"""The contract's operations through the C kernels, and the stages of a plan.

A plan keeps activations and parameters in the inner layout from step to step;
the stateless operations of the contract convert at both ends and run the same stages.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends import _kernels
from cnnctl.backends.base import Backend
from cnnctl.backends.fast.conv import ConvStage
from cnnctl.backends.fast.elementwise import ReluStage
from cnnctl.backends.fast.layout import ImageLayout, align, count_lanes, round_up
from cnnctl.backends.fast.linear import FlattenStage, LinearStage
from cnnctl.backends.fast.loss import SoftmaxLoss
from cnnctl.backends.fast.pooling import MaxPoolStage
from cnnctl.backends.specs import (
    Activation,
    Array,
    ConvSpec,
    FlattenSpec,
    LinearSpec,
    MaxPoolSpec,
    ReluSpec,
    Sandwich,
    Shape,
    Spec,
)
from cnnctl.backends.stage import Buffers, Layout, LossStage, Stage
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.geometry import Window

INSTRUCTION_SETS: tuple[str, ...] = tuple(_kernels.instruction_sets())
"""What this processor can run, the best one last."""


@dataclass(frozen=True)
class FastBackend(Backend):
    """C kernels in vector extensions, compiled per instruction set.

    Attributes:
        isa: an entry of `INSTRUCTION_SETS`; None takes the best.

    Results are bit-identical for any number of threads; instruction sets differ in the
    last bits. Subnormal results may be flushed to zero.
    """

    name: ClassVar[str] = "fast"
    isa: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.isa is not None and self.isa not in INSTRUCTION_SETS:
            alternatives = describe_alternatives(self.isa, INSTRUCTION_SETS)
            raise ConfigError(f"isa: {self.isa!r} is not one this processor runs; {alternatives}")

    def kernels(self, dtype: Any) -> "_kernels.Kernels":
        """The function table for an element type."""
        isa = INSTRUCTION_SETS.index(self.isa) if self.isa else len(INSTRUCTION_SETS) - 1
        return _kernels.Kernels(isa, np.dtype(dtype) == np.float64, self.threads)

    # Stages

    def create_layout(self, shape: Shape, dtype: Any, first: Spec) -> ImageLayout:
        # A network's input keeps its few channels side by side where the first stage takes them so.
        padded = not isinstance(first, (ConvSpec, LinearSpec))
        return self._layout(shape, dtype, padded=padded)

    def _layout(self, shape: Shape, dtype: Any, *, padded: bool = True) -> ImageLayout:
        return ImageLayout(shape, self.kernels(dtype), count_lanes(dtype), padded=padded)

    def create_stage(self, spec: Spec, layout: Layout, dtype: Any) -> Stage:
        assert isinstance(layout, ImageLayout)
        match spec:
            case ConvSpec():
                return ConvStage(spec, layout, dtype)
            case LinearSpec():
                return LinearStage(spec, layout, dtype)
            case MaxPoolSpec():
                return MaxPoolStage(spec, layout)
            case ReluSpec():
                return ReluStage(layout)
            case FlattenSpec():
                return FlattenStage(layout)

    def create_loss(self, layout: Layout, scores: Array, dscores: Array | None) -> LossStage:
        assert isinstance(layout, ImageLayout)
        return SoftmaxLoss(layout, scores, dscores)

    # The contract's operations: one stage each, with buffers of its own

    def _conv_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, sandwich: Sandwich
    ) -> tuple[Array, Array | None]:
        stage = self._conv_stage(x, w, b, sandwich)
        stage.forward(len(x))
        index = stage.read_index(len(x)) if sandwich.pool else None
        return stage.output.read(stage.buffers.y, len(x)), index

    def _conv_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        y: Array,
        index: Array | None,
        sandwich: Sandwich,
        need_dx: bool,
    ) -> tuple[Array | None, Array, Array]:
        stage = self._conv_stage(x, w, np.zeros(len(w), w.dtype), sandwich)
        _load_output(stage, dy, y)
        if index is not None:
            stage.load_index(index)
        return _run_backward(stage, len(x), need_dx)

    def _linear_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, activation: Activation | None
    ) -> Array:
        stage = self._linear_stage(x, w, b, activation)
        stage.forward(len(x))
        return stage.output.read(stage.buffers.y, len(x))

    def _linear_sandwich_backward(
        self, dy: Array, x: Array, w: Array, y: Array, activation: Activation | None, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        stage = self._linear_stage(x, w, np.zeros(len(w), w.dtype), activation)
        _load_output(stage, dy, y)
        return _run_backward(stage, len(x), need_dx)

    def _conv_stage(self, x: Array, w: Array, b: Array | None, sandwich: Sandwich) -> ConvStage:
        layout = self._layout(x.shape[1:], x.dtype)
        stage = ConvStage(ConvSpec(sandwich, len(w), b is not None), layout, x.dtype)
        _allocate(stage, x, {"weight": w, "bias": b})
        return stage

    def _linear_stage(
        self, x: Array, w: Array, b: Array | None, activation: Activation | None
    ) -> LinearStage:
        layout = self._layout(x.shape[1:], x.dtype)
        stage = LinearStage(LinearSpec(len(w), b is not None, activation), layout, x.dtype)
        _allocate(stage, x, {"weight": w, "bias": b})
        return stage

    def _conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int) -> Array:
        return self._conv_sandwich_forward(x, w, b, Sandwich(window, groups))[0]

    def _conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        return self._conv_sandwich_backward(dy, x, w, dy, None, Sandwich(window, groups), need_dx)

    def _maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]:
        stage = MaxPoolStage(MaxPoolSpec(window), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {})
        stage.forward(len(x))
        return stage.output.read(stage.buffers.y, len(x)), stage.read_index(len(x))

    def _maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array:
        stage = MaxPoolStage(MaxPoolSpec(window), self._layout(x_shape[1:], dy.dtype))
        _allocate(stage, np.zeros(x_shape, dy.dtype), {})
        _load_output(stage, dy, dy)
        stage.load_index(index)
        dx, *_ = _run_backward(stage, len(dy), True)
        assert dx is not None
        return dx

    def _linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        return self._linear_sandwich_forward(x, w, b, None)

    def _linear_backward(
        self, dy: Array, x: Array, w: Array, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        return self._linear_sandwich_backward(dy, x, w, dy, None, need_dx)

    def _relu_forward(self, x: Array) -> Array:
        padded = self._pad(x)
        self.kernels(x.dtype).relu_forward(padded.size, padded, padded)
        return padded[: x.size].reshape(x.shape)

    def _relu_backward(self, dy: Array, y: Array) -> Array:
        gradient, output = self._pad(dy), self._pad(y)
        self.kernels(dy.dtype).relu_backward(gradient.size, gradient, output, gradient)
        return gradient[: dy.size].reshape(dy.shape)

    @staticmethod
    def _pad(array: Array) -> Array:
        """A flat copy whose length is a multiple of the lanes."""
        padded = np.zeros(round_up(array.size, count_lanes(array.dtype)), array.dtype)
        padded[: array.size] = array.reshape(-1)
        return padded

    def _softmax_cross_entropy_forward(self, scores: Array, labels: Array) -> tuple[float, Array]:
        n, classes = scores.shape
        p = np.empty((n, classes), scores.dtype)
        loss, _ = self.kernels(scores.dtype).softmax_forward(
            n, classes, classes, align(scores), align(labels, np.int64), p
        )
        return loss, p

    def _softmax_cross_entropy_backward(self, p: Array, labels: Array) -> Array:
        n, classes = p.shape
        dscores = np.empty((n, classes), p.dtype)
        self.kernels(p.dtype).softmax_backward(
            n, classes, classes, align(p), align(labels, np.int64), dscores
        )
        return dscores

    def _sgd_update(
        self, w: Array, dw: Array, velocity: Array, lr: float, momentum: float, nesterov: bool, l2: float
    ) -> float:
        total: float = self.kernels(w.dtype).sgd_update(
            w.size, w, dw, velocity, _block_sums(w), lr=lr, momentum=momentum, nesterov=nesterov, l2=l2
        )
        return total

    def _adam_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        v: Array,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        l2: float,
    ) -> float:
        total: float = self.kernels(w.dtype).adam_update(
            w.size, w, dw, m, v, _block_sums(w), step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps, l2=l2
        )
        return total


def _block_sums(w: Array) -> Array:
    return np.empty(-(-w.size // _kernels.UPDATE_BLOCK), np.float64)


def _allocate(stage: Stage, x: Array, params: dict[str, Array | None]) -> None:
    """Give a stage buffers of its own, x and the parameters filled in."""
    n, dtype = len(x), x.dtype
    buffers = Buffers(
        x=np.empty((n, stage.input.size), dtype),
        y=np.empty((n, stage.output.size), dtype),
        params={key: np.zeros(p.inner, dtype) for key, p in stage.parameters.items()},
        saved={key: np.zeros((n, size), kind) for key, (size, kind) in stage.saved.items()},
        scratch=np.empty(stage.scratch_elements(n), dtype),
    )
    stage.input.load(x, buffers.x)
    for key, layout in stage.parameters.items():
        value = params[key]
        assert value is not None
        layout.load(value, buffers.params[key])
    stage.buffers = buffers


def _load_output(stage: Stage, dy: Array, y: Array) -> None:
    stage.buffers.dy = np.empty_like(stage.buffers.y)
    stage.output.load(dy, stage.buffers.dy)
    stage.output.load(y, stage.buffers.y)


def _run_backward(stage: Stage, n: int, need_dx: bool) -> tuple[Array | None, Array, Array]:
    b = stage.buffers
    b.grads = {key: np.empty_like(value) for key, value in b.params.items()}
    b.dx = np.empty_like(b.x) if need_dx else None
    stage.backward(n)
    dx = stage.input.read(b.dx, n) if b.dx is not None else None
    gradients = [layout.read(b.grads[key]) for key, layout in stage.parameters.items()]
    return (dx, *gradients)  # type: ignore[return-value]
