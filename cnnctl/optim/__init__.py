"""Optimizers: rules that move weights along their gradients, blind to layers; and schedules for them."""

from cnnctl.optim.adagrad import AdaGrad
from cnnctl.optim.adam import Adam, Adamax, AdamW
from cnnctl.optim.group import ParameterGroup
from cnnctl.optim.lion import Lion
from cnnctl.optim.optimizer import Optimizer
from cnnctl.optim.penalty import Penalty
from cnnctl.optim.rmsprop import RMSprop
from cnnctl.optim.schedule import (
    Constant,
    Cosine,
    Exponential,
    Inverse,
    MultiStep,
    OneCycle,
    PlateauState,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    Span,
    Step,
    scale_step,
)
from cnnctl.optim.sgd import SGD

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Constant",
    "Cosine",
    "Exponential",
    "Inverse",
    "Lion",
    "MultiStep",
    "OneCycle",
    "Optimizer",
    "ParameterGroup",
    "Penalty",
    "PlateauState",
    "Polynomial",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "Span",
    "Step",
    "scale_step",
]
