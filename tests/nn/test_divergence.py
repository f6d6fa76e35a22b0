"""A step that meets a number that is not finite stops, and says where it began: cause, not symptom."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.errors import Diverged
from cnnctl.nn import (
    BatchNorm,
    Conv,
    Dropout,
    Layer,
    Linear,
    MaxPool,
    Network,
    ReLU,
    Residual,
    Tanh,
)
from cnnctl.nn.plan import Plan
from cnnctl.optim import SGD, Adam, Lion, Optimizer

BATCH = 4
SHAPE = (2, 6, 6)
SPECIALS = (np.nan, np.inf, -np.inf)


def make_plan(
    layers: Sequence[Layer], backend: Backend, optimizer: Optimizer | None = None, **settings: Any
) -> Plan:
    network = Network(layers, SHAPE, seed=3)
    return Plan(network, BATCH, backend, optimizer=optimizer or SGD(lr=0.01), **settings)


def draw_batch(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((BATCH, *SHAPE)).astype("float32"), rng.integers(0, 4, BATCH)


def change(plan: Plan, key: str, value: float, at: int | slice = 0) -> None:
    """Some elements of a parameter or a statistic."""
    for export, load in (
        (plan.export_params, plan.load_params),
        (plan.export_statistics, plan.load_statistics),
    ):
        if key in (arrays := export()):
            arrays[key].flat[at] = value
            load(arrays)


def plant(plan: Plan, stage: int, method: str, act: Callable[[], None]) -> None:
    """Do something each time that a stage has run forward or backward."""
    planned = plan.stages[stage].stage
    original = getattr(planned, method)

    def run(*args: Any) -> None:
        original(*args)
        act()

    setattr(planned, method, run)


def plant_output(plan: Plan, stage: int, value: float) -> None:
    planned = plan.stages[stage].stage

    def act() -> None:
        y = planned.output.read(planned.buffers.y, BATCH)
        y.flat[0] = value
        planned.output.load(y, planned.buffers.y)

    plant(plan, stage, "forward", act)


def plant_gradient(plan: Plan, stage: int, key: str, value: float) -> None:
    planned = plan.stages[stage].stage

    def act() -> None:
        planned.parameters[key].view(planned.buffers.grads[key]).flat[-1] = value

    plant(plan, stage, "backward", act)


def make_layers() -> list[Layer]:
    """Three stages with parameters: conv1+batchnorm1+tanh1, conv2+relu1+maxpool1, linear1."""
    return [Conv(5, 3), BatchNorm(), Tanh(), Conv(3, 3), ReLU(), MaxPool(2), Linear(4)]


@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize(
    "key",
    ["conv1.weight", "batchnorm1.weight", "batchnorm1.bias", "conv2.weight", "conv2.bias", "linear1.bias"],
)
def test_a_weight_is_named(backend: Backend, rng: np.random.Generator, key: str, special: float) -> None:
    plan = make_plan(make_layers(), backend)
    plan.step(*draw_batch(rng))
    change(plan, key, special)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=rf"\b{key} is not finite"):
        plan.step(*draw_batch(rng))


@pytest.mark.parametrize("behind", [Tanh, ReLU])
def test_a_weight_that_an_activation_hides_is_named(
    backend: Backend, rng: np.random.Generator, behind: type[Layer]
) -> None:
    """relu(-inf) = 0 and tanh(-inf) = -1: the loss is finite, and so is the weight's own gradient."""
    plan = make_plan([Conv(3, 3), behind(), Conv(3, 3), behind(), Linear(4)], backend)
    x, labels = draw_batch(rng)
    change(plan, "conv2.bias", -np.inf)
    assert np.isfinite(plan.evaluate(x, labels).loss)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=r"^conv2\.bias is not finite in step 1$"):
        plan.step(x, labels)


@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("optimizer", [SGD(), Adam(), Lion()], ids=lambda optimizer: optimizer.kind)
@pytest.mark.parametrize("settings", [{}, {"clip_value": 0.1}, {"clip_norm": 0.1}, {"l1": 0.1}], ids=str)
def test_a_gradient_is_named(
    backend: Backend, rng: np.random.Generator, optimizer: Optimizer, special: float, settings: Any
) -> None:
    """Also where a step has one length, whatever the gradient, or the gradient is clipped."""
    plan = make_plan(make_layers(), backend, optimizer, **settings)
    plan.step(*draw_batch(rng))
    plant_gradient(plan, 1, "weight", special)
    with (
        np.errstate(all="ignore"),
        pytest.raises(Diverged, match=r"^the gradient of conv2\.weight is not finite in step 2$"),
    ):
        plan.step(*draw_batch(rng))


def test_of_several_gradients_the_one_nearest_the_loss_is_named(
    backend: Backend, rng: np.random.Generator
) -> None:
    """Its layer's backward pass has handed it on to those before."""
    plan = make_plan(make_layers(), backend)
    planned = plan.stages[1].stage

    def spoil() -> None:
        planned.buffers.dx[...] = np.nan
        planned.buffers.grads["bias"][...] = np.nan

    plant(plan, 1, "backward", spoil)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=r"^the gradient of conv2\.bias is not"):
        plan.step(*draw_batch(rng))


def test_one_batch_of_several_is_enough(backend: Backend, rng: np.random.Generator) -> None:
    plan = make_plan([Conv(3, 3), Dropout(0.5), Conv(3, 3), Tanh(), Linear(4)], backend, accumulate=3)
    batches = [draw_batch(rng) for _ in range(3)]
    marked = batches[1][0][0].copy()
    planned, first = plan.stages[0].stage, plan.stages[0].stage.input

    def spoil() -> None:
        if (first.read(planned.buffers.x, 1)[0] == marked).all():
            y = planned.output.read(planned.buffers.y, BATCH)
            y[0] = np.inf
            planned.output.load(y, planned.buffers.y)

    plant(plan, 0, "forward", spoil)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=r"the output of conv1 is not finite"):
        plan.step_over(batches)


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_output_is_named(backend: Backend, rng: np.random.Generator, stage: int, special: float) -> None:
    """All later ones are spoiled as well, and gradients with them."""
    plan = make_plan([Conv(5, 3), ReLU(), Conv(3, 3), ReLU(), MaxPool(2), Linear(4)], backend)
    plant_output(plan, stage, special)
    name = ["conv1+relu1", "conv2+relu2+maxpool1", "linear1"][stage]
    message = rf"^the loss of step 1 is (nan|inf): the output of {name} is not finite$".replace("+", r"\+")
    weights = plan.export_params()
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        plan.step(*draw_batch(rng))
    assert all(np.array_equal(weights[key], w) for key, w in plan.export_params().items())


def test_an_output_that_only_gradients_show_is_named(backend: Backend, rng: np.random.Generator) -> None:
    """tanh(inf) = 1, but infinity times a gradient of 0 is NaN: the symptom is conv2's gradient."""
    plan = make_plan([Conv(3, 3), ReLU(), Conv(3, 3), Tanh(), Linear(4)], backend)
    plant_output(plan, 0, np.inf)
    with (
        np.errstate(all="ignore"),
        pytest.raises(Diverged, match=r"the output of conv1\+relu1 is not"),
    ):
        plan.step(*draw_batch(rng))


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("conv1.weight", 2e38, "conv1"),
        ("batchnorm1.weight", 3e38, "batchnorm1"),
        ("residual1.conv1.weight", 3e38, "residual1.conv1"),
        ("linear1.weight", 3e38, "linear1"),
    ],
)
def test_of_fused_layers_the_first_is_named(
    backend: Backend, rng: np.random.Generator, key: str, value: float, name: str
) -> None:
    """Large but finite weights: the overflow is found where it happens."""
    layers = [Conv(5, 3), BatchNorm(), ReLU(), Residual([Conv(5, 3, padding=1)]), ReLU(), MaxPool(2)]
    plan = make_plan([*layers, Linear(3), ReLU(), Linear(4)], backend)
    x, labels = draw_batch(rng)
    change(plan, key, value, slice(None))
    message = rf"the output of {name} is not finite"
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        plan.step(9 * x, labels)


@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("key", ["batchnorm1.running_mean", "batchnorm1.running_var"])
def test_a_statistic_is_named(backend: Backend, rng: np.random.Generator, key: str, special: float) -> None:
    """Training does not use it: loss and gradients are finite."""
    plan = make_plan(make_layers(), backend)
    change(plan, key, special)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=rf"^{key} is not finite in step 1$"):
        plan.step(*draw_batch(rng))
    with np.errstate(all="ignore"):
        assert plan.find_nonfinite(draw_batch(rng)[0]) == key


def test_a_slot_that_overflows_is_named(backend: Backend, rng: np.random.Generator) -> None:
    """The square of a gradient is infinite before it is: its weight would never move again."""
    plan = make_plan(make_layers(), backend, Adam())
    plant_gradient(plan, 1, "weight", 1e30)
    with (
        np.errstate(all="ignore"),
        pytest.raises(Diverged, match=r"^v of conv2\.weight is not finite"),
    ):
        plan.step(*draw_batch(rng))


def test_a_weight_that_its_update_overflows_is_named(backend: Backend, rng: np.random.Generator) -> None:
    plan = make_plan(make_layers(), backend, SGD(lr=1e38))
    plant_gradient(plan, 1, "weight", 1e30)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=r"\.weight is not finite in step 1$"):
        plan.step(*draw_batch(rng))


def test_large_numbers_are_no_divergence(backend: Backend, rng: np.random.Generator) -> None:
    """Their squares overflow, and nobody needs them."""
    plan = make_plan(make_layers(), backend, SGD(lr=1e-30))
    change(plan, "batchnorm1.running_var", 3e38)
    change(plan, "conv1.bias", 1e20)
    plant_gradient(plan, 1, "weight", -3e38)
    with np.errstate(all="ignore"):
        assert np.isfinite(plan.step(*draw_batch(rng)).loss)


def test_a_penalty_that_overflows_is_told(backend: Backend) -> None:
    plan = make_plan([Linear(4)], backend, SGD(lr=1e-30), l2=1.0)
    change(plan, "linear1.weight", 1e20, slice(None))
    message = "the loss in step 1 is inf: its penalty on the weights overflows float32"
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        plan.step(np.zeros((BATCH, *SHAPE), np.float32), np.arange(BATCH))


def test_finite_scores_may_be_too_large_for_a_loss(rng: np.random.Generator) -> None:
    """Those of two classes are further apart than float32 reaches; `fast` sums them in float64."""
    plan = make_plan([Conv(3, 3), ReLU(), Linear(4)], create_backend("im2col"))
    change(plan, "linear1.bias", 3e38, slice(None))
    change(plan, "linear1.bias", -3e38, 1)
    message = "the loss of step 1 is inf: the output of linear1 is finite, but too large for it"
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=message):
        plan.step(draw_batch(rng)[0], np.full(BATCH, 1))


def test_the_input_is_named(backend: Backend, rng: np.random.Generator) -> None:
    plan = make_plan(make_layers(), backend)
    x, labels = draw_batch(rng)
    x[1, 0, 2, 2] = np.nan
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="is nan: the input is not finite"):
        plan.step(x, labels)


def test_looking_for_it_changes_nothing(backend: Backend, rng: np.random.Generator) -> None:
    """Neither statistics nor weights, and a plan without gradients can be asked too."""
    x, labels = draw_batch(rng)
    plan = make_plan(make_layers(), backend)
    statistics, weights = plan.export_statistics(), plan.export_params()
    assert plan.find_nonfinite(x) is None
    for before, after in ((statistics, plan.export_statistics()), (weights, plan.export_params())):
        assert all(np.array_equal(before[key], after[key]) for key in before)
    bare = Plan(Network(make_layers(), SHAPE), BATCH, backend)
    change(bare, "conv2.bias", np.nan)
    with np.errstate(all="ignore"):
        assert bare.find_nonfinite(x) == "conv2.bias"
        assert np.isnan(bare.evaluate(x, labels).loss)
