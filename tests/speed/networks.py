"""Whose training steps are timed beside PyTorch's."""

from typing import NamedTuple


class Network(NamedTuple):
    """One row of the table.

    Attributes:
        title: how one reads it.
        config: a path from the repository's root.
        overrides: as `-o` takes them.
    """

    title: str
    config: str
    overrides: tuple[str, ...] = ()


NETWORKS = (
    Network("SimpleConvNet, MNIST, batch 100", "configs/mnist_simple.yaml"),
    Network("LeNet-5 with batch norm, 28x28, batch 100", "configs/fashion_lenet5.yaml"),
    Network(
        "three layers, CIFAR-10, 100 hidden units, batch 50",
        "configs/cifar10_three_layer.yaml",
        ("network=configs/networks/three_layer_100.yaml",),
    ),
    Network("three layers, CIFAR-10, 500 hidden units, batch 50", "configs/cifar10_three_layer.yaml"),
    Network("VGG-like with batch norm, CIFAR-10, batch 64", "configs/cifar10_vgg.yaml"),
    Network("ResNet-20, CIFAR-10, batch 128", "configs/cifar10_resnet20.yaml"),
    Network("AlexNet, CIFAR-10, batch 128", "configs/cifar10_alexnet.yaml"),
)
OPERATIONS = NETWORKS[4]
"""The one that is shown operation by operation."""
