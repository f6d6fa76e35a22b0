"""K5: the number of threads changes nothing, not even the last bit; and a forked child can go on."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
from safetensors.numpy import load_file

import cnnctl
from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Activation, Array, BatchNormSpec, Pool, Sandwich
from tests.torture.arithmetic import cast, create_engine, run_conv
from tests.torture.cases import Case, draw, draw_case
from tests.torture.tally import Mismatch, Tally

THREADS = (1, 2, 3, 4, 8)
FORK_LIMIT_S = 30.0
CONFIGS = Path(__file__).parents[2] / "configs"

Results = list[Array]


def check_threads(seed: int, number: int, tally: Tally) -> None:
    """One operation on all numbers of threads, several times each."""
    case = draw_case(seed, number)
    rng = case.create_rng()
    kind = str(rng.choice(list(RUNS[case.operation])))
    arrays = draw_batch(case, rng)
    run = RUNS[case.operation][kind]
    alone: Results | None = None
    for threads in THREADS:
        backend = create_engine("fast", threads, case.isa, not case.winograd)
        results = run(backend, case, *arrays)
        alone = alone or results
        for position, (one, several) in enumerate(zip(alone, results, strict=True)):
            if one.tobytes() != several.tobytes():
                raise Mismatch(f"{kind}: result {position} on {threads} threads is not that on 1")
    tally.counts[kind] += 1
    tally.counts["cases"] += 1


def check_training(seed: int, number: int, tally: Tally) -> None:
    """A whole training on all numbers of threads: the same weights and the same metrics."""
    name, overrides = TRAININGS[number]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for threads in THREADS:
            run = cnnctl.train(
                CONFIGS / f"{name}.yaml",
                overrides=[*overrides, f"engine.threads={threads}", f"engine.seed={seed}"],
                runs_dir=folder,
            )
            checkpoint = load_file(run.path / "checkpoints" / "last.safetensors")
            metrics = (run.path / "metrics.jsonl").read_text()
            found[threads] = {key: array.tobytes() for key, array in checkpoint.items()}, metrics
    for threads in THREADS:
        if found[threads] != found[1]:
            raise Mismatch(f"{name} on {threads} threads ends elsewhere than on 1")
    tally.counts[name] += 1
    tally.counts["cases"] += 1


def check_fork(seed: int, number: int, tally: Tally) -> None:
    """A child forked after the threads were used computes the same, and does not hang."""
    case = draw_case(seed, number)
    arrays = draw_batch(case, case.create_rng())
    run = next(iter(RUNS[case.operation].values()))
    backend = create_engine("fast", 4, case.isa, exact=True)
    expected = [result.tobytes() for result in run(backend, case, *arrays)]
    child = os.fork()
    if child == 0:
        found = [result.tobytes() for result in run(backend, case, *arrays)]
        os._exit(0 if found == expected else 1)
    deadline = time.monotonic() + FORK_LIMIT_S
    while not (waited := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise Mismatch("a forked child hangs")
        time.sleep(0.001)
    if os.waitstatus_to_exitcode(waited[1]) != 0:
        raise Mismatch("a forked child computes something else")
    if [result.tobytes() for result in run(backend, case, *arrays)] != expected:
        raise Mismatch("after a fork the parent computes something else")
    tally.counts["cases"] += 1


_SHAPES = ["data.dataset=shapes", "data.validation=100"]
TRAININGS: list[tuple[str, list[str]]] = [
    ("quickstart", ["solver.epochs=1"]),
    ("fashion_lenet5", [*_SHAPES, "solver.epochs=2"]),
    ("cifar10_resnet20", [*_SHAPES, "data.train=700", "solver.epochs=2", "solver.batch_size=50"]),
]
"""Config and overrides: on images that are drawn on the spot, and short enough to be run five times."""


def draw_batch(case: Case, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """x, w, b, dy of normals in the case's element type, for a batch that threads can share."""
    N = int(rng.integers(1, 17))
    x_shape, conv_shape = (N, *case.x_shape[1:]), (N, *case.conv_shape[1:])
    shapes = (x_shape, case.w_shape, (case.F,), conv_shape)
    x, w, b, dy = cast(case, *(draw(rng, shape, False) for shape in shapes))
    return x, w, b, dy


def _run_sums(backend: Backend, case: Case, x: Array, w: Array, b: Array, dy: Array) -> Results:
    return list(run_conv(backend, case, x, w, b, dy))


def _run_sandwich(backend: Backend, case: Case, x: Array, w: Array, b: Array, dy: Array) -> Results:
    """With norm, shortcut, activation and pool, chosen by the case."""
    assert case.pool is not None
    norm = BatchNormSpec() if case.number % 2 else None
    activations = [None, *get_args(Activation)]
    number, place = divmod(case.number // 2, len(activations))
    pool = Pool("max" if number % 2 else "average", case.pool)
    sandwich = Sandwich(case.window, case.groups, norm, number // 2 % 2 == 1, activations[place], pool)
    gamma, beta = (b, -b) if norm else (None, None)
    r = dy if sandwich.residual else None
    outputs = backend.conv_sandwich_forward(x, w, b, sandwich, gamma, beta, r)
    gradients = backend.conv_sandwich_backward(outputs.y, x, w, outputs, sandwich, gamma, beta, r)
    return [result for result in (outputs.y, outputs.index, *gradients) if result is not None]


def _run_maxpool(backend: Backend, case: Case, x: Array, *_: Array) -> Results:
    assert case.pool is not None
    y, index = backend.maxpool_forward(x, case.pool)
    return [y, index, backend.maxpool_backward(y, index, _as_images(x.shape), case.pool)]


def _run_avgpool(backend: Backend, case: Case, x: Array, *_: Array) -> Results:
    assert case.pool is not None
    y = backend.avgpool_forward(x, case.pool)
    return [y, backend.avgpool_backward(y, _as_images(x.shape), case.pool)]


def _run_norms(backend: Backend, _: Case, x: Array, *__: Array) -> Results:
    gamma, beta = np.full((2, x.shape[1]), 2, x.dtype)
    y, mean, var = backend.batchnorm_forward(x, gamma, beta, 1e-5)
    w, b = gamma, -gamma
    own, own_mean, own_var = backend.groupnorm_forward(x, w, b, 1, 1e-5)
    response = backend.lrn_forward(x, 5, 0.1, 0.75, 1.0)
    return [
        *(y, mean, var, response, backend.lrn_backward(y, x, 5, 0.1, 0.75, 1.0)),
        *backend.batchnorm_backward(x, y, gamma, mean, var, 1e-5),
        *(own, own_mean, own_var, *backend.groupnorm_backward(y, x, w, own_mean, own_var, 1, 1e-5)),
        *(backend.scale_forward(x, w, b), *backend.scale_backward(y, x, w)),
    ]


def _run_elementwise(backend: Backend, _: Case, x: Array, *__: Array) -> Results:
    results = [backend.dropout(x, 0.5, 7), backend.dropout(x, 0.5, 7, spatial=True)]
    for activation in get_args(Activation):
        y = backend.activation_forward(x, activation)
        results += [y, backend.activation_backward(x, x, y, activation)]
    return results


def _run_updates(backend: Backend, _: Case, x: Array, *__: Array) -> Results:
    """Enough parameters for several tasks (UPDATE_BLOCK elements each)."""
    dw = np.resize(x.ravel(), 40_000) if x.size else np.zeros(40_000, x.dtype)
    w, m, v = dw + 1, np.zeros_like(dw), np.zeros_like(dw)
    squares = [backend.adam_update(w, dw, m, v, step=1, lr=0.1, l2=0.1)]
    squares += [backend.sgd_update(w, dw, m, lr=0.1, momentum=0.9, nesterov=True, l2=0.1)]
    squares += [
        backend.adagrad_update(w, dw, v, lr=0.1),
        backend.sum_squares(dw),
        backend.add_l1_gradient(w, dw, 0.1),
    ]
    squares += [backend.rmsprop_update(w, dw, v, np.zeros_like(w), m, lr=0.1, momentum=0.9)]
    squares += [backend.adamax_update(w, dw, m, v, step=2, lr=0.1), backend.lion_update(w, dw, m, lr=0.1)]
    return [w, m, v, np.array(squares)]


def _run_softmax(backend: Backend, _: Case, x: Array, *__: Array) -> Results:
    scores = np.resize(x, (3000, x.shape[1]))
    labels = np.arange(len(scores)) % x.shape[1]
    loss, p = backend.softmax_cross_entropy_forward(scores, labels)
    return [np.array(loss), p, backend.softmax_cross_entropy_backward(p, labels)]


def _as_images(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    n, c, h, w = shape
    return n, c, h, w


RUNS: dict[str, dict[str, Callable[..., Results]]] = {
    "conv": {"conv": _run_sums},
    "sandwich": {"sandwich": _run_sandwich},
    "linear": {"linear": _run_sums, "softmax": _run_softmax},
    "maxpool": {"maxpool": _run_maxpool, "norms": _run_norms},
    "avgpool": {"avgpool": _run_avgpool, "elementwise": _run_elementwise, "updates": _run_updates},
}
"""What is run for a case's operation, one of these."""
