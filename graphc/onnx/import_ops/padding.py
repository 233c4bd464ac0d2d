"""Padding as integers, from `pads` or from `auto_pad`, which means other numbers for another size."""

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Value, dims
from graphc.onnx.reader import NodeReader
from graphc.ops.window import Padding, Pair

_AUTO = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def _read_pads(n: NodeReader) -> tuple[str, Padding]:
    auto = n.text("auto_pad", "NOTSET")
    pads = n.integers("pads", (0, 0, 0, 0))
    if auto not in _AUTO:
        raise ShapeError(f"auto_pad: expected one of {', '.join(_AUTO)}, got {auto}")
    if len(pads) != 4:
        raise UnsupportedError(f"pads has {len(pads)} entries; only two spatial dims are supported")
    return auto, (pads[0], pads[1], pads[2], pads[3])


def _split(totals: list[int], upper: bool) -> Padding:
    """Half of each total before and half after; an odd one's rest goes after the image if `upper`."""
    before = [t // 2 if upper else t - t // 2 for t in totals]
    return before[0], before[1], totals[0] - before[0], totals[1] - before[1]


def read_padding(n: NodeReader, x: Value, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """The padding of a convolution or pool over x [N,C,H,W].

    SAME gives ceil(size/stride) results. With a stride over 1 its padding depends on the size, which must be constant.
    """
    auto, padding = _read_pads(n)
    if auto == "NOTSET":
        return padding
    if auto == "VALID":
        return 0, 0, 0, 0
    totals = []
    for letter, size, k, s, d in zip("HW", x.type.shape[2:], kernel, stride, dilation, strict=True):
        extent = d * (k - 1) + 1
        if s < 1:
            raise ShapeError(f"strides must be at least 1, got {list(stride)}")
        if s == 1:
            totals.append(max(extent - 1, 0))
        elif isinstance(size, int):
            totals.append(max((-(-size // s) - 1) * s + extent - size, 0))
        else:
            raise UnsupportedError(f"auto_pad={auto} with stride {s} pads by a number that depends on {letter}={size}")
    return _split(totals, auto == "SAME_UPPER")


def read_transposed_padding(
    n: NodeReader, x: Value, kernel: Pair, stride: Pair, dilation: Pair, output_padding: Pair
) -> Padding:
    """The padding of a transposed convolution: what it takes away from its full result.

    SAME gives size*stride results, whatever the size; `output_shape` gives that many results.
    """
    auto, padding = _read_pads(n)
    wanted = n.integers("output_shape")
    if auto == "VALID" and not wanted:
        return 0, 0, 0, 0
    if auto == "NOTSET" and not wanted:
        return padding
    if wanted and len(wanted) not in (2, 4):
        raise ShapeError(f"output_shape: expected H and W, got {list(wanted)}")
    totals = []
    for axis in (0, 1):
        size = x.type.shape[2 + axis]
        target = wanted[axis - 2] if wanted else size * stride[axis]
        full = (size - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1 + output_padding[axis]
        total = full - target
        if isinstance(total, dims.Dim):
            raise UnsupportedError(f"output_shape={list(wanted)} pads by a number that depends on {size}")
        if total < 0:
            raise UnsupportedError(f"the result would need {target} positions, {full} exist")
        totals.append(total)
    return _split(totals, auto == "SAME_UPPER")
