"""The configs that come with the package: where they are, which networks there are, and who trains them.

Reads the files as they stand there, bases merged, and checks none: loading them does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnctl.config.load import read_tree
from cnnctl.config.strict_yaml import read_yaml
from cnnctl.errors import ConfigError, DataError, describe_alternatives

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Recipe:
    """A shipped config, as it is written.

    Attributes:
        network: the network file's name without its ending; None for layers in place.
    """

    name: str
    network: str | None
    data: dict[str, Any]
    solver: dict[str, Any]
    engine: dict[str, Any]


@dataclass(frozen=True)
class ShippedNetwork:
    """A shipped network, as it is written.

    Attributes:
        about: what the file's first lines say.
        settings: layers, loss and init.
    """

    name: str
    about: str
    settings: dict[str, Any]


def find_configs() -> Path:
    """The folder configs/: in the installed package, or beside the package in a checkout."""
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / "networks").is_dir():
            return folder
    raise DataError(f"{PACKAGE}: the package came without its configs; install it again")


def list_networks() -> list[str]:
    """The shipped networks' names."""
    return sorted(file.stem for file in find_configs().glob("networks/*.yaml"))


def read_network(name: str) -> ShippedNetwork:
    """Raises ConfigError, with what there is, for a name that is not."""
    if name not in list_networks():
        raise ConfigError(f"network: {name!r} is not known; {describe_alternatives(name, list_networks())}")
    file = find_configs() / "networks" / f"{name}.yaml"
    lines = [line[2:] for line in file.read_text().splitlines() if line.startswith("# ")]
    about = "\n".join(line for line in lines if not line.startswith("yaml-language-server"))
    return ShippedNetwork(name, about, read_tree(str(file)))


def read_recipes() -> list[Recipe]:
    """All shipped configs, in the order of their names."""
    recipes = []
    for file in sorted(find_configs().glob("*.yaml")):
        tree = read_tree(str(file))
        network = read_yaml(str(file)).to_data().get("network")
        name = Path(network).stem if isinstance(network, str) else None
        recipes.append(Recipe(file.stem, name, tree["data"], tree["solver"], tree.get("engine", {})))
    return recipes


def choose_recipe(network: str, dataset: str) -> Recipe:
    """How that network is trained: on that data set if a shipped config does that, else on another."""
    recipes = [recipe for recipe in read_recipes() if recipe.network == network]
    return min(recipes, key=lambda recipe: recipe.data["dataset"] != dataset)


def choose_data(dataset: str, recipe: Recipe) -> dict[str, Any]:
    """How that data set is prepared: as in the recipe if it is its own, else as in a shipped config."""
    if recipe.data["dataset"] == dataset:
        return recipe.data
    found = [other.data for other in read_recipes() if other.data["dataset"] == dataset]
    return found[0] if found else {"dataset": dataset}
