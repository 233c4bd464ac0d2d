"""Loop nests of the ops that go along one axis in order. Both compare or add every element with every other."""

from collections.abc import Iterator

from graphc.codegen.lowering.shape import merge_around
from graphc.codegen.nest import Buffer, Nest, Var, loop_vars, pointwise, total
from graphc.ir import DType, TensorType
from graphc.ops.order import CumSum, TopK
from graphc.ops.scalar import Expr, call


def lower_top_k(op: TopK, x: Buffer, values: Buffer, indices: Buffer) -> Iterator[Nest]:
    """How many elements come before each one is its place in the result: a permutation, so no two meet there."""
    (x,), axis = merge_around(op.axis, x)
    (values, indices), _ = merge_around(op.axis, values, indices)
    ranks = values.temporary("ranks", TensorType(DType.I64, x.shape))
    loops = loop_vars("bia", x.shape)
    i, j = loops[axis], Var("j", x.shape[axis])
    ahead = comes_before(op, x[loops], x[*loops[:axis], j, *loops[axis + 1 :]], i, j)
    yield Nest(ranks, loops, loops, total(call("to_i64", ahead), j))
    place = *loops[:axis], ranks[loops], *loops[axis + 1 :]
    chosen = call("lt", ranks[loops], op.k)
    yield Nest(values, loops, place, x[loops], chosen)
    yield Nest(indices, loops, place, i, chosen)


def comes_before(op: TopK, mine: Expr, other: Expr, i: Expr, j: Expr) -> Expr:
    """Whether element j comes before element i: it is larger (smaller), or equal and has the lower index."""
    higher, lower = is_larger(other, mine), is_larger(mine, other)
    first, second = (higher, lower) if op.largest else (lower, higher)
    tied = call("logical_and", call("logical_not", second), call("lt", j, i))
    return call("logical_or", first, tied)


def is_larger(a: Expr, b: Expr) -> Expr:
    """a > b, where NaN is larger than everything else."""
    if not a.dtype.is_float:
        return call("gt", a, b)
    return call("logical_or", call("gt", a, b), call("logical_and", call("ne", a, a), call("eq", b, b)))


def lower_cum_sum(op: CumSum, x: Buffer, y: Buffer) -> Iterator[Nest]:
    (x, y), axis = merge_around(op.axis, x, y)
    j = Var("s", x.shape[axis])
    compare = ("gt" if op.exclusive else "ge") if op.reverse else ("lt" if op.exclusive else "le")
    zero = 0.0 if x.type.dtype.is_float else 0

    def value(*at: Expr) -> Expr:
        element = x[*at[:axis], j, *at[axis + 1 :]]
        return total(call("select", call(compare, j, at[axis]), element, zero), j)

    yield pointwise(y, value)
