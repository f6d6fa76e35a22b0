"""Schedules against figures worked out by hand, and PyTorch's: as recorded, and itself where installed."""

import math
from itertools import pairwise

import numpy as np
import pytest

from cnnctl.errors import ConfigError
from cnnctl.optim import (
    AdaGrad,
    Constant,
    Cosine,
    Exponential,
    Inverse,
    MultiStep,
    OneCycle,
    PlateauState,
    Polynomial,
    ReduceOnPlateau,
    Span,
    Step,
    scale_step,
)

STEPS = 100
SHOWN = (0, 1, 9, 29, 30, 55, 99)
# PyTorch 2.13, at these steps of 100.
FIGURES = {
    "step": [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.125],
    "multistep": [1.0, 1.0, 1.0, 0.3, 0.3, 0.027, 0.027],
    "exponential": [
        1.0,
        0.97,
        0.7602310586545651,
        0.4134093490135645,
        0.4010070685431576,
        0.1872601576378607,
        0.049023204046809966,
    ],
    "polynomial": [
        1.0,
        0.9801,
        0.8281000000000003,
        0.5041000000000005,
        0.49000000000000055,
        0.20250000000000012,
        0.00010000000000000036,
    ],
    "cosine": [
        1.0,
        0.9997779521645792,
        0.9821321585546244,
        0.8258081741438394,
        0.814503363531613,
        0.47960449073189637,
        0.10022204783542078,
    ],
    "onecycle": [
        0.040000000000000036,
        0.042813780565907456,
        0.25063020862605645,
        1.0,
        0.9994965352845243,
        0.6965137297768985,
        4e-06,
    ],
    "onecycle-other": [
        0.09999999999999998,
        0.1007613287779292,
        0.16028856829700255,
        0.6022418113563535,
        0.6281416799501185,
        0.9987832431047823,
        0.001,
    ],
    "warmup-cosine": [
        0.1,
        0.2,
        1.0,
        0.894005376803361,
        0.883022221559489,
        0.49999999999999994,
        0.0003045864904521187,
    ],
    "warmup-multistep": [0.1, 0.2, 1.0, 1.0, 0.3, 0.09, 0.09],
}
SCHEDULES = {
    "step": (Step(3, 0.5), Span(STEPS, 10)),
    "multistep": (MultiStep((2, 5, 5.5), 0.3), Span(STEPS, 10)),
    "exponential": (Exponential(0.97), Span(STEPS, 1)),
    "polynomial": (Polynomial(2), Span(STEPS, 10)),
    "cosine": (Cosine(0.1), Span(STEPS, 10)),
    "onecycle": (OneCycle(), Span(STEPS, 10)),
    "onecycle-other": (OneCycle(0.55, 10, 100), Span(STEPS, 10)),
    "warmup-cosine": (Cosine(), Span(STEPS, 10, warmup=10)),
    "warmup-multistep": (MultiStep((3, 5), 0.3), Span(STEPS, 10, warmup=10)),
}
LOSSES = [2.0, 1.5, 1.4, 1.4, 1.39999, 1.6, 1.5, 1.45, 1.3, 1.31, 1.2999, 1.4, 1.5, 1.6, 1.0, 1.1, 1.2, 1.3]
LOSSES += [1.2, math.nan, 1.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


def compute_scales(name):
    schedule, span = SCHEDULES[name]
    return [scale_step(schedule, step, span) for step in range(STEPS)]


def follow_plateau(schedule):
    state, scales = PlateauState(), []
    for loss in LOSSES:
        state = schedule.observe(state, loss)
        scales.append(state.scale)
    return scales


@pytest.mark.parametrize("name", SCHEDULES)
def test_is_where_pytorch_was_recorded_to_be(name):
    scales = compute_scales(name)
    np.testing.assert_allclose([scales[step] for step in SHOWN], FIGURES[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_goes_beside_pytorch(name):
    torch = pytest.importorskip("torch")
    from torch.optim import lr_scheduler as theirs

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)

    def warm_up(next_one):
        linear = theirs.LinearLR(optimizer, 0.1, 1.0, 9)
        return theirs.SequentialLR(optimizer, [linear, next_one], [10])

    make = {
        "step": lambda: theirs.StepLR(optimizer, 30, 0.5),
        "multistep": lambda: theirs.MultiStepLR(optimizer, [20, 50, 55], 0.3),
        "exponential": lambda: theirs.ExponentialLR(optimizer, 0.97),
        "polynomial": lambda: theirs.PolynomialLR(optimizer, STEPS, 2),
        "cosine": lambda: theirs.CosineAnnealingLR(optimizer, STEPS, 0.1),
        "onecycle": lambda: theirs.OneCycleLR(optimizer, 1.0, STEPS, cycle_momentum=False),
        "onecycle-other": lambda: theirs.OneCycleLR(
            optimizer, 1.0, STEPS, pct_start=0.55, cycle_momentum=False, div_factor=10, final_div_factor=100
        ),
        "warmup-cosine": lambda: warm_up(theirs.CosineAnnealingLR(optimizer, STEPS - 10)),
        "warmup-multistep": lambda: theirs.ChainedScheduler(
            [theirs.LinearLR(optimizer, 0.1, 1.0, 9), theirs.MultiStepLR(optimizer, [30, 50], 0.3)]
        ),
    }
    scheduler, expected = make[name](), []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < STEPS:
            scheduler.step()
    np.testing.assert_allclose(compute_scales(name), expected, rtol=1e-9, atol=1e-12)


PLATEAUS = {
    "plain": (ReduceOnPlateau(0.5, 2), {"factor": 0.5, "patience": 2}),
    "cooldown": (ReduceOnPlateau(0.5, 1, cooldown=2), {"factor": 0.5, "patience": 1, "cooldown": 2}),
    "threshold": (
        ReduceOnPlateau(0.7, 0, 0.1, 1),
        {"factor": 0.7, "patience": 0, "threshold": 0.1, "cooldown": 1},
    ),
    "floor": (ReduceOnPlateau(0.3, 0, min_scale=0.2), {"factor": 0.3, "patience": 0, "min_lr": 0.2}),
}


PLATEAU_FIGURES = {
    "plain": {5: 0.5, 11: 0.25, 17: 0.125, 20: 0.0625, 24: 0.03125, 27: 0.015625},
    "cooldown": {4: 0.5, 10: 0.25, 16: 0.125, 20: 0.0625, 24: 0.03125},
    "threshold": {
        2: 0.7,
        4: 0.48999999999999994,
        6: 0.3429999999999999,
        9: 0.24009999999999992,
        11: 0.16806999999999994,
        13: 0.11764899999999995,
        15: 0.08235429999999996,
        17: 0.05764800999999997,
        19: 0.04035360699999998,
        21: 0.028247524899999984,
        23: 0.019773267429999988,
        25: 0.01384128720099999,
        27: 0.009688901040699992,
    },
    "floor": {3: 0.3, 4: 0.2},
}
"""After which epoch PyTorch 2.13 reduces, and to what."""


@pytest.mark.parametrize("name", PLATEAUS)
def test_plateaus_are_where_pytorch_was_recorded_to_see_them(name):
    scales = follow_plateau(PLATEAUS[name][0])
    changes = {epoch: now for epoch, (before, now) in enumerate(pairwise(scales), 1) if now != before}
    assert changes == pytest.approx(PLATEAU_FIGURES[name], rel=1e-12)


@pytest.mark.parametrize("name", PLATEAUS)
def test_plateaus_are_seen_beside_pytorch(name):
    torch = pytest.importorskip("torch")
    ours, settings = PLATEAUS[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    expected = []
    for loss in LOSSES:
        scheduler.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(follow_plateau(ours), expected, rtol=1e-6)


def test_an_infinite_loss_is_never_the_best():
    schedule = ReduceOnPlateau(0.5, 0)
    state = schedule.observe(PlateauState(), math.inf)
    assert state == PlateauState(scale=0.5)
    assert schedule.observe(state, 1e300).best == 1e300


@pytest.mark.parametrize("gamma", [0.01, 0.5])
def test_inverse_is_the_decay_of_pytorchs_adagrad(gamma):
    """The learning rate of step t is lr / (1 + t lr_decay)."""
    torch = pytest.importorskip("torch")
    from cnnctl.backends import create_backend

    backend, optimizer, span = create_backend("im2col"), AdaGrad(0.1), Span(STEPS, 10)
    w, slots = np.ones(3), {"square": np.zeros(3)}
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    theirs = torch.optim.Adagrad([parameter], 0.1, lr_decay=gamma)
    for step in range(STEPS):
        dw = np.sin(np.arange(1, 4) * (step + 1))
        optimizer.update(backend, w, dw, slots, step + 1, 0.0, scale_step(Inverse(gamma), step, span))
        parameter.grad = torch.from_numpy(dw)
        theirs.step()
    np.testing.assert_allclose(w, parameter.detach().numpy(), rtol=0, atol=1e-12)


def test_inverse_by_hand():
    assert Inverse(0.1, 2).scale(0, Span(STEPS, 10)) == 1
    assert Inverse(0.1, 2).scale(10, Span(STEPS, 10)) == pytest.approx(0.25, rel=1e-15)
    assert Inverse(0.1, 2).scale(15, Span(STEPS, 10, warmup=5)) == pytest.approx(0.25, rel=1e-15)


def test_exponential_falls_between_epochs():
    scales = [Exponential(0.5).scale(step, Span(12, 4)) for step in range(12)]
    assert scales == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_fractions_of_epochs_are_whole_steps():
    span = Span(20, 10)
    assert [Step(0.34, 0.5).scale(step, span) for step in (0, 2, 3, 5, 6)] == [1, 1, 0.5, 0.5, 0.25]
    assert [MultiStep((0.25, 1.96)).scale(step, span) for step in (1, 2, 19)] == [1, 0.1, 0.1]


def test_warm_up_rises_to_what_the_schedule_has_then():
    span = Span(20, 2, warmup=4)
    scales = [scale_step(Exponential(0.5), step, span) for step in range(6)]
    assert scales == [0.0625, 0.125, 0.1875, 0.25, 0.25, 0.25]


ALL = [schedule for schedule, _ in SCHEDULES.values()] + [Constant(), Inverse(0.1), ReduceOnPlateau()]


@pytest.mark.parametrize("schedule", ALL, ids=lambda schedule: schedule.kind)
@pytest.mark.parametrize("warmup", [0, 1, 3, 50])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_factors_too(schedule, warmup, steps):
    for step in range(steps):
        assert 0 <= scale_step(schedule, step, Span(steps, 1, warmup)) <= 1


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Step, {"epochs": 0}, r"epochs: 0 is not a number in \(0, inf\)"),
        (Step, {"epochs": 1, "gamma": 0}, "gamma: 0 is not"),
        (MultiStep, {"epochs": (1, -1)}, "epochs: -1 is not"),
        (MultiStep, {"epochs": (2, 1)}, r"epochs: \[2, 1\] are not in ascending order"),
        (MultiStep, {"epochs": (1,), "gamma": -1}, "gamma: -1 is not"),
        (Exponential, {"gamma": math.inf}, "gamma: inf is not"),
        (Inverse, {"gamma": 0}, "gamma: 0 is not"),
        (Inverse, {"gamma": 1, "power": 0}, "power: 0 is not"),
        (Polynomial, {"power": 0}, "power: 0 is not"),
        (Cosine, {"min_scale": 1}, r"min_scale: 1 is not a number in \[0, 1\)"),
        (OneCycle, {"rise": 0}, r"rise: 0 is not a number in \(0, 1\)"),
        (OneCycle, {"start_divisor": 0}, "start_divisor: 0 is not"),
        (OneCycle, {"end_divisor": 0}, "end_divisor: 0 is not"),
        (ReduceOnPlateau, {"factor": 1}, "factor: 1 is not"),
        (ReduceOnPlateau, {"patience": -1}, "patience: -1 is not"),
        (ReduceOnPlateau, {"threshold": 1}, "threshold: 1 is not"),
        (ReduceOnPlateau, {"cooldown": -1}, "cooldown: -1 is not"),
        (ReduceOnPlateau, {"min_scale": 1}, "min_scale: 1 is not"),
    ],
)
def test_wrong_settings_are_named(kind, arguments, message):
    with pytest.raises(ConfigError, match=message):
        kind(**arguments)
