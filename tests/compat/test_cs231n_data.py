"""CIFAR-10 as the course wants it, from a tiny stand-in in the official layout and from the real one."""

from pathlib import Path

import numpy as np
import pytest

from cnnctl.backends.specs import Array
from cnnctl.compat.cs231n.data_utils import get_CIFAR10_data, load_CIFAR10
from cnnctl.data import cifar
from cnnctl.errors import ConfigError


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator) -> dict[str, Array]:
    """Six official batches of four images each where the catalogue looks; their images and labels."""
    monkeypatch.setattr(cifar, "BATCH_IMAGES", 4)
    monkeypatch.setenv("CNNCTL_DATA_DIR", str(tmp_path))
    images = rng.integers(256, size=(24, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(10, size=24, dtype=np.uint8)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for k, batch in enumerate(cifar.BATCHES):
        rows = np.hstack((labels[:, None], images.reshape(24, -1)))[4 * k : 4 * k + 4]
        (folder / f"{batch}.bin").write_bytes(rows.tobytes())
    return {"images": images, "labels": labels}


def test_splits(stand_in: dict[str, Array]) -> None:
    data = get_CIFAR10_data(15, 5, 3)
    images, labels = stand_in["images"].astype(np.float64), stand_in["labels"]
    mean = images[:15].mean(axis=0)
    parts = {"train": slice(0, 15), "val": slice(15, 20), "test": slice(20, 23)}
    assert list(data) == [f"{kind}_{part}" for part in parts for kind in "Xy"]
    for part, chosen in parts.items():
        np.testing.assert_allclose(data[f"X_{part}"], images[chosen] - mean, atol=1e-12)
        np.testing.assert_array_equal(data[f"y_{part}"], labels[chosen])
        assert data[f"X_{part}"].dtype == np.float64
    assert data["X_train"].flags.writeable


def test_without_the_mean(stand_in: dict[str, Array]) -> None:
    data = get_CIFAR10_data(4, 1, 1, subtract_mean=False)
    np.testing.assert_array_equal(data["X_train"], stand_in["images"][:4])


def test_all_of_it_from_a_folder(stand_in: dict[str, Array], tmp_path: Path) -> None:
    X_train, y_train, X_test, y_test = load_CIFAR10(tmp_path / "cifar-10-batches-bin")
    assert X_train.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(X_test, stand_in["images"][20:].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(np.concatenate((y_train, y_test)), stand_in["labels"])


@pytest.mark.usefixtures("stand_in")
def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"^num_training \+ num_validation: 21 is not in 1\.\.20$"):
        get_CIFAR10_data(20, 1, 1)
    with pytest.raises(ConfigError, match=r"^num_test: 5 is not in 1\.\.4$"):
        get_CIFAR10_data(4, 1, 5)


@pytest.mark.data
def test_real_images() -> None:
    data = get_CIFAR10_data(900, 100, 50)
    assert {key: array.shape for key, array in data.items()} == {
        **{"X_train": (900, 3, 32, 32), "y_train": (900,), "X_val": (100, 3, 32, 32)},
        **{"y_val": (100,), "X_test": (50, 3, 32, 32), "y_test": (50,)},
    }
    assert np.abs(data["X_train"].mean(axis=0)).max() < 1e-10
    assert set(np.unique(data["y_train"])) == set(range(10))
