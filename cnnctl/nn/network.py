"""A network: a named sequence of layers and a loss, run one layer after the other.

Built whole at construction: names given, shapes inferred, parameters drawn; if anything
does not fit, no layer has been touched. It trains nothing, reads no file, and allocates
as it goes: for speed there is `Plan`, which gives the same numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from cnnctl.backends.base import DTYPES, Backend
from cnnctl.backends.specs import Array, Shape
from cnnctl.errors import ConfigError, DtypeError, ShapeError, describe_alternatives
from cnnctl.nn.initializers import Initializer, check_init
from cnnctl.nn.layer import Layer, as_count, choose_names
from cnnctl.nn.loss import Loss, SoftmaxCrossEntropy
from cnnctl.optim.penalty import Penalty


class SummaryRow(NamedTuple):
    """One layer of a summary; `macs` are multiply-accumulates of one image's forward pass."""

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int


class Network:
    """Layers in a row, then a loss.

    Args:
        layers: fresh layers; one without a name is called kind + ordinal, as in conv2.
        input_shape: one image, (C, H, W), or one vector, (D,).
        loss: softmax cross-entropy by default.
        dtype: float32 or float64, of parameters, inputs and outputs alike.
        seed: with it alone the weights are settled: layer i draws from the stream [seed, i],
            in float64, so that both dtypes start alike.
        init: for the layers that name no initializer; He by default.

    Raises ShapeError where shapes do not fit, naming the layer, DtypeError for another dtype, and
    ConfigError for layers that are used twice or share a name, and for a seed or initializer that is none.

    >>> from cnnctl.nn import Conv, Linear, MaxPool, ReLU
    >>> network = Network([Conv(30, 5), ReLU(), MaxPool(2), Linear(10)], (1, 28, 28))
    >>> network.output_shape, list(network.params)
    ((10,), ['conv1.weight', 'conv1.bias', 'linear1.weight', 'linear1.bias'])
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Shape,
        *,
        loss: Loss | None = None,
        dtype: DTypeLike = "float32",
        seed: int = 0,
        init: Initializer | None = None,
    ) -> None:
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) not in {1, 3}:
            raise ShapeError(f"input_shape: {input_shape!r} is neither (C, H, W) nor (D,)")
        if dtype is None or dtype not in DTYPES:  # numpy takes None for float64
            raise DtypeError(f"dtype: {dtype!r} is neither float32 nor float64")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ConfigError(f"seed: {seed!r} is not an integer of at least 0")
        check_init(init)
        self.layers = tuple(layers)
        self.loss = loss or SoftmaxCrossEntropy()
        self.input_shape: Shape = tuple(as_count(extent, "input_shape") for extent in input_shape)
        self.dtype = np.dtype(dtype)
        self.seed = seed

        names = choose_names(self.layers)
        if len({id(leaf) for leaf in self.leaves}) < len(self.leaves):
            raise ConfigError("layers: a layer stands in the network twice, once in a block; make another")
        shape = self.input_shape
        for name, layer in zip(names, self.layers, strict=True):
            try:
                shape = layer.infer_shape(shape)
            except ShapeError as error:
                raise ShapeError(f"{name}: {error}") from error
        self.output_shape = shape
        self.loss.check_output(shape)

        shape = self.input_shape
        for index, (name, layer) in enumerate(zip(names, self.layers, strict=True)):
            layer.assign_name(name)
            shape = layer.build(shape, self.dtype, np.random.default_rng([seed, index]), init)

    @property
    def leaves(self) -> tuple[Layer, ...]:
        """The layers in order, those of blocks in the place of their block."""
        return tuple(leaf for layer in self.layers for leaf in layer.walk())

    @property
    def params(self) -> dict[str, Array]:
        """Keys such as conv1.weight to the layers' own arrays: writing into one changes the network."""
        return {f"{layer.name}.{key}": w for layer in self.leaves for key, w in layer.params.items()}

    @property
    def grads(self) -> dict[str, Array]:
        """Gradients of the last backward pass, with the keys of `params`; {} before it."""
        return {f"{layer.name}.{key}": dw for layer in self.leaves for key, dw in layer.grads.items()}

    @property
    def statistics(self) -> dict[str, Array]:
        """What training moves without a gradient, such as batchnorm1.running_mean: the layers' own arrays."""
        return {f"{layer.name}.{key}": a for layer in self.leaves for key, a in layer.statistics.items()}

    @property
    def label_count(self) -> int:
        """How many classes: one a score; 2 for squared error on a single score."""
        (outputs,) = self.output_shape
        return 2 if outputs == 1 and self.loss.kind == "squared_error" else outputs

    @property
    def parameter_count(self) -> int:
        """How many numbers are learnt."""
        return sum(layer.parameter_count for layer in self.layers)

    def forward(self, x: Array, backend: Backend, training: bool = False) -> Array:
        """Scores (N, *output_shape) of x (N, *input_shape). With `training`, backward can follow."""
        for layer in self.layers:
            x = layer.forward(x, backend, training=training)
        return x

    def backward(self, dscores: Array, backend: Backend, need_dx: bool = False) -> Array | None:
        """Set every layer's gradients, given dL/dscores; returns dL/dx if it is needed."""
        dy: Array | None = dscores
        for index in reversed(range(len(self.layers))):
            assert dy is not None
            dy = self.layers[index].backward(dy, backend, need_dx=need_dx or index > 0)
        return dy

    def loss_and_grads(
        self, x: Array, labels: Array, backend: Backend, *, l1: float = 0.0, l2: float = 0.0
    ) -> tuple[float, dict[str, Array]]:
        """The loss of a batch, its penalty included, and the gradients of all of it."""
        penalty = self.penalty(l1=l1, l2=l2)
        loss = self.loss.forward(self.forward(x, backend, training=True), labels, backend)
        self.backward(self.loss.backward(backend), backend)
        for layer, key in self._regularized():
            layer.grads[key] += l2 * layer.params[key] + l1 * np.sign(layer.params[key])
        return loss + penalty, self.grads

    def penalty(self, *, l1: float = 0.0, l2: float = 0.0) -> float:
        """l1 (sum of |w|) + 0.5 l2 (sum of w^2) over the weights, biases left out, summed in float64."""
        penalty = Penalty(l1, l2)
        return sum(penalty.compute(layer.params[key]) for layer, key in self._regularized())

    def freeze(self) -> None:
        """Let training passes act as evaluation does (`Layer.frozen`): for gradients of what it answers."""
        for layer in self.leaves:
            layer.frozen = True

    def load_params(self, params: Mapping[str, Array]) -> None:
        """Copy values into the parameters. Keys, shapes and dtypes must match exactly.

        Everything is checked before anything is copied. Raises ConfigError, ShapeError or
        DtypeError.
        """
        _load("params", self.params, params)

    def load_statistics(self, statistics: Mapping[str, Array]) -> None:
        """The same for `statistics`."""
        _load("statistics", self.statistics, statistics)

    def summary(self) -> list[SummaryRow]:
        """A row for each layer."""
        return [
            SummaryRow(layer.name, layer.kind, layer.output_shape, layer.parameter_count, layer.macs)
            for layer in self.leaves
        ]

    def __repr__(self) -> str:
        rows = self.summary()
        total = ("total", "", "", f"{self.parameter_count:,}", f"{sum(row.macs for row in rows):,}")
        table = [
            ("layer", "kind", "output", "parameters", "multiply-adds"),
            *(
                (row.name, row.kind, str(row.output_shape), f"{row.parameters:,}", f"{row.macs:,}")
                for row in rows
            ),
            total,
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"Network: input {self.input_shape}, loss {self.loss.kind}, {self.dtype}, seed {self.seed}"]
        for cells in table:
            padded = [
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append("  ".join(padded))
        return "\n".join(lines)

    def _regularized(self) -> Iterator[tuple[Layer, str]]:
        return ((layer, key) for layer in self.leaves for key in layer.regularized)


def _load(field: str, own: Mapping[str, Array], given: Mapping[str, Array]) -> None:
    for key in given:
        if key not in own:
            raise ConfigError(f"{field}: {key!r} is not known; {describe_alternatives(key, own)}")
    for key, array in own.items():
        if key not in given:
            raise ConfigError(f"{field}: {key} is missing; needed: {', '.join(own)}")
        if given[key].shape != array.shape:
            raise ShapeError(f"{field}: {key}: shape {given[key].shape} where {array.shape} is needed")
        if given[key].dtype != array.dtype:
            raise DtypeError(f"{field}: {key}: dtype {given[key].dtype} where {array.dtype} is needed")
    for key, array in own.items():
        np.copyto(array, given[key])
