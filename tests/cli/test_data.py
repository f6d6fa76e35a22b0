"""`cnnctl data`: list, fetch, verify, import and show."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnctl.data import catalog
from cnnctl.data.fetch import OnDownload, RemoteFile
from cnnctl.errors import DataError
from tests.data.mnist_files import NAMES, write_mnist

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data directory; there is no other, and no network. The working directory is empty."""
    path = tmp_path / "home"
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: path)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    monkeypatch.delenv("CNNCTL_DATA_DIR", raising=False)

    def fail(file: RemoteFile, mirrors: Sequence[str], *_: object, **__: object) -> None:
        raise DataError(f"{mirrors[0]}{file.name}: no network")

    monkeypatch.setattr(catalog, "fetch_file", fail)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return path


def read_json(out: str, command: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(out)
    assert (document.pop("schema"), document.pop("command")) == (1, command)
    return document


class TestList:
    """All data sets and where they are."""

    def test_a_row_for_each(self, run_main: Run, home: Path) -> None:
        write_mnist(home / "mnist")
        code, out, err = run_main("data", "list")
        rows = {line.split("  ")[0]: line for line in out.splitlines()}
        assert (code, err) == (0, "")
        assert list(rows) == ["data set", "mnist", "fashion-mnist", "cifar10", "folder", "npz", "shapes"]
        assert rows["mnist"].endswith(f"  {home / 'mnist'}")
        assert rows["cifar10"].endswith(f"  not present; belongs into {home / 'cifar10'}")
        assert rows["npz"].endswith("  given as data.path")
        assert rows["shapes"].endswith("  built in")

    def test_json(self, run_main: Run, home: Path, tmp_path: Path) -> None:
        write_mnist(home / "mnist")
        document = read_json(run_main("data", "list", "--json", "--data-dir", tmp_path / "d")[1], "data list")
        assert document["data_dirs"] == [str(tmp_path / "d"), str(home)]
        places = {entry["name"]: (entry["path"], entry["belongs"]) for entry in document["datasets"]}
        assert places == {
            "mnist": (str(home / "mnist"), None),
            "fashion-mnist": (None, str(tmp_path / "d" / "fashion-mnist")),
            "cifar10": (None, str(tmp_path / "d" / "cifar10")),
            "folder": (None, None),
            "npz": (None, None),
            "shapes": (None, None),
        }
        assert all(
            set(entry) == {"name", "description", "classes", "path", "belongs"}
            for entry in document["datasets"]
        )


class TestFetch:
    """Downloads, with progress on stderr."""

    @pytest.fixture
    def network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def give(file: RemoteFile, _: Sequence[str], folder: Path, *, on_download: OnDownload) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            on_download(file.name, 0, file.size)
            (folder / file.name).touch()
            on_download(file.name, file.size, file.size)

        monkeypatch.setattr(catalog, "fetch_file", give)

    @pytest.mark.usefixtures("network")
    def test_each_name_gets_a_line(self, run_main: Run, tmp_path: Path) -> None:
        code, out, err = run_main("data", "fetch", "mnist", "cifar10", "--data-dir", tmp_path / "d")
        archive = tmp_path / "d" / "cifar10" / "cifar-10-binary.tar.gz"
        assert (code, out) == (0, f"mnist: {tmp_path / 'd' / 'mnist'}\ncifar10: {archive}\n")
        assert err.splitlines()[0] == f"downloading {NAMES[0]}.gz (9.5 MiB)"
        assert err.splitlines()[-1] == "downloading cifar-10-binary.tar.gz (162.2 MiB)"

    @pytest.mark.usefixtures("network")
    def test_json(self, run_main: Run, home: Path) -> None:
        document = read_json(run_main("data", "fetch", "mnist", "--json")[1], "data fetch")
        assert document == {"datasets": [{"name": "mnist", "path": str(home / "mnist")}]}

    def test_without_a_network(self, run_main: Run, home: Path) -> None:
        code, out, err = run_main("data", "fetch", "mnist")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"cnnctl: error: mnist: not found in {home}; put {NAMES[0]}.gz, ")
        assert err.endswith(f"/{NAMES[0]}.gz: no network\n")
        assert not home.exists()

    @pytest.mark.usefixtures("network")
    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("mnits", "data set: 'mnits' is not known; did you mean mnist?"),
            (
                "shapes",
                "data set: shapes does not lie in a data directory; "
                "those that do: mnist, fashion-mnist, cifar10",
            ),
        ],
    )
    def test_a_wrong_name_stops_it_before_it_begins(
        self, run_main: Run, home: Path, name: str, line: str
    ) -> None:
        assert run_main("data", "fetch", "mnist", name) == (2, "", f"cnnctl: error: {line}\n")
        assert not home.exists()


class TestVerify:
    """What is there, file by file."""

    def test_what_can_be_read_is_good(self, run_main: Run, home: Path) -> None:
        folder = write_mnist(home / "mnist", packed=False)
        code, out, err = run_main("data", "verify")
        assert (code, err) == (0, "")
        assert [line.split() for line in out.splitlines()[1:]] == [
            *(["mnist", str(folder / name), "unlisted"] for name in NAMES),
            ["mnist", str(folder), "readable"],
        ]

    def test_damage_ends_in_exit_code_1(self, run_main: Run, home: Path) -> None:
        folder = write_mnist(home / "mnist")
        (folder / f"{NAMES[0]}.gz").write_bytes(b"damaged")
        write_mnist(home / "fashion-mnist")
        code, out, err = run_main("data", "verify")
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith(f"cnnctl: error: {folder / NAMES[0]}.gz: ")
        assert out.splitlines()[-1].split() == ["fashion-mnist", str(home / "fashion-mnist"), "readable"]

    def test_a_name_that_is_not_there(self, run_main: Run) -> None:
        code, _, err = run_main("data", "verify", "mnist")
        assert code == 1
        assert err.startswith("cnnctl: error: mnist: not found in ")
        assert run_main("data", "verify")[::2] == (0, "")

    def test_json(self, run_main: Run, home: Path) -> None:
        folder = write_mnist(home / "mnist")
        (folder / f"{NAMES[1]}.gz").unlink()
        code, out, err = run_main("data", "verify", "--json")
        (report,) = read_json(out, "data verify")["datasets"]
        assert (code, err) == (1, "")
        assert NAMES[1] in report.pop("error")
        assert report == {
            "name": "mnist",
            "path": str(folder),
            "files": [
                {"file": str(folder / f"{name}.gz"), "state": "missing" if name == NAMES[1] else "differs"}
                for name in NAMES
            ],
            "ok": False,
        }


class TestImport:
    """From anywhere into the data directory."""

    def test_a_folder(self, run_main: Run, home: Path, tmp_path: Path) -> None:
        source = write_mnist(tmp_path / "downloads", packed=False)
        assert run_main("data", "import", "mnist", source) == (0, f"mnist: {home / 'mnist'}\n", "")
        assert run_main("data", "verify", "mnist")[0] == 0

    def test_other_sums_are_a_warning(self, run_main: Run, home: Path, tmp_path: Path) -> None:
        code, _, err = run_main("data", "import", "mnist", write_mnist(tmp_path / "downloads"))
        assert (code, err.count("cnnctl: warning: ")) == (0, 4)
        assert "its SHA-256 is not the official one" in err

    def test_json(self, run_main: Run, tmp_path: Path) -> None:
        source, target = write_mnist(tmp_path / "downloads", packed=False), tmp_path / "d"
        _, out, _ = run_main("data", "import", "mnist", source, "--json", "--data-dir", target)
        assert read_json(out, "data import") == {"name": "mnist", "path": str(target / "mnist"), "notes": []}

    def test_a_source_that_is_not_there(self, run_main: Run, home: Path) -> None:
        code, out, err = run_main("data", "import", "cifar10", "nowhere")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("cnnctl: error: nowhere: holds no cifar10; cifar-10-binary.tar.gz or ")
        assert not home.exists()


class TestShow:
    """A contact sheet, and its path on stdout."""

    @pytest.fixture
    def npz(self, tmp_path: Path) -> Path:
        images, labels = np.zeros((4, 1, 60, 60), np.uint8), np.array([0, 1, 0, 1])
        path = tmp_path / "x.npz"
        np.savez(path, x_train=images, y_train=labels, x_test=images[:2] + 255, y_test=labels[:2])
        return path

    def test_it_is_named_after_data_set_and_split(self, run_main: Run, npz: Path) -> None:
        show = ("data", "show", "npz", "--path", npz, "-n", 1)
        assert run_main(*show) == (0, "npz-train.png\n", "")
        assert run_main(*show, "--split", "test") == (0, "npz-test.png\n", "")
        for name, level in (("npz-train.png", 0), ("npz-test.png", 255)):
            with Image.open(name) as sheet:
                assert sheet.getpixel((sheet.width - 30, 30)) == (level,) * 3

    def test_number_and_output(self, run_main: Run, npz: Path, tmp_path: Path) -> None:
        sizes = []
        for count in (1, 3):
            output = tmp_path / f"{count}.png"
            run_main("data", "show", "npz", "--path", npz, "-n", count, "--output", output)
            with Image.open(output) as sheet:
                sizes.append(sheet.size)
        assert sizes[1] == (sizes[0][0] + 2 * 64, sizes[0][1])

    def test_json(self, run_main: Run, npz: Path) -> None:
        document = read_json(run_main("data", "show", "npz", "--path", npz, "--json")[1], "data show")
        assert document == {
            "name": "npz",
            "split": "train",
            "output": "npz-train.png",
            "images": 4,
            "image_shape": [1, 60, 60],
            "classes": ["0", "1"],
            "notes": [],
        }

    def test_other_sums_are_a_warning(self, run_main: Run, home: Path) -> None:
        write_mnist(home / "mnist")
        code, out, err = run_main("data", "show", "mnist")
        assert (code, out, err.count("cnnctl: warning: ")) == (0, "mnist-train.png\n", 4)

    def test_a_folder_can_be_resized(self, run_main: Run, tmp_path: Path) -> None:
        for name, side in (("a", 8), ("b", 9)):
            (tmp_path / "images" / name).mkdir(parents=True)
            for number in range(2):
                Image.new("L", (side, side)).save(tmp_path / "images" / name / f"{number}.png")
        show = ("data", "show", "folder", "--path", tmp_path / "images")
        assert run_main(*show)[0] == 1
        assert run_main(*show, "--image-size", 60)[:2] == (0, "folder-train.png\n")

    @pytest.mark.parametrize(
        ("arguments", "code", "line"),
        [
            (["shpaes"], 2, "data set: 'shpaes' is not known; did you mean shapes?"),
            (["npz"], 2, "path: is missing (data set npz is read from there)"),
            (
                ["shapes", "--path", "x"],
                2,
                "path: x is not usable with data set shapes; it is for folder and npz",
            ),
            (["npz", "--path", "none.npz"], 1, "none.npz: no such file"),
            (["npz", "-n", "0"], 2, "Invalid value for '-n': 0 is not in the range x>=1."),
        ],
    )
    def test_refusals(self, run_main: Run, arguments: list[str], code: int, line: str) -> None:
        assert run_main("data", "show", *arguments) == (code, "", f"cnnctl: error: {line}\n")
        assert list(Path.cwd().iterdir()) == []

    def test_it_downloads_nothing(self, run_main: Run) -> None:
        code, _, err = run_main("data", "show", "mnist")
        assert code == 1
        assert err.endswith(", or run cnnctl data fetch mnist\n")
