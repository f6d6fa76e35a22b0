"""What a network sees: filters, what each layer makes of an image, which pixels matter, and for whom.

Everything comes from the network run plainly, layer by layer, as it answers: dropout off, norms by
their running statistics. Computes; draws nothing, reads no file, changes no weight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cnnctl.backends.base import Backend
from cnnctl.backends.specs import Array
from cnnctl.data import Split
from cnnctl.errors import ConfigError, describe_alternatives
from cnnctl.nn import Conv, Layer, Linear, Network, Residual
from cnnctl.train.scores import spread_scores
from cnnctl.train.trained import Trained

BATCH_SIZE = 50
NOISE = 0.15
"""Standard deviation of SmoothGrad's noise, as a share of the image's range of levels."""
STEP_LEVELS = 0.5
"""How far a fooling step moves the pixels, as the root of the mean square, in levels of 0..255."""
OVERSAMPLING, POWERS = 30, 8
"""Directions beyond the two wanted, and how often they are sharpened, when components are looked for."""


@dataclass(frozen=True, eq=False)
class Saliency:
    """Which pixels a class's score depends on.

    Attributes:
        gradient: d score / d pixel, (C, H, W), in score per level.
        smoothed: the mean of such gradients at noisy copies of the image; None if not asked for.
    """

    gradient: Array
    smoothed: Array | None

    @property
    def map(self) -> Array:
        """max over c of |gradient|, (H, W). Source: Simonyan, Vedaldi, Zisserman 2014, section 3.1."""
        return _find_strongest(self.gradient)

    @property
    def smoothed_map(self) -> Array | None:
        """The same of the smoothed gradient."""
        return None if self.smoothed is None else _find_strongest(self.smoothed)


@dataclass(frozen=True, eq=False)
class Fooling:
    """What came of making an image look like another class.

    Attributes:
        image: (C, H, W) uint8, as far as it came.
        before, after: scores (K) of the original and of `image`.
        steps: those taken.
        won: whether the class has the highest score now.
    """

    image: Array
    before: Array
    after: Array
    steps: int
    won: bool


@dataclass(frozen=True, eq=False)
class Embedding:
    """Images as points in a plane.

    Attributes:
        step: after which the network was so.
        layer: the name of the hidden layer; it gives `values` numbers an image.
        points: (N, 2), coordinates along the two principal components.
        explained: the shares of the variance that these hold.
        labels, predicted: (N), what the images are and what they are taken for.
        classes: the name of class k at position k.
    """

    step: int
    layer: str
    values: int
    points: Array
    explained: tuple[float, float]
    labels: Array
    predicted: Array
    classes: tuple[str, ...]


def find_conv(network: Network, name: str | None = None) -> Conv:
    """The convolution of that name, or the first. Raises ConfigError if there is none."""
    convs = {layer.name: layer for layer in network.leaves if isinstance(layer, Conv)}
    if not convs:
        raise ConfigError("layer: the network has no convolution, and so no filters")
    if name is None:
        return next(iter(convs.values()))
    if name not in convs:
        kinds = {layer.name: layer.kind for layer in network.leaves}
        problem = f"is a {kinds[name]} layer and has no filters" if name in kinds else "is not known"
        raise ConfigError(f"layer: {name!r} {problem}; {describe_alternatives(name, convs)}")
    return convs[name]


def compute_feature_maps(trained: Trained, pixels: Array, layer: str | None = None) -> dict[str, Array]:
    """Layer name -> what it makes of pixels (C, H, W): (C, H, W) or (D), as the layer gives it.

    Of all layers but those that change no value (flatten, dropout), a block as one; or of the one of
    that name, which may stand in a block. Raises ConfigError if there is none.
    """
    network, x = trained.network, trained.normalize(pixels[None])
    outputs = dict(_trace(network.layers, x, trained.backend))
    if layer is not None:
        if layer not in outputs:
            raise ConfigError(f"layer: {layer!r} is not known; {describe_alternatives(layer, outputs)}")
        return {layer: outputs[layer]}
    shown = [other.name for other in network.layers if other.kind not in {"flatten", "dropout"}]
    return {name: outputs[name] for name in shown}


def compute_gradient(trained: Trained, images: Array, label: int, rival: int | None = None) -> Array:
    """d score[n,label] / d images[n], (N, C, H, W): of pixels in levels of 0..255 and scores before softmax.

    With a rival class, of score[n,label] - score[n,rival]. By the chain rule through the normaliser,
    x[n,c,h,w] = images[n,c,h,w] scale[c] + shift[c,h,w].
    """
    network = trained.network
    scores = network.forward(trained.normalize(images), trained.backend, training=True)
    share = np.zeros(len(trained.classes), scores.dtype)
    share[label] = 1
    if rival is not None:
        share[rival] -= 1
    if scores.shape[1] != len(share):  # one score s alone stands for (1 - s, s)
        share = share[1:] - share[:1]
    dx = network.backward(np.tile(share, (len(scores), 1)), trained.backend, need_dx=True)
    assert dx is not None
    gradient: Array = dx * trained.normalizer.scale[:, None, None]
    return gradient


def compute_saliency(trained: Trained, pixels: Array, label: int, smooth: int = 0, seed: int = 0) -> Saliency:
    """The gradient of a class's score at pixels (C, H, W), and its mean over `smooth` noisy copies.

    Noise is Gaussian, of NOISE times the range of the image's levels. Source: Smilkov et al. 2017.
    """
    image = pixels.astype(np.float64)
    gradient = compute_gradient(trained, image[None], label)[0]
    if not smooth:
        return Saliency(gradient, None)
    rng, total = np.random.default_rng(seed), np.zeros(image.shape)
    for start in range(0, smooth, BATCH_SIZE):
        noise = rng.standard_normal((min(BATCH_SIZE, smooth - start), *image.shape))
        total += compute_gradient(trained, image + NOISE * np.ptp(image) * noise, label).sum(axis=0)
    return Saliency(gradient, total / smooth)


def fool(trained: Trained, pixels: Array, label: int, steps: int = 200) -> Fooling:
    """Climb the score of a class from pixels (C, H, W) uint8 until it is the highest.

    A step is x <- x + STEP_LEVELS g / sqrt(mean of g^2), kept within 0..255, with g the gradient of the
    class's score less the highest one. Whether the class has won is judged of whole levels, as a file
    would hold them. Gives up after so many steps, or where there is no slope. Source: Szegedy et al. 2014;
    the normalised step is that of cs231n's make_fooling_image, which climbs the score alone and so takes
    more steps, or ends where all classes have none.
    """
    image = pixels.astype(np.float64)
    before = after = trained.score(pixels[None])[0]
    step = 0
    while after.argmax() != label and step < steps:
        gradient = compute_gradient(trained, image[None], label, int(after.argmax()))[0]
        size = np.sqrt(np.mean(np.square(gradient)))
        if not size > 0:
            break
        image = np.clip(image + STEP_LEVELS / size * gradient, 0, 255)
        after = trained.score(np.rint(image)[None])[0]
        step += 1
    return Fooling(np.rint(image).astype(np.uint8), before, after, step, bool(after.argmax() == label))


def compute_embedding(trained: Trained, split: Split) -> Embedding:
    """The last hidden layer of a split: what the last layer with weights reads.

    What a convolution or block reads is averaged over its pixels. Raises ConfigError if no layer with
    weights stands before that one.
    """
    layers = trained.network.layers
    weighted = [i for i, layer in enumerate(layers) if any(leaf.regularized for leaf in layer.walk())]
    if len(weighted) < 2:
        raise ConfigError("the network has no hidden layer: one layer alone has weights")
    last = weighted[-1]
    hidden, predicted = [], []
    for start in range(0, len(split), BATCH_SIZE):
        x = _run(layers[:last], trained.normalize(split.images[start : start + BATCH_SIZE]), trained.backend)
        averaged = x.ndim == 4 and not isinstance(layers[last], Linear)
        hidden.append(x.mean(axis=(2, 3)) if averaged else x.reshape(len(x), -1))
        scores = spread_scores(_run(layers[last:], x, trained.backend), trained.network.loss.kind)
        predicted.append(scores.argmax(axis=1))
    values = np.concatenate(hidden)
    points, explained = project(values)
    return Embedding(
        step=trained.step,
        layer=layers[last - 1].name,
        values=values.shape[1],
        points=points,
        explained=explained,
        labels=split.labels,
        predicted=np.concatenate(predicted),
        classes=trained.classes,
    )


def project(values: Array) -> tuple[Array, tuple[float, float]]:
    """Coordinates (N, 2) of values (N, D) along their two principal components, and the shares of variance.

    The singular vectors of the centred values, found in a random subspace that is sharpened by power
    iterations, so that neither N nor D has to be small. Each component points to where its largest
    weight is positive; one that does not exist is 0. Source: Halko, Martinsson, Tropp 2011.
    """
    centred = values - values.mean(axis=0, dtype=np.float64).astype(values.dtype)
    width = min(2 + OVERSAMPLING, *centred.shape)
    start = np.random.default_rng(0).standard_normal((centred.shape[1], width)).astype(values.dtype)
    basis = np.linalg.qr(centred @ start)[0]
    for _ in range(POWERS):
        basis = np.linalg.qr(centred @ np.linalg.qr(centred.T @ basis)[0])[0]
    _, sizes, directions = np.linalg.svd((basis.T @ centred).astype(np.float64), full_matrices=False)
    total = float(np.square(centred, dtype=np.float64).sum())
    points, shares = np.zeros((len(values), 2)), [0.0, 0.0]
    for k, direction in enumerate(directions[:2]):
        sign = np.sign(direction[np.abs(direction).argmax()])
        points[:, k] = sign * (centred @ direction)
        shares[k] = float(sizes[k] ** 2) / total if total else 0.0
    return points, (shares[0], shares[1])


def _trace(layers: Sequence[Layer], x: Array, backend: Backend) -> Iterator[tuple[str, Array]]:
    """What each layer gives for one image, those in a block before the block."""
    for layer in layers:
        if isinstance(layer, Residual):
            for branch in (layer.shortcut, layer.layers):
                yield from _trace(branch, x, backend)
        x = layer.forward(x, backend, training=False)
        yield layer.name, x[0]


def _run(layers: Sequence[Layer], x: Array, backend: Backend) -> Array:
    for layer in layers:
        x = layer.forward(x, backend, training=False)
    return x


def _find_strongest(gradient: Array) -> Array:
    strongest: Array = np.abs(gradient).max(axis=0)
    return strongest
