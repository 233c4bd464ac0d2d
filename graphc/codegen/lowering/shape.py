"""Loop nests of the ops that only move elements: index maps from the result's elements to the operand's. And of the ops
whose elements are sizes or positions."""

from collections.abc import Iterator

from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer, Nest, loop_vars, offset, pointwise, size
from graphc.ir import DimLike, dims
from graphc.ops.positions import Extent, Iota
from graphc.ops.scalar import Expr, Lit, call
from graphc.ops.shape import Concat, Expand, Flatten, Pad, Reshape, Slice, SliceGradient, Split, Transpose

NAMES = "hijklmno"


def lower_reshape(op: Reshape | Flatten, x: Buffer, y: Buffer) -> Iterator[Nest]:
    if x.layout == y.layout == DENSE:
        x, y = x.view(x.type.elements), y.view(x.type.elements)
        yield pointwise(y, lambda i: x[i])
    else:
        loops = loop_vars(NAMES[: y.type.rank], y.shape)
        yield Nest(y, loops, loops, x[*unravel(offset(y.shape, loops), x.shape)])


def unravel(position: Expr, shape: tuple[DimLike, ...]) -> tuple[Expr, ...]:
    """The index in an array of `shape` whose row-major position this is: the inverse of `offset`."""
    index: list[Expr] = []
    for d in reversed(shape[1:]):
        index.insert(0, position % size(d))
        position = position // size(d)
    return (position, *index) if shape else ()


def lower_transpose(op: Transpose, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = loop_vars(NAMES[: y.type.rank], y.shape)
    yield Nest(y, loops, loops, x[*(loops[op.perm.index(i)] for i in range(x.type.rank))])


def lower_concat(op: Concat, *buffers: Buffer) -> Iterator[Nest]:
    (*xs, y), axis = merge_around(op.axis, *buffers)
    start: DimLike = 0
    for x in xs:
        loops = loop_vars(NAMES[: y.type.rank], x.shape)
        if y.layout == DENSE and y.whole is None:  # operands of one shape share code: it gets another address for each
            first = start * dims.product(y.shape[axis + 1 :])
            yield Nest(Buffer(f"{y.name}\\{start}", x.type, DENSE, y.name, first, y.image), loops, loops, x[loops])
        else:
            yield Nest(y, loops, (*loops[:axis], loops[axis] + size(start), *loops[axis + 1 :]), x[loops])
        start = start + x.shape[axis]


def lower_split(op: Split, *buffers: Buffer) -> Iterator[Nest]:
    (x, *ys), axis = merge_around(op.axis, *buffers)
    for y, start in zip(ys, op.offsets(), strict=False):
        loops = loop_vars(NAMES[: y.type.rank], y.shape)
        yield Nest(y, loops, loops, x[*loops[:axis], loops[axis] + size(start), *loops[axis + 1 :]])


def merge_around(axis: int, *buffers: Buffer) -> tuple[list[Buffer], int]:
    """Views [dims before `axis`, dim `axis`, dims behind it] and the axis in them; unchanged buffers if not dense."""
    axis %= buffers[0].type.rank
    if any(b.layout != DENSE for b in buffers):
        return list(buffers), axis
    return [b.view(dims.product(b.shape[:axis]), b.shape[axis], dims.product(b.shape[axis + 1 :])) for b in buffers], 1


def lower_slice(op: Slice, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = loop_vars(NAMES[: y.type.rank], y.shape)
    yield Nest(
        y,
        loops,
        loops,
        x[*(size(first) + v * step for v, (first, step, _) in zip(loops, op.ranges(x.type), strict=True))],
    )


def lower_slice_gradient(op: SliceGradient, g: Buffer, y: Buffer) -> Iterator[Nest]:
    zero = Lit(0.0) if y.type.dtype.is_float else Lit(0)
    yield pointwise(y, lambda *_: zero)
    loops = loop_vars(NAMES[: g.type.rank], g.shape)
    ranges = zip(loops, op.slice.ranges(y.type), strict=True)
    yield Nest(y, loops, tuple(size(first) + v * step for v, (first, step, _) in ranges), g[loops])


def lower_extent(op: Extent, y: Buffer) -> Iterator[Nest]:
    yield Nest(y, (), (), size(op.dim))


def lower_iota(op: Iota, y: Buffer) -> Iterator[Nest]:
    yield pointwise(y, lambda *index: offset(y.shape, index))


def lower_expand(op: Expand, x: Buffer, y: Buffer) -> Iterator[Nest]:
    loops = loop_vars(NAMES[: y.type.rank], y.shape)
    inner = loops[y.type.rank - x.type.rank :]
    yield Nest(y, loops, loops, x[*(Lit(0) if d == 1 else v for v, d in zip(inner, x.shape, strict=True))])


def lower_pad(op: Pad, x: Buffer, y: Buffer) -> Iterator[Nest]:
    """A constant border is what lies outside x. Else x is copied to the middle of y, and one nest for each padded axis
    fills what lies before and behind x along it, as far as no earlier axis did: only borders pay for index arithmetic.
    """
    rank, befores = x.type.rank, [size(before) for before, _ in op.pairs()]
    if op.mode == "constant":
        value = op.value if x.type.dtype.is_float else int(op.value)
        yield pointwise(y, lambda *i: x.get(*(v - b for v, b in zip(i, befores, strict=True)), fill=value))
        return
    loops = loop_vars(NAMES[:rank], x.shape)
    yield Nest(y, loops, tuple(v + b for v, b in zip(loops, befores, strict=True)), x[loops])
    for axis, (before, after) in enumerate(op.pairs()):
        if before + after != 0:
            loops = loop_vars(NAMES[:rank], (*x.shape[:axis], before + after, *y.shape[axis + 1 :]))
            border = loops[axis]
            place = call("select", call("lt", border, size(before)), border, border + size(x.shape[axis]))
            inner, outer = loops[:axis], (place, *loops[axis + 1 :])
            target = *(v + b for v, b in zip(inner, befores, strict=False)), *outer
            mirrored = (
                mirror(op.mode, i, *pair, d)
                for i, pair, d in zip(outer, op.pairs()[axis:], x.shape[axis:], strict=True)
            )
            yield Nest(y, loops, target, x[*inner, *mirrored])


def mirror(mode: str, i: Expr, before: DimLike, after: DimLike, extent: DimLike) -> Expr:
    """Which of the `extent` elements of a dim the padded dim repeats at i."""
    i, d = i - size(before), size(extent)
    if before + after == 0:
        return i
    match mode:
        case "edge":  # a a a b c c c
            return call("min", call("max", i, 0), d - 1)
        case "wrap":  # b c a b c a b
            return i % d
        case "symmetric":  # b a a b c c b, with period 2d
            i = i % (d * 2)
            return call("min", i, d * 2 - 1 - i)
        case _:  # reflect: c b a b c b a, with period 2d - 2; a single element repeats
            period = call("max", d * 2 - 2, 1)
            i = i % period
            return call("min", i, period - i)
