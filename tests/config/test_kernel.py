"""A kernel file: what it may hold, and one line with the place for what it may not."""

from pathlib import Path

import pytest

from cnnctl.config.kernel import load_kernel
from cnnctl.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kernel.yaml"


@pytest.mark.parametrize(
    ("text", "shape", "filters", "bias"),
    [
        ("weight: [[1, 2, 3], [4, 5, 6.5]]", (2, 3), 1, 0),
        ("weight: [[1]]\nbias: 128", (1, 1), 1, 128),
        ("weight: [[[[1]], [[2]], [[3]]], [[[1]], [[2]], [[3]]]]\nbias: [1, 2]", (2, 3, 1, 1), 2, [1, 2]),
        ("weight: [[[[1, 2]]]]", (1, 1, 1, 2), 1, 0),
    ],
)
def test_what_is_usable(file: Path, text: str, shape: tuple[int, ...], filters: int, bias: object) -> None:
    file.write_text(f"name: mine\n{text}\n")
    kernel = load_kernel(file)
    assert (kernel.name, kernel.shape, kernel.filters, kernel.bias) == ("mine", shape, filters, bias)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("weight: [[1, 2], [3]]", "1:9: weight: [[1, 2], [3]] is not usable; give rows of numbers (KH, KW)"),
        ("weight: [1, 2]", "1:9: weight: [1, 2] is not usable"),
        ("weight: [[[1]]]", "1:9: weight: [[[1]]] is not usable"),
        ("weight: [[]]", "1:9: weight: [[]] is not usable"),
        ("weight: [[true]]", "1:9: weight: [[true]] is not usable"),
        ("weight: [[1e999]]", "1:9: weight: [[Infinity]] is not usable"),
        ("weight: [[a]]", '1:9: weight: [["a"]] is not usable'),
        ("weight: 3", "1:9: weight: 3 is not usable"),
        ("weight: [[[[1]], [[2]]]]", "1:9: weight: shape (1, 2, 1, 1) has 2 channels; give 3 for RGB"),
        (f"weight: {17 * [[[[1]]]]}", "1:9: weight: shape (17, 1, 1, 1) is above 16 filters of 63x63"),
        (f"weight: [{64 * [1]}]", "1:9: weight: shape (1, 64) is above 16 filters of 63x63"),
        ("weight: [[1]]\nbias: [1, 2]", "2:7: bias: 2 numbers for a weight of 1 filters"),
        ("weight: [[1]]\nbias: a", "2:7: bias: 'a' is not usable; give a number, or a list of one"),
        ("weight: [[1]]\nbais: 1", "2:1: bais is not known; did you mean bias?"),
        ("bias: 1", "1:1: weight is missing (rows (KH, KW)"),
    ],
)
def test_what_is_not(file: Path, text: str, line: str) -> None:
    file.write_text(f"{text}\nname: mine\n")
    with pytest.raises(ConfigError) as caught:
        load_kernel(file)
    assert str(caught.value).startswith(f"{file}:{line}")
    assert "\n" not in str(caught.value)


def test_a_name_goes_into_file_names(file: Path) -> None:
    file.write_text("name: ../evil\nweight: [[1]]\n")
    with pytest.raises(ConfigError, match=r"1:7: name: '\.\./evil' is not usable"):
        load_kernel(file)


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"kernel\.yaml: no such file$"):
        load_kernel(file)
