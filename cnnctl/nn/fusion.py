"""From layers to the fused operations of a plan, and the values that pass between them.

Decides which layers become one operation; looks at neither shapes nor arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cnnctl.backends.specs import (
    Activation,
    ActivationSpec,
    AddSpec,
    BatchNormSpec,
    ConvSpec,
    FlattenSpec,
    LinearSpec,
    PoolSpec,
    Spec,
    needs_input,
)
from cnnctl.nn.layer import Layer
from cnnctl.nn.residual import Residual


@dataclass(slots=True)
class Node:
    """One stage to be: what it computes, of which values, with whose parameters.

    Values are numbered: 0 is the network's input, and node i makes value i + 1.

    Attributes:
        layers: those it stands for; it is named after the first.
        x, r: the value read, and the one added to it where there are two inputs.
        names: the stage's names of parameters and statistics -> the network's, such as
            "gamma" -> "batchnorm1.weight".
    """

    spec: Spec
    layers: list[Layer]
    x: int
    r: int | None = None
    names: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The values it reads."""
        return (self.x,) if self.r is None else (self.x, self.r)


def fuse_layers(layers: Sequence[Layer]) -> list[Node]:
    """Layers as nodes: [conv batchnorm? (+ shortcut)? activation? pool?], [linear activation?], the rest
    one by one.

    A flatten before a fully connected layer vanishes, since that layer flattens by itself.
    """
    nodes: list[Node] = []
    _fuse_sequence(nodes, layers, 0)
    return nodes


def _fuse_sequence(nodes: list[Node], layers: Sequence[Layer], value: int) -> int:
    """Append the nodes of layers that read `value`; returns the value they make."""
    rest = [step for layer in layers for step in layer.steps]
    while rest:
        layer = rest.pop(0)
        if isinstance(layer, Residual):
            value = _fuse_residual(nodes, layer, rest, value)
            continue
        node = Node(layer.spec, [layer], value, names=_name_arrays(layer))
        match node.spec:
            case ConvSpec():
                _fuse_conv(node, node.spec, rest)
            case LinearSpec() if not needs_input(_next_activation(rest)):
                node.spec = replace(node.spec, **_take_activation(node, rest))
            case FlattenSpec() if rest and isinstance(rest[0].spec, LinearSpec):
                continue
        nodes.append(node)
        value = len(nodes)
    return value


def _fuse_conv(node: Node, spec: ConvSpec, rest: list[Layer]) -> None:
    sandwich = spec.sandwich
    if rest and isinstance(rest[0].spec, BatchNormSpec):
        sandwich = replace(sandwich, norm=rest[0].spec)
        names = _name_arrays(rest[0])
        node.names |= {"gamma": names.pop("weight"), "beta": names.pop("bias"), **names}
        node.layers.append(rest.pop(0))
    sandwich = replace(sandwich, **_take_activation(node, rest))
    if rest and isinstance(rest[0].spec, PoolSpec):
        sandwich = replace(sandwich, pool=rest[0].spec.pool)
        node.layers.append(rest.pop(0))
    node.spec = replace(spec, sandwich=sandwich)


def _fuse_residual(nodes: list[Node], block: Residual, rest: list[Layer], value: int) -> int:
    """The shortcut is added by the block's last convolution, if nothing stands behind its norm."""
    shortcut = _fuse_sequence(nodes, block.shortcut, value)
    main = _fuse_sequence(nodes, block.layers, value)
    last = nodes[-1]
    if main == len(nodes) and isinstance(last.spec, ConvSpec):
        sandwich = last.spec.sandwich
        if not (sandwich.residual or sandwich.activation or sandwich.pool):
            sandwich = replace(sandwich, residual=True, **_take_activation(last, rest))
            last.spec, last.r = replace(last.spec, sandwich=sandwich), shortcut
            return main
    nodes.append(Node(AddSpec(), [block], main, shortcut))
    return len(nodes)


def _next_activation(rest: list[Layer]) -> Activation | None:
    spec = rest[0].spec if rest else None
    return spec.activation if isinstance(spec, ActivationSpec) else None


def _take_activation(node: Node, rest: list[Layer]) -> dict[str, Any]:
    """`activation` and `alpha` of the next layer, if it is one: the layer is done with then."""
    spec = rest[0].spec if rest else None
    if not isinstance(spec, ActivationSpec):
        return {}
    node.layers.append(rest.pop(0))
    return {"activation": spec.activation, "alpha": spec.alpha}


def _name_arrays(layer: Layer) -> dict[str, str]:
    return {key: f"{layer.name}.{key}" for key in (*layer.params, *layer.statistics)}
