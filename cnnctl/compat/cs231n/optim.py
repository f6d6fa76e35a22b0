"""cs231n's update rules: rule(w, dw, config) -> (next_w, config).

`config` holds the settings and what a rule carries from step to step; a rule fills in what is
missing, and makes one when it is None. Weights are not changed in place; Adam changes its m and v
so. Adam runs in the engine's kernel, the others are a line of numpy each; only sgd_momentum differs from
the engine's: its velocity holds the learning rate.
"""

from typing import Any

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.engine import as_floats, get_backend

__all__ = ["adam", "rmsprop", "sgd", "sgd_momentum"]

Config = dict[str, Any]


def sgd(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """w - learning_rate dw. Settings: learning_rate, 1e-2."""
    config = _fill(config, learning_rate=1e-2)
    return w - config["learning_rate"] * dw, config


def sgd_momentum(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """v <- momentum v - learning_rate dw; w + v.

    Settings: learning_rate, 1e-2; momentum, 0.9; velocity, zeros at first.
    Source: Polyak 1964, as in cs231n.
    """
    config = _fill(config, learning_rate=1e-2, momentum=0.9, velocity=np.zeros_like(w))
    config["velocity"] = config["momentum"] * config["velocity"] - config["learning_rate"] * dw
    return w + config["velocity"], config


def rmsprop(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """c <- decay_rate c + (1 - decay_rate) dw^2; w - learning_rate dw / (sqrt(c) + epsilon).

    Settings: learning_rate, 1e-2; decay_rate, 0.99; epsilon, 1e-8; cache, zeros at first.
    Source: Tieleman, Hinton 2012.
    """
    config = _fill(config, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8, cache=np.zeros_like(w))
    config["cache"] = config["decay_rate"] * config["cache"] + (1 - config["decay_rate"]) * np.square(dw)
    return w - config["learning_rate"] * dw / (np.sqrt(config["cache"]) + config["epsilon"]), config


def adam(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """m <- beta1 m + (1-beta1) dw; v <- beta2 v + (1-beta2) dw^2; t <- t + 1;
    w - learning_rate (m / (1-beta1^t)) / (sqrt(v / (1-beta2^t)) + epsilon).

    Settings: learning_rate, 1e-3; beta1, 0.9; beta2, 0.999; epsilon, 1e-8; m, v and t, 0 at first.
    Source: Kingma, Ba 2015, algorithm 1, in the engine's kernel.
    """
    start = {"m": np.zeros_like(w), "v": np.zeros_like(w), "t": 0}
    config = _fill(config, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, **start)
    w, dw, m, v = (np.asarray(array, order="C") for array in as_floats(w, dw, config["m"], config["v"]))
    next_w = w.copy()
    config |= {"m": m, "v": v, "t": config["t"] + 1}
    get_backend("fast").adam_update(
        next_w,
        dw,
        m,
        v,
        step=config["t"],
        lr=config["learning_rate"],
        beta1=config["beta1"],
        beta2=config["beta2"],
        eps=config["epsilon"],
    )
    return next_w, config


def _fill(config: Config | None, **defaults: Any) -> Config:
    """The config itself, with what it lacks."""
    config = {} if config is None else config
    for key, value in defaults.items():
        config.setdefault(key, value)
    return config
