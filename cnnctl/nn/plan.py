"""A network made ready to run: shapes settled, operations fused, memory allocated once.

A plan is made for one batch size and one backend, and owns the parameters, gradients,
norm statistics and optimizer slots in the backend's inner layout until they are exported.
It gives the same numbers as the network run layer by layer, on `fast` without allocating in
a step (but for a flatten that stands alone), without the first layer's input gradient, and with
all of its memory known beforehand.
A step that meets a number that is not finite raises Diverged, which says where it began.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan, prod, sqrt
from typing import NamedTuple

import numpy as np

from cnnctl.backends.base import Backend, check_label_values
from cnnctl.backends.specs import AddSpec, Array, DropoutSpec, RawImages, Spec, mix_seed
from cnnctl.backends.stage import Buffers, Layout, ParameterLayout, Stage
from cnnctl.errors import ConfigError, Diverged, DtypeError, ShapeError, check_real, describe_alternatives
from cnnctl.nn.arena import ALIGNMENT, Arena
from cnnctl.nn.divergence import is_finite, trace_forward
from cnnctl.nn.fusion import fuse_layers
from cnnctl.nn.layer import as_count
from cnnctl.nn.network import Network
from cnnctl.optim.group import ParameterGroup
from cnnctl.optim.optimizer import Optimizer
from cnnctl.optim.penalty import Penalty

CLIP_EPS = 1e-6


class StepResult(NamedTuple):
    """What a batch gave: mean loss (with the l1 and l2 penalties when training) and right answers."""

    loss: float
    correct: int


class Norms(NamedTuple):
    """Euclidean norms in one step, over all parameters.

    Attributes:
        weight: ||w|| before the update.
        gradient: ||dw||, before it is clipped and without the gradients of l1 and l2.
        update: ||w after - w before||.
    """

    weight: float
    gradient: float
    update: float


@dataclass(frozen=True, slots=True)
class _Place:
    """One tensor: where it begins in the flat arrays, and how it lies there."""

    layout: ParameterLayout
    start: int

    def inner(self, flat: Array) -> Array:
        return flat[self.start : self.start + prod(self.layout.inner)].reshape(self.layout.inner)


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One fused operation of a plan, to be looked at and run by itself.

    Attributes:
        name: the layers it stands for, such as "conv1+relu1+maxpool1".
        macs: multiply-accumulates of one image's forward pass.
        memory_bytes: its output, what it saves, and its parameters with gradients and slots.
        stage: runs it, on the buffers it is bound to.
        names: from the stage's names of parameters and statistics to the network's.
    """

    name: str
    macs: int
    memory_bytes: int
    stage: Stage
    names: Mapping[str, str]

    @property
    def has_dx(self) -> bool:
        """Whether its backward pass computes an input gradient."""
        return self.stage.buffers.dx is not None

    def forward(self, n: int) -> None:
        """Run the first n images forward, as in training."""
        self.stage.forward(n, training=True)

    def backward(self, n: int) -> None:
        """Run the first n images backward."""
        self.stage.backward(n)


class Plan:
    """Run a network for batches of at most `batch_size` images.

    Args:
        network: its parameters are copied; afterwards they are stale until `export_params`.
        backend: runs the stages, on its own number of threads.
        optimizer: needed for `step`; without one the plan keeps no gradients and its
            activations share their memory.
        l1, l2: add l1 (sum of |w|) + 0.5 l2 (sum of w^2) over the weights, biases excepted, to the loss.
        groups: parameters that are treated apart; each goes to the first group that matches it.
        accumulate: how many batches `step_over` may take an update from.
        clip_value: bounds each number of the gradient, to [-clip_value, clip_value].
        clip_norm: bounds the gradient's Euclidean norm over all parameters, after clip_value;
            both before the gradients of l1 and l2 are added.

    Attributes:
        penalty: what weights pay that no group treats apart.
        penalties: what each parameter pays, keyed as `Network.params` is.
        memory_bytes: everything the plan holds, parameters and slots included.
        step_count: updates made so far; Adam's bias correction and dropout depend on it.
        norms: those of the last step, if it was measured.

    Raises ConfigError for a bound or penalty that is not finite or out of range, ShapeError for a
    count below 1, and MemoryError where the machine has no room for it.
    """

    def __init__(
        self,
        network: Network,
        batch_size: int,
        backend: Backend,
        *,
        optimizer: Optimizer | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        groups: Sequence[ParameterGroup] = (),
        accumulate: int = 1,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None:
        for field_name, bound in (("clip_value", clip_value), ("clip_norm", clip_norm)):
            if bound is not None:
                check_real(field_name, bound, 0, above=True)
        self.accumulate = as_count(accumulate, "accumulate")
        self.clip_value, self.clip_norm = clip_value, clip_norm
        self.network, self.backend, self.optimizer = network, backend, optimizer
        self.penalty = Penalty(l1, l2)
        self.batch_size = as_count(batch_size, "batch_size")
        self.dtype = network.dtype
        self.step_count = 0
        self.norms: Norms | None = None

        self._nodes = fuse_layers(network.layers)
        consumers: list[Spec] = [node.spec for node in self._nodes if node.x == 0]
        consumers += [AddSpec() for node in self._nodes if node.r == 0]
        self.input = backend.create_layout(network.input_shape, self.dtype, consumers)
        layouts = [self.input]
        self._stages: list[Stage] = []
        for node in self._nodes:
            self._stages.append(backend.create_stage(node.spec, layouts[node.x], self.dtype))
            layouts.append(self._stages[-1].output)
        self._dropouts = [
            (stage, node.spec.seed)
            for node, stage in zip(self._nodes, self._stages, strict=True)
            if isinstance(node.spec, DropoutSpec)
        ]
        self._place_arrays(groups)
        self._allocate(layouts)
        self.load_params(network.params)
        self.load_statistics(network.statistics)

    # Running

    def step(self, x: Array | RawImages, labels: Array, *, lr_scale: float = 1.0) -> StepResult:
        """Forward, backward and update on one batch; the loss is that before the update.

        The update's learning rate is the optimizer's times `lr_scale`.

        Raises Diverged, naming the layer where it began, if the loss, a gradient, or after the
        update a weight, a slot or a statistic is not finite. With a loss that is not, no weight
        has moved; otherwise some may have.
        """
        return self.step_over([(x, labels)], lr_scale=lr_scale)

    def step_over(
        self,
        batches: Sequence[tuple[Array | RawImages, Array]],
        *,
        lr_scale: float = 1.0,
        measure: bool = False,
    ) -> StepResult:
        """One update from up to `accumulate` batches, by the mean gradient over all their images.

        It is that of one large batch, up to rounding, unless norms take each batch's own statistics.
        With `measure`, `norms` are taken, which needs a copy of the weights for that time.

        Raises ConfigError without an optimizer, ShapeError for no batches or more than `accumulate`,
        and Diverged as `step` does.
        """
        if self.optimizer is None:
            raise ConfigError("optimizer: this plan was made without one, so it cannot train")
        if not 1 <= len(batches) <= self.accumulate:
            raise ShapeError(f"batches: {len(batches)} where 1 to {self.accumulate} make a step")
        images = sum(len(x) for x, _ in batches)
        loss, correct = 0.0, 0
        for number, (x, labels) in enumerate(batches):
            self._seed_dropouts(number)
            part = self._run_training(x, labels)
            share = len(x) / max(images, 1) if len(batches) > 1 else 1.0
            loss, correct = loss + share * part.loss, correct + part.correct
            if len(batches) > 1:
                self._gather(share, first=number == 0, last=number == len(batches) - 1)
        gradient = self._find_norm(self._gradients) if measure else 0.0
        if not self._clip():
            raise Diverged(self._blame_update(batches, updated=False))
        before = self._weights.copy() if measure else None
        loss += sum(self._update(sweep, lr_scale) for sweep in self._sweeps)
        if not (isfinite(loss) and is_finite(self._statistics)):
            raise Diverged(self._blame_update(batches, updated=True))
        self.step_count += 1
        self.norms = None if before is None else self._measure_update(before, gradient)
        return StepResult(loss, correct)

    def evaluate(self, x: Array | RawImages, labels: Array) -> StepResult:
        """Loss (without penalty) and right answers of one batch; changes nothing."""
        labels = self._check_labels(x, labels)
        self._run_forward(x, training=False)
        return StepResult(*self._loss.forward(len(x), labels))

    def examine(self, x: Array | RawImages, labels: Array) -> tuple[StepResult, Array]:
        """What `evaluate` and `predict` give, from one forward pass."""
        labels = self._check_labels(x, labels)
        scores = self.predict(x)  # first, as a loss may write over them
        return StepResult(*self._loss.forward(len(x), labels)), scores

    def predict(self, x: Array | RawImages) -> Array:
        """Scores (n, *output_shape) of one batch, as a new array."""
        self._run_forward(x, training=False)
        scores = self._stages[-1].output.read(self._stages[-1].buffers.y, len(x))
        return scores.reshape(len(x), *self.network.output_shape)

    def find_nonfinite(self, x: Array | RawImages) -> str | None:
        """What is not finite first when x runs forward as in `evaluate`; None if all is finite.

        "the output of conv1", or a parameter or statistic such as "conv1.weight".
        """
        self._load_images(x)
        return self._trace(len(x), training=False)

    @property
    def stages(self) -> tuple[PlannedStage, ...]:
        """The fused operations in the order they run."""
        return tuple(
            PlannedStage(
                "+".join(layer.name for layer in node.layers),
                sum(layer.macs for layer in node.layers),
                self._count_bytes(stage),
                stage,
                node.names,
            )
            for node, stage in zip(self._nodes, self._stages, strict=True)
        )

    @property
    def state_bytes(self) -> int:
        """Bytes of what a checkpoint holds: parameters, statistics and slots."""
        copies = 1 + len(self._slots)
        elements = copies * self.network.parameter_count
        elements += sum(array.size for array in self.network.statistics.values())
        return elements * self.dtype.itemsize

    @property
    def touched_bytes(self) -> int:
        """Bytes of `memory_bytes` that have been written to before the first step."""
        return self._weights.nbytes + self._statistics.nbytes

    @property
    def _copies(self) -> int:
        """Arrays as large as the parameters: themselves, gradients, slots, and a sum of gradients."""
        return 2 + len(self.optimizer.slots) + (self.accumulate > 1) if self.optimizer else 1

    def _count_bytes(self, stage: Stage) -> int:
        parts = [(self._copies * prod(layout.inner), None) for layout in stage.parameters.values()]
        parts += [(self.batch_size * stage.output.size, None), *stage.saved_once.values()]
        parts += [(self.batch_size * size, kind) for size, kind in stage.saved.values()]
        return sum(elements * np.dtype(kind or self.dtype).itemsize for elements, kind in parts)

    # Parameters, statistics and slots, in natural shapes outside

    def export_params(self) -> dict[str, Array]:
        """Copies of the parameters, keyed as `Network.params` is."""
        return self._export(self.network.params, "", self._weights)

    def load_params(self, params: Mapping[str, Array]) -> None:
        """Take over parameters; keys and shapes have to be the network's."""
        self._load(params, self.network.params, {"": self._weights})

    def export_statistics(self) -> dict[str, Array]:
        """Copies of what norms have gathered, keyed as `Network.statistics` is."""
        return self._export(self.network.statistics, "", self._statistics)

    def load_statistics(self, statistics: Mapping[str, Array]) -> None:
        """Take over what norms have gathered; keys and shapes have to be the network's."""
        self._load(statistics, self.network.statistics, {"": self._statistics})

    def export_slots(self) -> dict[str, Array]:
        """Copies of the optimizer's state: "m/conv1.weight" and so on."""
        slots: dict[str, Array] = {}
        for slot, flat in self._slots.items():
            slots |= self._export(self.network.params, f"{slot}/", flat)
        return slots

    def load_slots(self, slots: Mapping[str, Array]) -> None:
        """Take over an optimizer's state as `export_slots` gave it.

        Raises ConfigError, ShapeError or DtypeError; nothing is copied then.
        """
        self._load(slots, self.network.params, {f"{slot}/": flat for slot, flat in self._slots.items()})

    def _export(self, keys: Iterable[str], prefix: str, flat: Array) -> dict[str, Array]:
        return {prefix + key: self._read(key, flat) for key in keys}

    def _load(self, source: Mapping[str, Array], keys: Iterable[str], flats: Mapping[str, Array]) -> None:
        """Copy `prefix + key` for each flat array; checks all of it before anything is copied."""
        wanted = {prefix + key: (self._places[key], flat) for prefix, flat in flats.items() for key in keys}
        for name in source:
            if name not in wanted:
                raise ConfigError(f"{name}: not known; {describe_alternatives(name, wanted)}")
        for name, (place, _) in wanted.items():
            if name not in source:
                raise ConfigError(f"{name}: missing; needed: {', '.join(wanted)}")
            if source[name].shape != place.layout.shape:
                raise ShapeError(f"{name}: shape {source[name].shape} where {place.layout.shape} is needed")
            if source[name].dtype != self.dtype:
                raise DtypeError(f"{name}: dtype {source[name].dtype} where {self.dtype} is needed")
        for name, (place, flat) in wanted.items():
            place.layout.load(source[name], place.inner(flat))

    # Making ready

    def _place_arrays(self, groups: Sequence[ParameterGroup]) -> None:
        """Lay all parameters end to end, those that are updated alike together: a sweep each."""
        parameters: dict[str, ParameterLayout] = {}
        statistics: dict[str, ParameterLayout] = {}
        for node, stage in zip(self._nodes, self._stages, strict=True):
            parameters |= {node.names[key]: layout for key, layout in stage.parameters.items()}
            statistics |= {node.names[key]: layout for key, layout in stage.statistics.items()}
        self._places: dict[str, _Place] = {}
        self._sweeps: list[_Sweep] = []
        self.penalties: dict[str, Penalty] = {}
        end = 0
        for group, penalty, keys in self._divide(list(parameters), groups):
            start, end = end, self._lay_out({key: parameters[key] for key in keys}, end)
            self.penalties |= dict.fromkeys(keys, penalty)
            if self.optimizer:
                optimizer = group.adapt(self.optimizer)
                self._sweeps.append(_Sweep(slice(start, end), optimizer, penalty, group.lr_scale))
        self._parameter_elements = end
        self._statistics_elements = self._lay_out(statistics, 0)

    def _divide(
        self, keys: Sequence[str], groups: Sequence[ParameterGroup]
    ) -> Iterator[tuple[ParameterGroup, Penalty, list[str]]]:
        """Which parameters share a group and a penalty: the rest of them last, biases after weights."""
        regularized = {f"{layer.name}.{key}" for layer in self.network.leaves for key in layer.regularized}
        for group in groups:
            if not group.choose(keys):
                near = describe_alternatives(group.match, keys)
                raise ConfigError(f"groups: {group.match!r} matches no parameter; {near}")
        left = list(keys)
        for group in (*groups, ParameterGroup("*")):
            chosen = group.choose(left)
            left = [key for key in left if key not in chosen]
            penalties = {
                key: group.choose_penalty(self.penalty if key in regularized else Penalty()) for key in chosen
            }
            for penalty in sorted(set(penalties.values()), reverse=True):
                yield group, penalty, [key for key in chosen if penalties[key] == penalty]

    def _lay_out(self, layouts: Mapping[str, ParameterLayout], position: int) -> int:
        """Give each array its place in a flat one, from `position` on; returns where they end."""
        lanes = ALIGNMENT // self.dtype.itemsize
        for key, layout in layouts.items():
            self._places[key] = _Place(layout, position)
            position += -(-prod(layout.inner) // lanes) * lanes
        return position

    def _allocate(self, layouts: list[Layout]) -> None:
        """Reserve every buffer for the moments it is needed, then bind the stages to them.

        Node i runs forward at moment i and backward at moment 2 count - i, the loss between them.
        """
        arena, count, training = Arena(), len(self._stages), self.optimizer is not None
        end = 2 * count

        def reserve(elements: int, kind: object, first: int, last: int) -> int:
            return arena.reserve((self.batch_size, elements), kind or self.dtype, first, last)

        lasts = [0, *range(count)]  # when each value is used for the last time
        for i, node in enumerate(self._nodes):
            for value in node.inputs:
                lasts[value] = i
        lasts[-1] = count
        values = [
            reserve(layout.size, None, max(v - 1, 0), end - max(v - 1, 0) if training else lasts[v])
            for v, layout in enumerate(layouts)
        ]
        gradients = [
            reserve(layout.size, None, end - lasts[v], end - max(v - 1, 0)) if training and v else None
            for v, layout in enumerate(layouts)
        ]
        saved: list[dict[str, int]] = []
        for i, stage in enumerate(self._stages):
            life = (i, end - i if training else i)
            own = {key: reserve(size, kind, *life) for key, (size, kind) in stage.saved.items()}
            for key, (size, kind) in stage.saved_once.items():
                own[key] = arena.reserve((size,), kind or self.dtype, *life)
            saved.append(own)
        targets = self._plan_targets(gradients, lambda v, i: reserve(layouts[v].size, None, end - i, end - i))
        scratch = max(stage.scratch_elements(self.batch_size) for stage in self._stages)
        scratch_number = arena.reserve((scratch,), self.dtype, 0, end)
        flats = [self._parameter_elements] * self._copies
        flat_numbers = [
            arena.reserve((size,), self.dtype, 0, end) for size in (self._statistics_elements, *flats)
        ]
        buffers = arena.allocate()
        self.memory_bytes = arena.bytes

        self._statistics, self._weights, *rest = (buffers[number] for number in flat_numbers)
        self._slots: dict[str, Array] = {}
        if self.optimizer:
            self._gradients, *slots = rest
            if self.accumulate > 1:
                self._total = slots.pop()
            self._slots = dict(zip(self.optimizer.slots, slots, strict=True))
        self._additions = [[(buffers[to], buffers[aside]) for to, aside in t.additions] for t in targets]

        def find(number: int | None) -> Array | None:
            return None if number is None else buffers[number]

        for i, (stage, node, target) in enumerate(zip(self._stages, self._nodes, targets, strict=True)):
            params = {key: self._places[node.names[key]] for key in stage.parameters}
            stage.buffers = Buffers(
                x=buffers[values[node.x]],
                y=buffers[values[i + 1]],
                dx=find(target.dx),
                dy=find(gradients[i + 1]),
                accumulate=target.accumulate,
                r=None if node.r is None else buffers[values[node.r]],
                dr=find(target.dr),
                params={key: place.inner(self._weights) for key, place in params.items()},
                grads={key: p.inner(self._gradients) for key, p in params.items()} if training else {},
                statistics={
                    key: self._places[node.names[key]].inner(self._statistics) for key in stage.statistics
                },
                saved={key: buffers[number] for key, number in saved[i].items()},
                scratch=buffers[scratch_number],
            )
        last = self._stages[-1]
        self._loss = self.backend.create_loss(
            self.network.loss.spec, last.output, last.buffers.y, last.buffers.dy
        )

    def _plan_targets(
        self, gradients: list[int | None], reserve_aside: Callable[[int, int], int]
    ) -> list["_Targets"]:
        """Where each node's backward pass puts its input gradients; backward runs from last to first.

        The first to write a value's gradient writes over it, those after it add: by themselves
        where they can, otherwise through a buffer aside.
        """
        targets = [_Targets() for _ in self._nodes]
        written: set[int] = set()
        for i in reversed(range(len(self._nodes))):
            node, target = self._nodes[i], targets[i]
            for gradient, value in (("dr", node.r), ("dx", node.x)):
                number = gradients[value] if value is not None else None
                if value is None or number is None:
                    continue
                if value in written and gradient == "dx" and self._stages[i].accumulates:
                    target.accumulate = True
                elif value in written:
                    aside = reserve_aside(value, i)
                    target.additions.append((number, aside))
                    number = aside
                written.add(value)
                setattr(target, gradient, number)
        return targets

    # Steps of a step

    def _run_training(self, x: Array | RawImages, labels: Array) -> StepResult:
        """Forward and backward: the loss without penalty, and its gradients where they belong."""
        labels = self._check_labels(x, labels)
        share = 1.0 if isinstance(x, np.ndarray) else x.share
        self._run_forward(x, training=True)
        if share < 1:
            result = self._run_blended_loss(labels, np.roll(labels, -1), share)
        else:
            result = self._run_loss(labels)
        if not isfinite(result.loss):
            raise Diverged(self._blame_loss(len(x), result.loss))
        self._run_backward(len(x))
        return result

    def _run_loss(self, labels: Array) -> StepResult:
        """The loss, and its gradient where the backward pass begins."""
        result = StepResult(*self._loss.forward(len(labels), labels))
        self._loss.backward(len(labels), labels)
        return result

    def _run_blended_loss(self, own: Array, others: Array, share: float) -> StepResult:
        """A share of the loss for labels of their own, the rest for others; answers count for the larger."""
        gradient = self._stages[-1].buffers.dy
        assert gradient is not None
        gradient = gradient[: len(own)]
        first = self._run_loss(own)
        part = share * gradient
        rest = self._run_loss(others)
        np.multiply(gradient, 1 - share, out=gradient)
        np.add(gradient, part, out=gradient)
        loss = share * first.loss + (1 - share) * rest.loss
        return StepResult(loss, first.correct if share >= 0.5 else rest.correct)

    def _gather(self, share: float, *, first: bool, last: bool) -> None:
        """Add a batch's share of the gradient to the sum; the last one finds all of it in its place."""
        gradients, total = self._gradients, self._total
        np.multiply(gradients, share, out=total if first else gradients)
        if not first:
            np.add(total, gradients, out=gradients if last else total)

    def _clip(self) -> bool:
        """Bound the gradient. Returns False, and changes nothing, if it is not finite: that would be hidden.

        Source of the norm's: Pascanu et al. 2013, algorithm 1, with PyTorch's 1e-6.
        """
        gradients = self._gradients
        if self.clip_value is None and self.clip_norm is None:
            return True
        squares = self.backend.sum_squares(gradients)
        if not (isfinite(squares) or is_finite(gradients)):  # squares overflow where gradients need not
            return False
        if self.clip_value is not None:
            np.clip(gradients, -self.clip_value, self.clip_value, out=gradients)
            squares = self.backend.sum_squares(gradients)
        if self.clip_norm is not None:
            largest = 1.0
            if not isfinite(squares):
                largest = float(np.abs(gradients).max())
                squares = self.backend.sum_squares(gradients / gradients.dtype.type(largest))
            scale = self.clip_norm / (largest * sqrt(squares) + CLIP_EPS)
            if scale < 1:
                np.multiply(gradients, scale, out=gradients)
        return True

    def _measure_update(self, before: Array, gradient: float) -> Norms:
        """The norms of a step that began with these weights, which are written over."""
        weight = self._find_norm(before)
        np.subtract(self._weights, before, out=before)
        return Norms(weight, gradient, self._find_norm(before))

    def _find_norm(self, flat: Array) -> float:
        return sqrt(self.backend.sum_squares(flat))

    def _check_labels(self, x: Array | RawImages, labels: Array) -> Array:
        if len(self.network.output_shape) != 1:
            raise ShapeError(f"the loss needs scores (N, K), not images {self.network.output_shape}")
        labels = np.asarray(labels)
        if labels.shape != (len(x),):
            raise ShapeError(f"labels: shape {labels.shape} where {(len(x),)} is needed")
        check_label_values(labels, self.network.label_count)
        return np.require(labels, np.int64, ["C", "A"])

    def _seed_dropouts(self, number: int) -> None:
        """For batch `number` of the step that comes next."""
        for stage, seed in self._dropouts:
            stage.seed = mix_seed(seed + number, self.step_count)

    def _run_forward(self, x: Array | RawImages, *, training: bool) -> None:
        self._load_images(x)
        for stage in self._stages:
            stage.forward(len(x), training)

    def _load_images(self, x: Array | RawImages) -> None:
        if x.shape[1:] != self.network.input_shape or len(x) > self.batch_size:
            raise ShapeError(
                f"x: shape {x.shape} is not (up to {self.batch_size}, "
                f"{', '.join(map(str, self.network.input_shape))})"
            )
        if x.dtype != self.dtype:
            raise DtypeError(f"x: dtype {x.dtype} where the network has {self.dtype}")
        buffer = self._stages[0].buffers.x
        if isinstance(x, np.ndarray):
            self.input.load(x, buffer)
        else:
            self.input.prepare(x, buffer)
            _blend_images(buffer[: len(x)], x.share)

    def _run_backward(self, n: int) -> None:
        for stage, additions in zip(reversed(self._stages), reversed(self._additions), strict=True):
            stage.backward(n)
            for gradient, aside in additions:
                np.add(gradient[:n], aside[:n], out=gradient[:n])

    def _update(self, sweep: "_Sweep", lr_scale: float) -> float:
        """Move a sweep's weights; returns the penalty on them before, NaN if something is not finite."""
        slots = {key: flat[sweep.part] for key, flat in self._slots.items()}
        weights, gradients = self._weights[sweep.part], self._gradients[sweep.part]
        l1, l2, rate = sweep.penalty.l1, sweep.penalty.l2, lr_scale * sweep.lr_scale
        step = self.step_count + 1
        magnitudes = self.backend.add_l1_gradient(weights, gradients, l1) if l1 else 0.0
        squares = sweep.optimizer.update(self.backend, weights, gradients, slots, step, l2, rate)
        # Squares may overflow where nobody pays for them: 0 times infinity would be NaN.
        return l1 * magnitudes + (0.5 * l2 * squares if l2 or isnan(squares) else 0.0)

    # Where it began

    def _blame_loss(self, n: int, loss: float) -> str:
        """Why the loss of n images is not finite: nothing has moved yet, so that it comes out again."""
        what = f"the loss of step {self.step_count + 1} is {loss}"
        origin = self._trace(n, training=True)
        if origin:
            return f"{what}: {origin} is not finite"
        return f"{what}: the output of {self.stages[-1].name} is finite, but too large for it"

    def _blame_update(self, batches: Sequence[tuple[Array | RawImages, Array]], *, updated: bool) -> str:
        """Why a step of finite loss has come to something that is not finite.

        Once updated, a weight is known to have been at fault where its gradient is finite. A gradient
        may be at fault itself, or the output of a layer that another has hidden from the loss: to
        tell, the batches run forward again, with a 0 for each weight that its gradient has spoiled,
        and the others as they are now.
        """
        when = f"in step {self.step_count + 1}"
        weights, gradients = self._weights, self._gradients
        for key in self.network.params:
            w, dw = (self._read(key, flat) for flat in (weights, gradients))
            if (~np.isfinite(w) & (np.isfinite(dw) | (not updated))).any():
                return f"{key} is not finite {when}"
        for node, stage in zip(reversed(self._nodes), reversed(self._stages), strict=True):
            for key in reversed([node.names[own] for own in stage.parameters]):
                if is_finite(self._read(key, gradients)):
                    continue
                kept = weights.copy()
                weights[~np.isfinite(weights)] = 0
                origin = self._retrace(batches)
                weights[...] = kept
                return f"{origin or f'the gradient of {key}'} is not finite {when}"
        for key in self.network.statistics:
            if not is_finite(self._read(key, self._statistics)):
                return f"{key} is not finite {when}"
        for slot, flat in self._slots.items():
            for key in self.network.params:
                if not is_finite(self._read(key, flat)):
                    return f"{slot} of {key} is not finite {when}"
        return f"the loss {when} is inf: its penalty on the weights overflows {self.dtype}"

    def _read(self, key: str, flat: Array) -> Array:
        return self._places[key].layout.read(self._places[key].inner(flat))

    def _retrace(self, batches: Sequence[tuple[Array | RawImages, Array]]) -> str | None:
        """What is not finite first when a step's batches run forward again."""
        for number, (x, _) in enumerate(batches):
            self._seed_dropouts(number)
            self._load_images(x)
            if origin := self._trace(len(x), training=True):
                return origin
        return None

    def _trace(self, n: int, *, training: bool) -> str | None:
        """What is not finite first when n images that are there run forward; the statistics stay."""
        kept = self._statistics.copy()
        try:
            with np.errstate(all="ignore"):
                return trace_forward(self._nodes, self._stages, self.backend, n, training=training)
        finally:
            self._statistics[...] = kept


def _blend_images(images: Array, share: float) -> None:
    """A share of each image, and the rest of the next one, in place; one by one, to need no second batch."""
    if share >= 1:
        return
    first = images[:1].copy()
    for image, following in zip(images, [*images[1:], *first], strict=True):
        np.multiply(image, share, out=image)
        np.add(image, (1 - share) * following, out=image)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Parameters that lie end to end and are updated alike.

    Attributes:
        part: where they lie in the flat arrays.
    """

    part: slice
    optimizer: Optimizer
    penalty: Penalty
    lr_scale: float


@dataclass(slots=True)
class _Targets:
    """Numbers of the buffers that a node's backward pass writes to.

    Attributes:
        accumulate: whether it adds to dx.
        additions: (gradient, buffer aside) to be added afterwards.
    """

    dx: int | None = None
    dr: int | None = None
    accumulate: bool = False
    additions: list[tuple[int, int]] = field(default_factory=list)
