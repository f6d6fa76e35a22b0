"""The images' fields: which data set, how it is split, normalised and augmented. Reads none."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from cnnctl.config.fields import (
    Count,
    CountOrZero,
    Extent,
    Flag,
    Fraction,
    PathText,
    Section,
    Seed,
    accept,
    choose,
    refuse,
)
from cnnctl.config.strict_yaml import show_value

DatasetName = Literal["mnist", "fashion-mnist", "cifar10", "folder", "npz", "shapes"]
Padding = Literal["zero", "edge", "reflect"]
Normalize = Literal["none", "unit", "mean_image", "standardize"]


def _check_channels(channels: int) -> int:
    if channels not in {1, 3}:  # as a Literal[1, 3] it would take true and 1.0 for 1
        raise ValueError(channels)
    return channels


Channels = Annotated[
    int, AfterValidator(_check_channels), accept("1 (grey) or 3 (RGB)"), WithJsonSchema({"enum": [1, 3]})
]


Mixup = Annotated[float, Field(ge=0, le=1), accept("a number of at least 0 and at most 1")]


class AugmentConfig(Section):
    """Random changes to training images, new in every epoch."""

    flip: Flag = Field(default=False, description="mirror training images left to right with probability 1/2")
    shift: CountOrZero = Field(
        default=0, description="move training images by up to that many pixels each way, at least 0"
    )
    crop: CountOrZero = Field(
        default=0,
        description="pad by that many pixels on each side, then cut the old size out anywhere, at least 0; "
        "another way to ask for shift",
    )
    padding: Annotated[Padding, choose(Padding)] = Field(
        default="zero", description="what shift and crop lay bare: zero, edge (the nearest pixel) or reflect"
    )
    brightness: Fraction = Field(
        default=0.0,
        description="multiply pixels by 1 - brightness to 1 + brightness, at least 0 and below 1",
    )
    contrast: Fraction = Field(
        default=0.0,
        description="stretch pixels around the image's mean by 1 - contrast to 1 + contrast, at least 0 and "
        "below 1",
    )
    cutout: CountOrZero = Field(
        default=0, description="blank out a square of that many pixels a side, at least 0"
    )
    mixup: Mixup = Field(
        default=0.0,
        description="blend images, and their losses, in shares drawn from Beta(mixup, mixup), 0 to 1",
    )

    @model_validator(mode="after")
    def _check_moves(self) -> Self:
        if self.shift and self.crop:
            raise refuse(
                f": {self.crop} is not usable with shift, which means the same; give one of them", "crop"
            )
        return self


DATASETS_WITH = {
    "path": ("folder", "npz"),
    "image_size": ("folder", "shapes"),
    "channels": ("folder",),
    "seed": ("shapes", "folder"),
}
"""Fields that mean something for some data sets only."""


class DataConfig(Section):
    """Which images, how they are split and how normalised."""

    dataset: Annotated[DatasetName, choose(DatasetName)] = Field(
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
    normalize: Annotated[Normalize, choose(Normalize)] = Field(
        default="standardize",
        description="none; unit: divide by 255; mean_image: subtract the mean training image; "
        "standardize: mean 0 and variance 1 for each channel",
    )
    augment: AugmentConfig = Field(default=AugmentConfig(), description="random changes to training images")
    image_size: Extent | None = Field(
        default=None,
        description="resize images to this, an integer of at least 1 or [height, width]; for folder, and, "
        "as a side, for shapes",
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
