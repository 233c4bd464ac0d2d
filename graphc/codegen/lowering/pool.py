"""Loop nests of the pools."""

from collections.abc import Iterator
from math import inf

from graphc.codegen.lowering.access import merge_spatial, place, read
from graphc.codegen.lowering.conv import divide_taps
from graphc.codegen.nest import (
    Buffer,
    Nest,
    Var,
    largest,
    loop_vars,
    offset,
    pointwise,
    size,
    smallest,
    to_float,
    total,
)  # fmt: skip
from graphc.ir import DType, TensorType
from graphc.ops import pool
from graphc.ops.scalar import Expr, Lit, call
from graphc.ops.window import Window


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


def lower_max_pool_gradient(op: pool.MaxPoolGradient, g: Buffer, indices: Buffer, x: Buffer) -> Iterator[Nest]:
    """Each cell gathers from the windows that see it, in the order of r and s: no two threads add to one cell."""
    loops = n, c, h, w = loop_vars("nchw", x.shape)
    t, p, u, q = _windows_over(op.window, h, w)
    own = call("eq", indices.get(n, c, p, q, fill=pool.NO_CELL), offset(x.shape, loops))
    yield Nest(x, loops, loops, total(call("select", own, g.get(n, c, p, q, fill=0.0), 0.0), t, u))


def lower_max_pool_route(op: pool.MaxPoolRoute, x: Buffer, g: Buffer, dx: Buffer) -> Iterator[Nest]:
    """By the indices of the maxima."""
    y = dx.temporary("maxima", g.type)
    indices = dx.temporary("indices", TensorType(DType.I64, g.shape))
    yield from lower_max_pool_with_indices(pool.MaxPoolWithIndices(**op.window_fields()), x, y, indices)
    size = x.shape[2], x.shape[3]
    yield from lower_max_pool_gradient(pool.MaxPoolGradient(**op.window_fields(), size=size), g, indices, dx)


def lower_pick_cells(op: pool.PickCells, x: Buffer, indices: Buffer, y: Buffer) -> Iterator[Nest]:
    cells, places, y = x.view(x.type.elements), indices.view(y.type.elements), y.view(y.type.elements)
    yield pointwise(y, lambda i: cells.get(places[i], fill=0.0))


def lower_average_pool_gradient(op: pool.AveragePoolGradient, g: Buffer, x: Buffer) -> Iterator[Nest]:
    """First the share of each cell of a window; then each cell gathers from the windows that see it."""
    shares = x.temporary("shares", g.type)
    n, c, p, q = loops = loop_vars("ncpq", shares.shape)
    yield Nest(shares, loops, loops, g[loops] / _number(op, x, p, q))
    loops = n, c, h, w = loop_vars("nchw", x.shape)
    t, row, u, column = _windows_over(op.window, h, w)
    yield Nest(x, loops, loops, total(shares.get(n, c, row, column, fill=0.0), t, u))


def _windows_over(window: Window, h: Expr, w: Expr) -> tuple[Var, Expr, Var, Expr]:
    """Two variables, and the row and column of a window that they count among those that may see pixel (h, w)."""
    (top, left, _, _), (down, right), (r, s), (dr, ds) = window.padding, window.stride, window.kernel, window.dilation
    t, _, p = divide_taps("t", h + top, down, dr, r)
    u, _, q = divide_taps("u", w + left, right, ds, s)
    return t, p, u, q


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
    yield Nest(y, loops, loops, sum_of_cells / _number(op, x, p, q))


def _number(op: pool.MeanPool, x: Buffer, p: Expr, q: Expr) -> Expr:
    """By what the sum of the window at (p, q) is divided."""
    if not op.ceil_mode and (op.count_padding or not any(op.padding)):
        return Lit(float(op.kernel[0] * op.kernel[1]))
    counts = (_count_cells(op, x, axis, position) for axis, position in enumerate((p, q)))
    rows, columns = (to_float(count, x.type.dtype) for count in counts)
    return rows * columns


def _count_cells(op: pool.MeanPool, x: Buffer, axis: int, position: Expr) -> Expr:
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
