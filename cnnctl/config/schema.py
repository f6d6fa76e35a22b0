"""The whole of a config: data, network, solver and engine, each field with range, default and meaning.

Reads no files and makes nothing: what is described here is built elsewhere.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cnnctl.config.data import DataConfig
from cnnctl.config.fields import Flag, RunName, Section, Seed, accept, choose, refuse
from cnnctl.config.network import NetworkConfig
from cnnctl.config.solver import SolverConfig

BackendName = Literal["naive", "im2col", "fast"]
DtypeName = Literal["float32", "float64"]


class EngineConfig(Section):
    """What computes, and how."""

    backend: Annotated[BackendName, choose(BackendName)] = Field(
        default="fast", description="naive: loops; im2col: numpy; fast: C kernels"
    )
    dtype: Annotated[DtypeName, choose(DtypeName)] = Field(
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
