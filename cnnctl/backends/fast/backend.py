"""The contract's operations through the C kernels, and the stages of a plan.

A plan keeps activations and parameters in the inner layout from step to step;
the stateless operations of the contract convert at both ends and run the same stages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cnnctl.backends import _kernels
from cnnctl.backends.base import Backend, SandwichGradients, SandwichOutputs
from cnnctl.backends.fast.conv import ConvStage
from cnnctl.backends.fast.elementwise import ActivationStage, AddStage, DropoutStage
from cnnctl.backends.fast.layout import ACTIVATIONS, ImageLayout, align, count_lanes, round_up
from cnnctl.backends.fast.linear import FlattenStage, LinearStage
from cnnctl.backends.fast.loss import FastLoss, describe_loss
from cnnctl.backends.fast.norm import BatchNormStage, GroupNormStage, LrnStage, ScaleStage
from cnnctl.backends.fast.pooling import AveragePoolStage, MaxPoolStage
from cnnctl.backends.specs import (
    Activation,
    ActivationSpec,
    AddSpec,
    Array,
    BatchNormSpec,
    ConvSpec,
    CrossEntropySpec,
    DropoutSpec,
    FlattenSpec,
    GroupNormSpec,
    HingeSpec,
    LinearSpec,
    LossSpec,
    LrnSpec,
    Pool,
    PoolSpec,
    Sandwich,
    ScaleSpec,
    Shape,
    Spec,
    SquaredErrorSpec,
    needs_input,
)
from cnnctl.backends.stage import Buffers, Layout, LossStage, Stage
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.geometry import Window

INSTRUCTION_SETS: tuple[str, ...] = tuple(_kernels.instruction_sets())
"""What this processor can run, the best one last."""
COMPILER: str = _kernels.compiler()
UPDATES = ("none", "sgd", "adam", "adagrad", "rmsprop", "adamax", "lion")
"""In the order of `update_kind` in kernels.h."""


@dataclass(frozen=True)
class FastBackend(Backend):
    """C kernels in vector extensions, compiled per instruction set.

    Attributes:
        isa: an entry of `INSTRUCTION_SETS`; None takes the best.
        exact: never to use Winograd's algorithm, whose rounding errors are some twenty times those
            of the sum it replaces.

    Results are bit-identical for any number of threads; instruction sets differ in the
    last bits. Subnormal results may be flushed to zero.
    """

    name: ClassVar[str] = "fast"
    isa: str | None = None
    exact: bool = False

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

    def create_layout(self, shape: Shape, dtype: Any, consumers: Sequence[Spec]) -> ImageLayout:
        # A network's input keeps its few channels side by side where its stages take them so.
        padded = not all(isinstance(spec, (ConvSpec, LinearSpec)) for spec in consumers)
        return self._layout(shape, dtype, padded=padded)

    def _layout(self, shape: Shape, dtype: Any, *, padded: bool = True) -> ImageLayout:
        return ImageLayout(shape, self.kernels(dtype), count_lanes(dtype), padded=padded)

    def create_stage(self, spec: Spec, layout: Layout, dtype: Any) -> Stage:
        assert isinstance(layout, ImageLayout)
        match spec:
            case ConvSpec():
                return ConvStage(spec, layout, self.exact)
            case LinearSpec():
                return LinearStage(spec, layout, dtype)
            case PoolSpec(pool):
                return MaxPoolStage(pool, layout) if pool.kind == "max" else AveragePoolStage(pool, layout)
            case ActivationSpec():
                return ActivationStage(spec, layout)
            case BatchNormSpec():
                return BatchNormStage(spec, layout)
            case GroupNormSpec():
                return GroupNormStage(spec, layout)
            case ScaleSpec():
                return ScaleStage(layout)
            case LrnSpec():
                return LrnStage(spec, layout)
            case DropoutSpec():
                return DropoutStage(spec, layout)
            case AddSpec():
                return AddStage(layout)
            case FlattenSpec():
                return FlattenStage(layout)

    def create_loss(self, spec: LossSpec, layout: Layout, scores: Array, dscores: Array | None) -> LossStage:
        assert isinstance(layout, ImageLayout)
        return FastLoss(spec, layout, scores, dscores)

    # The contract's operations: one stage each, with buffers of its own

    def _conv_sandwich_forward(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        sandwich: Sandwich,
        gamma: Array | None,
        beta: Array | None,
        r: Array | None,
    ) -> SandwichOutputs:
        stage = self._conv_stage(x, w, b, sandwich, gamma, beta, r)
        stage.forward(len(x), training=True)
        return stage.read_outputs(len(x))

    def _conv_sandwich_inference(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        sandwich: Sandwich,
        gamma: Array | None,
        beta: Array | None,
        r: Array | None,
        mean: Array | None,
        var: Array | None,
    ) -> Array:
        stage = self._conv_stage(x, w, b, sandwich, gamma, beta, r)
        for key, value in (("running_mean", mean), ("running_var", var)):
            if value is not None:
                stage.statistics[key].load(value, stage.buffers.statistics[key])
        stage.forward(len(x), training=False)
        return stage.output.read(stage.buffers.y, len(x))

    def _conv_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        outputs: SandwichOutputs,
        sandwich: Sandwich,
        gamma: Array | None,
        beta: Array | None,
        r: Array | None,
        need_dx: bool,
    ) -> SandwichGradients:
        stage = self._conv_stage(x, w, np.zeros(len(w), w.dtype), sandwich, gamma, beta, r)
        _load_output(stage, dy, outputs.y)
        stage.load_outputs(outputs)
        if sandwich.residual:
            stage.buffers.dr = np.empty((len(x), stage.z.size), x.dtype)
        dx, dw, db, *dnorm = _run_backward(stage, len(x), need_dx)
        assert dw is not None
        assert db is not None
        dgamma, dbeta = dnorm or (None, None)
        dr = stage.buffers.dr
        return SandwichGradients(dx, dw, db, dgamma, dbeta, None if dr is None else stage.z.read(dr, len(x)))

    def _linear_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, activation: Activation | None, alpha: float | None
    ) -> Array:
        stage = self._linear_stage(x, w, b, activation, alpha)
        stage.forward(len(x), training=True)
        return stage.output.read(stage.buffers.y, len(x))

    def _linear_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        y: Array,
        activation: Activation | None,
        alpha: float | None,
        need_dx: bool,
    ) -> tuple[Array | None, Array, Array]:
        stage = self._linear_stage(x, w, np.zeros(len(w), w.dtype), activation, alpha)
        _load_output(stage, dy, y)
        dx, dw, db = _run_backward(stage, len(x), need_dx)
        assert dw is not None
        assert db is not None
        return dx, dw, db

    def _conv_stage(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        sandwich: Sandwich,
        gamma: Array | None,
        beta: Array | None,
        r: Array | None,
    ) -> ConvStage:
        layout = self._layout(x.shape[1:], x.dtype)
        stage = ConvStage(ConvSpec(sandwich, len(w), b is not None), layout, self.exact)
        _allocate(stage, x, {"weight": w, "bias": b, "gamma": gamma, "beta": beta})
        if r is not None:
            stage.buffers.r = np.empty((len(x), stage.z.size), x.dtype)
            stage.z.load(r, stage.buffers.r)
        return stage

    def _linear_stage(
        self, x: Array, w: Array, b: Array | None, activation: Activation | None, alpha: float | None
    ) -> LinearStage:
        layout = self._layout(x.shape[1:], x.dtype)
        stage = LinearStage(LinearSpec(len(w), b is not None, activation, alpha), layout, x.dtype)
        _allocate(stage, x, {"weight": w, "bias": b})
        return stage

    def _conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int) -> Array:
        return self._conv_sandwich_forward(x, w, b, Sandwich(window, groups), None, None, None).y

    def _conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        sandwich, outputs = Sandwich(window, groups), SandwichOutputs(dy)
        gradients = self._conv_sandwich_backward(dy, x, w, outputs, sandwich, None, None, None, need_dx)
        return gradients.dx, gradients.dw, gradients.db

    def _maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]:
        stage = MaxPoolStage(Pool("max", window), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {})
        stage.forward(len(x), training=True)
        return stage.output.read(stage.buffers.y, len(x)), stage.read_index(len(x))

    def _maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array:
        stage = MaxPoolStage(Pool("max", window), self._layout(x_shape[1:], dy.dtype))
        _allocate(stage, np.zeros(x_shape, dy.dtype), {})
        _load_output(stage, dy, dy)
        stage.load_index(index)
        dx, *_ = _run_backward(stage, len(dy), True)
        assert dx is not None
        return dx

    def _linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        return self._linear_sandwich_forward(x, w, b, None, None)

    def _linear_backward(
        self, dy: Array, x: Array, w: Array, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        return self._linear_sandwich_backward(dy, x, w, dy, None, None, need_dx)

    def _avgpool_forward(self, x: Array, window: Window) -> Array:
        stage = AveragePoolStage(Pool("average", window), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {})
        return _run_forward(stage, len(x))

    def _avgpool_backward(self, dy: Array, x_shape: tuple[int, int, int, int], window: Window) -> Array:
        stage = AveragePoolStage(Pool("average", window), self._layout(x_shape[1:], dy.dtype))
        _allocate(stage, np.zeros(x_shape, dy.dtype), {})
        return _find_dx(stage, dy)

    def _activation_forward(self, x: Array, activation: Activation, alpha: float) -> Array:
        padded, shape = self._pad(x)
        kind = ACTIVATIONS.index(activation)
        self.kernels(x.dtype).activation_forward(kind, alpha, shape, 1, padded, padded)
        return padded[: x.size].reshape(x.shape)

    def _activation_backward(
        self, dy: Array, x: Array, y: Array, activation: Activation, alpha: float
    ) -> Array:
        gradient, shape = self._pad(dy)
        known, _ = self._pad(x if needs_input(activation) else y)
        kind = ACTIVATIONS.index(activation)
        self.kernels(dy.dtype).activation_backward(kind, alpha, shape, 1, gradient, known, gradient)
        return gradient[: dy.size].reshape(dy.shape)

    @staticmethod
    def _pad(array: Array) -> tuple[Array, tuple[int, int, int, int, int]]:
        """A flat copy whose length is a multiple of the lanes, and its extents as one image."""
        padded = np.zeros(round_up(array.size, count_lanes(array.dtype)), array.dtype)
        padded[: array.size] = array.reshape(-1)
        return padded, (1, 1, array.size, padded.size, padded.size)

    def _batchnorm_forward(
        self, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        stage = self._batchnorm_stage(x, eps, weight=gamma, bias=beta)
        y = _run_forward(stage, len(x))
        mean, var = (stage.buffers.saved[key][: len(gamma)].copy() for key in ("mean", "var"))
        return y, mean, var

    def _batchnorm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
    ) -> Array:
        stage = self._batchnorm_stage(x, eps, weight=gamma, bias=beta, running_mean=mean, running_var=var)
        stage.forward(len(x), training=False)
        return stage.output.read(stage.buffers.y, len(x))

    def _batchnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        stage = self._batchnorm_stage(x, eps, weight=gamma, bias=gamma)
        for key, value in (("mean", mean), ("var", var)):
            stage.buffers.saved[key][: len(gamma)] = value
        return _find_affine_gradients(stage, dy)

    def _batchnorm_stage(self, x: Array, eps: float, **arrays: Array) -> BatchNormStage:
        stage = BatchNormStage(BatchNormSpec(eps), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, arrays)
        return stage

    def _groupnorm_forward(
        self, x: Array, gamma: Array, beta: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        stage = self._groupnorm_stage(x, groups, eps, weight=gamma, bias=beta)
        y = _run_forward(stage, len(x))
        return y, stage.buffers.saved["mean"], stage.buffers.saved["var"]

    def _groupnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        stage = self._groupnorm_stage(x, groups, eps, weight=gamma, bias=gamma)
        stage.buffers.saved["mean"][...], stage.buffers.saved["var"][...] = mean, var
        return _find_affine_gradients(stage, dy)

    def _groupnorm_stage(self, x: Array, groups: int, eps: float, **arrays: Array) -> GroupNormStage:
        stage = GroupNormStage(GroupNormSpec(groups, eps), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, arrays)
        return stage

    def _scale_forward(self, x: Array, w: Array, b: Array) -> Array:
        stage = ScaleStage(self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {"weight": w, "bias": b})
        return _run_forward(stage, len(x))

    def _scale_backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        stage = ScaleStage(self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {"weight": w, "bias": w})
        return _find_affine_gradients(stage, dy)

    def _lrn_forward(self, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        stage = LrnStage(LrnSpec(size, alpha, beta, k), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {})
        return _run_forward(stage, len(x))

    def _lrn_backward(self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        stage = LrnStage(LrnSpec(size, alpha, beta, k), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {})
        return _find_dx(stage, dy)

    def _dropout(self, x: Array, rate: float, seed: int, spatial: bool) -> Array:
        stage = DropoutStage(DropoutSpec(rate, seed, spatial), self._layout(x.shape[1:], x.dtype))
        _allocate(stage, x, {})
        return _run_forward(stage, len(x))

    def _softmax_cross_entropy_forward(
        self, scores: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> tuple[float, Array]:
        return self._run_loss(_cross_entropy(smoothing, weights), scores, labels)

    def _softmax_cross_entropy_backward(
        self, p: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> Array:
        return self._find_dscores(_cross_entropy(smoothing, weights), p, labels)

    def _hinge_forward(self, scores: Array, labels: Array, margin: float) -> float:
        return self._run_loss(HingeSpec(margin), scores, labels)[0]

    def _hinge_backward(self, scores: Array, labels: Array, margin: float) -> Array:
        return self._find_dscores(HingeSpec(margin), scores, labels)

    def _squared_error_forward(self, scores: Array, labels: Array) -> float:
        return self._run_loss(SquaredErrorSpec(), scores, labels)[0]

    def _squared_error_backward(self, scores: Array, labels: Array) -> Array:
        return self._find_dscores(SquaredErrorSpec(), scores, labels)

    def _run_loss(self, spec: LossSpec, scores: Array, labels: Array) -> tuple[float, Array]:
        """The loss, and p for cross-entropy."""
        layout, rows = self._load_scores(scores)
        loss, _ = layout.kernels.loss_forward(
            *describe_loss(spec, layout, scores.dtype),
            *(*scores.shape, layout.size, rows, align(labels, np.int64), rows),
        )
        return loss, layout.read(rows, len(scores))

    def _find_dscores(self, spec: LossSpec, source: Array, labels: Array) -> Array:
        layout, rows = self._load_scores(source)
        layout.kernels.loss_backward(
            *describe_loss(spec, layout, source.dtype),
            *(*source.shape, layout.size, rows, align(labels, np.int64), dscores := np.empty_like(rows)),
        )
        return layout.read(dscores, len(source))

    def _load_scores(self, scores: Array) -> tuple[ImageLayout, Array]:
        layout = self._layout(scores.shape[1:], scores.dtype)
        rows = np.empty((len(scores), layout.size), scores.dtype)
        layout.load(scores, rows)
        return layout, rows

    def _sum_squares(self, x: Array) -> float:
        return self._update("none", None, x)

    def _add_l1_gradient(self, w: Array, dw: Array, l1: float) -> float:
        total: float = self.kernels(w.dtype).add_l1_gradient(w.size, l1, w, dw, _allocate_sums(w))
        return total

    def _sgd_update(
        self,
        w: Array,
        dw: Array,
        velocity: Array,
        lr: float,
        momentum: float,
        dampening: float,
        nesterov: bool,
        l2: float,
    ) -> float:
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "l2": l2}
        return self._update("sgd", w, dw, velocity, **settings)

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
        weight_decay: float,
        l2: float,
    ) -> float:
        settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
        return self._update("adam", w, dw, m, v, step=step, weight_decay=weight_decay, l2=l2, **settings)

    def _adagrad_update(self, w: Array, dw: Array, square: Array, lr: float, eps: float, l2: float) -> float:
        return self._update("adagrad", w, dw, square, lr=lr, eps=eps, l2=l2)

    def _rmsprop_update(
        self,
        w: Array,
        dw: Array,
        square: Array,
        mean: Array | None,
        velocity: Array | None,
        lr: float,
        alpha: float,
        eps: float,
        momentum: float,
        l2: float,
    ) -> float:
        settings = {"lr": lr, "beta2": alpha, "eps": eps, "momentum": momentum, "l2": l2}
        return self._update("rmsprop", w, dw, square, mean, velocity, **settings)

    def _adamax_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        u: Array,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        l2: float,
    ) -> float:
        settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "l2": l2}
        return self._update("adamax", w, dw, m, u, step=step, **settings)

    def _lion_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        l2: float,
    ) -> float:
        settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay, "l2": l2}
        return self._update("lion", w, dw, m, **settings)

    def _update(self, kind: str, w: Array | None, dw: Array, *slots: Array | None, **settings: Any) -> float:
        number, sums = UPDATES.index(kind), _allocate_sums(dw)
        total: float = self.kernels(dw.dtype).update(number, dw.size, w, dw, slots, sums, **settings)
        return total


def _allocate_sums(w: Array) -> Array:
    """A double for each task of an update."""
    return np.empty(-(-w.size // _kernels.UPDATE_BLOCK), np.float64)


def _cross_entropy(smoothing: float, weights: Array | None) -> CrossEntropySpec:
    return CrossEntropySpec(smoothing, None if weights is None else tuple(weights.tolist()))


def _allocate(stage: Stage, x: Array, arrays: Mapping[str, Array | None]) -> None:
    """Give a stage buffers of its own, x, parameters and such statistics as are given filled in."""
    n, dtype = len(x), x.dtype
    buffers = Buffers(
        x=np.empty((n, stage.input.size), dtype),
        y=np.empty((n, stage.output.size), dtype),
        params={key: np.zeros(p.inner, dtype) for key, p in stage.parameters.items()},
        statistics={key: np.zeros(p.inner, dtype) for key, p in stage.statistics.items()},
        saved={
            **{key: np.zeros((n, size), kind or dtype) for key, (size, kind) in stage.saved.items()},
            **{key: np.zeros(size, kind or dtype) for key, (size, kind) in stage.saved_once.items()},
        },
        scratch=np.empty(stage.scratch_elements(n), dtype),
    )
    stage.input.load(x, buffers.x)
    for key, layout in stage.parameters.items():
        value = arrays[key]
        assert value is not None
        layout.load(value, buffers.params[key])
    for key, layout in stage.statistics.items():
        value = arrays.get(key)
        if value is not None:
            layout.load(value, buffers.statistics[key])
    stage.buffers = buffers


def _run_forward(stage: Stage, n: int) -> Array:
    stage.forward(n, training=True)
    return stage.output.read(stage.buffers.y, n)


def _find_dx(stage: Stage, dy: Array) -> Array:
    """dx of a stage that needs neither y nor parameters."""
    _load_output(stage, dy, dy)
    dx, *_ = _run_backward(stage, len(dy), True)
    assert dx is not None
    return dx


def _find_affine_gradients(stage: Stage, dy: Array) -> tuple[Array, Array, Array]:
    """dx and the gradients of factor and offset, of a stage that does not need y."""
    _load_output(stage, dy, dy)
    dx, dw, db = _run_backward(stage, len(dy), True)
    assert dx is not None
    assert dw is not None
    assert db is not None
    return dx, dw, db


def _load_output(stage: Stage, dy: Array, y: Array) -> None:
    stage.buffers.dy = np.empty_like(stage.buffers.y)
    stage.output.load(dy, stage.buffers.dy)
    stage.output.load(y, stage.buffers.y)


def _run_backward(stage: Stage, n: int, need_dx: bool) -> list[Array | None]:
    """dx and the gradients of the parameters in their order."""
    b = stage.buffers
    b.grads = {key: np.empty_like(value) for key, value in b.params.items()}
    b.dx = np.empty_like(b.x) if need_dx else None
    stage.backward(n)
    dx = stage.input.read(b.dx, n) if b.dx is not None else None
    gradients = [layout.read(b.grads[key]) for key, layout in stage.parameters.items()]
    return [dx, *gradients]
