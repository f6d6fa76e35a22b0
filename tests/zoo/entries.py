"""What the zoo trains, and what others say of the same network."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CONFIGS = Path(__file__).parents[2] / "configs"


class Entry(NamedTuple):
    """One row of the table.

    Attributes:
        config: the file below configs/, without its ending.
        network: its name, as one reads it.
        elsewhere: the figure to be held against ours, and whose it is; "PyTorch" to be measured.
        seeds: how many runs the figures are the mean of.
    """

    config: str
    network: str
    elsewhere: str = ""
    seeds: int = 1


ENTRIES = (
    Entry("quickstart", "three convolutions"),
    Entry("shapes_shallow", "one filter, 6x6 images, squared error: to be followed, not to be good"),
    Entry("mnist_simple", "SimpleConvNet", "test 98.73 (Saito)"),
    Entry("mnist_simple_augmented", "SimpleConvNet, same cost", "test 98.73 (Saito)"),
    Entry("mnist_lenet5_classic", "LeNet-5, sigmoids, subsampling", "test 99.05 (LeCun et al.)"),
    Entry("fashion_lenet5", "LeNet-5, batch norm"),
    Entry("cifar10_overfit100", "three layers on 100 images", "training 100 (cs231n)"),
    Entry("cifar10_three_layer", "three layers", "PyTorch", seeds=5),
    Entry("cifar10_three_layer_tuned", "three layers, tuned", "training 48.2, validation 48.8 (cs231n)"),
    Entry("cifar10_three_layer_200", "three layers, 200 hidden units"),
    Entry("cifar10_alexnet", "AlexNet"),
    Entry("cifar10_vgg", "VGG-like, 6 convolutions"),
    Entry("cifar10_vgg11", "VGG-11, half width"),
    Entry("cifar10_all_convolutional", "all convolutional"),
    Entry("cifar10_resnet20", "ResNet-20", "PyTorch"),
)


def choose_entries(names: Sequence[str]) -> list[Entry]:
    """Those with these configs, all for none. Raises KeyError for a name that is not there."""
    known = {entry.config: entry for entry in ENTRIES}
    return [known[name] for name in names] or list(ENTRIES)
