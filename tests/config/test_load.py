"""Files, inheritance, overrides, and the way back to YAML."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnctl.config import RunConfig, config_from_dict, config_to_dict, dump_config, load_config
from cnnctl.config.fields import MOST_PROBLEMS
from cnnctl.config.network import GaussianConfig, HeConfig, HingeConfig
from cnnctl.config.solver import AdamConfig, SGDConfig
from cnnctl.errors import ConfigError

Refusal = Callable[..., str]


def extend(file: str, text: str) -> str:
    with Path(file).open("a") as stream:
        stream.write(text)
    return file


class TestErrorsCiteTheirPlace:
    """file:line:column: field, value, what is accepted."""

    @pytest.mark.parametrize(
        ("old", "new", "line"),
        [
            (
                "optimizer:",
                "optimiser:",
                "run.yaml:6:3: solver.optimiser is not known; did you mean optimizer?",
            ),
            (
                "epochs: 3",
                "epochs: three",
                "run.yaml:7:11: solver.epochs: 'three' is not usable; give an integer of at least 1",
            ),
            (
                "1e-3",
                "-1e-3",
                "run.yaml:6:26: solver.optimizer.adam.lr: -0.001 is not usable; give a number above 0",
            ),
            ("adam", "adm", "run.yaml:6:14: solver.optimizer: 'adm' is not known; did you mean adam?"),
            (
                "  epochs: 3\n",
                "",
                "run.yaml:6:3: solver.epochs is missing (passes over the training set, at least 1)",
            ),
            (
                "dataset: mnist",
                "dataset: npz",
                "run.yaml:3:3: data.path is missing (data set npz is read from there)",
            ),
            (
                "network: networks/one.yaml\n",
                "",
                "run.yaml:1:1: network is missing (the layers, or the file that holds them)",
            ),
            (
                "networks/one",
                "networks/on",
                "run.yaml:4:10: network: networks/on.yaml: no such file; did you mean networks/one.yaml?",
            ),
            (
                "networks/one.yaml",
                "7",
                "run.yaml:4:10: network: 7 is not usable; give a mapping of layers, loss, init",
            ),
            ("name: small", "name: [", "run.yaml:3:10: not YAML: "),
        ],
    )
    def test_in_the_config(self, folder: Path, old: str, new: str, line: str, refusal: Refusal) -> None:
        file = folder / "run.yaml"
        file.write_text(file.read_text().replace(old, new))
        assert refusal(load_config, "run.yaml").startswith(line)

    @pytest.mark.parametrize(
        ("old", "new", "line"),
        [
            (
                "- relu",
                "- rely",
                "networks/one.yaml:3:5: network.layers.1: 'rely' is not known; did you mean relu?",
            ),
            ("- relu", "- conv", "networks/one.yaml:3:5: network.layers.1.conv.filters is missing"),
            (
                "filters: 4",
                "filter: 4",
                "networks/one.yaml:2:12: network.layers.0.conv.filter is not known; did you mean filters?",
            ),
            (
                "linear: 10",
                "linear: x",
                "networks/one.yaml:4:13: network.layers.2.linear.units: 'x' is not usable",
            ),
            (
                "gaussian: 0.01",
                "gaussian: 0",
                "networks/one.yaml:5:18: network.init.gaussian.std: 0 is not usable",
            ),
            ("init:", "inti:", "networks/one.yaml:5:1: network.inti is not known; did you mean init?"),
        ],
    )
    def test_in_the_network(self, folder: Path, old: str, new: str, line: str, refusal: Refusal) -> None:
        file = folder / "networks/one.yaml"
        file.write_text(file.read_text().replace(old, new))
        assert refusal(load_config, "run.yaml").startswith(line)

    @pytest.mark.parametrize(("text", "shown"), [("", "null"), ("- 1", "[1]"), ("x", "'x'")])
    def test_a_file_that_is_no_mapping(self, folder: Path, text: str, shown: str, refusal: Refusal) -> None:
        (folder / "run.yaml").write_text(text)
        assert (
            refusal(load_config, "run.yaml") == f"run.yaml:1:1: {shown} is not usable; give keys with values"
        )

    def test_a_mapping_has_no_place(self, minimal: dict[str, Any], refusal: Refusal) -> None:
        minimal["solver"]["epochs"] = 0
        assert refusal(config_from_dict, minimal).startswith("solver.epochs: 0 is not usable")
        assert refusal(config_from_dict, 3).startswith(
            "config: 3 is not usable; give a mapping of name, data"
        )

    def test_a_mapping_without_end(self, minimal: dict[str, Any], refusal: Refusal) -> None:
        minimal["data"]["data"] = minimal["data"]
        assert refusal(config_from_dict, minimal) == "config: nested deeper than 32 levels"


class TestNames:
    """What a run is called and where its files are."""

    def test_a_run_is_called_as_its_config_says_or_its_file(self, folder: Path) -> None:
        assert load_config("run.yaml").name == "small"
        text = (folder / "run.yaml").read_text().replace("name: small\n", "")
        for file, name in [("a-b.yaml", "a-b"), ("my run (2).yaml", "my-run-2-"), ("_.yaml", "run")]:
            (folder / file).write_text(text)
            assert load_config(folder / file).name == name

    def test_a_data_path_is_relative_to_the_file_that_names_it(self, folder: Path) -> None:
        (folder / "deep").mkdir()
        text = (folder / "run.yaml").read_text().replace("networks/", "../networks/")
        (folder / "deep/run.yaml").write_text(text.replace("mnist", "npz\n  path: a.npz"))
        (folder / "child.yaml").write_text("base: deep/run.yaml\n")
        assert load_config("deep/run.yaml").data.path == str(folder / "deep/a.npz")
        assert load_config("child.yaml").data.path == str(folder / "deep/a.npz")
        assert load_config("deep/run.yaml", ["data.path=b.npz"]).data.path == str(folder / "b.npz")
        assert load_config("deep/run.yaml", ["data.path=/b.npz"]).data.path == "/b.npz"

    def test_a_tilde_is_home(self, minimal: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/ada")
        minimal["data"] = {"dataset": "folder", "path": Path("~/images")}
        assert config_from_dict(minimal).data.path == "/home/ada/images"

    def test_a_mapping_may_name_a_network_file(self, folder: Path, minimal: dict[str, Any]) -> None:
        minimal["network"] = "networks/one.yaml"
        assert config_from_dict(minimal).network == load_config("run.yaml").network


class TestInheritance:
    """Mappings merge; everything else, and a choice of another kind, replaces."""

    def test_mappings_merge_and_lists_replace(self, folder: Path) -> None:
        (folder / "child.yaml").write_text(
            "base: run.yaml\nname: child\nsolver: {epochs: 9}\nnetwork: {layers: [{linear: 10}]}\n"
        )
        child = load_config("child.yaml")
        assert (child.name, child.solver.epochs, child.solver.batch_size) == ("child", 9, 100)
        assert len(child.network.layers) == 1
        assert child.network.init == GaussianConfig(std=0.01)

    def test_a_network_file_replaces_the_inherited_network_whole(self, folder: Path) -> None:
        (folder / "networks/two.yaml").write_text("layers: [{linear: 10}]\n")
        (folder / "child.yaml").write_text("base: run.yaml\nnetwork: networks/two.yaml\n")
        assert load_config("child.yaml").network.init == HeConfig()

    @pytest.mark.parametrize(
        ("optimizer", "expected"),
        [
            ("{sgd: {momentum: 0.9}}", SGDConfig(momentum=0.9)),
            ("sgd", SGDConfig()),
            ("adam", AdamConfig()),
            ("{adam: {beta1: 0.8}}", AdamConfig(lr=0.5, beta1=0.8)),
        ],
    )
    def test_an_optimizer_of_another_kind_replaces(
        self, folder: Path, optimizer: str, expected: object
    ) -> None:
        file = folder / "run.yaml"
        file.write_text(file.read_text().replace("1e-3", "0.5"))
        (folder / "child.yaml").write_text(f"base: run.yaml\nsolver: {{optimizer: {optimizer}}}\n")
        assert load_config("child.yaml").solver.optimizer == expected

    def test_a_loss_of_another_kind_replaces(self, folder: Path) -> None:
        extend("networks/one.yaml", "loss: {softmax: {smoothing: 0.1}}\n")
        (folder / "child.yaml").write_text("base: run.yaml\nnetwork: {loss: {hinge: 2}}\n")
        assert load_config("child.yaml").network.loss == HingeConfig(margin=2.0)

    def test_a_network_inherits_too(self, folder: Path) -> None:
        (folder / "networks/two.yaml").write_text("base: one.yaml\ninit: he\n")
        network = load_config("run.yaml", ["network=networks/two.yaml"]).network
        assert (len(network.layers), network.init) == (3, HeConfig())

    def test_errors_cite_the_file_they_are_in(self, folder: Path, refusal: Refusal) -> None:
        (folder / "child.yaml").write_text("base: run.yaml\nsolver:\n  epochs: 0\n")
        assert refusal(load_config, "child.yaml").startswith("child.yaml:3:11: solver.epochs: 0")
        extend("run.yaml", "  l3: 1\n")
        assert refusal(load_config, "child.yaml").startswith("run.yaml:9:3: solver.l3 is not known")

    def test_a_missing_base(self, folder: Path, refusal: Refusal) -> None:
        (folder / "child.yaml").write_text("base: runs.yaml\n")
        line = refusal(load_config, "child.yaml")
        assert line == "child.yaml:1:7: base: runs.yaml: no such file; did you mean run.yaml?"

    def test_a_base_that_is_no_name(self, folder: Path, refusal: Refusal) -> None:
        (folder / "child.yaml").write_text("base: [run.yaml]\n")
        assert refusal(load_config, "child.yaml").startswith(
            'child.yaml:1:7: base: ["run.yaml"] is not usable'
        )

    @pytest.mark.parametrize("key", ["base", "network"])
    def test_a_cycle(self, folder: Path, key: str, refusal: Refusal) -> None:
        (folder / "a.yaml").write_text("base: networks/b.yaml\n")
        (folder / "networks/b.yaml").write_text(f"{key}: ../a.yaml\n")
        line = refusal(load_config, "a.yaml")
        assert line.startswith(
            f"networks/b.yaml:1:{len(key) + 3}: {key}: networks/../a.yaml leads back to itself"
        )

    def test_a_long_chain(self, folder: Path, refusal: Refusal) -> None:
        for i in range(10):
            (folder / f"{i}.yaml").write_text(f"base: {i + 1}.yaml\n" if i < 9 else "name: x\n")
        assert refusal(load_config, "0.yaml") == (
            "7.yaml:1:7: base: 8.yaml is more than 8 files deep; inherit from fewer"
        )


class TestOverrides:
    """-o key=value: merged like an inheriting file, read as YAML, cited in errors."""

    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("solver.epochs=7", "solver.epochs", 7),
            (" solver.epochs = 7", "solver.epochs", 7),
            ("solver.l2=1e-4", "solver.l2", 1e-4),
            ("solver.optimizer.adam.lr=0.5", "solver.optimizer.lr", 0.5),
            ("solver.optimizer={adam: {eps: 1}}", "solver.optimizer.lr", 1e-3),
            ("solver.optimizer.sgd.momentum=0.9", "solver.optimizer", SGDConfig(momentum=0.9)),
            ("network.init=he", "network.init", HeConfig()),
            ("network.init.gaussian.std=2", "network.init.std", 2.0),
            ("data.augment.flip=true", "data.augment.flip", True),
            ("engine.threads=2", "engine.threads", 2),
            ("name='7'", "name", "7"),
        ],
    )
    def test_it_sets_a_field(self, folder: Path, override: str, path: str, value: object) -> None:
        found: Any = load_config("run.yaml", [override])
        for key in path.split("."):
            found = getattr(found, key)
        assert found == value

    def test_the_last_one_wins(self, folder: Path, minimal: dict[str, Any]) -> None:
        overrides = ["solver.epochs=7", "solver.epochs=8"]
        assert load_config("run.yaml", overrides).solver.epochs == 8
        assert config_from_dict(minimal, overrides).solver.epochs == 8

    def test_a_network_file_can_be_overridden_further(self, folder: Path) -> None:
        network = load_config("run.yaml", ["network=networks/one.yaml", "network.init=he"]).network
        assert (len(network.layers), network.init) == (3, HeConfig())

    @pytest.mark.parametrize(
        ("override", "line"),
        [
            (
                "solver.optimiser=1",
                "-o solver.optimiser=1: solver.optimiser is not known; did you mean optimizer?",
            ),
            ("solvr.epochs=1", "-o solvr.epochs=1: solvr is not known; did you mean solver?"),
            (
                "solver.epochs=three",
                "-o solver.epochs=three: solver.epochs: 'three' is not usable; give an integer",
            ),
            ("solver.epochs=", "-o solver.epochs=: solver.epochs: null is not usable"),
            (
                "solver.optimizer.adm.lr=1",
                "-o solver.optimizer.adm.lr=1: solver.optimizer: 'adm' is not known",
            ),
            ("data.dataset=npz", "run.yaml:3:3: data.path is missing"),
            ("network=no.yaml", "-o network=no.yaml: network: no.yaml: no such file"),
            ("network.layers=[conv]", "-o network.layers=[conv]: network.layers.0.conv.filters is missing"),
            (
                "network.layers.0.conv.filters=3",
                "-o network.layers.0.conv.filters=3: network.layers is a list; give all",
            ),
            ("base=run.yaml", "-o base=run.yaml: base is not known; known: name, data"),
            ("epochs=3", "-o epochs=3: epochs is not known; did you mean solver.epochs?"),
            ("seed=3", "-o seed=3: seed is not known; did you mean data.seed or engine.seed?"),
            ("flip=true", "-o flip=true: flip is not known; known: name, data"),
            ("data.flip=true", "-o data.flip=true: data.flip is not known; did you mean augment.flip?"),
            ("solver.epochs=[1", "-o solver.epochs=[1: not YAML: "),
            ("solver.epochs", "-o solver.epochs: not key=value; give for example solver.epochs=3"),
            ("=3", "-o =3: not key=value"),
            ("solver..epochs=3", "-o solver..epochs=3: not key=value"),
            (f"{'a.' * 40}b=1", f"-o {'a.' * 40}b=1: not key=value"),
        ],
    )
    def test_it_is_refused(self, folder: Path, override: str, line: str, refusal: Refusal) -> None:
        assert refusal(load_config, "run.yaml", [override]).startswith(line)


class TestAllProblems:
    """An error tells the first; the others go with it."""

    def test_several_in_a_file(self, folder: Path) -> None:
        text = (folder / "run.yaml").read_text().replace("mnist", "mnits").replace("epochs: 3", "epochs: 0")
        (folder / "run.yaml").write_text(text + "  l3: 1\n  batches: 2\nseed: 1\n")
        with pytest.raises(ConfigError) as caught:
            load_config("run.yaml")
        assert caught.value.problems == (
            "run.yaml:11:1: seed is not known; did you mean data.seed or engine.seed?",
        )
        (folder / "run.yaml").write_text(text + "  l3: 1\n  batches: 2\n")
        with pytest.raises(ConfigError) as caught:
            load_config("run.yaml")
        places = [problem.partition("; ")[0] for problem in caught.value.problems]
        assert places == [
            "run.yaml:3:12: data.dataset: 'mnits' is not known",
            "run.yaml:9:3: solver.l3 is not known",
            "run.yaml:10:3: solver.batches is not known",
        ]
        assert str(caught.value) == caught.value.problems[0]

    def test_one(self, folder: Path) -> None:
        (folder / "run.yaml").write_text("base: no.yaml\n")
        with pytest.raises(ConfigError) as caught:
            load_config("run.yaml")
        assert caught.value.problems == (str(caught.value),)


class TestDump:
    """The resolved config stands for itself."""

    def test_it_loads_anywhere_to_an_equal_config(
        self, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = load_config("run.yaml", ["data.dataset=folder", "data.path=images"])
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        monkeypatch.chdir(elsewhere)
        (elsewhere / "resolved.yaml").write_text(dump_config(config))
        assert load_config("resolved.yaml") == config

    def test_defaults_are_written_out(self, minimal: dict[str, Any]) -> None:
        data = config_to_dict(config_from_dict(minimal))
        assert data["solver"]["optimizer"] == {
            "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        }
        assert data["network"] == {
            "layers": [{"linear": {"units": 10, "bias": True}}],
            "loss": {"softmax": {"smoothing": 0.0}},
            "init": {"he": {"distribution": "normal", "fan": "in"}},
        }

    def test_text_that_looks_like_a_number_stays_text(self, minimal: dict[str, Any], folder: Path) -> None:
        config = config_from_dict(minimal | {"name": "1e-3"})
        (folder / "resolved.yaml").write_text(dump_config(config))
        assert load_config("resolved.yaml").name == "1e-3"


COUNTS = st.integers(1, 10**6)
EXTENTS = st.integers(1, 9) | st.tuples(st.integers(1, 9), st.integers(1, 9))
REALS = st.floats(1e-9, 0.99)
INITS = st.one_of(
    st.sampled_from(["he", "xavier", "gaussian"]),
    st.builds(lambda std: {"gaussian": std}, REALS),
    st.builds(
        lambda kind, name: {kind: {"distribution": name}},
        st.sampled_from(["he", "xavier"]),
        st.just("uniform"),
    ),
)
SINGLE_LAYERS = st.one_of(
    st.sampled_from(
        [
            *("relu", "leaky_relu", "elu", "tanh", "sigmoid", "gelu", "silu"),
            *("flatten", "batchnorm", "layernorm", "instancenorm", "lrn", "globalavgpool"),
        ]
    ),
    st.builds(lambda kind, alpha: {kind: alpha}, st.sampled_from(["leaky_relu", "elu"]), REALS),
    st.builds(
        lambda kind, kernel: {kind: kernel}, st.sampled_from(["maxpool", "avgpool", "subsampling"]), EXTENTS
    ),
    st.builds(lambda rate: {"dropout": rate}, REALS),
    st.builds(lambda rate, spatial: {"dropout": {"rate": rate, "spatial": spatial}}, REALS, st.booleans()),
    st.builds(lambda groups: {"groupnorm": groups}, COUNTS),
    st.builds(lambda eps, momentum: {"batchnorm": {"eps": eps, "momentum": momentum}}, REALS, REALS),
    st.builds(lambda size, k: {"lrn": {"size": size, "k": k}}, COUNTS, REALS),
    st.fixed_dictionaries(
        {
            "conv": st.fixed_dictionaries(
                {"filters": COUNTS, "kernel": EXTENTS}, optional={"dilation": EXTENTS, "init": INITS}
            )
        }
    ),
    st.fixed_dictionaries(
        {"linear": st.fixed_dictionaries({"units": COUNTS}, optional={"bias": st.booleans(), "init": INITS})}
    ),
)
LAYERS = st.recursive(
    SINGLE_LAYERS,
    lambda layers: st.builds(
        lambda main, shortcut: {"residual": {"layers": main, "shortcut": shortcut}},
        st.lists(layers, min_size=1, max_size=3),
        st.lists(layers, max_size=2),
    ),
    max_leaves=4,
)
OPTIMIZERS = st.one_of(
    st.sampled_from(["adam", "sgd"]),
    st.fixed_dictionaries({"adam": st.fixed_dictionaries({"lr": REALS, "beta1": REALS, "eps": REALS})}),
    st.fixed_dictionaries(
        {"sgd": st.fixed_dictionaries({"lr": REALS, "momentum": REALS, "nesterov": st.booleans()})}
    ),
)
PATHS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Cs"]), min_size=1, max_size=20)
CONFIGS = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
        "data": st.fixed_dictionaries(
            {"dataset": st.just("folder"), "path": PATHS.map("/{}".format)},
            optional={"train": COUNTS, "image_size": EXTENTS},
        ),
        "network": st.fixed_dictionaries(
            {"layers": st.lists(LAYERS, min_size=1, max_size=4)}, optional={"init": INITS}
        ),
        "solver": st.fixed_dictionaries(
            {"optimizer": OPTIMIZERS, "epochs": COUNTS, "batch_size": COUNTS, "l2": REALS},
            optional={"max_steps": COUNTS},
        ),
        "engine": st.fixed_dictionaries(
            {"seed": st.integers(0, 2**63 - 1), "threads": st.just("auto") | st.integers(1, 256)}
        ),
    }
)


@settings(max_examples=200, deadline=None)
@given(CONFIGS)
def test_any_config_survives_the_way_to_yaml_and_back(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    config = config_from_dict(data)
    file = tmp_path_factory.getbasetemp() / "resolved.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert isinstance(config, RunConfig)
    assert load_config(file) == config
    assert config_from_dict(config_to_dict(config)) == config

    def test_of_very_many_the_first(self, folder: Path) -> None:
        keys = "".join(f"key{number}: 1\n" for number in range(1000))
        (folder / "run.yaml").write_text((folder / "run.yaml").read_text() + keys)
        with pytest.raises(ConfigError) as caught:
            load_config("run.yaml")
        *first, rest = caught.value.problems
        assert [line.split()[1] for line in first] == [f"key{number}" for number in range(MOST_PROBLEMS)]
        assert rest == f"there are more: these are the first {MOST_PROBLEMS}"
