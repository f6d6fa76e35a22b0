"""Files of cases: the courses' own, others, and every way to write one wrongly."""

import pytest

from cnnctl.bench.shapes import COURSE_CASES, check_name, read_cases
from cnnctl.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    """The cases of a file with that text."""

    def run(text):
        path = tmp_path / "shapes.yaml"
        path.write_text(text)
        given, cases = read_cases(str(path))
        assert given == text
        return cases

    return run


def test_the_courses_cases():
    given, cases = read_cases()
    assert given == COURSE_CASES
    assert [(case.name, case.x_shape, case.calls) for case in cases] == [
        ("conv-31x31", (100, 3, 31, 31), 1),
        ("maxpool-32x32", (100, 3, 32, 32), 1),
        ("conv-3x3-image", (1, 1, 3, 3), 100),
    ]
    shapes = [case.create_layer().infer_shape(case.x_shape[1:]) for case in cases]
    assert shapes == [(25, 16, 16), (3, 16, 16), (16, 1, 1)]
    assert cases[2].describe() == "x [1, 1, 3, 3], conv: {filters: 16, kernel: 3, bias: false}"


def test_names_and_calls_by_default(read):
    cases = read(
        "calls: 4\n"
        "cases:\n"
        "  - {x: [2, 3], layer: {linear: 5}}\n"
        "  - {x: [2, 1, 4, 4], layer: {avgpool: 2}, calls: 7, name: mean}\n"
        "  - {x: [2, 3], layer: {linear: {units: 5, bias: false}}}\n"
    )
    assert [(case.name, case.calls) for case in cases] == [("linear1", 4), ("mean", 7), ("linear2", 4)]


@pytest.mark.parametrize(
    ("case", "where", "message"),
    [
        ("{x: [2, 3], layr: {linear: 5}}", "layr", "cases.0.layr is not known; did you mean layer?"),
        ("{x: [2, 3]}", "{", "cases.0.layer is missing (conv, maxpool, avgpool or linear, as in a network)"),
        ("{layer: {linear: 5}}", "{", "cases.0.x is missing (the input's shape, [N, C, H, W] or [N, D])"),
        (
            "{x: [2, 3, 8, 8], layer: {conv: {filters: 2, kernal: 3}}}",
            "kernal",
            "cases.0.layer.conv.kernal is not known; did you mean kernel?",
        ),
        ("{x: [2, 3], layer: relu}", "relu", "cases.0.layer: 'relu' is not known; known: conv, maxpool, "),
        ("{x: [2, 3], layer: {linear: 0}}", "0}", "cases.0.layer.linear.units: 0 is not usable; give an "),
        (
            "{x: [2, 3, 4], layer: {linear: 5}}",
            "{",
            "cases.0 (linear1): x: [2, 3, 4] is neither [N, C, H, W] nor [N, D]",
        ),
        ("{x: 2, layer: {linear: 5}}", "2,", "cases.0.x: 2 is not usable; give [N, C, H, W] or [N, D], "),
        ("{x: [2, 0], layer: {linear: 5}}", "[2", "cases.0.x: [2, 0] is not usable; give "),
        ("{x: [2, 3], layer: {linear: 5}, calls: 0}", "0}", "cases.0.calls: 0 is not usable; give an "),
        ("{x: [2, 3], layer: {linear: 5}, name: a b}", "a b", "cases.0.name: 'a b' is not usable; give 1 "),
        ("{x: [2, 3], layer: {maxpool: 2}}", "{", "cases.0 (maxpool1): input of shape (3,) is not an image"),
        (
            "{name: mine, x: [2, 3, 4, 4], layer: {conv: {filters: 2, kernel: 5}}}",
            "{",
            "cases.0 (mine): kernel spans 5 pixels of height, more than the 4 of the image",
        ),
        (
            "{x: [2, 3, 4, 4], layer: {conv: {filters: 2, kernel: 1, groups: 2}}}",
            "{",
            "cases.0 (conv1): groups: 2 does not divide the 3 channels",
        ),
        (
            "{x: [2000000, 2000000], layer: {linear: 1}}",
            "{",
            "cases.0 (linear1): x: shape (2000000, 2000000) has 4000000000000 elements, more than ",
        ),
    ],
)
def test_what_is_not_usable_is_told_with_line_and_column(read, tmp_path, case, where, message):
    with pytest.raises(ConfigError) as caught:
        read(f"calls: 1\ncases:\n  - {case}\n")
    place = f"{tmp_path / 'shapes.yaml'}:3:{5 + case.index(where)}"
    assert str(caught.value).startswith(f"{place}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: config: null is not usable; give a mapping of cases, calls"),
        ("cases: []\n", "1:8: cases: [] is not usable; give a list of cases, at least one"),
        ("cases: {conv: 3}\n", '1:8: cases: {"conv": 3} is not usable; give a list of cases'),
        ("cases: [3]\n", "1:9: cases.0: 3 is not usable; give a mapping of name, x, layer, calls"),
        ("case: []\n", "1:1: case is not known; did you mean cases?"),
        ("calls: 3\n", "1:1: cases is missing (the operations to time, at least one)"),
        ("cases: [\n", "2:1: not YAML: "),
    ],
)
def test_a_file_that_is_none(read, tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"{tmp_path / 'shapes.yaml'}:{message}")


def test_two_cases_of_one_name(read):
    case = "  - {name: a, x: [2, 3], layer: {linear: 5}}\n"
    with pytest.raises(ConfigError, match=r":3:5: cases\.1: 'a' is the name of two cases; give one another"):
        read(f"cases:\n{2 * case}")


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_cases(str(tmp_path / "none.yaml"))


def test_a_run_s_name():
    assert check_name("my-run.2") == "my-run.2"
    with pytest.raises(ConfigError, match=r"^name: '\.\./x' is not usable; give 1 to 64 letters"):
        check_name("../x")
