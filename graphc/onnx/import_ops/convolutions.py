"""Convolutions over one, two or three spatial dims."""

from collections.abc import Callable

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Value
from graphc.onnx.import_ops.frames import (
    Application,
    Frame,
    count_dims,
    lay_line,
    read_frame,
    read_ints,
    take_line,
    take_volume,
    unfold_depth,
)
from graphc.onnx.import_ops.padding import Ints, read_transposed_pads
from graphc.onnx.reader import NodeReader
from graphc.ops.conv import Conv2d
from graphc.ops.conv_transpose import ConvTranspose2d
from graphc.ops.shape import Pad, Reshape, Slice, Transpose


def _read_kernel(n: NodeReader, x: Value, weight: Value) -> Ints:
    """The kernel's size from the weights, which `kernel_shape` may repeat."""
    if weight.type.rank != x.type.rank:
        raise ShapeError(f"expected weights of rank {x.type.rank} for {x.type}, got {weight.type}")
    count_dims(x)
    kernel = weight.type.static_shape()[2:]
    if n.integers("kernel_shape", kernel) != kernel:
        raise ShapeError(f"kernel_shape {list(n.integers('kernel_shape'))} is not that of the weights {weight.type}")
    return kernel


def convolve(n: NodeReader, x: Value, weight: Value, bias: list[Value]) -> Application:
    """x [N,C,...] convolved with weights [K,C/groups,...] as the node's attributes say."""
    frame = read_frame(n, x, _read_kernel(n, x, weight))
    window = frame.plane
    op = Conv2d(window.stride, window.padding, window.dilation, n.integer("group", 1), bool(bias))
    match x.type.rank:
        case 3:
            return take_line(n.step(op, lay_line(n, x), lay_line(n, weight), *bias))
        case 4:
            return op, (x, weight, *bias)
    k, c, depth, r, s = weight.type.static_shape()
    planes = n.step(Reshape((k, c * depth, r, s)), weight)
    return take_volume(n, n.step(op, unfold_depth(n, x, frame.along(0)), planes, *bias), x)


def read_conv(n: NodeReader) -> None:
    """Conv -> conv2d."""
    op, operands = convolve(n, n.value(0), n.value(1), [n.value(2)] if n.has_input(2) else [])
    n.emit(op, *operands)


def read_conv_transpose(n: NodeReader) -> None:
    """ConvTranspose -> conv_transpose2d."""
    x, weight, bias = n.value(0), n.value(1), [n.value(2)] if n.has_input(2) else []
    kernel = _read_kernel(n, x, weight)
    stride, dilation, more = (
        read_ints(n, name, default, len(kernel))
        for name, default in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    padding, more = read_transposed_pads(n, x.type.shape[2:], kernel, stride, dilation, more)
    frame = Frame(kernel, stride, dilation, padding)
    window, behind = frame.plane, (0, *more)[-2:]
    op = ConvTranspose2d(
        window.stride, window.padding, (behind[0], behind[1]), window.dilation, n.integer("group", 1), bool(bias)
    )
    match x.type.rank:
        case 3:
            op_and_operands = take_line(n.step(op, lay_line(n, x), lay_line(n, weight), *bias))
        case 4:
            op_and_operands = op, (x, weight, *bias)
        case _:
            c, k, depth, r, s = weight.type.static_shape()
            planes = n.step(Reshape((c * depth, k, r, s)), n.step(Transpose((0, 2, 1, 3, 4)), weight))
            y = n.step(op, _spread_depth(n, x, frame, more[0]), planes, *bias)
            op_and_operands = take_volume(n, y, x)
    n.emit(op_and_operands[0], *op_and_operands[1])


def _spread_depth(n: NodeReader, x: Value, frame: Frame, more: int) -> Value:
    """The images of `unfold_depth` for a transposed convolution along D.

    It is a convolution with the taps in reverse of x with stride-1 planes of zeros behind each of its own but the last.
    """
    kernel, stride, dilation, before, behind = frame.along(0)
    reach = dilation * (kernel - 1)
    if max(before, behind - more) > reach:
        raise UnsupportedError(f"padding {before}+{behind} of more than the {reach} planes that the kernel adds")
    if stride > 1:
        batch, channels, depth, height, width = x.type.shape
        opened = n.step(Reshape((batch, channels, depth, 1, height, width)), x)
        spread = n.step(Pad((0, 0, 0, 0, 0, 0, 0, 0, 0, stride - 1, 0, 0)), opened)
        merged = n.step(Reshape((batch, channels, depth * stride, height, width)), spread)
        x = n.step(Slice((2,), (0,), (depth * stride - (stride - 1),), (1,)), merged)
    return unfold_depth(n, x, (kernel, 1, dilation, reach - before, reach - behind + more), flip=True)


HANDLERS: dict[str, Callable[[NodeReader], None]] = {"Conv": read_conv, "ConvTranspose": read_conv_transpose}
