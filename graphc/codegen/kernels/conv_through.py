"""The 1x1 convolution of what an elementwise op makes of its input, as a DenseNet's batch norm and relu do, or a
depthwise convolution, as MobileNet's: that result is never stored as a whole.

ALGORITHM  y[n,k,p,q] = epilogue(b[k] + sum over c: f(x)[n,c,p,q] * w[k,c]), f the prologue

SCHEDULE   A task is all output channels on a segment of pixels: of one row, or some whole rows. In passes it computes f
           of a few blocks of input channels, and every tile of output channels adds them to its sums, which are stored
           between passes. So f is computed once, and its results and a tile's weights stay in the first-level cache
           meanwhile. The first tile also asks for the inputs of the next pass of an elementwise f: it waits for none.

EMIT       `_Emitter.task`, over passes and tiles (`_tile`); strips and the tile of sums are conv.py's.
"""

from collections.abc import Sequence
from dataclasses import replace

from llvmlite import ir

from graphc.codegen.blocks import F32, I8, address, i64, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.conv import ConvEmitter, DirectConv, Pass, Task
from graphc.codegen.kernels.conv_geometry import PASS_BLOCKS, Geometry
from graphc.codegen.kernels.prologue import Arguments, Patch, Prologue
from graphc.codegen.kernels.tile import LINE, for_strips, prefetch
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims
from graphc.ops import Conv2d

SEGMENT = 48  # pixels: with 24, DenseNet-121 takes 2 to 5 % more time, with 96 the same
# Where windows see the rows beside a segment: more rows, fewer of those. (MobileNet v2: 56 1 % slower, 224 5 %)
ROWS_SEGMENT = 112


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
        g = replace(g, segment=ROWS_SEGMENT if prologue.in_rows else SEGMENT, pass_blocks=PASS_BLOCKS)
        super().__init__(op, g, y, x, w, bias, extra)
        self.name = f"conv_through_{g.vectors}x{g.pixels}"
        self.reason = f"{g.vectors} vectors x {g.pixels} pixels; {prologue.reason}"
        self.prologue = prologue
        self.buffers = [*self.buffers, *prologue.operands]
        n, _, p, q = y.shape
        if prologue.in_rows:
            columns = dims.minimum(q, g.segment)
            fitting = dims.maximum(1, dims.floor_div(g.segment, q))
            rows = dims.ceil_div(p, dims.ceil_div(p, fitting))  # as even as can be
        else:
            p, q, rows, columns = 1, dims.product([p, q]), 1, g.segment
        bands, segments = dims.ceil_div(p, rows), dims.ceil_div(q, columns)
        self.sizes += [p, q, rows, columns, bands, segments, *prologue.sizes]
        by_rows, by_pixels = Bands(n, bands, segments, size=rows), Bands(n, segments, 1, 1, y.shape[3], columns)
        self.bands = by_rows if prologue.in_rows else by_pixels
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
        self.result_images, sizes = self.result_images[: 1 + count], self.result_images[1 + count :]
        self.p_all, self.q_all, self.rows, self.columns, self.bands, self.segments, *self.before_sizes = sizes
        self.copy = address(b, self.saved, b.mul(self.tiles, i64(self.g.sums_bytes)), I8)

    def task(self, number: ir.Value) -> None:
        """All output channels on a segment of pixels."""
        b, g = self.b, self.g
        segment, number = b.urem(number, self.segments), b.udiv(number, self.segments)
        band, n = b.urem(number, self.bands), b.udiv(number, self.bands)
        row, column = b.mul(band, self.rows), b.mul(segment, self.columns)
        rows, columns = least(b, b.sub(self.p_all, row), self.rows), least(b, b.sub(self.q_all, column), self.columns)
        x = address(b, self.x, b.mul(n, self.x_image), F32)
        images = [b.mul(n, image) for image in self.result_images]
        results = [address(b, p, at, F32) for p, at in zip((self.y, *self.extra), images, strict=True)]
        start = b.mul(b.add(b.mul(row, self.q_all), column), i64(g.lanes))
        every = Task(i64(0), i64(1), b.mul(rows, columns), i64(0), i64(0), x, start, self.k_blocks, results)
        patch, line = Patch(row, rows, column, columns), i64(g.segment * g.lanes)
        given = Arguments(g.lanes, x, self.operands, self.before_sizes)

        def one(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            end = least(b, b.add(first, i64(PASS_BLOCKS)), self.c_blocks)
            self.pass_blocks = b.sub(end, first)

            def block(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                target = address(b, self.copy, b.mul(b.sub(number, first), line), F32)
                self.kernel.prologue.emit(b, given, number, patch, target)
                return []

            repeat(b, first, end, 1, [], block)
            repeat(b, i64(0), self.tiles, 1, [], lambda tile, _: self._tile(every, tile, line, first, end))
            return []

        repeat(b, i64(0), self.c_blocks, PASS_BLOCKS, [], one)

    def _tile(self, every: Task, tile: ir.Value, block: ir.Value, first: ir.Value, end: ir.Value) -> list[ir.Value]:
        """Add the inputs of a pass to the sums of one tile of output channels."""
        b, g = self.b, self.g
        first_block = b.mul(tile, i64(g.vectors))
        y = b.add(every.y, b.mul(first_block, self.y_plane))
        t = replace(every, tile=tile, y=y, blocks=b.sub(self.k_blocks, first_block))
        weights = b.add(b.mul(tile, self.row_weights), b.mul(first, self.block_weights))
        p = Pass(self.copy, block, block, block, address(b, self.w, weights, F32), first, end)
        of_tile = address(b, self.saved, b.mul(tile, i64(g.sums_bytes)), I8)

        def strip(start: ir.Value, pixels: int) -> None:
            at = b.mul(start, i64(g.lanes))
            if not self.kernel.prologue.in_rows:
                first_tile = b.icmp_signed("==", tile, i64(0))
                when(b, first_tile, lambda: self._ask_for_inputs(every, end, at, pixels))
            saved = address(b, of_tile, b.mul(start, i64(g.vectors * g.lanes)), F32)
            number = b.udiv(b.add(start, i64(g.pixels - 1)), i64(g.pixels))
            x = address(b, self.copy, at, F32)
            self.strip_in_pass(t, p, x, b.add(y, at), saved, number, (i64(0), self.r_all), pixels)

        for_strips(b, t.columns, g.pixels, strip)
        return []

    def _ask_for_inputs(self, every: Task, end: ir.Value, at: ir.Value, pixels: int) -> list[ir.Value]:
        """Those of a strip, `at` these elements of the segment, that the next pass will read; the last pass asks for
        what the first one of the next segment will read.
        """
        b, g = self.b, self.g
        last = b.icmp_signed(">=", end, self.c_blocks)
        block = b.select(last, i64(0), end)
        at = b.add(b.add(every.y, at), b.select(last, i64(g.segment * g.lanes), i64(0)))
        for i in range(PASS_BLOCKS):
            row = address(b, every.x, b.add(b.mul(b.add(block, i64(i)), self.plane), at), F32)
            for line in range(-(-pixels * g.lanes * 4 // LINE)):
                prefetch(b, address(b, row, i64(line * LINE // 4), F32), level=2)
        return []
