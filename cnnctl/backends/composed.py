"""Stages composed of the contract's own operations, for backends that have no faster way.

They agree with the contract by construction, keep everything in its natural layout, and
allocate as numpy does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from cnnctl.backends.base import Backend, SandwichOutputs
from cnnctl.backends.specs import (
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
    RawImages,
    Sandwich,
    ScaleSpec,
    Shape,
    Spec,
    SquaredErrorSpec,
)
from cnnctl.backends.stage import Layout, LossStage, ParameterLayout, Stage


@dataclass(frozen=True)
class ComposedBackend(Backend):
    """A backend whose stages are its operations, one after the other."""

    def create_layout(self, shape: Shape, dtype: Any, consumers: Sequence[Spec]) -> Layout:
        return NaturalLayout(shape)

    def create_stage(self, spec: Spec, layout: Layout, dtype: Any) -> Stage:
        return ComposedStage(self, spec, layout)

    def create_loss(self, spec: LossSpec, layout: Layout, scores: Array, dscores: Array | None) -> LossStage:
        return ComposedLoss(self, spec, scores, dscores)


@dataclass(frozen=True)
class NaturalLayout(Layout):
    """NCHW, as outside."""

    shape: Shape

    @property
    def size(self) -> int:  # type: ignore[override]
        return prod(self.shape)

    def view(self, buffer: Array, n: int) -> Array:
        """The first n images as (n, *shape), sharing the buffer's memory."""
        return buffer[:n].reshape(n, *self.shape)

    def load(self, images: Array, buffer: Array) -> None:
        self.view(buffer, len(images))[...] = images

    def prepare(self, images: RawImages, buffer: Array) -> None:
        images.render(self.view(buffer, len(images)))

    def read(self, buffer: Array, n: int) -> Array:
        return self.view(buffer, n).copy()


class ComposedStage(Stage):
    """A stage of a backend that has no faster way than its own contract."""

    def __init__(self, backend: Backend, spec: Spec, layout: Layout) -> None:
        super().__init__(layout, layout)
        self.backend, self.spec = backend, spec
        shape = layout.shape
        match spec:
            case ConvSpec(sandwich, filters, bias):
                channels, height, width = shape
                weight = (filters, channels // sandwich.groups, *sandwich.window.kernel)
                shape = (filters, *sandwich.window.output_size(height, width))
                self.parameters = _natural_parameters(weight, bias)
                self._plan_sandwich(sandwich, shape)
                if sandwich.pool:
                    shape = self._plan_pool(sandwich.pool, shape)
            case LinearSpec(units, bias):
                shape = (units,)
                self.parameters = _natural_parameters((units, prod(layout.shape)), bias)
            case PoolSpec(pool):
                shape = self._plan_pool(pool, shape)
            case FlattenSpec():
                shape = (prod(layout.shape),)
            case BatchNormSpec():
                self.parameters = _natural_parameters(shape[:1], bias=True)
                self._plan_statistics(shape[0])
            case GroupNormSpec(groups):
                self.parameters = _natural_parameters(shape[:1], bias=True)
                self.saved = {"mean": (groups, None), "var": (groups, None)}
            case ScaleSpec():
                self.parameters = _natural_parameters(shape[:1], bias=True)
            case DropoutSpec(_, seed):
                self.seed = seed
        self.output = NaturalLayout(shape)

    def _plan_sandwich(self, sandwich: Sandwich, shape: Shape) -> None:
        """Make room for what a fused convolution keeps; `shape` is that before the pool."""
        if sandwich.keeps_z:
            self.saved["z"] = (prod(shape), None)
        if sandwich.norm:
            for key in ("gamma", "beta"):
                self.parameters[key] = _natural(shape[:1])
            self._plan_statistics(shape[0])

    def _plan_statistics(self, channels: int) -> None:
        self.statistics = {key: _natural((channels,)) for key in ("running_mean", "running_var")}
        self.saved_once = {"mean": (channels, None), "var": (channels, None)}

    def _plan_pool(self, pool: Pool, shape: Shape) -> Shape:
        """Make room for a max pool's winners; returns the pooled shape."""
        pooled = (shape[0], *pool.window.output_size(*shape[1:]))
        if pool.kind == "max":
            self.saved["index"] = (prod(pooled), np.int32)
        return pooled

    def forward(self, n: int, training: bool) -> None:
        b, backend = self.buffers, self.backend
        x, y = self._images(self.input, b.x, n), self._images(self.output, b.y, n)
        match self.spec:
            case ConvSpec(sandwich):
                y[...] = self._convolve(x, sandwich, training)
            case LinearSpec(_, _, activation, alpha):
                images, w = x.reshape(n, self.input.size), b.params["weight"]
                y[...] = backend.linear_sandwich_forward(images, w, b.params.get("bias"), activation, alpha)
            case PoolSpec(Pool("max", window)):
                y[...], index = backend.maxpool_forward(x, window)
                b.saved["index"][:n] = index.reshape(n, self.output.size)
            case PoolSpec(Pool("average", window)):
                y[...] = backend.avgpool_forward(x, window)
            case ActivationSpec(activation, alpha):
                y[...] = backend.activation_forward(x, activation, alpha)
            case AddSpec():
                assert b.r is not None
                np.add(x, self._images(self.input, b.r, n), out=y)
            case FlattenSpec():
                y[...] = x.reshape(y.shape)
            case BatchNormSpec() as norm:
                y[...] = self._normalize(x, norm, training)
            case LrnSpec(size, alpha, beta, k):
                y[...] = backend.lrn_forward(x, size, alpha, beta, k)
            case GroupNormSpec(groups, eps):
                affine = b.params["weight"], b.params["bias"]
                y[...], *moments = backend.groupnorm_forward(x, *affine, groups, eps)
                b.saved["mean"][:n], b.saved["var"][:n] = moments
            case ScaleSpec():
                y[...] = backend.scale_forward(x, b.params["weight"], b.params["bias"])
            case DropoutSpec(rate, _, spatial):
                y[...] = backend.dropout(x, rate, self.seed, spatial) if training else x

    def _convolve(self, x: Array, sandwich: Sandwich, training: bool) -> Array:
        """y of a fused convolution; training saves what backward needs and moves the statistics."""
        b, n = self.buffers, len(x)
        arguments = (x, b.params["weight"], b.params.get("bias"), sandwich, *self._extras(n))
        if not training:
            mean, var = b.statistics.get("running_mean"), b.statistics.get("running_var")
            return self.backend.conv_sandwich_inference(*arguments, mean, var)
        outputs = self.backend.conv_sandwich_forward(*arguments)
        for key in self.saved:
            b.saved[key][:n] = getattr(outputs, key).reshape(n, b.saved[key].shape[1])
        for key in self.saved_once:
            b.saved[key][...] = getattr(outputs, key)
        if sandwich.norm:
            assert outputs.z is not None
            move_statistics(b.statistics, outputs.mean, outputs.var, outputs.z, sandwich.norm.momentum)
        return outputs.y

    def _normalize(self, x: Array, norm: BatchNormSpec, training: bool) -> Array:
        """y of a batch norm; training saves the batch's statistics and moves the running ones."""
        b = self.buffers
        affine = b.params["weight"], b.params["bias"]
        if not training:
            running = b.statistics["running_mean"], b.statistics["running_var"]
            return self.backend.batchnorm_inference(x, *affine, *running, norm.eps)
        y, b.saved["mean"][...], b.saved["var"][...] = self.backend.batchnorm_forward(x, *affine, norm.eps)
        move_statistics(b.statistics, b.saved["mean"], b.saved["var"], x, norm.momentum)
        return y

    def _extras(self, n: int) -> tuple[Array | None, Array | None, Array | None]:
        """gamma, beta, r of a fused convolution."""
        b = self.buffers
        r = None
        if b.r is not None:
            r = b.r[:n].reshape(n, *self._before_pool())
        return b.params.get("gamma"), b.params.get("beta"), r

    def _before_pool(self) -> Shape:
        assert isinstance(self.spec, ConvSpec)
        return (self.spec.filters, *self.spec.sandwich.window.output_size(*self.input.shape[1:]))

    def backward(self, n: int) -> None:
        b, backend = self.buffers, self.backend
        assert b.dy is not None
        x, y = self._images(self.input, b.x, n), self._images(self.output, b.y, n)
        dy = self._images(self.output, b.dy, n)
        need_dx = b.dx is not None
        dx: Array | None = None
        gradients: tuple[Array | None, ...] = ()
        match self.spec:
            case ConvSpec(sandwich):
                shapes = {"index": self.output.shape, "z": self._before_pool()}
                saved = {key: b.saved[key][:n].reshape(n, *shapes[key]) for key in self.saved}
                saved |= {key: b.saved[key] for key in self.saved_once}
                dx, dw, db, *dnorm, dr = backend.conv_sandwich_backward(
                    dy,
                    x,
                    b.params["weight"],
                    SandwichOutputs(y, **saved),
                    sandwich,
                    *self._extras(n),
                    need_dx=need_dx,
                )
                gradients = (dw, db, *dnorm) if "bias" in b.params else (dw, *dnorm)
                if b.dr is not None and dr is not None:
                    b.dr[:n] = dr.reshape(n, b.dr.shape[1])
            case LinearSpec(_, _, activation, alpha):
                dx, *gradients = backend.linear_sandwich_backward(  # type: ignore[assignment]
                    dy,
                    x.reshape(n, self.input.size),
                    b.params["weight"],
                    y,
                    activation,
                    alpha,
                    need_dx=need_dx,
                )
            case PoolSpec(Pool("max", window)):
                dx = backend.maxpool_backward(dy, b.saved["index"][:n].reshape(y.shape), x.shape, window)
            case PoolSpec(Pool("average", window)):
                dx = backend.avgpool_backward(dy, x.shape, window)
            case ActivationSpec(activation, alpha):
                dx = backend.activation_backward(dy, x, y, activation, alpha)
            case AddSpec():
                dx = dy
                if b.dr is not None:
                    b.dr[:n] = dy.reshape(n, b.dr.shape[1])
            case FlattenSpec():
                dx = dy
            case BatchNormSpec(eps):
                dx, *gradients = backend.batchnorm_backward(  # type: ignore[assignment]
                    dy, x, b.params["weight"], b.saved["mean"], b.saved["var"], eps
                )
            case LrnSpec(size, alpha, beta, k):
                dx = backend.lrn_backward(dy, x, size, alpha, beta, k)
            case GroupNormSpec(groups, eps):
                moments = b.saved["mean"][:n], b.saved["var"][:n]
                dx, *gradients = backend.groupnorm_backward(  # type: ignore[assignment]
                    dy, x, b.params["weight"], *moments, groups, eps
                )
            case ScaleSpec():
                dx, *gradients = backend.scale_backward(dy, x, b.params["weight"])  # type: ignore[assignment]
            case DropoutSpec(rate, _, spatial):
                dx = backend.dropout(dy, rate, self.seed, spatial)
        # Fewer targets than gradients without a bias, which comes last, and none where dx alone is wanted.
        for gradient, target in zip(gradients, b.grads.values(), strict=False):
            target[...] = gradient
        if b.dx is not None and dx is not None:
            b.dx[:n] = dx.reshape(n, self.input.size)

    @staticmethod
    def _images(layout: Layout, buffer: Array, n: int) -> Array:
        assert isinstance(layout, NaturalLayout)
        return layout.view(buffer, n)


class ComposedLoss(LossStage):
    """A loss through the contract's operations."""

    def __init__(self, backend: Backend, spec: LossSpec, scores: Array, dscores: Array | None) -> None:
        self.backend, self.spec, self.scores, self.dscores = backend, spec, scores, dscores
        self.p: Array | None = None
        self.weights: Array | None = None
        if isinstance(spec, CrossEntropySpec) and spec.weights is not None:
            self.weights = np.array(spec.weights, scores.dtype)

    def forward(self, n: int, labels: Array) -> tuple[float, int]:
        scores = self.scores[:n]
        match self.spec:
            case CrossEntropySpec(smoothing):
                loss, self.p = self.backend.softmax_cross_entropy_forward(
                    scores, labels, smoothing, self.weights
                )
            case HingeSpec(margin):
                loss = self.backend.hinge_forward(scores, labels, margin)
            case SquaredErrorSpec():
                loss = self.backend.squared_error_forward(scores, labels)
        return loss, count_right(scores, labels)

    def backward(self, n: int, labels: Array) -> None:
        assert self.dscores is not None
        scores, dscores = self.scores[:n], self.dscores[:n]
        match self.spec:
            case CrossEntropySpec(smoothing):
                assert self.p is not None
                dscores[...] = self.backend.softmax_cross_entropy_backward(
                    self.p, labels, smoothing, self.weights
                )
            case HingeSpec(margin):
                dscores[...] = self.backend.hinge_backward(scores, labels, margin)
            case SquaredErrorSpec():
                dscores[...] = self.backend.squared_error_backward(scores, labels)


def count_right(scores: Array, labels: Array) -> int:
    """Rows whose first maximum is the label; of one score alone, those on its side of 1/2."""
    if not len(scores):
        return 0
    found = scores[:, 0] > 0.5 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return int((found == labels).sum())


def move_statistics(
    statistics: Mapping[str, Array], mean: Array | None, var: Array | None, z: Array, momentum: float
) -> None:
    """running <- (1 - momentum) running + momentum batch, with the unbiased variance."""
    assert mean is not None
    assert var is not None
    count = z.size // max(len(mean), 1)
    unbiased = var * (count / max(count - 1, 1))
    for key, batch in (("running_mean", mean), ("running_var", unbiased)):
        if count:
            statistics[key][...] += momentum * (batch - statistics[key])


def _natural(shape: Shape) -> ParameterLayout:
    return ParameterLayout(shape, shape, lambda inner: inner)


def _natural_parameters(weight: Shape, bias: bool) -> dict[str, ParameterLayout]:
    return (
        {"weight": _natural(weight), "bias": _natural(weight[:1])} if bias else {"weight": _natural(weight)}
    )
