"""Padding as integers, from `pads` or from `auto_pad`, which means other numbers for another size."""

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import DimLike, Value, dims
from graphc.onnx.reader import NodeReader
from graphc.ops.window import Padding, Pair

Ints = tuple[int, ...]
_AUTO = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def _read_pads(n: NodeReader, count: int) -> tuple[str, Ints]:
    auto = n.text("auto_pad", "NOTSET")
    pads = n.integers("pads", (0,) * (2 * count))
    if auto not in _AUTO:
        raise ShapeError(f"auto_pad: expected one of {', '.join(_AUTO)}, got {auto}")
    if len(pads) != 2 * count:
        raise ShapeError(f"pads: expected {2 * count} integers for {count} spatial dims, got {list(pads)}")
    return auto, pads


def _split(totals: list[int], upper: bool) -> Ints:
    """Half of each total before and half after; an odd one's rest goes after the image if `upper`."""
    before = [t // 2 if upper else t - t // 2 for t in totals]
    return (*before, *(t - b for t, b in zip(totals, before, strict=True)))


def read_padding(n: NodeReader, x: Value, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """The padding of a convolution or pool over x [N,C,H,W]."""
    top, left, bottom, right = read_pads(n, x.type.shape[2:], kernel, stride, dilation)
    return top, left, bottom, right


def read_pads(n: NodeReader, sizes: tuple[DimLike, ...], kernel: Ints, stride: Ints, dilation: Ints) -> Ints:
    """The padding of a convolution or pool over spatial dims of these sizes: before each, then behind each.

    SAME gives ceil(size/stride) results. With a stride over 1 its padding depends on the size, which must be constant.
    """
    auto, padding = _read_pads(n, len(sizes))
    if auto == "NOTSET":
        return padding
    if auto == "VALID":
        return (0,) * (2 * len(sizes))
    totals = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        extent = d * (k - 1) + 1
        if s < 1:
            raise ShapeError(f"strides must be at least 1, got {list(stride)}")
        if s == 1:
            totals.append(max(extent - 1, 0))
        elif isinstance(size, int):
            totals.append(max((-(-size // s) - 1) * s + extent - size, 0))
        else:
            raise UnsupportedError(f"auto_pad={auto} with stride {s} pads by a number that depends on {size}")
    return _split(totals, auto == "SAME_UPPER")


def read_transposed_pads(
    n: NodeReader, sizes: tuple[DimLike, ...], kernel: Ints, stride: Ints, dilation: Ints, more: Ints
) -> tuple[Ints, Ints]:
    """The padding of a transposed convolution, which is what it takes away from its full result, and output_padding.

    SAME gives size*stride results, whatever the size; `output_shape` gives that many results, with more of
    output_padding (`more`) where the full result has fewer.
    """
    count = len(sizes)
    auto, padding = _read_pads(n, count)
    wanted = n.integers("output_shape")
    if auto == "VALID" and not wanted:
        return (0,) * (2 * count), more
    if auto == "NOTSET" and not wanted:
        return padding, more
    if wanted and len(wanted) not in (count, count + 2):
        raise ShapeError(f"output_shape: expected {count} sizes, got {list(wanted)}")
    totals, extra = [], []
    for axis, size in enumerate(sizes):
        target = wanted[axis - count] if wanted else size * stride[axis]
        full = (size - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1 + more[axis]
        total = full - target
        if isinstance(total, dims.Dim):
            raise UnsupportedError(f"output_shape={list(wanted)} pads by a number that depends on {size}")
        totals.append(max(total, 0))
        extra.append(more[axis] + max(-total, 0))
    return _split(totals, auto == "SAME_UPPER"), tuple(extra)
