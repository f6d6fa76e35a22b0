"""What a run remembers of its images, in data.json: enough to tell files apart without the data set.

Written once, when the run begins; a run from before there was one has none.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cnnctl.train.experiment import Experiment
from cnnctl.train.run_directory import MAX_DETAILS_BYTES, RunDirectory

FILE = "data.json"


class DataFacts(BaseModel):
    """data.json.

    Attributes:
        classes: the name of class k at position k.
        dtype: of the pixels: uint8 ones are in 0..255, float32 ones wherever they were.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    classes: tuple[str, ...]
    dtype: Literal["uint8", "float32"]


def pack_data_facts(experiment: Experiment) -> bytes:
    """The file's contents."""
    dtype = experiment.splits.train.images.dtype.name
    facts = DataFacts.model_validate({"classes": experiment.classes, "dtype": dtype})
    return facts.model_dump_json(by_alias=True, indent=2).encode() + b"\n"


def read_data_facts(run: RunDirectory) -> DataFacts | None:
    """None where there is none. Raises RunError if it is damaged."""
    if not (run.path / FILE).exists():
        return None
    return run.read_model(DataFacts, FILE, MAX_DETAILS_BYTES)
