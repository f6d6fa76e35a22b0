"""Arguments that do not fit: one line that quotes the value, and an error that callers know."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnctl.backends import BACKENDS, create_backend
from cnnctl.backends.base import Backend, SandwichOutputs
from cnnctl.backends.specs import Array, Pool, Sandwich
from cnnctl.errors import CnnctlError, ConfigError, DtypeError, ShapeError
from cnnctl.geometry import Window

K3 = Window.create(3)
K2 = Window.create(2, 2)


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def spread(*shape: int) -> Array:
    """An array of any extents that takes up four bytes."""
    return np.broadcast_to(np.float32(0), shape)


REFUSALS: dict[str, tuple[Callable[[Backend], Any], str]] = {
    "image without batch": (
        lambda b: b.conv_forward(zeros(3, 5, 5), zeros(4, 3, 3, 3), None, K3),
        "x: shape (3, 5, 5) is not (N, C, H, W)",
    ),
    "weight of other channels": (
        lambda b: b.conv_forward(zeros(2, 3, 5, 5), zeros(4, 2, 3, 3), None, K3),
        "w: shape (4, 2, 3, 3) is not (F, 3, 3, 3)",
    ),
    "weight of another kernel": (
        lambda b: b.conv_forward(zeros(2, 3, 5, 5), zeros(4, 3, 3, 2), None, K3),
        "w: shape (4, 3, 3, 2) is not (F, 3, 3, 3)",
    ),
    "no filters": (
        lambda b: b.conv_forward(zeros(2, 3, 5, 5), zeros(0, 3, 3, 3), None, K3),
        "w: shape (0, 3, 3, 3) has no filters",
    ),
    "groups and channels": (
        lambda b: b.conv_forward(zeros(2, 3, 5, 5), zeros(4, 1, 3, 3), None, K3, 2),
        "groups: 2 does not divide the 3 channels of x",
    ),
    "groups and filters": (
        lambda b: b.conv_forward(zeros(2, 4, 5, 5), zeros(3, 2, 3, 3), None, K3, 2),
        "groups: 2 does not divide the 3 filters of w",
    ),
    "no groups": (
        lambda b: b.conv_forward(zeros(2, 3, 5, 5), zeros(4, 3, 3, 3), None, K3, 0),
        "groups: 0 does not divide the 3 channels of x",
    ),
    "bias of another length": (
        lambda b: b.conv_forward(zeros(2, 3, 5, 5), zeros(4, 3, 3, 3), zeros(3), K3),
        "b: shape (3,) where (4,) is needed",
    ),
    "kernel above the image": (
        lambda b: b.conv_forward(zeros(2, 3, 5, 2), zeros(4, 3, 3, 3), None, K3),
        "kernel spans 3 pixels of width, more than the 2 of the image",
    ),
    "image without pixels": (
        lambda b: b.conv_forward(zeros(2, 3, 0, 5), zeros(4, 3, 3, 3), None, K3),
        "height: 0 is below 1",
    ),
    "output beyond all memory": (
        lambda b: b.conv_forward(spread(2**32, 1, 64, 64), spread(2**31, 1, 3, 3), None, K3),
        "y: shape (4294967296, 2147483648, 62, 62) has",
    ),
    "gradient of another shape": (
        lambda b: b.conv_backward(zeros(2, 4, 5, 5), zeros(2, 3, 5, 5), zeros(4, 3, 3, 3), K3),
        "dy: shape (2, 4, 5, 5) where (2, 4, 3, 3) is needed",
    ),
    "pooling without batch": (
        lambda b: b.maxpool_forward(zeros(3, 4, 4), K2),
        "x: shape (3, 4, 4) is not (N, C, H, W)",
    ),
    "pooling over padding alone": (
        lambda b: b.maxpool_forward(zeros(1, 1, 4, 4), Window.create(2, 2, 2)),
        "padding: ((2, 2), (2, 2)) leaves a pooling window without any pixel of the image",
    ),
    "pool gradient of another shape": (
        lambda b: b.maxpool_backward(zeros(1, 1, 3, 3), np.zeros((1, 1, 2, 2), np.int32), (1, 1, 4, 4), K2),
        "dy: shape (1, 1, 3, 3) where (1, 1, 2, 2) is needed",
    ),
    "index of another shape": (
        lambda b: b.maxpool_backward(zeros(1, 1, 2, 2), np.zeros((1, 1, 2, 3), np.int32), (1, 1, 4, 4), K2),
        "index: int32 (1, 1, 2, 3) where int32 (1, 1, 2, 2) is needed",
    ),
    "index of another type": (
        lambda b: b.maxpool_backward(zeros(1, 1, 2, 2), np.zeros((1, 1, 2, 2), np.int64), (1, 1, 4, 4), K2),
        "index: int64 (1, 1, 2, 2) where int32 (1, 1, 2, 2) is needed",
    ),
    "index above the taps": (
        lambda b: b.maxpool_backward(zeros(1, 1, 2, 2), np.full((1, 1, 2, 2), 4, np.int32), (1, 1, 4, 4), K2),
        "index: values 4..4 do not fit the 4 taps of the window",
    ),
    "index below zero": (
        lambda b: b.maxpool_backward(
            zeros(1, 1, 2, 2), np.full((1, 1, 2, 2), -(2**31), np.int32), (1, 1, 4, 4), K2
        ),
        "index: values -2147483648..-2147483648 do not fit the 4 taps of the window",
    ),
    "fused index above the taps": (
        lambda b: b.conv_sandwich_backward(
            *(zeros(1, 1, 2, 2), zeros(1, 1, 4, 4), zeros(1, 1, 1, 1)),
            SandwichOutputs(zeros(1, 1, 2, 2), np.full((1, 1, 2, 2), 4, np.int32)),
            Sandwich(Window.create(1), pool=Pool("max", K2)),
        ),
        "index: values 4..4 do not fit the 4 taps of the window",
    ),
    "fused index left out": (
        lambda b: b.conv_sandwich_backward(
            *(zeros(1, 1, 2, 2), zeros(1, 1, 4, 4), zeros(1, 1, 1, 1)),
            SandwichOutputs(zeros(1, 1, 2, 2)),
            Sandwich(Window.create(1), pool=Pool("max", K2)),
        ),
        "index: None where int32 (1, 1, 2, 2) is needed",
    ),
    "fused gradient of another shape": (
        lambda b: b.conv_sandwich_backward(
            *(zeros(1, 1, 3, 2), zeros(1, 1, 4, 4), zeros(1, 1, 1, 1)),
            SandwichOutputs(zeros(1, 1, 3, 2), np.zeros((1, 1, 2, 2), np.int32)),
            Sandwich(Window.create(1), pool=Pool("max", K2)),
        ),
        "dy: shape (1, 1, 3, 2) where (1, 1, 2, 2) is needed",
    ),
    "linear on images": (
        lambda b: b.linear_forward(zeros(2, 3, 4, 4), zeros(5, 48), None),
        "x, w: shapes (2, 3, 4, 4), (5, 48) are not (N, in), (out, in)",
    ),
    "linear of other inputs": (
        lambda b: b.linear_forward(zeros(2, 3), zeros(5, 4), None),
        "x, w: shapes (2, 3), (5, 4) are not (N, in), (out, in)",
    ),
    "linear bias": (
        lambda b: b.linear_forward(zeros(2, 3), zeros(5, 3), zeros(3)),
        "b: shape (3,) where (5,) is needed",
    ),
    "linear gradient": (
        lambda b: b.linear_backward(zeros(2, 3), zeros(2, 3), zeros(5, 3)),
        "dy: shape (2, 3) where (2, 5) is needed",
    ),
    "average over padding alone": (
        lambda b: b.avgpool_forward(zeros(1, 1, 4, 4), Window.create(2, 2, 2)),
        "padding: ((2, 2), (2, 2)) leaves a pooling window without any pixel of the image",
    ),
    "average of vectors": (
        lambda b: b.avgpool_forward(zeros(2, 3), K2),
        "x: shape (2, 3) is not (N, C, H, W)",
    ),
    "average gradient of another shape": (
        lambda b: b.avgpool_backward(zeros(1, 1, 3, 3), (1, 1, 4, 4), K2),
        "dy: shape (1, 1, 3, 3) where (1, 1, 2, 2) is needed",
    ),
    "unknown activation": (
        lambda b: b.activation_forward(zeros(2, 3), "rleu"),
        "activation: 'rleu' is not known; did you mean relu?",
    ),
    "activation gradient": (
        lambda b: b.activation_backward(zeros(2, 3), zeros(3, 2), zeros(3, 2), "tanh"),
        "dy: shape (2, 3) where (3, 2) is needed",
    ),
    "activation input": (
        lambda b: b.activation_backward(zeros(3, 2), zeros(2, 3), zeros(3, 2), "tanh"),
        "x: shape (2, 3) where (3, 2) is needed",
    ),
    "gelu in a fully connected layer": (
        lambda b: b.linear_sandwich_forward(zeros(2, 3), zeros(5, 3), None, "gelu"),
        "activation: 'gelu' cannot be fused: its gradient needs what stands before it",
    ),
    "silu in a fully connected layer": (
        lambda b: b.linear_sandwich_backward(*(zeros(2, 3),) * 2, zeros(3, 3), zeros(2, 3), "silu"),
        "activation: 'silu' cannot be fused: its gradient needs what stands before it",
    ),
    "alpha of 0": (
        lambda b: b.activation_forward(zeros(2, 3), "leaky_relu", 0),
        "alpha: 0 is not a number in (0, inf)",
    ),
    "alpha for what has none": (
        lambda b: b.activation_backward(*(zeros(2, 3),) * 3, "tanh", 0.1),
        "alpha: 0.1 means nothing to tanh, only to leaky_relu, elu",
    ),
    "fused alpha below 0": (
        lambda b: b.conv_sandwich_forward(
            zeros(1, 1, 2, 2), zeros(1, 1, 1, 1), None, Sandwich(Window.create(1), activation="elu", alpha=-1)
        ),
        "alpha: -1 is not a number in (0, inf)",
    ),
    "batch norm of a flat array": (
        lambda b: b.batchnorm_forward(zeros(3), zeros(3), zeros(3), 1e-5),
        "x: shape (3,) is not (N, C, H, W) or (N, C) with at least one channel",
    ),
    "batch norm without eps": (
        lambda b: b.batchnorm_forward(zeros(2, 3), zeros(3), zeros(3), 0),
        "eps: 0 is not a number in (0, inf)",
    ),
    "gamma of other channels": (
        lambda b: b.batchnorm_forward(zeros(2, 3), zeros(2), zeros(3), 1e-5),
        "gamma: shape (2,) where (3,) is needed",
    ),
    "variance of other channels": (
        lambda b: b.batchnorm_inference(zeros(2, 3), *(zeros(3),) * 3, zeros(4), 1e-5),
        "var: shape (4,) where (3,) is needed",
    ),
    "batch norm gradient": (
        lambda b: b.batchnorm_backward(zeros(2, 4), zeros(2, 3), *(zeros(3),) * 3, 1e-5),
        "dy: shape (2, 4) where (2, 3) is needed",
    ),
    "group norm of groups that do not fit": (
        lambda b: b.groupnorm_forward(zeros(2, 3), zeros(3), zeros(3), 2, 1e-5),
        "groups: 2 does not divide the 3 channels",
    ),
    "group norm of no groups": (
        lambda b: b.groupnorm_forward(zeros(2, 3), zeros(3), zeros(3), 0, 1e-5),
        "groups: 0 does not divide the 3 channels",
    ),
    "group norm of no pixels": (
        lambda b: b.groupnorm_forward(zeros(2, 3, 0, 4), zeros(3), zeros(3), 1, 1e-5),
        "x: shape (2, 3, 0, 4) has images without pixels",
    ),
    "group norm without eps": (
        lambda b: b.groupnorm_forward(zeros(2, 3), zeros(3), zeros(3), 1, 0.0),
        "eps: 0.0 is not a number in (0, inf)",
    ),
    "mean of other groups": (
        lambda b: b.groupnorm_backward(*(zeros(2, 4),) * 2, zeros(4), zeros(2, 4), zeros(2, 2), 2, 1e-5),
        "mean: shape (2, 4) where (2, 2) is needed",
    ),
    "group norm gradient": (
        lambda b: b.groupnorm_backward(zeros(2, 3), zeros(2, 4), zeros(4), *(zeros(2, 2),) * 2, 2, 1e-5),
        "dy: shape (2, 3) where (2, 4) is needed",
    ),
    "factor of other channels": (
        lambda b: b.scale_forward(zeros(2, 3), zeros(2), zeros(3)),
        "w: shape (2,) where (3,) is needed",
    ),
    "scale of a flat array": (
        lambda b: b.scale_forward(zeros(3), zeros(3), zeros(3)),
        "x: shape (3,) is not (N, C, H, W) or (N, C) with at least one channel",
    ),
    "scale gradient": (
        lambda b: b.scale_backward(zeros(2, 4), zeros(2, 3), zeros(3)),
        "dy: shape (2, 4) where (2, 3) is needed",
    ),
    "response norm of vectors": (
        lambda b: b.lrn_forward(zeros(2, 3), 5, 1e-4, 0.75, 1.0),
        "x: shape (2, 3) is not (N, C, H, W)",
    ),
    "response norm of no channels": (
        lambda b: b.lrn_forward(zeros(2, 3, 1, 1), 0, 1e-4, 0.75, 1.0),
        "size: 0 is not an integer of at least 1",
    ),
    "response norm that divides by zero": (
        lambda b: b.lrn_forward(zeros(2, 3, 1, 1), 5, 1e-4, 0.75, 0.0),
        "k: 0.0 is not a number in (0, inf)",
    ),
    "response norm gradient": (
        lambda b: b.lrn_backward(zeros(2, 3, 1, 2), zeros(2, 3, 1, 1), 5, 1e-4, 0.75, 1.0),
        "dy: shape (2, 3, 1, 2) where (2, 3, 1, 1) is needed",
    ),
    "dropout of everything": (
        lambda b: b.dropout(zeros(2, 3), 1.0, 0),
        "rate: 1.0 is not a number in [0, 1)",
    ),
    "dropout at no rate": (
        lambda b: b.dropout(zeros(2, 3), float("nan"), 0),
        "rate: nan is not a number in [0, 1)",
    ),
    "dropout with a seed below zero": (
        lambda b: b.dropout(zeros(2, 3), 0.5, -1),
        "seed: -1 is not an integer from 0 to 2^64 - 1",
    ),
    "dropout of a flat array": (
        lambda b: b.dropout(zeros(3), 0.5, 0),
        "x: shape (3,) is neither (N, C, H, W) nor (N, D)",
    ),
    "labels of another length": (
        lambda b: b.softmax_cross_entropy_forward(zeros(2, 3), np.array([0, 1, 2])),
        "scores, labels: shapes (2, 3), (3,) are not (N, K), (N)",
    ),
    "label above the classes": (
        lambda b: b.softmax_cross_entropy_forward(zeros(2, 3), np.array([0, 3])),
        "labels: values 0..3 do not fit the 3 classes",
    ),
    "label below zero": (
        lambda b: b.softmax_cross_entropy_backward(zeros(2, 3), np.array([-1, 2])),
        "labels: values -1..2 do not fit the 3 classes",
    ),
    "label that is no integer": (
        lambda b: b.softmax_cross_entropy_forward(zeros(2, 3), np.array([0.0, 1.0])),
        "labels: float64 is not an integer type",
    ),
    "slot of another shape": (
        lambda b: b.sgd_update(zeros(3), zeros(3), zeros(4), lr=0.1),
        "w, dw and slots: shape (4,) where (3,) is needed",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSALS.values(), ids=REFUSALS)
def test_message_quotes_the_value(backend: Backend, call: Callable[[Backend], Any], message: str) -> None:
    with pytest.raises((ShapeError, DtypeError, ConfigError)) as caught:
        call(backend)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CnnctlError)
    assert caught.value.exit_code == 2


def test_backend_answers_to_its_name(backend: Backend) -> None:
    assert type(backend) is type(create_backend(backend.name))
    assert backend.threads == 1
    assert create_backend(backend.name, threads=2).threads == 2


@pytest.mark.parametrize(
    ("name", "threads", "message"),
    [
        ("fats", 1, "backend: 'fats' is not known; did you mean fast?"),
        ("cuda", 1, f"backend: 'cuda' is not known; known: {', '.join(BACKENDS)}"),
        ("naive", 0, "threads: 0 is not an integer from 1 to 256"),
    ],
)
def test_unusable_settings_are_configuration_errors(name: str, threads: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_backend(name, threads)
    assert str(caught.value) == message
