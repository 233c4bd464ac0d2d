"""The 1x1 convolution of what an elementwise op makes of its input, as a DenseNet's batch norm and relu do: that result
is never stored as a whole.

ALGORITHM  y[n,k,p] = epilogue(b[k] + sum over c: f(x[n,c,p], scale[c], ...) * w[k,c]), p over all pixels

SCHEDULE   A task is all output channels on a segment of pixels. In passes it copies a few blocks of input channels
           through f, and every tile of output channels adds them to its sums, which are stored between passes. So f is
           computed once, and the copied inputs and a tile's weights stay in the first-level cache meanwhile. The first
           tile also asks for the inputs of the next pass: copying waits for none.

EMIT       `_Emitter.task`, over passes (`_copy`) and tiles (`_tile`); strips and the tile of sums are conv.py's.
"""

from collections.abc import Sequence
from dataclasses import replace

from llvmlite import ir

from graphc.codegen.blocks import F32, I8, address, i64, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.conv import ConvEmitter, DirectConv, Pass, Task
from graphc.codegen.kernels.conv_geometry import PASS_BLOCKS, Geometry
from graphc.codegen.kernels.prologue import Prologue
from graphc.codegen.kernels.tile import LINE, for_strips, prefetch
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims
from graphc.ops import Conv2d

SEGMENT = 48  # pixels


class ThroughConv(DirectConv):
    """y = epilogue(conv2d(prologue(x, operands...), w, b), extra...): as DirectConv, of a kernel of 1x1 at stride 1."""

    def __init__(
        self,
        op: Conv2d,
        g: Geometry,
        y: Buffer,
        x: Buffer,
        w: Buffer,
        bias: Buffer | None,
        extra: Sequence[Buffer],
        prologue: Prologue,
    ) -> None:
        g = replace(g, segment=max(SEGMENT // g.pixels, 1) * g.pixels, pass_blocks=PASS_BLOCKS)
        super().__init__(op, g, y, x, w, bias, extra)
        (n, _, height, width), segment = x.shape, g.segment
        self.name = f"conv_through_{g.vectors}x{g.pixels}"
        self.reason = f"{g.vectors} vectors x {g.pixels} pixels; inputs through {prologue.text}"
        self.prologue = prologue
        self.buffers = [*self.buffers, *prologue.operands]
        pixels = dims.product([height, width])
        self.bands = Bands(n, dims.ceil_div(pixels, segment), 1, 1, width, segment)
        self.tasks: DimLike = self.bands.tasks
        self.key = f"{self.name} {self.key} {prologue.key}"

    @property
    def scratch(self) -> int:
        """The sums of all tiles between passes, then the copied inputs of a pass."""
        return self.g.tiles * self.g.sums_bytes + 4 * PASS_BLOCKS * self.g.segment * self.g.lanes

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter(ConvEmitter):
    """The code of one ThroughConv."""

    kernel: ThroughConv

    def __init__(self, kernel: ThroughConv, b: ir.IRBuilder, function: ir.Function) -> None:
        super().__init__(kernel, b, function)
        count = len(self.extra) - len(kernel.prologue.operands)
        self.extra, self.operands = self.extra[:count], self.extra[count:]
        self.copy = address(b, self.sums, b.mul(self.tiles, i64(self.g.sums_bytes)), I8)

    def task(self, number: ir.Value) -> None:
        b, g = self.b, self.g
        segment, n = b.urem(number, self.segments), b.udiv(number, self.segments)
        start = b.mul(segment, self.segment)
        pixels = least(b, b.sub(self.q, start), self.segment)
        first_pixel = b.mul(start, i64(g.lanes))
        x = address(b, self.x, b.add(b.mul(n, self.x_image), first_pixel), F32)
        images = [b.mul(n, image) for image in self.result_images]
        results = [address(b, p, at, F32) for p, at in zip((self.y, *self.extra), images, strict=True)]
        every = Task(i64(0), i64(1), pixels, i64(0), i64(0), x, first_pixel, self.k_blocks, results)

        def one(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            end = least(b, b.add(first, i64(PASS_BLOCKS)), self.c_blocks)
            self.pass_blocks = b.sub(end, first)
            self._copy(every, first, end)
            block = b.mul(self.segment, i64(g.lanes))
            repeat(b, i64(0), self.tiles, 1, [], lambda tile, _: self._tile(every, tile, block, first, end))
            return []

        repeat(b, i64(0), self.c_blocks, PASS_BLOCKS, [], one)

    def _copy(self, t: Task, first: ir.Value, end: ir.Value) -> None:
        """Write the inputs of a pass as [block, pixel, lane], through the prologue."""
        b, g = self.b, self.g

        def one_block(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            f = self.kernel.prologue.emit(b, g.lanes, self.operands, b.mul(number, i64(g.lanes)))
            source = address(b, t.x, b.mul(number, self.plane), F32)
            row = b.mul(b.mul(b.sub(number, first), self.segment), i64(g.lanes))
            target = address(b, self.copy, row, F32)

            def one(pixel: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                at = b.mul(pixel, i64(g.lanes))
                value = b.load(address(b, source, at, F32), typ=self.type, align=4)
                b.store(f(value), address(b, target, at, F32), align=4)
                return []

            return repeat(b, i64(0), t.columns, 1, [], one)

        repeat(b, first, end, 1, [], one_block)

    def _tile(self, every: Task, tile: ir.Value, block: ir.Value, first: ir.Value, end: ir.Value) -> list[ir.Value]:
        """Add the inputs of a pass to the sums of one tile of output channels."""
        b, g = self.b, self.g
        first_block = b.mul(tile, i64(g.vectors))
        y = b.add(every.y, b.mul(first_block, self.y_plane))
        t = replace(every, tile=tile, y=y, blocks=b.sub(self.k_blocks, first_block))
        weights = b.add(b.mul(tile, self.row_weights), b.mul(first, self.block_weights))
        p = Pass(self.copy, block, block, block, address(b, self.w, weights, F32), first, end)
        sums = address(b, self.sums, b.mul(tile, i64(g.sums_bytes)), I8)

        def strip(start: ir.Value, pixels: int) -> None:
            at = b.mul(start, i64(g.lanes))
            when(b, b.icmp_signed("==", tile, i64(0)), lambda: self._ask_for_inputs(t, end, at, pixels))
            saved = address(b, sums, b.mul(start, i64(g.vectors * g.lanes)), F32)
            number = b.udiv(b.add(start, i64(g.pixels - 1)), i64(g.pixels))
            x = address(b, self.copy, at, F32)
            self.strip_in_pass(t, p, x, b.add(y, at), saved, number, (i64(0), self.r_all), pixels)

        for_strips(b, t.columns, g.pixels, strip)
        return []

    def _ask_for_inputs(self, t: Task, end: ir.Value, at: ir.Value, pixels: int) -> list[ir.Value]:
        """Those of a strip that the next pass will copy, or the first pass of the next segment."""
        b, g = self.b, self.g
        last = b.icmp_signed(">=", end, self.c_blocks)
        block = b.select(last, i64(0), end)
        at = b.add(at, b.select(last, b.mul(self.segment, i64(g.lanes)), i64(0)))
        for i in range(PASS_BLOCKS):
            row = address(b, t.x, b.add(b.mul(b.add(block, i64(i)), self.plane), at), F32)
            for line in range(-(-pixels * g.lanes * 4 // LINE)):
                prefetch(b, address(b, row, i64(line * LINE // 4), F32), level=2)
        return []
