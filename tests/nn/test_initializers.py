"""Initializers: their spread, their fans, their generator and their errors."""

from math import sqrt

import numpy as np
import pytest

from cnnctl.errors import ConfigError
from cnnctl.nn import Constant, Conv, Gaussian, He, Initializer, Linear, Network, Orthogonal, Xavier

SHAPE, FAN_IN, FAN_OUT = (64, 32, 7, 7), 32 * 49, 64 * 49  # 100,352 numbers: std known to 0.7 %

SPREADS = [
    (Gaussian(), 0.01),
    (Gaussian(0.5), 0.5),
    (He(), sqrt(2 / FAN_IN)),
    (He("uniform"), sqrt(2 / FAN_IN)),
    (Xavier(), sqrt(2 / (FAN_IN + FAN_OUT))),
    (Xavier("uniform"), sqrt(2 / (FAN_IN + FAN_OUT))),
    (He(fan="out"), sqrt(2 / FAN_OUT)),
    (He("uniform", "average"), sqrt(4 / (FAN_IN + FAN_OUT))),
    (Xavier(fan="in"), sqrt(1 / FAN_IN)),
    (Xavier("uniform", "out"), sqrt(1 / FAN_OUT)),
    (Orthogonal(2), 2 / sqrt(FAN_IN)),  # rows of length 2
]


@pytest.mark.parametrize(("init", "std"), SPREADS, ids=str)
def test_mean_and_standard_deviation(init, std):
    w = init(SHAPE, FAN_IN, FAN_OUT, np.random.default_rng(0))
    assert (w.shape, w.dtype) == (SHAPE, np.float64)
    assert abs(w.mean()) < 4 * std / sqrt(w.size)
    assert w.std() == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize(("init", "std"), [SPREADS[3], SPREADS[5], SPREADS[7], SPREADS[9]], ids=str)
def test_uniform_is_bounded_and_flat(init, std):
    w = init(SHAPE, FAN_IN, FAN_OUT, np.random.default_rng(0))
    bound = sqrt(3) * std
    assert 0.99 * bound < abs(w).max() <= bound
    counts, _ = np.histogram(w, bins=10, range=(-bound, bound))
    np.testing.assert_allclose(counts, w.size / 10, rtol=0.05)


@pytest.mark.parametrize("init", [Gaussian(), He(), Xavier()], ids=str)
def test_normal_has_normal_tails(init):
    w = init(SHAPE, FAN_IN, FAN_OUT, np.random.default_rng(0))
    assert np.mean(abs(w) > 2 * w.std()) == pytest.approx(0.0455, abs=0.003)


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (5, 5), (1, 4), (6, 2, 3, 3), (40, 2, 3, 3)], ids=str)
@pytest.mark.parametrize("gain", [1, 1.5])
def test_orthogonal_is_orthonormal_rows_or_columns(shape, gain):
    w = Orthogonal(gain)(shape, 1, 1, np.random.default_rng(3))
    assert (w.shape, w.dtype) == (shape, np.float64)
    matrix = w.reshape(len(w), -1)
    products = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(products, gain**2 * np.eye(len(products)), rtol=0, atol=1e-12)


def test_orthogonal_has_no_favourite_sign():
    """What a decomposition gives has signs of its own; the mean over many must vanish all the same."""
    rng = np.random.default_rng(1)
    mean = np.mean([Orthogonal()((3, 3), 1, 1, rng) for _ in range(2000)], axis=0)
    np.testing.assert_allclose(mean, 0, atol=4 / sqrt(3 * 2000))


def test_constant_is_constant():
    w = Constant(-0.25)((2, 3), 3, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(w, np.full((2, 3), -0.25))


@pytest.mark.parametrize(
    ("layer", "input_shape", "fan_in", "fan_out"),
    [
        (Conv(6, [3, 5]), (4, 9, 9), 4 * 15, 6 * 15),
        (Conv(6, [3, 5], groups=2), (4, 9, 9), 2 * 15, 3 * 15),
        (Conv(8, 3, groups=4), (4, 9, 9), 9, 2 * 9),
        (Linear(7), (5,), 5, 7),
        (Linear(7), (2, 3, 4), 24, 7),
    ],
    ids=repr,
)
def test_fans_count_what_a_unit_sees_and_what_an_input_reaches(layer, input_shape, fan_in, fan_out):
    seen = []

    class Recorder(Initializer):
        def __call__(self, shape, fan_in, fan_out, rng):
            seen.append((fan_in, fan_out))
            return np.zeros(shape)

    Network([layer], input_shape, init=Recorder())
    assert seen == [(fan_in, fan_out)]


@pytest.mark.parametrize(
    "make_layer", [lambda init: Linear(300, init=init), lambda init: Conv(300, 5, init=init)]
)
@pytest.mark.parametrize(
    ("own", "default", "std"),
    [
        (Gaussian(0.5), Gaussian(0.01), 0.5),
        (None, Gaussian(0.01), 0.01),
        (None, None, sqrt(2 / 400)),
    ],
)
def test_a_layer_starts_as_it_says_itself_or_else_the_network_or_else_he(make_layer, own, default, std):
    layer = make_layer(own)
    Network([layer], (16, 5, 5), init=default)
    assert layer.params["weight"].std() == pytest.approx(std, rel=0.01)


def test_biases_start_at_zero():
    network = Network([Conv(3, 2), Linear(4)], (1, 5, 5), init=Gaussian(1.0))
    assert not network.params["conv1.bias"].any()
    assert not network.params["linear1.bias"].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0), r"std: 0 is not a number in \(0, inf\)"),
        (lambda: Gaussian(-1.0), r"std: -1\.0 is not"),
        (lambda: Gaussian(float("nan")), "std: nan is not"),
        (lambda: He("uniforn"), "distribution: 'uniforn' is not known; did you mean uniform?"),
        (lambda: Xavier("cauchy"), "distribution: 'cauchy' is not known; known: normal, uniform"),
        (lambda: He(fan="inn"), "fan: 'inn' is not known; did you mean in?"),
        (lambda: Xavier("normal", "mean"), "fan: 'mean' is not known"),
        (lambda: Constant(float("nan")), "value: nan is not a number"),
        (lambda: Constant(float("-inf")), "value: -inf is not a number"),
        (lambda: Orthogonal(0), "gain: 0 is not a number"),
        (lambda: Conv(3, 3, init="he"), r"init: 'he' is not an initializer; give Gaussian\(\)"),
        (lambda: Linear(3, init=0.01), r"init: 0\.01 is not an initializer"),
        (lambda: Network([Linear(3)], (4,), init=He), "init: .*He.* is not an initializer"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
