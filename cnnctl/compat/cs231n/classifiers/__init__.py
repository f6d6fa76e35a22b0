"""cs231n's networks, under its module names."""

from cnnctl.compat.cs231n.classifiers.cnn import ThreeLayerConvNet

__all__ = ["ThreeLayerConvNet"]
