"""What a network sees: gradients by differences, known maps, components against the full SVD."""

import numpy as np
import pytest

from cnnctl.backends import create_backend
from cnnctl.data import Normalizer, Split
from cnnctl.errors import ConfigError, DataError, RunError
from cnnctl.nn import (
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    Network,
    ReLU,
    Residual,
    SquaredError,
    Tanh,
)
from cnnctl.train import insight
from cnnctl.train.api import embed, load_trained, train
from cnnctl.train.initial import read_initial_filters
from cnnctl.train.run_directory import RunDirectory
from cnnctl.train.trained import Trained

SHAPE = (2, 4, 5)


def make_trained(layers, shape=SHAPE, loss=None):
    """A network of random weights and statistics that reads pixels through a scale and a shift."""
    network = Network(layers, shape, dtype="float64", seed=3, loss=loss)
    rng = np.random.default_rng(0)
    for array in network.statistics.values():
        np.copyto(array, rng.uniform(0.5, 2, array.shape))
    network.freeze()
    normalizer = Normalizer(np.linspace(0.01, 0.03, shape[0]), rng.normal(size=shape))
    classes = tuple("abcdefghij"[: network.label_count])
    return Trained(network, create_backend("im2col", 1), normalizer, classes, "uint8", 7, "here")


@pytest.fixture
def trained():
    layers = [
        Conv(3, 3, padding=1),
        BatchNorm(),
        Residual([Conv(3, 3, padding=1), Tanh()], [Conv(3, 1)]),
        Dropout(0.5),
        Flatten(),
        Linear(6),
        Tanh(),
        Linear(3),
    ]
    return make_trained(layers)


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture(scope="module")
def run(pristine_config, tmp_path_factory):
    return train(pristine_config, runs_dir=tmp_path_factory.mktemp("runs"))


def differentiate(trained, image, label, rival=None, step=1e-3):
    """d score / d pixel by central differences, of the scores that evaluation gives."""

    def score(at):
        scores = trained.score(at[None])[0]
        return scores[label] - (0 if rival is None else scores[rival])

    gradient = np.empty(image.shape)
    for at in np.ndindex(image.shape):
        nudge = np.zeros(image.shape)
        nudge[at] = step
        gradient[at] = (score(image + nudge) - score(image - nudge)) / (2 * step)
    return gradient


class TestGradient:
    @pytest.mark.parametrize(("label", "rival"), [(0, None), (2, None), (1, 0)])
    def test_it_is_that_of_the_score_by_differences(self, trained, pixels, label, rival):
        images = np.stack([pixels, pixels[:, ::-1]]).astype(np.float64)
        gradient = insight.compute_gradient(trained, images, label, rival)
        for image, found in zip(images, gradient, strict=True):
            assert found == pytest.approx(differentiate(trained, image, label, rival), rel=1e-5, abs=1e-9)

    @pytest.mark.parametrize("label", [0, 1])
    def test_one_score_alone_falls_for_the_first_class_and_rises_for_the_second(self, pixels, label):
        trained = make_trained([Linear(4), Tanh(), Linear(1)], loss=SquaredError())
        image = pixels.astype(np.float64)
        found = insight.compute_gradient(trained, image[None], label)[0]
        assert found == pytest.approx(differentiate(trained, image, label), rel=1e-5, abs=1e-9)

    def test_nothing_of_the_network_changes(self, trained, pixels):
        arrays = {**trained.network.params, **trained.network.statistics}
        before = {key: array.copy() for key, array in arrays.items()}
        insight.compute_saliency(trained, pixels, 0, smooth=3)
        assert all(np.array_equal(array, before[key]) for key, array in arrays.items())


class TestSaliency:
    def test_the_map_is_the_strongest_channel(self, trained, pixels):
        found = insight.compute_saliency(trained, pixels, 1)
        expected = abs(differentiate(trained, pixels.astype(np.float64), 1)).max(axis=0)
        assert found.map == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert (found.smoothed, found.smoothed_map) == (None, None)

    def test_smoothing_is_the_mean_over_noisy_copies(self, trained, pixels, monkeypatch):
        monkeypatch.setattr(insight, "BATCH_SIZE", 4)
        seen = []

        def remember(trained, images, label, original=insight.compute_gradient):
            seen.extend(images)
            return original(trained, images, label)

        monkeypatch.setattr(insight, "compute_gradient", remember)
        found = insight.compute_saliency(trained, pixels, 1, smooth=200)
        copies = np.array(seen[1:])
        assert copies.shape == (200, *SHAPE)
        gradients = [differentiate(trained, copy, 1) for copy in copies[:5]]
        again = insight.compute_saliency(trained, pixels, 1, smooth=5)
        assert again.smoothed == pytest.approx(np.mean(gradients, axis=0), rel=1e-4, abs=1e-9)
        noise = (copies - pixels) / (int(pixels.max()) - int(pixels.min()))
        assert noise.std() == pytest.approx(insight.NOISE, rel=0.05)
        assert abs(noise.mean()) < 0.01
        assert np.array_equal(
            found.smoothed, insight.compute_saliency(trained, pixels, 1, smooth=200).smoothed
        )

    def test_of_a_linear_network_both_are_its_weights(self, pixels):
        trained = make_trained([Linear(3)])
        found = insight.compute_saliency(trained, pixels, 2, smooth=9)
        expected = (
            trained.network.params["linear1.weight"][2].reshape(SHAPE)
            * trained.normalizer.scale[:, None, None]
        )
        assert found.gradient == pytest.approx(expected)
        assert found.smoothed == pytest.approx(expected)


class TestFooling:
    def test_every_other_class_can_win_and_the_image_says_so(self, trained, pixels):
        first = trained.score(pixels[None])[0].argmax()
        for label in {0, 1, 2} - {first}:
            found = insight.fool(trained, pixels, label)
            assert found.won
            assert found.image.dtype == np.uint8
            assert np.array_equal(trained.score(found.image[None])[0], found.after)
            assert found.after.argmax() == label
            assert found.before.argmax() == first
            distance = np.sqrt(np.mean((found.image - pixels.astype(float)) ** 2))
            assert 0 < distance <= found.steps * insight.STEP_LEVELS + 0.5

    def test_a_class_that_has_won_already_needs_no_step(self, trained, pixels):
        label = int(trained.score(pixels[None])[0].argmax())
        found = insight.fool(trained, pixels, label)
        assert (found.won, found.steps) == (True, 0)
        assert np.array_equal(found.image, pixels)

    def test_it_gives_up_after_the_steps(self, pixels):
        trained = make_trained([Linear(2)])
        first = int(trained.score(pixels[None])[0].argmax())
        trained.network.params["linear1.bias"][first] += 1e6
        found = insight.fool(trained, pixels, 1 - first, steps=3)
        assert (found.won, found.steps) == (False, 3)
        assert not np.array_equal(found.image, pixels)

    def test_it_gives_up_where_there_is_no_slope(self, pixels):
        trained = make_trained([Linear(3), ReLU(), Linear(2)])
        trained.network.params["linear1.bias"][...] = -1e6
        trained.network.params["linear2.bias"][...] = [1, 0]
        found = insight.fool(trained, pixels, 1)
        assert (found.won, found.steps) == (False, 0)


class TestFeatureMaps:
    def test_they_are_what_the_network_computes(self, trained, pixels):
        maps = insight.compute_feature_maps(trained, pixels)
        assert list(maps) == ["conv1", "batchnorm1", "residual1", "linear1", "tanh1", "linear2"]
        assert [maps[name].shape for name in ("conv1", "residual1", "linear1")] == [
            (3, 4, 5),
            (3, 4, 5),
            (6,),
        ]
        x, network, backend = trained.normalize(pixels[None]), trained.network, trained.backend
        conv = network.layers[0].forward(x, backend, training=False)
        assert np.array_equal(maps["conv1"], conv[0])
        assert maps["linear2"] == pytest.approx(trained.score(pixels[None])[0])

    def test_a_layer_in_a_block_reads_what_the_block_reads(self, trained, pixels):
        block = insight.compute_feature_maps(trained, pixels, "residual1")["residual1"]
        main = insight.compute_feature_maps(trained, pixels, "residual1.tanh1")["residual1.tanh1"]
        (name, shortcut), *_ = insight.compute_feature_maps(
            trained, pixels, "residual1.shortcut.conv1"
        ).items()
        assert name == "residual1.shortcut.conv1"
        assert block == pytest.approx(main + shortcut)

    def test_a_misspelt_layer(self, trained, pixels):
        with pytest.raises(
            ConfigError, match=r"layer: 'residual1\.conv2' is not known; did you mean residual1\.conv1"
        ):
            insight.compute_feature_maps(trained, pixels, "residual1.conv2")


class TestFindConv:
    def test_the_first_unless_another_is_named(self, trained):
        assert insight.find_conv(trained.network).name == "conv1"
        assert insight.find_conv(trained.network, "residual1.conv1").name == "residual1.conv1"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("conv2", "layer: 'conv2' is not known; did you mean conv1?"),
            ("linear1", "layer: 'linear1' is a linear layer and has no filters; known: conv1, residual1"),
        ],
    )
    def test_others_are_refused_with_the_alternatives(self, trained, name, message):
        with pytest.raises(ConfigError) as caught:
            insight.find_conv(trained.network, name)
        assert str(caught.value).startswith(message)

    def test_a_network_without_any(self):
        with pytest.raises(ConfigError, match="no convolution"):
            insight.find_conv(Network([Linear(2)], SHAPE))


class TestProjection:
    @pytest.mark.parametrize("shape", [(200, 40), (12, 300), (5, 3), (3, 2)])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_it_is_that_of_the_full_svd(self, rng, shape, dtype):
        spread = np.concatenate([[9.0, 5.0], np.linspace(2, 1, shape[1] - 2)])
        values = (rng.normal(size=shape) * spread + 3).astype(dtype)
        points, explained = insight.project(values)
        centred = values - values.mean(axis=0, dtype=np.float64)
        U, S, Vt = np.linalg.svd(centred, full_matrices=False)
        expected = U[:, :2] * S[:2]
        tolerance = 1e-3 if dtype == "float32" else 1e-5
        for k in range(2):
            sign = np.sign(Vt[k][abs(Vt[k]).argmax()])
            assert points[:, k] == pytest.approx(sign * expected[:, k], abs=tolerance * S[0])
        assert explained == pytest.approx((S**2 / (S**2).sum())[:2], rel=1e-3)

    def test_components_that_do_not_exist_are_zero(self):
        points, explained = insight.project(np.array([[1.0], [2.0], [6.0]]))
        assert points == pytest.approx(np.array([[-2, 0], [-1, 0], [3, 0]]))
        assert explained == pytest.approx((1, 0))
        points, explained = insight.project(np.ones((4, 3)))
        assert not points.any()
        assert explained == (0, 0)


class TestEmbedding:
    @pytest.fixture
    def split(self, rng):
        return Split(rng.integers(0, 256, (130, *SHAPE), dtype=np.uint8), rng.integers(0, 3, 130))

    def test_the_last_hidden_layer_is_what_the_last_weights_read(self, trained, split):
        found = insight.compute_embedding(trained, split)
        assert (found.layer, found.values, found.step) == ("tanh1", 6, 7)
        hidden = [insight.compute_feature_maps(trained, image, "tanh1")["tanh1"] for image in split.images]
        assert found.points == pytest.approx(insight.project(np.array(hidden))[0], abs=1e-8)
        assert np.array_equal(found.labels, split.labels)
        assert np.array_equal(found.predicted, trained.score(split.images).argmax(axis=1))

    def test_what_a_convolution_reads_is_averaged_over_its_pixels(self, split):
        trained = make_trained([Conv(4, 3), ReLU(), Conv(3, 1), GlobalAvgPool()])
        found = insight.compute_embedding(trained, split)
        assert (found.layer, found.values) == ("relu1", 4)
        hidden = [insight.compute_feature_maps(trained, image, "relu1")["relu1"] for image in split.images]
        expected = insight.project(np.array(hidden).mean(axis=(2, 3)))[0]
        assert found.points == pytest.approx(expected, abs=1e-8)

    def test_a_network_of_one_layer_has_no_hidden_one(self, split):
        with pytest.raises(ConfigError, match="no hidden layer"):
            insight.compute_embedding(make_trained([Linear(3), BatchNorm()]), split)


class TestRuns:
    def test_the_first_filters_are_kept_as_they_began(self, run):
        network = run.network()
        kept = read_initial_filters(RunDirectory(run.path), "conv1", (3, 1, 3, 3))
        assert not np.array_equal(kept, network.params["conv1.weight"])
        fresh = Network([Conv(3, 3)], (1, 8, 8), seed=231)
        assert np.array_equal(kept, fresh.params["conv1.weight"])

    @pytest.mark.parametrize(
        ("change", "layer", "message"),
        [
            (lambda path: path.unlink(), "conv1", "not there: a run from before"),
            (lambda path: path.write_bytes(b"{"), "conv1", "unreadable: "),
            (lambda path: None, "conv2", "keeps how conv1 began, not conv2"),
            (
                lambda path: None,
                "conv1",
                r"conv1\.weight is \(3, 1, 3, 3\) where the layer has \(3, 1, 5, 5\)",
            ),
        ],
    )
    def test_filters_that_are_not_there_are_one_line(self, run, change, layer, message, tmp_path):
        path = tmp_path / "initial.safetensors"
        path.write_bytes((run.path / path.name).read_bytes())
        change(path)
        with pytest.raises(RunError, match=message) as caught:
            read_initial_filters(RunDirectory(tmp_path), layer, (3, 1, 5, 5))
        assert "\n" not in str(caught.value)

    def test_a_network_without_convolution_keeps_none(self, config, tmp_path):
        config["network"]["layers"] = [{"linear": 4}]
        run = train(config, runs_dir=tmp_path)
        assert not (run.path / "initial.safetensors").exists()

    def test_a_trained_network_answers_as_training_ended(self, run, images):
        trained = load_trained(run)
        with np.load(images) as arrays:
            predicted = trained.score(arrays["x_test"]).argmax(axis=1)
            assert np.mean(predicted == arrays["y_test"]) == run.test.accuracy
            assert np.array_equal(embed(run).predicted, predicted)
        assert (trained.step, trained.classes) == (21, ("0", "1", "2", "3"))

    def test_it_answers_and_is_differentiated_by_the_statistics_of_the_checkpoint(
        self, config, images, tmp_path
    ):
        config["network"]["layers"][1:1] = ["batchnorm", {"dropout": 0.5}]
        config["engine"]["dtype"] = "float64"
        run = train(config, runs_dir=tmp_path)
        trained = load_trained(run)
        for key, array in run.network().statistics.items():
            assert np.array_equal(array, trained.network.statistics[key])
        with np.load(images) as arrays:
            pixels = arrays["x_test"].astype(np.float64)
            assert np.mean(trained.score(pixels).argmax(axis=1) == arrays["y_test"]) == run.test.accuracy
        gradient = insight.compute_gradient(trained, pixels[:1], 2)[0]
        assert gradient == pytest.approx(differentiate(trained, pixels[0], 2), rel=1e-5, abs=1e-9)

    def test_classes_by_name_or_number(self):
        trained = make_trained([Linear(3)])
        assert [trained.find_class(word) for word in ("b", "2")] == [1, 2]
        for word in ("3", "-1", "x", "", "²", "1" * 99):
            with pytest.raises(ConfigError, match=f"class: '{word}' is not known; known: a, b, c"):
                trained.find_class(word)

    def test_floats_of_an_unknown_range_are_refused_for_files_alone(self, config, tmp_path, images):
        with np.load(images) as arrays:
            floats = {key: array / 255 if array.ndim == 4 else array for key, array in arrays.items()}
        np.savez(tmp_path / "floats.npz", **floats)
        config["data"]["path"] = str(tmp_path / "floats.npz")
        run = train(config, runs_dir=tmp_path / "runs")
        assert len(embed(run).points) == 20
        with pytest.raises(DataError, match="learnt from float32 pixels"):
            load_trained(run).check_pixels()
