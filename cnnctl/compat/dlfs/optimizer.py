"""Deep Learning from Scratch's optimizers: update(params, grads) changes the arrays in `params` in place.

State is made at the first update, one array for each key. Schedules nothing and decays no weights.
"""

from collections.abc import Mapping
from math import sqrt

import numpy as np

from cnnctl.backends.specs import Array
from cnnctl.compat.engine import get_backend

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop"]

Params = Mapping[str, Array]

EPS = 1e-7


class SGD:
    """w <- w - lr g."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def update(self, params: Params, grads: Params) -> None:
        for key, w in params.items():
            w -= self.lr * grads[key]  # noqa: PLW2901 (in place)


class Momentum:
    """v <- momentum v - lr g; w <- w + v. Source: Polyak 1964."""

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum
        self.v: dict[str, Array] | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.v = self.v or _make_slots(params)
        for key, w in params.items():
            self.v[key] *= self.momentum
            self.v[key] -= self.lr * grads[key]
            w += self.v[key]  # noqa: PLW2901


class Nesterov:
    """v <- momentum v - lr g; w <- w + momentum v - lr g.

    Printed copies of the book differ in the order of the two; this is the formula of its source.
    Source: Bengio, Boulanger-Lewandowski, Pascanu 2012, equations 6 and 7.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum
        self.v: dict[str, Array] | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.v = self.v or _make_slots(params)
        for key, w in params.items():
            step = self.lr * grads[key]
            self.v[key] *= self.momentum
            self.v[key] -= step
            w += self.momentum * self.v[key] - step  # noqa: PLW2901


class AdaGrad:
    """h <- h + g^2; w <- w - lr g / (sqrt(h) + 1e-7). Source: Duchi, Hazan, Singer 2011."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        self.h: dict[str, Array] | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.h = self.h or _make_slots(params)
        for key, w in params.items():
            self.h[key] += np.square(grads[key])
            w -= self.lr * grads[key] / (np.sqrt(self.h[key]) + EPS)  # noqa: PLW2901


class RMSprop:
    """h <- decay_rate h + (1 - decay_rate) g^2; w <- w - lr g / (sqrt(h) + 1e-7).

    Source: Tieleman, Hinton 2012.
    """

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        self.lr, self.decay_rate = lr, decay_rate
        self.h: dict[str, Array] | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.h = self.h or _make_slots(params)
        for key, w in params.items():
            self.h[key] *= self.decay_rate
            self.h[key] += (1 - self.decay_rate) * np.square(grads[key])
            w -= self.lr * grads[key] / (np.sqrt(self.h[key]) + EPS)  # noqa: PLW2901


class Adam:
    """m <- beta1 m + (1-beta1) g; v <- beta2 v + (1-beta2) g^2; t <- t + 1;
    w <- w - lr sqrt(1-beta2^t) / (1-beta1^t) m / (sqrt(v) + 1e-7), by the engine's kernel.

    Source: Kingma, Ba 2015, the second form of algorithm 1 in its section 2.
    """

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.iter = 0
        self.m: dict[str, Array] | None = None
        self.v: dict[str, Array] | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.m, self.v = self.m or _make_slots(params), self.v or _make_slots(params)
        self.iter += 1
        for key, w in params.items():
            weights, g = np.asarray(w, order="C"), np.asarray(grads[key], w.dtype, order="C")
            get_backend("fast").adam_update(
                weights,
                g,
                self.m[key],
                self.v[key],
                step=self.iter,
                lr=self.lr,
                beta1=self.beta1,
                beta2=self.beta2,
                eps=EPS / sqrt(1 - self.beta2**self.iter),  # the engine corrects v before it adds eps
            )
            if weights is not w:  # not contiguous
                w[...] = weights


def _make_slots(params: Params) -> dict[str, Array]:
    return {key: np.zeros_like(w, order="C") for key, w in params.items()}
