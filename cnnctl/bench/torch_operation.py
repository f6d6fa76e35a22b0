"""One layer's forward or backward pass in PyTorch, called the shortest way there is.

Needs PyTorch: import this only where that is wanted. Trains nothing and times nothing.
"""

from typing import Literal

import torch

from cnnctl.backends.specs import Array
from cnnctl.bench.torch_peer import build_module
from cnnctl.nn import Layer

Direction = Literal["forward", "backward"]


class TorchOperation:
    """A layer on tensors that lie in memory as `layout` says before anything is timed."""

    engine = "torch"

    def __init__(
        self, layer: Layer, x: Array, dy: Array, direction: Direction, layout: str, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        self.layout, self._direction = layout, direction
        module = build_module([layer])
        if layout == "channels_last":
            module.to(memory_format=torch.channels_last)
        self._compute = module[0].forward if len(module) == 1 else module.forward
        self._x, self._dy = self._place(x), self._place(dy)
        self._keys = ["dx"]
        self._arguments = [self._x]
        for key, parameter in module.named_parameters():
            self._keys.append({"weight": "dw", "bias": "db"}[key.rpartition(".")[2]])
            self._arguments.append(parameter)
        if direction == "backward":
            self._x.requires_grad_()
            self._y = self._compute(self._x)

    def run(self, _: int) -> None:
        """The pass, and nothing else of it: backward goes over the same graph every time."""
        if self._direction == "forward":
            with torch.inference_mode():
                self._result = [self._compute(self._x)]
        else:
            self._result = list(torch.autograd.grad(self._y, self._arguments, self._dy, retain_graph=True))

    def read(self) -> dict[str, Array]:
        """What the last run computed."""
        keys = ["y"] if self._direction == "forward" else self._keys
        return {key: tensor.contiguous().numpy() for key, tensor in zip(keys, self._result, strict=True)}

    def _place(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.layout == "channels_last" and tensor.ndim == 4:  # of a linear layer dy has 2
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor.clone()
