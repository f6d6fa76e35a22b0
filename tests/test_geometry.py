"""Window arithmetic against counting: extents, taps, "same", and refusals before anything overflows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnctl.errors import ShapeError
from cnnctl.geometry import MAX_ELEMENTS, Window, as_pair, check_elements

small = st.integers(1, 5)
extents = st.integers(1, 12)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    pads = st.tuples(st.integers(0, 4), st.integers(0, 4))
    pairs = st.tuples(small, small)
    return Window(draw(pairs), draw(pairs), (draw(pads), draw(pads)), draw(pairs))


def count_positions(extent: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """How many windows fit, by walking along the padded image."""
    padded = extent + sum(pads)
    return len([first for first in range(0, padded, stride) if first + dilation * (kernel - 1) < padded])


@given(windows(), extents, extents)
def test_output_size_is_the_number_of_windows_that_fit(window: Window, height: int, width: int) -> None:
    rows, columns = (
        count_positions(extent, *arguments)
        for extent, *arguments in zip(
            (height, width), window.kernel, window.stride, window.padding, window.dilation, strict=True
        )
    )
    if rows and columns:
        assert window.output_size(height, width) == (rows, columns)
    else:
        with pytest.raises(ShapeError, match="use a smaller kernel or more padding"):
            window.output_size(height, width)


@given(windows(), extents, st.integers(0, 11))
def test_taps_are_those_inside_the_image(window: Window, extent: int, out: int) -> None:
    """Placed on the padded image and moved back, those that left it dropped, in order."""
    for taps, axis in ((window.row_taps(out, extent), 0), (window.column_taps(out, extent), 1)):
        placed = [out * window.stride[axis] + k * window.dilation[axis] for k in range(window.kernel[axis])]
        pixels = [position - window.padding[axis][0] for position in placed]
        assert taps == [(k, pixel) for k, pixel in enumerate(pixels) if pixel in range(extent)]


@given(windows(), extents)
def test_every_tap_of_an_unpadded_window_is_inside(window: Window, extra: int) -> None:
    bare = Window(window.kernel, window.stride, dilation=window.dilation)
    height, width = bare.span[0] + extra, bare.span[1] + extra
    OH, OW = bare.output_size(height, width)
    assert all(len(bare.row_taps(oh, height)) == bare.kernel[0] for oh in range(OH))
    assert all(len(bare.column_taps(ow, width)) == bare.kernel[1] for ow in range(OW))


@given(st.tuples(small, small), st.tuples(small, small), extents, extents)
def test_same_keeps_the_extents(
    kernel: tuple[int, int], dilation: tuple[int, int], height: int, width: int
) -> None:
    window = Window.create(kernel, padding="same", dilation=dilation)
    assert window.output_size(height, width) == (height, width)
    for before, after in window.padding:
        assert after - before in (0, 1)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        (((0, 1), (2, 3)), ((0, 1), (2, 3))),
        ([[0, 1], [2, 3]], ((0, 1), (2, 3))),
        ("same", ((1, 1), (1, 2))),
    ],
    ids=str,
)
def test_padding_as_users_write_it(padding: object, sides: object) -> None:
    assert Window.create([3, 4], padding=padding) == Window((3, 4), (1, 1), sides, (1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, "kernel: 0 is below 1"),
        ({"kernel": [3, -1]}, "kernel: [3, -1] is below 1"),
        ({"kernel": [3, 3, 3]}, "kernel: [3, 3, 3] is neither an integer nor [height, width]"),
        ({"kernel": []}, "kernel: [] is neither an integer nor [height, width]"),
        ({"kernel": 2.5}, "kernel: 2.5 is neither an integer nor [height, width]"),
        ({"kernel": True}, "kernel: True is neither an integer nor [height, width]"),
        ({"kernel": "3"}, "kernel: '3' is neither an integer nor [height, width]"),
        ({"kernel": None}, "kernel: None is neither an integer nor [height, width]"),
        ({"kernel": 3, "stride": 0}, "stride: 0 is below 1"),
        ({"kernel": 3, "dilation": [1, 0]}, "dilation: [1, 0] is below 1"),
        ({"kernel": 3, "padding": -1}, "padding: -1 is below 0"),
        ({"kernel": 3, "padding": [[0, -1], [0, 0]]}, "padding: [0, -1] is below 0"),
        (
            {"kernel": 3, "padding": "valid"},
            "padding: 'valid' is not known; give an integer, [height, width] or 'same'",
        ),
        ({"kernel": 3, "padding": "same", "stride": 2}, "padding: 'same' needs stride 1, got stride 2"),
    ],
    ids=str,
)
def test_what_is_no_window_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        Window.create(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("window", "size", "message"),
    [
        (Window.create(5, padding=1), (3, 2), "kernel spans 5 pixels of width, more than the 2 of the image"),
        (Window.create(3, dilation=3), (6, 9), "kernel spans 7 pixels of height, more than the 6"),
        (Window.create(1), (0, 4), "height: 0 is below 1"),
        (Window.create(1), (4, -1), "width: -1 is below 1"),
    ],
    ids=["kernel", "dilation", "no height", "negative width"],
)
def test_an_image_without_a_single_window_is_refused(
    window: Window, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ShapeError) as caught:
        window.output_size(*size)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("extent", [2**31, 2**32, 2**63, 2**100])
def test_extents_beyond_machine_integers_are_still_exact(extent: int) -> None:
    assert Window.create(3, padding=1).output_size(extent, 3) == (extent, 3)
    assert Window.create(extent, dilation=extent).span[0] == extent * (extent - 1) + 1
    assert Window.create(3, stride=extent).row_taps(2, 3 * extent)[-1] == (2, 2 * extent + 2)


@pytest.mark.parametrize("shape", [(MAX_ELEMENTS + 1,), (2**21, 2**21), (2**32, 2**32), (2**63, 2**63, 2)])
def test_absurd_products_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        check_elements(shape, "y")
    assert str(caught.value).startswith(f"y: shape {shape} has ")


@pytest.mark.parametrize(
    ("shape", "count"), [((), 1), ((0, 2**50), 0), ((3, 4, 5), 60), ((MAX_ELEMENTS,), MAX_ELEMENTS)]
)
def test_reasonable_products_are_counted(shape: tuple[int, ...], count: int) -> None:
    assert check_elements(shape, "y") == count


@pytest.mark.parametrize("shape", [(-1,), (0, -5), (-(2**31), -(2**31))])
def test_negative_extents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="has a negative extent"):
        check_elements(shape, "y")


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_pair_is_one_number_or_two(height: int, width: int) -> None:
    assert as_pair(height, "padding", 0) == (height, height)
    assert as_pair([height, width], "padding", 0) == as_pair((height, width), "padding", 0) == (height, width)


def test_a_window_cannot_be_changed() -> None:
    window = Window.create(3)
    with pytest.raises(AttributeError):
        window.stride = (2, 2)  # type: ignore[misc]
    assert len({window, Window.create([3, 3]), Window.create(3, stride=2)}) == 2


@pytest.mark.parametrize("kernel", [(2**31, 1), (1, 2**63), (2**13, 2**12)])
def test_windows_of_absurdly_many_taps_are_refused(kernel: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match="taps"):
        Window.create(kernel, padding=kernel).check_size(3, 3)


def test_taps_of_a_huge_window_are_found_at_once() -> None:
    huge = Window.create((2**60, 3), padding=((2**59, 2**59), (0, 0)))
    assert huge.row_taps(0, 2) == [(2**59, 0), (2**59 + 1, 1)]
    assert huge.row_taps(2**61, 2) == []
