"""Loop nests of the ops that go along one axis in order.

TopK compares every element with every other one: n^2 comparisons, which vectors do side by side and threads share. For
the thousands of classes or boxes that networks choose from that is less than the layers before it take.
"""

from collections.abc import Iterator

from graphc.codegen.lowering.shape import merge_around
from graphc.codegen.nest import Buffer, Nest, Var, loop_vars, pointwise, total
from graphc.ir import DimLike, DType, TensorType, dims
from graphc.ops.order import CumSum, TopK
from graphc.ops.scalar import Expr, Lit, call

BLOCK = 64  # elements of a running sum that are added anew for each; sums of 4096 then take as long in and over blocks


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
    """Sums over blocks, their running sums, and within its block each element's: n * BLOCK additions."""
    (x, y), axis = merge_around(op.axis, x, y)
    d = x.shape[axis]
    compare = ("gt" if op.exclusive else "ge") if op.reverse else ("lt" if op.exclusive else "le")
    zero = 0.0 if x.type.dtype.is_float else 0

    def running(source: Buffer, how: str, at: tuple[Expr, ...], first: Expr, count: DimLike) -> Expr:
        """The sum over `count` elements from `first` on of those before (behind, up to) position at[axis]."""
        (s,) = loop_vars("s", (count,))
        element = source.get(*at[:axis], first + s, *at[axis + 1 :], fill=zero)
        return total(call("select", call(how, first + s, at[axis]), element, zero), s)

    if isinstance(d, int) and d <= BLOCK:
        yield pointwise(y, lambda *at: running(x, compare, at, Lit(0), d))
        return
    shape = *x.shape[:axis], dims.ceil_div(d, BLOCK), *x.shape[axis + 1 :]
    blocks, before = (y.temporary(name, y.type.with_shape(*shape)) for name in ("blocks", "before"))
    (t,) = loop_vars("t", (BLOCK,))
    yield pointwise(blocks, lambda *at: total(x.get(*at[:axis], at[axis] * BLOCK + t, *at[axis + 1 :], fill=zero), t))
    yield pointwise(before, lambda *at: running(blocks, "gt" if op.reverse else "lt", at, Lit(0), shape[axis]))

    def value(*at: Expr) -> Expr:
        block = at[axis] // BLOCK
        return before[*at[:axis], block, *at[axis + 1 :]] + running(x, compare, at, block * BLOCK, BLOCK)

    yield pointwise(y, value)
