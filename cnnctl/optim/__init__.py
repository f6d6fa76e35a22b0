"""Optimizers: rules that move weights along their gradients, blind to layers."""

from cnnctl.optim.adam import Adam
from cnnctl.optim.optimizer import Optimizer
from cnnctl.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer"]
