"""From dense to blocks of channels and back: transposes of squares in registers.

ALGORITHM  y[n, c/lanes, pixel, c%lanes] = x[n, c, pixel], or the other way round

SCHEDULE   A task is PIECE pixels of a block of channels of an image. A square of `lanes` channels and pixels is loaded
           as rows, transposed by log2(lanes) stages of shuffles of two, and stored as rows. The last square of an image
           ends with it, and repeats some of what the one before did; fewer pixels are moved one by one.

EMIT       `Relayout.emit`
"""

from llvmlite import ir

from graphc.codegen.blocks import F32, address, i64, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.transpose import transpose
from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims

PIECE = 1024  # 64 KiB of float32 with 16 channels: much more than a task costs, and threads share large images


class Relayout:
    """y = x, float32 images of which one lies dense and the other in blocks of channels."""

    reason, scratch = "a transpose of squares in registers", 0

    def __init__(self, y: Buffer, x: Buffer, target: Target) -> None:
        self.to_blocks, self.lanes, self.buffers = x.layout == DENSE, target.lanes, [y, x]
        self.name = "dense_to_blocks" if self.to_blocks else "blocks_to_dense"
        n, c, h, w = x.shape
        self.blocks, pixels = dims.ceil_div(c, self.lanes), dims.product([h, w])
        pieces = dims.ceil_div(pixels, PIECE)
        self.sizes: list[DimLike] = [c, self.blocks, pixels, pieces, y.image, x.image]
        self.bands = Bands(dims.product([n, self.blocks]), pieces, 1, 1, w, PIECE)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, c, pixels])
        self.key = f"{self.name} {self.lanes}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        y, x, channels, blocks, pixels, pieces, y_image, x_image, begin, end, _ = function.args
        lanes = i64(self.lanes)

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            piece, number = b.urem(number, pieces), b.udiv(number, pieces)
            block, n = b.urem(number, blocks), b.udiv(number, blocks)
            begins = b.mul(piece, i64(PIECE))
            ends = least(b, b.add(begins, i64(PIECE)), pixels)
            first = b.mul(block, lanes)
            place = b.mul(first, pixels)  # of the block, in either layout
            target = address(b, y, b.add(b.mul(n, y_image), place), F32)
            source = address(b, x, b.add(b.mul(n, x_image), place), F32)
            there = least(b, b.sub(channels, first), lanes)

            def square(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                at = least(b, at, b.sub(pixels, lanes))
                self._square(b, target, source, pixels, there, at)
                return []

            large = b.icmp_signed(">=", pixels, lanes)
            with b.if_else(large) as (squares, single):
                with squares:
                    repeat(b, begins, ends, self.lanes, [], square)
                with single:
                    self._one_by_one(b, target, source, pixels, there)
            return []

        repeat(b, begin, end, 1, [], task)
        b.ret_void()

    def _square(
        self, b: ir.IRBuilder, y: ir.Value, x: ir.Value, pixels: ir.Value, there: ir.Value, at: ir.Value
    ) -> None:
        """Pixels at..at+lanes-1 of the block's channels, of which so many are `there`."""
        type, last = ir.VectorType(F32, self.lanes), b.sub(there, i64(1))

        def dense(pointer: ir.Value, c: ir.Value) -> ir.Value:
            return address(b, pointer, b.add(b.mul(c, pixels), at), F32)

        def blocked(pointer: ir.Value, i: int) -> ir.Value:
            return address(b, pointer, b.mul(b.add(at, i64(i)), i64(self.lanes)), F32)

        if self.to_blocks:  # what fills the lanes beyond the last channel is of no account
            rows = [b.load(dense(x, least(b, i64(i), last)), typ=type, align=4) for i in range(self.lanes)]
            for i, row in enumerate(transpose(b, rows)):
                b.store(row, blocked(y, i), align=4)
            return
        rows = transpose(b, [b.load(blocked(x, i), typ=type, align=4) for i in range(self.lanes)])
        for i, row in enumerate(rows):

            def store(i: int = i, row: ir.Value = row) -> list[ir.Value]:
                b.store(row, dense(y, i64(i)), align=4)
                return []

            when(b, b.icmp_signed("<", i64(i), there), store)

    def _one_by_one(self, b: ir.IRBuilder, y: ir.Value, x: ir.Value, pixels: ir.Value, there: ir.Value) -> None:
        def channel(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            def pixel(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                dense, blocked = b.add(b.mul(c, pixels), i), b.add(b.mul(i, i64(self.lanes)), c)
                source, target = (dense, blocked) if self.to_blocks else (blocked, dense)
                b.store(b.load(address(b, x, source, F32), typ=F32, align=4), address(b, y, target, F32), align=4)
                return []

            return repeat(b, i64(0), pixels, 1, [], pixel)

        repeat(b, i64(0), there, 1, [], channel)
