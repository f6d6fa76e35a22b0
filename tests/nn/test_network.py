"""Networks: names, seeds, parameters, the loss and its penalty, and construction that fails cleanly."""

from math import log

import numpy as np
import pytest

from cnnctl.backends.specs import Array
from cnnctl.errors import CnnctlError, ConfigError, DtypeError, ShapeError
from cnnctl.nn import Conv, Flatten, Gaussian, Linear, MaxPool, Network, ReLU
from cnnctl.optim import Adam

INPUT_SHAPE = (1, 6, 7)


def make_layers():
    return [Conv(4, 3), ReLU(), MaxPool(2), Linear(8), ReLU(), Linear(10)]


def make_batch(dtype="float32", size=5) -> tuple[Array, Array]:
    rng = np.random.default_rng(9)
    return rng.normal(size=(size, *INPUT_SHAPE)).astype(dtype), rng.integers(0, 10, size)


class TestNames:
    def test_layers_are_numbered_within_their_kind(self):
        names = [layer.name for layer in Network(make_layers(), INPUT_SHAPE).layers]
        assert names == ["conv1", "relu1", "maxpool1", "linear1", "relu2", "linear2"]

    def test_a_named_layer_counts_too(self):
        network = Network([Linear(3), Linear(3, name="middle"), Linear(3)], (3,))
        assert [layer.name for layer in network.layers] == ["linear1", "middle", "linear3"]

    @pytest.mark.parametrize(
        ("layers", "name"),
        [
            ([ReLU(name="a"), Linear(3, name="a")], "a"),
            ([Linear(3, name="linear2"), Linear(3)], "linear2"),
        ],
    )
    def test_a_name_belongs_to_one_layer(self, layers, name):
        with pytest.raises(ConfigError, match=f"name: '{name}' is the name of two layers"):
            Network(layers, (3,))


class TestConstruction:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"layers": []}, ConfigError, "layers: a network without layers"),
            ({"layers": [ReLU]}, ConfigError, "layers: .*ReLU.* is not a layer; give instances"),
            ({"layers": ["relu"]}, ConfigError, "layers: 'relu' is not a layer"),
            ({"input_shape": (6, 7)}, ShapeError, r"input_shape: \(6, 7\) is neither \(C, H, W\) nor \(D,\)"),
            ({"input_shape": (1, 0, 7)}, ShapeError, "input_shape: 0 is below 1"),
            ({"input_shape": (1, 6.0, 7)}, ShapeError, r"input_shape: 6\.0 is not an integer"),
            ({"dtype": "float16"}, DtypeError, "dtype: 'float16' is neither float32 nor float64"),
            ({"dtype": "flaot32"}, DtypeError, "dtype: 'flaot32' is neither"),
            ({"dtype": ">f4"}, DtypeError, "dtype: '>f4' is neither"),
            ({"dtype": None}, DtypeError, "dtype: None is neither"),
            ({"seed": -1}, ConfigError, "seed: -1 is not an integer of at least 0"),
            ({"seed": 1.5}, ConfigError, r"seed: 1\.5 is not"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, error, message):
        with pytest.raises(error, match=f"^{message}"):
            Network(**{"layers": make_layers(), "input_shape": INPUT_SHAPE} | arguments)

    @pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32")])
    def test_a_dtype_may_be_spelt_as_numpy_spells_it(self, dtype):
        assert Network([ReLU()], (3,), dtype=dtype).dtype == np.dtype("float32")

    def test_a_misfit_names_its_layer_and_leaves_all_layers_fresh(self):
        layers = [Conv(4, 3), ReLU(), Conv(4, 5), Linear(3)]
        with pytest.raises(ShapeError, match=r"^conv2: kernel spans 5 pixels of height, more than the 4 of"):
            Network(layers, INPUT_SHAPE)
        assert all(layer.name == "" and not layer.params for layer in layers)
        assert Network(layers, (1, 9, 9)).output_shape == (3,)

    def test_the_same_layer_cannot_stand_twice(self):
        relu = ReLU()
        with pytest.raises(ConfigError, match="relu2: the same relu layer stands in the network twice"):
            Network([Linear(3), relu, Linear(3), relu], (3,))

    def test_layers_of_one_network_cannot_go_into_another(self):
        first, fresh = Network(make_layers(), INPUT_SHAPE), ReLU()
        with pytest.raises(ConfigError, match=r"^conv1: this layer is in a network already"):
            Network([fresh, *first.layers], INPUT_SHAPE)
        assert Network([fresh], (3,)).output_shape == (3,)

    def test_vectors_are_inputs_too(self):
        assert Network([Linear(4), ReLU(), Linear(2)], (3,)).output_shape == (2,)


class TestSeeds:
    def test_both_dtypes_start_alike(self):
        single = Network(make_layers(), INPUT_SHAPE, dtype="float32", seed=5).params
        double = Network(make_layers(), INPUT_SHAPE, dtype="float64", seed=5).params
        assert single.keys() == double.keys()
        for key, w in double.items():
            assert (single[key].dtype, w.dtype) == (np.float32, np.float64)
            assert np.array_equal(single[key], w.astype(np.float32))

    def test_a_seed_settles_the_weights(self):
        first, again, other = (Network(make_layers(), INPUT_SHAPE, seed=seed).params for seed in (5, 5, 6))
        for key in ("conv1.weight", "linear1.weight", "linear2.weight"):
            assert np.array_equal(first[key], again[key])
            assert not np.isclose(first[key], other[key]).any()

    def test_layer_i_draws_from_stream_i(self):
        """So a change to one layer leaves the start of the others as it was."""
        network = Network([ReLU(), Linear(4), Linear(4)], (4,), dtype="float64", seed=8, init=Gaussian(1.0))
        for index, key in [(1, "linear1.weight"), (2, "linear2.weight")]:
            expected = np.random.default_rng([8, index]).normal(size=(4, 4))
            assert np.array_equal(network.params[key], expected)


class TestParameters:
    def test_params_and_grads_have_the_same_keys_in_the_same_order(self, backend):
        network = Network(make_layers(), INPUT_SHAPE)
        assert network.grads == {}
        _, grads = network.loss_and_grads(*make_batch(), backend)
        keys = [f"{name}.{key}" for name in ("conv1", "linear1", "linear2") for key in ("weight", "bias")]
        assert list(network.params) == list(grads) == list(network.grads) == keys
        for key, w in network.params.items():
            assert (grads[key].shape, grads[key].dtype) == (w.shape, w.dtype)

    def test_params_are_the_networks_own_arrays(self, backend):
        network = Network(make_layers(), INPUT_SHAPE)
        network.params["linear2.weight"][...] = 0
        network.params["linear2.bias"][...] = np.arange(10)
        assert network.forward(make_batch()[0], backend).tolist() == [list(range(10))] * 5

    def test_loading_copies_into_place(self):
        source = Network(make_layers(), INPUT_SHAPE, seed=1).params
        network = Network(make_layers(), INPUT_SHAPE, seed=2)
        own = network.params
        network.load_params(source)
        for key, w in network.params.items():
            assert w is own[key]
            assert w is not source[key]
            assert np.array_equal(w, source[key])

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (
                {"linear9.weight": np.zeros(1)},
                ConfigError,
                "params: 'linear9.weight' is not known; did you mean",
            ),
            (
                {"linear2.bias": None},
                ConfigError,
                r"params: linear2\.bias is missing; needed: conv1\.weight,",
            ),
            (
                {"linear2.bias": np.zeros(9, "float32")},
                ShapeError,
                r"params: linear2\.bias: shape \(9,\) where \(10,\) is needed",
            ),
            (
                {"linear2.bias": np.zeros(10)},
                DtypeError,
                r"params: linear2\.bias: dtype float64 where float32 is needed",
            ),
        ],
    )
    def test_loading_what_does_not_fit_changes_nothing(self, change, error, message):
        network = Network(make_layers(), INPUT_SHAPE)
        before = {key: w.copy() for key, w in network.params.items()}
        wrong = {key: w + 1 for key, w in before.items()} | change
        with pytest.raises(error, match=f"^{message}"):
            network.load_params({key: w for key, w in wrong.items() if w is not None})
        assert all(np.array_equal(w, before[key]) for key, w in network.params.items())


class TestRunning:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("size", [0, 1, 5])
    def test_batches_of_any_size_keep_the_dtype(self, backend, dtype, size):
        network = Network(make_layers(), INPUT_SHAPE, dtype=dtype)
        x, labels = make_batch(dtype, size)
        assert network.forward(x, backend).dtype == dtype
        loss, grads = network.loss_and_grads(x, labels, backend, l2=0.1)
        assert isinstance(loss, float)
        assert all(dw.dtype == dtype for dw in grads.values())

    def test_images_do_not_influence_one_another(self, backend):
        network = Network(make_layers(), INPUT_SHAPE)
        x, _ = make_batch()
        together = network.forward(x, backend)
        alone = np.concatenate([network.forward(x[n : n + 1], backend) for n in range(len(x))])
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
        assert np.ptp(together) > 0.1

    def test_inputs_of_another_dtype_or_shape_are_refused(self, backend):
        network = Network(make_layers(), INPUT_SHAPE)
        x, _ = make_batch("float64")
        with pytest.raises(
            DtypeError, match=r"^conv1: x: dtype float64 where .* convert it with x\.astype\('float32'\)"
        ):
            network.forward(x, backend)
        with pytest.raises(ShapeError, match=r"^conv1: x: shape \(6, 7\) is not \(N, 1, 6, 7\)"):
            network.forward(x[0, 0], backend)

    def test_the_input_gradient_is_computed_on_demand(self, backend):
        network = Network(make_layers(), INPUT_SHAPE)
        x, _ = make_batch()
        dscores = np.ones_like(network.forward(x, backend, training=True))
        assert network.backward(dscores, backend) is None
        dx = network.backward(dscores, backend, need_dx=True)
        assert dx.shape == x.shape
        assert dx.any()

    @pytest.mark.parametrize(
        ("make_layer", "operation"),
        [(lambda: Conv(2, 3), "conv_backward"), (lambda: Linear(2), "linear_backward")],
    )
    def test_the_first_layers_input_gradient_is_not_even_computed(
        self, backend, monkeypatch, make_layer, operation
    ):
        wanted = []
        compute = getattr(type(backend), operation)

        def record(*arguments, need_dx):
            wanted.append(need_dx)
            return compute(*arguments, need_dx=need_dx)

        monkeypatch.setattr(type(backend), operation, record)
        network = Network([make_layer()], INPUT_SHAPE)
        scores = network.forward(make_batch()[0], backend, training=True)
        network.backward(scores, backend)
        network.backward(scores, backend, need_dx=True)
        assert wanted == [False, True]

    def test_backward_needs_a_training_pass(self, backend):
        network = Network(make_layers(), INPUT_SHAPE)
        scores = network.forward(make_batch()[0], backend)
        with pytest.raises(CnnctlError, match=r"^linear2: backward needs a forward pass with training=True"):
            network.backward(scores, backend)

    def test_a_network_without_a_classifier_runs_too(self, backend):
        network = Network([Conv(2, 3), Flatten()], INPUT_SHAPE)
        assert network.forward(make_batch()[0], backend).shape == (5, 40)

    def test_adam_learns_a_batch_by_heart(self, backend):
        network = Network(make_layers(), INPUT_SHAPE, seed=3)
        x, labels = make_batch()
        optimizer = Adam(lr=0.03)
        slots = {
            key: {slot: np.zeros_like(w) for slot in optimizer.slots} for key, w in network.params.items()
        }
        first, _ = network.loss_and_grads(x, labels, backend)
        for step in range(1, 41):
            loss, grads = network.loss_and_grads(x, labels, backend)
            for key, w in network.params.items():
                optimizer.update(backend, w, grads[key], slots[key], step, l2=0.0)
        assert loss < 0.1 * first
        assert np.array_equal(network.forward(x, backend).argmax(axis=1), labels)


class TestLoss:
    def test_it_starts_at_log_classes_and_rises_with_l2(self, backend):
        network = Network(make_layers(), INPUT_SHAPE, init=Gaussian(0.01))
        x, labels = make_batch(size=20)
        losses = [network.loss_and_grads(x, labels, backend, l2=l2)[0] for l2 in (0.0, 0.1, 1.0)]
        assert losses[0] == pytest.approx(log(10), rel=0.01)
        assert losses[0] < losses[1] < losses[2]

    def test_the_penalty_is_half_l2_times_the_squared_weights(self):
        network = Network([Conv(2, 1), Linear(1)], (1, 1, 2), dtype="float64")
        network.params["conv1.weight"][...] = 3
        network.params["linear1.weight"][...] = [[1, 2, -1, -2]]
        for key in ("conv1.bias", "linear1.bias"):
            network.params[key][...] = 1000
        assert network.penalty(l2=0.5) == 0.5 * 0.5 * (2 * 9 + 10)
        assert network.penalty() == 0
        assert network.penalty(l1=0.5) == 0.5 * (2 * 3 + 6)

    def test_l2_pulls_at_weights_and_leaves_biases_alone(self, backend):
        network = Network(make_layers(), INPUT_SHAPE, dtype="float64")
        x, labels = make_batch("float64")
        for key in ("conv1.bias", "linear1.bias", "linear2.bias"):
            network.params[key][...] = 0.25
        _, plain = network.loss_and_grads(x, labels, backend)
        _, pulled = network.loss_and_grads(x, labels, backend, l2=0.7)
        for key, w in network.params.items():
            expected = plain[key] + 0.7 * w if key.endswith("weight") else plain[key]
            np.testing.assert_array_equal(pulled[key], expected)

    @pytest.mark.parametrize("l2", [-0.1, float("nan"), float("inf"), "0.1", None])
    def test_l2_has_to_be_a_number_of_at_least_zero(self, backend, l2):
        network = Network(make_layers(), INPUT_SHAPE)
        with pytest.raises(ConfigError, match=rf"^l2: {l2!r} is not a number in \[0, inf\)"):
            network.loss_and_grads(*make_batch(), backend, l2=l2)


class TestSummary:
    def test_a_row_tells_name_kind_shape_parameters_and_products(self):
        network = Network(make_layers(), INPUT_SHAPE)
        assert [tuple(row) for row in network.summary()] == [
            ("conv1", "conv", (4, 4, 5), 40, 20 * 36),
            ("relu1", "relu", (4, 4, 5), 0, 0),
            ("maxpool1", "maxpool", (4, 2, 2), 0, 0),
            ("linear1", "linear", (8,), 136, 128),
            ("relu2", "relu", (8,), 0, 0),
            ("linear2", "linear", (10,), 90, 80),
        ]
        assert network.parameter_count == sum(w.size for w in network.params.values()) == 266

    def test_repr_is_the_summary_as_a_table(self):
        network = Network([Conv(4, 3), Linear(1000)], (3, 9, 9), dtype="float64", seed=7)
        assert repr(network).splitlines() == [
            "Network: input (3, 9, 9), loss softmax, float64, seed 7",
            "layer    kind    output     parameters  multiply-adds",
            "conv1    conv    (4, 7, 7)         112          5,292",
            "linear1  linear  (1000,)       197,000        196,000",
            "total                          197,112        201,292",
        ]
