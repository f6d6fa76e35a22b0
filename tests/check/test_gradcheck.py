"""Right gradients pass, and wrong ones never do: faults are planted where one has been seen before."""

from collections.abc import Callable

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.backends.im2col import Im2colBackend
from cnnctl.backends.specs import Array
from cnnctl.check.differences import Sides
from cnnctl.check.gradcheck import (
    BOUND,
    FAIL,
    NETWORK_EFFORT,
    OK,
    PARTIAL,
    UNRESOLVED,
    Report,
    Row,
    check_plan,
    check_tensor,
    choose_trials,
    gradcheck,
    relative_error,
)
from cnnctl.check.subjects import Subject, find_loss_sides, subtract_losses
from cnnctl.errors import CheckFailed, ConfigError, DtypeError, ShapeError
from cnnctl.nn import (
    BatchNorm,
    Conv,
    Dropout,
    Hinge,
    Layer,
    Linear,
    Loss,
    MaxPool,
    Network,
    ReLU,
    Residual,
    SoftmaxCrossEntropy,
    SquaredError,
    Tanh,
)
from cnnctl.optim import ParameterGroup


class Formula(Subject):
    """f(w) of one tensor, with a gradient and sides that may be wrong."""

    def __init__(
        self,
        w: Array,
        gradient: Array | None,
        f: Callable[[Array], float],
        find_sides: Callable[[Array], Sides] = lambda w: (),
    ) -> None:
        self._f, self._find_sides, self._base = f, find_sides, f(w)
        super().__init__({"w": w}, {"w": gradient})

    def _run(self, name: str) -> tuple[float, Sides]:
        w = self.tensors[name]
        return self._f(w) - self._base, self._find_sides(w)


def check_formula(*args: object) -> Row:
    return check_tensor(Formula(*args), "w", np.random.default_rng(0))


def make_network(seed: int = 0) -> Network:
    """Something of everything, small."""
    layers = [
        *(Conv(4, 3, padding=1), BatchNorm(), ReLU(), MaxPool(2)),
        Residual([Conv(4, 3, padding=1), BatchNorm(), Tanh(), Conv(4, 1)]),
        *(ReLU(), Dropout(0.3), Linear(6), Tanh(), Linear(3)),
    ]
    return Network(layers, (2, 5, 4), dtype="float64", seed=seed)


def run_layered(network: Network, layer: str | None = None) -> Report:
    return gradcheck(network, backend="im2col", layer=layer)


def run_planned(network: Network, layer: str | None = None) -> Report:
    return check_plan(network, create_backend("im2col"), l2=0.1, layer=layer)


RUNNERS = pytest.mark.parametrize("run", [run_layered, run_planned])


def spoil(kernel: str, position: int, change: Callable[[Array], Array]) -> Callable[..., None]:
    """A patch that changes one of the gradients an im2col kernel returns."""
    right = getattr(Im2colBackend, kernel)

    def wrong(self: Im2colBackend, *args: object) -> tuple[Array | None, ...]:
        gradients = list(right(self, *args))
        if gradients[position] is not None:
            gradients[position] = change(gradients[position].copy())
        return tuple(gradients)

    return lambda patch: patch.setattr(Im2colBackend, kernel, wrong)


def change_one(array: Array) -> Array:
    array.flat[array.size // 2] += 0.01 * abs(array).max()
    return array


def drop_first(array: Array) -> Array:
    array[0] = 0
    return array


DX, DW, DB = 0, 1, 2
FAULTS = {
    "sign": (spoil("_conv_backward", DW, lambda g: -g), "conv1"),
    "factor": (spoil("_conv_backward", DW, lambda g: g * (1 + 1e-5)), "conv1"),
    "one element": (spoil("_conv_backward", DW, change_one), "conv1"),
    "one element of many": (spoil("_linear_backward", DW, change_one), "linear1"),
    "missing term": (spoil("_batchnorm_backward", DX, lambda g: g + 0.01 * abs(g).max()), "conv1"),
    "swapped axes": (
        spoil("_conv_backward", DW, lambda g: np.ascontiguousarray(g.transpose(0, 1, 3, 2))),
        "conv1",
    ),
    "off by one tap": (spoil("_conv_backward", DW, lambda g: np.roll(g, 1, axis=3)), "conv1"),
    "bias counted twice": (spoil("_linear_backward", DB, lambda g: 2 * g), "linear1"),
    "wrong image": (spoil("_conv_backward", DX, lambda g: g[::-1].copy()), "conv1"),
    "image left out": (spoil("_linear_backward", DX, drop_first), "conv1"),
    "norm's weight": (spoil("_batchnorm_backward", DW, lambda g: g * 0.999), "batchnorm1"),
    "no number": (spoil("_linear_backward", DB, lambda g: g * np.nan), "linear1"),
}


@RUNNERS
def test_a_right_network_passes(run: Callable[..., Report]) -> None:
    network = make_network()
    before = {key: w.copy() for key, w in network.params.items()}
    report = run(network)
    assert report.ok
    assert [row.name for row in report.rows] == ["input", *network.params]
    resolved = [row for row in report.rows if row.verdict == OK]
    assert len(resolved) >= len(report.rows) - 2  # the biases before a norm have no gradient
    assert all(row.error is not None and row.error <= BOUND for row in resolved)
    assert all((w == before[key]).all() for key, w in network.params.items())
    assert not network.grads


@pytest.mark.parametrize("backend", ["naive", "fast"])
def test_other_backends(backend: str) -> None:
    assert check_plan(make_network(), create_backend(backend), l2=0.1, layer="residual1").ok


def test_groups_pay_their_own_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, groups = create_backend("im2col"), [ParameterGroup("linear1.*", l1=0.3, weight_decay=0.5)]
    assert check_plan(make_network(), backend, l1=0.2, l2=0.1, groups=groups).ok
    right = Im2colBackend._add_l1_gradient
    monkeypatch.setattr(Im2colBackend, "_add_l1_gradient", lambda self, w, dw, l1: right(self, w, dw, l1 / 2))
    report = check_plan(make_network(), backend, groups=groups)
    assert {row.name for row in report.rows if row.verdict == FAIL} == {"linear1.weight", "linear1.bias"}


@RUNNERS
@pytest.mark.parametrize(("plant", "where"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found(
    plant: Callable[..., None],
    where: str,
    run: Callable[..., Report],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    report = run(make_network(), where)
    assert not report.ok
    assert report.worst is not None
    assert report.worst.error == max(row.error or 0 for row in report.failing)


def test_a_penalty_that_is_not_in_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[..., float] = Im2colBackend._sgd_update
    monkeypatch.setattr(Im2colBackend, "_sgd_update", lambda self, *args: right(self, *args[:-1], 0.0))
    rows = [*run_planned(make_network(), "linear2").rows, *run_planned(make_network(), "conv1").rows]
    assert [row.name for row in rows if row.verdict == FAIL] == ["linear2.weight", "conv1.weight"]


def test_a_loss_that_is_not_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Im2colBackend._sgd_update
    monkeypatch.setattr(Im2colBackend, "_sgd_update", lambda self, *args: 1.01 * right(self, *args))
    with pytest.raises(CheckFailed, match=r"^loss: a step reports .* where its scores and weights give"):
        run_planned(make_network())


class TestVerdicts:
    """One tensor with a known function."""

    w = np.array([0.3, -0.7, 1.1, 0.2])

    def test_ok(self) -> None:
        row = check_formula(self.w, np.cos(self.w), lambda w: float(np.sin(w).sum()))
        assert (row.verdict, row.coordinates, row.directions, row.kinks, row.below_noise) == (OK, 4, 0, 0, 0)

    @pytest.mark.parametrize("factor", [-1.0, 0.0, 1 + 1e-5, 1 - 1e-5, np.nan, np.inf])
    def test_one_wrong_element(self, factor: float) -> None:
        gradient = np.cos(self.w)
        gradient[2] *= factor
        row = check_formula(self.w, gradient, lambda w: float(np.sin(w).sum()))
        assert (row.verdict, row.at) == (FAIL, (2,))
        assert row.numeric == pytest.approx(np.cos(1.1), rel=1e-9)

    def test_a_kink_is_counted(self) -> None:
        w = np.array([0.0, 1.0, -2.0])
        row = check_formula(w, (w > 0) * 1.0, lambda w: float(np.maximum(w, 0).sum()), lambda w: (w > 0,))
        assert (row.verdict, row.kinks) == (OK, 1)

    def test_mostly_kinks_is_not_ok(self) -> None:
        w = np.array([0.0, 0.0, -2.0])
        row = check_formula(w, (w > 0) * 1.0, lambda w: float(np.maximum(w, 0).sum()), lambda w: (w > 0,))
        assert (row.verdict, row.kinks) == (PARTIAL, 2)

    def test_sides_that_always_change_do_not_excuse(self) -> None:
        row = check_formula(self.w, 7 * self.w, lambda w: float((w**2).sum()), lambda w: (w.copy(),))
        assert (row.verdict, row.kinks, row.error, row.at) == (UNRESOLVED, 4, None, None)

    @staticmethod
    def shake(size: float) -> Callable[[Array], float]:
        """A quadratic with noise that is a function of its argument."""
        return lambda w: float((w**2).sum()) + size * np.random.default_rng(w.view(np.uint64)).normal()

    def test_below_noise_is_counted(self) -> None:
        row = check_formula(self.w, 2 * self.w, self.shake(1e-4))
        assert row.verdict in {PARTIAL, UNRESOLVED}
        assert row.below_noise > 2

    @pytest.mark.parametrize("size", [1e-4, 1e-6, 1e-8, 1e-12])
    def test_noise_does_not_hide_what_is_larger(self, size: float) -> None:
        assert check_formula(self.w, 3 * self.w, self.shake(size)).verdict == FAIL

    @pytest.mark.parametrize("size", [1e-6, 1e-8, 1e-10, 1e-12, 1e-14])
    def test_noise_does_not_make_a_right_gradient_fail(self, size: float) -> None:
        assert check_formula(self.w, 2 * self.w, self.shake(size)).verdict != FAIL

    def test_a_kink_that_was_not_declared_does_not_hide_a_fault(self) -> None:
        w = np.array([1e-4, 1.0])
        assert check_formula(w, np.ones(2), lambda w: float(abs(w).sum())).verdict == OK
        assert check_formula(w, -np.ones(2), lambda w: float(abs(w).sum())).verdict == FAIL


class TestRefusals:
    """What cannot be checked is said in one line."""

    def test_gradients(self) -> None:
        w = np.ones(3)
        with pytest.raises(CheckFailed, match="w: the backward pass gives no gradient"):
            Formula(w, None, np.sum)
        with pytest.raises(CheckFailed, match=r"w: a gradient of shape \(1, 3\) for one of \(3,\)"):
            Formula(w, np.ones((1, 3)), np.sum)

    def test_a_function_of_something_else(self) -> None:
        values = iter(range(10))
        with pytest.raises(CheckFailed, match="when nothing is changed"):
            Formula(np.ones(3), np.ones(3), lambda w: next(values))

    def test_arguments(self) -> None:
        with pytest.raises(ConfigError, match="input_shape: missing"):
            gradcheck(Tanh())
        with pytest.raises(DtypeError, match="float32 is too coarse"):
            gradcheck(Network([Linear(2)], (3,)), backend="naive")
        with pytest.raises(DtypeError, match="float32 is too coarse"):
            check_plan(Network([Linear(2)], (3,)), create_backend("naive"))
        with pytest.raises(ShapeError, match="the loss needs scores"):
            check_plan(Network([Tanh()], (1, 2, 2), dtype="float64"), create_backend("naive"))
        with pytest.raises(ConfigError, match="did you mean fast"):
            gradcheck(Tanh(), (3,), backend="fsat")
        with pytest.raises(
            ConfigError, match="layer: 'conv9' is no layer with parameters; did you mean conv1"
        ):
            gradcheck(make_network(), backend="im2col", layer="conv9")


class TestOwnLayer:
    """A layer that somebody has just written."""

    class Scale(Tanh):
        """y = factor x, factor learnt; its backward pass is given."""

        kind = "scale"

        def _draw_params(self, *_: object) -> dict[str, Array]:
            return {"factor": np.array([1.5])}

        def _forward(self, x: Array, backend: object, training: bool) -> tuple[Array, tuple[Array, ...]]:
            return self.params["factor"] * x, (x,)

        def _backward(
            self, dy: Array, saved: tuple[Array, ...], backend: object, need_dx: bool
        ) -> tuple[Array, dict[str, Array]]:
            return self.params["factor"] * dy, {"factor": np.array([float((dy * saved[0]).sum())])}

    class Forgetful(Scale):
        """Forgets the sum."""

        def _backward(
            self, dy: Array, saved: tuple[Array, ...], backend: object, need_dx: bool
        ) -> tuple[Array, dict[str, Array]]:
            return self.params["factor"] * dy, {"factor": (dy * saved[0]).ravel()[:1]}

    def test_right_and_wrong(self) -> None:
        layer = self.Scale()
        report = gradcheck(layer, (2, 3, 3), backend="naive")
        assert report.ok
        assert [row.name for row in report.rows] == ["input", "scale1.factor"]
        assert not layer.params, "the layer can still be put into a network"
        wrong = gradcheck(self.Forgetful(), (2, 3, 3), backend="naive")
        assert [row.name for row in wrong.failing] == ["scale1.factor"]
        assert "FAIL" in str(wrong)

    def test_in_a_network(self) -> None:
        network = Network([Linear(4), self.Forgetful(), Linear(3)], (5,), dtype="float64")
        assert [row.name for row in gradcheck(network).failing] == ["scale1.factor"]

    def test_images_come_out(self) -> None:
        assert gradcheck(Network([Conv(2, 2)], (1, 3, 3), dtype="float64"), backend="naive").ok


class TestChoice:
    """Elements and directions depend on the seed and the tensor's name, on nothing else."""

    def test_one_layer_gives_the_rows_it_has_among_all(self) -> None:
        network = make_network()
        alone = gradcheck(network, backend="im2col", layer="residual1", seed=3)
        among = gradcheck(network, backend="im2col", seed=3)
        assert [row.name for row in alone.rows] == [
            f"residual1.{key}"
            for key in (
                *("conv1.weight", "conv1.bias", "batchnorm1.weight", "batchnorm1.bias"),
                *("conv2.weight", "conv2.bias"),
            )
        ]
        chosen = [(row.name, row.coordinates, row.at) for row in alone.rows if row.verdict == OK]
        assert set(chosen) <= {(row.name, row.coordinates, row.at) for row in among.rows}

    def test_the_seed_settles_the_elements(self) -> None:
        gradient = np.random.default_rng(1).normal(size=(30, 40))

        def choose(seed: int) -> list[object]:
            return [t.at for t in choose_trials(gradient, np.random.default_rng(seed), NETWORK_EFFORT)]

        assert choose(1) == choose(1)
        assert choose(1) != choose(2)
        assert len(set(choose(1))) == NETWORK_EFFORT.sample + NETWORK_EFFORT.directions

    def test_a_small_tensor_is_checked_whole(self) -> None:
        trials = choose_trials(np.ones((4, 8)), np.random.default_rng(0), NETWORK_EFFORT)
        assert [trial.at for trial in trials] == list(np.ndindex(4, 8))

    def test_directions_cancel_nothing_and_reach_everything(self) -> None:
        gradient = np.random.default_rng(1).normal(size=500)
        gradient[:100] = 0
        *_, trial = choose_trials(gradient, np.random.default_rng(0), NETWORK_EFFORT)
        assert np.linalg.norm(trial.delta) == pytest.approx(1)
        assert (trial.delta != 0).all()
        assert (trial.delta * gradient >= 0).all()
        assert {-1.0, 1.0} == set(np.sign(trial.delta[:100]))


def test_relative_error_is_that_of_the_courses() -> None:
    assert relative_error(1.0, 3.0) == 0.5
    assert relative_error(0.0, 1e-9) == pytest.approx(0.1)
    assert relative_error(0.0, 0.0) == 0
    assert relative_error(float("nan"), 1.0) == float("inf")


@pytest.mark.parametrize(
    "loss", [SoftmaxCrossEntropy(), SoftmaxCrossEntropy(0.3, [1, 2, 0, 3, 1]), Hinge(0.7), SquaredError()]
)
def test_differences_of_losses_are_exact(loss: Loss) -> None:
    rng = np.random.default_rng(3)
    before, labels = rng.normal(size=(4, 5)), np.array([0, 4, 1, 1])
    after, backend = before + rng.normal(size=(4, 5)), create_backend("naive")
    expected = loss.forward(after, labels, backend) - loss.forward(before, labels, backend)
    assert subtract_losses(loss.spec, after, before, labels) == pytest.approx(expected, rel=1e-12)


def test_a_tiny_difference_does_not_drown() -> None:
    labels, shift, zeros = np.array([0, 4, 1, 1]), np.zeros((4, 5)), np.zeros((4, 5))
    shift[1, 3] = 2.0**-60
    change = subtract_losses(SoftmaxCrossEntropy().spec, zeros + shift, zeros, labels)
    assert change == pytest.approx(2.0**-60 / 5 / 4, rel=1e-12)


def test_a_hinge_says_on_which_side_it_stands() -> None:
    scores = np.array([[0.0, 0.5, -2.0]])
    (sides,) = find_loss_sides(Hinge().spec, scores, np.array([0]))
    assert sides.tolist() == [[True, True, False]]
    assert find_loss_sides(SquaredError().spec, scores, np.array([0])) == ()


def test_layers_say_on_which_side_they_stand() -> None:
    backend = create_backend("naive")
    x = np.array([[[[1.0, -2.0], [3.0, 0.5]]]])
    for layer, sides in ((ReLU(), x > 0), (MaxPool(2), [[[[2]]]]), (Tanh(), None)):
        network = Network([layer], (1, 2, 2), dtype="float64")
        assert layer.sides() == ()
        network.forward(x, backend, training=True)
        found = layer.sides()
        assert isinstance(layer, Layer)
        assert len(found) == (sides is not None)
        assert all((side == sides).all() for side in found)
