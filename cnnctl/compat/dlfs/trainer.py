"""Deep Learning from Scratch's Trainer: batches drawn at random, an optimizer, accuracies every epoch.

For code that was written against it. It keeps no run directory and cannot resume; `cnnctl train`
does. Batches come from numpy's global generator, as in the book. Prints nothing: with `verbose`,
each line goes to `on_line`, by default to the log on stderr.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.dlfs.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from cnnctl.compat.log import OnLine, log_line
from cnnctl.errors import ConfigError, describe_alternatives

__all__ = ["Trainer"]

OPTIMIZERS = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "rmsprpo": RMSprop,  # as the book's code spells it
    "adam": Adam,
}


class TrainableNetwork(Protocol):
    """What a Trainer can train.

    Attributes:
        params: name -> array, which the optimizer changes in place.
    """

    params: dict[str, Array]

    def gradient(self, x: Array, t: Array) -> dict[str, Array]: ...

    def loss(self, x: Array, t: Array) -> float: ...

    def accuracy(self, x: Array, t: Array) -> float: ...


class Trainer:
    """Trains a network; an epoch is as many steps as there are whole batches in the training images.

    Args:
        optimizer: its name, in any case: SGD, Momentum, Nesterov, AdaGrad, RMSprop or Adam.
        optimizer_param: its arguments, such as lr.
        evaluate_sample_num_per_epoch: accuracies are those of the first so many images; None for all.
        on_line: hears each line, if `verbose`.

    Attributes:
        train_loss_list: after every step, the loss of its batch, which costs a second forward pass.
        train_acc_list, test_acc_list: accuracies after the first step of every epoch.
        current_iter, current_epoch: steps and epochs begun so far.

    Raises ConfigError for an unknown optimizer. Source: Saito 2016, chapter 7.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, Any] = MappingProxyType({"lr": 0.01}),
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
        *,
        on_line: OnLine = log_line,
    ) -> None:
        if optimizer.lower() not in OPTIMIZERS:
            alternatives = describe_alternatives(optimizer.lower(), OPTIMIZERS)
            raise ConfigError(f"optimizer: {optimizer!r} is not known; {alternatives}")
        self.network = network
        self.verbose = verbose
        self.x_train, self.t_train = x_train, t_train
        self.x_test, self.t_test = x_test, t_test
        self.epochs = epochs
        self.batch_size = mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.optimizer = OPTIMIZERS[optimizer.lower()](**optimizer_param)
        self._on_line = on_line

        self.train_size = len(x_train)
        self.iter_per_epoch = max(self.train_size // mini_batch_size, 1)
        self.max_iter = epochs * self.iter_per_epoch
        self.current_iter = self.current_epoch = 0
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []

    def train_step(self) -> None:
        """One batch, one update; at the beginning of an epoch the accuracies as well."""
        chosen = np.random.choice(self.train_size, self.batch_size)
        x, t = self.x_train[chosen], self.t_train[chosen]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        self._report(f"step {self.current_iter + 1} of {self.max_iter}: training loss {loss:.6f}")
        if self.current_iter % self.iter_per_epoch == 0:
            self.current_epoch += 1
            count = self.evaluate_sample_num_per_epoch
            train_acc = self.network.accuracy(self.x_train[:count], self.t_train[:count])
            test_acc = self.network.accuracy(self.x_test[:count], self.t_test[:count])
            self.train_acc_list.append(train_acc)
            self.test_acc_list.append(test_acc)
            self._report(
                f"epoch {self.current_epoch} of {self.epochs}: "
                f"training accuracy {train_acc:.4f}, test accuracy {test_acc:.4f}"
            )
        self.current_iter += 1

    def train(self) -> None:
        """All epochs, then the accuracy on all test images as the last line."""
        for _ in range(self.max_iter):
            self.train_step()
        test_acc = self.network.accuracy(self.x_test, self.t_test)
        self._report(f"final test accuracy {test_acc:.4f}")

    def _report(self, line: str) -> None:
        if self.verbose:
            self._on_line(line)
