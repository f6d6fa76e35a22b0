"""A network made ready to run: shapes settled, operations fused, memory allocated once.

A plan is made for one batch size and one backend, and owns the parameters, gradients and
optimizer slots in the backend's inner layout until they are exported. It gives the same
numbers as the network run layer by layer, without allocating in a step, without the first
layer's input gradient, and with all of its memory known beforehand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np

from cnnctl.backends.base import Backend, check_label_values
from cnnctl.backends.specs import (
    Activation,
    Array,
    ConvSpec,
    FlattenSpec,
    LinearSpec,
    MaxPoolSpec,
    ReluSpec,
    Sandwich,
    Spec,
)
from cnnctl.backends.stage import Buffers, ParameterLayout, Stage
from cnnctl.errors import ConfigError, DtypeError, ShapeError, describe_alternatives
from cnnctl.nn.activation import ReLU
from cnnctl.nn.arena import ALIGNMENT, Arena
from cnnctl.nn.conv import Conv
from cnnctl.nn.layer import Layer, as_count
from cnnctl.nn.linear import Flatten, Linear
from cnnctl.nn.network import Network
from cnnctl.nn.pooling import MaxPool
from cnnctl.optim.optimizer import Optimizer, check_real

L = TypeVar("L", bound=Layer)


class StepResult(NamedTuple):
    """What a batch gave: mean loss in nats (with the L2 penalty when training) and right answers."""

    loss: float
    correct: int


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One tensor: its place in the flat arrays, and how it lies there."""

    layout: ParameterLayout
    start: int

    def inner(self, flat: Array) -> Array:
        return flat[self.start : self.start + prod(self.layout.inner)].reshape(self.layout.inner)


def fuse_layers(layers: tuple[Layer, ...]) -> list[tuple[Spec, Layer]]:
    """Layers as stages: [conv relu? maxpool?], [linear relu?], the rest one by one.

    Each spec comes with the layer that has its parameters, or that it is named after. A
    flatten before a fully connected layer vanishes, since that layer flattens by itself.
    """
    stages: list[tuple[Spec, Layer]] = []
    position = 0

    def peek() -> Layer | None:
        return layers[position] if position < len(layers) else None

    def take(kind: type[L]) -> L | None:
        """The next layer, if it is of that kind: it is done with then."""
        nonlocal position
        following = peek()
        if not isinstance(following, kind):
            return None
        position += 1
        return following

    while position < len(layers):
        layer = layers[position]
        position += 1
        match layer:
            case Conv():
                activation: Activation | None = "relu" if take(ReLU) else None
                pool = take(MaxPool)
                sandwich = Sandwich(layer.window, layer.groups, activation, pool.window if pool else None)
                stages.append((ConvSpec(sandwich, layer.filters, layer.bias), layer))
            case Linear():
                activation = "relu" if take(ReLU) else None
                stages.append((LinearSpec(layer.units, layer.bias, activation), layer))
            case MaxPool():
                stages.append((MaxPoolSpec(layer.window), layer))
            case ReLU():
                stages.append((ReluSpec(), layer))
            case Flatten():
                if not isinstance(peek(), Linear):
                    stages.append((FlattenSpec(), layer))
            case _:
                raise ConfigError(f"{layer.name}: a plan does not know the layer kind {layer.kind!r}")
    return stages


class Plan:
    """Run a network for batches of at most `batch_size` images.

    Args:
        network: its parameters are copied; afterwards they are stale until `export_params`.
        backend: runs the stages, on its own number of threads.
        optimizer: needed for `step`; without one the plan keeps no gradients and its
            activations share their memory.
        l2: adds 0.5 l2 (sum of squared weights, biases excepted) to the loss.

    Attributes:
        memory_bytes: everything the plan holds, parameters and slots included.
        step_count: updates made so far; Adam's bias correction depends on it.
    """

    def __init__(
        self,
        network: Network,
        batch_size: int,
        backend: Backend,
        *,
        optimizer: Optimizer | None = None,
        l2: float = 0.0,
    ) -> None:
        check_real("l2", l2, 0)
        self.network, self.backend, self.optimizer, self.l2 = network, backend, optimizer, l2
        self.batch_size = as_count(batch_size, "batch_size")
        self.dtype = network.dtype
        self.step_count = 0
        self._stages: list[Stage] = []
        self._layers: list[Layer] = []

        fused = fuse_layers(network.layers)
        layout = self.input = backend.create_layout(network.input_shape, self.dtype, fused[0][0])
        for spec, layer in fused:
            stage = backend.create_stage(spec, layout, self.dtype)
            self._stages.append(stage)
            self._layers.append(layer)
            layout = stage.output
        self._place_parameters()
        self._allocate()
        self.load_params(network.params)

    # Running

    def step(self, x: Array, labels: Array) -> StepResult:
        """Forward, backward and update on one batch; the loss is that before the update."""
        if self.optimizer is None:
            raise ConfigError("optimizer: this plan was made without one, so it cannot train")
        loss, correct, labels = self._forward(x, labels)
        self._loss.backward(len(x), labels)
        for stage in reversed(self._stages):
            stage.backward(len(x))
        self.step_count += 1
        squares = self._update(slice(0, self._regularized), self.l2)
        self._update(slice(self._regularized, None), 0.0)
        return StepResult(loss + 0.5 * self.l2 * squares, correct)

    def evaluate(self, x: Array, labels: Array) -> StepResult:
        """Loss (without penalty) and right answers of one batch; changes no parameter."""
        loss, correct, _ = self._forward(x, labels)
        return StepResult(loss, correct)

    def predict(self, x: Array) -> Array:
        """Scores (n, *output_shape) of one batch, as a new array."""
        self._run_stages(x)
        scores = self._stages[-1].output.read(self._stages[-1].buffers.y, len(x))
        return scores.reshape(len(x), *self.network.output_shape)

    def find_nonfinite(self) -> str | None:
        """The first parameter whose value or gradient is not finite, as "conv1.weight"; None if all are."""
        for key, parameter in self._parameters.items():
            arrays = [self._weights] if self.optimizer is None else [self._gradients, self._weights]
            if not all(np.isfinite(parameter.inner(flat)).all() for flat in arrays):
                return key
        return None

    # Parameters and slots, in natural shapes outside

    def export_params(self) -> dict[str, Array]:
        """Copies of the parameters, keyed as `Network.params` is."""
        return {
            key: parameter.layout.read(parameter.inner(self._weights)) for key, parameter in self._named()
        }

    def load_params(self, params: Mapping[str, Array]) -> None:
        """Take over parameters; keys and shapes have to be the network's."""
        self._load(params, {"": self._weights})

    def export_slots(self) -> dict[str, Array]:
        """Copies of the optimizer's state: "m/conv1.weight" and so on."""
        return {
            f"{slot}/{key}": parameter.layout.read(parameter.inner(flat))
            for slot, flat in self._slots.items()
            for key, parameter in self._named()
        }

    def load_slots(self, slots: Mapping[str, Array]) -> None:
        """Take over an optimizer's state as `export_slots` gave it."""
        self._load(slots, {f"{slot}/": flat for slot, flat in self._slots.items()})

    def _load(self, source: Mapping[str, Array], flats: Mapping[str, Array]) -> None:
        """Copy `prefix + key` for each flat array; checks all of it before anything is copied."""
        wanted = {prefix + key: p for prefix in flats for key, p in self._parameters.items()}
        for name in source:
            if name not in wanted:
                raise ConfigError(f"{name}: not known; {describe_alternatives(name, wanted)}")
        for name, parameter in wanted.items():
            if name not in source:
                raise ShapeError(f"{name}: missing; known: {', '.join(source)}")
            if source[name].shape != parameter.layout.shape:
                raise ShapeError(
                    f"{name}: shape {source[name].shape} where {parameter.layout.shape} is needed"
                )
            if source[name].dtype != self.dtype:
                raise DtypeError(f"{name}: dtype {source[name].dtype} where {self.dtype} is needed")
        for prefix, flat in flats.items():
            for key, parameter in self._parameters.items():
                parameter.layout.load(source[prefix + key], parameter.inner(flat))

    def _named(self) -> Iterator[tuple[str, _Parameter]]:
        """Parameters in the network's order."""
        return ((key, self._parameters[key]) for key in self.network.params)

    # Making ready

    def _place_parameters(self) -> None:
        """Lay all parameters end to end, those with a penalty first, so that updates are two sweeps."""
        self._parameters: dict[str, _Parameter] = {}
        position = 0
        lanes = ALIGNMENT // self.dtype.itemsize
        for penalized in (True, False):
            for stage, layer in zip(self._stages, self._layers, strict=True):
                for key, layout in stage.parameters.items():
                    if (key in layer.regularized) is penalized:
                        self._parameters[f"{layer.name}.{key}"] = _Parameter(layout, position)
                        position += -(-prod(layout.inner) // lanes) * lanes
            if penalized:
                self._regularized = position
        self._parameter_elements = position

    def _allocate(self) -> None:
        """Reserve every buffer for the moments it is needed: forward 0, 1, ..., then backward."""
        arena, count, training = Arena(), len(self._stages), self.optimizer is not None
        end = 2 * count  # the moment of the first stage's backward, the last of all

        def reserve(elements: int, dtype: object, first: int, last: int) -> int:
            return arena.reserve((self.batch_size, elements), dtype, first, last)

        activations = [reserve(self.input.size, self.dtype, 0, end if training else 0)]
        gradients: list[int | None] = [None]
        saved: list[dict[str, int]] = []
        for i, stage in enumerate(self._stages):
            back = end - i
            last = back if training else i
            activations.append(reserve(stage.output.size, self.dtype, i, last if training else i + 1))
            saved.append({key: reserve(size, kind, i, last) for key, (size, kind) in stage.saved.items()})
            gradients.append(reserve(stage.output.size, self.dtype, back - 1, back) if training else None)
        scratch = max(stage.scratch_elements(self.batch_size) for stage in self._stages)
        scratch_number = arena.reserve((scratch,), self.dtype, 0, end)
        flats = 1 + (1 + len(self.optimizer.slots) if self.optimizer else 0)
        flat_numbers = [arena.reserve((self._parameter_elements,), self.dtype, 0, end) for _ in range(flats)]
        buffers = arena.allocate()
        self.memory_bytes = arena.bytes

        self._weights, *rest = (buffers[number] for number in flat_numbers)
        self._slots: dict[str, Array] = {}
        if self.optimizer:
            self._gradients, *slots = rest
            self._slots = dict(zip(self.optimizer.slots, slots, strict=True))

        def gradient(number: int | None) -> Array | None:
            return None if number is None else buffers[number]

        for i, (stage, layer) in enumerate(zip(self._stages, self._layers, strict=True)):
            own = {key: self._parameters[f"{layer.name}.{key}"] for key in stage.parameters}
            stage.buffers = Buffers(
                x=buffers[activations[i]],
                y=buffers[activations[i + 1]],
                dx=gradient(gradients[i]),
                dy=gradient(gradients[i + 1]),
                params={key: p.inner(self._weights) for key, p in own.items()},
                grads={key: p.inner(self._gradients) for key, p in own.items()} if training else {},
                saved={key: buffers[number] for key, number in saved[i].items()},
                scratch=buffers[scratch_number],
            )
        last_stage = self._stages[-1]
        self._loss = self.backend.create_loss(last_stage.output, last_stage.buffers.y, last_stage.buffers.dy)

    # Steps of a step

    def _forward(self, x: Array, labels: Array) -> tuple[float, int, Array]:
        if len(self.network.output_shape) != 1:
            raise ShapeError(f"the loss needs scores (N, K), not images {self.network.output_shape}")
        labels = np.asarray(labels)
        if labels.shape != (len(x),):
            raise ShapeError(f"labels: shape {labels.shape} where {(len(x),)} is needed")
        check_label_values(labels, self.network.output_shape[0])
        labels = np.require(labels, np.int64, ["C", "A"])
        self._run_stages(x)
        loss, correct = self._loss.forward(len(x), labels)
        return loss, correct, labels

    def _run_stages(self, x: Array) -> None:
        if x.shape[1:] != self.network.input_shape or len(x) > self.batch_size:
            raise ShapeError(
                f"x: shape {x.shape} is not (up to {self.batch_size}, "
                f"{', '.join(map(str, self.network.input_shape))})"
            )
        if x.dtype != self.dtype:
            raise DtypeError(f"x: dtype {x.dtype} where the network has {self.dtype}")
        self.input.load(x, self._stages[0].buffers.x)
        for stage in self._stages:
            stage.forward(len(x))

    def _update(self, part: slice, l2: float) -> float:
        assert self.optimizer is not None
        slots = {key: flat[part] for key, flat in self._slots.items()}
        weights = self._weights[part]
        if not weights.size:
            return 0.0
        return self.optimizer.update(self.backend, weights, self._gradients[part], slots, self.step_count, l2)
