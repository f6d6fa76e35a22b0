"""Networks: layers, losses, initialisers, the sequence they form, and the plan that runs it."""

from cnnctl.backends.specs import Shape
from cnnctl.nn.activation import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from cnnctl.nn.conv import Conv
from cnnctl.nn.dropout import Dropout
from cnnctl.nn.initializers import Constant, Gaussian, He, Initializer, Orthogonal, Xavier
from cnnctl.nn.layer import Layer
from cnnctl.nn.linear import Flatten, Linear
from cnnctl.nn.loss import Hinge, Loss, SoftmaxCrossEntropy, SquaredError
from cnnctl.nn.network import Network, SummaryRow
from cnnctl.nn.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm
from cnnctl.nn.plan import Norms, Plan, StepResult
from cnnctl.nn.pooling import AvgPool, GlobalAvgPool, MaxPool, Subsampling
from cnnctl.nn.residual import Residual

__all__ = [
    "ELU",
    "GELU",
    "AvgPool",
    "BatchNorm",
    "Constant",
    "Conv",
    "Dropout",
    "Flatten",
    "Gaussian",
    "GlobalAvgPool",
    "GroupNorm",
    "He",
    "Hinge",
    "Initializer",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "Loss",
    "MaxPool",
    "Network",
    "Norms",
    "Orthogonal",
    "Plan",
    "ReLU",
    "Residual",
    "Shape",
    "SiLU",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "StepResult",
    "Subsampling",
    "SummaryRow",
    "Tanh",
    "Xavier",
]
