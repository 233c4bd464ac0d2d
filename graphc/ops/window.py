"""Windows that slide over an image: the arithmetic that convolutions and pools share."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DimLike, dims
from graphc.ops.checks import check_integers

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, left, bottom, right: the order of ONNX's `pads`


@dataclass(frozen=True)
class Window:
    """A window of `kernel` cells, `dilation` apart, that moves by `stride` over an image with `padding` around it.

    With `ceil_mode`, a last window may reach beyond the padding if it starts in the image or in the padding before it
    (PyTorch's rule).
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        check_integers("kernel", self.kernel, 2, 1)
        check_integers("stride", self.stride, 2, 1)
        check_integers("padding", self.padding, 4, 0)
        check_integers("dilation", self.dilation, 2, 1)

    @property
    def extent(self) -> Pair:
        """How many rows and columns lie between a window's first and last cell, both included."""
        (r, s), (dr, ds) = self.kernel, self.dilation
        return dr * (r - 1) + 1, ds * (s - 1) + 1

    @property
    def stays_inside(self) -> bool:
        """Whether no window reaches outside the image."""
        return not any(self.padding) and not self.ceil_mode

    def positions(self, height: DimLike, width: DimLike) -> tuple[DimLike, DimLike]:
        """P and Q: floor((size + padding - extent) / stride) + 1, or what `ceil_mode` makes of it."""
        return self.count(0, height), self.count(1, width)

    def count(self, axis: int, size: DimLike) -> DimLike:
        """How many windows fit along the height (axis 0) or width (axis 1)."""
        extent, stride, before, after = self.extent[axis], self.stride[axis], self.padding[axis], self.padding[axis + 2]
        count = _count(size, extent, stride, before, after, self.ceil_mode)
        if isinstance(count, int) and count < 1:
            raise ShapeError(f"a window of {extent} does not fit size {size} padded by {before}+{after}")
        return count

    def cut(self, x: Array, fill: float) -> Array:
        """All windows of x[N,C,H,W] as a view [N,C,P,Q,R,S] of a copy with `fill` around the image."""
        borders = [(0, 0), (0, 0)]
        for axis, count in enumerate(self.positions(*x.shape[2:])):
            before = self.padding[axis]
            needed = (dims.evaluate(count, {}) - 1) * self.stride[axis] + self.extent[axis]
            borders.append((before, max(needed - before - x.shape[2 + axis], 0)))
        padded = np.pad(x, borders, constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(padded, self.extent, axis=(2, 3))
        return view[:, :, :: self.stride[0], :: self.stride[1], :: self.dilation[0], :: self.dilation[1]]


# The layers of a network repeat few windows and sizes, and types are inferred again after each pass: without the
# cache this arithmetic was half of the time that passes over 10,000 convolutions take.
@lru_cache(maxsize=1024)
def _count(size: DimLike, extent: int, stride: int, before: int, after: int, ceil_mode: bool) -> DimLike:
    if ceil_mode:
        # min(ceil((size + before + after - extent) / stride) + 1, ceil((size + before) / stride))
        return dims.ceil_div(size + (before + min(after - extent + stride, 0)), stride)
    return (size + (before + after - extent)) // stride + 1
