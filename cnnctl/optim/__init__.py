"""Optimizers: rules that move weights along their gradients, blind to layers."""

from cnnctl.optim.adagrad import AdaGrad
from cnnctl.optim.adam import Adam, Adamax, AdamW
from cnnctl.optim.lion import Lion
from cnnctl.optim.optimizer import Optimizer
from cnnctl.optim.rmsprop import RMSprop
from cnnctl.optim.sgd import SGD

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Adamax", "Lion", "Optimizer", "RMSprop"]
