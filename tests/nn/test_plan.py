"""A plan gives the numbers of its network run layer by layer, in memory that never grows."""

import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.base import Backend
from cnnctl.backends.fast import INSTRUCTION_SETS, FastBackend
from cnnctl.backends.specs import ActivationSpec, Array, ConvSpec, FlattenSpec, LinearSpec, PoolSpec
from cnnctl.data import Changes, RawBatch
from cnnctl.errors import ConfigError, DtypeError, ShapeError
from cnnctl.nn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Hinge,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Loss,
    MaxPool,
    Network,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    SoftmaxCrossEntropy,
    SquaredError,
    Subsampling,
    Tanh,
)
from cnnctl.nn.fusion import fuse_layers
from cnnctl.nn.plan import Plan
from cnnctl.optim import SGD, Adam, AdamW, Optimizer, ParameterGroup, Penalty

BATCH = 5
L2 = 0.01

NETWORKS: dict[str, tuple[tuple[int, ...], Callable[[], Sequence[Layer]]]] = {
    "courses": ((1, 9, 9), lambda: [Conv(6, 3), ReLU(), MaxPool(2), Linear(20), ReLU(), Linear(4)]),
    "no ReLU before the pool": ((3, 8, 8), lambda: [Conv(17, 3, padding="same"), MaxPool(3, 2), Linear(4)]),
    "two convolutions": (
        (2, 8, 7),
        lambda: [Conv(16, 3), ReLU(), Conv(5, (2, 3), stride=2, padding=1), ReLU(), Linear(4)],
    ),
    "groups and dilation": (
        (4, 9, 9),
        lambda: [Conv(6, 3, groups=2), Conv(6, 3, dilation=2, groups=6, bias=False), ReLU(), Linear(4)],
    ),
    "pool first, then every single stage": (
        (3, 9, 8),
        lambda: [MaxPool(2), ReLU(), MaxPool(3, 1, 1), Conv(4, (4, 4)), Flatten()],
    ),
    "flatten between": ((2, 4, 3), lambda: [Flatten(), ReLU(), Linear(7, bias=False), Linear(4), ReLU()]),
    "vectors": ((33,), lambda: [Linear(17), ReLU(), Linear(4)]),
    "norms": (
        (3, 8, 8),
        lambda: [
            *(Conv(6, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool(2)),
            *(Conv(5, 3, bias=False), BatchNorm(momentum=0.3), ReLU(), BatchNorm(), Tanh(), AvgPool(2)),
            *(Linear(6, bias=False), BatchNorm(), Tanh(), Linear(4)),
        ],
    ),
    "norms of single images": (
        (3, 8, 8),
        lambda: [
            *(GroupNorm(3), Conv(6, 3, padding=1), GroupNorm(2), ReLU(), MaxPool(2), Conv(5, 3, bias=False)),
            *(InstanceNorm(), Tanh(), LayerNorm(), Linear(6), LayerNorm(), Tanh(), Linear(4)),
        ],
    ),
    "LeNet's subsampling and spatial dropout": (
        (1, 12, 12),
        lambda: [
            *(Subsampling(2), Conv(6, 3), Subsampling(2), Sigmoid(), Dropout(0.4, spatial=True)),
            *(Residual([Conv(6, 1), Subsampling(1)]), Sigmoid(), Subsampling(2, 1, 1), Linear(4)),
        ],
    ),
    "activations": (
        (2, 8, 8),
        lambda: [
            *(Conv(5, 3), Tanh(), AvgPool(2), Conv(6, 2), GELU(), MaxPool(2), Sigmoid()),
            *(Linear(7), GELU(), Linear(6), Sigmoid(), Linear(4)),
        ],
    ),
    "activations with a parameter, and silu": (
        (2, 9, 9),
        lambda: [
            *(Conv(5, 3), LeakyReLU(0.2), AvgPool(2), Conv(6, 2, bias=False), BatchNorm(), SiLU()),
            *(ELU(0.5), Residual([Conv(6, 3, padding=1)]), LeakyReLU(0.3), MaxPool(2, 1), LeakyReLU()),
            *(Linear(7), SiLU(), Linear(6), ELU(2.0), Linear(4), LeakyReLU(0.1)),
        ],
    ),
    "residual": (
        (3, 6, 6),
        lambda: [
            *(Conv(6, 3, padding=1, bias=False), BatchNorm(), ReLU()),
            Residual([Conv(6, 3, padding=1), ReLU(), Conv(6, 3, padding=1, bias=False), BatchNorm()]),
            ReLU(),
            Residual(
                [Conv(7, 3, 2, 1), ReLU(), Conv(7, 3, padding=1)], [Conv(7, 1, 2, bias=False), BatchNorm()]
            ),
            *(Residual([Residual([Conv(7, 1), Tanh()]), ReLU()]), GlobalAvgPool(), Linear(4)),
        ],
    ),
    "residual of the input": ((16, 4, 4), lambda: [Residual([Conv(16, 3, padding=1)]), ReLU(), Linear(4)]),
    "everything else": (
        (3, 7, 7),
        lambda: [
            *(Conv(6, 3), ReLU(), LocalResponseNorm(3), MaxPool(3, 2), AvgPool(2), Dropout(0.3)),
            *(Linear(8), ReLU(), Dropout(0.5), Linear(4)),
        ],
    ),
    "flatten of many pixels": ((3, 2, 2), lambda: [Conv(2, 1), Flatten()]),
}


@pytest.fixture(params=NETWORKS)
def make_network(request: pytest.FixtureRequest) -> Callable[[str], Network]:
    shape, layers = NETWORKS[request.param]
    return lambda dtype: Network(layers(), shape, dtype=dtype, seed=7)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def draw_batch(network: Network, rng: np.random.Generator, n: int = BATCH) -> tuple[Array, Array]:
    x = rng.standard_normal((n, *network.input_shape)).astype(network.dtype)
    return x, rng.integers(0, network.output_shape[0], n)


def assert_close(actual: Array, expected: Array, dtype: str) -> None:
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


LOSSES = [SoftmaxCrossEntropy(0.1, [1, 2, 0.5, 1]), Hinge(), SquaredError()]


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: str(loss.kind))
@pytest.mark.parametrize("n", [1, 2, BATCH])
def test_blended_images_have_blended_losses(
    backend: Backend, loss: Loss, share: float, n: int, rng: np.random.Generator
) -> None:
    """Both images and losses, in the same shares; the answer of the larger one is the right one."""

    def make() -> Network:
        return Network([Conv(6, 3), Tanh(), Linear(4)], (2, 5, 5), loss=loss, dtype="float64", seed=3)

    network, optimizer = make(), SGD(lr=1.0)
    plan = Plan(make(), BATCH, backend, optimizer=optimizer)
    x, labels = draw_batch(network, rng, n)
    pixels = x.astype("float32")
    raw = RawBatch(pixels, np.arange(n), Changes(), np.ones(2), np.zeros((2, 5, 5)), labels, share)
    result = plan.step(raw, labels)
    mixed = share * pixels.astype("float64") + (1 - share) * np.roll(pixels, -1, axis=0).astype("float64")
    reference, losses, gradients = create_backend("naive"), [], []
    for own in (labels, np.roll(labels, -1)):
        loss_, grads = network.loss_and_grads(mixed, own, reference)
        losses.append(loss_)
        gradients.append({key: g.copy() for key, g in grads.items()})
    assert result.loss == pytest.approx(share * losses[0] + (1 - share) * losses[1], rel=1e-12)
    for key, w in plan.export_params().items():
        expected = network.params[key] - share * gradients[0][key] - (1 - share) * gradients[1][key]
        np.testing.assert_allclose(w, expected, rtol=1e-10, atol=1e-12)
    answers = network.forward(mixed, reference).argmax(axis=1)
    assert result.correct == (answers == (labels if share > 0.5 else np.roll(labels, -1))).sum()


# An eps that keeps Adam from blowing rounding errors of vanishing gradients up to whole steps.
@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.9, nesterov=True), Adam(lr=0.01, eps=1e-3)])
def test_steps_equal_layer_by_layer_training(
    make_network: Callable[[str], Network],
    backend: Backend,
    dtype: str,
    optimizer: Optimizer,
    rng: np.random.Generator,
) -> None:
    network, planned = make_network(dtype), make_network(dtype)
    plan = Plan(planned, BATCH, backend, optimizer=optimizer, l2=L2)
    slots = {key: {slot: np.zeros_like(w) for slot in optimizer.slots} for key, w in network.params.items()}
    for step in range(1, 4):
        x, labels = draw_batch(network, rng)
        loss, grads = network.loss_and_grads(x, labels, create_backend("naive"), l2=L2)
        for key, w in network.params.items():
            optimizer.update(create_backend("naive"), w, grads[key], slots[key], step, 0.0)
        assert plan.step(x, labels).loss == pytest.approx(loss, rel=1e-5 if dtype == "float32" else 1e-12)
    assert plan.step_count == 3
    for key, w in plan.export_params().items():
        assert_close(w, network.params[key], dtype)
    assert plan.export_statistics().keys() == network.statistics.keys()
    for key, statistic in plan.export_statistics().items():
        assert_close(statistic, network.statistics[key], dtype)
    for key, slot in plan.export_slots().items():
        name, parameter = key.split("/")
        assert_close(slot, slots[parameter][name], dtype)


def test_evaluate_and_predict_equal_the_network(
    make_network: Callable[[str], Network], backend: Backend, dtype: str, rng: np.random.Generator
) -> None:
    network = make_network(dtype)
    for plan in (Plan(network, BATCH, backend), Plan(network, BATCH, backend, optimizer=Adam())):
        for n in (BATCH, 2, 1):
            x, labels = draw_batch(network, rng, n)
            scores = network.forward(x, create_backend("naive"))
            assert_close(plan.predict(x), scores, dtype)
            result = plan.evaluate(x, labels)
            assert result.correct == (scores.argmax(axis=1) == labels).sum()
            expected = network.loss.forward(scores, labels, create_backend("naive"))
            assert result.loss == pytest.approx(expected, rel=1e-5)
            both, found = plan.examine(x, labels)
            assert both == result
            assert_close(found, scores, dtype)


def test_a_smaller_batch_leaves_no_trace_of_a_larger_one(backend: Backend, rng: np.random.Generator) -> None:
    def train(batches: Sequence[tuple[Array, Array]], batch_size: int) -> dict[str, Array]:
        network = Network([Conv(3, 3, padding=1), ReLU(), MaxPool(2), Linear(4)], (2, 6, 6), seed=1)
        plan = Plan(network, batch_size, backend, optimizer=SGD(lr=0.1))
        plan.evaluate(*large)
        for x, labels in batches:
            plan.step(x, labels)
        return plan.export_params()

    network = Network([Linear(4)], (2, 6, 6))
    large, small = draw_batch(network, rng), draw_batch(network, rng, 2)
    wide, tight = train([small], BATCH), train([small], BATCH + 3)
    for key, w in wide.items():
        np.testing.assert_array_equal(w, tight[key])


def test_gradients_in_float64_match_differences(backend: Backend, rng: np.random.Generator) -> None:
    """Through SGD with lr 1: the change of the weights is the gradient."""
    layers = [Conv(3, 3, padding=1), ReLU(), MaxPool(2), Linear(3)]
    network = Network(layers, (2, 4, 4), dtype="float64", seed=3)
    x, labels = draw_batch(network, rng)
    plan = Plan(network, BATCH, backend, optimizer=SGD(lr=1.0), l2=L2)
    before = plan.export_params()
    plan.step(x, labels)
    after = plan.export_params()
    reference = create_backend("im2col")
    for key, w in network.params.items():
        for _ in range(5):
            at = tuple(int(rng.integers(extent)) for extent in w.shape)
            start, losses = w[at], []
            for side in (1e-5, -1e-5):
                w[at] = start + side
                scores = network.forward(x, reference)
                losses.append(network.loss.forward(scores, labels, reference) + network.penalty(l2=L2))
            w[at] = start
            slope = (losses[0] - losses[1]) / 2e-5
            assert before[key][at] - after[key][at] == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_parameters_and_slots_survive_a_round_trip(
    make_network: Callable[[str], Network], backend: Backend, rng: np.random.Generator
) -> None:
    first = Plan(make_network("float32"), BATCH, backend, optimizer=Adam(), l2=L2)
    second = Plan(make_network("float32"), BATCH, backend, optimizer=Adam(), l2=L2)
    batches = [draw_batch(first.network, rng) for _ in range(4)]
    for batch in batches[:2]:
        first.step(*batch)
    second.load_params(first.export_params())
    second.load_slots(first.export_slots())
    second.step_count = first.step_count
    for batch in batches[2:]:
        assert first.step(*batch) == second.step(*batch)
    for key, w in first.export_params().items():
        np.testing.assert_array_equal(w, second.export_params()[key])


def test_exported_keys_are_the_networks(make_network: Callable[[str], Network], backend: Backend) -> None:
    network = make_network("float32")
    plan = Plan(network, BATCH, backend)
    exported = plan.export_params()
    assert list(exported) == list(network.params)
    for key, w in network.params.items():
        np.testing.assert_array_equal(exported[key], w)


def test_a_step_allocates_no_large_array(rng: np.random.Generator) -> None:
    network = Network([Conv(16, 3), ReLU(), MaxPool(2), Linear(50), ReLU(), Linear(4)], (3, 16, 16))
    plan = Plan(
        network,
        64,
        create_backend("fast", threads=2),
        optimizer=Adam(),
        l2=L2,
        groups=[ParameterGroup("*.bias", 2)],
        accumulate=2,
        clip_value=0.1,
        clip_norm=0.1,
    )
    batch = draw_batch(network, rng, 64)
    plan.step_over([batch, batch])
    tracemalloc.start()
    for _ in range(3):
        plan.step_over([batch, batch])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16_000


def test_memory_is_shared_where_lifetimes_allow() -> None:
    network = Network(
        [Conv(16, 3, padding=1), ReLU()] * 1 + [Conv(16, 3, padding=1) for _ in range(6)], (16, 8, 8)
    )
    backend = create_backend("im2col")
    inference = Plan(network, 32, backend).memory_bytes
    training = Plan(network, 32, backend, optimizer=SGD()).memory_bytes
    activation = 32 * 16 * 8 * 8 * 4
    assert inference < 3 * activation
    assert training < 12 * activation


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_change_nothing(threads: int, rng: np.random.Generator) -> None:
    layers = lambda: [Conv(6, 3), ReLU(), MaxPool(2), Conv(20, 3), Linear(50), ReLU(), Linear(4)]  # noqa: E731
    batches = [draw_batch(Network(layers(), (3, 12, 12)), rng, 33) for _ in range(3)]
    exported = []
    for count in (1, threads):
        plan = Plan(
            Network(layers(), (3, 12, 12)), 33, create_backend("fast", count), optimizer=Adam(), l2=L2
        )
        losses = [plan.step(*batch).loss for batch in batches]
        exported.append((losses, plan.export_params(), plan.export_slots()))
    assert exported[0][0] == exported[1][0]
    for one, many in zip(exported[0][1:], exported[1][1:], strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(value, many[key])


def test_fusion() -> None:
    layers = (
        *(Conv(4, 3), ReLU(), MaxPool(2)),
        *(Conv(4, 3), ReLU()),
        *(Conv(4, 1), MaxPool(2), ReLU()),
        *(Flatten(), Linear(3), ReLU()),
        *(Flatten(), ReLU()),
    )
    kinds = [type(node.spec) for node in fuse_layers(layers)]
    assert kinds == [ConvSpec, ConvSpec, ConvSpec, ActivationSpec, LinearSpec, FlattenSpec, ActivationSpec]
    assert [type(node.spec) for node in fuse_layers((MaxPool(2),))] == [PoolSpec]


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_padding_stays_zero(isa: str, rng: np.random.Generator) -> None:
    """What old memory holds must not get into the channels that fill a cache line."""
    layers = [Conv(5, 3, padding=1), ReLU(), Conv(3, 3, padding=1), MaxPool(2), Linear(7), ReLU(), Linear(4)]
    network = Network(layers, (6, 6, 6), seed=2)
    plan = Plan(network, BATCH, FastBackend(threads=1, isa=isa), optimizer=Adam())
    for _ in range(2):
        for stage in plan._stages:
            for buffer in (stage.buffers.y, stage.buffers.dx):
                if buffer is not None:
                    buffer.fill(np.nan)
        plan.step(*draw_batch(network, rng))
    for flat in (plan._weights, plan._gradients, *plan._slots.values()):
        used = sum(abs(p.layout.view(p.inner(flat))).sum(dtype=np.float64) for p in plan._places.values())
        assert abs(flat).sum(dtype=np.float64) == pytest.approx(used, rel=1e-6)


def test_an_infinite_pixel_reaches_its_own_outputs_only(backend: Backend) -> None:
    network = Network([Conv(5, 1), ReLU(), Linear(3)], (1, 2, 2))
    for key, w in network.params.items():
        w.fill(-1 if key == "conv1.weight" else 0)
    x = np.ones((1, 1, 2, 2), np.float32)
    x[0, 0, 1, 1] = np.inf
    np.testing.assert_array_equal(Plan(network, 1, backend).predict(x), np.zeros((1, 3)))


def test_a_batch_of_no_images(make_network: Callable[[str], Network], backend: Backend) -> None:
    network = make_network("float32")
    plan = Plan(network, BATCH, backend, optimizer=SGD())
    x, labels = np.empty((0, *network.input_shape), np.float32), np.empty(0, np.int64)
    assert plan.predict(x).shape == (0, *network.output_shape)
    assert plan.step(x, labels) == plan.evaluate(x, labels) == (0.0, 0)
    for key, w in plan.export_params().items():
        np.testing.assert_array_equal(w, network.params[key])


def test_loading_checks_everything_first(backend: Backend) -> None:
    network = Network([Linear(4)], (2, 3, 3))
    plan = Plan(network, BATCH, backend, optimizer=Adam())
    slots = {key: value + 7 for key, value in plan.export_slots().items()}
    with pytest.raises(ConfigError, match=r"v/linear1\.bias: missing; needed: .*v/linear1\.weight"):
        plan.load_slots({key: value for key, value in slots.items() if key != "v/linear1.bias"})
    with pytest.raises(DtypeError, match=r"m/linear1\.weight: dtype float64 where float32 is needed"):
        plan.load_slots({key: value.astype(np.float64) for key, value in slots.items()})
    with pytest.raises(ConfigError, match=r"m/linear2\.bias: not known; did you mean m/linear1\.bias\?"):
        plan.load_slots(slots | {"m/linear2.bias": slots["m/linear1.bias"]})
    assert not any(value.any() for value in plan.export_slots().values())


def test_errors(backend: Backend, rng: np.random.Generator) -> None:
    network = Network([Linear(4)], (2, 3, 3))
    plan = Plan(network, BATCH, backend, optimizer=SGD())
    x, labels = draw_batch(network, rng)
    with pytest.raises(ShapeError, match=r"x: shape \(5, 2, 3, 4\) is not \(up to 5, 2, 3, 3\)"):
        plan.step(np.zeros((5, 2, 3, 4), np.float32), labels)
    with pytest.raises(ShapeError, match="up to 5"):
        plan.predict(np.zeros((6, 2, 3, 3), np.float32))
    with pytest.raises(DtypeError, match="float64"):
        plan.step(x.astype(np.float64), labels)
    with pytest.raises(ShapeError, match=r"labels: values 0\.\.4 do not fit the 4 classes"):
        plan.step(x, np.array([0, 1, 2, 3, 4]))
    with pytest.raises(ShapeError, match="labels: values -1"):
        plan.step(x, np.array([0, 1, 2, 3, -1]))
    with pytest.raises(DtypeError, match="labels: float64 is not an integer type"):
        plan.step(x, labels + 0.5)
    with pytest.raises(ShapeError, match="labels: values 18446744073709551615"):
        plan.step(x, np.full(BATCH, 2**64 - 1, np.uint64))
    with pytest.raises(ShapeError, match="labels: shape"):
        plan.step(x, labels[:2])
    with pytest.raises(ConfigError, match="without one"):
        Plan(network, BATCH, backend).step(x, labels)
    with pytest.raises(ConfigError, match=r"linear1\.bias: missing; needed: "):
        plan.load_params({"linear1.weight": network.params["linear1.weight"]})
    with pytest.raises(ShapeError, match=r"batch_size: 0 is below 1"):
        Plan(network, 0, backend)


def read_gradients(plan: Plan) -> dict[str, Array]:
    """What the last step of a plan of SGD without momentum, but with clipping, has taken."""
    return {name.removeprefix("velocity/"): g for name, g in plan.export_slots().items()}


@pytest.mark.parametrize("clip_value", [None, 0.01])
@pytest.mark.parametrize("clip_norm", [None, 0.02, 1e6])
def test_gradients_are_clipped_by_value_and_then_by_norm(
    make_network: Callable[[str], Network],
    backend: Backend,
    clip_value: float | None,
    clip_norm: float | None,
    rng: np.random.Generator,
) -> None:
    plans = [
        Plan(make_network("float64"), BATCH, backend, optimizer=SGD(), **settings)
        for settings in ({}, {"clip_value": clip_value, "clip_norm": clip_norm})
    ]
    batch = draw_batch(make_network("float64"), rng)
    for plan in plans:
        plan.step(*batch)
    gradients, clipped = map(read_gradients, plans)
    if clip_value:
        gradients = {key: np.clip(g, -clip_value, clip_value) for key, g in gradients.items()}
    norm = np.sqrt(sum(float(np.square(g).sum()) for g in gradients.values()))
    scale = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
    assert (scale < 1) == (clip_norm == 0.02)
    for key, g in gradients.items():
        np.testing.assert_allclose(clipped[key], scale * g, rtol=1e-10, atol=1e-15)


def test_the_penalty_is_not_clipped(backend: Backend, rng: np.random.Generator) -> None:
    network = Network([Linear(4)], (3,), dtype="float64")
    plan = Plan(network, BATCH, backend, optimizer=SGD(), l2=1e6, clip_norm=1e-3)
    w = network.params["linear1.weight"].copy()
    plan.step(*draw_batch(network, rng))
    np.testing.assert_allclose(read_gradients(plan)["linear1.weight"], 1e6 * w, atol=1e-2)


@pytest.mark.parametrize("sizes", [[5, 5], [5, 5, 2], [3], [1, 5, 4, 5]])
def test_batches_one_after_the_other_equal_one_large_batch(
    backend: Backend, sizes: list[int], rng: np.random.Generator
) -> None:
    layers = [(Conv(6, 3), ReLU(), MaxPool(2), Linear(9), Tanh(), Linear(4)) for _ in range(2)]
    small, large = (Network(own, (2, 7, 7), dtype="float64", seed=3) for own in layers)
    optimizer = SGD(0.5, 0.9)
    parts = Plan(small, BATCH, backend, optimizer=optimizer, l2=L2, accumulate=4, clip_norm=0.5)
    whole = Plan(large, sum(sizes), backend, optimizer=optimizer, l2=L2, clip_norm=0.5)
    for _ in range(3):
        x, labels = draw_batch(large, rng, sum(sizes))
        starts = np.cumsum([0, *sizes])
        batches = [(x[a:b], labels[a:b]) for a, b in pairwise(starts)]
        ours, theirs = parts.step_over(batches), whole.step(x, labels)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
        assert ours.correct == theirs.correct
    assert parts.step_count == 3
    for key, w in whole.export_params().items():
        np.testing.assert_allclose(parts.export_params()[key], w, rtol=1e-11, atol=1e-13)


def test_dropout_differs_among_the_batches_of_a_step(backend: Backend, rng: np.random.Generator) -> None:
    def train_once(accumulate: int) -> float:
        network = Network([Dropout(0.5), Linear(4)], (30,), dtype="float64", seed=1)
        plan = Plan(network, BATCH, backend, optimizer=SGD(), accumulate=2)
        return plan.step_over([batch] * accumulate).loss

    batch = draw_batch(Network([Linear(4)], (30,), dtype="float64"), rng)
    assert train_once(1) == train_once(1)
    assert train_once(1) != train_once(2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_measured_step_tells_the_norms_of_weights_gradient_and_update(
    backend: Backend, accumulate: int, rng: np.random.Generator
) -> None:
    """Against those of what was exported; plain SGD moves by -lr (dw + l2 w), had it not been clipped."""
    layers = [Conv(6, 3), ReLU(), MaxPool(2), Linear(9), Tanh(), Linear(4)]
    network = Network(layers, (2, 7, 7), dtype="float64", seed=3)
    settings = {"accumulate": accumulate, "clip_norm": 1e-3}
    plan = Plan(network, BATCH, backend, optimizer=SGD(0.5, 0.0), **settings)
    batches = [draw_batch(network, rng, BATCH) for _ in range(accumulate)]
    before = plan.export_params()
    plan.step_over(batches, measure=True)
    after = plan.export_params()
    grads = [network.loss_and_grads(x, labels, backend)[1] for x, labels in batches]
    mean = {key: sum(part[key] for part in grads) / accumulate for key in before}

    def find_norm(arrays: Iterable[Array]) -> float:
        return float(np.linalg.norm(np.concatenate([array.ravel() for array in arrays])))

    assert plan.norms is not None
    assert plan.norms.weight == pytest.approx(find_norm(before.values()), rel=1e-12)
    assert plan.norms.gradient == pytest.approx(find_norm(mean.values()), rel=1e-10)
    assert plan.norms.update == pytest.approx(find_norm(after[key] - before[key] for key in before), rel=1e-9)
    assert plan.norms.update == pytest.approx(0.5 * 1e-3, rel=1e-3)
    plan.step_over(batches)
    assert plan.norms is None


def test_measuring_changes_no_step(backend: Backend, rng: np.random.Generator) -> None:
    batch = draw_batch(Network([Linear(4)], (30,)), rng)
    weights = []
    for measure in (False, True):
        plan = Plan(Network([Linear(4)], (30,), seed=1), BATCH, backend, optimizer=SGD(0.1, 0.9), l2=L2)
        for _ in range(3):
            plan.step_over([batch], measure=measure)
        weights.append(plan.export_params()["linear1.weight"])
    assert np.array_equal(*weights)


@pytest.mark.parametrize("count", [0, 3])
def test_another_number_of_batches_is_refused(backend: Backend, count: int, rng: np.random.Generator) -> None:
    network = Network([Linear(4)], (3,))
    plan = Plan(network, BATCH, backend, optimizer=SGD(), accumulate=2)
    with pytest.raises(ShapeError, match=f"batches: {count} where 1 to 2 make a step"):
        plan.step_over([draw_batch(network, rng)] * count)


def test_groups_have_their_own_rates_and_penalties(backend: Backend, rng: np.random.Generator) -> None:
    """Each parameter moves as the first group that matches it says; the rest as the plan does."""
    network = Network([Conv(6, 3), BatchNorm(), ReLU(), Linear(9), Linear(4)], (2, 6, 6), dtype="float64")
    for w in network.params.values():
        w[...] = rng.standard_normal(w.shape)
    groups = [
        ParameterGroup("linear1.*", lr_scale=0.5, l1=0.2, l2=0.3),
        ParameterGroup("*.bias", lr_scale=2.0, weight_decay=0.0),
        ParameterGroup("linear?.weight", lr_scale=0.0),
    ]
    optimizer = AdamW(0.01, eps=1e-3, weight_decay=0.5)
    plan = Plan(network, BATCH, backend, optimizer=optimizer, l1=0.05, l2=0.1, groups=groups)
    rates = {  # lr_scale, l1, l2, weight_decay
        "conv1.weight": (1, 0.05, 0.1, 0.5),
        "conv1.bias": (2, 0.0, 0.0, 0.0),
        "batchnorm1.weight": (1, 0.0, 0.0, 0.5),
        "batchnorm1.bias": (2, 0.0, 0.0, 0.0),
        "linear1.weight": (0.5, 0.2, 0.3, 0.5),
        "linear1.bias": (0.5, 0.2, 0.3, 0.5),
        "linear2.weight": (0, 0.05, 0.1, 0.5),
        "linear2.bias": (2, 0.0, 0.0, 0.0),
    }
    penalties = {key: Penalty(l1, l2) for key, (_, l1, l2, _) in rates.items()}
    assert plan.penalties == penalties
    assert rates.keys() == network.params.keys()
    expected = {key: w.copy() for key, w in network.params.items()}
    slots = {key: {slot: np.zeros_like(w) for slot in optimizer.slots} for key, w in expected.items()}
    for step in range(1, 4):
        network.load_params(expected)
        x, labels = draw_batch(network, rng)
        loss, grads = network.loss_and_grads(x, labels, create_backend("naive"))
        for key, (lr_scale, l1, l2, decay) in rates.items():
            loss += penalties[key].compute(expected[key])
            grads[key] += l1 * np.sign(expected[key])
            rule = AdamW(0.01, eps=1e-3, weight_decay=decay)
            rule.update(
                create_backend("naive"), expected[key], grads[key], slots[key], step, l2, lr_scale * 0.7
            )
        assert plan.step(x, labels, lr_scale=0.7).loss == pytest.approx(loss, rel=1e-12)
    for key, w in plan.export_params().items():
        np.testing.assert_allclose(w, expected[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"groups": [ParameterGroup("linear1.wieght")]},
            r"groups: .linear1.wieght. matches no parameter; did you mean",
        ),
        ({"groups": [ParameterGroup("fc*")]}, r"groups: 'fc\*' matches no parameter; known: linear1\.weight"),
        ({"l1": -1}, "l1: -1 is not a number"),
        ({"clip_norm": 0}, "clip_norm: 0 is not a number"),
        ({"clip_value": -1}, "clip_value: -1 is not a number"),
        ({"accumulate": 0}, "accumulate: 0"),
    ],
)
def test_wrong_settings_are_named(backend: Backend, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ShapeError), match=message):
        Plan(Network([Linear(4)], (3,)), BATCH, backend, optimizer=SGD(), **settings)


@pytest.mark.parametrize("field", ["lr_scale", "l1", "l2", "weight_decay"])
def test_a_group_has_no_number_below_zero(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: -1 is not a number"):
        ParameterGroup("*", **{field: -1})


def test_a_gradient_whose_squares_overflow_is_clipped_and_not_lost() -> None:
    """1e25 fits float32, its square does not."""
    network = Network([Linear(3)], (2,), loss=Hinge())
    plan = Plan(network, 1, create_backend("fast"), optimizer=SGD(lr=1.0), clip_norm=1.0)
    before = plan.export_params()
    x, labels = np.full((1, 2), 1e25, np.float32), np.array([2])
    plan.step(x, labels)
    moved = [plan.export_params()[key].astype(float) - before[key] for key in before]
    norm = np.sqrt(sum((part**2).sum() for part in moved))
    assert norm == pytest.approx(1, rel=1e-5)
