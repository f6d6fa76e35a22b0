"""What the rehearsal compares: equal is equal, and nothing else is."""

import numpy as np
import pytest

from cnnctl.train import rehearsal
from cnnctl.train.rehearsal import rehearse

WEIGHTS = {"conv1.weight": np.array([1.0, -2.0]), "conv1.bias": np.zeros(3)}


@pytest.mark.parametrize("closeness", [0, 1e-9])
def test_the_same_weights_are_the_same(closeness):
    assert rehearsal._compare("x", WEIGHTS, {**WEIGHTS}, closeness).holds


@pytest.mark.parametrize("closeness", [0, 1e-9])
@pytest.mark.parametrize(
    "found",
    [
        {**WEIGHTS, "conv1.weight": np.array([1.0, -2.0 + 1e-8])},
        {**WEIGHTS, "conv1.weight": np.array([1.0, np.nan])},
        {**WEIGHTS, "conv1.bias": np.full(3, 1e-3)},
        {"conv1.weight": WEIGHTS["conv1.weight"]},
    ],
    ids=["rounded", "NaN", "of nothing", "missing"],
)
def test_others_are_not(found, closeness):
    assert not rehearsal._compare("x", WEIGHTS, found, closeness).holds


def test_the_smallest_difference_counts_where_bytes_have_to_be_the_same():
    found = {**WEIGHTS, "conv1.weight": np.array([1.0, np.nextafter(-2.0, 0)])}
    assert not rehearsal._compare("x", WEIGHTS, found, 0).holds


def test_a_network_that_does_not_learn_is_told(monkeypatch, tmp_path):
    solver = {**rehearsal.CONFIG["solver"], "optimizer": {"sgd": {"lr": 1e-12}}}
    monkeypatch.setattr(rehearsal, "CONFIG", {**rehearsal.CONFIG, "solver": solver})
    assert not next(rehearse(tmp_path)).holds
