"""The network's fields: every layer there is, its settings, and how weights start.

Says what may be written, not what it does: layers are built elsewhere from these settings.
"""

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from cnnctl.config.fields import (
    Border,
    Count,
    Extent,
    Flag,
    Fraction,
    Kind,
    LayerName,
    NotNegative,
    Number,
    PoolBorder,
    Positive,
    Section,
    accept,
    choose,
    kind_of,
    one_of,
    refuse,
)
from cnnctl.config.strict_yaml import show_value
from cnnctl.errors import ShapeError
from cnnctl.geometry import Window

Distribution = Literal["normal", "uniform"]
Fan = Literal["in", "out", "average"]


class GaussianConfig(Kind):
    """Normal with a given standard deviation."""

    kind: ClassVar[str] = "gaussian"
    shorthand: ClassVar[str | None] = "std"

    std: Positive = Field(default=0.01, description="standard deviation of the weights, above 0")


class ConstantConfig(Kind):
    """The same number everywhere."""

    kind: ClassVar[str] = "constant"
    shorthand: ClassVar[str | None] = "value"

    value: Number = Field(default=0.0, description="every weight, a number")


class XavierConfig(Kind):
    """Variance 1 / fan."""

    kind: ClassVar[str] = "xavier"

    distribution: Annotated[Distribution, choose(Distribution)] = Field(
        default="normal", description="shape of the distribution, normal or uniform"
    )
    fan: Annotated[Fan, choose(Fan)] = Field(
        default="average", description="which fan is meant: in, out or the average of both"
    )


class HeConfig(XavierConfig):
    """Variance 2 / fan."""

    kind: ClassVar[str] = "he"

    fan: Annotated[Fan, choose(Fan)] = Field(
        default="in", description="which fan is meant: in, out or the average of both"
    )


class OrthogonalConfig(Kind):
    """Orthonormal rows, or columns."""

    kind: ClassVar[str] = "orthogonal"

    gain: Positive = Field(default=1.0, description="multiplies the weights, above 0")


Init = Annotated[
    Annotated[ConstantConfig, Tag("constant")]
    | Annotated[GaussianConfig, Tag("gaussian")]
    | Annotated[XavierConfig, Tag("xavier")]
    | Annotated[HeConfig, Tag("he")]
    | Annotated[OrthogonalConfig, Tag("orthogonal")],
    Discriminator(kind_of),
    one_of(ConstantConfig, GaussianConfig, XavierConfig, HeConfig, OrthogonalConfig),
]


class LayerConfig(Kind):
    """What every layer may have."""

    name: LayerName | None = Field(
        default=None,
        description="the layer's name, unique in the network; kind and ordinal by default, as conv2",
    )


class ConvConfig(LayerConfig):
    """Convolution over images."""

    kind: ClassVar[str] = "conv"

    filters: Count = Field(description="output channels, at least 1")
    kernel: Extent = Field(description="taps, an integer of at least 1 or [height, width]")
    stride: Extent = Field(
        default=1, description="pixels between windows, an integer of at least 1 or [height, width]"
    )
    padding: Border = Field(
        default=0,
        description="zeros around the image, an integer, [height, width], or same to keep its extents",
    )
    dilation: Extent = Field(
        default=1, description="pixels between taps, an integer of at least 1 or [height, width]"
    )
    groups: Count = Field(default=1, description="groups of channels that do not see one another, at least 1")
    bias: Flag = Field(default=True, description="whether to add a learnt constant to each channel")
    init: Init | None = Field(
        default=None, description="how the weight starts; the network's init by default"
    )

    @model_validator(mode="after")
    def _check_geometry(self) -> Self:
        try:
            Window.create(self.kernel, self.stride, self.padding, self.dilation)
        except ShapeError as error:  # its message begins with the field
            raise refuse(f".{error}") from None
        if self.filters % self.groups:
            raise refuse(f": {self.groups} does not divide the {self.filters} filters", "groups")
        return self


class MaxPoolConfig(LayerConfig):
    """The largest value of each window."""

    kind: ClassVar[str] = "maxpool"
    shorthand: ClassVar[str | None] = "kernel"

    kernel: Extent = Field(description="extents of the window, an integer of at least 1 or [height, width]")
    stride: Extent | None = Field(default=None, description="pixels between windows; the kernel by default")
    padding: PoolBorder = Field(
        default=0, description="border that does not count, an integer of at least 0 or [height, width]"
    )


class AvgPoolConfig(MaxPoolConfig):
    """The mean of each window."""

    kind: ClassVar[str] = "avgpool"


class SubsamplingConfig(MaxPoolConfig):
    """The mean of each window, with a learnt factor and offset for each channel."""

    kind: ClassVar[str] = "subsampling"


class GlobalAvgPoolConfig(LayerConfig):
    """The mean of all pixels of a channel."""

    kind: ClassVar[str] = "globalavgpool"


class LinearConfig(LayerConfig):
    """Fully connected; images are flattened first."""

    kind: ClassVar[str] = "linear"
    shorthand: ClassVar[str | None] = "units"

    units: Count = Field(description="outputs, at least 1")
    bias: Flag = Field(default=True, description="whether to add a learnt constant to each output")
    init: Init | None = Field(
        default=None, description="how the weight starts; the network's init by default"
    )


class ReLUConfig(LayerConfig):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"


class LeakyReLUConfig(LayerConfig):
    """x above 0, slope x below."""

    kind: ClassVar[str] = "leaky_relu"
    shorthand: ClassVar[str | None] = "slope"

    slope: Positive = Field(default=0.01, description="what x below 0 is multiplied by, above 0")


class ELUConfig(LayerConfig):
    """x above 0, alpha (e^x - 1) below."""

    kind: ClassVar[str] = "elu"
    shorthand: ClassVar[str | None] = "alpha"

    alpha: Positive = Field(default=1.0, description="how far below 0 it comes, above 0")


class TanhConfig(LayerConfig):
    """Hyperbolic tangent, from -1 to 1."""

    kind: ClassVar[str] = "tanh"


class SigmoidConfig(LayerConfig):
    """1 / (1 + e^-x), from 0 to 1."""

    kind: ClassVar[str] = "sigmoid"


class GELUConfig(LayerConfig):
    """x times the normal distribution function of x."""

    kind: ClassVar[str] = "gelu"


class SiLUConfig(LayerConfig):
    """x / (1 + e^-x)."""

    kind: ClassVar[str] = "silu"


class FlattenConfig(LayerConfig):
    """An image as a vector, in the order C, H, W."""

    kind: ClassVar[str] = "flatten"


class BatchNormConfig(LayerConfig):
    """Mean 0 and variance 1 for each channel over the batch, then a learnt scale and offset."""

    kind: ClassVar[str] = "batchnorm"

    eps: Positive = Field(default=1e-5, description="keeps the divisor from 0, above 0")
    momentum: Fraction = Field(
        default=0.1,
        description="weight of the newest batch in the running statistics, from 0 to below 1",
    )


class LayerNormConfig(LayerConfig):
    """Mean 0 and variance 1 for all of an image, then a learnt scale and offset for each channel."""

    kind: ClassVar[str] = "layernorm"

    eps: Positive = Field(default=1e-5, description="keeps the divisor from 0, above 0")


class InstanceNormConfig(LayerNormConfig):
    """Mean 0 and variance 1 for each channel of an image, then a learnt scale and offset."""

    kind: ClassVar[str] = "instancenorm"


class GroupNormConfig(LayerNormConfig):
    """Mean 0 and variance 1 for each group of channels of an image, then a learnt scale and offset."""

    kind: ClassVar[str] = "groupnorm"
    shorthand: ClassVar[str | None] = "groups"

    groups: Count = Field(description="groups of equally many channels, at least 1")


class LrnConfig(LayerConfig):
    """Local response normalisation: x / (k + alpha/size (sum of neighbouring channels' squares))^beta."""

    kind: ClassVar[str] = "lrn"

    size: Count = Field(default=5, description="channels in the sum, at least 1")
    alpha: NotNegative = Field(default=1e-4, description="weight of the sum, at least 0")
    beta: NotNegative = Field(default=0.75, description="exponent, at least 0")
    k: Positive = Field(default=1.0, description="added to the sum, above 0")


class DropoutConfig(LayerConfig):
    """In training, elements or whole channels are cleared at random and the others scaled up."""

    kind: ClassVar[str] = "dropout"
    shorthand: ClassVar[str | None] = "rate"

    rate: Fraction = Field(default=0.5, description="share of the elements cleared, at least 0 and below 1")
    spatial: Flag = Field(default=False, description="whether a channel of an image is cleared as a whole")


def _check_layers(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise refuse(f": {show_value(value)} is not usable; give a list of layers, at least one")
    return tuple(value)


def _check_shortcut(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise refuse(f": {show_value(value)} is not usable; give a list of layers, [] for x itself")
    return tuple(value)


def _check_names(layers: tuple[LayerConfig, ...], field: str) -> None:
    """Refuse a name that two of these layers have, given or by default."""
    ordinals: Counter[str] = Counter()
    names: set[str] = set()
    for index, layer in enumerate(layers):
        ordinals[layer.kind] += 1
        name = layer.name or f"{layer.kind}{ordinals[layer.kind]}"
        if name in names:
            raise refuse(f": {name!r} is the name of two layers; give one another name", field, index)
        names.add(name)


class ResidualConfig(LayerConfig):
    """Two branches that read the same input, and their sum."""

    kind: ClassVar[str] = "residual"

    layers: Annotated[tuple["Layer", ...], BeforeValidator(_check_layers)] = Field(
        description="the main branch, at least one layer", json_schema_extra={"minItems": 1}
    )
    shortcut: Annotated[tuple["Layer", ...], BeforeValidator(_check_shortcut)] = Field(
        default=(), description="the other branch; without layers it is the input itself"
    )

    @model_validator(mode="after")
    def _check_branches(self) -> Self:
        _check_names(self.layers, "layers")
        _check_names(self.shortcut, "shortcut")
        return self


Layer = Annotated[
    Annotated[ConvConfig, Tag("conv")]
    | Annotated[MaxPoolConfig, Tag("maxpool")]
    | Annotated[AvgPoolConfig, Tag("avgpool")]
    | Annotated[SubsamplingConfig, Tag("subsampling")]
    | Annotated[GlobalAvgPoolConfig, Tag("globalavgpool")]
    | Annotated[LinearConfig, Tag("linear")]
    | Annotated[FlattenConfig, Tag("flatten")]
    | Annotated[ReLUConfig, Tag("relu")]
    | Annotated[LeakyReLUConfig, Tag("leaky_relu")]
    | Annotated[ELUConfig, Tag("elu")]
    | Annotated[TanhConfig, Tag("tanh")]
    | Annotated[SigmoidConfig, Tag("sigmoid")]
    | Annotated[GELUConfig, Tag("gelu")]
    | Annotated[SiLUConfig, Tag("silu")]
    | Annotated[BatchNormConfig, Tag("batchnorm")]
    | Annotated[LayerNormConfig, Tag("layernorm")]
    | Annotated[GroupNormConfig, Tag("groupnorm")]
    | Annotated[InstanceNormConfig, Tag("instancenorm")]
    | Annotated[LrnConfig, Tag("lrn")]
    | Annotated[DropoutConfig, Tag("dropout")]
    | Annotated[ResidualConfig, Tag("residual")],
    Discriminator(kind_of),
    one_of(
        *(ConvConfig, MaxPoolConfig, AvgPoolConfig, SubsamplingConfig, GlobalAvgPoolConfig),
        *(LinearConfig, FlattenConfig),
        *(ReLUConfig, LeakyReLUConfig, ELUConfig, TanhConfig, SigmoidConfig, GELUConfig, SiLUConfig),
        *(BatchNormConfig, LayerNormConfig, GroupNormConfig, InstanceNormConfig, LrnConfig),
        *(DropoutConfig, ResidualConfig),
    ),
]
ResidualConfig.model_rebuild()


class SoftmaxConfig(Kind):
    """Softmax cross-entropy."""

    kind: ClassVar[str] = "softmax"

    smoothing: Fraction = Field(
        default=0.0, description="share of each label spread over all classes, from 0 to below 1"
    )
    class_weights: (
        Annotated[
            tuple[Annotated[float, Field(ge=0)], ...],
            Field(strict=False, min_length=1),
            accept("a list of numbers of at least 0, one a class"),
        ]
        | None
    ) = Field(default=None, description="weight of each class in the mean; 1 each by default")

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.class_weights is not None and not any(self.class_weights):
            raise refuse(": all of them are 0; give at least one class a weight", "class_weights")
        return self


class HingeConfig(Kind):
    """Multi-class hinge loss."""

    kind: ClassVar[str] = "hinge"
    shorthand: ClassVar[str | None] = "margin"

    margin: Positive = Field(
        default=1.0, description="how far the label's score should lie above the others, above 0"
    )


class SquaredErrorConfig(Kind):
    """Half the squared distance from 1 at the label and 0 elsewhere."""

    kind: ClassVar[str] = "squared_error"


LossChoice = Annotated[
    Annotated[SoftmaxConfig, Tag("softmax")]
    | Annotated[HingeConfig, Tag("hinge")]
    | Annotated[SquaredErrorConfig, Tag("squared_error")],
    Discriminator(kind_of),
    one_of(SoftmaxConfig, HingeConfig, SquaredErrorConfig),
]


class NetworkConfig(Section):
    """Layers in a row, then a loss."""

    layers: Annotated[tuple[Layer, ...], BeforeValidator(_check_layers)] = Field(
        description="the layers in order, at least one", json_schema_extra={"minItems": 1}
    )
    loss: LossChoice = Field(
        default=SoftmaxConfig(), description="softmax cross-entropy, hinge or squared_error"
    )
    init: Init = Field(default=HeConfig(), description="how weights start in layers that name no init")

    @model_validator(mode="after")
    def _check_layer_names(self) -> Self:
        _check_names(self.layers, "layers")
        return self
