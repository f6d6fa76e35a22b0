"""Named arrays in a file, where the courses would pickle: safetensors, whatever the file's name.

A pickle can run anything when it is read; none is read or written here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cnnctl.backends.specs import Array
from cnnctl.errors import CheckpointError
from cnnctl.train.atomic import write_atomically

PathLike = str | os.PathLike[str]


def save_arrays(path: PathLike, arrays: Mapping[str, Array]) -> None:
    """Write the arrays, replacing a file whole. Raises RunError when the disk does not take it."""
    write_atomically(Path(path), save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))


def load_arrays(path: PathLike) -> dict[str, Array]:
    """Read them again. Raises CheckpointError for a file missing, damaged or of another format."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    try:
        return dict(load(content))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or a damaged one ({error}); pickles are never read"
        ) from error
