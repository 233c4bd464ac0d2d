"""The direct convolution: any stride, padding, dilation and group, in and out in blocks of channels.

ALGORITHM  y[n,k,p,q] = epilogue(b[k] + sum over c,r,s of x[n, c, p*stride+r*dilation-pad, q*...] * w[k,c,r,s])

SCHEDULE   A task is one tile of output channels (at most 4 vectors on AVX-512) on one segment of one output row. It
           walks the segment in strips of a few pixels, as even as can be, each over all r, c, s: the tile of sums
           (tile.py) stays in registers, the weights stream past it in the order in which they were packed.
           Neighbouring tasks share a tile of output channels, so its weights stay in the second-level cache.
           Where the image is padded, or not in blocks, the rows under the segment are first copied with zeros around
           them: then no strip is special. (A copied vector serves lanes * S * vectors FMAs, so that costs 1 or 2 %; it
           also brings rows together that lie a multiple of 4 KiB apart, and would fight for the same cache lines.)
           A 1x1 convolution reads one long row: its pixels run together.

EMIT       `DirectConv.emit`, from the task down to the strip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llvmlite import ir

from graphc.codegen.blocks import F32, I8, VOID, address, i64, intrinsic, repeat, when
from graphc.codegen.kernels.borders import least, taps_inside
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.tile import accumulate, for_strips, split_vectors, sum_blocks, sum_channels, zeros
from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer, Nest, loop_vars
from graphc.codegen.target import Target
from graphc.ir import dims
from graphc.ops import Conv2d

CHUNK = 4  # blocks of input channels in a pass
CHUNKED_BYTES = 60 * 1024
AHEAD = 2
CHUNKED_ROWS = 8
CHUNKED_SEGMENT = 24
SEGMENT_BYTES = 192 * 1024  # of the copied rows: a part of the second-level cache, beside a tile's weights
LONGEST_SEGMENT = 96  # pixels: enough to hide what a task costs, few enough for two threads to share a small image


@dataclass(frozen=True)
class Geometry:
    """The constants of a direct convolution on a target."""

    lanes: int
    vectors: int  # of output channels, in a tile
    pixels: int  # at most, in a strip
    groups: int
    c_group: int  # input channels of a group
    k_group: int
    c_block: int  # input channels that lie together: the lanes, or 1 where the input is dense
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]  # before
    copied: bool  # whether rows are copied first
    segment: int  # output pixels of a task, in a row
    rows: int = 1  # of a task
    chunk: int = 0  # blocks of input channels in a pass; 0: all

    @property
    def c_blocks(self) -> int:
        """Blocks of input channels in a group; the last may be partly filled."""
        return -(-self.c_group // self.c_block)

    @property
    def k_blocks(self) -> int:
        """Blocks of output channels in a group."""
        return -(-self.k_group // self.lanes)

    @property
    def tiles(self) -> int:
        """Tiles of output channels in a group."""
        return -(-self.k_blocks // self.vectors)

    @property
    def copied_blocks(self) -> int:
        """Blocks of input channels whose rows are copied at once."""
        return self.chunk or self.c_blocks

    @property
    def copied_rows(self) -> int:
        """Input rows under those of a task, every `dilation`th."""
        return (self.rows - 1) * self.stride[0] + self.kernel[0]

    @property
    def columns(self) -> int:
        """Input columns under a segment."""
        return (self.segment - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] + 1

    @property
    def pointwise(self) -> bool:
        """Whether an output pixel sees one input pixel, in place."""
        return self.kernel == (1, 1) and not self.copied

    @property
    def fixed(self) -> tuple[object, ...]:
        """What the code depends on; all other numbers are its arguments, so that most layers share one function."""
        taps = (self.kernel[1], self.dilation[1]) if self.c_block == 1 else self.pointwise
        partly = self.c_group % self.c_block, self.k_blocks % self.vectors != 0
        chunks = self.chunk, self.rows, self.segment if self.chunk else 0
        return self.lanes, self.vectors, self.pixels, self.c_block, taps, self.stride[1], self.copied, *partly, *chunks


def make_geometry(op: Conv2d, x: Buffer, w: Buffer, target: Target) -> Geometry:
    """Decide tile, segment and whether to copy."""
    k, c_group, r, s = w.type.static_shape()
    lanes, k_group = target.lanes, k // op.groups
    vectors, pixels = split_vectors(-(-k_group // lanes), target)
    dense = x.layout == DENSE
    g = Geometry(
        lanes, vectors, pixels, op.groups, c_group, k_group, 1 if dense else lanes,
        (r, s), op.stride, op.dilation, op.padding[:2], dense or not op.window((r, s)).stays_inside, pixels,
    )  # fmt: skip
    if wants_chunks(g):
        rows = 1 if (g.pointwise and g.stride == (1, 1)) or g.dilation[0] > 1 else CHUNKED_ROWS
        segment = LONGEST_SEGMENT if g.pointwise and g.stride == (1, 1) else CHUNKED_SEGMENT
        return replace(g, segment=max(segment // pixels, 1) * pixels, rows=rows, chunk=CHUNK)
    column_bytes = 4 * r * g.c_blocks * g.c_block * op.stride[1]
    longest = LONGEST_SEGMENT if not g.copied else min(LONGEST_SEGMENT, SEGMENT_BYTES // column_bytes)
    return replace(g, segment=max(longest // pixels, 1) * pixels)


def wants_chunks(g: Geometry) -> bool:
    """Whether the weights of a tile are too many for the second-level cache."""
    (r, s), tile = g.kernel, g.vectors * g.lanes
    return g.c_block == g.lanes and g.c_group % (CHUNK * g.lanes) == 0 and 4 * r * s * g.c_group * tile > CHUNKED_BYTES


def pack_weights(g: Geometry, w: Buffer, y: Buffer) -> Nest:
    """The weights in the order of reading: [group and tile, r, block of c, s, c, vectors * lanes], zero beyond K, C."""
    (r_all, s_all), width = g.kernel, g.vectors * g.lanes
    shape = (g.groups * g.tiles, r_all, g.c_blocks, s_all, g.c_block, width)
    packed = y.temporary("weights", w.type.with_shape(*shape))
    t, r, block, s, c, j = loops = loop_vars("trbscj", shape)
    k = t * width + j if g.groups == 1 else (t // g.tiles) * g.k_group + (t % g.tiles) * width + j
    return Nest(packed, loops, loops, w.get(k, block * g.c_block + c, r, s, fill=0.0))


def pack_bias(g: Geometry, bias: Buffer, y: Buffer) -> Nest:
    """The bias with zeros up to a whole tile, so that it is read by vectors."""
    shape = (g.groups * g.tiles, g.vectors * g.lanes)
    packed = y.temporary("bias", bias.type.with_shape(*shape))
    t, j = loops = loop_vars("tj", shape)
    k = (t // g.tiles) * g.k_group + (t % g.tiles) * shape[1] + j
    return Nest(packed, loops, loops, bias.get(k, fill=0.0))


class DirectConv:
    """y = epilogue(conv2d(x, w, b), extra...): y and extra in blocks of channels, x too or dense; w and b packed."""

    def __init__(
        self, op: Conv2d, g: Geometry, y: Buffer, x: Buffer, w: Buffer, bias: Buffer | None, extra: Sequence[Buffer]
    ) -> None:
        (r, s), form = g.kernel, "pointwise" if g.pointwise else "dense" if g.c_block == 1 else "blocked"
        self.name = f"conv_{form}_{g.vectors}x{g.pixels}"
        self.reason = f"{g.vectors} vectors x {g.pixels} pixels; " + ("rows copied" if g.copied else "rows in place")
        self.g, self._has_bias = g, bias is not None
        self.buffers = [y, x, w, *([bias] if bias else []), *extra]
        self._epilogue = Epilogue(op.epilogue, len(extra))
        (n, _, height, width), (_, _, p, q) = x.shape, y.shape
        if g.pointwise and g.stride == (1, 1):  # rows need not be told apart
            height, width, p, q = 1, dims.product([height, width]), 1, dims.product([p, q])
        self._segments, row_groups = dims.ceil_div(q, g.segment), dims.ceil_div(p, g.rows)
        tiles = g.groups * g.tiles
        self.sizes = [
            *(height, width, p, q, row_groups, self._segments),
            *(g.groups, g.tiles, g.c_blocks, g.k_blocks, g.segment, g.columns),
            *(*g.kernel, g.stride[0], *g.dilation, *g.padding),
            *(b.image for b in (x, y, *extra)),
        ]  # fmt: skip
        self.tasks = dims.product([n, tiles, row_groups, self._segments])
        self.work = dims.product([n, p, q, tiles * g.vectors * g.lanes * g.c_group * r * s])
        self.key = f"{self.name} {g.fixed} {bias is not None} {op.epilogue} {len(extra)}"

    @property
    def scratch(self) -> int:
        """The sums of a task, where it takes more than one pass; the copied rows."""
        g = self.g
        copied = 4 * g.copied_rows * g.copied_blocks * g.columns * g.c_block if g.copied else 0
        return copied + (4 * g.rows * g.segment * g.vectors * g.lanes if g.chunk else 0)

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter:
    """The code of one DirectConv: what a task, a segment and a strip know."""

    def __init__(self, kernel: DirectConv, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.g, self.b = kernel, kernel.g, b
        count = len(kernel.buffers)
        self.y, self.x, self.w, *rest = function.args[:count]
        self.bias = rest.pop(0) if kernel._has_bias else None
        self.extra = rest
        *sizes, self.begin, self.end, self.scratch = function.args[count:]
        self.height, self.width, self.p, self.q, self.row_groups, self.segments, self.groups, self.tiles, *sizes = sizes
        self.c_blocks, self.k_blocks, self.segment, self.columns, *sizes = sizes
        self.r_all, self.s_all, self.stride_r, self.dilation_r, self.dilation_s, self.above, *sizes = sizes
        self.before, self.x_image, self.y_image, *self.extra_images = sizes
        self.plane = b.mul(b.mul(self.height, self.width), i64(self.g.c_block))
        self.full_blocks = self.c_blocks if self.g.c_group % self.g.c_block == 0 else b.sub(self.c_blocks, i64(1))
        self.partial = self.scratch
        if self.g.chunk:
            sums = self.g.rows * self.g.segment * self.g.vectors * self.g.lanes
            self.scratch = address(b, self.scratch, i64(sums), F32)
        self.tap_weights = self.g.c_block * self.g.vectors * self.g.lanes
        self.row_weights = b.mul(b.mul(self.c_blocks, self.s_all), i64(self.tap_weights))

    def emit(self) -> None:
        """Every task in turn."""

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._task(number)
            return []

        repeat(self.b, self.begin, self.end, 1, [], task)
        self.b.ret_void()

    # -- a task: one tile of output channels, one segment of one row --------------------------------------------------

    def _task(self, number: ir.Value) -> None:
        b, g = self.b, self.g
        segment, number = b.urem(number, self.segments), b.udiv(number, self.segments)
        group_of_rows, number = b.urem(number, self.row_groups), b.udiv(number, self.row_groups)
        row = b.mul(group_of_rows, i64(g.rows))
        rows = least(b, b.sub(self.p, row), i64(g.rows))
        all_tiles = b.mul(self.groups, self.tiles)
        tile, n = b.urem(number, all_tiles), b.udiv(number, all_tiles)
        group, tile_in_group = b.udiv(tile, self.tiles), b.urem(tile, self.tiles)
        first = b.mul(segment, self.segment)
        length = least(b, b.sub(self.q, first), self.segment)

        top = b.sub(b.mul(row, self.stride_r), self.above)  # input row of r = 0, maybe outside
        image = b.add(b.mul(n, self.x_image), b.mul(b.mul(group, self.c_blocks), self.plane))
        left = b.sub(b.mul(first, i64(g.stride[1])), self.before)
        weights = address(b, self.w, b.mul(tile, b.mul(self.row_weights, self.r_all)), F32)
        first_block = b.mul(tile_in_group, i64(g.vectors))
        y_plane = b.mul(b.mul(self.p, self.q), i64(g.lanes))
        y_block = b.add(b.mul(group, self.k_blocks), first_block)
        y_start = b.add(b.mul(y_block, y_plane), b.mul(b.add(b.mul(row, self.q), first), i64(g.lanes)))
        images = [b.mul(n, image) for image in (self.y_image, *self.extra_images)]
        self.targets = [address(b, p, start, F32) for p, start in zip((self.y, *self.extra), images, strict=True)]
        blocks = b.sub(self.k_blocks, first_block)
        block_weights = b.mul(self.s_all, i64(self.tap_weights))

        def one_pass(first_c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            last_c = b.add(first_c, i64(g.chunk)) if g.chunk else self.c_blocks
            source = address(b, self.x, b.add(image, b.mul(first_c, self.plane)), F32)
            if g.copied:
                span = b.add(b.mul(b.sub(rows, i64(1)), self.stride_r), self.r_all)
                low, high = taps_inside(b, top, self.height, span, self.dilation_r)
                self._copy_rows(source, top, low, high, left, length)
                x, x_block = self.scratch, b.mul(self.columns, i64(g.c_block))
                x_line = b.mul(i64(g.chunk) if g.chunk else self.c_blocks, x_block)
                x_row = x_line
            else:
                start = b.mul(b.add(b.mul(top, self.width), left), i64(g.c_block))
                x, x_block = address(b, source, start, F32), self.plane
                x_line = b.mul(self.width, i64(g.c_block))
                x_row = b.mul(x_line, self.dilation_r)
            w = address(b, weights, b.mul(first_c, block_weights), F32)

            def one_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                down = b.mul(i, self.stride_r)
                low, high = i64(0), self.r_all
                if g.copied:
                    low, high = taps_inside(b, b.add(top, down), self.height, self.r_all, self.dilation_r)
                row_x = address(b, x, b.mul(down, x_line), F32)
                row_y = b.add(y_start, b.mul(b.mul(i, self.q), i64(g.lanes)))

                def strip(start: ir.Value, pixels: int) -> None:
                    strip_x = address(b, row_x, b.mul(start, i64(g.stride[1] * g.c_block)), F32)
                    sums = zeros(g.lanes, g.vectors, pixels)
                    saved = b.mul(b.add(b.mul(i, i64(g.segment)), start), i64(g.vectors * g.lanes))
                    saved = address(b, self.partial, saved, F32)
                    type = ir.VectorType(F32, g.lanes)
                    places = [address(b, saved, i64(n * g.lanes), F32) for n in range(len(sums))]
                    if g.chunk:
                        sums = when(
                            b,
                            b.icmp_signed(">", first_c, i64(0)),
                            lambda: [b.load(place, typ=type, align=4) for place in places],
                            sums,
                        )
                    sums = self._sum(
                        strip_x,
                        x_row,
                        x_block,
                        w,
                        low,
                        high,
                        sums,
                        b.add(b.udiv(b.add(start, i64(g.pixels - 1)), i64(g.pixels)), b.mul(i, i64(4))),
                    )

                    def finish() -> list[ir.Value]:
                        start_y = b.add(row_y, b.mul(start, i64(g.lanes)))
                        self._store(sums, tile, start_y, y_plane, blocks, pixels)
                        return []

                    if not g.chunk:
                        finish()
                        return
                    whole = b.icmp_signed(">=", last_c, self.c_blocks)
                    with b.if_else(whole) as (done, more):
                        with done:
                            finish()
                        with more:
                            for place, value in zip(places, sums, strict=True):
                                b.store(value, place, align=4)

                for_strips(b, length, g.pixels, strip)
                return []

            if g.rows == 1:
                one_row(i64(0), [])
            else:
                repeat(b, i64(0), rows, 1, [], one_row)
            return []

        if g.chunk:
            repeat(b, i64(0), self.c_blocks, g.chunk, [], one_pass)
        else:
            one_pass(i64(0), [])

    def _copy_rows(
        self,
        image: ir.Value,
        top: ir.Value,
        low: ir.Value,
        high: ir.Value,
        left: ir.Value,
        length: ir.Value,
    ) -> None:
        """The rows under the segment as [r, block of c, column, c], zeros where a column is outside the image."""
        b, g = self.b, self.g
        unit = i64(4 * g.c_block)  # bytes of a column
        extent = b.add(b.mul(b.sub(self.s_all, i64(1)), self.dilation_s), i64(1))
        needed = b.add(b.mul(b.sub(length, i64(1)), i64(g.stride[1])), extent)

        def clamp(x: ir.Value) -> ir.Value:
            x = b.select(b.icmp_signed("<", x, i64(0)), i64(0), x)
            return least(b, x, needed)

        before, until = clamp(b.neg(left)), clamp(b.sub(self.width, left))
        inside = b.sub(until, before)
        inside = b.select(b.icmp_signed("<", inside, i64(0)), i64(0), inside)
        source_column = b.add(left, before)

        def one_row(r: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            line = b.mul(b.add(top, b.mul(r, self.dilation_r)), self.width)

            def one_block(block: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                place = b.mul(b.mul(b.add(b.mul(r, count), block), self.columns), i64(g.c_block))
                target = address(b, self.scratch, place, F32)
                pixel = b.mul(b.add(line, source_column), i64(g.c_block))
                source = address(b, image, b.add(b.mul(block, self.plane), pixel), F32)
                self._zero(target, b.mul(before, unit))
                middle = address(b, target, b.mul(before, unit), I8)
                copy = [middle, source, b.mul(inside, unit), ir.Constant(ir.IntType(1), 0)]
                intrinsic(b, "llvm.memcpy.p0.p0.i64", VOID, copy)
                self._zero(
                    address(b, middle, b.mul(inside, unit), I8), b.mul(b.sub(needed, b.add(before, inside)), unit)
                )
                return []

            return repeat(b, i64(0), count, 1, [], one_block)

        count = i64(g.chunk) if g.chunk else self.c_blocks
        repeat(b, low, high, 1, [], one_row)

    def _zero(self, target: ir.Value, count: ir.Value) -> None:
        def fill() -> list[ir.Value]:
            no = ir.Constant(ir.IntType(1), 0)
            intrinsic(self.b, "llvm.memset.p0.i64", VOID, [target, ir.Constant(I8, 0), count, no])
            return []

        when(self.b, self.b.icmp_signed(">", count, i64(0)), fill)

    # -- strips -------------------------------------------------------------------------------------------------------

    def _sum(
        self,
        x: ir.Value,
        x_row: ir.Value,
        x_block: ir.Value,
        weights: ir.Value,
        low: ir.Value,
        high: ir.Value,
        sums: list[ir.Value],
        strip_number: ir.Value,
    ) -> list[ir.Value]:
        """The sums of one strip over r, c, s."""
        b, g = self.b, self.g
        step, tap_weights = g.stride[1] * g.c_block, self.tap_weights
        block_weights = b.mul(self.s_all, i64(tap_weights))
        lines = AHEAD if g.chunk else g.vectors
        ahead = self.row_weights
        if g.chunk:
            share = b.mul(b.mul(self.s_all, i64(g.c_block * g.chunk * AHEAD * g.lanes)), strip_number)
            ahead = b.add(b.mul(block_weights, i64(g.chunk)), share)
            ahead = b.select(b.icmp_unsigned("<", strip_number, i64(-(-g.vectors // AHEAD))), ahead, i64(0))

        def over_s(x: ir.Value, w: ir.Value, w_ahead: ir.Value, sums: list[ir.Value], channels: int) -> list[ir.Value]:
            if g.c_block == 1:  # a dense input: the taps of a row lie beside each other
                taps = [s * g.dilation[1] for s in range(g.kernel[1])]
                return accumulate(b, g.lanes, sums, g.vectors, w, x, taps, step)

            def one(s: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                x_tap = address(b, x, b.mul(b.mul(s, self.dilation_s), i64(g.c_block)), F32)
                w_tap = address(b, w, b.mul(s, i64(tap_weights)), F32)
                following = address(b, w_ahead, b.mul(s, i64(g.c_block * lines * g.lanes)), F32)
                return sum_channels(b, g.lanes, sums, g.vectors, w_tap, x_tap, channels, step, following, lines)

            return one(i64(0), sums) if g.pointwise else repeat(b, i64(0), self.s_all, 1, sums, one)

        def over_c(x: ir.Value, w: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            def one(block: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                w_block = address(b, w, b.mul(block, block_weights), F32)
                w_ahead = address(
                    b, w, b.add(ahead, b.mul(b.mul(self.s_all, block), i64(g.c_block * lines * g.lanes))), F32
                )
                return over_s(address(b, x, b.mul(block, x_block), F32), w_block, w_ahead, sums, g.c_block)

            full = i64(g.chunk) if g.chunk else self.full_blocks
            sums = sum_blocks(b, full, sums, one)
            if g.c_group % g.c_block:  # the lanes beyond C hold anything
                x, w = address(b, x, b.mul(full, x_block), F32), address(b, w, b.mul(full, block_weights), F32)
                sums = over_s(x, w, w, sums, g.c_group % g.c_block)
            return sums

        def one_row(r: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            w_row = address(b, weights, b.mul(r, self.row_weights), F32)
            return over_c(address(b, x, b.mul(r, x_row), F32), w_row, sums)

        if g.pointwise:
            return one_row(i64(0), sums)
        return repeat(b, low, high, 1, sums, one_row)

    def _store(
        self, sums: list[ir.Value], tile: ir.Value, y: ir.Value, plane: ir.Value, blocks: ir.Value, pixels: int
    ) -> None:
        """Bias, epilogue and store, for the vectors that are there: `blocks` from this tile on."""
        b, g = self.b, self.g
        type = ir.VectorType(F32, g.lanes)
        for v in range(g.vectors):

            def store(v: int = v) -> list[ir.Value]:
                start = b.add(y, b.mul(plane, i64(v)))
                values = sums[v * pixels : (v + 1) * pixels]
                if self.bias is not None:
                    place = b.mul(b.add(b.mul(tile, i64(g.vectors)), i64(v)), i64(g.lanes))
                    bias = b.load(address(b, self.bias, place, F32), typ=type, align=4)
                    values = [b.fadd(x, bias) for x in values]
                for i, value in enumerate(values):
                    target, *others = (address(b, t, b.add(start, i64(i * g.lanes)), F32) for t in self.targets)
                    operands = [b.load(other, typ=type, align=4) for other in others]
                    b.store(self.kernel._epilogue.emit(b, g.lanes, [value, *operands]), target, align=4)
                return []

            if g.k_blocks % g.vectors == 0 or v == 0:
                store()
            else:
                when(b, b.icmp_signed("<", i64(v), blocks), store)
