"""Networks: layers, losses, initialisers, the sequence they form, and the plan that runs it."""

from cnnctl.nn.activation import ReLU
from cnnctl.nn.conv import Conv
from cnnctl.nn.initializers import Gaussian, He, Initializer, Xavier
from cnnctl.nn.layer import Layer, Shape
from cnnctl.nn.linear import Flatten, Linear
from cnnctl.nn.loss import SoftmaxCrossEntropy
from cnnctl.nn.network import Network, SummaryRow
from cnnctl.nn.plan import Plan, StepResult
from cnnctl.nn.pooling import MaxPool

__all__ = [
    "Conv",
    "Flatten",
    "Gaussian",
    "He",
    "Initializer",
    "Layer",
    "Linear",
    "MaxPool",
    "Network",
    "Plan",
    "ReLU",
    "Shape",
    "SoftmaxCrossEntropy",
    "StepResult",
    "SummaryRow",
    "Xavier",
]
