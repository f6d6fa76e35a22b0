"""Where numbers stopped being finite: asked once it has happened, so the answer may take its time.

Runs the stages again, on the input that lies there, and looks at each output before the next one is
computed: buffers that share memory hide nothing. What is named is where it began, not where it showed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array, ConvSpec, LinearSpec, Sandwich
from cnnctl.backends.stage import Layout, Stage
from cnnctl.nn.fusion import Node


def trace_forward(
    nodes: Sequence[Node], stages: Sequence[Stage], backend: Backend, n: int, *, training: bool
) -> str | None:
    """What is not finite first when n images run forward; None if all is finite.

    "the input", a parameter ("conv1.weight"), a statistic that is used (so not in training), or "the
    output of conv1". Of layers that were fused, the first whose output is not finite by the backend's
    plain operations; all of them ("conv1+relu1") if none is. Training moves the statistics again.
    """
    layouts = [stages[0].input, *(stage.output for stage in stages)]
    if not is_finite(layouts[0].read(stages[0].buffers.x, n)):
        return "the input"
    for node, stage in zip(nodes, stages, strict=True):
        arrays = _read_arrays(stage, statistics=not training)
        for key, array in arrays.items():
            if not is_finite(array):
                return node.names[key]
        stage.forward(n, training)
        if not is_finite(stage.output.read(stage.buffers.y, n)):
            r = None if node.r is None else layouts[node.r]
            return f"the output of {_find_part(node, stage, backend, arrays, n, r)}"
    return None


def is_finite(array: Array) -> bool:
    """Whether no element is a NaN or an infinity."""
    return bool(np.isfinite(array).all())


def _read_arrays(stage: Stage, *, statistics: bool) -> dict[str, Array]:
    b = stage.buffers
    arrays = {key: layout.read(b.params[key]) for key, layout in stage.parameters.items()}
    if statistics:
        arrays |= {key: layout.read(b.statistics[key]) for key, layout in stage.statistics.items()}
    return arrays


def _find_part(
    node: Node, stage: Stage, backend: Backend, arrays: dict[str, Array], n: int, r_layout: Layout | None
) -> str:
    """The first of a stage's layers to blame, by finite inputs and parameters; all if it cannot be told."""
    x, w, b = stage.input.read(stage.buffers.x, n), arrays.get("weight"), arrays.get("bias")
    match node.spec:
        case ConvSpec(whole):
            assert w is not None
            mean, var = arrays.get("running_mean"), arrays.get("running_var")
            for name, part in _grow(node, whole):
                gamma, beta = (arrays["gamma"], arrays["beta"]) if part.norm else (None, None)
                r = None
                if part.residual and r_layout is not None and stage.buffers.r is not None:
                    r = r_layout.read(stage.buffers.r, n)
                if part.norm and mean is not None:
                    y = backend.conv_sandwich_inference(x, w, b, part, gamma, beta, r, mean, var)
                else:
                    y = backend.conv_sandwich_forward(x, w, b, part, gamma, beta, r).y
                if not is_finite(y):
                    return name
        case LinearSpec():
            assert w is not None
            if not is_finite(backend.linear_forward(x.reshape(n, -1), w, b)):
                return node.layers[0].name
    return "+".join(layer.name for layer in node.layers)


def _grow(node: Node, whole: Sandwich) -> Iterator[tuple[str, Sandwich]]:
    """A fused convolution layer by layer: the name of each, and all up to it."""
    names = iter([layer.name for layer in node.layers])
    part = Sandwich(whole.window, whole.groups)
    yield next(names), part
    if whole.norm:
        part = replace(part, norm=whole.norm)
        yield next(names), part
    if whole.residual:  # the sum is the block's own, and its layers are called by its name
        part = replace(part, residual=True)
        yield node.layers[0].name.rpartition(".")[0], part
    if whole.activation:
        part = replace(part, activation=whole.activation, alpha=whole.alpha)
        yield next(names), part
    if whole.pool:
        yield next(names), replace(part, pool=whole.pool)
