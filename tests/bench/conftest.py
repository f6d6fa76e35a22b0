"""A run small enough to be measured in a test, and a stand-in for whoever is measured."""

import numpy as np
import pytest

from cnnctl.config import config_from_dict

LAYERS = [
    {"conv": {"filters": 3, "kernel": 3, "padding": 1}},
    "relu",
    {"maxpool": 2},
    {"dropout": 0.5},
    {"linear": 4},
]


@pytest.fixture
def make_config(tmp_path, rng):
    """A config on 44 images of 3x6x6 and 4 classes; `settings` replace whole sections."""
    arrays = {}
    for split, count in (("train", 44), ("test", 4)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 3, 6, 6), np.uint8)
        arrays[f"y_{split}"] = rng.permutation(np.arange(count) % 4)
    np.savez(tmp_path / "noise.npz", **arrays)

    def make(**settings):
        base = {
            "data": {"dataset": "npz", "path": str(tmp_path / "noise.npz"), "validation": 4},
            "network": {"layers": LAYERS},
            "solver": {"optimizer": {"adam": {"lr": 1e-2}}, "epochs": 1, "batch_size": 16, "l2": 0.01},
            "engine": {"threads": 1},
        }
        return config_from_dict({**base, **settings})

    return make
