"""Loop nests of the matrix products."""

from collections.abc import Iterator

from graphc.codegen.lowering.conv import apply_epilogue
from graphc.codegen.nest import Buffer, Nest, Var, loop_vars, total
from graphc.ops.linear import Linear, MatMul
from graphc.ops.scalar import Expr, Lit


def lower_linear(op: Linear, x: Buffer, w: Buffer, *rest: Buffer) -> Iterator[Nest]:
    *extra, y = rest
    loops = loop_vars("hijklmno"[: y.type.rank], y.shape)
    c = Var("c", w.shape[1])
    value = total(x[*loops[:-1], c] * w[loops[-1], c], c)
    if op.bias:
        value = value + extra.pop(0)[loops[-1]]
    yield Nest(y, loops, loops, apply_epilogue(op.epilogue, value, extra, loops))


def lower_matmul(op: MatMul, a: Buffer, b: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = loop_vars("hijklmno"[: y.type.rank], y.shape)
    rows, columns = int(a.type.rank > 1), int(b.type.rank > 1)
    batch, matrix = loops[: len(loops) - rows - columns], loops[len(loops) - rows - columns :]
    c = Var("c", a.shape[-2 if op.turn_a else -1])
    left, right = (*matrix[:rows], c), (c, *matrix[rows:])
    x = a[*batch_index(a, batch), *(reversed(left) if op.turn_a else left)]
    w = b[*batch_index(b, batch), *(reversed(right) if op.turn_b else right)]
    yield Nest(y, loops, loops, total(x * w, c))


def batch_index(operand: Buffer, batch: tuple[Var, ...]) -> tuple[Expr, ...]:
    """The index of an operand's leading dims, which broadcast against those of the result."""
    shape = operand.shape[:-2]
    return tuple(Lit(0) if d == 1 else v for v, d in zip(batch[len(batch) - len(shape) :], shape, strict=True))
