"""The contract that every backend keeps, written down once.

A `Backend` offers layer operations in pairs (`thing_forward`, `thing_backward`) on
numpy arrays. This file validates arguments, states what each operation computes and
composes fused operations from single ones. It computes nothing itself and chooses
nothing: asking for a backend that is not built is an error, never a fallback.

Rules, for all operations of all backends:

* Images are NCHW, convolution weights (F, C/groups, KH, KW), linear weights (out, in).
* float32 or float64, the same for every array of a call; the output has that dtype.
* Inputs are never changed (but by `*_update` and `add_l1_gradient`). Any strides and
  read-only arrays are accepted. A batch of 0 images is a batch.
* Arguments that do not fit raise ShapeError, DtypeError or ConfigError before anything is computed.
* The first maximum in row-major order wins a pool; padding never wins one; a NaN wins
  over every number, and the first NaN over the others. The index is always that of a
  pixel in the image.
* A NaN or infinity in an argument reaches every result whose sum holds it, and no other.
  Taps and outputs outside the image contribute nothing if what they would be multiplied by is
  finite; otherwise they contribute NaN or nothing.
  Winograd's algorithm (`fast`, unless `exact`) may spread it over other results of the
  same image, filter or channel, never to another image.
* An update returns the sum of the squares of the weights before it, but NaN exactly if a weight
  or a slot is not finite after it. As every gradient goes into a slot, and what is not finite stays
  so, that holds wherever a gradient, or a weight before, is not finite.
* A subnormal counts as itself or as 0, in arithmetic and in comparisons. -0 counts as 0,
  and the sign of a result that is 0 is left open.
* Results do not depend on the number of threads, not even in the last bit.

Backward takes arrays rather than a cache, so that one backend's forward can feed
another's backward in a test.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np

from cnnctl.backends.specs import (
    ALPHAS,
    Activation,
    Array,
    CrossEntropySpec,
    HingeSpec,
    LossSpec,
    Pool,
    Sandwich,
    Shape,
    Spec,
    choose_alpha,
    needs_input,
)
from cnnctl.backends.stage import Layout, LossStage, Stage
from cnnctl.errors import ConfigError, DtypeError, ShapeError, check_real, describe_alternatives
from cnnctl.geometry import Window, check_elements

MAX_THREADS = 256
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class SandwichOutputs:
    """What a fused convolution computes; None for what it does not have.

    Attributes:
        y: the result.
        index: winners of a max pool, as `Backend.maxpool_forward` gives them.
        z: conv(x, w) + b, where backward needs it (`Sandwich.keeps_z`).
        mean, var: (F), norm's statistics of this batch; var is the biased one.
    """

    y: Array
    index: Array | None = None
    z: Array | None = None
    mean: Array | None = None
    var: Array | None = None


class SandwichGradients(NamedTuple):
    """Gradients of a fused convolution; None for what it does not have."""

    dx: Array | None
    dw: Array
    db: Array
    dgamma: Array | None = None
    dbeta: Array | None = None
    dr: Array | None = None


@dataclass(frozen=True)
class Backend(ABC):
    """One implementation of the contract. Immutable; holds settings, never data.

    Attributes:
        threads: how many threads an operation may use.
    """

    name: ClassVar[str]
    threads: int = 1

    def __post_init__(self) -> None:
        if type(self.threads) is not int or not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"threads: {self.threads!r} is not an integer from 1 to {MAX_THREADS}")

    # Convolution

    def conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int = 1) -> Array:
        """Cross-correlate images with filters, as every framework's "convolution" does.

        y[n,f,oh,ow] = b[f] + sum over c,kh,kw of w[f,c,kh,kw] * x[n, g C/groups + c, ih, iw],
        with ih = oh*stride - padding + kh*dilation, iw likewise and g = f // (F/groups).

        Shapes: x (N,C,H,W), w (F,C/groups,KH,KW), b (F) or None -> y (N,F,OH,OW).
        Source: LeCun et al. 1998, section II.A; groups: Krizhevsky et al. 2012.
        """
        check_conv(x, w, b, window, groups)
        return self._conv_forward(x, w, b, window, groups)

    def conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int = 1, *, need_dx: bool = True
    ) -> tuple[Array | None, Array, Array]:
        """Gradients of a scalar L, given dy = dL/dy: (dx, dw, db), shaped as x, w and (F).

        dx is None when it is not needed (the first layer of a network).
        """
        shape = check_conv(x, w, None, window, groups)
        _check_same("dy", dy, shape, x.dtype)
        return self._conv_backward(dy, x, w, window, groups, need_dx)

    # Max pooling

    def maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]:
        """y[n,c,oh,ow] = max of x over the window, and where it was found.

        Shapes: x (N,C,H,W) -> y (N,C,OH,OW), index (N,C,OH,OW) int32. The index is
        kh*KW + kw of the winning tap and always that of a tap inside the image.
        Raises ShapeError when a window could lie wholly in the padding.
        """
        check_pool(x, window)
        return self._maxpool_forward(x, window)

    def maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array:
        """dx: each dy is added to the pixel that won its window. Shape: `x_shape`."""
        n, c, h, w = x_shape
        shape = (n, c, *check_pool_window(window, h, w))
        _check_dtype("dy", dy)
        _check_same("dy", dy, shape, dy.dtype)
        _check_index(index, shape, window)
        return self._maxpool_backward(dy, index, x_shape, window)

    # Average pooling

    def avgpool_forward(self, x: Array, window: Window) -> Array:
        """y[n,c,oh,ow] = mean of x over the pixels of the window; padding is not counted.

        Shapes: x (N,C,H,W) -> y (N,C,OH,OW). Raises ShapeError when a window could lie wholly
        in the padding. Source: LeCun et al. 1998, section II.B, without its coefficients.
        """
        check_pool(x, window)
        return self._avgpool_forward(x, window)

    def avgpool_backward(self, dy: Array, x_shape: tuple[int, int, int, int], window: Window) -> Array:
        """dx: each dy is shared equally among the pixels of its window. Shape: `x_shape`."""
        n, c, h, w = x_shape
        _check_dtype("dy", dy)
        _check_same("dy", dy, (n, c, *check_pool_window(window, h, w)), dy.dtype)
        return self._avgpool_backward(dy, x_shape, window)

    # Fully connected

    def linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        """y = x w^T + b. Shapes: x (N,in), w (out,in), b (out) or None -> y (N,out)."""
        check_linear(x, w, b)
        return self._linear_forward(x, w, b)

    def linear_backward(
        self, dy: Array, x: Array, w: Array, *, need_dx: bool = True
    ) -> tuple[Array | None, Array, Array]:
        """dx = dy w, dw = dy^T x, db = sum over n of dy."""
        check_linear(x, w, None)
        _check_same("dy", dy, (x.shape[0], w.shape[0]), x.dtype)
        return self._linear_backward(dy, x, w, need_dx)

    # Activation

    def activation_forward(self, x: Array, activation: Activation, alpha: float | None = None) -> Array:
        """y = activation(x), elementwise on any shape; NaN stays NaN, infinities give limits.

        relu: max(x, 0). Source: Nair, Hinton 2010.
        leaky_relu: x above 0, alpha x elsewhere; alpha above 0, usually 0.01.
        Source: Maas, Hannun, Ng 2013.
        elu: x above 0, alpha (e^x - 1) elsewhere; alpha above 0, usually 1.
        Source: Clevert, Unterthiner, Hochreiter 2016.
        tanh: (e^x - e^-x) / (e^x + e^-x).
        sigmoid: 1 / (1 + e^-x).
        gelu: x Phi(x), Phi the normal distribution function: 0.5 x (1 + erf(x / sqrt(2))), not
        its approximation by tanh. Source: Hendrycks, Gimpel 2016.
        silu: x s(x), s the sigmoid. Source: Elfwing, Uchibe, Doya 2018.
        """
        check_activation(activation, alpha)
        _check_dtype("x", x)
        return self._activation_forward(x, activation, choose_alpha(activation, alpha))

    def activation_backward(
        self, dy: Array, x: Array, y: Array, activation: Activation, alpha: float | None = None
    ) -> Array:
        """dx = dy times the derivative, given the forward's input and output.

        relu: 0 where y <= 0, 1 elsewhere; leaky_relu: alpha where y <= 0, 1 elsewhere;
        elu: y + alpha where y <= 0, 1 elsewhere; tanh: 1 - y^2; sigmoid: y (1 - y);
        gelu: Phi(x) + x phi(x), phi the normal density; silu: s(x) (1 + x s(-x)).
        Only gelu and silu look at x, the others at y.
        """
        check_activation(activation, alpha)
        _check_dtype("y", y)
        _check_same("x", x, y.shape, y.dtype)
        _check_same("dy", dy, y.shape, y.dtype)
        return self._activation_backward(dy, x, y, activation, choose_alpha(activation, alpha))

    # Batch normalisation: x is (N,C,H,W) or (N,C), and a channel's values are N*H*W or N numbers

    def batchnorm_forward(
        self, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        """y = gamma (x - mean) / sqrt(var + eps) + beta, each channel by itself; y, mean, var.

        mean and var are those of the channel's values in this batch, var the biased one
        (divided by their number); both are 0 for a batch of 0 images.
        Shapes: x (N,C,H,W) or (N,C), gamma and beta (C) -> y as x, mean and var (C).
        Source: Ioffe, Szegedy 2015, algorithm 1.
        """
        check_batchnorm(x, eps, gamma=gamma, beta=beta)
        return self._batchnorm_forward(x, gamma, beta, float(eps))

    def batchnorm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
    ) -> Array:
        """y as in `batchnorm_forward`, with this mean and variance in place of the batch's."""
        check_batchnorm(x, eps, gamma=gamma, beta=beta, mean=mean, var=var)
        return self._batchnorm_inference(x, gamma, beta, mean, var, float(eps))

    def batchnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float
    ) -> tuple[Array, Array, Array]:
        """(dx, dgamma, dbeta), given the forward's mean and var, through which x acts as well.

        With z = (x - mean) / sqrt(var + eps), sums and means over a channel's values:
        dbeta = sum of dy, dgamma = sum of dy z,
        dx = gamma / sqrt(var + eps) (dy - mean of dy - z (mean of dy z)).
        """
        check_batchnorm(x, eps, gamma=gamma, mean=mean, var=var)
        _check_same("dy", dy, x.shape, x.dtype)
        return self._batchnorm_backward(dy, x, gamma, mean, var, float(eps))

    # Group normalisation: x is (N,C,H,W) or (N,C), and a group's values are those of C/groups
    # neighbouring channels of one image

    def groupnorm_forward(
        self, x: Array, gamma: Array, beta: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        """y = gamma (x - mean) / sqrt(var + eps) + beta, each group of an image by itself; y, mean, var.

        mean and var are those of the group's values, var the biased one; gamma and beta are the
        channel's. With one group this is layer norm, with as many as channels instance norm.
        Shapes: x (N,C,H,W) or (N,C), gamma and beta (C) -> y as x, mean and var (N,groups).
        Raises ShapeError where groups does not divide C. Source: Wu, He 2018.
        """
        check_groupnorm(x, groups, eps, gamma=gamma, beta=beta)
        return self._groupnorm_forward(x, gamma, beta, groups, float(eps))

    def groupnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]:
        """(dx, dgamma, dbeta), given the forward's mean and var, through which x acts as well.

        With z = (x - mean) / sqrt(var + eps) and g = gamma dy, means over a group's values:
        dx = (g - mean of g - z (mean of g z)) / sqrt(var + eps); for each channel, with sums over
        N, H and W, dbeta = sum of dy, dgamma = sum of dy z.
        """
        check_groupnorm(x, groups, eps, gamma=gamma)
        for field, array in (("mean", mean), ("var", var)):
            _check_same(field, array, (len(x), groups), x.dtype)
        _check_same("dy", dy, x.shape, x.dtype)
        return self._groupnorm_backward(dy, x, gamma, mean, var, groups, float(eps))

    # Scaling of channels

    def scale_forward(self, x: Array, w: Array, b: Array) -> Array:
        """y = w x + b, with the channel's w and b. Shapes: x (N,C,H,W) or (N,C), w and b (C) -> y as x.

        Behind an average pool, LeNet's subsampling: LeCun et al. 1998, section II.B.
        """
        check_scale(x, w=w, b=b)
        return self._scale_forward(x, w, b)

    def scale_backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
        """dx = w dy; for each channel dw = sum of dy x, db = sum of dy."""
        check_scale(x, w=w)
        _check_same("dy", dy, x.shape, x.dtype)
        return self._scale_backward(dy, x, w)

    # Local response normalisation

    def lrn_forward(self, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        """y = x / (k + alpha/size (sum of x^2 over `size` neighbouring channels))^beta.

        The neighbours of channel c are c - size//2 ... c + (size-1)//2, zeros beyond the first
        and the last channel. Shapes: x (N,C,H,W) -> y likewise.
        Source: Krizhevsky et al. 2012, section 3.3, in PyTorch's form, which divides alpha by size.
        """
        check_lrn(x, size, alpha, beta, k)
        return self._lrn_forward(x, size, float(alpha), float(beta), float(k))

    def lrn_backward(self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        """dx[c] = dy[c] / s[c]^beta - 2 alpha beta/size x[c] (sum of dy x / s^(beta+1) over channels).

        s is what the forward pass raises to the power; the sum is over the channels that have
        c among their neighbours.
        """
        check_lrn(x, size, alpha, beta, k)
        _check_same("dy", dy, x.shape, x.dtype)
        return self._lrn_backward(dy, x, size, float(alpha), float(beta), float(k))

    # Dropout

    def dropout(self, x: Array, rate: float, seed: int, spatial: bool = False) -> Array:
        """y = x / (1 - rate) where the seed's mask keeps x, 0 elsewhere, whatever x was there.

        The mask is a function of seed and position alone (`cnnctl.backends.dropout` has it), the
        same in every backend; so dx = dropout(dy, rate, seed). With `spatial` the position is that
        of image and channel, so that a channel stays or goes as a whole. Shapes: x (N,C,H,W) or
        (N,D) -> y likewise; rate in [0, 1), seed in [0, 2^64).
        Source: Srivastava et al. 2014, scaled while training ("inverted"); spatial: Tompson et al. 2015.
        """
        check_dropout(x, rate, seed)
        return self._dropout(x, float(rate), seed, spatial)

    # Loss

    def softmax_cross_entropy_forward(
        self, scores: Array, labels: Array, smoothing: float = 0.0, weights: Array | None = None
    ) -> tuple[float, Array]:
        """L = sum over n,k of t[n,k] (-log p[n,k]) / sum over n of w[label], in nats; and p itself.

        p[n,k] = exp(s[n,k] - max s[n]) / sum over j of exp(s[n,j] - max s[n]);
        t[n,k] = (1 - smoothing) w[k] where k is the label, plus smoothing w[k] / K for every k.
        Without smoothing and weights that is the mean of -log p[label].
        Shapes: scores (N,K), labels (N) integers in [0, K), weights (K), 1 by default -> loss,
        p (N,K). Over no images L is 0; so it is where all their labels have weight 0.
        Source: Goodfellow et al. 2016, section 6.2.2.3; smoothing: Szegedy et al. 2016, section 7,
        both weighted as PyTorch does it.
        """
        check_labels(scores, labels)
        check_loss_settings(CrossEntropySpec(smoothing), scores.shape[1], weights, scores.dtype)
        return self._softmax_cross_entropy_forward(scores, labels, smoothing, weights)

    def softmax_cross_entropy_backward(
        self, p: Array, labels: Array, smoothing: float = 0.0, weights: Array | None = None
    ) -> Array:
        """dscores[n,k] = (p[n,k] sum over j of t[n,j] - t[n,k]) / sum over n of w[label]."""
        check_labels(p, labels)
        check_loss_settings(CrossEntropySpec(smoothing), p.shape[1], weights, p.dtype)
        return self._softmax_cross_entropy_backward(p, labels, smoothing, weights)

    def hinge_forward(self, scores: Array, labels: Array, margin: float = 1.0) -> float:
        """L = mean over n of the sum over k, the label left out, of max(0, s[n,k] - s[n,label] + margin).

        Shapes: scores (N,K), labels (N) integers in [0, K). Source: Weston, Watkins 1999, as cs231n has it.
        """
        check_labels(scores, labels)
        check_loss_settings(HingeSpec(margin), scores.shape[1])
        return self._hinge_forward(scores, labels, float(margin))

    def hinge_backward(self, scores: Array, labels: Array, margin: float = 1.0) -> Array:
        """dscores[n,k] = 1/N where k adds to the sum, minus their number / N at the label."""
        check_labels(scores, labels)
        check_loss_settings(HingeSpec(margin), scores.shape[1])
        return self._hinge_backward(scores, labels, float(margin))

    def squared_error_forward(self, scores: Array, labels: Array) -> float:
        """L = mean over n of 0.5 (sum over k of (s[n,k] - t[n,k])^2), t = 1 at the label, 0 elsewhere.

        Shapes: scores (N,K), labels (N) integers in [0, K). With K = 1 the target is the label
        itself, 0 or 1. Source: Rumelhart, Hinton, Williams 1986.
        """
        check_labels(scores, labels, of_one=2)
        return self._squared_error_forward(scores, labels)

    def squared_error_backward(self, scores: Array, labels: Array) -> Array:
        """dscores = (s - t) / N."""
        check_labels(scores, labels, of_one=2)
        return self._squared_error_backward(scores, labels)

    # Updates: in place, on contiguous arrays of one shape

    def sum_squares(self, x: Array) -> float:
        """Sum of x^2 over all elements, of a contiguous array that is only read."""
        _check_update(x)
        return self._sum_squares(x)

    def add_l1_gradient(self, w: Array, dw: Array, l1: float) -> float:
        """dw <- dw + l1 sign(w), where sign(0) = 0 and sign(NaN) is NaN; returns the sum of |w|."""
        _check_update(w, dw)
        return self._add_l1_gradient(w, dw, l1)

    def sgd_update(
        self,
        w: Array,
        dw: Array,
        velocity: Array,
        *,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        l2: float = 0.0,
    ) -> float:
        """One step of SGD; changes `w` and `velocity`, returns sum of w^2 before it, or NaN.

        g = dw + l2 w; v <- momentum v + (1-dampening) g;
        w <- w - lr (g + momentum v if nesterov else v).
        Source: Sutskever et al. 2013, in PyTorch's form.
        """
        _check_update(w, dw, velocity)
        return self._sgd_update(w, dw, velocity, lr, momentum, dampening, nesterov, l2)

    def adam_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        v: Array,
        *,
        step: int,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        l2: float = 0.0,
    ) -> float:
        """Step number `step` (from 1) of Adam; changes w, m, v, returns sum of w^2 before it, or NaN.

        g = dw + l2 w; m <- beta1 m + (1-beta1) g; v <- beta2 v + (1-beta2) g^2;
        w <- (1 - lr weight_decay) w - lr (m / (1-beta1^step)) / (sqrt(v / (1-beta2^step)) + eps).
        Source: Kingma, Ba 2015, algorithm 1; Loshchilov, Hutter 2019 for weight_decay.
        """
        _check_update(w, dw, m, v)
        _check_step(step)
        return self._adam_update(w, dw, m, v, step, lr, beta1, beta2, eps, weight_decay, l2)

    def adagrad_update(
        self, w: Array, dw: Array, square: Array, *, lr: float, eps: float = 1e-10, l2: float = 0.0
    ) -> float:
        """One step of AdaGrad; changes `w` and `square`, returns sum of w^2 before it, or NaN.

        g = dw + l2 w; s <- s + g^2; w <- w - lr g / (sqrt(s) + eps), s = square.
        Source: Duchi et al. 2011, section 1.3, with a diagonal matrix.
        """
        _check_update(w, dw, square)
        return self._adagrad_update(w, dw, square, lr, eps, l2)

    def rmsprop_update(
        self,
        w: Array,
        dw: Array,
        square: Array,
        mean: Array | None = None,
        velocity: Array | None = None,
        *,
        lr: float,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        l2: float = 0.0,
    ) -> float:
        """One step of RMSprop; changes w and its slots, returns sum of w^2 before it, or NaN.

        g = dw + l2 w; s <- alpha s + (1-alpha) g^2; a <- alpha a + (1-alpha) g;
        d = g / (sqrt(max(s - a^2, 0)) + eps); v <- momentum v + d; w <- w - lr v.
        Without a `mean` (a) it is not centred: a counts as 0. Without a `velocity` (v) there is
        no momentum: d takes its place.
        Source: Tieleman, Hinton 2012, lecture 6.5; Graves 2013, section 4.2, for the mean.
        """
        _check_update(w, dw, square, *(slot for slot in (mean, velocity) if slot is not None))
        if momentum and velocity is None:
            raise ConfigError(f"momentum: {momentum} needs a velocity to be kept in")
        return self._rmsprop_update(w, dw, square, mean, velocity, lr, alpha, eps, momentum, l2)

    def adamax_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        u: Array,
        *,
        step: int,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        l2: float = 0.0,
    ) -> float:
        """Step number `step` (from 1) of AdaMax; changes w, m, u, returns sum of w^2 before it, or NaN.

        g = dw + l2 w; m <- beta1 m + (1-beta1) g; u <- max(beta2 u, |g| + eps);
        w <- w - lr (m / (1-beta1^step)) / u.
        Source: Kingma, Ba 2015, algorithm 2, with PyTorch's eps.
        """
        _check_update(w, dw, m, u)
        _check_step(step)
        return self._adamax_update(w, dw, m, u, step, lr, beta1, beta2, eps, l2)

    def lion_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        *,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        l2: float = 0.0,
    ) -> float:
        """One step of Lion; changes `w` and `m`, returns sum of w^2 before it, or NaN.

        g = dw + l2 w; w <- (1 - lr weight_decay) w - lr sign(beta1 m + (1-beta1) g);
        m <- beta2 m + (1-beta2) g. The sign of 0 is 0, that of NaN is NaN.
        Source: Chen et al. 2023, algorithm 2.
        """
        _check_update(w, dw, m)
        return self._lion_update(w, dw, m, lr, beta1, beta2, weight_decay, l2)

    # Fused operations

    def conv_sandwich_forward(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        sandwich: Sandwich,
        gamma: Array | None = None,
        beta: Array | None = None,
        r: Array | None = None,
    ) -> SandwichOutputs:
        """y = pool(activation(norm(conv(x, w) + b) + r)), and what backward needs besides.

        Shapes: gamma, beta (F) with norm; r (N,F,OH,OW), as before the pool, with residual.
        Norm takes mean and variance from the batch.
        """
        check_sandwich(x, w, b, sandwich, gamma, beta, r)
        return self._conv_sandwich_forward(x, w, b, sandwich, gamma, beta, r)

    def conv_sandwich_inference(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        sandwich: Sandwich,
        gamma: Array | None = None,
        beta: Array | None = None,
        r: Array | None = None,
        mean: Array | None = None,
        var: Array | None = None,
    ) -> Array:
        """y alone, where norm takes this mean and variance, (F) each, whatever the batch."""
        check_sandwich(x, w, b, sandwich, gamma, beta, r)
        _check_statistics(mean, var, w, sandwich)
        return self._conv_sandwich_inference(x, w, b, sandwich, gamma, beta, r, mean, var)

    def conv_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        outputs: SandwichOutputs,
        sandwich: Sandwich,
        gamma: Array | None = None,
        beta: Array | None = None,
        r: Array | None = None,
        *,
        need_dx: bool = True,
    ) -> SandwichGradients:
        """Gradients, given the forward's outputs; None for what the sandwich does not have.

        Where y tells an activation's derivative it is taken from the pooled y: a max pool passes
        its gradient only to the pixel whose value y is.
        """
        shape = check_sandwich(x, w, None, sandwich, gamma, beta, r)
        _check_same("dy", dy, shape, x.dtype)
        _check_outputs(outputs, check_conv(x, w, None, sandwich.window, sandwich.groups), shape, x, sandwich)
        return self._conv_sandwich_backward(dy, x, w, outputs, sandwich, gamma, beta, r, need_dx)

    def linear_sandwich_forward(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        activation: Activation | None,
        alpha: float | None = None,
    ) -> Array:
        """y = activation(x w^T + b), for any activation whose gradient y tells: not gelu or silu."""
        check_linear(x, w, b)
        _check_fused_activation(activation, alpha)
        return self._linear_sandwich_forward(x, w, b, activation, alpha)

    def linear_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        y: Array,
        activation: Activation | None,
        alpha: float | None = None,
        *,
        need_dx: bool = True,
    ) -> tuple[Array | None, Array, Array]:
        """(dx, dw, db), given the forward's `y`."""
        shape = check_linear(x, w, None)
        _check_fused_activation(activation, alpha)
        _check_same("dy", dy, shape, x.dtype)
        _check_same("y", y, shape, x.dtype)
        return self._linear_sandwich_backward(dy, x, w, y, activation, alpha, need_dx)

    # How fused operations are done where there is no kernel for them: one after the other

    def _conv_sandwich_forward(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        sandwich: Sandwich,
        gamma: Array | None,
        beta: Array | None,
        r: Array | None,
    ) -> SandwichOutputs:
        z = u = self._conv_forward(x, w, b, sandwich.window, sandwich.groups)
        mean: Array | None = None
        var: Array | None = None
        if sandwich.norm:
            assert gamma is not None
            assert beta is not None
            u, mean, var = self._batchnorm_forward(z, gamma, beta, sandwich.norm.eps)
        y, index = self._finish_sandwich(u, sandwich, r)
        return SandwichOutputs(y, index, z if sandwich.keeps_z else None, mean, var)

    def _conv_sandwich_inference(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        sandwich: Sandwich,
        gamma: Array | None,
        beta: Array | None,
        r: Array | None,
        mean: Array | None,
        var: Array | None,
    ) -> Array:
        u = self._conv_forward(x, w, b, sandwich.window, sandwich.groups)
        if sandwich.norm:
            assert gamma is not None
            assert beta is not None
            assert mean is not None
            assert var is not None
            u = self._batchnorm_inference(u, gamma, beta, mean, var, sandwich.norm.eps)
        return self._finish_sandwich(u, sandwich, r)[0]

    def _finish_sandwich(self, u: Array, sandwich: Sandwich, r: Array | None) -> tuple[Array, Array | None]:
        """pool(activation(u + r)) and the winners of a max pool."""
        if r is not None:
            u = u + r
        if sandwich.activation:
            alpha = choose_alpha(sandwich.activation, sandwich.alpha)
            u = self._activation_forward(u, sandwich.activation, alpha)
        match sandwich.pool:
            case Pool("max", window):
                return self._maxpool_forward(u, window)
            case Pool("average", window):
                return self._avgpool_forward(u, window), None
        return u, None

    def _conv_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        outputs: SandwichOutputs,
        sandwich: Sandwich,
        gamma: Array | None,
        beta: Array | None,
        r: Array | None,
        need_dx: bool,
    ) -> SandwichGradients:
        y, index, z, mean, var = outputs.y, outputs.index, outputs.z, outputs.mean, outputs.var
        shape = check_conv(x, w, None, sandwich.window, sandwich.groups)
        averaged = sandwich.pool is not None and sandwich.pool.kind == "average"
        from_y = not needs_input(sandwich.activation) and not averaged
        du = dy
        if sandwich.activation and from_y:
            alpha = choose_alpha(sandwich.activation, sandwich.alpha)
            du = self._activation_backward(du, y, y, sandwich.activation, alpha)
        match sandwich.pool:
            case Pool("max", window):
                assert index is not None
                du = self._maxpool_backward(du, index, shape, window)
            case Pool("average", window):
                du = self._avgpool_backward(du, shape, window)
        if sandwich.activation and not from_y:
            assert z is not None
            u = z
            if sandwich.norm:
                assert gamma is not None
                assert beta is not None
                assert mean is not None
                assert var is not None
                u = self._batchnorm_inference(z, gamma, beta, mean, var, sandwich.norm.eps)
            if r is not None:
                u = u + r
            alpha = choose_alpha(sandwich.activation, sandwich.alpha)
            behind = self._activation_forward(u, sandwich.activation, alpha)
            du = self._activation_backward(du, u, behind, sandwich.activation, alpha)
        dz = du
        dgamma: Array | None = None
        dbeta: Array | None = None
        if sandwich.norm:
            assert z is not None
            assert gamma is not None
            assert mean is not None
            assert var is not None
            dz, dgamma, dbeta = self._batchnorm_backward(du, z, gamma, mean, var, sandwich.norm.eps)
        dx, dw, db = self._conv_backward(dz, x, w, sandwich.window, sandwich.groups, need_dx)
        return SandwichGradients(dx, dw, db, dgamma, dbeta, du if sandwich.residual else None)

    def _linear_sandwich_forward(
        self, x: Array, w: Array, b: Array | None, activation: Activation | None, alpha: float | None
    ) -> Array:
        y = self._linear_forward(x, w, b)
        if activation:
            y = self._activation_forward(y, activation, choose_alpha(activation, alpha))
        return y

    def _linear_sandwich_backward(
        self,
        dy: Array,
        x: Array,
        w: Array,
        y: Array,
        activation: Activation | None,
        alpha: float | None,
        need_dx: bool,
    ) -> tuple[Array | None, Array, Array]:
        if activation:
            dy = self._activation_backward(dy, y, y, activation, choose_alpha(activation, alpha))
        return self._linear_backward(dy, x, w, need_dx)

    # Stages of a plan

    @abstractmethod
    def create_layout(self, shape: Shape, dtype: Any, consumers: Sequence[Spec]) -> Layout:
        """The layout of a network's input, which these stages will read."""

    @abstractmethod
    def create_stage(self, spec: Spec, layout: Layout, dtype: Any) -> Stage:
        """`spec` made ready for images that lie as `layout` says."""

    @abstractmethod
    def create_loss(self, spec: LossSpec, layout: Layout, scores: Array, dscores: Array | None) -> LossStage:
        """A loss over a buffer of scores; `dscores` only for training."""

    # What a backend implements; arguments have been checked

    @abstractmethod
    def _conv_forward(self, x: Array, w: Array, b: Array | None, window: Window, groups: int) -> Array: ...

    @abstractmethod
    def _conv_backward(
        self, dy: Array, x: Array, w: Array, window: Window, groups: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]: ...

    @abstractmethod
    def _maxpool_forward(self, x: Array, window: Window) -> tuple[Array, Array]: ...

    @abstractmethod
    def _maxpool_backward(
        self, dy: Array, index: Array, x_shape: tuple[int, int, int, int], window: Window
    ) -> Array: ...

    @abstractmethod
    def _linear_forward(self, x: Array, w: Array, b: Array | None) -> Array: ...

    @abstractmethod
    def _linear_backward(
        self, dy: Array, x: Array, w: Array, need_dx: bool
    ) -> tuple[Array | None, Array, Array]: ...

    @abstractmethod
    def _avgpool_forward(self, x: Array, window: Window) -> Array: ...

    @abstractmethod
    def _avgpool_backward(self, dy: Array, x_shape: tuple[int, int, int, int], window: Window) -> Array: ...

    @abstractmethod
    def _activation_forward(self, x: Array, activation: Activation, alpha: float) -> Array: ...

    @abstractmethod
    def _activation_backward(
        self, dy: Array, x: Array, y: Array, activation: Activation, alpha: float
    ) -> Array: ...

    @abstractmethod
    def _batchnorm_forward(
        self, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, Array, Array]: ...

    @abstractmethod
    def _batchnorm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float
    ) -> Array: ...

    @abstractmethod
    def _batchnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float
    ) -> tuple[Array, Array, Array]: ...

    @abstractmethod
    def _groupnorm_forward(
        self, x: Array, gamma: Array, beta: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]: ...

    @abstractmethod
    def _groupnorm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, groups: int, eps: float
    ) -> tuple[Array, Array, Array]: ...

    @abstractmethod
    def _scale_forward(self, x: Array, w: Array, b: Array) -> Array: ...

    @abstractmethod
    def _scale_backward(self, dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]: ...

    @abstractmethod
    def _lrn_forward(self, x: Array, size: int, alpha: float, beta: float, k: float) -> Array: ...

    @abstractmethod
    def _lrn_backward(self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array: ...

    @abstractmethod
    def _dropout(self, x: Array, rate: float, seed: int, spatial: bool) -> Array: ...

    @abstractmethod
    def _softmax_cross_entropy_forward(
        self, scores: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> tuple[float, Array]: ...

    @abstractmethod
    def _softmax_cross_entropy_backward(
        self, p: Array, labels: Array, smoothing: float, weights: Array | None
    ) -> Array: ...

    @abstractmethod
    def _hinge_forward(self, scores: Array, labels: Array, margin: float) -> float: ...

    @abstractmethod
    def _hinge_backward(self, scores: Array, labels: Array, margin: float) -> Array: ...

    @abstractmethod
    def _squared_error_forward(self, scores: Array, labels: Array) -> float: ...

    @abstractmethod
    def _squared_error_backward(self, scores: Array, labels: Array) -> Array: ...

    @abstractmethod
    def _sum_squares(self, x: Array) -> float: ...

    @abstractmethod
    def _add_l1_gradient(self, w: Array, dw: Array, l1: float) -> float: ...

    @abstractmethod
    def _sgd_update(
        self,
        w: Array,
        dw: Array,
        velocity: Array,
        lr: float,
        momentum: float,
        dampening: float,
        nesterov: bool,
        l2: float,
    ) -> float: ...

    @abstractmethod
    def _adam_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        v: Array,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        l2: float,
    ) -> float: ...

    @abstractmethod
    def _adagrad_update(
        self, w: Array, dw: Array, square: Array, lr: float, eps: float, l2: float
    ) -> float: ...

    @abstractmethod
    def _rmsprop_update(
        self,
        w: Array,
        dw: Array,
        square: Array,
        mean: Array | None,
        velocity: Array | None,
        lr: float,
        alpha: float,
        eps: float,
        momentum: float,
        l2: float,
    ) -> float: ...

    @abstractmethod
    def _adamax_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        u: Array,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        l2: float,
    ) -> float: ...

    @abstractmethod
    def _lion_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        l2: float,
    ) -> float: ...


def check_conv(x: Array, w: Array, b: Array | None, window: Window, groups: int) -> tuple[int, int, int, int]:
    """Validate a convolution's arguments; returns the shape of y, (N, F, OH, OW)."""
    _check_dtype("x", x)
    if x.ndim != 4 or x.shape[1] < 1:
        raise ShapeError(f"x: shape {x.shape} is not (N, C, H, W) with at least one channel")
    N, C, H, W = x.shape
    if groups < 1 or C % groups:
        raise ShapeError(f"groups: {groups} does not divide the {C} channels of x")
    if w.ndim != 4 or w.shape[1:] != (C // groups, *window.kernel):
        raise ShapeError(
            f"w: shape {w.shape} is not (F, {C // groups}, {window.kernel[0]}, {window.kernel[1]})"
        )
    window.check_size(H, W)
    F = w.shape[0]
    if F < 1:
        raise ShapeError(f"w: shape {w.shape} has no filters")
    if F % groups:
        raise ShapeError(f"groups: {groups} does not divide the {F} filters of w")
    _check_same("w", w, w.shape, x.dtype)
    if b is not None:
        _check_same("b", b, (F,), x.dtype)
    shape = (N, F, *window.output_size(H, W))
    check_elements(shape, "y")
    return shape


def check_sandwich(
    x: Array,
    w: Array,
    b: Array | None,
    sandwich: Sandwich,
    gamma: Array | None = None,
    beta: Array | None = None,
    r: Array | None = None,
) -> tuple[int, int, int, int]:
    """Validate a fused convolution's arguments; returns the shape of y, after the pool."""
    shape = check_conv(x, w, b, sandwich.window, sandwich.groups)
    if sandwich.activation:
        check_activation(sandwich.activation, sandwich.alpha)
    N, F, *size = shape
    norm = sandwich.norm is not None
    for field, array, needed, there in (
        ("gamma", gamma, (F,), norm),
        ("beta", beta, (F,), norm),
        ("r", r, shape, sandwich.residual),
    ):
        _check_present(field, array, needed, x.dtype, there)
    return (N, F, *(check_pool_window(sandwich.pool.window, *size) if sandwich.pool else size))


def _check_present(
    field: str, array: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], needed: bool
) -> None:
    """An array that has to be there exactly when the sandwich asks for it."""
    if needed != (array is not None):
        raise ShapeError(f"{field}: {'missing' if needed else 'given'}, but the sandwich says otherwise")
    if array is not None:
        _check_same(field, array, shape, dtype)


def _check_statistics(mean: Array | None, var: Array | None, w: Array, sandwich: Sandwich) -> None:
    for field, array in (("mean", mean), ("var", var)):
        _check_present(field, array, w.shape[:1], w.dtype, sandwich.norm is not None)


def _check_outputs(
    outputs: SandwichOutputs,
    conv_shape: tuple[int, ...],
    shape: tuple[int, ...],
    x: Array,
    sandwich: Sandwich,
) -> None:
    _check_same("y", outputs.y, shape, x.dtype)
    _check_present("z", outputs.z, conv_shape, x.dtype, sandwich.keeps_z)
    for field, array in (("mean", outputs.mean), ("var", outputs.var)):
        _check_present(field, array, conv_shape[1:2], x.dtype, sandwich.norm is not None)
    if sandwich.pool and sandwich.pool.kind == "max":
        _check_index(outputs.index, shape, sandwich.pool.window)


def check_pool(x: Array, window: Window) -> tuple[int, int, int, int]:
    """Validate a pooling's arguments; returns the shape of y, (N, C, OH, OW)."""
    _check_dtype("x", x)
    if x.ndim != 4 or x.shape[1] < 1:
        raise ShapeError(f"x: shape {x.shape} is not (N, C, H, W) with at least one channel")
    return (*x.shape[:2], *check_pool_window(window, *x.shape[2:]))


def check_pool_window(window: Window, height: int, width: int) -> tuple[int, int]:
    """(OH, OW); refuses padding so wide that a window would hold no pixel of the image."""
    window.check_size(height, width)
    OH, OW = window.output_size(height, width)
    rows = _list_doubtful(OH, height, window.dilation[0])
    columns = _list_doubtful(OW, width, window.dilation[1])
    rows_ok = all(window.row_taps(oh, height) for oh in rows)
    if not rows_ok or not all(window.column_taps(ow, width) for ow in columns):
        raise ShapeError(f"padding: {window.padding} leaves a pooling window without any pixel of the image")
    return OH, OW


def _list_doubtful(count: int, extent: int, dilation: int) -> Sequence[int]:
    """The windows of `count` that may miss the image: the outermost, unless its gaps could hold it."""
    return range(count) if dilation > extent else (0, count - 1)


def check_linear(x: Array, w: Array, b: Array | None) -> tuple[int, int]:
    """Validate a fully connected layer's arguments; returns the shape of y, (N, out)."""
    _check_dtype("x", x)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ShapeError(f"x, w: shapes {x.shape}, {w.shape} are not (N, in), (out, in)")
    _check_same("w", w, w.shape, x.dtype)
    if b is not None:
        _check_same("b", b, (w.shape[0],), x.dtype)
    return x.shape[0], w.shape[0]


def check_activation(activation: str, alpha: float | None = None) -> None:
    """Validate the name of an activation, and its parameter where one is given."""
    known = get_args(Activation)
    if activation not in known:
        raise ConfigError(
            f"activation: {activation!r} is not known; {describe_alternatives(activation, known)}"
        )
    if alpha is not None:
        if activation not in ALPHAS:
            raise ConfigError(f"alpha: {alpha!r} means nothing to {activation}, only to {', '.join(ALPHAS)}")
        check_real("alpha", alpha, 0, above=True)


def _check_fused_activation(activation: Activation | None, alpha: float | None) -> None:
    if needs_input(activation):
        raise ConfigError(
            f"activation: {activation!r} cannot be fused: its gradient needs what stands before it"
        )
    if activation is not None:
        check_activation(activation, alpha)


def check_scale(x: Array, **per_channel: Array) -> None:
    """Validate images or vectors, and arrays that have a number a channel."""
    _check_dtype("x", x)
    if x.ndim not in {2, 4} or x.shape[1] < 1:
        raise ShapeError(f"x: shape {x.shape} is not (N, C, H, W) or (N, C) with at least one channel")
    for field, array in per_channel.items():
        _check_same(field, array, x.shape[1:2], x.dtype)


def check_batchnorm(x: Array, eps: float, **per_channel: Array) -> None:
    """Validate images or vectors, eps, and arrays that have a number a channel."""
    check_scale(x, **per_channel)
    check_real("eps", eps, 0, above=True)


def check_groupnorm(x: Array, groups: int, eps: float, **per_channel: Array) -> None:
    """Validate images or vectors with values to normalise, groups, eps and numbers a channel."""
    check_batchnorm(x, eps, **per_channel)
    if 0 in x.shape[1:]:
        raise ShapeError(f"x: shape {x.shape} has images without pixels")
    check_groups(groups, x.shape[1])


def check_groups(groups: int, channels: int) -> None:
    """Validate a number of groups of equally many channels."""
    if type(groups) is not int or groups < 1 or channels % groups:
        raise ShapeError(f"groups: {groups!r} does not divide the {channels} channels")


def check_lrn(x: Array, size: int, alpha: float, beta: float, k: float) -> None:
    """Validate images, and settings that keep the root of local response normalisation above 0."""
    _check_dtype("x", x)
    if x.ndim != 4 or x.shape[1] < 1:
        raise ShapeError(f"x: shape {x.shape} is not (N, C, H, W) with at least one channel")
    check_lrn_settings(size, alpha, beta, k)


def check_lrn_settings(size: int, alpha: float, beta: float, k: float) -> None:
    """Validate size >= 1, alpha >= 0, beta >= 0 and k > 0."""
    if type(size) is not int or size < 1:
        raise ConfigError(f"size: {size!r} is not an integer of at least 1")
    check_real("alpha", alpha, 0)
    check_real("beta", beta, 0)
    check_real("k", k, 0, above=True)


def check_dropout(x: Array, rate: float, seed: int) -> None:
    """Validate images or vectors, a rate in [0, 1) and a seed of 64 bits."""
    _check_dtype("x", x)
    if x.ndim not in {2, 4}:
        raise ShapeError(f"x: shape {x.shape} is neither (N, C, H, W) nor (N, D)")
    check_real("rate", rate, 0, 1)
    if type(seed) is not int or not 0 <= seed < 2**64:
        raise ConfigError(f"seed: {seed!r} is not an integer from 0 to 2^64 - 1")


def check_labels(scores: Array, labels: Array, of_one: int = 1) -> None:
    """Validate scores (N, K) and labels (N) with every label in [0, K), or [0, of_one) where K is 1."""
    _check_dtype("scores", scores)
    if scores.ndim != 2 or scores.shape[1] < 1 or labels.shape != scores.shape[:1]:
        raise ShapeError(f"scores, labels: shapes {scores.shape}, {labels.shape} are not (N, K), (N), K >= 1")
    check_label_values(labels, of_one if scores.shape[1] == 1 else scores.shape[1])


def check_loss_settings(
    spec: LossSpec, classes: int, weights: Array | None = None, dtype: Any = np.float64
) -> None:
    """Validate smoothing in [0, 1), a margin above 0 and a weight of at least 0 for each class."""
    match spec:
        case CrossEntropySpec(smoothing):
            check_real("smoothing", smoothing, 0, 1)
        case HingeSpec(margin):
            check_real("margin", margin, 0, above=True)
    if weights is not None:
        _check_same("class_weights", weights, (classes,), np.dtype(dtype))
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
            given = weights.tolist()
            raise ConfigError(f"class_weights: {given} are not numbers of at least 0, with one above it")


def check_label_values(labels: Array, classes: int) -> None:
    """Validate labels as integers in [0, classes)."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise DtypeError(f"labels: {labels.dtype} is not an integer type")
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ShapeError(f"labels: values {labels.min()}..{labels.max()} do not fit the {classes} classes")


def _check_dtype(field: str, array: Array) -> None:
    if array.dtype not in DTYPES:
        raise DtypeError(f"{field}: dtype {array.dtype} is neither float32 nor float64")


def _check_same(field: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if array.shape != shape:
        raise ShapeError(f"{field}: shape {array.shape} where {shape} is needed")
    if array.dtype != dtype:
        raise DtypeError(f"{field}: dtype {array.dtype} where the other arrays have {dtype}")


def _check_index(index: Array | None, shape: tuple[int, ...], window: Window) -> None:
    if index is None or index.shape != shape or index.dtype != np.int32:
        found = "None" if index is None else f"{index.dtype} {index.shape}"
        raise ShapeError(f"index: {found} where int32 {shape} is needed")
    taps = window.kernel[0] * window.kernel[1]
    if index.size and not (index.min() >= 0 and index.max() < taps):
        raise ShapeError(
            f"index: values {index.min()}..{index.max()} do not fit the {taps} taps of the window"
        )


def tell_finite(squares: float, *arrays: Array) -> float:
    """What an update returns: the squares, or NaN if one of the arrays it has changed is not finite."""
    return squares if all(np.isfinite(array).all() for array in arrays) else nan


def _check_update(w: Array, *others: Array) -> None:
    _check_dtype("w", w)
    for array in (w, *others):
        _check_same("w, dw and slots", array, w.shape, w.dtype)
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ShapeError("w, dw and slots: an update works in place on aligned C-contiguous arrays")


def _check_step(step: int) -> None:
    if step < 1:
        raise ConfigError(f"step: {step} is below 1; the first step of Adam is number 1")
