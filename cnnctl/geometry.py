"""The one owner of window arithmetic: how a kernel slides over an image.

Convolution and pooling, in every backend and for every shape inference, take their
output extents and tap positions from here and from nowhere else. All arithmetic is in
Python integers, so nothing overflows before it is refused.
"""

from dataclasses import dataclass
from typing import Any, Literal

from cnnctl.errors import ShapeError

Pair = int | tuple[int, int] | list[int]
Padding = int | tuple[int, int] | list[int] | tuple[tuple[int, int], tuple[int, int]] | Literal["same"]

MAX_ELEMENTS = 2**40
"""More elements than this in one array is a mistake in a config, not a plan."""
MAX_TAPS = 2**24
"""And so are more taps than this in one window."""


def as_pair(value: Any, field: str, minimum: int = 1) -> tuple[int, int]:
    """Read an extent given as one integer or as [height, width].

    >>> as_pair(3, "kernel")
    (3, 3)
    >>> as_pair([3, 5], "kernel")
    (3, 5)
    """
    items = list(value) if isinstance(value, (tuple, list)) else [value, value]
    if len(items) != 2 or any(isinstance(i, bool) or not isinstance(i, int) for i in items):
        raise ShapeError(f"{field}: {value!r} is neither an integer nor [height, width]")
    if min(items) < minimum:
        raise ShapeError(f"{field}: {value!r} is below {minimum}")
    height, width = items
    return int(height), int(width)


def check_elements(shape: tuple[int, ...], what: str) -> int:
    """The number of elements in `shape`; refuses negative extents and absurd products."""
    count = 1
    for extent in shape:
        if extent < 0:
            raise ShapeError(f"{what}: shape {shape} has a negative extent")
        count *= extent
    if count > MAX_ELEMENTS:
        raise ShapeError(f"{what}: shape {shape} has {count} elements, more than {MAX_ELEMENTS}")
    return count


@dataclass(frozen=True, slots=True)
class Window:
    """A kernel's footprint and how it moves: all that convolution and pooling share.

    Attributes:
        kernel: (KH, KW), taps.
        stride: (rows, columns) between neighbouring windows, pixels.
        padding: ((top, bottom), (left, right)), pixels added around the image.
        dilation: (rows, columns) between neighbouring taps, pixels.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def create(cls, kernel: Pair, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1) -> "Window":
        """Build a window from what a user writes.

        `padding` is one integer, [height, width], ((top, bottom), (left, right)) or
        "same", which keeps the image's extents at stride 1 and puts an odd pixel at
        the bottom and right, as PyTorch and TensorFlow do.
        """
        kernel_pair = as_pair(kernel, "kernel")
        dilation_pair = as_pair(dilation, "dilation")
        stride_pair = as_pair(stride, "stride")
        if padding == "same":
            if stride_pair != (1, 1):
                raise ShapeError(f"padding: 'same' needs stride 1, got stride {stride!r}")
            spans = [d * (k - 1) for k, d in zip(kernel_pair, dilation_pair, strict=True)]
            top, left = (span // 2 for span in spans)
            sides = ((top, spans[0] - top), (left, spans[1] - left))
        elif (
            isinstance(padding, (tuple, list))
            and len(padding) == 2
            and all(isinstance(side, (tuple, list)) for side in padding)
        ):
            sides = (as_pair(padding[0], "padding", 0), as_pair(padding[1], "padding", 0))
        elif isinstance(padding, str):
            raise ShapeError(f"padding: {padding!r} is not known; give an integer, [height, width] or 'same'")
        else:
            rows, columns = as_pair(padding, "padding", 0)
            sides = ((rows, rows), (columns, columns))
        return cls(kernel_pair, stride_pair, sides, dilation_pair)

    @property
    def span(self) -> tuple[int, int]:
        """Pixels from the first tap to the last, both included: d (k - 1) + 1."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(OH, OW) = floor((extent + padding - span) / stride) + 1.

        Windows that would hang over the padded image are dropped. Raises ShapeError
        when not even one window fits.
        """
        sizes = []
        for extent, pads, span, stride, axis in zip(
            (height, width), self.padding, self.span, self.stride, ("height", "width"), strict=True
        ):
            if extent < 1:
                raise ShapeError(f"{axis}: {extent} is below 1")
            room = extent + sum(pads) - span
            if room < 0:
                raise ShapeError(
                    f"kernel spans {span} pixels of {axis}, more than the {extent} of the image "
                    f"plus {sum(pads)} of padding; use a smaller kernel or more padding"
                )
            sizes.append(room // stride + 1)
        return sizes[0], sizes[1]

    def check_size(self, height: int, width: int) -> None:
        """Refuse windows, padding and strides beyond all use, before anybody multiplies or counts them."""
        if self.kernel[0] * self.kernel[1] > MAX_TAPS:
            raise ShapeError(f"kernel: {self.kernel} has more than {MAX_TAPS} taps")
        check_elements((height + sum(self.padding[0]), width + sum(self.padding[1])), "padded image")
        if self.stride[0] * self.stride[1] > MAX_ELEMENTS:
            raise ShapeError(f"stride: {self.stride} is longer than any image; give at most its extents")

    def row_taps(self, oh: int, height: int) -> list[tuple[int, int]]:
        """(kh, ih) of the taps of output row `oh` that fall inside the image, in order."""
        return _taps(oh, self.kernel[0], self.stride[0], self.padding[0][0], self.dilation[0], height)

    def column_taps(self, ow: int, width: int) -> list[tuple[int, int]]:
        """(kw, iw) of the taps of output column `ow` that fall inside the image, in order."""
        return _taps(ow, self.kernel[1], self.stride[1], self.padding[1][0], self.dilation[1], width)


def _taps(out: int, kernel: int, stride: int, pad: int, dilation: int, extent: int) -> list[tuple[int, int]]:
    first = out * stride - pad
    lowest = max(0, -(first // dilation))
    highest = min(kernel - 1, (extent - 1 - first) // dilation)
    return [(k, first + k * dilation) for k in range(lowest, highest + 1)]
