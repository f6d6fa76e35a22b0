"""The solver's fields: optimizer, epochs, batches, penalty, and what is written when."""

from typing import Annotated, ClassVar, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cnnctl.config.fields import (
    Count,
    Flag,
    Fraction,
    Kind,
    NotNegative,
    Positive,
    Section,
    kind_of,
    one_of,
    refuse,
)


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
