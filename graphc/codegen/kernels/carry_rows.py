"""Rows of a value that the next tile of a strip needs, kept until then, and put where that tile has them.

ALGORITHM  y[n,c,to+i,:] = x[n,c,from+i,:] for each of `rows` rows i

SCHEDULE   A task is the rows of one plane: a channel, or a block of channels. They lie together.

EMIT       `CarryRows.emit`
"""

from llvmlite import ir

from graphc.codegen.blocks import I1, I8, VOID, address, intrinsic, repeat
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims


class CarryRows:
    """Rows of x into y, images [N,C,H,W] that differ in their height alone; nothing is done where `wanted` is 0."""

    name, scratch, bands = "carry_rows", 0, None

    def __init__(self, y: Buffer, to: DimLike, x: Buffer, start: DimLike, rows: int, wanted: DimLike = 1) -> None:
        self.reason = f"{rows} rows that the next tile needs"
        self.buffers = [y, x]
        n, planes, *_ = y.stored_shape
        size = x.type.dtype.size
        line = dims.product([x.shape[3], x.layout.block]) * size
        self.sizes: list[DimLike] = [
            *(planes, line, rows, to, y.shape[2], y.image * size, start, x.shape[2], x.image * size),
        ]
        self.tasks = dims.product([n, planes, wanted])
        self.work = dims.product([n, planes, line, rows, wanted])
        self.key = self.name

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        y, x, planes, line, rows, *sizes, begin, end, _ = function.args
        to, y_height, y_image, start, x_height, x_image = sizes

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            plane, n = b.urem(number, planes), b.udiv(number, planes)

            def place(base: ir.Value, image: ir.Value, height: ir.Value, row: ir.Value) -> ir.Value:
                above = b.add(b.mul(plane, height), row)
                return address(b, base, b.add(b.mul(n, image), b.mul(above, line)), I8)

            target, source = place(y, y_image, y_height, to), place(x, x_image, x_height, start)
            copy = [target, source, b.mul(rows, line), ir.Constant(I1, 0)]
            intrinsic(b, "llvm.memcpy.p0.p0.i64", VOID, copy)
            return []

        repeat(b, begin, end, 1, [], task)
        b.ret_void()
