"""The gradient of a convolution's weights: any stride, padding, dilation and group.

ALGORITHM  dw[k,c,r,s] = sum over n,p,q of g[n,k,p,q] * x[n, c, p*stride+r*dilation-pad, q*...], where x is inside

SCHEDULE   A task is a tile of output channels (2 vectors, where there are) on a block of input channels, over a share
           of the pixels. It walks them in chunks of rows for which g and x stay in the first-level cache. For each tap
           r, s and each run of 8 c, sums of all vectors stay in registers over the chunk's pixels: a vector of g serves
           the run, an element of x, spread over the lanes, all vectors. Then they are added to the task's sums in
           scratch. So no chain of additions is longer than a chunk, and taps outside the image are left out by shorter
           loops. 2 vectors times 8 channels take 10 loads for 16 FMAs, which two loads a cycle can feed; 4 times 4 are
           no faster, and their sums of 3x3 taps, 36 KiB, no longer fit the first-level cache (512 to 512 channels of
           7x7: 110 against 153 GFLOP/s). With few taps, a task takes several blocks of c, so that a chunk of g serves
           more.
           Where x is dense (the first layer), the rows under one row of g are copied with zeros around them, and the
           run is one of taps s. Where a lane is a channel (depthwise), a run is one of pixels.
           At the end, channels move from lanes to rows: dw is dense. Where there are few tasks, the pixels are shared
           among more of them, each with its own dw; these are added in order. All of it depends on sizes alone.

EMIT       `WeightGradient.emit`, from the task down to the sums over a chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, I1, I8, VOID, address, i64, intrinsic, mangle, repeat, splat, when
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.tile import split_vectors, zeros
from graphc.codegen.kernels.transpose import store_some, transpose
from graphc.codegen.layout import DENSE
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims
from graphc.ops import Conv2dWeightGradient

CHUNK = 96  # pixels: 24 KiB of g beside 6 KiB of x on AVX-512, in a first-level cache of 48 KiB
LEAST_TASKS = 16  # fewer are shared out further: threads end together, and there may be many
FEW_TAPS = 4  # up to which a task takes as many blocks of c as keep this many sums for each c
# registers -> {vectors: channels in a run} and the same for taps of a dense x: vectors * run sums, the vectors and a
# spread element fit the registers. Channels divide a block. Tiles of 3 and 4 vectors with 16 registers are SSE's.
RUNS = {32: {3: 8, 2: 8, 1: 8}, 16: {2: 4, 1: 8}}
TAPS = {32: {4: 6, 3: 8, 2: 10, 1: 14}, 16: {4: 2, 3: 3, 2: 6, 1: 10}}
Row = Callable[[ir.Value, ir.Value, ir.Value, list[ir.Value]], list[ir.Value]]
CHAINS = 8  # of a depthwise convolution: two FMAs start in a cycle and take four


@dataclass(frozen=True)
class Shape:
    """The constants of one layer."""

    kind: str  # "blocked", "dense" or "depthwise": how a lane of g meets x
    lanes: int
    vectors: int
    run: int
    groups: int
    c: int  # of a group
    k: int
    blocks: int = 1  # of input channels, of a task

    @property
    def c_tiles(self) -> int:
        """Tasks that share the input channels of a group."""
        return -(-self.c_blocks // self.blocks)

    @property
    def c_blocks(self) -> int:
        """Blocks of input channels in a group; one that holds them all where x is dense."""
        return 1 if self.kind == "dense" else -(-self.c // self.lanes)

    @property
    def k_blocks(self) -> int:
        """Blocks of output channels in a group."""
        return -(-self.k // self.lanes)

    @property
    def tiles(self) -> int:
        """Tiles of output channels in a group."""
        return -(-self.k_blocks // self.vectors)

    @property
    def width(self) -> int:
        """Output channels of a tile."""
        return self.vectors * self.lanes

    @property
    def channels(self) -> int:
        """Input channels of a task."""
        return {"dense": self.c, "depthwise": 1}.get(self.kind, self.lanes * self.blocks)


def make_shape(op: Conv2dWeightGradient, x: Buffer, dw: Buffer, target: Target) -> Shape:
    """Decide tile and run."""
    k, c, _, _ = dw.type.static_shape()
    k_group = k // op.groups
    blocks, lanes = -(-k_group // target.lanes), target.lanes
    if op.groups == k > 1 and c == 1:
        return Shape("depthwise", lanes, 1, CHAINS, 1, 1, k)
    if x.layout == DENSE:
        vectors, _ = split_vectors(blocks, target)
        most, taps = TAPS[target.registers][vectors], op.kernel[1]
        return Shape("dense", lanes, vectors, -(-taps // -(-taps // most)), op.groups, c, k_group)
    runs = RUNS[target.registers]
    vectors = 3 if blocks % 2 and blocks % 3 == 0 and 3 in runs else min(blocks, 2)
    together = max(1, FEW_TAPS // (op.kernel[0] * op.kernel[1]))
    return Shape("blocked", lanes, vectors, min(runs[vectors], lanes), op.groups, c, k_group, together)


class WeightGradient:
    """`parts` dense copies of dw [K,C/groups,R,S], the sum of which is it, from g in blocks of channels and x, too or
    dense."""

    bands = None

    def __init__(self, op: Conv2dWeightGradient, dw: Buffer, x: Buffer, g: Buffer, target: Target) -> None:
        s = self.shape = make_shape(op, x, dw, target)
        self.op = op
        self.name = f"weight_gradient_{s.kind}_{s.vectors}x{s.run}"
        self.tiles = s.groups * s.tiles * s.c_tiles
        self.parts = -(-LEAST_TASKS // self.tiles)
        self.reason = f"{s.vectors} vectors x {s.run}; {self.parts} parts of the pixels"
        (n, _, height, width), (_, _, p, q) = x.shape, g.shape
        self.sizes: list[DimLike] = [
            *(n, height, width, p, q, s.groups, s.c, s.k, s.c_blocks, s.k_blocks, s.tiles, self.parts),
            *(*op.stride, *op.dilation, *op.padding[:2], *op.kernel, x.image, g.image, s.c_tiles),
        ]
        elements = s.k * s.groups * s.c * op.kernel[0] * op.kernel[1]
        result = dw if self.parts == 1 else dw.temporary("parts", dw.type.with_shape(self.parts, elements))
        self.buffers = [result, x, g]
        self.tasks: DimLike = self.tiles * self.parts
        self.work = dims.product([n, p, q, s.groups * s.k_blocks * s.lanes * s.c * op.kernel[0] * op.kernel[1]])
        taps = (op.kernel, op.stride[1], op.dilation[1]) if s.kind == "dense" else None
        self.key = f"{self.name} {s.lanes} {s.channels} {self.sums} {taps}"

    @property
    def sums(self) -> int:
        """Vectors of one tile's sums, a whole number of squares of them."""
        taps = self.shape.channels * self.op.kernel[0] * self.op.kernel[1]
        return -(-taps // self.shape.lanes) * self.shape.lanes

    @property
    def columns(self) -> int:
        """Of the copied rows under a chunk of a dense x."""
        return (CHUNK - 1) * self.op.stride[1] + (self.op.kernel[1] - 1) * self.op.dilation[1] + 1

    @property
    def scratch(self) -> int:
        """The sums of a task, and the rows of a dense x."""
        copied = self.columns * self.shape.c * self.op.kernel[0] if self.shape.kind == "dense" else 0
        return 4 * (self.sums * self.shape.width + copied)

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter:
    """The code of one WeightGradient."""

    def __init__(self, kernel: WeightGradient, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.s, self.b = kernel, kernel.shape, b
        self.result, self.x, self.g, *sizes, self.begin, self.end, self.scratch = function.args
        self.n, self.height, self.width, self.p, self.q, self.groups, self.c, self.k, *sizes = sizes
        self.c_blocks, self.k_blocks, self.tiles, self.parts, self.stride_r, self.stride_s, *sizes = sizes
        self.dilation_r, self.dilation_s, self.above, self.before, self.r_all, self.s_all, *sizes = sizes
        self.x_image, self.g_image, self.c_tiles = sizes
        self.taps = b.mul(self.r_all, self.s_all)
        self.type = ir.VectorType(F32, self.s.lanes)
        self.x_block = 1 if self.s.kind == "dense" else self.s.lanes
        self.x_plane = b.mul(b.mul(self.height, self.width), i64(self.x_block))
        self.g_plane = b.mul(b.mul(self.p, self.q), i64(self.s.lanes))
        # chunks: some columns of a row, some rows of an image, or some images
        one = i64(1)
        whole = self._ceil(self.q, i64(CHUNK))
        self.chunk_q = self._ceil(self.q, whole)
        if self.s.kind == "dense":
            self.chunk_p, self.chunk_n = one, one
        else:
            rows = b.udiv(i64(CHUNK), self.chunk_q)
            self.chunk_p = least(b, rows, self.p)
            images = b.udiv(i64(CHUNK), b.mul(self.p, self.q))
            self.chunk_n = b.select(b.icmp_signed("<", images, one), one, images)
        self.chunks_q, self.chunks_p = self._ceil(self.q, self.chunk_q), self._ceil(self.p, self.chunk_p)
        self.chunks = b.mul(b.mul(self._ceil(self.n, self.chunk_n), self.chunks_p), self.chunks_q)

    def _ceil(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.udiv(self.b.add(x, self.b.sub(y, i64(1))), y)

    def emit(self) -> None:
        """A task: a tile of output channels on a block of input channels, over a part of the chunks."""
        b, s = self.b, self.s

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            part, number = b.urem(number, self.parts), b.udiv(number, self.parts)
            c_block, number = b.mul(b.urem(number, self.c_tiles), i64(s.blocks)), b.udiv(number, self.c_tiles)
            tile, group = b.urem(number, self.tiles), b.udiv(number, self.tiles)
            first = b.mul(tile, i64(s.vectors))
            if s.kind == "depthwise":
                c_block = tile
            x_start = b.mul(b.add(b.mul(group, self.c_blocks), c_block), self.x_plane)
            if s.kind == "dense":
                x_start = b.mul(b.mul(group, self.c), self.x_plane)
            self.x_start = address(b, self.x, x_start, F32)
            self.c_count = b.mul(least(b, b.sub(self.c_blocks, c_block), i64(s.blocks)), i64(s.lanes))
            self.g_starts: list[ir.Value] = []
            for v in range(s.vectors):  # where the last tile has fewer, one is computed again, and not stored
                block = least(b, b.add(first, i64(v)), b.sub(self.k_blocks, i64(1)))
                start = b.mul(b.add(b.mul(group, self.k_blocks), block), self.g_plane)
                self.g_starts.append(address(b, self.g, start, F32))
            size = i64(4 * self.kernel.sums * s.width)
            intrinsic(b, "llvm.memset.p0.i64", VOID, [self.scratch, ir.Constant(I8, 0), size, ir.Constant(I1, 0)])
            begin = b.udiv(b.mul(self.chunks, part), self.parts)
            end = b.udiv(b.mul(self.chunks, b.add(part, i64(1))), self.parts)

            def chunk(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                self._chunk(i)
                return []

            repeat(b, begin, end, 1, [], chunk)
            self._write(part, group, first, c_block)
            return []

        repeat(b, self.begin, self.end, 1, [], task)
        b.ret_void()

    # -- a chunk ------------------------------------------------------------------------------------------------------

    def _chunk(self, number: ir.Value) -> None:
        """Add what the chunk of this number gives to the sums in scratch."""
        b, s = self.b, self.s
        i, number = b.urem(number, self.chunks_q), b.udiv(number, self.chunks_q)
        j, number = b.urem(number, self.chunks_p), b.udiv(number, self.chunks_p)

        def bounds(i: ir.Value, size: ir.Value, most: ir.Value) -> tuple[ir.Value, ir.Value]:
            start = b.mul(i, size)
            return start, least(b, b.add(start, size), most)

        self.images = bounds(number, self.chunk_n, self.n)
        self.rows = bounds(j, self.chunk_p, self.p)
        self.segment = bounds(i, self.chunk_q, self.q)
        if s.kind == "dense":
            self._dense_chunk()
            return

        def row_of_taps(r: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            shift_r = b.sub(b.mul(r, self.dilation_r), self.above)
            rows = self._results_inside(shift_r, self.stride_r, self.height, self.rows)

            def tap(column: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                shift_s = b.sub(b.mul(column, self.dilation_s), self.before)
                columns = self._results_inside(shift_s, self.stride_s, self.width, self.segment)
                place = b.add(b.mul(shift_r, self.width), shift_s)
                number = b.add(b.mul(r, self.s_all), column)
                if s.kind == "depthwise":
                    self._add_channels(rows, columns, place, number)
                    return []

                def run(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    self._add_run(rows, columns, place, c, b.add(b.mul(c, self.taps), number))
                    return []

                return repeat(b, i64(0), self.c_count, s.run, [], run)

            return repeat(b, i64(0), self.s_all, 1, [], tap)

        repeat(b, i64(0), self.r_all, 1, [], row_of_taps)

    def _results_inside(
        self, shift: ir.Value, stride: ir.Value, extent: ir.Value, among: tuple[ir.Value, ir.Value]
    ) -> tuple[ir.Value, ir.Value]:
        """The range of results i in `among` for which i*stride + shift lies in 0..extent-1."""
        b = self.b

        def first_from(x: ir.Value) -> ir.Value:  # ceil(x / stride), at least 0
            x = b.select(b.icmp_signed("<", x, i64(0)), i64(0), x)
            return self._ceil(x, stride)

        low, high = first_from(b.neg(shift)), first_from(b.sub(extent, shift))
        low = b.select(b.icmp_signed(">", among[0], low), among[0], low)
        return low, least(b, high, among[1])

    def _over_pixels(
        self,
        rows: tuple[ir.Value, ir.Value],
        sums: list[ir.Value],
        row: Row,
    ) -> list[ir.Value]:
        """`row(offset of its image in x, offset in g, row, sums)` for all rows of the chunk."""
        b = self.b

        def image(n: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            x_image, g_image = b.mul(n, self.x_image), b.mul(n, self.g_image)
            return repeat(b, *rows, 1, sums, lambda p, sums: row(x_image, g_image, p, sums))

        return repeat(b, *self.images, 1, sums, image)

    def _add_run(
        self,
        rows: tuple[ir.Value, ir.Value],
        columns: tuple[ir.Value, ir.Value],
        place: ir.Value,
        c: ir.Value,
        number: ir.Value,
    ) -> None:
        """The sums of one tap and a run of channels from c on; `place` is the tap's pixel for the first result."""
        b, s = self.b, self.s
        block, in_block = b.udiv(c, i64(s.lanes)), b.urem(c, i64(s.lanes))
        x_start = address(b, self.x_start, b.add(b.mul(block, self.x_plane), in_block), F32)

        def row(x_image: ir.Value, g_image: ir.Value, p: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            line = b.add(b.mul(b.mul(p, self.stride_r), self.width), place)
            x_row = address(b, x_start, b.add(x_image, b.mul(line, i64(s.lanes))), F32)
            g_row = b.add(g_image, b.mul(b.mul(p, self.q), i64(s.lanes)))
            g_rows = [address(b, g, g_row, F32) for g in self.g_starts]
            x_step = b.mul(self.stride_s, i64(s.lanes))

            def pixel(q: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                x = address(b, x_row, b.mul(q, x_step), F32)
                return self._multiply(sums, g_rows, b.mul(q, i64(s.lanes)), x, [i64(i) for i in range(s.run)])

            return repeat(b, *columns, 1, sums, pixel)

        sums = self._over_pixels(rows, zeros(s.lanes, s.vectors, s.run), row)
        self._add_sums(sums, s.run, number, self.taps)

    def _multiply(
        self, sums: list[ir.Value], g_rows: list[ir.Value], g_offset: ir.Value, x: ir.Value, run: list[ir.Value]
    ) -> list[ir.Value]:
        """sums[v][i] += g[v] * x[run[i]] for one pixel."""
        b, s, type = self.b, self.s, self.type
        g = [b.load(address(b, g, g_offset, F32), typ=type, align=4) for g in g_rows]
        results = list(sums)
        for i, offset in enumerate(run):
            element = splat(b, b.load(address(b, x, offset, F32), typ=F32, align=4), s.lanes)
            for v, vector in enumerate(g):
                at = v * len(run) + i
                results[at] = intrinsic(b, f"llvm.fmuladd.{mangle(type)}", type, [vector, element, sums[at]])
        return results

    def _add_sums(self, sums: list[ir.Value], count: int, number: ir.Value, step: ir.Value | int) -> None:
        """Add to the sums in scratch: the first belong to the tap `number`, the next to that `step` further on."""
        b, s = self.b, self.s
        step = i64(step) if isinstance(step, int) else step
        for i in range(count):
            start = b.mul(b.add(number, b.mul(step, i64(i))), i64(s.width))
            for v in range(s.vectors):
                at = address(b, self.scratch, b.add(start, i64(v * s.lanes)), F32)
                b.store(b.fadd(b.load(at, typ=self.type, align=4), sums[v * count + i]), at, align=4)

    # -- depthwise ----------------------------------------------------------------------------------------------------

    def _add_channels(
        self, rows: tuple[ir.Value, ir.Value], columns: tuple[ir.Value, ir.Value], place: ir.Value, number: ir.Value
    ) -> None:
        """The sums of one tap, lane by lane; pixels take turns in CHAINS chains of additions."""
        b, s = self.b, self.s

        def row(x_image: ir.Value, g_image: ir.Value, p: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            line = b.add(b.mul(b.mul(p, self.stride_r), self.width), place)
            x_row = address(b, self.x_start, b.add(x_image, b.mul(line, i64(s.lanes))), F32)
            g_row = address(b, self.g_starts[0], b.add(g_image, b.mul(b.mul(p, self.q), i64(s.lanes))), F32)

            def pixels(q: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                results = []
                for i, total in enumerate(sums):
                    at = b.add(q, i64(i))
                    x_at = b.mul(b.mul(at, self.stride_s), i64(s.lanes))
                    x = b.load(address(b, x_row, x_at, F32), typ=self.type, align=4)
                    g = b.load(address(b, g_row, b.mul(at, i64(s.lanes)), F32), typ=self.type, align=4)
                    results.append(intrinsic(b, f"llvm.fmuladd.{mangle(self.type)}", self.type, [x, g, total]))
                return results

            low, high = columns
            count = b.sub(high, low)
            count = b.select(b.icmp_signed("<", count, i64(0)), i64(0), count)
            whole = b.add(low, b.and_(count, i64(-CHAINS)))
            sums = repeat(b, low, whole, CHAINS, sums, pixels)
            first = repeat(b, whole, high, 1, sums[:1], pixels)
            return [*first, *sums[1:]]

        sums = self._over_pixels(rows, zeros(s.lanes, 1, CHAINS), row)
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [b.fadd(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]
        self._add_sums(sums, 1, number, 0)

    # -- a dense x ----------------------------------------------------------------------------------------------------

    def _dense_chunk(self) -> None:
        """Some columns of one row: each c and r has a copied row of x, along which the taps s are shifted."""
        b, s, s_all = self.b, self.s, self.kernel.op.kernel[1]
        (n, _), (p, _), (first, end) = self.images, self.rows, self.segment
        copied = address(b, self.scratch, i64(self.kernel.sums * s.width), F32)
        top = b.sub(b.mul(p, self.stride_r), self.above)
        left = b.sub(b.mul(first, self.stride_s), self.before)
        x_image = b.mul(n, self.x_image)
        g_row = b.add(b.mul(n, self.g_image), b.mul(b.add(b.mul(p, self.q), first), i64(s.lanes)))
        g_rows = [address(b, g, g_row, F32) for g in self.g_starts]
        length, columns = b.sub(end, first), i64(self.kernel.columns)

        def line(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            c, r = b.udiv(number, self.r_all), b.urem(number, self.r_all)
            y = b.add(top, b.mul(r, self.dilation_r))
            start = b.add(x_image, b.add(b.mul(c, self.x_plane), b.mul(y, self.width)))
            x = address(b, copied, b.mul(number, columns), F32)
            inside = b.icmp_unsigned("<", y, self.height)
            self._copy_row(x, address(b, self.x_start, start, F32), left, inside)
            begin = 0
            while begin < s_all:
                count = min(s.run, s_all - begin)
                offsets = [i64((begin + i) * self.kernel.op.dilation[1]) for i in range(count)]

                def pixel(q: ir.Value, sums: list[ir.Value], offsets: list[ir.Value] = offsets) -> list[ir.Value]:
                    at = address(b, x, b.mul(q, self.stride_s), F32)
                    return self._multiply(sums, g_rows, b.mul(q, i64(s.lanes)), at, offsets)

                sums = repeat(b, i64(0), length, 1, zeros(s.lanes, s.vectors, count), pixel)
                self._add_sums(sums, count, b.add(b.mul(number, self.s_all), i64(begin)), 1)
                begin += count
            return []

        repeat(b, i64(0), b.mul(self.c, self.r_all), 1, [], line)

    def _copy_row(self, target: ir.Value, source: ir.Value, left: ir.Value, inside: ir.Value) -> None:
        """The columns from `left` on of a row, zeros where they are outside."""
        b, no = self.b, ir.Constant(I1, 0)
        columns = i64(self.kernel.columns)

        def clamp(x: ir.Value) -> ir.Value:
            x = b.select(b.icmp_signed("<", x, i64(0)), i64(0), x)
            return least(b, x, columns)

        before, until = clamp(b.neg(left)), clamp(b.sub(self.width, left))
        count = b.sub(until, before)
        count = b.select(b.and_(inside, b.icmp_signed(">", count, i64(0))), count, i64(0))
        intrinsic(b, "llvm.memset.p0.i64", VOID, [target, ir.Constant(I8, 0), i64(4 * self.kernel.columns), no])

        def copy() -> list[ir.Value]:
            middle = address(b, target, before, F32)
            start = address(b, source, b.add(left, before), F32)
            intrinsic(b, "llvm.memcpy.p0.p0.i64", VOID, [middle, start, b.mul(count, i64(4)), no])
            return []

        when(b, b.icmp_signed(">", count, i64(0)), copy)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _write(self, part: ir.Value, group: ir.Value, first: ir.Value, c_block: ir.Value) -> None:
        """The sums of the task, [c and tap, k], as rows [k, c and tap] of dw."""
        b, s = self.b, self.s
        row_length = b.mul(self.c, self.taps)
        c_first = i64(0) if s.kind == "depthwise" else b.mul(c_block, i64(s.lanes))
        column = b.mul(c_first, self.taps)
        valid = least(b, b.sub(row_length, column), b.mul(i64(s.channels), self.taps))
        k_first = b.add(b.mul(b.mul(part, self.groups), self.k), b.mul(group, self.k))

        def square(e: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            left = b.sub(valid, e)
            for v in range(s.vectors):
                start = b.add(b.mul(e, i64(s.width)), i64(v * s.lanes))
                vectors = [
                    b.load(address(b, self.scratch, b.add(start, i64(i * s.width)), F32), typ=self.type, align=4)
                    for i in range(s.lanes)
                ]
                for lane, row in enumerate(transpose(b, vectors)):
                    k = b.add(b.mul(b.add(first, i64(v)), i64(s.lanes)), i64(lane))
                    at = b.add(b.mul(b.add(k_first, k), row_length), b.add(column, e))
                    target = address(b, self.result, at, F32)
                    exists = b.icmp_signed("<", k, self.k)

                    def store(row: ir.Value = row, target: ir.Value = target) -> list[ir.Value]:
                        full = b.icmp_signed(">=", left, i64(s.lanes))
                        with b.if_else(full) as (whole, some):
                            with whole:
                                b.store(row, target, align=4)
                            with some:
                                store_some(b, row, target, left)
                        return []

                    when(b, exists, store)
            return []

        repeat(b, i64(0), valid, s.lanes, [], square)
