"""Data: the catalogue of image sets, their readers, and the pipeline to batches.

What comes from outside is checked here and refused in one line; none of it is executed,
none is extracted to disk. Knows no config; only `fetch` knows the network.
"""

from cnnctl.data.augment import Augment, Changes
from cnnctl.data.catalog import load_dataset
from cnnctl.data.dataset import Dataset, Split, Splits
from cnnctl.data.pipeline import Batches, Normalizer, RawBatch, iterate_batches, make_splits

__all__ = [
    "Augment",
    "Batches",
    "Changes",
    "Dataset",
    "Normalizer",
    "RawBatch",
    "Split",
    "Splits",
    "iterate_batches",
    "load_dataset",
    "make_splits",
]
