"""Loop nests of the reductions.

A long reduction to one number runs in blocks, each one task and one partial result: the blocks run on all threads, and
rounding errors grow with the length of a block and the number of blocks, not with their product. A reduction over axes
that do not lie together reduces the last ones first.
"""

from collections.abc import Callable, Generator, Iterator, Sequence

from graphc.codegen.layout import DENSE
from graphc.codegen.lowering.elementwise import lower_elementwise
from graphc.codegen.lowering.shape import unravel
from graphc.codegen.nest import Buffer, Nest, Reduce, Var, loop_vars, size, to_float
from graphc.ir import DimLike, DType, dims
from graphc.ops import scalar
from graphc.ops.elementwise import Fused, broadcast_shapes
from graphc.ops.norm import Moments
from graphc.ops.reduce import ArgMax, ArgMin, Mean, Prod, ReduceMax, ReduceMin, ReduceOp, Sum
from graphc.ops.scalar import Expr, Lit, call

BLOCK = 4096  # elements of one partial result: 16 KiB of float32, half of a first-level cache
KINDS: dict[type[ReduceOp], str] = {Sum: "sum", Mean: "sum", Prod: "prod", ReduceMax: "max", ReduceMin: "min"}
Run = tuple[bool, DimLike]  # neighbouring dims of one fate: whether they are reduced, and the product of their lengths


def lower_reduce(op: ReduceOp, *buffers: Buffer) -> Iterator[Nest]:
    *operands, y = buffers
    kind, expr = KINDS[type(op)], op.expr if isinstance(op, Sum) else None
    shape = broadcast_shapes([x.shape for x in operands])
    x = operands[0]
    reduced = op.reduced(x.type.with_shape(*shape))
    factor = dims.product([d for i, d in enumerate(shape) if i in reduced]) if isinstance(op, Mean) else None

    def finish(value: Expr) -> Expr:
        return value if factor is None else value / to_float(size(factor), y.type.dtype)

    if reduced == {0, 2, 3} and len(shape) == 4 and (expr or x.layout != DENSE):
        yield reduce_channels(kind, operands, shape, y, expression_of(operands, expr), finish)
        return
    if expr:
        x = y.temporary("terms", x.type.with_shape(*shape))
        yield from lower_elementwise(Fused(expr), *operands, x)
    if x.layout != DENSE or y.layout != DENSE:
        yield reduce_in_place(kind, reduced, x, y, finish)
        return
    runs = merge_runs([(i in reduced, d) for i, d in enumerate(x.shape)])
    while sum(is_reduced for is_reduced, _ in runs) > 1:
        last = max(i for i, (is_reduced, _) in enumerate(runs) if is_reduced)
        rest = runs[:last] + runs[last + 1 :]
        partial = y.temporary(str(len(rest)), x.type.with_shape(*(d for _, d in rest)))
        yield reduce_run(kind, last, x.view(*(d for _, d in runs)), partial)
        x, runs = partial, rest
    if len(runs) == 1 and runs[0][0]:
        value = yield from reduce_all(kind, y, x.type.elements, element_of(x))
        yield Nest(y.view(), (), (), finish(value))
    else:
        axis = next((i for i, (is_reduced, _) in enumerate(runs) if is_reduced), None)
        kept = y.view(*(d for is_reduced, d in runs if not is_reduced))
        yield reduce_run(kind, axis, x.view(*(d for _, d in runs)), kept, finish)


def lower_moments(op: Moments, x: Buffer, mean: Buffer, variance: Buffer) -> Iterator[Nest]:
    if x.type.rank != 4:
        shape = (*x.shape[:2], 1, dims.product(x.shape[2:]))
        x = x.view(*shape)
    count = size(dims.product([d for axis, d in enumerate(x.shape) if axis != 1]))

    def finish(value: Expr) -> Expr:
        return value / to_float(count, x.type.dtype)

    yield reduce_channels("sum", [x], x.shape, mean, lambda x: x, finish)
    columns = mean.view(x.shape[1], 1, 1)
    yield reduce_channels("sum", [x, columns], x.shape, variance, lambda x, m: (x - m) * (x - m), finish)


def expression_of(operands: Sequence[Buffer], expr: str | None) -> Callable[..., Expr]:
    """What is added up, as a function of the operands' elements."""
    parsed = scalar.parse(expr or "x0", [x.type.dtype for x in operands])
    return lambda *elements: scalar.substitute(parsed, elements)


def reduce_channels(
    kind: str,
    operands: Sequence[Buffer],
    shape: tuple[DimLike, ...],
    y: Buffer,
    terms: Callable[..., Expr],
    finish: Callable[[Expr], Expr],
) -> Nest:
    """y[c] = `terms` of the operands, which broadcast to `shape` [N,C,H,W], reduced over all but c.

    A row, or where all is dense an image, is reduced by itself: rounding errors grow with its length and the number of
    rows, not with their product.
    """
    padded = [x.view(*[1] * (4 - x.type.rank), *x.shape) if x.layout == DENSE else x for x in operands]
    merged = all(x.layout == DENSE and x.shape[2:] in ((1, 1), shape[2:]) for x in padded)
    if merged:
        shape = (*shape[:2], dims.product(shape[2:]))
        padded = [x.view(*x.shape[:2], dims.product(x.shape[2:])) for x in padded]
    n, c, *pixel = loop_vars("ncij"[: len(shape)], shape)
    elements = [x[tuple(Lit(0) if d == 1 else v for v, d in zip((n, c, *pixel), x.shape, strict=True))] for x in padded]
    value = Reduce(kind, (pixel[-1],), terms(*elements))
    value = Reduce(kind, (n, *pixel[:-1]), value)
    index: tuple[Expr, ...] = (c,) if y.type.rank == 1 else (Lit(0), c, Lit(0), Lit(0))
    return Nest(y, (c,), index, finish(value))


def lower_arg_extreme(op: ArgMax | ArgMin, x: Buffer, y: Buffer) -> Iterator[Nest]:
    """The least (or greatest) index at which x equals its extreme along the axis, or is NaN, as the extreme then is."""
    kind, (axis,) = "max" if isinstance(op, ArgMax) else "min", op.reduced(x.type)
    loops = loop_vars("hijklmno"[: y.type.rank], y.shape)
    before, after = loops[:axis], loops[axis + op.keepdims :]
    a, b = loop_vars("ab", (x.shape[axis], x.shape[axis]))
    element = x[*before, b, *after]
    extreme = Reduce(kind, (a,), x[*before, a, *after])
    wins = call("logical_or", call("eq", element, extreme), call("ne", element, element))
    if op.last:
        yield Nest(y, loops, loops, Reduce("max", (b,), call("select", wins, b, -1)))
    else:
        yield Nest(y, loops, loops, Reduce("min", (b,), call("select", wins, b, size(x.shape[axis]))))


def merge_runs(fates: list[Run]) -> list[Run]:
    """Neighbours of one fate as one; dims of 1 belong to any."""
    runs: list[Run] = []
    for is_reduced, d in fates:
        if d == 1:
            continue
        if runs and runs[-1][0] == is_reduced:
            runs[-1] = is_reduced, runs[-1][1] * d
        else:
            runs.append((is_reduced, d))
    return runs


def reduce_run(kind: str, axis: int | None, x: Buffer, y: Buffer, finish: Callable[[Expr], Expr] = lambda e: e) -> Nest:
    """y = x reduced along one axis (None: copied)."""
    index = loop_vars("hijklmno"[: x.type.rank], x.shape)
    if axis is None:
        return Nest(y, index, index, finish(x[index]))
    loops = index[:axis] + index[axis + 1 :]
    return Nest(y, loops, loops, finish(Reduce(kind, (index[axis],), x[index])))


def reduce_in_place(kind: str, reduced: set[int], x: Buffer, y: Buffer, finish: Callable[[Expr], Expr]) -> Nest:
    """y = x reduced along any axes, without views, for buffers of any layout."""
    loops = loop_vars("hijklmno"[: y.type.rank], y.shape)
    vars = {i: Var(f"r{i}", x.shape[i]) for i in sorted(reduced)}
    kept = list(loops) if x.type.rank != y.type.rank else [v for i, v in enumerate(loops) if i not in reduced]
    index = tuple(vars[i] if i in reduced else kept.pop(0) for i in range(x.type.rank))
    return Nest(y, loops, loops, finish(Reduce(kind, tuple(vars.values()), x[index]) if vars else x[index]))


def element_of(x: Buffer) -> Callable[[Expr], Expr]:
    """x's element at a row-major position, 0 for a position behind its last."""
    if x.layout == DENSE:
        flat = x.view(x.type.elements)
        return lambda i: flat.get(i, fill=0)
    return lambda i: x.get(*unravel(i, x.shape), fill=0)


def reduce_all(kind: str, y: Buffer, count: DimLike, element: Callable[[Expr], Expr]) -> Generator[Nest, None, Expr]:
    """Yields the nest that reduces blocks, if there are several; returns the reduction of element(i) for all i < count.

    The numbers have y's dtype. `element` must be readable behind `count` too.
    """
    if isinstance(count, int) and count <= BLOCK:
        i = Var("i", count)
        return Reduce(kind, (i,), element(i))
    blocks = y.temporary("blocks", y.type.with_shape(dims.ceil_div(count, BLOCK)))
    b, i = loop_vars("bi", (blocks.shape[0], BLOCK))
    position = b * BLOCK + i
    value = call("select", call("lt", position, size(count)), element(position), identity_of(kind, y.type.dtype))
    yield Nest(blocks, (b,), (b,), Reduce(kind, (i,), value))
    return Reduce(kind, (b,), blocks[b])


def identity_of(kind: str, dtype: DType) -> Lit:
    """What changes nothing in a reduction."""
    if kind in ("sum", "prod"):
        one = kind == "prod"
        return Lit(float(one) if dtype.is_float else int(one))
    return Lit(dtype.limits[kind == "min"])
