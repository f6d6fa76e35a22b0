"""The solver's fields: optimizer, epochs, batches, penalty, and what is written when."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cnnctl.config.fields import (
    Count,
    CountOrZero,
    Flag,
    Fraction,
    Kind,
    NotNegative,
    Positive,
    Section,
    Share,
    accept,
    choose,
    kind_of,
    list_of,
    one_of,
    refuse,
)

COUPLED = "an L2 penalty in the gradient alone, of all parameters, on top of l2, as PyTorch's; at least 0"
DECOUPLED = "share of every parameter taken off a step, times the learning rate; at least 0"


class SGDConfig(Kind):
    """Stochastic gradient descent."""

    kind: ClassVar[str] = "sgd"

    lr: Positive = Field(default=0.01, description="learning rate, above 0")
    momentum: Fraction = Field(default=0.0, description="share of the velocity kept, at least 0 and below 1")
    nesterov: Flag = Field(default=False, description="look ahead along the velocity; needs momentum")
    dampening: Fraction = Field(
        default=0.0,
        description="share of the gradient kept out of the velocity, at least 0 and below 1; needs momentum",
    )
    weight_decay: NotNegative = Field(default=0.0, description=COUPLED)

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise refuse(": true is not usable without momentum; give a momentum above 0", "nesterov")
        if self.dampening and (self.nesterov or not self.momentum):
            reason = "with nesterov" if self.nesterov else "without momentum; give a momentum above 0"
            raise refuse(f": {self.dampening} is not usable {reason}", "dampening")
        return self


class AdamConfig(Kind):
    """Steps scaled by running moments of the gradient."""

    kind: ClassVar[str] = "adam"

    lr: Positive = Field(default=1e-3, description="learning rate, above 0")
    beta1: Fraction = Field(default=0.9, description="decay of the first moment, at least 0 and below 1")
    beta2: Fraction = Field(default=0.999, description="decay of the second moment, at least 0 and below 1")
    eps: Positive = Field(default=1e-8, description="added to the root of the second moment, above 0")
    weight_decay: NotNegative = Field(default=0.0, description=COUPLED)


class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay."""

    kind: ClassVar[str] = "adamw"

    weight_decay: NotNegative = Field(default=0.01, description=DECOUPLED)


class AdamaxConfig(AdamConfig):
    """Adam with the largest gradient in the place of the second moment."""

    kind: ClassVar[str] = "adamax"

    lr: Positive = Field(default=2e-3, description="learning rate, above 0")
    beta2: Fraction = Field(
        default=0.999, description="decay of the largest gradient, at least 0 and below 1"
    )
    eps: Positive = Field(default=1e-8, description="added to each gradient's magnitude, above 0")


class AdaGradConfig(Kind):
    """Steps scaled by all gradients so far."""

    kind: ClassVar[str] = "adagrad"

    lr: Positive = Field(default=0.01, description="learning rate, above 0")
    eps: Positive = Field(default=1e-10, description="added to the root of the squares, above 0")
    weight_decay: NotNegative = Field(default=0.0, description=COUPLED)


class RMSpropConfig(Kind):
    """Steps scaled by a running mean of squared gradients."""

    kind: ClassVar[str] = "rmsprop"

    lr: Positive = Field(default=0.01, description="learning rate, above 0")
    alpha: Fraction = Field(default=0.99, description="decay of the mean, at least 0 and below 1")
    eps: Positive = Field(default=1e-8, description="added to the root of the mean, above 0")
    momentum: Fraction = Field(default=0.0, description="share of the velocity kept, at least 0 and below 1")
    centered: Flag = Field(
        default=False, description="take the square of the mean gradient off: an estimate of the variance"
    )
    weight_decay: NotNegative = Field(default=0.0, description=COUPLED)


class LionConfig(Kind):
    """Steps of one length, along the sign of a momentum."""

    kind: ClassVar[str] = "lion"

    lr: Positive = Field(default=1e-4, description="learning rate, above 0")
    beta1: Fraction = Field(
        default=0.9, description="share of the momentum in a step, at least 0 and below 1"
    )
    beta2: Fraction = Field(default=0.99, description="decay of the momentum, at least 0 and below 1")
    weight_decay: NotNegative = Field(default=0.0, description=DECOUPLED)


OptimizerChoice = Annotated[
    Annotated[SGDConfig, Tag("sgd")]
    | Annotated[AdamConfig, Tag("adam")]
    | Annotated[AdamWConfig, Tag("adamw")]
    | Annotated[AdamaxConfig, Tag("adamax")]
    | Annotated[AdaGradConfig, Tag("adagrad")]
    | Annotated[RMSpropConfig, Tag("rmsprop")]
    | Annotated[LionConfig, Tag("lion")],
    Discriminator(kind_of),
    one_of(SGDConfig, AdamConfig, AdamWConfig, AdamaxConfig, AdaGradConfig, RMSpropConfig, LionConfig),
]


class ConstantConfig(Kind):
    """The learning rate as it is."""

    kind: ClassVar[str] = "constant"


class StepConfig(Kind):
    """Times gamma every so many epochs."""

    kind: ClassVar[str] = "step"
    shorthand: ClassVar[str | None] = "epochs"

    epochs: Positive = Field(description="epochs between steps down, above 0; may be a fraction")
    gamma: Positive = Field(default=0.1, description="what each multiplies the learning rate by, above 0")


class MultiStepConfig(Kind):
    """Times gamma at chosen epochs."""

    kind: ClassVar[str] = "multistep"
    shorthand: ClassVar[str | None] = "epochs"

    epochs: Annotated[tuple[NotNegative, ...], Field(strict=False), list_of("epochs")] = Field(
        description="when, in epochs from the start, in ascending order; may be fractions"
    )
    gamma: Positive = Field(default=0.1, description="what each multiplies the learning rate by, above 0")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if list(self.epochs) != sorted(self.epochs):
            raise refuse(f": {list(self.epochs)} is not in ascending order", "epochs")
        return self


class ExponentialConfig(Kind):
    """Times gamma after every epoch."""

    kind: ClassVar[str] = "exponential"
    shorthand: ClassVar[str | None] = "gamma"

    gamma: Positive = Field(description="what each epoch multiplies the learning rate by, above 0")


class InverseConfig(Kind):
    """(1 + gamma step)^-power."""

    kind: ClassVar[str] = "inverse"

    gamma: Positive = Field(description="how fast it falls, per step, above 0")
    power: Positive = Field(default=1.0, description="exponent, above 0")


class PolynomialConfig(Kind):
    """Down to 0 at the end of training, along a power."""

    kind: ClassVar[str] = "polynomial"

    power: Positive = Field(default=1.0, description="exponent, above 0; 1 is a straight line")


class CosineConfig(Kind):
    """Down to min_scale at the end of training, along half a cosine."""

    kind: ClassVar[str] = "cosine"

    min_scale: Fraction = Field(
        default=0.0, description="share of the learning rate that is left, at least 0 and below 1"
    )


class OneCycleConfig(Kind):
    """Up to the learning rate and down again, over all of training."""

    kind: ClassVar[str] = "onecycle"

    rise: Share = Field(default=0.3, description="share of the steps on the way up, above 0 and below 1")
    start_divisor: Positive = Field(default=25.0, description="the learning rate over its start, above 0")
    end_divisor: Positive = Field(default=1e4, description="its start over its end, above 0")


class PlateauConfig(Kind):
    """Times factor when the validation loss (without validation, the training loss) stops falling."""

    kind: ClassVar[str] = "plateau"

    factor: Share = Field(
        default=0.1, description="what the learning rate is multiplied by, above 0 and below 1"
    )
    patience: CountOrZero = Field(default=10, description="epochs without a better loss that are borne")
    threshold: Fraction = Field(
        default=1e-4, description="share by which a loss has to be better, at least 0 and below 1"
    )
    cooldown: CountOrZero = Field(default=0, description="epochs after a reduction that do not count")
    min_scale: Fraction = Field(
        default=0.0, description="share of the learning rate that is always left, at least 0 and below 1"
    )


ScheduleChoice = Annotated[
    Annotated[ConstantConfig, Tag("constant")]
    | Annotated[StepConfig, Tag("step")]
    | Annotated[MultiStepConfig, Tag("multistep")]
    | Annotated[ExponentialConfig, Tag("exponential")]
    | Annotated[InverseConfig, Tag("inverse")]
    | Annotated[PolynomialConfig, Tag("polynomial")]
    | Annotated[CosineConfig, Tag("cosine")]
    | Annotated[OneCycleConfig, Tag("onecycle")]
    | Annotated[PlateauConfig, Tag("plateau")],
    Discriminator(kind_of),
    one_of(
        *(ConstantConfig, StepConfig, MultiStepConfig, ExponentialConfig, InverseConfig),
        *(PolynomialConfig, CosineConfig, OneCycleConfig, PlateauConfig),
    ),
]


class GroupConfig(Section):
    """Parameters that are treated apart; each goes to the first group that matches it."""

    match: Annotated[str, Field(min_length=1), accept("a pattern such as '*.bias'")] = Field(
        description="the parameters' names, with *, ? and [...] as in file names; as '*.bias'"
    )
    lr_scale: NotNegative = Field(default=1.0, description="multiplies the learning rate, at least 0")
    l1: NotNegative | None = Field(
        default=None, description="in place of solver.l1, for biases as well, at least 0"
    )
    l2: NotNegative | None = Field(
        default=None, description="in place of solver.l2, for biases as well, at least 0"
    )
    weight_decay: NotNegative | None = Field(
        default=None, description="in place of the optimizer's, at least 0"
    )


Monitor = Literal["accuracy", "loss"]
TargetAccuracy = Annotated[float, Field(gt=0, le=1), accept("a number above 0, at most 1")]


class EarlyStoppingConfig(Section):
    """When training has stopped helping."""

    patience: Count = Field(default=10, description="epochs without a better one that are borne, at least 1")
    min_delta: NotNegative = Field(
        default=0.0, description="by how much a better one has to be better, at least 0"
    )


class CheckpointsConfig(Section):
    """When the state is written down; whichever comes first, and at the end."""

    steps: Count | None = Field(default=None, description="every so many steps, at least 1")
    epochs: Count | None = Field(
        default=None, description="every so many epochs, at least 1; 1 if nothing else is said"
    )
    minutes: Positive | None = Field(default=None, description="every so many minutes, above 0")
    keep: CountOrZero = Field(
        default=0, description="how many older ones to keep, each under its step's number, at least 0"
    )


class SolverConfig(Section):
    """How the network learns."""

    optimizer: OptimizerChoice = Field(
        description="sgd, adam, adamw, adamax, adagrad, rmsprop or lion, with its settings"
    )
    schedule: ScheduleChoice = Field(
        default=ConstantConfig(), description="what becomes of the learning rate; constant by default"
    )
    warmup: CountOrZero = Field(
        default=0, description="steps in which the learning rate rises linearly, at least 0"
    )
    epochs: Count = Field(description="passes over the training set, at least 1")
    batch_size: Count = Field(description="images a batch, at least 1")
    l1: NotNegative = Field(
        default=0.0,
        description="adds l1 (sum of |weights|, biases excepted) to the loss, at least 0; elastic with l2",
    )
    l2: NotNegative = Field(
        default=0.0,
        description="adds 0.5 l2 (sum of squared weights, biases excepted) to the loss, at least 0",
    )
    groups: Annotated[tuple[GroupConfig, ...], Field(strict=False), list_of("groups, each with a match")] = (
        Field(
            default=(),
            description="parameters with settings of their own; the first group that matches counts",
        )
    )
    accumulate: Count = Field(default=1, description="batches a step (an update), at least 1")
    clip_value: Positive | None = Field(
        default=None, description="bound on each number of the gradient, above 0"
    )
    clip_norm: Positive | None = Field(
        default=None, description="bound on the norm of the whole gradient, after clip_value, above 0"
    )
    max_steps: Count | None = Field(default=None, description="stop after so many steps, at least 1")
    log_every: Count = Field(default=50, description="steps between entries in the metrics, at least 1")
    max_minutes: Positive | None = Field(
        default=None, description="stop when the run has lasted so long, resumed parts included, above 0"
    )
    stop_at: TargetAccuracy | None = Field(
        default=None,
        description="stop after an epoch with this validation accuracy (without validation: training's)",
    )
    monitor: Annotated[Monitor, choose(Monitor)] = Field(
        default="accuracy", description="what the best checkpoint is best in, on the validation split"
    )
    early_stopping: EarlyStoppingConfig | None = Field(
        default=None, description="stop when the validation split gets no better, and take the best weights"
    )
    checkpoints: CheckpointsConfig = Field(
        default=CheckpointsConfig(), description="how often the state is written down; once an epoch"
    )
