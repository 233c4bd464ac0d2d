"""Convolutions by Winograd's minimal filtering: F(4x4, 3x3) makes 16 results, which take 144 products directly, by 36.
The other forms stand in winograd_shape.py.

ALGORITHM  For each tile of 4x4 results, on which 6x6 inputs d bear, and each pair of channels:
               y = AT (sum over c: (G w[k,c] GT) * (BT d[c] B)) A
           The sum over c is 36 matrix products, one for each place in the transformed 6x6 grid. At stride 2, a place
           sums over c and the phases: those of even and odd rows and columns, of 5x5 inputs for 2x2 results of 3x3.

SCHEDULE   A task is a block of tiles. It transforms the block's inputs into scratch (V), multiplies for each of the 36
           places with the weights (which were transformed when the network was loaded) into M, and transforms M into
           results. V and M stay in the second-level cache where they fit; the weights, four times those of the layer,
           stream through once for each block, so more tiles a block mean less traffic. Of few tiles, they are not made
           before they are used (winograd_products.py). Most layers are a few blocks:
           56x56 pixels are 9, 28x28 are 1 to 3. Were their number odd, one of two threads would wait for the other at
           the end, so two tasks share the last block then, which come last and take half as long. (One block is two
           such tasks.) To share every block would cost more: each of its tasks transforms all its inputs, or loads all
           its weights. With 2 threads, ResNet-18 takes 4 % less time for that, Inception v3 9 to 12 %.
           The last tiles of a row or column may make fewer results, by fewer places (winograd_tiles.py).
           Places in V and M lie an odd number of cache lines apart: at a multiple of 4 KiB all 36 would fight for the
           same lines of the first-level cache.

EMIT       `WinogradConv.emit`: _read_inputs, the products, _write_results.
"""

from collections.abc import Sequence
from itertools import chain

from llvmlite import ir

from graphc.codegen.blocks import F32, I64, address, constant, i64, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.tile import ask_for, prefetch
from graphc.codegen.kernels.transforms import apply_both_sides
from graphc.codegen.kernels.winograd_products import LateProducts, Operands, StoredProducts
from graphc.codegen.kernels.winograd_shape import Shape
from graphc.codegen.kernels.winograd_tiles import Kind, Tiles
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims
from graphc.ops import Conv2d


class WinogradConv:
    """y = epilogue(conv2d(x, w, b), extra...): x, y and extra in blocks of channels, w transformed, b packed.

    Where `wanted` is 0 in a run, another kernel computes it there.
    """

    def __init__(
        self,
        op: Conv2d,
        shape: Shape,
        y: Buffer,
        x: Buffer,
        u: Buffer,
        bias: Buffer | None,
        extra: Sequence[Buffer],
        wanted: DimLike = 1,
    ) -> None:
        s = self.shape = shape
        self.has_bias, self.epilogue = bias is not None, Epilogue(op.epilogue, len(extra))
        m, n, (r_all, s_all) = s.rows.m, s.columns.m, s.kernel
        self.name = s.name
        direct = m * n * r_all * s_all
        late = "; weights transformed when they are used" if s.late else ""
        last = [edge.m if edge else axis.m for edge, axis in zip(s.edges, s.axes, strict=True)]
        edges = f"; last tiles {last[0]}x{last[1]}" if any(s.edges) else ""
        self.reason = (
            f"stride {s.stride}: {s.products} products for {m * n} results that take {direct} directly{edges}{late}"
        )
        self.buffers = [y, x, u, *([bias] if bias else []), *extra]
        (count, _, height, width), (_, _, p, q) = x.shape, y.shape
        images = dims.product([count, wanted])
        rows, columns = dims.ceil_div(p, s.rows.m), dims.ceil_div(q, s.columns.m)
        all_tiles = dims.product([rows, columns])
        blocks = dims.ceil_div(all_tiles, s.tiles)
        all_blocks = dims.product([images, blocks])
        self.tasks = 2 * dims.ceil_div(all_blocks, 2)
        base = dims.floor_div(all_tiles, blocks)  # tiles of a block, and of the first ones one more
        self.bands = Bands(
            images, blocks, 1, s.rows.m, columns, base, all_tiles - blocks * base, shared=self.tasks - all_blocks
        )
        self.sizes: list[DimLike] = [
            *(height, width, p, q, columns, all_tiles, blocks, all_blocks, self.tasks, op.padding[0], op.padding[1]),
            *(s.c, s.pass_channels, s.c_blocks, s.k_blocks, s.k_tiles, s.half_tiles, s.most_tiles),
            *(s.tiles, s.v_place, s.m_place),
            *(b.image for b in (x, y, *extra)),
        ]
        self.work = dims.product([images, all_tiles, s.products * s.c * s.k])
        partly = s.c % s.lanes, s.k_blocks % s.vectors != 0
        self.key = f"{self.name} {last} {s.lanes} {partly} {bias is not None} {op.epilogue} {len(extra)}"

    @property
    def scratch(self) -> int:
        """V, M, the inputs of one tile and a vector of zeros, and weights that are transformed late."""
        s = self.shape
        patch = (s.rows.side * s.columns.side + 1) * s.lanes
        return 4 * (s.products * s.v_place + s.places * s.m_place + patch + s.late_elements)

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter:
    """The code of one WinogradConv."""

    def __init__(self, kernel: WinogradConv, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.s, self.b = kernel, kernel.shape, b
        count = len(kernel.buffers)
        self.y, self.x, self.u, *rest = function.args[:count]
        self.bias = rest.pop(0) if kernel.has_bias else None
        self.extra = rest
        *sizes, self.begin, self.end, self.scratch = function.args[count:]
        self.height, self.width, self.p, self.q, self.columns, self.all_tiles, self.blocks, *sizes = sizes
        self.all_blocks, self.tasks, self.above, self.before, self.c, pass_channels, *sizes = sizes
        self.c_blocks, self.k_blocks, self.k_tiles, self.half_tiles, self.most_tiles, *sizes = sizes
        self.tiles, self.v_place, self.m_place, *sizes = sizes
        self.x_image, *self.result_images = sizes
        self.type = ir.VectorType(F32, self.s.lanes)
        self.m = address(b, self.scratch, b.mul(self.v_place, i64(self.s.products)), F32)
        self.patch = address(b, self.m, b.mul(self.m_place, i64(self.s.places)), F32)
        self.zeros = address(b, self.patch, i64(self.s.rows.side * self.s.columns.side * self.s.lanes), F32)
        late = address(b, self.zeros, i64(self.s.lanes), F32)
        pointers, sizes = (self.scratch, self.m, self.u, late), (self.c, pass_channels, self.k_tiles, self.tiles)
        operands = Operands(self.s, *pointers, *sizes, self.v_place, self.m_place)
        self.products = (LateProducts if self.s.late else StoredProducts)(b, operands)

    def emit(self) -> None:
        """A task: a block of tiles, or half of the last one where their number is odd. A thread that has both halves
        computes them at once."""
        b = self.b
        b.store(constant(self.type, 0), self.zeros, align=4)

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            second = b.icmp_signed("==", number, self.all_blocks)
            following = b.add(number, i64(1))
            first = b.and_(b.icmp_signed("==", following, self.all_blocks), b.icmp_signed("==", following, self.end))
            first = b.and_(first, b.icmp_signed("<", following, self.tasks))
            new = b.or_(b.not_(second), b.icmp_signed("==", number, self.begin))
            return when(b, new, lambda: self._compute(b.sub(number, b.zext(second, I64)), first, second))

        repeat(b, self.begin, self.end, 1, [], task)
        b.ret_void()

    def _compute(self, block: ir.Value, first_half: ir.Value, second_half: ir.Value) -> list[ir.Value]:
        """One block of tiles, or half of it: half of its output channels, or of its tiles."""
        b, s = self.b, self.s
        block, n = b.urem(block, self.blocks), b.udiv(block, self.blocks)
        base, longer = b.udiv(self.all_tiles, self.blocks), b.urem(self.all_tiles, self.blocks)  # as even as can be
        first = b.add(b.mul(block, base), least(b, block, longer))
        count = b.add(base, b.zext(b.icmp_unsigned("<", block, longer), I64))

        by_tiles = b.icmp_unsigned("==", self.half_tiles, self.k_tiles)
        half = b.select(by_tiles, b.udiv(b.add(count, i64(1)), i64(2)), i64(0))
        first = b.select(second_half, b.add(first, half), first)
        count = b.select(b.and_(first_half, by_tiles), half, b.select(second_half, b.sub(count, half), count))
        start_k = b.select(second_half, b.urem(self.half_tiles, self.k_tiles), i64(0))
        end_k = b.select(first_half, self.half_tiles, self.k_tiles)

        tiles = Tiles(b, s, b.udiv(self.all_tiles, self.columns), self.columns, first, count)

        def part(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            first_k = b.add(start_k, b.mul(number, self.most_tiles))
            k_count = least(b, b.sub(end_k, first_k), self.most_tiles)
            self.products.emit(first_k, k_count, tiles)
            first_block = b.mul(first_k, i64(s.vectors))
            k_blocks = least(b, b.sub(self.k_blocks, first_block), b.mul(k_count, i64(s.vectors)))
            self._write_results(n, tiles, first_block, k_blocks)
            return []

        def compute() -> list[ir.Value]:
            self._read_inputs(n, tiles)
            parts = b.udiv(b.add(b.sub(end_k, start_k), b.sub(self.most_tiles, i64(1))), self.most_tiles)
            return repeat(b, i64(0), parts, 1, [], part)

        return when(b, b.icmp_signed(">", count, i64(0)), compute)  # half of one tile is none

    def _vector(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        offset = i64(offset) if isinstance(offset, int) else offset
        return self.b.load(address(self.b, pointer, offset, F32), typ=self.type, align=4)

    # -- inputs: V = BT d B -------------------------------------------------------------------------------------------

    def _read_inputs(self, n: ir.Value, tiles: Tiles) -> list[ir.Value]:
        b, lanes = self.b, self.s.lanes
        plane = b.mul(b.mul(self.height, self.width), i64(lanes))
        image = address(b, self.x, b.mul(n, self.x_image), F32)

        def block(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            source = address(b, image, b.mul(c, plane), F32)

            def one(kind: Kind, t: ir.Value, row: ir.Value, column: ir.Value) -> None:
                rows, columns = kind.rows.side, kind.columns.side
                top = b.sub(b.mul(row, i64(self.s.rows.m * self.s.stride)), self.above)
                left = b.sub(b.mul(column, i64(self.s.columns.m * self.s.stride)), self.before)
                inside = b.and_(self._fits(top, rows, self.height), self._fits(left, columns, self.width))
                start = b.mul(b.add(b.mul(top, self.width), left), i64(lanes))
                when(b, b.not_(inside), lambda: self._fill_patch(source, top, left, rows, columns))
                x = b.select(inside, address(b, source, start, F32), self.patch)
                x_row = b.select(inside, b.mul(self.width, i64(lanes)), i64(columns * lanes))
                grid = [
                    [self._vector(address(b, x, b.mul(x_row, i64(i)), F32), j * lanes) for j in range(columns)]
                    for i in range(rows)
                ]
                for i in range(rows):  # what the next tile reads beside that
                    for j in range(kind.columns.m * self.s.stride):
                        prefetch(b, address(b, x, b.add(b.mul(x_row, i64(i)), i64((columns + j) * lanes)), F32))
                place = b.mul(b.add(b.mul(c, self.tiles), t), i64(lanes))
                results = apply_both_sides(b, kind.rows.data, kind.columns.data, grid)
                for number, value in zip(chain(*kind.products(self.s)), chain(*results), strict=True):
                    at = b.add(place, b.mul(self.v_place, i64(number)))
                    b.store(value, address(b, self.scratch, at, F32), align=4)

            tiles.for_each(one)
            return []

        return repeat(b, i64(0), self.c_blocks, 1, [], block)

    def _fits(self, start: ir.Value, side: int, extent: ir.Value) -> ir.Value:
        b = self.b
        return b.and_(b.icmp_signed(">=", start, i64(0)), b.icmp_signed("<=", b.add(start, i64(side)), extent))

    def _fill_patch(self, source: ir.Value, top: ir.Value, left: ir.Value, rows: int, columns: int) -> list[ir.Value]:
        """The inputs of a tile that reaches outside the image, with zeros there."""
        b, lanes = self.b, self.s.lanes
        inside = [b.icmp_unsigned("<", b.add(left, i64(j)), self.width) for j in range(columns)]

        def line(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            row = b.add(top, i)
            row_inside = b.icmp_unsigned("<", row, self.height)
            start = b.mul(b.add(b.mul(row, self.width), left), i64(lanes))
            place = b.mul(i, i64(columns * lanes))
            for j in range(columns):
                at = address(b, source, b.add(start, i64(j * lanes)), F32)
                value = self._vector(b.select(b.and_(row_inside, inside[j]), at, self.zeros), 0)
                b.store(value, address(b, self.patch, b.add(place, i64(j * lanes)), F32), align=4)
            return []

        return repeat(b, i64(0), i64(rows), 1, [], line)

    # -- results: y = AT M A ------------------------------------------------------------------------------------------

    def _write_results(self, n: ir.Value, tiles: Tiles, first_block: ir.Value, k_blocks: ir.Value) -> None:
        b, s, lanes = self.b, self.s, self.s.lanes
        plane = b.mul(b.mul(self.p, self.q), i64(lanes))
        images = [b.mul(n, image) for image in self.result_images]
        self.targets = [address(b, p, start, F32) for p, start in zip((self.y, *self.extra), images, strict=True)]

        def block(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            k_block = b.add(first_block, k)
            image = b.mul(k_block, plane)
            bias = self._vector(self.bias, b.mul(k_block, i64(lanes))) if self.bias is not None else None

            def one(kind: Kind, t: ir.Value, row: ir.Value, column: ir.Value) -> None:
                place = b.mul(b.add(b.mul(k, self.tiles), t), i64(lanes))
                grid = [
                    [self._vector(self.m, b.add(place, b.mul(self.m_place, i64(number)))) for number in line]
                    for line in kind.places(s)
                ]
                results = apply_both_sides(b, kind.rows.results, kind.columns.results, grid)
                if bias is not None:
                    results = [[b.fadd(v, bias) for v in line] for line in results]
                top, left = b.mul(row, i64(s.rows.m)), b.mul(column, i64(s.columns.m))
                start = b.add(image, b.mul(b.add(b.mul(top, self.q), left), i64(lanes)))
                for i in range(kind.rows.m):  # where the next tile is stored
                    for j in range(kind.columns.m, 2 * kind.columns.m):
                        at = b.add(start, b.mul(b.add(b.mul(self.q, i64(i)), i64(j)), i64(lanes)))
                        ask_for(b, at, self.targets)
                self._store_tile(results, start, b.sub(self.p, top), b.sub(self.q, left))

            tiles.for_each(one)
            return []

        repeat(b, i64(0), k_blocks, 1, [], block)

    def _store_tile(self, results: list[list[ir.Value]], start: ir.Value, rows: ir.Value, columns: ir.Value) -> None:
        """Store the results that lie in the image: `rows` and `columns` are there from the tile's first one on."""
        b, lanes, m, n = self.b, self.s.lanes, len(results), len(results[0])
        whole = b.and_(b.icmp_signed(">=", rows, i64(m)), b.icmp_signed(">=", columns, i64(n)))
        line_step = b.mul(self.q, i64(lanes))

        def store(value: ir.Value, at: ir.Value) -> None:
            y, *extra = self.targets
            value = self.kernel.epilogue.emit(b, lanes, [value, *(self._vector(e, at) for e in extra)])
            b.store(value, address(b, y, at, F32), align=4)

        def all_of_them() -> list[ir.Value]:
            for i, line in enumerate(results):
                for j, value in enumerate(line):
                    store(value, b.add(b.add(start, b.mul(line_step, i64(i))), i64(j * lanes)))
            return []

        def some() -> list[ir.Value]:
            for number, value in enumerate(v for line in results for v in line):
                b.store(value, address(b, self.patch, i64(number * lanes), F32), align=4)

            def line(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                def pixel(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    value = self._vector(self.patch, b.mul(b.add(b.mul(i, i64(n)), j), i64(lanes)))
                    store(value, b.add(b.add(start, b.mul(line_step, i)), b.mul(j, i64(lanes))))
                    return []

                return repeat(b, i64(0), least(self.b, columns, i64(n)), 1, [], pixel)

            return repeat(b, i64(0), least(self.b, rows, i64(m)), 1, [], line)

        when(b, whole, all_of_them)
        when(b, b.not_(whole), some)
