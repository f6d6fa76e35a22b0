"""What the course's cells do with a network: losses, gradients, overfitting, histories, filters as a grid."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnctl.backends.specs import Array
from cnnctl.compat import cs231n
from cnnctl.compat.cs231n import optim
from cnnctl.compat.cs231n.classifiers.cnn import ThreeLayerConvNet
from cnnctl.compat.cs231n.gradient_check import (
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    grad_check_sparse,
    rel_error,
)
from cnnctl.compat.cs231n.solver import Solver, Trainer
from cnnctl.compat.cs231n.vis_utils import visualize_grid
from cnnctl.compat.tensors import load_arrays
from cnnctl.errors import ConfigError, DtypeError, ShapeError

SMALL = {"input_dim": (3, 8, 8), "num_filters": 4, "filter_size": 3, "hidden_dim": 20}


@pytest.fixture
def data() -> dict[str, Array]:
    """Forty images that can be told apart by their mean, the last ten for validation."""
    y = np.arange(40) % 4
    X = np.random.randn(40, 3, 8, 8) + 2 * np.eye(4, 3)[y][:, :, None, None]
    return {"X_train": X[:30], "y_train": y[:30], "X_val": X[30:], "y_val": y[30:]}


class TestNetwork:
    def test_initial_loss(self) -> None:
        """log(C) without a penalty, more with one."""
        model = ThreeLayerConvNet()
        X, y = np.random.randn(50, 3, 32, 32), np.random.randint(10, size=50)
        loss, _ = model.loss(X, y)
        assert loss == pytest.approx(np.log(10), abs=1e-3)
        model.reg = 0.5
        weights = [model.params[key].astype(np.float64) for key in ("W1", "W2", "W3")]
        penalty = 0.25 * sum(np.square(w).sum() for w in weights)
        assert model.loss(X, y)[0] == pytest.approx(loss + penalty, rel=1e-6)
        assert penalty > 0.1

    @pytest.mark.parametrize("reg", [0.0, 0.3])
    def test_gradients(self, reg: float) -> None:
        X, y = np.random.randn(2, 3, 8, 8), np.random.randint(10, size=2)
        model = ThreeLayerConvNet(**SMALL, weight_scale=0.1, reg=reg, dtype=np.float64)
        _, grads = model.loss(X, y)
        assert grads.keys() == model.params.keys()
        for key, gradient in grads.items():
            wanted = eval_numerical_gradient(lambda _: model.loss(X, y)[0], model.params[key], verbose=False)
            np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-8, err_msg=key)

    def test_shapes_and_dtypes(self) -> None:
        model = ThreeLayerConvNet(
            input_dim=(1, 9, 7), num_filters=2, filter_size=4, hidden_dim=5, num_classes=3
        )
        assert {key: w.shape for key, w in model.params.items()} == {
            **{"W1": (2, 1, 4, 4), "b1": (2,), "W2": (2 * 4 * 3, 5)},
            **{"b2": (5,), "W3": (5, 3), "b3": (3,)},
        }
        assert {w.dtype for w in model.params.values()} == {np.dtype(np.float32)}
        X = np.random.randn(4, 1, 9, 7)
        assert model.loss(X).shape == (4, 3)
        assert model.loss(X).dtype == np.float64
        assert model.loss(X.astype(np.float32)).dtype == np.float32

    def test_numpys_seed_settles_the_weights(self) -> None:
        np.random.seed(7)
        w = 1e-3 * np.random.randn(32, 3, 7, 7)
        np.random.seed(7)
        np.testing.assert_array_equal(ThreeLayerConvNet(dtype=np.float64).params["W1"], w)


class TestSolver:
    def test_overfits(self, data: dict[str, Array], tmp_path: Path) -> None:
        lines: list[str] = []
        model = ThreeLayerConvNet(**SMALL, weight_scale=0.1)
        solver = Solver(
            model,
            data,
            num_epochs=15,
            batch_size=15,
            update_rule="adam",
            optim_config={"learning_rate": 1e-2},
            checkpoint_name=str(tmp_path / "small"),
            print_every=10,
            on_line=lines.append,
        )
        solver.train()
        assert len(solver.loss_history) == 30
        assert len(solver.train_acc_history) == len(solver.val_acc_history) == 16
        assert solver.loss_history[0] > 1
        assert solver.loss_history[-1] < 0.2
        assert solver.train_acc_history[-1] == 1
        assert solver.best_val_acc == max(solver.val_acc_history)
        assert solver.check_accuracy(data["X_val"], data["y_val"]) == solver.best_val_acc
        assert model.params is solver.best_params
        heads = [line.partition(":")[0] for line in lines]
        assert heads[:3] == ["step 1 of 30", "epoch 0 of 15", "epoch 1 of 15"]
        assert sum(head.startswith("step") for head in heads) == 3
        assert len(list(tmp_path.iterdir())) == 16
        saved = load_arrays(tmp_path / "small_epoch_15.safetensors")
        assert saved["loss_history"].tolist() == solver.loss_history
        assert saved["params/W1"].shape == model.params["W1"].shape

    def test_the_seed_settles_a_run(self, data: dict[str, Array]) -> None:
        histories = []
        for _ in range(2):
            np.random.seed(3)
            solver = Solver(ThreeLayerConvNet(**SMALL), data, num_epochs=1, batch_size=10, verbose=False)
            solver.train()
            histories.append(solver.loss_history)
        assert histories[0] == histories[1]

    def test_the_learning_rate_decays_after_every_epoch(self, data: dict[str, Array]) -> None:
        solver = Solver(
            ThreeLayerConvNet(**SMALL),
            data,
            num_epochs=3,
            batch_size=30,
            lr_decay=0.5,
            optim_config={"learning_rate": 8.0e-3},
            verbose=False,
        )
        solver.train()
        assert {config["learning_rate"] for config in solver.optim_configs.values()} == {1e-3}
        assert solver.optim_config["learning_rate"] == 8e-3

    def test_accuracy_of_a_sample(self, data: dict[str, Array]) -> None:
        solver = Solver(ThreeLayerConvNet(**SMALL), data, verbose=False)
        scores = solver.model.loss(data["X_train"]).argmax(axis=1)
        X, y = data["X_train"], scores.copy()
        y[:15] += 1
        assert solver.check_accuracy(X, y, batch_size=7) == 0.5
        np.random.seed(1)
        chosen = np.random.choice(30, 11)
        np.random.seed(1)
        assert solver.check_accuracy(X, y, num_samples=11) == (chosen >= 15).mean()

    def test_trainer_is_the_solver(self, data: dict[str, Array]) -> None:
        trainer = Trainer(
            ThreeLayerConvNet(**SMALL),
            data,
            num_epochs=1,
            batch_size=30,
            update_rule="rmsprop",
            updater_config={"learning_rate": 1e-4},
            verbose=True,
            print_every=5,
        )
        trainer.train()
        assert isinstance(trainer, cs231n.Solver)
        assert trainer.optim_configs["W1"]["learning_rate"] == 1e-4
        assert len(trainer.loss_history) == 1

    def test_lines_go_to_stderr(self, data: dict[str, Array], capsys: pytest.CaptureFixture[str]) -> None:
        for verbose in (True, False):
            Solver(ThreeLayerConvNet(**SMALL), data, num_epochs=1, batch_size=30, verbose=verbose).train()
        captured = capsys.readouterr()
        assert captured.out == ""
        assert [line.split(":")[0] for line in captured.err.splitlines()] == ["step 1 of 1", "epoch 1 of 1"]

    def test_refusal(self, data: dict[str, Array]) -> None:
        with pytest.raises(ConfigError, match=r"^update_rule: 'adma' is not known; did you mean adam\?$"):
            Solver(ThreeLayerConvNet(**SMALL), data, update_rule="adma")


class TestUpdateRules:
    """Two steps, as the formulas have them."""

    W, G = np.array([1.0, -2.0]), (np.array([0.5, 0.25]), np.array([-1.0, 3.0]))

    def run(self, rule: Callable[..., tuple[Array, dict[str, object]]], **config: object) -> Array:
        w, state = self.W, dict(config)
        for g in self.G:
            w, state = rule(w, g, state)
        assert self.W.tolist() == [1, -2]
        return w

    def test_sgd(self) -> None:
        np.testing.assert_allclose(self.run(optim.sgd, learning_rate=0.1), self.W - 0.1 * sum(self.G))

    def test_sgd_momentum(self) -> None:
        first = -0.1 * self.G[0]
        second = 0.8 * first - 0.1 * self.G[1]
        found = self.run(optim.sgd_momentum, learning_rate=0.1, momentum=0.8)
        np.testing.assert_allclose(found, self.W + first + second)

    def test_rmsprop(self) -> None:
        w, cache = self.W, np.zeros(2)
        for g in self.G:
            cache = 0.9 * cache + 0.1 * g * g
            w = w - 0.1 * g / (np.sqrt(cache) + 1e-8)
        np.testing.assert_allclose(self.run(optim.rmsprop, learning_rate=0.1, decay_rate=0.9), w)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_adam(self, dtype: type) -> None:
        w, m, v = self.W, np.zeros(2), np.zeros(2)
        for t, g in enumerate(self.G, 6):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        state = {"m": np.zeros(2, dtype), "v": np.zeros(2, dtype), "t": 5}
        np.testing.assert_allclose(self.run(optim.adam, learning_rate=0.1, **state), w, rtol=1e-12)

    def test_defaults(self) -> None:
        w, config = optim.adam(self.W, np.asfortranarray(np.ones((2, 2)))[0])
        np.testing.assert_allclose(w, self.W - 1e-3, rtol=1e-7)
        assert config["t"] == 1
        assert optim.sgd(self.W, np.ones(2))[1] == {"learning_rate": 1e-2}


class TestNumericalGradients:
    def test_of_a_number(self, capsys: pytest.CaptureFixture[str]) -> None:
        x = np.array([[1.0, 2.0], [3.0, 4.0]])
        gradient = eval_numerical_gradient(lambda x: float((x**3).sum()), x)
        np.testing.assert_allclose(gradient, 3 * x**2, rtol=1e-8)
        assert x.tolist() == [[1, 2], [3, 4]]
        assert capsys.readouterr().err.startswith("(0, 0): 3.0")

    def test_of_an_array_that_is_its_argument(self) -> None:
        x, df = np.random.randn(3, 2), np.random.randn(3, 2)
        np.testing.assert_allclose(eval_numerical_gradient_array(lambda x: x, x, df), df, rtol=1e-8)

    def test_sparse(self, capsys: pytest.CaptureFixture[str]) -> None:
        x = np.random.randn(3, 4)
        grad_check_sparse(lambda x: float((x**2).sum()), x, 2 * x, num_checks=5)
        errors = [float(line.split()[-1]) for line in capsys.readouterr().err.splitlines()]
        assert len(errors) == 5
        assert max(errors) < 1e-8

    def test_integers_are_refused_and_x_is_put_back_after_a_failure(self) -> None:
        with pytest.raises(DtypeError, match=r"^x: dtype int64 is not a floating-point type"):
            eval_numerical_gradient(lambda _: 0.0, np.arange(3))
        x = np.ones(2)
        with pytest.raises(ZeroDivisionError):
            eval_numerical_gradient(lambda _: 1 / 0, x)
        assert x.tolist() == [1, 1]

    def test_relative_error(self) -> None:
        assert rel_error(np.array([1.0, 0.0]), np.array([3.0, 0.0])) == 0.5
        assert rel_error(np.array([0.0]), np.array([1e-10])) == pytest.approx(0.01)


class TestGrid:
    def test_images_side_by_side(self) -> None:
        Xs = np.random.randn(5, 2, 3, 3)
        grid = visualize_grid(Xs, ubound=100.0, padding=1)
        assert grid.shape == (3 * 2 + 2, 3 * 3 + 2, 3)
        for n, image in enumerate(Xs):
            row, column = divmod(n, 3)
            shown = grid[3 * row : 3 * row + 2, 4 * column : 4 * column + 3]
            wanted = 100 * (image - image.min()) / (image.max() - image.min())
            np.testing.assert_allclose(shown, wanted)
        assert not grid[2].any()
        assert not grid[:, 3].any()
        assert not grid[6:].any()

    def test_an_even_image_is_black(self) -> None:
        assert not visualize_grid(np.full((1, 2, 2, 1), 7.0)).any()

    def test_refusal(self) -> None:
        with pytest.raises(ShapeError, match=r"^Xs: shape \(4, 4\) is not"):
            visualize_grid(np.zeros((4, 4)))
