"""Loop nests of softmax and its logarithm.

The axis is the last loop, so that its maximum and sum are computed once for all its elements, and the loop over
contiguous pixels outside it can run across the lanes of a vector.
"""

from collections.abc import Iterator

from graphc.codegen.nest import Buffer, Nest, Var, largest, loop_vars, total
from graphc.ops.scalar import Expr, call
from graphc.ops.softmax import LogSoftmax, Softmax


def lower_softmax(op: Softmax, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops, index, maximum, sum_of_exp = _statistics(x, y, op.axis)
    yield Nest(y, loops, index, call("exp", x[index] - maximum) / sum_of_exp)


def lower_log_softmax(op: LogSoftmax, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops, index, maximum, sum_of_exp = _statistics(x, y, op.axis)
    yield Nest(y, loops, index, x[index] - maximum - call("log", sum_of_exp))


def _statistics(x: Buffer, y: Buffer, axis: int) -> tuple[tuple[Var, ...], tuple[Var, ...], Expr, Expr]:
    """Loops, index, and along the axis the maximum m and the sum of exp(x - m)."""
    index = loop_vars("hijklmno"[: y.type.rank], y.shape)
    axis %= y.type.rank
    before, after = index[:axis], index[axis + 1 :]
    a, b = loop_vars("ab", (x.shape[axis], x.shape[axis]))
    maximum = largest(x[*before, a, *after], a)
    sum_of_exp = total(call("exp", x[*before, b, *after] - maximum), b)
    return (*before, *after, index[axis]), index, maximum, sum_of_exp
