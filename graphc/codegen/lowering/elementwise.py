"""Loop nests of the elementwise ops: neighbouring dims that every operand treats alike run as one loop."""

from collections.abc import Iterator

from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer, Nest, loop_vars
from graphc.ir import DimLike
from graphc.ops import Elementwise, scalar
from graphc.ops.scalar import Lit


def lower_elementwise(op: Elementwise, *buffers: Buffer) -> Iterator[Nest]:
    *xs, y = collapse(buffers)
    loops = loop_vars("ijklmnop"[: y.type.rank], y.shape)
    operands = [x[tuple(Lit(0) if d == 1 else v for v, d in zip(loops, x.shape, strict=True))] for x in xs]
    value = scalar.substitute(op.expression(tuple(x.type.dtype for x in xs)), operands)
    yield Nest(y, loops, loops, value)


def collapse(buffers: tuple[Buffer, ...]) -> list[Buffer]:
    """Views of the operands and the result (last) of equal rank, with neighbouring dims merged where that is exact."""
    y = buffers[-1]
    shapes: list[list[DimLike]] = [[*[1] * (y.type.rank - b.type.rank), *b.shape] for b in buffers]
    if any(b.layout != DENSE for b in buffers):
        return [b if b.type.rank == y.type.rank else b.view(*s) for b, s in zip(buffers, shapes, strict=True)]
    merged: list[list[DimLike]] = [[s[0]] if s else [1] for s in shapes]
    parts = any(b.pitch is not None for b in buffers)  # their images do not follow each other
    for axis in range(1, y.type.rank):
        broadcast = [s[axis] == 1 and shapes[-1][axis] != 1 for s in shapes]
        before = [m[-1] == 1 and merged[-1][-1] != 1 for m in merged]
        alone = shapes[-1][axis] == 1 or merged[-1][-1] == 1  # a dim of 1 merges with anything
        for m, s in zip(merged, shapes, strict=True):
            if (broadcast == before or alone) and not (parts and axis == 1):
                m[-1] = m[-1] * s[axis]
            else:
                m.append(s[axis])
    return [b.view(*m) for b, m in zip(buffers, merged, strict=True)]
