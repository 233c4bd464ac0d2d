"""Loop nests of the pools."""

from collections.abc import Iterator
from math import inf

from graphc.codegen.lowering.access import merge_spatial, place, read
from graphc.codegen.nest import Buffer, Nest, largest, loop_vars, offset, pointwise, size, smallest, to_float, total
from graphc.ops import pool
from graphc.ops.scalar import Expr, Lit, call


def lower_max_pool(op: pool.MaxPool | pool.MaxPoolWithIndices, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = n, c, p, q = loop_vars("ncpq", y.shape)
    r, s = loop_vars("rs", op.kernel)
    yield Nest(y, loops, loops, largest(read(op.window, x, (n, c), (p, q), (r, s), fill=-inf), r, s))


def lower_min_pool(op: pool.MinPool, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = n, c, p, q = loop_vars("ncpq", y.shape)
    r, s = loop_vars("rs", op.kernel)
    yield Nest(y, loops, loops, smallest(read(op.window, x, (n, c), (p, q), (r, s), fill=inf), r, s))


def lower_max_pool_with_indices(op: pool.MaxPoolWithIndices, x: Buffer, y: Buffer, indices: Buffer) -> Iterator[Nest]:
    """The maxima, then for each the least position whose cell equals it (or is NaN, as the maximum then is)."""
    yield from lower_max_pool(op, x, y)
    loops = n, c, p, q = loop_vars("ncpq", y.shape)
    r, s = loop_vars("rs", op.kernel)
    cell = read(op.window, x, (n, c), (p, q), (r, s), fill=-inf)
    wins = call("logical_or", call("eq", cell, y[loops]), call("ne", cell, cell))
    spot = place(op.window, (p, q), (r, s))
    if not op.window.stays_inside:  # where all cells are -inf, padding equals the maximum too
        for i, d in zip(spot, x.shape[2:], strict=True):
            wins = call("logical_and", wins, call("logical_and", call("ge", i, 0), call("lt", i, size(d))))
    found = call("select", wins, offset(x.shape, (n, c, *spot)), pool.NO_CELL)
    yield Nest(indices, loops, loops, smallest(found, r, s))


def lower_max_unpool(op: pool.MaxUnpool, x: Buffer, indices: Buffer, *rest: Buffer) -> Iterator[Nest]:
    """Zeros, then one element after the other to its place: of equal places the last one stays."""
    elements = rest[-1].type.elements
    x, indices, y = x.view(x.type.elements), indices.view(x.type.elements), rest[-1].view(elements)
    yield pointwise(y, lambda _: Lit(0.0))
    (i,) = loops = loop_vars("i", x.shape)
    index = indices[i]
    inside = call("logical_and", call("ge", index, 0), call("lt", index, size(elements)))
    yield Nest(y, loops, (index,), x[i], where=inside, parallel=0)


def lower_average_pool(op: pool.AveragePool, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = n, c, p, q = loop_vars("ncpq", y.shape)
    r, s = loop_vars("rs", op.kernel)
    sum_of_cells = total(read(op.window, x, (n, c), (p, q), (r, s), fill=0.0), r, s)
    number: Expr = Lit(float(op.kernel[0] * op.kernel[1]))
    if op.ceil_mode or (any(op.padding) and not op.count_padding):
        counts = (_count_cells(op, x, axis, position) for axis, position in enumerate((p, q)))
        rows, columns = (to_float(count, x.type.dtype) for count in counts)
        number = rows * columns
    yield Nest(y, loops, loops, sum_of_cells / number)


def _count_cells(op: pool.AveragePool, x: Buffer, axis: int, position: Expr) -> Expr:
    """How many rows (columns) the window at this position counts."""
    before, after = op.padding[axis], op.padding[axis + 2]
    low, high = (-before, x.shape[2 + axis] + after) if op.count_padding else (0, x.shape[2 + axis])
    start, step = position * op.stride[axis] - before, op.dilation[axis]
    first = call("max", (low - start + (step - 1)) // step, 0)
    behind = call("min", (size(high) - start + (step - 1)) // step, op.kernel[axis])
    return behind - first


def lower_l2_pool(op: pool.L2Pool, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = n, c, p, q = loop_vars("ncpq", y.shape)
    r, s = loop_vars("rs", op.kernel)
    cell = read(op.window, x, (n, c), (p, q), (r, s), fill=0.0)
    yield Nest(y, loops, loops, call("sqrt", total(cell * cell, r, s)))


def lower_channel_l2_pool(op: pool.ChannelL2Pool, x: Buffer, y: Buffer) -> Iterator[Nest]:
    x, y = merge_spatial(x, y)
    loops = n, k, *pixel = loop_vars("nkij"[: y.type.rank], y.shape)
    (c,) = loop_vars("c", (op.size,))
    cell = x[n, k * op.stride + c, *pixel]
    yield Nest(y, loops, loops, call("sqrt", total(cell * cell, c)))


def lower_global_average_pool(op: pool.GlobalAveragePool, x: Buffer, y: Buffer) -> Iterator[Nest]:
    pixels = size(x.shape[2] * x.shape[3])
    (x,) = merge_spatial(x)
    loops = n, c, *pixel = loop_vars("ncij"[: x.type.rank], x.shape)
    value = total(x[loops], *pixel) / to_float(pixels, x.type.dtype)
    yield Nest(y, (n, c), (n, c, Lit(0), Lit(0)), value)


def lower_global_max_pool(op: pool.GlobalMaxPool, x: Buffer, y: Buffer) -> Iterator[Nest]:
    (x,) = merge_spatial(x)
    loops = n, c, *pixel = loop_vars("ncij"[: x.type.rank], x.shape)
    yield Nest(y, (n, c), (n, c, Lit(0), Lit(0)), largest(x[loops], *pixel))
