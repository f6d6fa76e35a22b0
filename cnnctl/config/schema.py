"""The schema: every field a config may have, its type, range, default and meaning.

Closed, strict and frozen: an unknown key, a number given as text, a boolean given as a
number, NaN and infinities are refused. Each refusal carries its own words, in pydantic's
error context, to be put behind the field's place by `load`. Reads no files and makes
nothing: the layers and optimizers themselves are built elsewhere from these settings.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cnnctl.config.strict_yaml import show_value
from cnnctl.errors import ShapeError, describe_alternatives
from cnnctl.geometry import Window


def refuse(reason: str, *field: str | int, kind: Literal["value", "key"] = "value") -> PydanticCustomError:
    """An error whose line reads: place, path to `field`, `reason`."""
    return PydanticCustomError(kind, "{reason}", {"reason": reason, "field": field})


def _explain(explain: Callable[[Any], str]) -> WrapValidator:
    """Say what is wrong with a value in place of whatever pydantic would say."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise refuse(f": {show_value(value)} is not {explain(value)}") from None

    return WrapValidator(validate)


def accept(expected: str) -> WrapValidator:
    """Say what would have been usable in place of whatever pydantic would say."""
    return _explain(lambda value: f"usable; give {expected}")


def _choose(literal: Any) -> WrapValidator:
    return _explain(lambda value: f"known; {describe_alternatives(value, get_args(literal))}")


def _check_channels(channels: int) -> int:
    if channels not in {1, 3}:  # as a Literal[1, 3] it would take true and 1.0 for 1
        raise ValueError(channels)
    return channels


Count = Annotated[int, Field(ge=1), accept("an integer of at least 1")]
CountOrZero = Annotated[int, Field(ge=0), accept("an integer of at least 0")]
Positive = Annotated[float, Field(gt=0), accept("a number above 0")]
NotNegative = Annotated[float, Field(ge=0), accept("a number of at least 0")]
Fraction = Annotated[float, Field(ge=0, lt=1), accept("a number of at least 0 and below 1")]
Flag = Annotated[bool, accept("true or false")]
Seed = Annotated[int, Field(ge=0, lt=2**63), accept("an integer from 0 to 2^63 - 1")]
RunName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    accept("1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"),
]
LayerName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"),
    accept("a letter followed by up to 63 letters, digits, '_' and '-'"),
]
PathText = Annotated[str, Field(min_length=1), accept("a path")]
Channels = Annotated[int, AfterValidator(_check_channels), accept("1 (grey) or 3 (RGB)")]

_One = Annotated[int, Field(ge=1)]
_Zero = Annotated[int, Field(ge=0)]
Extent = Annotated[
    _One | Annotated[tuple[_One, _One], Field(strict=False)],
    accept("an integer of at least 1, or [height, width]"),
]
Border = Annotated[
    _Zero | Annotated[tuple[_Zero, _Zero], Field(strict=False)] | Literal["same"],
    accept("an integer of at least 0, [height, width], or same"),
]
PoolBorder = Annotated[
    _Zero | Annotated[tuple[_Zero, _Zero], Field(strict=False)],
    accept("an integer of at least 0, or [height, width]"),
]

DatasetName = Literal["mnist", "fashion-mnist", "cifar10", "folder", "npz", "shapes"]
Normalize = Literal["none", "unit", "mean_image", "standardize"]
Distribution = Literal["normal", "uniform"]
LossName = Literal["softmax"]
BackendName = Literal["naive", "im2col", "fast"]
DtypeName = Literal["float32", "float64"]


class Section(BaseModel):
    """A mapping with known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        value, fields = cls._unwrap(value), cls.model_fields
        if not isinstance(value, Mapping):
            known = f"a mapping of {', '.join(fields)}"
            raise refuse(f": {show_value(value)} is not usable; give {known}")
        for key in value:
            if key not in fields:
                raise refuse(f" is not known; {describe_alternatives(key, fields)}", key, kind="key")
        for key, field in fields.items():
            if field.is_required() and key not in value:
                raise refuse(f" is missing ({field.description})", key)
        return value

    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        return value


class Kind(Section):
    """A choice among several, written as a word, {word: settings} or {word: shorthand}.

    Attributes:
        kind: the word.
        shorthand: the field that a value in place of the settings stands for.
    """

    kind: ClassVar[str]
    shorthand: ClassVar[str | None] = None

    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and list(value) != [cls.kind]:
            return value
        settings = value[cls.kind] if isinstance(value, Mapping) else None
        if settings is None:
            return {}
        if cls.shorthand and not isinstance(settings, Mapping):
            return {cls.shorthand: settings}
        return settings

    @model_serializer(mode="wrap")
    def _wrap(self, handler: SerializerFunctionWrapHandler) -> Any:
        settings = handler(self)
        if list(settings) == [self.kind]:  # pydantic comes here twice for a model that can hold itself
            return settings
        return {self.kind: settings} if settings else self.kind


def kind_of(value: Any) -> Any:
    """The kind that a word, or a word with its settings, names; anything else as it is."""
    if isinstance(value, Kind):
        return value.kind
    return next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else value


def one_of(*kinds: type[Kind]) -> BeforeValidator:
    """Refuse what names none of these kinds, before pydantic looks for it."""
    known = [kind.kind for kind in kinds]

    def validate(value: Any) -> Any:
        name = kind_of(value)
        if not isinstance(name, str):
            alternatives = f"{', '.join(known)}: the word, or the word with its settings"
            raise refuse(f": {show_value(value)} is not usable; give one of {alternatives}")
        if name not in known:
            raise refuse(f": {show_value(name)} is not known; {describe_alternatives(name, known)}")
        return value

    return BeforeValidator(validate)


class GaussianConfig(Kind):
    """Normal with a given standard deviation."""

    kind: ClassVar[str] = "gaussian"
    shorthand: ClassVar[str | None] = "std"

    std: Positive = Field(default=0.01, description="standard deviation of the weights, above 0")


class XavierConfig(Kind):
    """Variance 2 / (fan_in + fan_out)."""

    kind: ClassVar[str] = "xavier"

    distribution: Annotated[Distribution, _choose(Distribution)] = Field(
        default="normal", description="shape of the distribution, normal or uniform"
    )


class HeConfig(XavierConfig):
    """Variance 2 / fan_in."""

    kind: ClassVar[str] = "he"


Init = Annotated[
    Annotated[GaussianConfig, Tag("gaussian")]
    | Annotated[XavierConfig, Tag("xavier")]
    | Annotated[HeConfig, Tag("he")],
    Discriminator(kind_of),
    one_of(GaussianConfig, XavierConfig, HeConfig),
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


class TanhConfig(LayerConfig):
    """Hyperbolic tangent, from -1 to 1."""

    kind: ClassVar[str] = "tanh"


class SigmoidConfig(LayerConfig):
    """1 / (1 + e^-x), from 0 to 1."""

    kind: ClassVar[str] = "sigmoid"


class GELUConfig(LayerConfig):
    """x times the normal distribution function of x."""

    kind: ClassVar[str] = "gelu"


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


class LrnConfig(LayerConfig):
    """Local response normalisation: x / (k + alpha/size (sum of neighbouring channels' squares))^beta."""

    kind: ClassVar[str] = "lrn"

    size: Count = Field(default=5, description="channels in the sum, at least 1")
    alpha: NotNegative = Field(default=1e-4, description="weight of the sum, at least 0")
    beta: NotNegative = Field(default=0.75, description="exponent, at least 0")
    k: Positive = Field(default=1.0, description="added to the sum, above 0")


class DropoutConfig(LayerConfig):
    """In training, elements are cleared at random and the others scaled up."""

    kind: ClassVar[str] = "dropout"
    shorthand: ClassVar[str | None] = "rate"

    rate: Fraction = Field(default=0.5, description="share of the elements cleared, at least 0 and below 1")


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
        description="the main branch, at least one layer"
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
    | Annotated[GlobalAvgPoolConfig, Tag("globalavgpool")]
    | Annotated[LinearConfig, Tag("linear")]
    | Annotated[FlattenConfig, Tag("flatten")]
    | Annotated[ReLUConfig, Tag("relu")]
    | Annotated[TanhConfig, Tag("tanh")]
    | Annotated[SigmoidConfig, Tag("sigmoid")]
    | Annotated[GELUConfig, Tag("gelu")]
    | Annotated[BatchNormConfig, Tag("batchnorm")]
    | Annotated[LrnConfig, Tag("lrn")]
    | Annotated[DropoutConfig, Tag("dropout")]
    | Annotated[ResidualConfig, Tag("residual")],
    Discriminator(kind_of),
    one_of(
        *(ConvConfig, MaxPoolConfig, AvgPoolConfig, GlobalAvgPoolConfig, LinearConfig, FlattenConfig),
        *(ReLUConfig, TanhConfig, SigmoidConfig, GELUConfig),
        *(BatchNormConfig, LrnConfig, DropoutConfig, ResidualConfig),
    ),
]
ResidualConfig.model_rebuild()


class NetworkConfig(Section):
    """Layers in a row, then a loss."""

    layers: Annotated[tuple[Layer, ...], BeforeValidator(_check_layers)] = Field(
        description="the layers in order, at least one"
    )
    loss: Annotated[LossName, _choose(LossName)] = Field(
        default="softmax", description="softmax cross-entropy"
    )
    init: Init = Field(default=HeConfig(), description="how weights start in layers that name no init")

    @model_validator(mode="after")
    def _check_layer_names(self) -> Self:
        _check_names(self.layers, "layers")
        return self


class AugmentConfig(Section):
    """Random changes to training images, new in every epoch."""

    flip: Flag = Field(default=False, description="mirror training images left to right with probability 1/2")
    shift: CountOrZero = Field(
        default=0, description="move training images by up to that many pixels each way, at least 0"
    )


DATASETS_WITH = {
    "path": ("folder", "npz"),
    "image_size": ("folder",),
    "channels": ("folder",),
    "seed": ("shapes", "folder"),
}
"""Fields that mean something for some data sets only."""


class DataConfig(Section):
    """Which images, how they are split and how normalised."""

    dataset: Annotated[DatasetName, _choose(DatasetName)] = Field(
        description="mnist, fashion-mnist, cifar10, folder, npz, or shapes (built in)"
    )
    path: PathText | None = Field(
        default=None,
        description="the folder or .npz file, relative to the file that names it; for folder and npz",
    )
    train: Count | None = Field(
        default=None, description="train on the first so many images only, at least 1"
    )
    validation: CountOrZero = Field(
        default=0, description="images held out of the training set, the last ones, at least 0"
    )
    test: Count | None = Field(default=None, description="test on the first so many images only, at least 1")
    normalize: Annotated[Normalize, _choose(Normalize)] = Field(
        default="standardize",
        description="none; unit: divide by 255; mean_image: subtract the mean training image; "
        "standardize: mean 0 and variance 1 for each channel",
    )
    augment: AugmentConfig = Field(default=AugmentConfig(), description="random changes to training images")
    image_size: Extent | None = Field(
        default=None,
        description="resize images to this, an integer of at least 1 or [height, width]; for folder",
    )
    channels: Channels | None = Field(
        default=None, description="1 to read images as grey, 3 as RGB; for folder"
    )
    seed: Seed = Field(
        default=0,
        description="settles the images of shapes, and which of a folder's are for testing, 0 to 2^63 - 1",
    )

    @model_validator(mode="after")
    def _check_dataset(self) -> Self:
        if self.path is None and self.dataset in DATASETS_WITH["path"]:
            raise refuse(f" is missing (data set {self.dataset} is read from there)", "path")
        for field, datasets in DATASETS_WITH.items():
            value = getattr(self, field)
            if self.dataset not in datasets and value != DataConfig.model_fields[field].default:
                where = " and ".join(datasets)
                reason = (
                    f": {show_value(value)} is not usable with data set {self.dataset}; it is for {where}"
                )
                raise refuse(reason, field)
        return self


class SGDConfig(Kind):
    """Stochastic gradient descent."""

    kind: ClassVar[str] = "sgd"

    lr: Positive = Field(default=0.01, description="learning rate, above 0")
    momentum: Fraction = Field(default=0.0, description="share of the velocity kept, at least 0 and below 1")
    nesterov: Flag = Field(default=False, description="look ahead along the velocity; needs momentum")

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise refuse(": true is not usable without momentum; give a momentum above 0", "nesterov")
        return self


class AdamConfig(Kind):
    """Steps scaled by running moments of the gradient."""

    kind: ClassVar[str] = "adam"

    lr: Positive = Field(default=1e-3, description="learning rate, above 0")
    beta1: Fraction = Field(default=0.9, description="decay of the first moment, at least 0 and below 1")
    beta2: Fraction = Field(default=0.999, description="decay of the second moment, at least 0 and below 1")
    eps: Positive = Field(default=1e-8, description="added to the root of the second moment, above 0")


OptimizerChoice = Annotated[
    Annotated[SGDConfig, Tag("sgd")] | Annotated[AdamConfig, Tag("adam")],
    Discriminator(kind_of),
    one_of(SGDConfig, AdamConfig),
]


class SolverConfig(Section):
    """How the network learns."""

    optimizer: OptimizerChoice = Field(description="sgd or adam, with its settings")
    epochs: Count = Field(description="passes over the training set, at least 1")
    batch_size: Count = Field(description="images a step, at least 1")
    l2: NotNegative = Field(
        default=0.0,
        description="adds 0.5 l2 (sum of squared weights, biases excepted) to the loss, at least 0",
    )
    max_steps: Count | None = Field(default=None, description="stop after so many steps, at least 1")
    log_every: Count = Field(default=50, description="steps between entries in the metrics, at least 1")
    checkpoint_every: Count | None = Field(
        default=None, description="steps between checkpoints, at least 1; once an epoch by default"
    )


class EngineConfig(Section):
    """What computes, and how."""

    backend: Annotated[BackendName, _choose(BackendName)] = Field(
        default="fast", description="naive: loops; im2col: numpy; fast: C kernels"
    )
    dtype: Annotated[DtypeName, _choose(DtypeName)] = Field(
        default="float32", description="float32 or float64, of weights and images alike"
    )
    threads: Annotated[
        Annotated[int, Field(ge=1, le=256)] | Literal["auto"], accept("auto or an integer from 1 to 256")
    ] = Field(default="auto", description="1 to 256, or auto for as many as this process may use")
    seed: Seed = Field(
        default=0, description="settles initial weights, order, augmentation and dropout, 0 to 2^63 - 1"
    )
    isa: Annotated[str, Field(min_length=1), accept("the name of an instruction set, or null")] | None = (
        Field(
            default=None,
            description="instruction set of the C kernels, such as x86-64-v3; null for the processor's best",
        )
    )
    exact: Flag = Field(
        default=False,
        description="true turns off Winograd convolution: slower, with smaller rounding errors",
    )

    @model_validator(mode="after")
    def _check_isa(self) -> Self:
        if self.isa is not None and self.backend != "fast":
            reason = f": {self.isa!r} is not usable with backend {self.backend}; it is for fast"
            raise refuse(reason, "isa")
        return self


class RunConfig(Section):
    """All of a run: what to learn from, what learns, how, and on what."""

    name: RunName = Field(
        default="run", description="part of the run directory's name; the file's name by default"
    )
    data: DataConfig = Field(description="the images")
    network: NetworkConfig = Field(description="the layers, or the file that holds them")
    solver: SolverConfig = Field(description="how the network learns")
    engine: EngineConfig = Field(default=EngineConfig(), description="what computes it")
