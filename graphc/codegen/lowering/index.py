"""Loop nests of the gathers and scatters. Every index that is data is checked: none reads or stores out of bounds."""

from collections.abc import Iterator, Sequence
from math import nan

from graphc.codegen.lowering.shape import NAMES
from graphc.codegen.nest import Buffer, Load, Nest, loop_vars, pointwise, size
from graphc.ir import DimLike, dims
from graphc.ops import index
from graphc.ops.scalar import Expr, call


def wrap(i: Expr, d: DimLike) -> Expr:
    """An index of data counted from the front; it may lie outside."""
    i = call("to_i64", i)
    return call("select", call("lt", i, 0), i + size(d), i)


def choose(x: Buffer, *at: Expr) -> Load:
    """The element of x at an index that may lie outside: NaN (0 for integers, f16 and bf16, False) there."""
    return x.get(*at, fill=nan if x.type.dtype.is_float else 0)


def lower_positions(op: index.Positions, x: Buffer, y: Buffer) -> Iterator[Nest]:
    yield pointwise(y, lambda i: i)


def lower_gather(op: index.Gather, x: Buffer, indices: Buffer, y: Buffer) -> Iterator[Nest]:
    axis, count = op.axis % x.type.rank, indices.type.elements
    outer, inner = dims.product(x.shape[:axis]), dims.product(x.shape[axis + 1 :])
    x, indices = x.view(outer, x.shape[axis], inner), indices.view(count)
    yield pointwise(y.view(outer, count, inner), lambda b, i, a: choose(x, b, wrap(indices[i], x.shape[1]), a))


def lower_gather_elements(op: index.GatherElements, x: Buffer, indices: Buffer, y: Buffer) -> Iterator[Nest]:
    axis = op.axis % x.type.rank
    loops = loop_vars(NAMES[: y.type.rank], y.shape)
    place = wrap(indices[loops], x.shape[axis])
    yield Nest(y, loops, loops, choose(x, *loops[:axis], place, *loops[axis + 1 :]))


def lower_gather_nd(op: index.GatherND, x: Buffer, indices: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = loop_vars(NAMES[: y.type.rank], y.shape)
    lead, rest = loops[: indices.type.rank - 1], loops[indices.type.rank - 1 :]
    batch = lead[: op.batch_dims]
    yield Nest(y, loops, loops, choose(x, *batch, *row_of(indices, lead, x.shape[op.batch_dims :]), *rest))


def row_of(indices: Buffer, lead: Sequence[Expr], shape: tuple[DimLike, ...]) -> list[Expr]:
    """The place that a row of the indices names in the dims `shape`."""
    m = indices.shape[-1]
    assert isinstance(m, int)
    return [wrap(indices[*lead, j], d) for j, d in zip(range(m), shape, strict=False)]


def lower_scatter_elements(
    op: index.ScatterElements, x: Buffer, indices: Buffer, updates: Buffer, y: Buffer
) -> Iterator[Nest]:
    """Only updates along `axis` can meet in one element: these follow each other, in the innermost loop."""
    yield copy(x, y)
    axis = op.axis % x.type.rank
    loops = loop_vars(NAMES[: x.type.rank], indices.shape)
    place = *loops[:axis], wrap(indices[loops], x.shape[axis]), *loops[axis + 1 :]
    ordered = *loops[:axis], *loops[axis + 1 :], loops[axis]
    yield Nest(y, ordered, place, updated(op, y, place, updates[loops]), inside(place, x, (axis,)), len(loops) - 1)


def lower_scatter_nd(op: index.ScatterND, x: Buffer, indices: Buffer, updates: Buffer, y: Buffer) -> Iterator[Nest]:
    """Updates of one place within their parts follow each other, in the innermost loops."""
    yield copy(x, y)
    loops = loop_vars(NAMES[: updates.type.rank], updates.shape)
    lead, rest = loops[: indices.type.rank - 1], loops[indices.type.rank - 1 :]
    row = row_of(indices, lead, x.shape)
    place = *row, *rest
    value = updated(op, y, place, updates[loops])
    yield Nest(y, (*rest, *lead), place, value, inside(place, x, range(len(row))), len(rest))


def copy(x: Buffer, y: Buffer) -> Nest:
    """y = x."""
    flat = x.view(x.type.elements)
    return pointwise(y.view(x.type.elements), lambda i: flat[i])


def updated(op: index.ScatterOp, y: Buffer, place: tuple[Expr, ...], update: Expr) -> Expr:
    """What is stored at a place that may lie outside."""
    return update if op.reduction == "none" else call(op.reduction, y.get(*place, fill=0), update)


def inside(place: tuple[Expr, ...], x: Buffer, axes: Sequence[int]) -> Expr:
    """Whether the place lies in x along these axes."""
    found: Expr | None = None
    for axis in axes:
        i = place[axis]
        here = call("logical_and", call("ge", i, 0), call("lt", i, size(x.shape[axis])))
        found = here if found is None else call("logical_and", found, here)
    assert found is not None, "a scatter has at least one index"
    return found
