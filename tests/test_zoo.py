"""The zoo in small: every shipped config trains, and the README tells what each one promises."""

from pathlib import Path

import numpy as np
import pytest

from cnnctl.config import load_config
from cnnctl.data.catalog import CATALOG
from tests.zoo import __main__ as zoo
from tests.zoo.entries import CONFIGS, ENTRIES, Entry, choose_entries
from tests.zoo.table import BEGIN, END, HEAD, README, Figures, average, read_columns, read_reached, read_rows

from tests.zoo.table import format_row, write_reached, write_rows  # isort: skip


def test_every_config_is_in_the_zoo() -> None:
    assert {entry.config for entry in ENTRIES} == {file.stem for file in CONFIGS.glob("*.yaml")}


@pytest.fixture
def make_images(tmp_path: Path):
    """A data set's stand-in: an archive of thirty noisy images that their labels can be read from."""

    def make(name: str) -> str:
        labels = np.arange(30) % 10
        images = np.random.default_rng(0).integers(0, 60, (30, *(CATALOG[name].image_shape or ())))
        images[np.arange(30), 0, labels] += 150
        arrays = {"x_train": images[:20], "x_test": images[20:]}
        arrays = {key: x.astype(np.uint8) for key, x in arrays.items()}
        np.savez(tmp_path / "images.npz", y_train=labels[:20], y_test=labels[20:], **arrays)
        return str(tmp_path / "images.npz")

    return make


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.config)
def test_an_entry_trains(entry: Entry, make_images, tmp_path: Path) -> None:
    """A few steps, and a whole row of figures; its loss is another one afterwards."""
    data = load_config(CONFIGS / f"{entry.config}.yaml").data
    overrides = ["data.train=10", "solver.epochs=2", "engine.threads=1"]
    if data.dataset == "shapes":
        overrides += ["data.validation=0", "data.test=10"]
    else:
        path = make_images(data.dataset)
        overrides += ["data.dataset=npz", f"data.path={path}", "data.validation=10"]
    figures = zoo.train_entry(entry._replace(seeds=1), overrides)
    assert figures.epochs == 2
    assert (figures.validation is None) == (data.dataset == "shapes")
    columns = read_columns(format_row(entry, figures, "nowhere"))
    assert columns[0] == f"`{entry.config}`"
    assert columns[-1] == "nowhere"
    assert len(columns) == len(read_columns(HEAD.splitlines()[0]))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.config)
def test_the_readme_says_what_the_config_says(entry: Entry) -> None:
    row = read_rows(README.read_text())[entry.config]
    assert read_columns(row)[5] == f"{read_reached(entry.config):.2f}"


def test_rows_find_their_place() -> None:
    first, second = ENTRIES[0], ENTRIES[1]
    text = f"before\n{BEGIN}{HEAD}{END}after\n"
    figures = Figures(99.5, None, 98.25, 61.7, 3)
    text = write_rows(text, {second.config: format_row(second, figures, "")})
    text = write_rows(text, {first.config: format_row(first, figures, "PyTorch")})
    rows = list(read_rows(text).values())
    assert [read_columns(row)[0] for row in rows] == [f"`{first.config}`", f"`{second.config}`"]
    assert read_columns(rows[0])[2:] == ["3", "99.50", "", "98.25", "62", "PyTorch"]
    assert text.startswith(f"before\n{BEGIN}{HEAD}")
    assert text.endswith(f"{END}after\n")


def test_what_is_reached_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# What\n# Where\nx: 1\n\ny: 2\n")
    for accuracy in (12.345, 99.5):
        write_reached(file, accuracy)
    assert file.read_text() == "# What\n# Where\n# Reaches 99.50 % on the test images.\nx: 1\n\ny: 2\n"


def test_means() -> None:
    figures = average([Figures(1, 2, 3, 4, 5), Figures(3, 4, 5, 6, 5)])
    assert figures == Figures(2, 3, 4, 5, 5)
    assert average([Figures(1, None, 3, 4, 5)]).validation is None


def test_a_broken_promise_is_told(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """And changes no file."""
    before = README.read_text()
    monkeypatch.setattr(zoo, "train_entry", lambda *_: Figures(1, 1, 1, 1, 1))
    monkeypatch.setattr(zoo, "read_reached", lambda _: 99.0)
    monkeypatch.setattr("sys.argv", ["zoo", ENTRIES[0].config])
    assert zoo.main() == 3
    assert "1.00 % where 99.00 % were promised" in capsys.readouterr().err
    assert README.read_text() == before


def test_another_name_is_refused() -> None:
    assert choose_entries([]) == list(ENTRIES)
    with pytest.raises(KeyError, match="lenet6"):
        choose_entries(["lenet6"])
