"""Convolutions, products, normalisations, softmax and loss."""

from collections.abc import Callable

import numpy as np

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Value, dims
from graphc.onnx.import_ops.padding import read_padding, read_transposed_padding
from graphc.onnx.reader import NodeReader
from graphc.ops.conv import Conv2d
from graphc.ops.conv_transpose import ConvTranspose2d
from graphc.ops.elementwise import Add, Mul
from graphc.ops.linear import Linear, MatMul
from graphc.ops.norm import BatchNorm, LocalResponseNorm
from graphc.ops.shape import Flatten, Reshape, Transpose
from graphc.ops.softmax import LogSoftmax, Softmax
from graphc.ops.window import Pair


def read_pair(n: NodeReader, name: str, default: int) -> Pair:
    """An attribute with one integer for each of the two spatial dims."""
    values = n.integers(name, (default, default))
    if len(values) != 2:
        raise UnsupportedError(f"{name} has {len(values)} entries; only two spatial dims are supported")
    return values[0], values[1]


def _read_kernel(n: NodeReader, weight: Value) -> Pair:
    """The kernel's size from the weights, which `kernel_shape` may repeat."""
    if weight.type.rank != 4:
        raise UnsupportedError(f"weights of rank {weight.type.rank}; only two spatial dims are supported")
    kernel = weight.type.static_shape()[2:]
    if n.integers("kernel_shape", kernel) != kernel:
        raise ShapeError(f"kernel_shape {list(n.integers('kernel_shape'))} is not that of the weights {weight.type}")
    return kernel[0], kernel[1]


def _optional(n: NodeReader, i: int) -> list[Value]:
    return [n.value(i)] if n.has_input(i) else []


def read_conv(n: NodeReader) -> None:
    """Conv -> conv2d."""
    x, weight = n.image(), n.value(1)
    bias = _optional(n, 2)
    kernel = _read_kernel(n, weight)
    stride, dilation = read_pair(n, "strides", 1), read_pair(n, "dilations", 1)
    padding = read_padding(n, x, kernel, stride, dilation)
    n.emit(Conv2d(stride, padding, dilation, n.integer("group", 1), bool(bias)), x, weight, *bias)


def read_conv_transpose(n: NodeReader) -> None:
    """ConvTranspose -> conv_transpose2d."""
    x, weight = n.image(), n.value(1)
    bias = _optional(n, 2)
    kernel = _read_kernel(n, weight)
    stride, dilation = read_pair(n, "strides", 1), read_pair(n, "dilations", 1)
    output_padding = read_pair(n, "output_padding", 0)
    padding = read_transposed_padding(n, x, kernel, stride, dilation, output_padding)
    op = ConvTranspose2d(stride, padding, output_padding, dilation, n.integer("group", 1), bool(bias))
    n.emit(op, x, weight, *bias)


def read_gemm(n: NodeReader) -> None:
    """Gemm: alpha*A'*B' + beta*C -> linear where B is constant, the factors folded into it; else matmul, mul, add."""
    alpha, beta = n.real("alpha", 1.0), n.real("beta", 1.0)
    a, transposed = n.value(0), bool(n.integer("transB", 0))
    if n.integer("transA", 0):
        a = n.step(Transpose((1, 0)), a)
    if a.type.rank != 2:
        raise ShapeError(f"A must be a matrix, got {a.type}")
    has_c = n.has_input(2) and beta != 0
    b = n.constant(1)
    if b is None:
        return _emit_product(n, a, transposed, alpha, beta if has_c else 0.0)
    if b.array.ndim != 2:
        raise ShapeError(f"B must be a matrix, got shape {list(b.array.shape)}")
    weight = _fold_weight(n, alpha, transposed)
    features, _ = weight.type.static_shape()
    c = n.constant(2) if has_c else None
    if not has_c:
        return n.emit(Linear(bias=False), a, weight)
    if c is None or c.array.shape not in ((features,), (1, features), (1,), (1, 1), ()):
        return _emit_sum(n, n.step(Linear(bias=False), a, weight), beta)
    if c.array.shape == (features,) and beta == 1:
        return n.emit(Linear(), a, weight, n.value(2))
    suffix = "row" if beta == 1 else f"row*{beta}"
    bias = n.derive(2, suffix, lambda x: np.broadcast_to(x.reshape(-1) * x.dtype.type(beta), (features,)))
    return n.emit(Linear(), a, weight, bias)


def _emit_product(n: NodeReader, a: Value, transposed: bool, alpha: float, beta: float) -> None:
    """alpha*a*B + beta*C with a B that is computed; beta is 0 without C."""
    b = n.step(Transpose((1, 0)), n.value(1)) if transposed else n.value(1)
    if alpha == 1 and beta == 0:
        return n.emit(MatMul(), a, b)
    product = n.step(MatMul(), a, b)
    if beta == 0:
        return n.emit(Mul(), product, n.number(alpha, product, "alpha"))
    return _emit_sum(n, product if alpha == 1 else n.step(Mul(), product, n.number(alpha, product, "alpha")), beta)


def _fold_weight(n: NodeReader, alpha: float, transposed: bool) -> Value:
    """alpha*B' as linear wants it, [K,C]."""
    if transposed and alpha == 1:
        return n.value(1)
    suffix = ("" if transposed else "T") + ("" if alpha == 1 else f"*{alpha}")
    return n.derive(1, suffix, lambda b: (b if transposed else b.T) * b.dtype.type(alpha))


def _emit_sum(n: NodeReader, product: Value, beta: float) -> None:
    c = n.value(2)
    n.emit(Add(), product, c if beta == 1 else n.step(Mul(), c, n.number(beta, c, "beta")))


def read_batch_norm(n: NodeReader) -> None:
    """BatchNormalization by the running statistics, which are not trained."""
    n.expect("training_mode", 0)
    n.expect("spatial", 1)  # of opset 7
    n.real("momentum", 0.9)  # of the training that is over
    operands = n.value(0), n.value(1), n.value(2), n.value(3, trainable=False), n.value(4, trainable=False)
    n.emit(BatchNorm(n.real("epsilon", 1e-5)), *operands)


def read_lrn(n: NodeReader) -> None:
    """LRN -> local_response_norm."""
    op = LocalResponseNorm(n.integer("size", 0), n.real("alpha", 1e-4), n.real("beta", 0.75), n.real("bias", 1.0))
    n.emit(op, n.value(0))


def _softmax(op: type[Softmax] | type[LogSoftmax]) -> Callable[[NodeReader], None]:
    def read(n: NodeReader) -> None:
        x = n.value(0)
        axis = n.integer("axis", -1 if n.opset >= 13 else 1)
        axis = axis + x.type.rank if axis < 0 else axis
        if n.opset >= 13 or dims.product(x.type.shape[axis + 1 :]) == 1:
            return n.emit(op(axis), x)
        # before opset 13 the softmax ran over all dims from `axis` on
        rows = n.step(op(1), n.step(Flatten(axis), x))
        return n.emit(Reshape(x.type.shape), rows)

    return read


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "Conv": read_conv,
    "ConvTranspose": read_conv_transpose,
    "Gemm": read_gemm,
    "MatMul": lambda n: n.emit(MatMul(), n.value(0), n.value(1)),
    "BatchNormalization": read_batch_norm,
    "LRN": read_lrn,
    "Softmax": _softmax(Softmax),
    "LogSoftmax": _softmax(LogSoftmax),
}
