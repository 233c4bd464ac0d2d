"""Convolutions, products, normalisations and softmax."""

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.onnx.export_ops.expressions import write_epilogue, write_tail
from graphc.onnx.writer import NodeWriter
from graphc.ops.checks import check_image
from graphc.ops.conv import Conv2d, Conv2dWeightGradient
from graphc.ops.conv_transpose import ConvTranspose2d
from graphc.ops.linear import Linear, MatMul
from graphc.ops.locally_connected import LocallyConnected2d
from graphc.ops.norm import BatchNorm, LocalResponseNorm, Moments
from graphc.ops.softmax import LogSoftmax, Softmax


def write_conv2d(n: NodeWriter, op: Conv2d) -> None:
    """Conv."""
    kernel = n.node.inputs[1].type.static_shape()[2:]
    write_tail(n, op.epilogue, "Conv", 2 + op.bias, kernel_shape=kernel, strides=op.stride, pads=op.padding,
               dilations=op.dilation, group=op.groups)  # fmt: skip


def write_conv2d_weight_gradient(n: NodeWriter, op: Conv2dWeightGradient) -> None:
    """Conv over x with images and channels swapped; the gradient is the weight, the stride is the dilation.

    Where the stride leaves a remainder the result has more than `kernel` rows and columns; those behind are cut off.
    """
    batch, _, h, w = n.node.inputs[0].type.shape
    _, c_group, r, s = n.node.outputs[0].type.static_shape()
    if op.groups == 1:
        x, g = (n.step("Transpose", name, perm=(1, 0, 2, 3)) for name in n.inputs)
    else:  # the images of each group as its channels: x [C/groups,groups*N,H,W], g [K,N,P,Q]
        apart = n.model.shape((batch, op.groups, c_group, h, w))
        x = n.step("Transpose", n.step("Reshape", n.inputs[0], apart), perm=(2, 1, 0, 3, 4))
        x = n.step("Reshape", x, n.model.shape((c_group, batch * op.groups, h, w)))
        g = n.step("Transpose", n.inputs[1], perm=(1, 0, 2, 3))
    y = n.step("Conv", x, g, strides=op.dilation, pads=op.padding, dilations=op.stride, group=op.groups)
    bounds = (n.integers((0, 0), "starts"), n.integers((r, s), "ends"), n.integers((2, 3), "axes"))
    n.emit("Transpose", n.step("Slice", y, *bounds), perm=(1, 0, 2, 3))


def write_conv_transpose2d(n: NodeWriter, op: ConvTranspose2d) -> None:
    """ConvTranspose; to a given size, with the most output_padding and then cut.

    ONNX Runtime wants an output_padding below the stride. Where dilation alone allows it, it becomes a further tap of
    zero weight, which makes the result `dilation` longer, and that much less is kept of its end.
    """
    *_, r, s = n.node.inputs[1].type.static_shape()
    kernel, pads, extra = [r, s], list(op.padding), list(op.output_padding)
    if op.size is not None and max(op.stride) > 1:
        count = 2 + op.bias
        extra = [stride - 1 for stride in op.stride]
        bounds = (n.integers((0, 0), "starts"), n.model.shape(op.size), n.integers((2, 3), "axes"))
        y = n.step("ConvTranspose", *n.inputs[:count], kernel_shape=kernel, strides=op.stride, pads=pads,
                   dilations=op.dilation, group=op.groups, output_padding=extra)  # fmt: skip
        if op.epilogue is None:
            return n.emit("Slice", y, *bounds)
        return write_epilogue(n, op.epilogue, n.step("Slice", y, *bounds), count)
    for axis in (0, 1):
        if extra[axis] >= op.stride[axis]:
            kernel[axis] += 1
            pads[2 + axis] += op.dilation[axis] - extra[axis]
            extra[axis] = 0
    if kernel != [r, s]:
        taps = n.integers((0, 0, 0, 0, 0, 0, kernel[0] - r, kernel[1] - s), "taps")
        n.inputs[1] = n.step("Pad", n.inputs[1], taps)
    return write_tail(n, op.epilogue, "ConvTranspose", 2 + op.bias, kernel_shape=kernel, strides=op.stride, pads=pads,
               dilations=op.dilation, group=op.groups, output_padding=extra)  # fmt: skip


def write_linear(n: NodeWriter, op: Linear) -> None:
    """Gemm, which wants a matrix; for other ranks MatMul with the transposed weight, and Add."""
    if n.node.inputs[0].type.rank == 2:
        return write_tail(n, op.epilogue, "Gemm", 2 + op.bias, transB=1)
    operands = [n.inputs[0], n.step("Transpose", n.inputs[1], perm=(1, 0))]
    op_type = "MatMul"
    if op.bias:
        operands, op_type = [n.step(op_type, *operands), n.inputs[2]], "Add"
    if op.epilogue is None:
        return n.emit(op_type, *operands)
    return write_epilogue(n, op.epilogue, n.step(op_type, *operands), 2 + op.bias)


def write_matmul(n: NodeWriter, op: MatMul) -> None:
    """MatMul, or Gemm, which turns matrices itself; others are turned before."""
    ranks = [v.type.rank for v in n.node.inputs]
    if (op.turn_a or op.turn_b) and ranks == [2, 2]:
        return n.emit("Gemm", *n.inputs, transA=int(op.turn_a), transB=int(op.turn_b))
    operands = list(n.inputs)
    for i, (rank, turn) in enumerate(zip(ranks, (op.turn_a, op.turn_b), strict=True)):
        if turn:
            operands[i] = n.step("Transpose", operands[i], perm=(*range(rank - 2), rank - 1, rank - 2))
    return n.emit("MatMul", *operands)


def write_locally_connected2d(n: NodeWriter, op: LocallyConnected2d) -> None:
    """One matrix product for each position (p,q): the patch there as a row [R*S*C], its weights as [R*S*C,K]."""
    k, c, r_all, s_all, p, q = n.node.inputs[1].type.static_shape()
    (sh, sw), (top, left, bottom, right) = op.stride, op.padding
    x = n.inputs[0]
    if any(op.padding):
        x = n.step("Pad", x, n.integers((0, 0, top, left, 0, 0, bottom, right), "pads"))
    axes, steps = n.integers((2, 3), "axes"), n.integers((sh, sw), "steps")
    taps = []
    for r in range(r_all):
        for s in range(s_all):
            starts, ends = (r, s), (r + (p - 1) * sh + 1, s + (q - 1) * sw + 1)
            taps.append(n.step("Slice", x, n.integers(starts, "starts"), n.integers(ends, "ends"), axes, steps))
    patches = n.step("Transpose", n.step("Concat", *taps, axis=1), perm=(2, 3, 0, 1))  # [P,Q,N,R*S*C]
    weight = n.step("Transpose", n.inputs[1], perm=(4, 5, 2, 3, 1, 0))
    weight = n.step("Reshape", weight, n.integers((p, q, r_all * s_all * c, k), "shape"))
    product = n.step("MatMul", patches, weight)
    if op.bias:
        n.emit("Add", n.step("Transpose", product, perm=(2, 3, 0, 1)), n.inputs[2])
    else:
        n.emit("Transpose", product, perm=(2, 3, 0, 1))


def write_batch_norm(n: NodeWriter, op: BatchNorm) -> None:
    """BatchNormalization."""
    n.emit("BatchNormalization", *n.inputs, epsilon=float(op.epsilon))


def write_moments(n: NodeWriter, op: Moments) -> None:
    """The mean, and that of the squares of what is left without it."""
    axes = (0, *range(2, n.node.inputs[0].type.rank))
    where = (n.integers(axes, "axes"),) if n.opset >= 18 else ()
    attributes: dict[str, Any] = {} if where else {"axes": axes}
    mean = n.step("ReduceMean", n.inputs[0], *where, keepdims=1, **attributes)
    left = n.step("Sub", n.inputs[0], mean)
    n.model.node("Reshape", [mean, n.integers((-1,), "shape")], [n.outputs[0]], n.name, {})
    squares = [n.step("Mul", left, left), *where]
    n.model.node("ReduceMean", squares, [n.outputs[1]], f"{n.name}.variance", {"keepdims": 0, **attributes})


def write_local_response_norm(n: NodeWriter, op: LocalResponseNorm) -> None:
    """LRN, of which ONNX Runtime knows odd sizes only; others as x / conv1x1(x^2)^beta with weights alpha/size."""
    if op.size % 2:
        return n.emit("LRN", *n.inputs, size=op.size, alpha=float(op.alpha), beta=float(op.beta), bias=float(op.k))
    channels, dtype = check_image(n.node.inputs[0].type), n.dtype.numpy
    distance = np.arange(channels) - np.arange(channels)[:, None]
    near = (distance >= -((op.size - 1) // 2)) & (distance <= op.size // 2)
    weight = n.model.constant((near * (op.alpha / op.size)).astype(dtype)[:, :, None, None], f"{n.name}.groups")
    bias = n.model.constant(np.full(channels, op.k, dtype), f"{n.name}.k")
    base = n.step("Conv", n.step("Mul", n.inputs[0], n.inputs[0]), weight, bias, kernel_shape=(1, 1))
    return n.emit("Div", n.inputs[0], n.step("Pow", base, n.number(op.beta, "beta")))


EXPORTERS: dict[Any, Callable[[NodeWriter, Any], None]] = {
    Conv2d: write_conv2d,
    Conv2dWeightGradient: write_conv2d_weight_gradient,
    ConvTranspose2d: write_conv_transpose2d,
    Linear: write_linear,
    LocallyConnected2d: write_locally_connected2d,
    MatMul: write_matmul,
    BatchNorm: write_batch_norm,
    Moments: write_moments,
    LocalResponseNorm: write_local_response_norm,
    Softmax: lambda n, op: n.emit("Softmax", *n.inputs, axis=op.axis),
    LogSoftmax: lambda n, op: n.emit("LogSoftmax", *n.inputs, axis=op.axis),
}
