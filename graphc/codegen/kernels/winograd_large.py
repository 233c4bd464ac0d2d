"""Convolutions by large filters, of 6 rows and more, by minimal filtering along their columns alone: 7x7 takes 13 * 7
products for 4 results that take 4 * 49 directly.

ALGORITHM  The rows of taps are cut into runs of at most 4. For 4 results of a column, on which (4-1) + R rows d bear:
               y[n,k,p..p+3,q] = AT (sum over c, s and runs: (G w[k,c,run,s]) * (BT d[c, under the run, q+s-pad]))
           All runs have the points of AT in common, so their products are added before AT.

SCHEDULE   A task is a block of results and some of their channels. It transforms the inputs under the block (V), which
           serve all columns of taps: transforms on both sides would take fewer products, but of a V for each, and of
           weights twice to three times as large. Then, for one register tile of output channels, it takes a few input
           channels and one column of taps at a time: for a few places, it transforms the weights (U), which so stay in
           the first-level cache, multiplies them with V and adds to M. At last it transforms M into results. Plain
           weights are read once for each block, and asked for a column ahead, evenly. Of each column of taps, the
           results that see no inputs there, but the zeros around, are left out.
           7x7, 512 -> 4096 channels of 8x8: 1.5 times as fast as directly.
           Fewer than FEW rows of fewer than FEW results wait for the weights, and are computed directly, from the same
           weights: 5x5 take two thirds of the time.

EMIT       `WinogradLarge.emit`: _read_inputs, _transform, _multiply, _write_results; of few results _add_taps and
           _write_sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, address, constant, i64, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import clear_bytes, greatest, least, taps_inside
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.tile import for_strips, sum_channels, zeros
from graphc.codegen.kernels.transforms import Matrix, apply
from graphc.codegen.kernels.winograd_shape import BLOCK_COLUMNS, BLOCK_ROWS, FEW, LATE_CHANNELS, Shape
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims
from graphc.ops import Conv2d

TOGETHER = 2  # places whose weights are transformed at a time: with all 7, large filters take 3 to 8 % more time
PART = 16  # register tiles of output channels in a task: to transform its inputs takes 1 % of the time of 512 channels


@dataclass(frozen=True)
class _Column:
    """A column of taps of some input channels, as values of the code."""

    number: ir.Value
    first_c: ir.Value
    channels: ir.Value
    weights: ir.Value
    coming: ir.Value  # weights of the next one


class WinogradLarge:
    """y = epilogue(conv2d(x, w, b), extra...): x, y and extra in blocks of channels, w and b packed."""

    def __init__(
        self, op: Conv2d, shape: Shape, y: Buffer, x: Buffer, w: Buffer, bias: Buffer | None, extra: Sequence[Buffer]
    ) -> None:
        s = self.shape = shape
        self.has_bias, self.epilogue = bias is not None, Epilogue(op.epilogue, len(extra))
        m, (r_all, s_all) = s.rows.m, s.kernel
        self.name = s.name
        self.reason = f"columns alone: {s.products} products for {m} results that take {m * r_all * s_all} directly"
        self.buffers = [y, x, w, *([bias] if bias else []), *extra]
        (images, _, height, width), (_, _, p, q) = x.shape, y.shape
        rows = dims.ceil_div(p, m)
        bands, segments = dims.ceil_div(rows, BLOCK_ROWS), dims.ceil_div(q, BLOCK_COLUMNS)
        band, parts = dims.ceil_div(rows, bands), -(-s.k_tiles // PART)
        self.bands = Bands(images, bands, segments * parts, m, 1, band)
        most = [min(n, size) if isinstance(size, int) else n for n, size in ((BLOCK_ROWS, band), (BLOCK_COLUMNS, q))]
        v_row, m_row = (most[1] + s_all - 1) * s.lanes, most[1] * s.vectors * s.lanes
        v_place, m_place = ((n | s.lanes) for n in (s.c_blocks * most[0] * v_row, most[0] * m_row))
        self.tasks = self.bands.tasks
        self.sizes: list[DimLike] = [
            *(height, width, p, q, bands, segments, parts, rows, band, dims.ceil_div(q, segments), *op.padding[:2]),
            *(s.c, s.c_blocks, s.k_blocks, s.k_tiles, v_row, m_row, most[0] * v_row, v_place, m_place),
            *(b.image for b in (x, y, *extra)),
        ]
        self.work = dims.product([images, rows, q, s.products * s.c * s.k])
        u = TOGETHER * s.rows.phases * s.u_place
        self.scratch = 4 * (s.rows.products * v_place + s.rows.places * m_place + u + s.lanes)  # V, M, U, zeros
        self.key = f"{self.name} {s.lanes} {s.c % s.lanes} {bias is not None} {op.epilogue} {len(extra)}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter:
    """The code of one WinogradLarge."""

    def __init__(self, kernel: WinogradLarge, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.s, self.b = kernel, kernel.shape, b
        s, count = kernel.shape, len(kernel.buffers)
        self.y, self.x, self.w, *rest = function.args[:count]
        self.bias = rest.pop(0) if kernel.has_bias else None
        self.extra = rest
        *sizes, self.begin, self.end, self.v = function.args[count:]
        self.height, self.width, self.p, self.q, self.bands, self.segments, self.parts, *sizes = sizes
        self.tile_rows, self.band, self.segment, self.above, self.before, *sizes = sizes
        self.c, self.c_blocks, self.k_blocks, self.k_tiles, self.v_row, self.m_row, *sizes = sizes
        self.v_block, self.v_place, self.m_place, *sizes = sizes
        self.x_image, *self.result_images = sizes
        self.type = ir.VectorType(F32, s.lanes)
        self.m = address(b, self.v, b.mul(self.v_place, i64(s.rows.products)), F32)
        self.u = address(b, self.m, b.mul(self.m_place, i64(s.rows.places)), F32)
        self.zeros = address(b, self.u, i64(TOGETHER * s.rows.phases * s.u_place), F32)

    def emit(self) -> None:
        """Every task in turn."""
        b = self.b
        b.store(constant(self.type, 0), self.zeros, align=4)

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._task(number)
            return []

        repeat(b, self.begin, self.end, 1, [], task)
        b.ret_void()

    def _task(self, number: ir.Value) -> None:
        b = self.b
        part, number = b.urem(number, self.parts), b.udiv(number, self.parts)
        segment, number = b.urem(number, self.segments), b.udiv(number, self.segments)
        band, n = b.urem(number, self.bands), b.udiv(number, self.bands)
        self.first_row, self.first_column = b.mul(band, self.band), b.mul(segment, self.segment)
        self.rows = least(b, b.sub(self.tile_rows, self.first_row), self.band)
        self.columns = least(b, b.sub(self.q, self.first_column), self.segment)
        self.left = b.sub(self.first_column, self.before)  # the input column under the first tap, maybe outside
        self.image = address(b, self.x, b.mul(n, self.x_image), F32)
        images = [b.mul(n, image) for image in self.result_images]
        self.targets = [address(b, p, start, F32) for p, start in zip((self.y, *self.extra), images, strict=True)]
        first = b.mul(part, i64(PART))
        tiles = first, least(b, b.add(first, i64(PART)), self.k_tiles)

        def k_tile(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            clear_bytes(b, self.m, b.mul(self.m_place, i64(4 * self.s.rows.places)))
            self._sum_channels(k, self._add_places)
            self._write_results(k)
            return []

        def k_tile_directly(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            clear_bytes(b, self.m, b.mul(b.mul(self.p, self.q), i64(4 * self.s.vectors * self.s.lanes)))
            self._sum_channels(k, self._add_taps)
            self._write_sums(k)
            return []

        few = b.and_(b.icmp_signed("<", self.p, i64(FEW)), b.icmp_signed("<", self.q, i64(FEW)))
        with b.if_else(few) as (directly, filtered):
            with directly:
                repeat(b, *tiles, 1, [], k_tile_directly)
            with filtered:
                self._read_inputs()
                repeat(b, *tiles, 1, [], k_tile)

    def _load(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        offset = i64(offset) if isinstance(offset, int) else offset
        return self.b.load(address(self.b, pointer, offset, F32), typ=self.type, align=4)

    def _store(self, value: ir.Value, pointer: ir.Value, offset: ir.Value) -> None:
        self.b.store(value, address(self.b, pointer, offset, F32), align=4)

    def _columns_inside(self, first: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The range of numbers, of so many, of the columns from `first` on that lie in the image."""
        b = self.b
        return greatest(b, b.neg(first), i64(0)), least(b, b.sub(self.width, first), count)

    # -- inputs: V = BT d ---------------------------------------------------------------------------------------------

    def _read_inputs(self) -> None:
        """V as [product, block of channels, row of tiles, column, c]; of columns outside the image nothing."""
        b, s, lanes = self.b, self.s, self.s.lanes
        plane = b.mul(b.mul(self.height, self.width), i64(lanes))
        seen = self._columns_inside(self.left, b.add(self.columns, i64(s.kernel[1] - 1)))

        def block(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            def tile_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                top = b.sub(b.mul(b.add(self.first_row, i), i64(s.rows.m)), self.above)
                lines, steps = [], []
                for row in range(s.rows.side):
                    inside = b.icmp_unsigned("<", b.add(top, i64(row)), self.height)
                    start = b.mul(b.add(b.mul(b.add(top, i64(row)), self.width), self.left), i64(lanes))
                    line = address(b, self.image, b.add(b.mul(c, plane), start), F32)
                    lines.append(b.select(inside, line, self.zeros))
                    steps.append(b.select(inside, i64(lanes), i64(0)))
                first = b.add(b.mul(c, self.v_block), b.mul(i, self.v_row))

                def column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    data = [self._load(line, b.mul(j, step)) for line, step in zip(lines, steps, strict=True)]
                    at = b.add(first, b.mul(j, i64(lanes)))
                    for e, value in enumerate(apply(b, s.rows.data, data)):
                        self._store(value, self.v, b.add(at, b.mul(self.v_place, i64(e))))
                    return []

                return repeat(b, *seen, 1, [], column)

            return repeat(b, i64(0), self.rows, 1, [], tile_row)

        repeat(b, i64(0), self.c_blocks, 1, [], block)

    # -- sums: M = the sum of U V -------------------------------------------------------------------------------------

    def _sum_channels(self, k: ir.Value, add: Callable[[_Column], None]) -> None:
        """M over all channels, some at a time, and of these one column of taps at a time, which is to `add`."""
        b, s = self.b, self.s
        taps = s.kernel[0] * LATE_CHANNELS * s.vectors * s.lanes  # elements of the weights of a column
        chunks = b.udiv(b.add(self.c, i64(LATE_CHANNELS - 1)), i64(LATE_CHANNELS))
        weights = address(b, self.w, b.mul(b.mul(k, chunks), i64(s.kernel[1] * taps)), F32)

        def chunk(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            first_c = b.mul(number, i64(LATE_CHANNELS))
            channels = least(b, b.sub(self.c, first_c), i64(LATE_CHANNELS))

            def column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                w = address(b, weights, b.mul(b.add(b.mul(number, i64(s.kernel[1])), j), i64(taps)), F32)
                add(_Column(j, first_c, channels, w, address(b, w, i64(taps), F32)))
                return []

            return repeat(b, i64(0), i64(s.kernel[1]), 1, [], column)

        repeat(b, i64(0), chunks, 1, [], chunk)

    def _add_places(self, column: _Column) -> None:
        def some(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._transform(column, first)
            self._multiply(column, first)
            return []

        repeat(self.b, i64(0), i64(self.s.rows.places), TOGETHER, [], some)

    def _transform(self, column: _Column, first: ir.Value) -> None:
        """U from the place `first` on, as [product, c, vectors * lanes]."""
        b, s = self.b, self.s
        after = b.append_basic_block("transformed")
        choice = b.switch(first, after)
        for place in range(0, s.rows.places, TOGETHER):
            block = b.append_basic_block(f"places{place}")
            choice.add_case(i64(place), block)
            b.position_at_end(block)
            products = s.rows.weights[place * s.rows.phases : (place + TOGETHER) * s.rows.phases]
            self._transform_places(column, products)
            b.branch(after)
        b.position_at_end(after)

    def _transform_places(self, column: _Column, products: Matrix) -> None:
        b, s = self.b, self.s
        tap = LATE_CHANNELS * s.vectors * s.lanes  # elements from one tap to the next

        def vector(n: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at = b.mul(n, i64(s.lanes))
            taps = [self._load(column.weights, b.add(at, i64(r * tap))) for r in range(s.kernel[0])]
            for e, value in enumerate(apply(b, products, taps)):
                self._store(value, self.u, b.add(at, i64(e * s.u_place)))
            return []

        repeat(b, i64(0), b.mul(column.channels, i64(s.vectors)), 1, [], vector)

    def _multiply(self, column: _Column, first: ir.Value) -> None:
        """Add U V to M from the place `first` on."""
        b, s = self.b, self.s
        begin, end = self._columns_inside(b.add(self.left, column.number), self.columns)

        def one(place: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            def tile_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                def strip(start: ir.Value, pixels: int) -> None:
                    sums = self._sum_strip(column, first, place, i, b.add(begin, start), pixels)
                    line = b.add(b.mul(place, self.m_place), b.mul(i, self.m_row))
                    self._add_sums(line, b.add(begin, start), sums)

                for_strips(b, b.sub(end, begin), s.pixels, strip)
                return []

            return repeat(b, i64(0), self.rows, 1, [], tile_row)

        def some() -> list[ir.Value]:
            return repeat(b, first, least(b, b.add(first, i64(TOGETHER)), i64(s.rows.places)), 1, [], one)

        when(b, b.icmp_signed("<", begin, end), some)

    def _sum_strip(
        self, column: _Column, first: ir.Value, place: ir.Value, row: ir.Value, start: ir.Value, pixels: int
    ) -> list[ir.Value]:
        """The products of a place, for some pixels."""
        b, s, lanes = self.b, self.s, self.s.lanes
        phases, last = s.rows.phases, s.rows.last
        at = b.add(b.mul(b.udiv(column.first_c, i64(lanes)), self.v_block), b.mul(row, self.v_row))
        v = address(b, self.v, b.add(at, b.mul(b.add(start, column.number), i64(lanes))), F32)

        def product(e: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            u = address(b, self.u, b.mul(b.sub(e, b.mul(first, i64(phases))), i64(s.u_place)), F32)
            x = address(b, v, b.mul(e, self.v_place), F32)
            turn, turns = b.add(b.mul(e, self.rows), row), b.mul(self.rows, i64(s.rows.products))
            return self._sum_blocks(column, sums, u, x, self.v_block, self._share(column, turn, turns))

        begin, fewer = b.mul(place, i64(phases)), b.icmp_signed("==", place, i64(s.rows.places - 1))
        end = b.add(begin, b.select(fewer, i64(last), i64(phases)))
        return repeat(b, begin, end, 1, zeros(lanes, s.vectors, pixels), product)

    def _sum_blocks(
        self,
        column: _Column,
        sums: list[ir.Value],
        weights: ir.Value,
        x: ir.Value,
        x_block: ir.Value,
        coming: ir.Value,
    ) -> list[ir.Value]:
        """The sums, and what the channels of the column add for one row of inputs and of weights.

        A cache line of the weights that are `coming` is asked for with each channel.
        """
        b, lanes, vectors, rest = self.b, self.s.lanes, self.s.vectors, self.s.c % self.s.lanes
        blocks = b.udiv(column.channels, i64(lanes))

        def block(c: ir.Value, sums: list[ir.Value], channels: int = lanes) -> list[ir.Value]:
            w_c = address(b, weights, b.mul(c, i64(lanes * vectors * lanes)), F32)
            x_c = address(b, x, b.mul(c, x_block), F32)
            ahead = address(b, coming, b.mul(c, i64(lanes * lanes)), F32)
            return sum_channels(b, lanes, sums, vectors, w_c, x_c, channels, lanes, ahead, 1)

        sums = repeat(b, i64(0), blocks, 1, sums, block)
        if rest:  # the lanes beyond C hold anything
            partly = b.icmp_signed("<", column.channels, i64(LATE_CHANNELS))
            sums = when(b, partly, lambda: block(blocks, sums, rest), sums)
        return sums

    def _share(self, column: _Column, turn: ir.Value, turns: ir.Value) -> ir.Value:
        """Where those weights begin that one of so many `turns` asks for. All ask for as many: a core waits for some
        ten lines at a time, and more at once would hold it up (7x7 with 8x8 results: 10 to 15 % more time)."""
        b, s = self.b, self.s
        elements = i64(s.kernel[0] * LATE_CHANNELS * s.vectors * s.lanes)
        return address(b, column.coming, b.udiv(b.mul(elements, turn), turns), F32)

    def _add_sums(self, line: ir.Value, start: ir.Value, sums: list[ir.Value]) -> None:
        """To a line of M, as [column, vectors * lanes], of which M has [place, row of tiles]."""
        b, s = self.b, self.s
        first, pixels = b.add(line, b.mul(start, i64(s.vectors * s.lanes))), len(sums) // s.vectors
        for number, value in enumerate(sums):
            v, pixel = divmod(number, pixels)
            at = b.add(first, i64((pixel * s.vectors + v) * s.lanes))
            self._store(b.fadd(self._load(self.m, at), value), self.m, at)

    # -- few results --------------------------------------------------------------------------------------------------

    def _add_taps(self, column: _Column) -> None:
        """Products with the weights as they are, to sums that lie in M as [row, column, vectors * lanes]."""
        b, s, lanes = self.b, self.s, self.s.lanes
        width, plane = s.vectors * lanes, b.mul(b.mul(self.height, self.width), i64(lanes))
        image = address(b, self.image, b.mul(b.udiv(column.first_c, i64(lanes)), plane), F32)
        begin, end = self._columns_inside(b.add(self.left, column.number), self.columns)

        def row(p: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            top = b.sub(p, self.above)
            taps = taps_inside(b, top, self.height, i64(s.kernel[0]), i64(1))

            def strip(start: ir.Value, pixels: int) -> None:
                first = b.add(begin, start)

                def tap(r: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                    at = b.add(b.mul(b.add(top, r), self.width), b.add(b.add(self.left, column.number), first))
                    x = address(b, image, b.mul(at, i64(lanes)), F32)
                    weights = address(b, column.weights, b.mul(r, i64(LATE_CHANNELS * width)), F32)
                    turn, turns = b.add(b.mul(p, i64(s.kernel[0])), r), b.mul(self.p, i64(s.kernel[0]))
                    return self._sum_blocks(column, sums, weights, x, plane, self._share(column, turn, turns))

                sums = repeat(b, *taps, 1, zeros(lanes, s.vectors, pixels), tap)
                self._add_sums(b.mul(p, b.mul(self.q, i64(width))), first, sums)

            for_strips(b, b.sub(end, begin), s.pixels, strip)
            return []

        def rows() -> list[ir.Value]:
            return repeat(b, i64(0), self.p, 1, [], row)

        when(b, b.icmp_signed("<", begin, end), rows)

    def _write_sums(self, k: ir.Value) -> None:
        b, s, lanes = self.b, self.s, self.s.lanes
        results = b.mul(self.p, self.q)

        def vector(v: ir.Value, k_block: ir.Value, bias: ir.Value | None) -> None:
            def result(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                value = self._load(self.m, b.mul(b.add(b.mul(i, i64(s.vectors)), v), i64(lanes)))
                self._store_result(value, bias, b.mul(b.add(b.mul(k_block, results), i), i64(lanes)))
                return []

            repeat(b, i64(0), results, 1, [], result)

        self._for_vectors(k, vector)

    # -- results: y = AT M --------------------------------------------------------------------------------------------

    def _write_results(self, k: ir.Value) -> None:
        b, s, lanes = self.b, self.s, self.s.lanes
        plane = b.mul(b.mul(self.p, self.q), i64(lanes))

        def vector(v: ir.Value, k_block: ir.Value, bias: ir.Value | None) -> None:
            def tile_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                top = b.mul(b.add(self.first_row, i), i64(s.rows.m))
                line = b.add(b.mul(k_block, plane), b.mul(b.add(b.mul(top, self.q), self.first_column), i64(lanes)))

                def column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    at = b.add(b.mul(i, self.m_row), b.mul(b.add(b.mul(j, i64(s.vectors)), v), i64(lanes)))
                    sums = [self._load(self.m, b.add(at, b.mul(self.m_place, i64(e)))) for e in range(s.rows.places)]
                    for row, value in enumerate(apply(b, s.rows.results, sums)):
                        at = b.add(line, b.mul(b.add(b.mul(self.q, i64(row)), j), i64(lanes)))
                        with b.if_then(b.icmp_signed("<", b.add(top, i64(row)), self.p)):
                            self._store_result(value, bias, at)
                    return []

                return repeat(b, i64(0), self.columns, 1, [], column)

            repeat(b, i64(0), self.rows, 1, [], tile_row)

        self._for_vectors(k, vector)

    def _for_vectors(self, k: ir.Value, vector: Callable[[ir.Value, ir.Value, ir.Value | None], None]) -> None:
        """vector(number, block, bias) for each block of output channels of the register tile `k`."""
        b, lanes, first = self.b, self.s.lanes, self.b.mul(k, i64(self.s.vectors))

        def one(v: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            block = b.add(first, v)
            vector(v, block, self._load(self.bias, b.mul(block, i64(lanes))) if self.bias is not None else None)
            return []

        repeat(b, i64(0), least(b, b.sub(self.k_blocks, first), i64(self.s.vectors)), 1, [], one)

    def _store_result(self, value: ir.Value, bias: ir.Value | None, at: ir.Value) -> None:
        y, *extra = self.targets
        value = self.b.fadd(value, bias) if bias is not None else value
        value = self.kernel.epilogue.emit(self.b, self.s.lanes, [value, *(self._load(e, at) for e in extra)])
        self._store(value, y, at)
