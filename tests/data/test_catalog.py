"""Where data sets are looked for, what is said about them, and what fetching and importing change."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest

from cnnctl.data import catalog, load_dataset
from cnnctl.data.catalog import (
    CATALOG,
    choose_data_dir,
    fetch_dataset,
    find_dataset,
    import_dataset,
    list_data_dirs,
    verify_dataset,
)
from cnnctl.data.dataset import Split
from cnnctl.data.fetch import RemoteFile
from cnnctl.data.shapes import draw_shapes
from cnnctl.errors import CnnctlError, ConfigError, DataError
from tests.data.mnist_files import NAMES, write_mnist

REAL_DATA_DIR = os.environ.get("CNNCTL_DATA_DIR")
CIFAR10_FORMS = (
    "cifar10/cifar-10-binary.tar.gz",
    "cifar10/cifar-10-batches-bin",
    "cifar10/cifar-10-batches-py",
    "cifar10/cifar-10-python.tar.gz",
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data directory; there is no other, and no network."""
    path = tmp_path / "home"
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: path)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    monkeypatch.delenv("CNNCTL_DATA_DIR", raising=False)

    def fail(file: RemoteFile, mirrors: Sequence[str], *_: object, **__: object) -> None:
        raise DataError(f"{mirrors[0]}{file.name}: no network")

    monkeypatch.setattr(catalog, "fetch_file", fail)
    return path


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A network that gives every file; the names of those it was asked for."""
    asked = []

    def give(file: RemoteFile, mirrors: Sequence[str], folder: Path, **_: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_text("downloaded")
        asked.append(file.name)

    monkeypatch.setattr(catalog, "fetch_file", give)
    return asked


def plant(path: Path) -> Path:
    """Something at `path`: empty files in a folder, or an empty archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".gz"):
        path.touch()
    else:
        path.mkdir()
        (path / "data_batch_1").touch()
    return path


def find_path(name: str, data_dir: Path | None = None) -> Path | None:
    stored = find_dataset(name, data_dir)
    return stored.path if stored else None


class TestEntries:
    """What the catalogue says."""

    def test_names_are_those_of_the_configuration(self) -> None:
        assert list(CATALOG) == ["mnist", "fashion-mnist", "cifar10", "folder", "npz", "shapes"]

    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
    def test_what_is_downloaded_is_known_to_the_byte(self, name: str) -> None:
        entry = CATALOG[name]
        assert len(entry.classes) == 10
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in entry.mirrors)
        assert all(len(bytes.fromhex(file.sha256)) == 32 and file.size > 4000 for file in entry.files)

    def test_reading_it_needs_no_heavy_library(self) -> None:
        script = (
            "import sys, cnnctl.data\n"
            "sys.exit(repr(sorted({'PIL', 'http', 'platformdirs', 'ssl'} & set(sys.modules))))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stderr.strip() == "[]"


class TestFind:
    """The first data directory with all of a data set wins."""

    def test_order_of_search(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        monkeypatch.setenv("CNNCTL_DATA_DIR", str(tmp_path / "env"))
        monkeypatch.setenv("XDG_DATA_DIRS", f"{tmp_path / 'share'}:{tmp_path / 'share2'}")
        given = tmp_path / "given"
        shared = [tmp_path / share / "datasets" for share in ("share", "share2")]
        places = [root / "fashion-mnist" for root in (given, tmp_path / "env", home, *shared)]
        for place in places:
            write_mnist(place)
        for place in places:
            assert find_path("fashion-mnist", given) == place
            rmtree(place)
        assert find_path("fashion-mnist", given) is None

    def test_an_empty_variable_names_no_directory(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        monkeypatch.setenv("CNNCTL_DATA_DIR", "")
        assert list_data_dirs() == [home]

    @pytest.mark.parametrize("form", CIFAR10_FORMS)
    def test_forms_of_cifar10(self, home: Path, form: str) -> None:
        assert find_path("cifar10") is None
        plant(home / form)
        assert find_path("cifar10") == home / form

    def test_forms_without_a_pickle_come_first(self, home: Path) -> None:
        for form in CIFAR10_FORMS:
            plant(home / form)
        assert find_path("cifar10") == home / CIFAR10_FORMS[0]

    def test_an_incomplete_folder_is_passed_over(self, tmp_path: Path, home: Path) -> None:
        (write_mnist(tmp_path / "given" / "mnist") / f"{NAMES[2]}.gz").unlink()
        assert find_path("mnist", tmp_path / "given") is None
        complete = write_mnist(home / "mnist")
        assert find_path("mnist", tmp_path / "given") == complete

    def test_unpacked_and_packed_files_mix(self, home: Path) -> None:
        folder = write_mnist(home / "mnist")
        (write_mnist(home / "other", packed=False) / NAMES[0]).rename(folder / NAMES[0])
        (folder / f"{NAMES[0]}.gz").unlink()
        assert find_path("mnist") == folder

    @pytest.mark.parametrize("name", ["folder", "npz", "shapes"])
    def test_only_what_lies_in_a_data_directory(self, name: str) -> None:
        with pytest.raises(
            ConfigError,
            match=f"^data set: {name} does not lie in a data directory; "
            "those that do: mnist, fashion-mnist, cifar10$",
        ):
            find_dataset(name)


class TestLoad:
    """From a name to a data set."""

    def test_a_folder_put_there_by_hand(self, home: Path) -> None:
        write_mnist(home / "mnist", packed=False)
        dataset = load_dataset("mnist")
        assert (dataset.name, dataset.image_shape, dataset.classes) == (
            "mnist",
            (1, 5, 4),
            tuple("0123456789"),
        )
        assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == list(range(10))
        assert dataset.notes == ()

    def test_other_sums_than_the_official_are_noted(self, home: Path) -> None:
        folder = write_mnist(home / "fashion-mnist")
        dataset = load_dataset("fashion-mnist")
        assert dataset.classes[-1] == "Ankle boot"
        assert dataset.notes == tuple(
            f"{folder / name}.gz: its SHA-256 is not the official one" for name in NAMES
        )

    def test_cifar10_goes_to_its_reader(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[Path] = []

        def read_cifar10(place: Path) -> tuple[Split, Split, tuple[str, ...]]:
            read.append(place)
            split = Split(np.zeros((1, 3, 32, 32), np.uint8), np.zeros(1, np.int64))
            return split, split, ("airplane",)

        monkeypatch.setattr("cnnctl.data.cifar.read_cifar10", read_cifar10)
        archive = plant(home / "cifar-10-python.tar.gz")
        dataset = load_dataset("cifar10")
        assert (read, dataset.classes) == ([archive], ("airplane",))
        assert dataset.notes == (f"{archive}: its SHA-256 is not the official one",)

    def test_an_incomplete_folder_of_cifar10_is_not_downloaded_past(self, home: Path) -> None:
        plant(home / "cifar-10-batches-py")
        with pytest.raises(DataError, match="cifar-10-batches-py"):
            load_dataset("cifar10")

    def test_shapes_follow_the_seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalog, "draw_shapes", lambda seed, side: draw_shapes(seed, 10, 10, side))
        drawn = load_dataset("shapes", seed=3).train.images
        assert np.array_equal(drawn, draw_shapes(3, 10, 10).train.images)
        assert load_dataset("shapes", image_size=6).image_shape == (3, 6, 6)

    @pytest.mark.parametrize("size", [3, 65, (6, 8)])
    def test_shapes_are_square_and_neither_tiny_nor_huge(self, size: int | tuple[int, int]) -> None:
        with pytest.raises(ConfigError, match=r"image_size: .* is not usable with shapes; give one"):
            load_dataset("shapes", image_size=size)

    def test_npz_and_folder_are_read_from_their_path(self, tmp_path: Path) -> None:
        images, labels = np.zeros((3, 1, 4, 4), np.uint8), np.array([0, 1, 0])
        np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        assert load_dataset("npz", path=tmp_path / "x.npz").image_shape == (1, 4, 4)
        with pytest.raises(DataError, match="no such"):
            load_dataset("folder", path=tmp_path / "no such")

    @pytest.mark.parametrize(
        ("name", "arguments", "line"),
        [
            ("mnits", {}, "data set: 'mnits' is not known; did you mean mnist?"),
            ("npz", {}, "path: is missing (data set npz is read from there)"),
            ("folder", {}, "path: is missing (data set folder is read from there)"),
            ("mnist", {"path": "x"}, "path: x is not usable with data set mnist; it is for folder and npz"),
            (
                "npz",
                {"path": "x", "image_size": 8},
                "image_size: 8 is not usable with data set npz; it is for folder and shapes",
            ),
            ("shapes", {"channels": 1}, "channels: 1 is not usable with data set shapes; it is for folder"),
        ],
    )
    def test_arguments_that_do_not_fit(self, name: str, arguments: dict[str, Any], line: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_dataset(name, **arguments)
        assert str(caught.value) == line

    def test_without_a_network_it_says_what_goes_where(self, tmp_path: Path, home: Path) -> None:
        files = ", ".join(f"{name}.gz" for name in NAMES)
        with pytest.raises(DataError) as caught:
            load_dataset("mnist", data_dir=tmp_path / "given")
        assert str(caught.value) == (
            f"mnist: not found in {tmp_path / 'given'}, {home}; put {files} "
            f"from https://ossci-datasets.s3.amazonaws.com/mnist/ into {tmp_path / 'given' / 'mnist'}; "
            f"downloading failed: https://ossci-datasets.s3.amazonaws.com/mnist/{NAMES[0]}.gz: no network"
        )
        assert list(tmp_path.iterdir()) == []

    def test_a_data_directory_that_is_one_folder_too_deep(self, tmp_path: Path, home: Path) -> None:
        (tmp_path / "mnist").mkdir()
        with pytest.raises(DataError) as caught:
            load_dataset("mnist", data_dir=tmp_path / "mnist", download=False)
        assert f"{home}; {tmp_path / 'mnist'} is one folder too deep; put " in str(caught.value)

    def test_without_leave_to_download_it_names_the_command(self, home: Path, downloads: list[str]) -> None:
        with pytest.raises(DataError) as caught:
            load_dataset("cifar10", download=False)
        assert str(caught.value) == (
            f"cifar10: not found in {home}; put cifar-10-binary.tar.gz from "
            f"https://www.cs.toronto.edu/~kriz/ into {home / 'cifar10'}, or run cnnctl data fetch cifar10"
        )
        assert downloads == []

    @pytest.mark.data
    @pytest.mark.parametrize("name", ["mnist", "cifar10"])
    def test_the_real_ones(self, name: str) -> None:
        dataset = load_dataset(name, data_dir=REAL_DATA_DIR, download=False)
        assert dataset.classes == CATALOG[name].classes
        assert len(dataset.test) == 10_000
        assert dataset.notes == ()


class TestFetch:
    """Only what is missing, only to where it can be written."""

    @pytest.mark.parametrize(
        ("name", "place"), [("mnist", "mnist"), ("cifar10", "cifar10/cifar-10-binary.tar.gz")]
    )
    def test_it_is_found_afterwards(self, home: Path, downloads: list[str], name: str, place: str) -> None:
        assert fetch_dataset(name).path == home / place == find_path(name)
        assert downloads == [file.name for file in CATALOG[name].files]

    def test_what_is_there_is_not_fetched(self, home: Path, downloads: list[str]) -> None:
        folder = write_mnist(home / "mnist")
        assert fetch_dataset("mnist").path == folder
        (folder / f"{NAMES[1]}.gz").unlink()
        fetch_dataset("mnist")
        assert downloads == [f"{NAMES[1]}.gz"]

    def test_an_archive_unpacked_is_another_file(self, home: Path, downloads: list[str]) -> None:
        (home / "cifar10").mkdir(parents=True)
        (home / "cifar10" / "cifar-10-binary.tar").touch()
        assert fetch_dataset("cifar10").path.exists()
        assert downloads == ["cifar-10-binary.tar.gz"]

    def test_the_first_directory_that_can_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("CNNCTL_DATA_DIR", str(tmp_path / "env"))
        assert choose_data_dir(tmp_path / "given") == tmp_path / "given"
        assert choose_data_dir(tmp_path / "file" / "below") == tmp_path / "env"
        monkeypatch.setattr("os.access", lambda *_: False)
        assert choose_data_dir(tmp_path / "given") == tmp_path / "given"

    def test_a_wrong_download_is_not_used(self, home: Path, downloads: list[str]) -> None:
        fetch_dataset("mnist")
        with pytest.raises(DataError, match=NAMES[0]):
            load_dataset("mnist")


class TestImport:
    """Checked first, then copied whole."""

    @pytest.mark.parametrize("within", [True, False])
    def test_a_folder(self, tmp_path: Path, home: Path, within: bool) -> None:
        source = write_mnist(tmp_path / "downloads" / "mnist")
        (source / "readme.txt").touch()
        stored = import_dataset("mnist", source.parent if within else source)
        assert stored.path == home / "mnist"
        assert sorted(file.name for file in stored.path.iterdir()) == sorted(f"{name}.gz" for name in NAMES)
        assert len(stored.notes) == 4
        assert load_dataset("mnist").image_shape == (1, 5, 4)

    def test_an_archive(self, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        split = Split(np.zeros((1, 3, 32, 32), np.uint8), np.zeros(1, np.int64))
        monkeypatch.setattr("cnnctl.data.cifar.read_cifar10", lambda _: (split, split, ("airplane",)))
        source = plant(tmp_path / "downloads" / "cifar-10-python.tar.gz")
        source.write_bytes(b"archive")
        stored = import_dataset("cifar10", source)
        assert stored.path == home / "cifar10" / source.name == find_path("cifar10")
        assert stored.path.read_bytes() == b"archive"

    def test_a_damaged_one_is_not_copied(self, tmp_path: Path, home: Path) -> None:
        source = write_mnist(tmp_path / "downloads")
        (source / f"{NAMES[3]}.gz").write_bytes(b"no labels")
        with pytest.raises(DataError, match=NAMES[3]):
            import_dataset("mnist", source)
        assert not home.exists()

    def test_what_is_there_stays(self, tmp_path: Path, home: Path) -> None:
        target = write_mnist(home / "mnist", packed=False)
        with pytest.raises(
            DataError, match=r"/home/mnist: is there already; move it away to import another$"
        ):
            import_dataset("mnist", write_mnist(tmp_path / "downloads"))
        assert sorted(file.name for file in target.iterdir()) == sorted(NAMES)

    def test_a_full_disk_leaves_nothing(
        self, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("shutil.copyfile", fail)
        with pytest.raises(DataError, match=r"/home/mnist: No space left on device$"):
            import_dataset("mnist", write_mnist(tmp_path / "downloads"))
        assert not home.exists()

    @pytest.mark.parametrize(
        ("name", "forms"),
        [
            ("mnist", rf"a folder with {NAMES[0]}\.gz, .*{NAMES[3]}\.gz is wanted"),
            (
                "cifar10",
                "cifar-10-binary.tar.gz or cifar-10-batches-bin or cifar-10-batches-py "
                "or cifar-10-python.tar.gz is wanted",
            ),
        ],
    )
    def test_a_source_without_it(self, tmp_path: Path, name: str, forms: str) -> None:
        (tmp_path / "downloads").mkdir()
        with pytest.raises(DataError, match=f"/downloads: holds no {name}; {forms}$"):
            import_dataset(name, tmp_path / "downloads")


class TestVerify:
    """A state for each file, and whether all of it can be read."""

    def test_good_files_that_are_not_the_official_ones(self, home: Path) -> None:
        folder = write_mnist(home / "mnist")
        (write_mnist(home / "other", packed=False) / NAMES[0]).rename(folder / NAMES[0])
        found = verify_dataset("mnist")
        assert (found.path, found.error) == (folder, None)
        assert {file.name: state for file, state in found.files} == {
            NAMES[0]: "unlisted",
            **{f"{name}.gz": "differs" for name in NAMES[1:]},
        }

    @pytest.mark.parametrize(
        ("harm", "state"),
        [(Path.unlink, "missing"), (lambda file: file.write_bytes(b"harm"), "differs")],
        ids=["missing", "damaged"],
    )
    def test_harm_is_found(self, home: Path, harm: Callable[[Path], object], state: str) -> None:
        folder = write_mnist(home / "mnist")
        harm(folder / f"{NAMES[2]}.gz")
        found = verify_dataset("mnist")
        assert found.path == folder
        assert dict(found.files)[folder / f"{NAMES[2]}.gz"] == state
        assert found.error
        assert NAMES[2] in found.error

    def test_nothing_there(self) -> None:
        found = verify_dataset("mnist")
        assert (found.path, found.files) == (None, ())
        assert found.error
        assert found.error.startswith("mnist: not found in ")

    @pytest.mark.data
    def test_the_real_mnist_is_official(self) -> None:
        found = verify_dataset("mnist", REAL_DATA_DIR)
        assert found.error is None
        assert [state for _, state in found.files] == ["official"] * 4


def test_every_refusal_is_one_line(home: Path) -> None:
    home.mkdir()
    (home / "mnist").touch()
    for call in (load_dataset, fetch_dataset, lambda name: import_dataset(name, home / "mnist")):
        with pytest.raises(CnnctlError) as caught:
            call("mnist")
        assert "\n" not in str(caught.value)
