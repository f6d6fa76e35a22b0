"""What holds for every layer: shapes, dtypes, batches, names, and one network only."""

import numpy as np
import pytest

from cnnctl.errors import CnnctlError, ConfigError, DtypeError, ShapeError
from cnnctl.nn import (
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    ReLU,
    Subsampling,
    Tanh,
)

LAYERS = {
    "conv": (lambda: Conv(3, 2, name="it"), (2, 5, 4), (3, 4, 3), ["weight", "bias"]),
    "conv without bias": (lambda: Conv(3, 2, bias=False, name="it"), (2, 5, 4), (3, 4, 3), ["weight"]),
    "maxpool": (lambda: MaxPool(2, name="it"), (2, 5, 4), (2, 2, 2), []),
    "linear": (lambda: Linear(6, name="it"), (7,), (6,), ["weight", "bias"]),
    "linear on images": (lambda: Linear(6, name="it"), (2, 5, 4), (6,), ["weight", "bias"]),
    "relu": (lambda: ReLU(name="it"), (2, 5, 4), (2, 5, 4), []),
    "tanh on vectors": (lambda: Tanh(name="it"), (7,), (7,), []),
    "avgpool": (lambda: AvgPool(2, name="it"), (2, 5, 4), (2, 2, 2), []),
    "globalavgpool": (lambda: GlobalAvgPool(name="it"), (2, 5, 4), (2,), []),
    "batchnorm": (lambda: BatchNorm(name="it"), (2, 5, 4), (2, 5, 4), ["weight", "bias"]),
    "batchnorm on vectors": (lambda: BatchNorm(name="it"), (7,), (7,), ["weight", "bias"]),
    "groupnorm": (lambda: GroupNorm(2, name="it"), (4, 5, 4), (4, 5, 4), ["weight", "bias"]),
    "layernorm": (lambda: LayerNorm(name="it"), (2, 5, 4), (2, 5, 4), ["weight", "bias"]),
    "layernorm on vectors": (lambda: LayerNorm(name="it"), (7,), (7,), ["weight", "bias"]),
    "instancenorm": (lambda: InstanceNorm(name="it"), (2, 5, 4), (2, 5, 4), ["weight", "bias"]),
    "subsampling": (lambda: Subsampling(2, name="it"), (2, 5, 4), (2, 2, 2), ["weight", "bias"]),
    "spatial dropout": (lambda: Dropout(0.1, spatial=True, name="it"), (2, 5, 4), (2, 5, 4), []),
    "lrn": (lambda: LocalResponseNorm(name="it"), (2, 5, 4), (2, 5, 4), []),
    "dropout": (lambda: Dropout(0.1, name="it"), (2, 5, 4), (2, 5, 4), []),
    "dropout on vectors": (lambda: Dropout(0.1, name="it"), (7,), (7,), []),
    "flatten": (lambda: Flatten(name="it"), (2, 5, 4), (40,), []),
}

every_layer = pytest.mark.parametrize(
    ("make_layer", "input_shape", "output_shape", "keys"), LAYERS.values(), ids=LAYERS.keys()
)


@every_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_shapes_and_dtypes_forward_and_back(
    backend, make_layer, input_shape, output_shape, keys, dtype, batch
):
    layer = make_layer()
    Network([layer], input_shape, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(batch, *input_shape)).astype(dtype)
    original = x.copy()
    y = layer.forward(x, backend, training=True)
    dx = layer.backward(np.ones_like(y), backend)
    assert (layer.input_shape, layer.output_shape) == (input_shape, output_shape)
    assert (y.shape, y.dtype) == ((batch, *output_shape), dtype)
    assert (dx.shape, dx.dtype) == (x.shape, dtype)
    assert list(layer.params) == list(layer.grads) == keys
    for key in keys:
        assert layer.grads[key].shape == layer.params[key].shape
        assert layer.grads[key].dtype == layer.params[key].dtype == dtype
    assert np.array_equal(x, original)


@every_layer
def test_the_input_gradient_can_be_left_out(backend, make_layer, input_shape, output_shape, keys):
    layer = make_layer()
    Network([layer], input_shape)
    y = layer.forward(np.ones((2, *input_shape), "float32"), backend, training=True)
    assert layer.backward(np.ones_like(y), backend, need_dx=False) is None
    assert list(layer.grads) == keys


@every_layer
def test_wrong_arrays_are_refused_by_name(backend, make_layer, input_shape, output_shape, keys):
    layer = make_layer()
    Network([layer], input_shape)
    x = np.ones((2, *input_shape), "float32")
    y = layer.forward(x, backend, training=True)
    for wrong in (x.astype("float64"), x.astype("uint8"), x.astype(">f4")):
        with pytest.raises(DtypeError, match=r"^it: x: dtype .* where the network has float32; convert it"):
            layer.forward(wrong, backend, training=True)
    with pytest.raises(DtypeError, match=r"^it: dy: dtype float64 where the network has float32"):
        layer.backward(y.astype("float64"), backend)
    for wrong in (x[0], x[..., :-1], x[None]):
        with pytest.raises(ShapeError, match=r"^it: x: shape \(.*\) is not \(N, "):
            layer.forward(wrong, backend, training=True)
    with pytest.raises(ShapeError, match=r"^it: dy: shape \(.*\) is not \(N, "):
        layer.backward(y[..., :-1], backend)


@every_layer
def test_backward_needs_a_training_pass(backend, make_layer, input_shape, output_shape, keys):
    layer = make_layer()
    Network([layer], input_shape)
    y = layer.forward(np.ones((1, *input_shape), "float32"), backend, training=False)
    with pytest.raises(CnnctlError, match="it: backward needs a forward pass with training=True before it"):
        layer.backward(y, backend)


@every_layer
def test_backward_belongs_to_the_last_training_pass(backend, make_layer, input_shape, output_shape, keys):
    layer = make_layer()
    Network([layer], input_shape)
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 2, *input_shape)).astype("float32")
    y = layer.forward(x, backend, training=True)
    dy = rng.normal(size=y.shape).astype("float32")
    expected = layer.backward(dy, backend)
    layer.forward(other, backend, training=False)
    assert np.array_equal(layer.backward(dy, backend), expected)
    assert expected.any()


@every_layer
def test_a_layer_is_in_one_network_once(make_layer, input_shape, output_shape, keys):
    layer = make_layer()
    assert layer.output_shape == ()
    Network([layer], input_shape)
    message = f"it: this layer is in a network already; make another {layer.kind} layer"
    with pytest.raises(ConfigError, match=message):
        Network([layer], input_shape)
    with pytest.raises(ConfigError, match=message):
        layer.build(input_shape, np.dtype("float32"), np.random.default_rng(0))


@pytest.mark.parametrize("name", ["", "1st", "a.b", "a/b", "a b", "../a", "über", "a\n", 7])
def test_a_name_is_plain(name):
    with pytest.raises(ConfigError, match=r"^name: .* is not a letter followed by"):
        ReLU(name=name)


@pytest.mark.parametrize("name", ["a", "stem", "block-2_conv", "Conv7"])
def test_a_plain_name_is_kept(name):
    assert Network([ReLU(name=name)], (3,)).layers[0].name == name


def test_repr_tells_shapes_and_parameters():
    layer = Conv(8, 3)
    assert repr(layer) == "<Conv: not in a network>"
    Network([layer], (3, 9, 9))
    assert repr(layer) == "<Conv conv1: (3, 9, 9) -> (8, 7, 7), 224 parameters>"
