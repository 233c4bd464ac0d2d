"""The direct convolution: any stride, padding, dilation and group, in and out in blocks of channels.

ALGORITHM  y[n,k,p,q] = epilogue(b[k] + sum over c,r,s of x[n, c, p*stride+r*dilation-pad, q*...] * w[k,c,r,s])

SCHEDULE   A task is one tile of output channels (at most 4 vectors on AVX-512) on a segment of one output row. It walks
           the segment in strips of a few pixels, as even as can be, each over all r, c, s: the tile of sums (tile.py)
           stays in registers, the weights stream past it in the order in which they were packed. Neighbouring tasks
           share a tile of output channels, so its weights stay in the second-level cache.
           Where a tile has too many weights for that, a task takes several rows and passes over them: in each, a few
           blocks of input channels, whose weights stay in the cache for all strips; between passes, sums are stored.
           Where the image is padded, or not in blocks, the rows under the segment are first copied with zeros around
           them: then no strip is special. (A copied vector serves lanes * S * vectors FMAs, so that costs 1 or 2 %; it
           also brings rows together that lie a multiple of 4 KiB apart, and would fight for the same cache lines.)
           A 1x1 convolution reads one long row: its pixels run together.

EMIT       `DirectConv.emit`, from the task over passes and rows down to the strip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, I1, I8, address, i64, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import clear_bytes, copy_bytes, least, split_columns, taps_inside
from graphc.codegen.kernels.conv_geometry import Geometry
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.tile import (
    accumulate,
    add_saved,
    ask_for,
    coming_weights,
    for_strips,
    save_sums,
    sum_blocks,
    sum_channels,
    zeros,
)
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims
from graphc.ops import Conv2d


class DirectConv:
    """y = epilogue(conv2d(x, w, b), extra...): y and extra in blocks of channels, x too or dense; w and b packed."""

    def __init__(
        self, op: Conv2d, g: Geometry, y: Buffer, x: Buffer, w: Buffer, bias: Buffer | None, extra: Sequence[Buffer]
    ) -> None:
        (r, s), form = g.kernel, "pointwise" if g.pointwise else "dense" if g.c_block == 1 else "blocked"
        self.name = f"conv_{form}_{g.vectors}x{g.pixels}"
        passes = f"; passes of {g.pass_blocks * g.c_block} input channels" if g.pass_blocks else ""
        self.reason = f"{g.vectors} vectors x {g.pixels} pixels; rows {'copied' if g.copied else 'in place'}{passes}"
        self.g, self._has_bias = g, bias is not None
        self.buffers = [y, x, w, *([bias] if bias else []), *extra]
        self._epilogue = Epilogue(op.epilogue, len(extra))
        (n, _, height, width), (_, _, p, q) = x.shape, y.shape
        across, size = (q, g.segment) if g.one_row else (1, g.rows)
        if g.one_row:
            height, width, p, q = 1, dims.product([height, width]), 1, dims.product([p, q])
        tiles, bands, segments = g.groups * g.tiles, dims.ceil_div(p, g.rows), dims.ceil_div(q, g.segment)
        self.sizes: list[DimLike] = [
            *(height, width, p, q, bands, segments, g.groups, g.tiles, g.c_blocks, g.k_blocks, g.segment, g.columns),
            *(*g.kernel, g.stride[0], *g.dilation, *g.padding),
            *(b.image for b in (x, y, *extra)),
        ]  # fmt: skip
        rows, inner = (segments, 1) if g.one_row else (bands, segments)
        self.bands = Bands(dims.product([n, tiles]), rows, inner, 1, across, size)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, p, q, tiles * g.vectors * g.lanes * g.c_group * r * s])
        self.key = f"{self.name} {g.fixed} {bias is not None} {op.epilogue} {len(extra)}"

    @property
    def scratch(self) -> int:
        """Sums between passes, or those of a strip between chunks of its channels; then the copied rows."""
        return self.g.sums_bytes + self.g.copied_bytes

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        ConvEmitter(self, b, function).emit()


NO = ir.Constant(I1, 0)


@dataclass(frozen=True)
class Task:
    """A tile of output channels on some output rows and columns, as values of the code."""

    tile: ir.Value  # number, over all groups
    rows: ir.Value
    columns: ir.Value
    top: ir.Value  # input row and column of the first tap, maybe outside
    left: ir.Value
    x: ir.Value  # element of the image's and group's first channel
    y: ir.Value  # offset of the first result in an image
    blocks: ir.Value  # blocks of output channels from here to the group's last
    results: list[ir.Value]  # this image in y and in what the epilogue reads beside


@dataclass(frozen=True)
class Pass:
    """Some input channels of a task: `x` is the first tap of its first pixel, from which on the others lie apart."""

    x: ir.Value
    line: ir.Value  # from an input row to the next
    row: ir.Value  # from a row of taps to the next
    block: ir.Value  # from a block of channels to the next
    weights: ir.Value
    first: ir.Value  # block of channels, and the one behind the last
    end: ir.Value


class ConvEmitter:
    """The code of one DirectConv: what a task, a pass and a strip know."""

    def __init__(self, kernel: DirectConv, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.g, self.b = kernel, kernel.g, b
        g, count = kernel.g, len(kernel.buffers)
        self.y, self.x, self.w, *rest = function.args[:count]
        self.bias = rest.pop(0) if kernel._has_bias else None
        self.extra = rest
        *sizes, self.begin, self.end, self.saved = function.args[count:]
        self.take_sizes(sizes)
        self.copy = address(b, self.saved, i64(g.sums_bytes), I8)
        self.pass_blocks = self.c_blocks  # of the pass that code is emitted for
        self.plane = b.mul(b.mul(self.height, self.width), i64(g.c_block))
        self.y_plane = b.mul(b.mul(self.p, self.q), i64(g.lanes))
        self.tap_weights = g.c_block * g.vectors * g.lanes
        self.block_weights = b.mul(self.s_all, i64(self.tap_weights))
        self.row_weights = b.mul(self.c_blocks, self.block_weights)
        self.type = ir.VectorType(F32, g.lanes)
        self.y_step = g.lanes  # elements from one result of a strip to the next

    def take_sizes(self, sizes: list[ir.Value]) -> None:
        """Name the arguments that are the kernel's sizes."""
        self.height, self.width, self.p, self.q, self.bands, self.segments, self.groups, self.tiles, *sizes = sizes
        self.c_blocks, self.k_blocks, self.segment, self.columns, *sizes = sizes
        self.r_all, self.s_all, self.stride_r, self.dilation_r, self.dilation_s, self.above, *sizes = sizes
        self.before, self.x_image, *self.result_images = sizes

    def emit(self) -> None:
        """Every task in turn."""

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self.task(number)
            return []

        repeat(self.b, self.begin, self.end, 1, [], task)
        self.b.ret_void()

    def task(self, number: ir.Value) -> None:
        """The results of one task."""
        self._task(self.decode(number))

    # -- a task -------------------------------------------------------------------------------------------------------

    def decode(self, number: ir.Value) -> Task:
        """What a task is, from its number."""
        b, g = self.b, self.g
        segment, number = b.urem(number, self.segments), b.udiv(number, self.segments)
        band, number = b.urem(number, self.bands), b.udiv(number, self.bands)
        all_tiles = b.mul(self.groups, self.tiles)
        tile, n = b.urem(number, all_tiles), b.udiv(number, all_tiles)
        group, tile_in_group = b.udiv(tile, self.tiles), b.urem(tile, self.tiles)
        row, column = b.mul(band, i64(g.rows)), b.mul(segment, self.segment)
        first_block = b.mul(tile_in_group, i64(g.vectors))
        y = b.mul(b.add(b.mul(group, self.k_blocks), first_block), self.y_plane)
        images = [b.mul(n, image) for image in self.result_images]
        return Task(
            tile,
            least(b, b.sub(self.p, row), i64(g.rows)),
            least(b, b.sub(self.q, column), self.segment),
            b.sub(b.mul(row, self.stride_r), self.above),
            b.sub(b.mul(column, i64(g.stride[1])), self.before),
            b.add(b.mul(n, self.x_image), b.mul(b.mul(group, self.c_blocks), self.plane)),
            b.add(y, b.mul(b.add(b.mul(row, self.q), column), i64(g.lanes))),
            b.sub(self.k_blocks, first_block),
            [address(b, p, start, F32) for p, start in zip((self.y, *self.extra), images, strict=True)],
        )

    def _task(self, t: Task) -> None:
        def one(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._pass(t, first)
            return []

        if self.g.pass_blocks:
            repeat(self.b, i64(0), self.c_blocks, self.g.pass_blocks, [], one)
        else:
            one(i64(0), [])

    def _pass(self, t: Task, first: ir.Value) -> None:
        """The rows of a task over the input channels of one pass."""
        b, g = self.b, self.g
        end = self.c_blocks
        if g.pass_blocks:
            end = least(b, b.add(first, i64(g.pass_blocks)), end)
            self.pass_blocks = b.sub(end, first)
        source = address(b, self.x, b.add(t.x, b.mul(first, self.plane)), F32)
        weights = address(b, self.w, b.mul(t.tile, b.mul(self.row_weights, self.r_all)), F32)
        weights = address(b, weights, b.mul(first, self.block_weights), F32)
        if g.copied:
            self.copy_rows(source, t)
            block = b.mul(self.columns, i64(g.c_block))
            line = b.mul(self.pass_blocks, block)
            p = Pass(self.copy, line, line, block, weights, first, end)
        else:
            start = b.mul(b.add(b.mul(t.top, self.width), t.left), i64(g.c_block))
            line = b.mul(self.width, i64(g.c_block))
            row = b.mul(line, self.dilation_r)
            p = Pass(address(b, source, start, F32), line, row, self.plane, weights, first, end)

        def one_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._row(t, p, i)
            return []

        if g.rows == 1:
            one_row(i64(0), [])
        else:
            repeat(b, i64(0), t.rows, 1, [], one_row)

    def copy_rows(self, image: ir.Value, t: Task) -> None:
        """The input rows of a pass as [row, block of c, column, c], zeros where a column is outside the image.

        Of several output rows, all input rows; of one, those under its taps. Rows outside the image are left out.
        """
        b, g = self.b, self.g
        unit = i64(4 * g.c_block)  # bytes of a column
        extent = b.add(b.mul(b.sub(self.s_all, i64(1)), self.dilation_s), i64(1))
        needed = b.add(b.mul(b.sub(t.columns, i64(1)), i64(g.stride[1])), extent)
        before, inside, after = split_columns(b, t.left, self.width, needed)
        source_column = b.add(t.left, before)

        def one_row(r: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            line = b.mul(b.add(t.top, b.mul(r, self.dilation_r)), self.width)

            def one_block(block: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                place = b.mul(b.mul(b.add(b.mul(r, self.pass_blocks), block), self.columns), i64(g.c_block))
                target = address(b, self.copy, place, F32)
                pixel = b.mul(b.add(line, source_column), i64(g.c_block))
                source = address(b, image, b.add(b.mul(block, self.plane), pixel), F32)
                clear_bytes(b, target, b.mul(before, unit))
                middle = address(b, target, b.mul(before, unit), I8)
                copy_bytes(b, middle, source, b.mul(inside, unit))
                clear_bytes(b, address(b, middle, b.mul(inside, unit), I8), b.mul(after, unit))
                return []

            return repeat(b, i64(0), self.pass_blocks, 1, [], one_block)

        rows = b.add(b.mul(b.sub(t.rows, i64(1)), self.stride_r), self.r_all)
        repeat(b, *taps_inside(b, t.top, self.height, rows, self.dilation_r), 1, [], one_row)

    # -- strips -------------------------------------------------------------------------------------------------------

    def _row(self, t: Task, p: Pass, i: ir.Value) -> None:
        """Output row `i` of a task, strip by strip."""
        b, g = self.b, self.g
        down = b.mul(i, self.stride_r)
        taps = i64(0), self.r_all
        if g.copied:
            taps = taps_inside(b, b.add(t.top, down), self.height, self.r_all, self.dilation_r)
        x = address(b, p.x, b.mul(down, p.line), F32)
        y = b.add(t.y, b.mul(b.mul(i, self.q), i64(g.lanes)))

        def strip(start: ir.Value, pixels: int) -> None:
            strip_x = address(b, x, b.mul(start, i64(g.stride[1] * g.c_block)), F32)
            strip_y = b.add(y, b.mul(start, i64(g.lanes)))
            if g.pass_blocks:
                at = b.mul(b.add(b.mul(i, self.segment), start), i64(g.vectors * g.lanes))
                number = b.add(b.mul(i, i64(g.vectors)), b.udiv(b.add(start, i64(g.pixels - 1)), i64(g.pixels)))
                self.strip_in_pass(t, p, strip_x, strip_y, address(b, self.saved, at, F32), number, taps, pixels)
                return
            for v in range(g.vectors):
                for pixel in range(pixels):
                    ask_for(b, b.add(strip_y, b.add(b.mul(self.y_plane, i64(v)), i64(pixel * g.lanes))), t.results)
            self.store(self.sum(p, strip_x, taps, pixels, self.saved), t, strip_y, pixels)

        for_strips(b, t.columns, g.pixels, strip)

    def strip_in_pass(
        self,
        t: Task,
        p: Pass,
        x: ir.Value,
        y: ir.Value,
        saved: ir.Value,
        number: ir.Value,
        taps: tuple[ir.Value, ir.Value],
        pixels: int,
    ) -> None:
        """A strip from the sums that the pass before has `saved`, to those for the next one, or the results."""
        b = self.b
        sums = self.sum(p, x, taps, pixels, saved, b.icmp_signed(">", p.first, i64(0)), number)
        with b.if_else(b.icmp_signed(">=", p.end, self.c_blocks)) as (last, more):
            with last:
                self.store(sums, t, y, pixels)
            with more:
                save_sums(b, self.list_places(saved, pixels), sums)

    def list_places(self, saved: ir.Value, pixels: int) -> list[ir.Value]:
        """Where the sums of a strip lie, from `saved` on."""
        return [address(self.b, saved, i64(i * self.g.lanes), F32) for i in range(self.g.vectors * pixels)]

    def sum(
        self,
        p: Pass,
        x: ir.Value,
        taps: tuple[ir.Value, ir.Value],
        pixels: int,
        saved: ir.Value,
        before: ir.Value = NO,
        number: ir.Value | None = None,
    ) -> list[ir.Value]:
        """The sums of one strip over r, c, s, and those that were `saved` in passes before, if there were some.

        `number` tells the strips of a pass apart.
        """
        b, g = self.b, self.g
        places, none = self.list_places(saved, pixels), zeros(g.lanes, g.vectors, pixels)
        step = g.stride[1] * g.c_block
        of_pass = b.mul(self.pass_blocks, self.block_weights)
        ahead, lines = coming_weights(b, of_pass, g.vectors, number)

        def over_s(x: ir.Value, w: ir.Value, coming: ir.Value, sums: list[ir.Value], channels: int) -> list[ir.Value]:
            def one(s: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                x_tap = address(b, x, b.mul(b.mul(s, self.dilation_s), i64(g.c_block)), F32)
                w_tap = address(b, w, b.mul(s, i64(self.tap_weights)), F32)
                following = address(b, coming, b.mul(s, i64(g.c_block * lines * g.lanes)), F32)
                return sum_channels(b, g.lanes, sums, g.vectors, w_tap, x_tap, channels, step, following, lines)

            return one(i64(0), sums) if g.pointwise else repeat(b, i64(0), self.s_all, 1, sums, one)

        def over_dense_c(x: ir.Value, w: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            """Few channels, so one chain of sums is exact enough; the taps of a row lie beside each other."""
            taps = [s * g.dilation[1] for s in range(g.kernel[1])]
            for c in range(g.c_group):
                w_c = address(b, w, b.mul(i64(c), self.block_weights), F32)
                sums = accumulate(
                    b, g.lanes, sums, g.vectors, w_c, address(b, x, b.mul(i64(c), p.block), F32), taps, step
                )
            return sums

        def over_c(x: ir.Value, w: ir.Value, before: ir.Value) -> list[ir.Value]:
            def one(block: ir.Value, sums: list[ir.Value], channels: int = g.c_block) -> list[ir.Value]:
                w_block = address(b, w, b.mul(block, self.block_weights), F32)
                share = b.mul(b.mul(self.s_all, block), i64(g.c_block * lines * g.lanes))
                coming = address(b, w, b.add(ahead, share), F32)
                return over_s(address(b, x, b.mul(block, p.block), F32), w_block, coming, sums, channels)

            if g.pass_blocks:  # few, so one chain of sums is exact enough
                return add_saved(b, before, places, repeat(b, i64(0), self.pass_blocks, 1, none, one))
            rest = g.c_group % g.c_block  # the lanes beyond C hold anything
            if not rest:
                return sum_blocks(b, self.c_blocks, before, places, none, one)
            full = b.sub(self.c_blocks, i64(1))
            return sum_blocks(b, full, before, places, none, one, lambda block, sums: one(block, sums, rest))

        def one_row(r: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            w_row = address(b, p.weights, b.mul(r, self.row_weights), F32)
            x_row = address(b, x, b.mul(r, p.row), F32)
            if g.c_block == 1:
                return over_dense_c(x_row, w_row, sums)
            first, end = taps
            sums = over_c(x_row, w_row, b.or_(before, b.icmp_signed(">", r, first)))
            when(b, b.icmp_signed("<", b.add(r, i64(1)), end), lambda: save_sums(b, places, sums))
            return sums

        return over_c(x, p.weights, before) if g.pointwise else repeat(b, *taps, 1, none, one_row)

    def store(self, sums: list[ir.Value], t: Task, y: ir.Value, pixels: int) -> None:
        """Bias, epilogue and store, for the vectors that are there."""
        b, g = self.b, self.g
        for v in range(g.vectors):

            def store(v: int = v) -> list[ir.Value]:
                start = b.add(y, b.mul(self.y_plane, i64(v)))
                values = sums[v * pixels : (v + 1) * pixels]
                if self.bias is not None:
                    place = b.mul(b.add(b.mul(t.tile, i64(g.vectors)), i64(v)), i64(g.lanes))
                    bias = b.load(address(b, self.bias, place, F32), typ=self.type, align=4)
                    values = [b.fadd(x, bias) for x in values]
                for i, value in enumerate(values):
                    self.store_vector(value, t, b.add(start, i64(i * self.y_step)))
                return []

            if g.k_blocks % g.vectors == 0 or v == 0:
                store()
            else:
                when(b, b.icmp_signed("<", i64(v), t.blocks), store)

    def store_vector(self, value: ir.Value, t: Task, at: ir.Value) -> None:
        """The epilogue over one vector, stored at this offset in an image."""
        b = self.b
        target, *others = (address(b, r, at, F32) for r in t.results)
        operands = [b.load(other, typ=self.type, align=4) for other in others]
        b.store(self.kernel._epilogue.emit(b, self.g.lanes, [value, *operands]), target, align=4)
