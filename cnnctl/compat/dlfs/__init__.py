"""Deep Learning from Scratch over this engine: its module names, and all their names here as well.

    from cnnctl.compat.dlfs.layers import *          # common.layers
    from cnnctl.compat.dlfs.mnist import load_mnist  # dataset.mnist

Only import lines change in a script; its numbers agree where the book's are right. Saves no pickle
and shows no picture. Source: Saito 2016, "Deep Learning from Scratch".
"""

from cnnctl.compat.dlfs.functions import (
    cross_entropy_error,
    identity_function,
    mean_squared_error,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from cnnctl.compat.dlfs.gradient import numerical_gradient
from cnnctl.compat.dlfs.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Pooling,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
)
from cnnctl.compat.dlfs.mnist import load_mnist
from cnnctl.compat.dlfs.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from cnnctl.compat.dlfs.simple_convnet import SimpleConvNet
from cnnctl.compat.dlfs.trainer import Trainer
from cnnctl.compat.dlfs.util import col2im, conv_output_size, im2col, shuffle_dataset, smooth_curve

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Affine",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Momentum",
    "Nesterov",
    "Pooling",
    "RMSprop",
    "Relu",
    "Sigmoid",
    "SimpleConvNet",
    "SoftmaxWithLoss",
    "Trainer",
    "col2im",
    "conv_output_size",
    "cross_entropy_error",
    "identity_function",
    "im2col",
    "load_mnist",
    "mean_squared_error",
    "numerical_gradient",
    "relu",
    "relu_grad",
    "shuffle_dataset",
    "sigmoid",
    "sigmoid_grad",
    "smooth_curve",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]
