"""The same network in PyTorch, written and set the way somebody who knows PyTorch would.

Turns layers into modules by their kind, with the same weights, optimizer and batches. Needs
PyTorch: import this only where that is wanted. Trains nothing to the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cnnctl.backends.specs import CrossEntropySpec, HingeSpec, LossSpec, SquaredErrorSpec
from cnnctl.bench.timing import Quartiles, time_turns
from cnnctl.bench.workload import Workload
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.geometry import Window
from cnnctl.nn.layer import Layer

MemoryFormat = Literal["NCHW", "channels_last"]
Source = Literal["pixels", "normalized"]

CHUNK_IMAGES = 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to run the network in PyTorch.

    Attributes:
        layout: how images lie in memory, from the data set onwards.
        compiled: whether normalisation, network and loss go through torch.compile.
        source: what batches are gathered from: see `Images`.
    """

    layout: MemoryFormat
    compiled: bool
    source: Source = "pixels"

    @property
    def name(self) -> str:
        return "torch compile" if self.compiled else "torch eager"

    @property
    def frugal(self) -> "Candidate":
        """The same, gathering from pixels as they are: what its memory is measured with."""
        return replace(self, source="pixels")

    def create_side(self, workload: Workload, *, evaluate: bool, dropout: bool = True) -> "TorchSide":
        """Made ready to run; whether it compiles, its first step will show."""
        return TorchSide(self, workload, evaluate, dropout)


def list_candidates(workload: Workload) -> list[Candidate]:
    """{NCHW, channels_last} x {eager, compiled}, each gathering from what is faster in its layout."""
    torch.set_num_threads(workload.threads)
    layouts: tuple[MemoryFormat, ...] = ("NCHW", "channels_last")
    sources = {layout: _choose_source(workload, layout) for layout in layouts}
    return [Candidate(layout, compiled, sources[layout]) for compiled in (False, True) for layout in layouts]


class TorchSide:
    """Training steps, or evaluation, of a workload's network in PyTorch."""

    def __init__(self, candidate: Candidate, workload: Workload, evaluate: bool, dropout: bool) -> None:
        torch.set_num_threads(workload.threads)
        torch.manual_seed(workload.config.engine.seed)
        solver = workload.config.solver
        channels_last = candidate.layout == "channels_last"
        self._images = load_images(workload, candidate.layout, candidate.source)
        network = workload.create_network(dropout=dropout)
        self._model, self._loss = build_module(network.layers), network.loss.spec
        self._model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        self._model.train(not evaluate)
        self._penalized, others = split_parameters(self._model)
        self._optimizer = create_optimizer(solver.optimizer, self._penalized, others, solver.l2)
        if solver.l1:
            raise ConfigError(f"solver.l1: {solver.l1} is not known in PyTorch; give 0")
        if solver.groups:
            raise ConfigError(f"solver.groups: {len(solver.groups)} are not known in PyTorch; leave them out")
        self._l2, self._evaluate = solver.l2, evaluate
        self._clip_value, self._clip_norm = solver.clip_value, solver.clip_norm
        self._compute_scores, self._compute_loss = self._score, self._lose
        if candidate.compiled:
            self._compute_scores, self._compute_loss = map(torch.compile, (self._score, self._lose))

    def step(self, number: int) -> torch.Tensor:
        """Batch `number`, gathered, normalised and run: its scores, or its loss without penalty."""
        raw, labels = self._images.gather(number)
        if self._evaluate:
            with torch.inference_mode():
                return self._compute_scores(raw)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._compute_loss(raw, labels)
        loss.backward()
        if self._clip_value is not None:
            nn.utils.clip_grad_value_(self._model.parameters(), self._clip_value)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        return loss.detach()

    def read_loss(self, number: int) -> float:
        """The same step, and its loss with penalty."""
        with torch.no_grad():
            squares = sum(float(weight.square().sum()) for weight in self._penalized)
        result = self.step(number)
        if self._evaluate:
            return float(compute_loss(self._loss, result, self._images.gather(number)[1]))
        return float(result) + 0.5 * self._l2 * squares

    def _score(self, raw: torch.Tensor) -> torch.Tensor:
        return self._model(self._images.prepare(raw))

    def _lose(self, raw: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return compute_loss(self._loss, self._score(raw), labels)


def compute_loss(spec: LossSpec, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss as a graph that can be differentiated."""
    match spec:
        case CrossEntropySpec(smoothing, weights):
            weight = None if weights is None else torch.tensor(weights, dtype=scores.dtype)
            return functional.cross_entropy(scores, labels, weight, label_smoothing=smoothing)
        case HingeSpec(margin):  # PyTorch's is divided by the number of classes
            return functional.multi_margin_loss(scores, labels, margin=margin) * scores.shape[1]
        case SquaredErrorSpec():
            classes = scores.shape[1]
            targets = labels[:, None] if classes == 1 else functional.one_hot(labels, classes)
            return 0.5 * (scores - targets).square().sum(1).mean()


class Images:
    """The training images as tensors, and the batches made of them.

    From pixels, a batch is gathered, normalised and brought into the layout. From normalised
    images it is only gathered: all that was done once, beforehand, for all of them.
    """

    def __init__(self, workload: Workload, layout: MemoryFormat, source: Source) -> None:
        self._workload, self._source, self._channels_last = workload, source, layout == "channels_last"
        dtype = getattr(torch, workload.config.engine.dtype)
        normalizer = workload.normalizer
        scale = np.broadcast_to(normalizer.scale[:, None, None], normalizer.shift.shape).copy()
        self._scale, self._shift = (torch.from_numpy(part).to(dtype) for part in (scale, normalizer.shift))
        self._images = torch.from_numpy(workload.split.images)
        self._labels = torch.from_numpy(workload.split.labels)
        if source == "normalized":
            self._images = self._prepare_all(self._images)

    def gather(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of that batch, as they lie there."""
        chosen = torch.from_numpy(self._workload.choose_images(number))
        return self._images.index_select(0, chosen), self._labels.index_select(0, chosen)

    def prepare(self, raw: torch.Tensor) -> torch.Tensor:
        """x (N, C, H, W) of gathered images, in the layout."""
        if self._source == "pixels":
            x = self._normalize(raw)
            return x.contiguous(memory_format=torch.channels_last) if self._channels_last else x
        return raw.permute(0, 3, 1, 2) if self._channels_last else raw

    def _prepare_all(self, pixels: torch.Tensor) -> torch.Tensor:
        """All images as `prepare` wants to find them: NHWC in memory for channels_last."""
        axes = (0, 2, 3, 1) if self._channels_last else (0, 1, 2, 3)
        prepared = torch.empty([pixels.shape[axis] for axis in axes], dtype=self._shift.dtype)
        for part, chunk in zip(prepared.split(CHUNK_IMAGES), pixels.split(CHUNK_IMAGES), strict=True):
            part.copy_(self._normalize(chunk).permute(axes))
        return prepared

    def _normalize(self, raw: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self._shift, raw.to(self._shift.dtype), self._scale)


@lru_cache(maxsize=2)
def load_images(workload: Workload, layout: MemoryFormat, source: Source) -> Images:
    """The images; sides that need the same ones share them, one set for each layout."""
    return Images(workload, layout, source)


def _choose_source(workload: Workload, layout: MemoryFormat, turns: int = 30) -> Source:
    sources: tuple[Source, ...] = ("pixels", "normalized")

    def prepare_batches(source: Source) -> Callable[[int], object]:
        images = Images(workload, layout, source)
        return lambda number: images.prepare(images.gather(number)[0])

    times = time_turns({source: prepare_batches(source) for source in sources}, turns, warmup=5)
    return min(sources, key=lambda source: Quartiles.of_seconds(times[source]).median)


# Network and optimizer


class Residual(nn.Module):
    """y = layers(x) + shortcut(x)."""

    def __init__(self, layers: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.layers, self.shortcut = layers, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + self.shortcut(x)


class Scale(nn.Module):
    """y = weight x + bias, with a weight and a bias for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(channels)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])


def build_module(layers: Sequence[Layer]) -> nn.Sequential:
    """Modules that compute what the layers do, with copies of their parameters.

    Raises ConfigError for a layer that PyTorch has no like of.
    """
    modules: list[nn.Module] = []
    before = None
    for layer in layers:
        if layer.kind not in BUILDERS:
            hint = describe_alternatives(layer.kind, BUILDERS)
            raise ConfigError(f"{layer.name}: {layer.kind!r} is not known in PyTorch; {hint}")
        if layer.kind == "relu" and before in OVERWRITABLE:
            modules.append(nn.ReLU(inplace=True))
        else:
            modules += BUILDERS[layer.kind](layer)
        before = layer.kind
    return nn.Sequential(*modules)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that the L2 penalty counts, and the others."""
    penalized: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            (penalized if key in module.regularized else others).append(parameter)
    return penalized, others


def create_optimizer(
    settings: Any, penalized: list[nn.Parameter], others: list[nn.Parameter], l2: float
) -> torch.optim.Optimizer:
    """PyTorch's optimizer of that kind, fused where it can be; raises ConfigError where there is none."""
    decay, decoupled = settings.weight_decay, settings.kind == "adamw"
    if decoupled and l2:
        raise ConfigError(f"solver.l2: {l2} does not go with adamw in PyTorch; give 0")
    groups = [{"params": penalized, "weight_decay": decay + l2}, {"params": others, "weight_decay": decay}]
    lr = settings.lr
    match settings.kind:
        case "adam" | "adamw" | "adamax":
            more = lr, (settings.beta1, settings.beta2), settings.eps
            if settings.kind == "adamax":
                return torch.optim.Adamax(groups, *more)
            return (torch.optim.AdamW if decoupled else torch.optim.Adam)(groups, *more, fused=True)
        case "sgd":
            momentum, dampening = settings.momentum, settings.dampening
            return torch.optim.SGD(groups, lr, momentum, dampening, nesterov=settings.nesterov, fused=True)
        case "adagrad":
            return torch.optim.Adagrad(groups, lr, eps=settings.eps, fused=True)
        case "rmsprop":
            means = {"momentum": settings.momentum, "centered": settings.centered}
            return torch.optim.RMSprop(groups, lr, settings.alpha, settings.eps, **means)
    known = "sgd, adam, adamw, adamax, adagrad, rmsprop"
    raise ConfigError(f"solver.optimizer: {settings.kind!r} is not known in PyTorch; known: {known}")


def _load(module: nn.Module, layer: Layer) -> nn.Module:
    """The module with the layer's parameters: their keys and shapes are the same."""
    module.to(getattr(torch, str(layer.dtype)))
    module.load_state_dict({key: torch.from_numpy(w) for key, w in layer.params.items()}, strict=False)
    module.regularized = layer.regularized
    return module


def _build_conv(layer: Any) -> list[nn.Module]:
    window, channels = layer.window, layer.input_shape[0]
    border, padding = _split_padding(window, 0.0)
    conv = nn.Conv2d(
        channels,
        layer.filters,
        window.kernel,
        window.stride,
        padding,
        window.dilation,
        layer.groups,
        layer.bias,
    )
    return [*border, _load(conv, layer)]


def _build_linear(layer: Any) -> list[nn.Module]:
    flatten = [nn.Flatten()] if len(layer.input_shape) > 1 else []
    inputs = int(np.prod(layer.input_shape))
    return [*flatten, _load(nn.Linear(inputs, layer.units, layer.bias), layer)]


def _build_batchnorm(layer: Any) -> list[nn.Module]:
    norm = nn.BatchNorm2d if len(layer.input_shape) == 3 else nn.BatchNorm1d
    return [_load(norm(layer.input_shape[0], layer.eps, layer.momentum), layer)]


def _build_groupnorm(layer: Any) -> list[nn.Module]:
    return [_load(nn.GroupNorm(layer.spec.groups, layer.input_shape[0], layer.eps), layer)]


def _build_layernorm(layer: Any) -> list[nn.Module]:
    if len(layer.input_shape) > 1:  # PyTorch's layer norm would have a weight for every pixel
        return _build_groupnorm(layer)
    return [_load(nn.LayerNorm(layer.input_shape, layer.eps), layer)]


def _build_instancenorm(layer: Any) -> list[nn.Module]:
    return [_load(nn.InstanceNorm2d(layer.input_shape[0], layer.eps, affine=True), layer)]


def _build_maxpool(layer: Any) -> list[nn.Module]:
    border, padding = _split_padding(layer.window, -inf)
    return [*border, nn.MaxPool2d(layer.window.kernel, layer.window.stride, padding)]


def _build_avgpool(layer: Any) -> list[nn.Module]:
    border, padding = _split_padding(layer.window, 0.0)
    if border:
        raise ConfigError(
            f"{layer.name}: padding {layer.window.padding} is not known in PyTorch's average pooling; "
            "give both sides of an axis the same"
        )
    return [nn.AvgPool2d(layer.window.kernel, layer.window.stride, padding, count_include_pad=False)]


def _build_subsampling(layer: Any) -> list[nn.Module]:
    return [*_build_avgpool(layer), _load(Scale(layer.input_shape[0]), layer)]


def _build_globalavgpool(layer: Layer) -> list[nn.Module]:
    flatten = [nn.Flatten()] if len(layer.output_shape) == 1 else []
    return [nn.AdaptiveAvgPool2d(1), *flatten]


def _build_residual(layer: Any) -> list[nn.Module]:
    return [Residual(build_module(layer.layers), build_module(layer.shortcut))]


def _split_padding(window: Window, value: float) -> tuple[list[nn.Module], tuple[int, int]]:
    """A module for borders that differ from side to side, and what is left for the argument."""
    (top, bottom), (left, right) = window.padding
    if (top, left) == (bottom, right):
        return [], (top, left)
    return [nn.ConstantPad2d((left, right, top, bottom), value)], (0, 0)


BUILDERS: dict[str, Callable[[Any], list[nn.Module]]] = {
    "conv": _build_conv,
    "linear": _build_linear,
    "batchnorm": _build_batchnorm,
    "layernorm": _build_layernorm,
    "groupnorm": _build_groupnorm,
    "instancenorm": _build_instancenorm,
    "maxpool": _build_maxpool,
    "avgpool": _build_avgpool,
    "subsampling": _build_subsampling,
    "globalavgpool": _build_globalavgpool,
    "residual": _build_residual,
    "flatten": lambda layer: [nn.Flatten()],
    "relu": lambda layer: [nn.ReLU()],
    "leaky_relu": lambda layer: [nn.LeakyReLU(layer.slope)],
    "elu": lambda layer: [nn.ELU(layer.alpha)],
    "tanh": lambda layer: [nn.Tanh()],
    "sigmoid": lambda layer: [nn.Sigmoid()],
    "gelu": lambda layer: [nn.GELU()],
    "silu": lambda layer: [nn.SiLU()],
    "dropout": lambda layer: [(nn.Dropout2d if layer.spatial else nn.Dropout)(layer.rate)],
    "lrn": lambda layer: [nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)],
}
"""The modules that make up a layer of each kind."""

OVERWRITABLE = {"conv", "linear", "batchnorm", "residual"}
"""Layers whose output nobody needs once a ReLU has read it."""
