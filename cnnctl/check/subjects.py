"""What can be checked: a single operation, a network layer by layer, a network as a plan.

A subject holds tensors, the gradients that back-propagation gives for them, and a scalar
function of them all. It says how much that function changes when elements of one tensor do,
and computes that from the outputs that changed rather than as the difference of two totals:
what a change does not reach adds no rounding error. Judges nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import nan

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, CrossEntropySpec, HingeSpec, LossSpec, SquaredErrorSpec
from cnnctl.backends.stage import ParameterLayout
from cnnctl.check.differences import Sides, is_same
from cnnctl.errors import CheckFailed, Diverged
from cnnctl.nn import Dropout, Network
from cnnctl.nn.plan import Plan
from cnnctl.optim import SGD, ParameterGroup, Penalty

Elements = Array | None
"""Positions in a flat tensor, in row-major order; None for all."""
INPUT = "input"
"""The name of a network's input among its tensors."""


class Subject(ABC):
    """A scalar function of tensors, and its gradients.

    Attributes:
        tensors: the point at which it is checked.
        gradients: of the function there, as back-propagation has them; same keys and shapes.
        sides: on which side of its kinks the function stands there.

    Raises CheckFailed for gradients that are missing or of another shape, and for a function
    that gives two values at one point.
    """

    def __init__(self, tensors: Mapping[str, Array], gradients: Mapping[str, Array | None]) -> None:
        self.tensors, self.gradients = dict(tensors), {}
        for name, tensor in self.tensors.items():
            gradient = gradients.get(name)
            if gradient is None:
                raise CheckFailed(f"{name}: the backward pass gives no gradient for it")
            if gradient.shape != tensor.shape:
                raise CheckFailed(f"{name}: a gradient of shape {gradient.shape} for one of {tensor.shape}")
            self.gradients[name] = gradient
        for name in self.tensors:
            change, self.sides = self._run(name)
            if change or not is_same(self.sides, self._run(name)[1]):
                raise CheckFailed(f"{name}: the function differs by {change!r} when nothing is changed")

    def evaluate(self, name: str, where: Elements, values: Array) -> tuple[float, Sides]:
        """How much the function changes, and its sides, when these elements have these values."""
        before = take_elements(self.tensors[name], where)
        self._put(name, where, values)
        try:
            change, sides = self._run(name)
        finally:
            self._put(name, where, before)
        return change + self._change_penalty(name, before, values), sides

    def _put(self, name: str, where: Elements, values: Array) -> None:
        put_elements(self.tensors[name], where, values)

    def _change_penalty(self, name: str, before: Array, after: Array) -> float:
        """How much more the tensor's own share of the function becomes, if it has one."""
        return 0.0

    @abstractmethod
    def _run(self, name: str) -> tuple[float, Sides]:
        """How much the function has changed, now that tensor `name` has, and its sides."""


class Operation(Subject):
    """<y, dy>, y = forward(tensors), with a fixed random dy; or y itself where it is a number.

    Args:
        forward: from the tensors to y and its sides.
        backward: from dy to the gradients; called once, after a forward pass.
    """

    def __init__(
        self,
        tensors: Mapping[str, Array],
        forward: Callable[[Mapping[str, Array]], tuple[Array, Sides]],
        backward: Callable[[Array], Mapping[str, Array | None]],
        rng: np.random.Generator,
    ) -> None:
        self._forward = forward
        self._y = np.array(forward(tensors)[0])
        self._dy = rng.standard_normal(self._y.shape) if self._y.ndim else np.ones(())
        super().__init__(tensors, backward(self._dy))

    def _run(self, name: str) -> tuple[float, Sides]:
        y, sides = self._forward(self.tensors)
        return float(np.sum((y - self._y) * self._dy)), sides


class LayeredNetwork(Subject):
    """A network run layer by layer: its loss, or <y, dy> with a random dy where there are no labels.

    Args:
        network: in float64; its parameters are changed and put back.
    """

    def __init__(
        self,
        network: Network,
        x: Array,
        labels: Array | None,
        backend: Backend,
        rng: np.random.Generator,
    ) -> None:
        self.network, self.backend, self._labels = network, backend, labels
        self._layers = {layer.name: i for i, layer in enumerate(network.layers)}
        self._inputs, self._stale = [x], 0
        self._y = self._propagate(0, remember=True).copy()  # a flatten's is the input itself
        if labels is None:
            self._dy = rng.standard_normal(self._y.shape)
        else:
            network.loss.forward(self._y, labels, backend)
            self._dy = network.loss.backward(backend)
        dx = network.backward(self._dy, backend, need_dx=True)
        super().__init__({INPUT: x, **network.params}, {INPUT: dx, **network.grads})

    def _compare(self, y: Array) -> float:
        if self._labels is None:
            return float(np.sum((y - self._y) * self._dy))
        return subtract_losses(self.network.loss.spec, y, self._y, self._labels)

    def run_layers(self, name: str) -> Array:
        """The outputs, now that tensor `name` has changed; sides can be found afterwards."""
        first = 0 if name == INPUT else self._layers[name.partition(".")[0]]
        y = self._propagate(min(first, self._stale))
        self._stale = first
        return y

    def find_sides(self, y: Array) -> Sides:
        """Those of all layers' last passes, which gave y, and of the loss."""
        of_layers = tuple(side for leaf in self.network.leaves for side in leaf.sides())
        if self._labels is None:
            return of_layers
        return of_layers + find_loss_sides(self.network.loss.spec, y, self._labels)

    def _run(self, name: str) -> tuple[float, Sides]:
        y = self.run_layers(name)
        return self._compare(y), self.find_sides(y)

    def _propagate(self, first: int, *, remember: bool = False) -> Array:
        """Outputs of the layers from `first` on, with the masks of the first training step."""
        for leaf in self.network.leaves:
            if isinstance(leaf, Dropout):
                leaf.passes = 0
        y = self._inputs[first]
        for layer in self.network.layers[first:]:
            y = layer.forward(y, self.backend, training=True)
            if remember:
                self._inputs.append(y)
        return y


class PlannedNetwork(Subject):
    """A network's loss, penalties included, as a training step of its plan computes it.

    The gradients are those that the step hands to the optimizer. A plan computes no gradient of
    its input and does not say where kinks are: these come from the network layer by layer.
    """

    def __init__(
        self,
        network: Network,
        x: Array,
        labels: Array,
        backend: Backend,
        rng: np.random.Generator,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        groups: Sequence[ParameterGroup] = (),
    ) -> None:
        self._layered, self._labels = LayeredNetwork(network, x, labels, backend, rng), labels
        groups = [replace(group, weight_decay=None) for group in groups]  # which is in no loss
        self._plan = plan = Plan(network, len(x), backend, optimizer=SGD(lr=1.0), l1=l1, l2=l2, groups=groups)
        self._kinked = [w for name, w in network.params.items() if plan.penalties[name].l1]
        try:
            loss = plan.step(x, labels).loss  # leaves dropout's masks for the passes to come
        except Diverged:
            loss = nan
        gradients = {name.removeprefix("velocity/"): g for name, g in plan.export_slots().items()}
        plan.load_params(network.params)
        self._stages = [planned.stage for planned in plan.stages]
        self._places = _find_places(plan)
        self._stale = 0
        self._scores = self._run_stages(0)
        if all(np.isfinite(g).all() for g in gradients.values()):  # others fail by themselves
            self._check_loss(loss)
        dx = self._layered.gradients[INPUT]
        super().__init__({INPUT: x, **network.params}, {INPUT: dx, **gradients})

    def _check_loss(self, reported: float) -> None:
        """The differences are those of the loss that training reports."""
        loss = self._plan.network.loss.forward(self._scores, self._labels, self._plan.backend)
        loss += sum(self._plan.penalties[name].compute(w) for name, w in self._plan.network.params.items())
        if not abs(reported - loss) <= 1e-10 * abs(loss):
            raise CheckFailed(f"loss: a step reports {reported!r} where its scores and weights give {loss!r}")

    def _put(self, name: str, where: Elements, values: Array) -> None:
        super()._put(name, where, values)
        if name in self._places:
            _, layout, inner = self._places[name]
            put_elements(layout.view(inner), where, values)

    def _change_penalty(self, name: str, before: Array, after: Array) -> float:
        penalty = self._plan.penalties.get(name, Penalty())
        if penalty == Penalty():
            return 0.0
        magnitudes = float(np.sum(np.abs(after) - np.abs(before)))
        return penalty.l1 * magnitudes + 0.5 * penalty.l2 * float(np.sum((after - before) * (after + before)))

    def _run(self, name: str) -> tuple[float, Sides]:
        first = self._places[name][0] if name in self._places else 0
        scores = self._run_stages(min(first, self._stale))
        self._stale = first
        sides = self._layered.find_sides(self._layered.run_layers(name))
        sides += tuple(w > 0 for w in self._kinked)
        return subtract_losses(self._plan.network.loss.spec, scores, self._scores, self._labels), sides

    def _run_stages(self, first: int) -> Array:
        """The scores, forward from that stage on: what the stages before it left still stands."""
        x = self._layered.tensors[INPUT]
        if not first:
            self._plan.input.load(x, self._stages[0].buffers.x)
        for stage in self._stages[first:]:
            stage.forward(len(x), training=True)
        last = self._stages[-1]
        return last.output.read(last.buffers.y, len(x)).reshape(len(x), *self._plan.network.output_shape)


def take_elements(tensor: Array, where: Elements) -> Array:
    """A copy of those elements, flat."""
    return tensor.flatten() if where is None else tensor.flat[where]


def put_elements(tensor: Array, where: Elements, values: Array) -> None:
    """Set those elements; any strides will do."""
    if where is None:
        tensor[...] = values.reshape(tensor.shape)
    else:
        tensor.flat[where] = values


def _find_places(plan: Plan) -> dict[str, tuple[int, ParameterLayout, Array]]:
    """For each parameter the number of its stage, and how and where its elements lie there."""
    return {
        planned.names[key]: (number, layout, planned.stage.buffers.params[key])
        for number, planned in enumerate(plan.stages)
        for key, layout in planned.stage.parameters.items()
    }


def subtract_losses(spec: LossSpec, scores: Array, before: Array, labels: Array) -> float:
    """The loss of `scores` less that of `before`, as exactly as their difference d is known.

    Cross-entropy, with p = softmax(before), t as the contract has it and T[n] = sum over k of t[n,k]:
    sum over n of T[n] log(1 + sum over k of p[n,k] (e^d[n,k] - 1)) - sum over k of t[n,k] d[n,k].
    """
    n, K = scores.shape
    rows, d = np.arange(n), scores - before
    match spec:
        case CrossEntropySpec(smoothing, weights):
            w = np.ones(K) if weights is None else np.array(weights)
            t = np.tile(smoothing / K * w, (n, 1))
            t[rows, labels] += (1 - smoothing) * w[labels]
            p = np.exp(before - before.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            change = t.sum(axis=1) * np.log1p((p * np.expm1(d)).sum(axis=1)) - (t * d).sum(axis=1)
            return float(change.sum() / w[labels].sum())
        case HingeSpec(margin):
            excess = [np.maximum(s - s[rows, labels][:, None] + margin, 0) for s in (scores, before)]
            return float(np.sum(excess[0] - excess[1]) / n)
        case SquaredErrorSpec():
            t = labels[:, None] if K == 1 else np.eye(K)[labels]
            return float(np.sum(d * (0.5 * d + before - t)) / n)


def find_loss_sides(spec: LossSpec, scores: Array, labels: Array) -> Sides:
    """On which side of its kinks a loss stands: which scores come too near to the label's."""
    if not isinstance(spec, HingeSpec):
        return ()
    return (scores - scores[np.arange(len(labels)), labels][:, None] + spec.margin > 0,)
