"""Products, normalisations, softmax and loss."""

from collections.abc import Callable

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Value, dims
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Add, Fused, Mul, Sub
from graphc.ops.linear import Linear, MatMul
from graphc.ops.norm import BatchNorm, LocalResponseNorm
from graphc.ops.reduce import Mean
from graphc.ops.shape import Flatten, Reshape, Transpose
from graphc.ops.softmax import LogSoftmax, Softmax


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
    if len(b.shape) != 2:
        raise ShapeError(f"B must be a matrix, got shape {list(b.shape)}")
    weight = _fold_weight(n, alpha, transposed)
    features, _ = weight.type.static_shape()
    c = n.constant(2) if has_c else None
    if not has_c:
        return n.emit(Linear(bias=False), a, weight)
    if c is None or c.shape not in ((features,), (1, features), (1,), (1, 1), ()):
        return _emit_sum(n, n.step(Linear(bias=False), a, weight), beta)
    if c.shape == (features,) and beta == 1:
        return n.emit(Linear(), a, weight, n.value(2))
    suffix = "row" if beta == 1 else f"row*{beta}"
    bias = n.derive(2, suffix, lambda x: np.broadcast_to(x.reshape(-1) * x.dtype.type(beta), (features,)))
    return n.emit(Linear(), a, weight, bias)


def _emit_product(n: NodeReader, a: Value, transposed: bool, alpha: float, beta: float) -> None:
    """alpha*a*B + beta*C with a B that is computed; beta is 0 without C."""
    op, b = MatMul(turn_b=transposed), n.value(1)
    if alpha == 1 and beta == 0:
        return n.emit(op, a, b)
    product = n.step(op, a, b)
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
    """BatchNormalization by the running statistics, which are not trained; in training mode by those of x."""
    n.expect("spatial", 1)  # of opset 7
    momentum, epsilon = n.real("momentum", 0.9), n.real("epsilon", 1e-5)
    if n.integer("training_mode", 0):
        return _emit_batch_norm(n, momentum, epsilon)
    operands = n.value(0), n.value(1), n.value(2), n.value(3, trainable=False), n.value(4, trainable=False)
    return n.emit(BatchNorm(epsilon), *operands)


def _emit_batch_norm(n: NodeReader, momentum: float, epsilon: float) -> None:
    """Batch norm by mean and variance of each channel of x, and the running ones moved towards these."""
    x = n.value(0)
    axes = tuple(i for i in range(x.type.rank) if i != 1)
    mean = n.step(Mean(axes, keepdims=False), x)
    column = n.step(Reshape((*mean.type.shape, *[1] * (x.type.rank - 2))), mean)
    centered = n.step(Sub(), x, column)
    variance = n.step(Mean(axes, keepdims=False), n.step(Mul(), centered, centered))
    moved = Fused(f"((x0 * {momentum!r}) + (x1 * {1 - momentum!r}))")
    n.deliver(1, n.step(moved, n.value(3, trainable=False), mean))
    n.deliver(2, n.step(moved, n.value(4, trainable=False), variance))
    n.emit(BatchNorm(epsilon), x, n.value(1), n.value(2), mean, variance)


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
    "Gemm": read_gemm,
    "MatMul": lambda n: n.emit(MatMul(), n.value(0), n.value(1)),
    "BatchNormalization": read_batch_norm,
    "LRN": read_lrn,
    "Softmax": _softmax(Softmax),
    "LogSoftmax": _softmax(LogSoftmax),
}
