"""cs231n's Solver: batches drawn at random, an update rule, accuracies after every epoch.

For code that was written against it. It keeps no run directory and cannot resume; `cnnctl train`
does. Batches come from numpy's global generator, as in the course. Prints nothing: with
`verbose`, each line goes to `on_line`, by default to the log on stderr.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.cs231n import optim
from cnnctl.compat.log import OnLine, log_line
from cnnctl.compat.tensors import save_arrays
from cnnctl.errors import ConfigError, describe_alternatives

__all__ = ["Solver", "Trainer"]


class Model(Protocol):
    """What a Solver can train.

    Attributes:
        params: name -> array; the Solver replaces the arrays.
    """

    params: dict[str, Array]

    def loss(self, X: Array, y: Array | None = None) -> Any:
        """Scores (N, classes) without labels; with them (loss, name -> gradient)."""


class Solver:
    """Trains a model by steps of an update rule on random batches; keeps the best parameters.

    Args:
        data: X_train, y_train, X_val, y_val.
        update_rule: a name from `optim`: sgd, sgd_momentum, rmsprop or adam.
        optim_config: the rule's settings, such as learning_rate.
        lr_decay: the learning rate is multiplied by this after every epoch.
        num_train_samples, num_val_samples: how many images accuracies are taken from; None for all.
        checkpoint_name: after the first step and every epoch the parameters and histories are written to
            <checkpoint_name>_epoch_<n>.safetensors.
        print_every: every how many steps the loss is reported.
        on_line: hears each line, if `verbose`.

    Attributes:
        loss_history: the loss of every step.
        train_acc_history, val_acc_history: accuracies after the first step and after every epoch.
        best_val_acc, best_params: the best accuracy on the validation images, and the parameters
            that had it, which the model has after `train`.
        epoch: epochs done.

    Raises ConfigError for an unknown rule. Source: cs231n, assignment 2.
    """

    def __init__(
        self,
        model: Model,
        data: Mapping[str, Array],
        *,
        update_rule: str = "sgd",
        optim_config: Mapping[str, Any] | None = None,
        lr_decay: float = 1.0,
        batch_size: int = 100,
        num_epochs: int = 10,
        num_train_samples: int | None = 1000,
        num_val_samples: int | None = None,
        checkpoint_name: str | None = None,
        print_every: int = 10,
        verbose: bool = True,
        on_line: OnLine = log_line,
    ) -> None:
        if update_rule not in optim.__all__:
            alternatives = describe_alternatives(update_rule, optim.__all__)
            raise ConfigError(f"update_rule: {update_rule!r} is not known; {alternatives}")
        self.model = model
        self.X_train, self.y_train = data["X_train"], data["y_train"]
        self.X_val, self.y_val = data["X_val"], data["y_val"]
        self.update_rule: Callable[..., tuple[Array, dict[str, Any]]] = getattr(optim, update_rule)
        self.optim_config = dict(optim_config or {})
        self.lr_decay = lr_decay
        self.batch_size = batch_size
        self.num_epochs = num_epochs
        self.num_train_samples, self.num_val_samples = num_train_samples, num_val_samples
        self.checkpoint_name = checkpoint_name
        self.print_every = print_every
        self.verbose = verbose
        self._on_line = on_line

        self.epoch = 0
        self.best_val_acc = 0.0
        self.best_params: dict[str, Array] = {}
        self.loss_history: list[float] = []
        self.train_acc_history: list[float] = []
        self.val_acc_history: list[float] = []
        self.optim_configs = {key: dict(self.optim_config) for key in model.params}

    def train(self) -> None:
        """All epochs; the model has its best parameters afterwards."""
        steps_per_epoch = max(len(self.X_train) // self.batch_size, 1)
        steps = self.num_epochs * steps_per_epoch
        for step in range(1, steps + 1):
            self._step()
            if self.verbose and (step - 1) % self.print_every == 0:
                self._on_line(f"step {step} of {steps}: loss {self.loss_history[-1]:.6f}")
            epoch_is_over = step % steps_per_epoch == 0
            if epoch_is_over:
                self.epoch += 1
                for config in self.optim_configs.values():
                    if "learning_rate" in config:
                        config["learning_rate"] *= self.lr_decay
            if step == 1 or epoch_is_over:
                self._evaluate()
        if self.best_params:
            self.model.params = self.best_params

    def _step(self) -> None:
        """One batch, one update of every parameter."""
        chosen = np.random.choice(len(self.X_train), self.batch_size)
        loss, grads = self.model.loss(self.X_train[chosen], self.y_train[chosen])
        self.loss_history.append(float(loss))
        for key, w in self.model.params.items():
            next_w, self.optim_configs[key] = self.update_rule(w, grads[key], self.optim_configs[key])
            self.model.params[key] = next_w

    def _evaluate(self) -> None:
        train_acc = self.check_accuracy(self.X_train, self.y_train, num_samples=self.num_train_samples)
        val_acc = self.check_accuracy(self.X_val, self.y_val, num_samples=self.num_val_samples)
        self.train_acc_history.append(train_acc)
        self.val_acc_history.append(val_acc)
        if self.checkpoint_name is not None:
            self._save_checkpoint(self.checkpoint_name)
        if self.verbose:
            self._on_line(
                f"epoch {self.epoch} of {self.num_epochs}: "
                f"training accuracy {train_acc:.6f}, validation accuracy {val_acc:.6f}"
            )
        if val_acc > self.best_val_acc:
            self.best_val_acc = val_acc
            self.best_params = {key: w.copy() for key, w in self.model.params.items()}

    def check_accuracy(
        self, X: Array, y: Array, num_samples: int | None = None, batch_size: int = 100
    ) -> float:
        """Fraction of the images whose highest score is that of their label.

        With `num_samples`, of that many of them, drawn at random with replacement.
        """
        if num_samples is not None and len(X) > num_samples:
            chosen = np.random.choice(len(X), num_samples)
            X, y = X[chosen], y[chosen]
        correct = 0
        for start in range(0, len(X), batch_size):
            scores = self.model.loss(X[start : start + batch_size])
            correct += int((scores.argmax(axis=1) == y[start : start + batch_size]).sum())
        return correct / len(X)

    def _save_checkpoint(self, name: str) -> None:
        histories = ("loss_history", "train_acc_history", "val_acc_history")
        arrays = {key: np.array(getattr(self, key)) for key in histories}
        arrays |= {f"params/{key}": w for key, w in self.model.params.items()}
        save_arrays(f"{name}_epoch_{self.epoch}.safetensors", arrays)


class Trainer(Solver):
    """The Solver as a Chinese set of exercises after cs231n calls it: `updater_config` for `optim_config`."""

    def __init__(
        self,
        model: Model,
        data: Mapping[str, Array],
        *,
        updater_config: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, data, optim_config=updater_config, **settings)
