"""Deep Learning from Scratch's SimpleConvNet: conv - relu - 2x2 max pool - affine - relu - affine.

Weights are drawn from numpy's global generator, as in the book: np.random.seed settles them.
Parameters are saved as safetensors, whatever the file is called; no pickle is read or written.
"""

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.dlfs.gradient import numerical_gradient
from cnnctl.compat.dlfs.layers import Affine, Convolution, Pooling, Relu, SoftmaxWithLoss
from cnnctl.compat.tensors import PathLike, load_arrays, save_arrays
from cnnctl.errors import CheckpointError

__all__ = ["SimpleConvNet"]


class SimpleConvNet:
    """Softmax cross-entropy over the scores of one convolution and two fully connected layers.

    Args:
        input_dim: (C, H, W) of an image.
        conv_param: filter_num, filter_size, pad and stride.
        hidden_size, output_size: units of the fully connected layers.
        weight_init_std: standard deviation of the weights; biases start at 0.

    Attributes:
        params: W1 (F,C,FH,FW), b1, W2 (F (OH//2) (OW//2), hidden_size), b2, W3, b3, all float64.
        layers: Conv1, Relu1, Pool1, Affine1, Relu2, Affine2, in order; they share the arrays in `params`.
        last_layer: softmax with the loss.

    Source: Saito 2016, chapter 7.
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: Mapping[str, int] = MappingProxyType(
            {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}
        ),
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float = 0.01,
    ) -> None:
        C, *size = input_dim
        filters, side = conv_param["filter_num"], conv_param["filter_size"]
        pad, stride = conv_param["pad"], conv_param["stride"]
        OH, OW = ((extent + 2 * pad - side) // stride + 1 for extent in size)
        pooled = filters * (OH // 2) * (OW // 2)
        shapes = ((filters, C, side, side), (pooled, hidden_size), (hidden_size, output_size))
        biases = (filters, hidden_size, output_size)
        self.params: dict[str, Array] = {}
        for i, (shape, units) in enumerate(zip(shapes, biases, strict=True), 1):
            self.params[f"W{i}"] = weight_init_std * np.random.randn(*shape)
            self.params[f"b{i}"] = np.zeros(units)

        W1, b1, W2, b2, W3, b3 = self.params.values()
        self.layers: OrderedDict[str, Convolution | Relu | Pooling | Affine] = OrderedDict(
            Conv1=Convolution(W1, b1, stride, pad),
            Relu1=Relu(),
            Pool1=Pooling(pool_h=2, pool_w=2, stride=2),
            Affine1=Affine(W2, b2),
            Relu2=Relu(),
            Affine2=Affine(W3, b3),
        )
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x: Array) -> Array:
        """Scores (N, output_size) of images x (N,C,H,W)."""
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> float:
        """The mean loss, in nats; t class numbers (N) or one-hot (N, output_size)."""
        return self.last_layer.forward(self.predict(x), t)

    def accuracy(self, x: Array, t: Array, batch_size: int = 100) -> float:
        """Fraction of the images whose highest score is that of their label; all of them count."""
        labels = t if t.ndim == 1 else t.argmax(axis=1)
        correct = 0
        for start in range(0, len(x), batch_size):
            scores = self.predict(x[start : start + batch_size])
            correct += int((scores.argmax(axis=1) == labels[start : start + batch_size]).sum())
        return correct / len(x)

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Gradients of the loss by back-propagation, with the keys of `params`."""
        self.loss(x, t)
        dout = self.last_layer.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        grads: dict[str, Array] = {}
        for i, layer in enumerate(self._layers_with_params(), 1):
            assert layer.dW is not None
            assert layer.db is not None
            grads |= {f"W{i}": layer.dW, f"b{i}": layer.db}
        return grads

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """The same by central differences: two forward passes for every single weight."""
        return {key: numerical_gradient(lambda _: self.loss(x, t), w) for key, w in self.params.items()}

    def save_params(self, file_name: PathLike = "params.safetensors") -> None:
        """Write the parameters. Raises RunError when the disk does not take them."""
        save_arrays(file_name, self.params)

    def load_params(self, file_name: PathLike = "params.safetensors") -> None:
        """Read parameters that `save_params` has written; all are checked before any is taken over.

        Raises CheckpointError for a file missing, damaged, a pickle, or of another network.
        """
        found = load_arrays(file_name)
        for key, w in self.params.items():
            shape = found[key].shape if key in found else "nothing"
            if shape != w.shape:
                raise CheckpointError(f"{file_name}: {key}: {shape} where shape {w.shape} is needed")
        for key, w in self.params.items():
            w[...] = found[key]
        for i, layer in enumerate(self._layers_with_params(), 1):
            layer.W, layer.b = self.params[f"W{i}"], self.params[f"b{i}"]

    def _layers_with_params(self) -> list[Convolution | Affine]:
        return [layer for layer in self.layers.values() if isinstance(layer, (Convolution, Affine))]
