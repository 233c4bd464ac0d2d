"""Loop nests of the resizing ops. Which rows and columns of x a result reads comes from small tables, computed first,
so that the divisions run once for each row and column and not for each pixel."""

from collections.abc import Iterator

from graphc.codegen.nest import Buffer, Nest, loop_vars, pointwise, size, to_float
from graphc.ir import DimLike, DType, TensorType, dims
from graphc.ops.resize import BedOfNails, UpsampleBilinear, UpsampleNearest
from graphc.ops.scalar import Expr, Lit, call

DIRECTIONS = ((2, "rows"), (3, "columns"))


def lower_upsample_nearest(op: UpsampleNearest, x: Buffer, y: Buffer) -> Iterator[Nest]:
    tables = []
    for axis, name in DIRECTIONS:
        h, p = x.shape[axis], y.shape[axis]
        tables.append(y.temporary(name, TensorType(DType.I64, (p,))))
        yield pointwise(tables[-1], lambda i, h=h, p=p: i * size(h) // size(p))
    rows, columns = tables
    yield pointwise(y, lambda n, c, p, q: x[n, c, rows[p], columns[q]])


def lower_upsample_bilinear(op: UpsampleBilinear, x: Buffer, y: Buffer) -> Iterator[Nest]:
    tables = []
    for axis, name in DIRECTIONS:
        low = y.temporary(name, TensorType(DType.I64, (y.shape[axis],)))
        share = y.temporary(f"{name}.share", y.type.with_shape(y.shape[axis]))
        (p,) = loops = loop_vars("p", low.shape)
        place, unit = find_place(op, p, x.shape[axis], y.shape[axis])
        yield Nest(low, loops, loops, place // unit)
        yield Nest(share, loops, loops, to_float(place % unit, y.type.dtype) / to_float(unit, y.type.dtype))
        tables.append((low, share))
    loops = n, c, p, q = loop_vars("ncpq", y.shape)
    (rows, row_shares), (columns, column_shares) = tables
    i, j, s, t = rows[p], columns[q], row_shares[p], column_shares[q]
    below, right = next_to(i, x.shape[2]), next_to(j, x.shape[3])
    left_side = x[n, c, i, j] * (1.0 - s) + x[n, c, below, j] * s
    right_side = x[n, c, i, right] * (1.0 - s) + x[n, c, below, right] * s
    yield Nest(y, loops, loops, left_side * (1.0 - t) + right_side * t)


def find_place(op: UpsampleBilinear, p: Expr, h: DimLike, result: DimLike) -> tuple[Expr, Expr]:
    """Where p lies in x along a direction of size h: numerator and denominator of its row."""
    if op.align_corners:
        return p * size(h - 1), size(dims.maximum(result - 1, 1))
    return call("max", (p * 2 + 1) * size(h) - size(result), 0), size(result * 2)


def next_to(i: Expr, h: DimLike) -> Expr:
    """The row behind row i, or the last one."""
    return call("min", i + 1, size(h - 1))


def lower_bed_of_nails(op: BedOfNails, x: Buffer, y: Buffer) -> Iterator[Nest]:
    yield pointwise(y, lambda *_: Lit(0.0))
    loops = n, c, h, w = loop_vars("nchw", x.shape)
    yield Nest(y, loops, (n, c, h * op.scale[0], w * op.scale[1]), x[loops])
