"""What an operation is, apart from who computes it: fused operations and their settings.

Settings of operations, and what a batch of raw images is (two protocols). Computes nothing but seeds.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from cnnctl.geometry import Window

Array = NDArray[Any]
Shape = tuple[int, ...]
"""Extents of one image, without the batch: (C, H, W) or (D,)."""
Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "elu", "gelu", "silu"]
ALPHAS: dict[Activation, float] = {"leaky_relu": 0.01, "elu": 1.0}
"""The activations with a parameter, and what it is where nothing else is said."""


def choose_alpha(activation: Activation, alpha: float | None) -> float:
    """The parameter of an activation: what is said, else the usual one; 0 where it has none."""
    return ALPHAS.get(activation, 0.0) if alpha is None else alpha


def needs_input(activation: Activation | None) -> bool:
    """Whether its derivative has to be computed from x, since two x can have the same y."""
    return activation in {"gelu", "silu"}


class ImageChanges(Protocol):
    """Random changes to a batch's images; all come before normalising, but holes (cutout) after it.

    Attributes:
        moves: (n, 3) int32 or None; flip, down, right: h' = h + down; w' = w + right in the image
            mirrored if flip is 1.
        padding: what a pixel from outside is: 0, the nearest one, or that of the image mirrored at
            its edge pixels, from which it is less than H or W away.
        tones: (n, 2) float64 or None; gain and offset; 1 and 0 without.
        holes: (n, 4) int32 or None; y is 0 at rows [top, bottom), columns [left, right), where these
            are top, left, bottom, right.
    """

    @property
    def moves(self) -> Array | None: ...

    @property
    def padding(self) -> Literal["zero", "edge", "reflect"]: ...

    @property
    def tones(self) -> Array | None: ...

    @property
    def holes(self) -> Array | None: ...


class RawImages(Protocol):
    """Images before they are computed: chosen from a data set, moved, toned, normalised and cast.

    y[n,c,h,w] = scale[c] (gain[n] pixels[chosen[n],c,h',w'] + offset[n]) + shift[c,h,w].

    Attributes:
        pixels: (N, C, H, W), uint8 or float32.
        chosen: (n,) int64, indices into pixels.
        changes: what becomes of each image on the way.
        scale, shift: (C), (C, H, W), in the dtype of the images to come.
        share: mixup's weight of the image itself; the rest is the next image of the batch (of the
            first, for the last). `Plan` blends, `render` does not.
    """

    @property
    def pixels(self) -> Array: ...

    @property
    def chosen(self) -> Array: ...

    @property
    def changes(self) -> ImageChanges: ...

    @property
    def share(self) -> float: ...

    @property
    def scale(self) -> Array: ...

    @property
    def shift(self) -> Array: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> Any: ...

    def __len__(self) -> int: ...

    def render(self, out: Array | None = None) -> Array:
        """The images by numpy."""
        ...


@dataclass(frozen=True, slots=True)
class Pool:
    """A pooling: the maximum of a window, or the mean over its pixels inside the image."""

    kind: Literal["max", "average"]
    window: Window


@dataclass(frozen=True, slots=True)
class BatchNormSpec:
    """Normalisation over the batch; the running statistics move by `momentum` a step."""

    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True, slots=True)
class Sandwich:
    """What is fused behind a convolution: y = pool(activation(norm(conv(x, w) + b) + r)).

    Attributes:
        window: how the kernel moves.
        groups: the channels of x and of y fall into this many independent groups.
        norm: None or a batch norm.
        residual: whether an r, shaped as the convolution's result, is added.
        activation: None or a name from `Activation`.
        pool: None or a pooling.
        alpha: the activation's parameter; None for the usual one.
    """

    window: Window
    groups: int = 1
    norm: BatchNormSpec | None = None
    residual: bool = False
    activation: Activation | None = None
    pool: Pool | None = None
    alpha: float | None = None

    @property
    def keeps_z(self) -> bool:
        """Whether backward needs z = conv(x, w) + b, because y alone does not tell enough."""
        averaged = self.pool is not None and self.pool.kind == "average"
        return (
            self.norm is not None
            or needs_input(self.activation)
            or (self.activation is not None and averaged)
        )


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """Convolution with `filters` filters and whatever the sandwich puts behind it."""

    sandwich: Sandwich
    filters: int
    bias: bool


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """A fully connected layer with `units` outputs; an image before it is flattened."""

    units: int
    bias: bool
    activation: Activation | None
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pooling that no convolution stands before."""

    pool: Pool


@dataclass(frozen=True, slots=True)
class ActivationSpec:
    """An activation that no convolution or fully connected layer stands before."""

    activation: Activation
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class LrnSpec:
    """Local response normalisation over `size` neighbouring channels."""

    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True, slots=True)
class GroupNormSpec:
    """Normalisation of each image by itself, over `groups` groups of channels."""

    groups: int
    eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class ScaleSpec:
    """A learnt factor and offset for each channel."""


@dataclass(frozen=True, slots=True)
class DropoutSpec:
    """Dropout in training; each step's mask is drawn from `seed` mixed with the step's number.

    Attributes:
        rate: share of what is cleared.
        seed: settles the masks.
        spatial: whether channels are cleared as a whole.
    """

    rate: float
    seed: int
    spatial: bool = False


@dataclass(frozen=True, slots=True)
class AddSpec:
    """The sum of two branches that no convolution could take into its own."""


@dataclass(frozen=True, slots=True)
class FlattenSpec:
    """(C, H, W) to (C*H*W), where what follows does not flatten by itself."""


@dataclass(frozen=True, slots=True)
class CrossEntropySpec:
    """Softmax cross-entropy; `weights` one a class, None for 1 each."""

    smoothing: float = 0.0
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class HingeSpec:
    """Multi-class hinge loss."""

    margin: float = 1.0


@dataclass(frozen=True, slots=True)
class SquaredErrorSpec:
    """Half the squared distance of the scores from the label's row of zeros and a one."""


LossSpec = CrossEntropySpec | HingeSpec | SquaredErrorSpec

Spec = (
    ConvSpec
    | LinearSpec
    | PoolSpec
    | ActivationSpec
    | BatchNormSpec
    | GroupNormSpec
    | ScaleSpec
    | LrnSpec
    | DropoutSpec
    | AddSpec
    | FlattenSpec
)


def mix_seed(seed: int, step: int) -> int:
    """A seed for one step of many: number `step` of the stream that splitmix64 draws from `seed`.

    Source: Steele, Lea, Flood 2014, with the constants of Vigna's splitmix64.c.
    """
    z = (seed + (step + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31
