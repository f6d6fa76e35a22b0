"""What holds for every optimizer: errors, slots, dtypes, and no state of its own."""

from dataclasses import replace

import numpy as np
import pytest

from cnnctl.errors import ConfigError
from cnnctl.optim import SGD, AdaGrad, Adam, Adamax, AdamW, Lion, RMSprop

OPTIMIZERS = [
    *(SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9, nesterov=True), SGD(0.1, 0.9, dampening=0.5)),
    *(AdaGrad(0.1), RMSprop(0.1), RMSprop(0.1, momentum=0.9), RMSprop(0.1, momentum=0.9, centered=True)),
    *(Adam(0.1), AdamW(0.1, weight_decay=0.05), Adamax(0.1), Lion(0.1, weight_decay=0.05)),
]


def make_slots(optimizer, w):
    return {slot: np.zeros_like(w) for slot in optimizer.slots}


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (SGD, {"lr": 0}, r"lr: 0 is not a number in \(0, inf\)"),
        (SGD, {"lr": -0.1}, r"lr: -0\.1 is not"),
        (SGD, {"lr": float("nan")}, "lr: nan is not"),
        (SGD, {"lr": float("inf")}, "lr: inf is not"),
        (SGD, {"lr": "0.1"}, "lr: '0.1' is not a number"),
        (SGD, {"lr": True}, "lr: True is not a number"),
        (SGD, {"momentum": 1.0}, r"momentum: 1\.0 is not a number in \[0, 1\)"),
        (SGD, {"momentum": -0.1}, r"momentum: -0\.1 is not"),
        (SGD, {"nesterov": True}, "nesterov: True needs a momentum above 0, got 0.0"),
        (SGD, {"dampening": 0.5}, "dampening: 0.5 needs a momentum above 0, got 0.0"),
        (
            SGD,
            {"dampening": 0.5, "momentum": 0.9, "nesterov": True},
            "dampening: 0.5 does not go with nesterov",
        ),
        (SGD, {"dampening": 1, "momentum": 0.9}, r"dampening: 1 is not a number in \[0, 1\)"),
        (SGD, {"weight_decay": -1}, r"weight_decay: -1 is not a number in \[0, inf\)"),
        (AdaGrad, {"eps": 0}, "eps: 0 is not"),
        (AdaGrad, {"lr": 0}, "lr: 0 is not"),
        (RMSprop, {"alpha": 1}, "alpha: 1 is not"),
        (RMSprop, {"eps": 0}, "eps: 0 is not"),
        (RMSprop, {"momentum": 1}, "momentum: 1 is not"),
        (AdamW, {"weight_decay": float("nan")}, "weight_decay: nan is not"),
        (Adamax, {"beta2": 1}, "beta2: 1 is not"),
        (Lion, {"beta1": 1}, "beta1: 1 is not"),
        (Lion, {"beta2": -1}, "beta2: -1 is not"),
        (Adam, {"lr": 0.0}, r"lr: 0\.0 is not a number in \(0, inf\)"),
        (Adam, {"beta1": 1}, r"beta1: 1 is not a number in \[0, 1\)"),
        (Adam, {"beta2": 1.5}, r"beta2: 1\.5 is not"),
        (Adam, {"eps": 0}, r"eps: 0 is not a number in \(0, inf\)"),
    ],
)
def test_wrong_settings_are_named(kind, arguments, message):
    with pytest.raises(ConfigError, match=message):
        kind(**arguments)


@pytest.mark.parametrize("accepted", [1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_any_kind_of_number_is_accepted(accepted):
    assert SGD(lr=accepted).lr == accepted


def test_kinds_and_slots():
    assert (SGD.kind, SGD.slots) == ("sgd", ("velocity",))
    assert (Adam.kind, Adam.slots) == ("adam", ("m", "v"))
    assert (AdamW.kind, AdamW.slots) == ("adamw", ("m", "v"))
    assert (Adamax.kind, Adamax.slots) == ("adamax", ("m", "u"))
    assert (AdaGrad.kind, AdaGrad.slots) == ("adagrad", ("square",))
    assert (Lion.kind, Lion.slots) == ("lion", ("m",))
    assert RMSprop.kind == "rmsprop"
    assert RMSprop().slots == ("square",)
    assert RMSprop(centered=True).slots == ("square", "mean")
    assert RMSprop(momentum=0.9).slots == ("square", "velocity")
    assert RMSprop(momentum=0.9, centered=True).slots == ("square", "mean", "velocity")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update_returns_the_squares_before_it_and_works_in_place(backend, optimizer, dtype):
    w = np.array([[3.0, -4.0], [12.0, 0.0]], dtype)
    dw = np.ones_like(w)
    slots = make_slots(optimizer, w)
    squares = optimizer.update(backend, w, dw, slots, step=1, l2=0.0)
    assert squares == 169.0
    assert (w < [[3.0, -4.0], [12.0, 0.0]]).all()
    assert (dw == 1).all()
    assert all(slot.any() and slot.dtype == dtype for slot in slots.values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_state_is_in_the_slots(backend, optimizer):
    """Stopping after three steps and going on from copies gives the same bits."""
    w = np.linspace(-1, 1, 37)
    slots = make_slots(optimizer, w)
    for step in range(1, 4):
        optimizer.update(backend, w, np.sin(w * step), slots, step, l2=0.1)
    copied, copied_slots = w.copy(), {key: slot.copy() for key, slot in slots.items()}
    optimizer.update(backend, np.ones(5), np.ones(5), make_slots(optimizer, np.ones(5)), 9, l2=0.0)
    for step in range(4, 7):
        optimizer.update(backend, w, np.sin(w * step), slots, step, l2=0.1)
        optimizer.update(backend, copied, np.sin(copied * step), copied_slots, step, l2=0.1)
    assert w.tobytes() == copied.tobytes()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_l2_is_a_gradient_of_l2_times_w(backend, optimizer):
    w = np.array([0.5, -2.0, 4.0])
    by_hand = w.copy()
    slots, slots_by_hand = make_slots(optimizer, w), make_slots(optimizer, w)
    for step in range(1, 6):
        dw = np.array([1.0, -1.0, 0.25])
        optimizer.update(backend, w, dw, slots, step, l2=0.3)
        optimizer.update(backend, by_hand, dw + 0.3 * by_hand, slots_by_hand, step, l2=0.0)
    np.testing.assert_allclose(w, by_hand, rtol=1e-13)
    assert abs(w - [0.5, -2.0, 4.0]).min() > 0.01


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lr_scale_multiplies_the_learning_rate(backend, optimizer):
    ours, theirs = (np.array([0.5, -2.0, 4.0]) for _ in range(2))
    slots, their_slots = make_slots(optimizer, ours), make_slots(optimizer, theirs)
    twice = replace(optimizer, lr=2 * optimizer.lr)
    for step in range(1, 4):
        dw = np.array([1.0, -1.0, 0.25])
        optimizer.update(backend, ours, dw, slots, step, 0.1, lr_scale=2.0)
        twice.update(backend, theirs, dw, their_slots, step, 0.1)
    np.testing.assert_array_equal(ours, theirs)
    frozen = ours.copy()
    optimizer.update(backend, frozen, np.ones(3), slots, 4, 0.1, lr_scale=0.0)
    np.testing.assert_array_equal(frozen, ours)
