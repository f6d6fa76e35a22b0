"""What the book's script does: MNIST, SimpleConvNet, a Trainer with each optimizer, saved parameters."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnctl.backends.specs import Array
from cnnctl.compat import dlfs
from cnnctl.compat.dlfs import optimizer
from cnnctl.compat.dlfs.mnist import load_mnist
from cnnctl.compat.dlfs.simple_convnet import SimpleConvNet
from cnnctl.compat.dlfs.trainer import OPTIMIZERS, Trainer
from cnnctl.compat.tensors import save_arrays
from cnnctl.errors import CheckpointError, ConfigError, RunError
from tests.data.mnist_files import write_mnist

CONV_PARAM = {"filter_num": 4, "filter_size": 3, "pad": 0, "stride": 1}
Images = tuple[Array, Array]


def make_network(std: float = 0.1) -> SimpleConvNet:
    return SimpleConvNet((1, 8, 8), CONV_PARAM, hidden_size=10, output_size=4, weight_init_std=std)


@pytest.fixture
def images() -> Images:
    """Forty images with a bright quarter each, and which one it is."""
    t = np.arange(40) % 4
    x = 0.3 * np.random.rand(40, 1, 8, 8).astype(np.float32)
    for image, label in zip(x, t, strict=True):
        row, column = divmod(label, 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.7
    return x, t.astype(np.uint8)


class TestSimpleConvNet:
    def test_layers_and_shapes(self) -> None:
        network = SimpleConvNet()
        assert {key: w.shape for key, w in network.params.items()} == {
            **{"W1": (30, 1, 5, 5), "b1": (30,), "W2": (4320, 100)},
            **{"b2": (100,), "W3": (100, 10), "b3": (10,)},
        }
        assert list(network.layers) == ["Conv1", "Relu1", "Pool1", "Affine1", "Relu2", "Affine2"]
        assert network.layers["Conv1"].W is network.params["W1"]
        assert np.std(network.params["W2"]) == pytest.approx(0.01, rel=0.01)
        loss = network.loss(np.random.rand(20, 1, 28, 28), np.arange(20) % 10)
        assert loss == pytest.approx(np.log(10), abs=0.01)

    @pytest.mark.parametrize("one_hot", [False, True])
    def test_numerical_gradient_is_that_of_back_propagation(self, one_hot: bool) -> None:
        """With weights so large that no step of 1e-4 takes anything across a kink."""
        x, t = np.random.randn(2, 1, 8, 8), np.array([0, 3])
        network = make_network(std=0.5)
        labels = np.eye(4)[t] if one_hot else t
        found, wanted = network.gradient(x, labels), network.numerical_gradient(x, labels)
        assert list(found) == list(wanted) == list(network.params)
        for key, gradient in found.items():
            assert np.abs(gradient).max() > 1e-5
            np.testing.assert_allclose(gradient, wanted[key], atol=1e-6, err_msg=key)

    def test_accuracy_counts_every_image(self, images: Images) -> None:
        network = make_network()
        predicted = network.predict(images[0]).argmax(axis=1)
        t = predicted.copy()
        t[[0, 39]] = (t[[0, 39]] + 1) % 4
        assert network.accuracy(images[0], t, batch_size=15) == 0.95
        assert network.accuracy(images[0], np.eye(4)[t]) == 0.95


class TestTrainer:
    def test_learns(self, images: Images) -> None:
        lines: list[str] = []
        network = make_network()
        trainer = Trainer(
            network,
            *images,
            *images,
            epochs=20,
            mini_batch_size=15,
            optimizer="Adam",
            optimizer_param={"lr": 0.02},
            evaluate_sample_num_per_epoch=30,
            on_line=lines.append,
        )
        trainer.train()
        assert trainer.max_iter == len(trainer.train_loss_list) == 40
        assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == trainer.current_epoch == 20
        assert trainer.train_loss_list[-1] < 0.1
        assert network.accuracy(*images) == 1
        assert lines[0].startswith("step 1 of 40: training loss 1.")
        assert lines[1].startswith("epoch 1 of 20: ")
        assert lines[-1] == "final test accuracy 1.0000"
        assert len(lines) == 40 + 20 + 1

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_every_optimizer_lowers_the_loss_in_place(self, images: Images, name: str) -> None:
        network = make_network()
        w, before = network.params["W1"], network.loss(*images)
        arguments = (*images, *images, 5, 20, name.upper(), {"lr": 0.005}, None, False)
        Trainer(network, *arguments).train()
        assert network.params["W1"] is w is network.layers["Conv1"].W
        assert network.loss(*images) < before

    def test_lines_go_to_stderr(self, images: Images, capsys: pytest.CaptureFixture[str]) -> None:
        for verbose in (True, False):
            Trainer(make_network(), *images, *images, 1, 40, verbose=verbose).train()
        captured = capsys.readouterr()
        assert captured.out == ""
        heads = [line.split()[0] for line in captured.err.splitlines()]
        assert heads == ["step", "epoch", "final"]

    def test_refusal(self, images: Images) -> None:
        with pytest.raises(ConfigError, match=r"^optimizer: 'Adan' is not known; did you mean adam\?$"):
            Trainer(make_network(), *images, *images, optimizer="Adan")


class TestOptimizers:
    """Two steps, as the formulas have them, also on arrays whose elements lie apart."""

    W = np.array([[1.0, -2.0]])
    G: tuple[Array, ...] = (np.array([[0.5, 0.25]]), np.array([[-1.0, 3.0]]))

    def run(self, rule: Any, scattered: bool = False) -> Array:
        w = np.zeros((1, 4))[:, ::2] if scattered else np.zeros((1, 2))
        w[...] = self.W
        for g in self.G:
            rule.update({"W1": w}, {"W1": g})
        return w

    def test_sgd(self) -> None:
        np.testing.assert_allclose(self.run(optimizer.SGD(0.1)), self.W - 0.1 * sum(self.G))

    def test_momentum(self) -> None:
        first = -0.1 * self.G[0]
        second = 0.8 * first - 0.1 * self.G[1]
        np.testing.assert_allclose(self.run(optimizer.Momentum(0.1, 0.8)), self.W + first + second)

    def test_nesterov_looks_ahead(self) -> None:
        """theta + mu v is what the formula moves, theta being where plain momentum would stand."""
        theta, v = self.W, np.zeros((1, 2))
        for g in self.G:
            v = 0.8 * v - 0.1 * g
            theta = theta + v
        np.testing.assert_allclose(self.run(optimizer.Nesterov(0.1, 0.8)), theta + 0.8 * v)

    def test_adagrad(self) -> None:
        w, h = self.W, np.zeros((1, 2))
        for g in self.G:
            h = h + g * g
            w = w - 0.1 * g / (np.sqrt(h) + 1e-7)
        np.testing.assert_allclose(self.run(optimizer.AdaGrad(0.1)), w)

    def test_rmsprop(self) -> None:
        w, h = self.W, np.zeros((1, 2))
        for g in self.G:
            h = 0.9 * h + 0.1 * g * g
            w = w - 0.1 * g / (np.sqrt(h) + 1e-7)
        np.testing.assert_allclose(self.run(optimizer.RMSprop(0.1, 0.9)), w)

    @pytest.mark.parametrize("scattered", [False, True])
    def test_adam(self, scattered: bool) -> None:
        """With gradients so small that the book's place for 1e-7, before the correction, shows."""
        w, m, v = self.W, np.zeros((1, 2)), np.zeros((1, 2))
        small = [1e-6 * g for g in self.G]
        for t, g in enumerate(small, 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        self.G = tuple(small)
        np.testing.assert_allclose(self.run(optimizer.Adam(0.1), scattered), w, rtol=1e-12)


class TestSavedParameters:
    def test_round_trip(self, tmp_path: Path, images: Images) -> None:
        trained, fresh = make_network(), make_network()
        trained.save_params(tmp_path / "params.pkl")
        assert not np.array_equal(trained.predict(images[0]), fresh.predict(images[0]))
        fresh.load_params(tmp_path / "params.pkl")
        np.testing.assert_array_equal(trained.predict(images[0]), fresh.predict(images[0]))
        assert fresh.layers["Conv1"].W is fresh.params["W1"]

    def test_a_pickle_is_refused_and_not_run(self, tmp_path: Path) -> None:
        class Hostile:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "run",)

        path = tmp_path / "params.pkl"
        path.write_bytes(pickle.dumps({"W1": Hostile()}))
        with pytest.raises(
            CheckpointError, match=r"params\.pkl: not a safetensors file.*pickles are never read$"
        ):
            make_network().load_params(path)
        assert not (tmp_path / "run").exists()

    def test_refusals_change_nothing(self, tmp_path: Path) -> None:
        network = make_network()
        before = {key: w.copy() for key, w in network.params.items()}
        path = tmp_path / "params"
        with pytest.raises(CheckpointError, match=r"params: No such file"):
            network.load_params(path)
        save_arrays(path, {key: w + 1 for key, w in before.items() if key != "b3"})
        with pytest.raises(CheckpointError, match=r"params: b3: nothing where shape \(4,\) is needed$"):
            network.load_params(path)
        save_arrays(path, before | {"W3": np.zeros((3, 3))})
        with pytest.raises(CheckpointError, match=r"W3: \(3, 3\) where shape \(10, 4\) is needed$"):
            network.load_params(path)
        for key, w in network.params.items():
            np.testing.assert_array_equal(w, before[key])
        with pytest.raises(RunError, match="No such file"):
            network.save_params(tmp_path / "missing" / "params")


class TestMnist:
    def test_forms(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        write_mnist(tmp_path / "mnist")
        monkeypatch.setenv("CNNCTL_DATA_DIR", str(tmp_path))
        pixels = np.arange(200, dtype=np.uint8).reshape(10, 1, 5, 4)
        (x, t), (x_test, t_test) = load_mnist()
        assert (x.dtype, x.shape, t.dtype) == (np.float32, (10, 20), np.uint8)
        np.testing.assert_allclose(x, pixels.reshape(10, 20) / 255, rtol=1e-6)
        assert t.tolist() == t_test.tolist() == list(range(10))
        np.testing.assert_array_equal(x, x_test)
        (x, t), _ = load_mnist(normalize=False, flatten=False, one_hot_label=True)
        assert x.dtype == np.uint8
        np.testing.assert_array_equal(x, pixels)
        np.testing.assert_array_equal(t, np.eye(10))

    @pytest.mark.data
    def test_real_digits(self) -> None:
        (x_train, t_train), (x_test, t_test) = load_mnist(flatten=False)
        assert (x_train.shape, t_train.shape) == ((60_000, 1, 28, 28), (60_000,))
        assert (x_test.shape, t_test.shape) == ((10_000, 1, 28, 28), (10_000,))
        assert (x_train.min(), x_train.max()) == (0, 1)
        network = SimpleConvNet(conv_param={"filter_num": 6, "filter_size": 5, "pad": 0, "stride": 1})
        trainer = Trainer(
            network,
            x_train[:1000],
            t_train[:1000],
            x_test[:300],
            t_test[:300],
            epochs=3,
            optimizer="Adam",
            optimizer_param={"lr": 0.01},
            evaluate_sample_num_per_epoch=100,
            verbose=False,
        )
        trainer.train()
        assert network.accuracy(x_test[:300], t_test[:300]) > 0.7


def test_all_names_are_there() -> None:
    assert {name for name in dlfs.__all__ if not hasattr(dlfs, name)} == set()
    assert {"Convolution", "Pooling", "Affine", "Relu", "SoftmaxWithLoss", "im2col", "col2im"} <= {
        *dlfs.__all__
    }
