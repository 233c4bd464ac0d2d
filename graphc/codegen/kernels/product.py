"""The product of two matrices, or of many pairs of them, each as it lies or turned; the fully connected layer.

ALGORITHM  y[i,j] = epilogue(bias[j] + sum over k of a[i,k] * b[k,j]); turned, a lies as [K,M] and b as [N,K]

SCHEDULE   Rows of one operand pass, element by element, by vectors of the other, in the register tile of tile.py.
           Vectors run along the columns of b. Where b is turned, as weights are in a forward pass, they run along the
           rows of a, and y is made turned, too: then what is transposed element by element is a, which is smaller than
           weights by far. So weights are copied at most, whole vectors, in each of the three products of training, and
           nothing is packed at load but weights that a small batch waits for, into 24 bits (short_weights.py).
           A task is a block of results. It walks K in steps of DEPTH, and copies what each needs: the rows of the
           block, and a panel of vectors, as wide as the tile. The panel then serves all rows from the first-level
           cache. Sums between the steps lie in scratch. What a tile computes beyond the edges is not stored, and
           nothing is read there.
           With at most FEW rows in y, the way of the weights from memory takes longer than all else: they are read
           once, in place (product_few.py).
           All of it depends on sizes alone, and each sum has one order: steps of DEPTH, each from zero.

EMIT       `ProductEmitter.emit`, from the task over steps and panels down to the strip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, I8, address, i64, repeat
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.product_few import FewRows
from graphc.codegen.kernels.product_operands import FEW, Operands
from graphc.codegen.kernels.product_pack import copy_panel, copy_rows, turn_panel
from graphc.codegen.kernels.short_weights import BLOCK, load_short, short_block, short_pitch
from graphc.codegen.kernels.tile import PIXELS, RUN, accumulate, add_saved, for_strips, save_sums, split_vectors, zeros
from graphc.codegen.kernels.transpose import load_some, store_some, transpose
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims

DEPTH = 128  # a panel of 4 vectors takes 32 KiB on AVX-512, of a first-level cache of 48
ROWS = 192  # copied rows take 108 KiB of the second-level cache; 192 rows hide what copying a panel costs
PANELS = 4  # 256 columns on AVX-512: they hide what copying the rows costs, and their sums take 192 KiB
LEAST_TASKS = 16  # smaller blocks, while there are fewer: threads end together, and there may be many
FEWEST_ROWS = 48  # of a block of less than ROWS


@dataclass(frozen=True)
class Blocks:
    """How a product is cut. The tile's rows are those of y, or its columns if `turned`."""

    turned: bool
    lanes: int
    vectors: int  # of a panel, at most
    pixels: int  # rows of a strip, at most
    rows: int  # of a block, at most
    columns: int  # of a block


def make_blocks(o: Operands, target: Target) -> Blocks:
    """Decide tile and blocks."""
    lanes, turned = target.lanes, o.b_turned
    height, width = (o.columns, o.rows) if turned else (o.rows, o.columns)
    tiles = PIXELS[target.registers, target.fused]
    rows, panels = ROWS, PANELS
    if turned:  # the batch is not known: a panel takes as many vectors as there are
        vectors, pixels = max(tiles.items())
    elif isinstance(width, int):
        vectors, pixels = split_vectors(-(-width // lanes), target)
        panels = min(PANELS, max(1, -(-width // (vectors * lanes)) // LEAST_TASKS))
    else:
        vectors, pixels = next(iter(tiles.items()))
    if isinstance(height, int):
        blocks = max(-(-height // ROWS), min(LEAST_TASKS // 2, height // FEWEST_ROWS), 1)
        rows = -(-height // blocks)
    return Blocks(turned, lanes, vectors, pixels, rows, panels * vectors * lanes)


class Product:
    """y = epilogue(a times b + bias, extra...), all dense; only where b is turned there may be more than a and b."""

    bands = None

    def __init__(
        self,
        o: Operands,
        y: Buffer,
        bias: Buffer | None,
        extra: Sequence[Buffer],
        epilogue: str | None,
        target: Target,
        wanted: DimLike = 1,
    ) -> None:
        g = self.blocks = make_blocks(o, target)
        self.operands, self.has_bias, self.epilogue = o, bias is not None, Epilogue(epilogue, len(extra))
        self.tiles = PIXELS[target.registers, target.fused]
        letters = "".join("t" if turned else "n" for turned in (o.a_turned, o.b_turned))
        self.name = f"product_{letters}_{g.vectors}x{g.pixels}"
        self.few = not o.a_turned and not (isinstance(o.rows, int) and o.rows > FEW)
        few = f"; up to {FEW} rows in place" if self.few else ""
        short = "; weights of 24 bits" if o.b_short else ""
        self.reason = f"blocks of {g.rows} x {g.columns}, {DEPTH} deep{few}{short}"
        self.buffers = [y, o.a, o.b, *([bias] if bias else []), *extra]
        height, width = (o.columns, o.rows) if g.turned else (o.rows, o.columns)
        blocks = dims.ceil_div(height, g.rows), dims.ceil_div(width, g.columns)
        a_pitch, b_pitch = o.rows if o.a_turned else o.depth, o.depth if o.b_turned else o.columns
        self.sizes: list[DimLike] = [o.rows, o.columns, o.depth, a_pitch, b_pitch, o.a_step, o.b_step, *blocks]
        self.tasks = dims.product([o.count, *blocks, wanted])
        self.work = dims.product([o.count, o.rows, o.columns, o.depth, wanted])
        self.single = isinstance(o.depth, int) and o.depth <= DEPTH  # one step
        code = letters, g, self.few, self.single, o.b_short, bias is not None, len(extra), target.registers
        self.key = f"{self.name} {code} {epilogue}"

    @property
    def by_depth(self) -> bool:
        """Whether the copied rows are columns in memory: then they are kept so."""
        return self.operands.a_turned and not self.blocks.turned

    @property
    def pitch(self) -> int:
        """Elements from one copied row, or one k of them all, to the next: a cache line more than a power of two."""
        return (_round_up(self.blocks.rows, 16) if self.by_depth else DEPTH) + 16

    @property
    def room(self) -> int:
        """Rows in scratch: a whole strip, or a square, more than there are."""
        return _round_up(self.blocks.rows, 16) + 16

    @property
    def scratch(self) -> int:
        """Sums, copied rows, a copied panel."""
        g = self.blocks
        return 4 * (self.room * g.columns + (DEPTH if self.by_depth else self.room) * self.pitch + self.panel)

    @property
    def panel(self) -> int:
        """Elements of a panel; one square at least."""
        return DEPTH * self.blocks.vectors * self.blocks.lanes

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        ProductEmitter(self, b, function).emit()


def _round_up(x: int, unit: int) -> int:
    return -(-x // unit) * unit


class ProductEmitter:
    """The code of one Product."""

    def __init__(self, kernel: Product, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.g, self.b = kernel, kernel.blocks, b
        count, o = len(kernel.buffers), kernel.operands
        self.y_all, self.a_all, self.b_all, *rest = function.args[:count]
        self.bias = rest.pop(0) if kernel.has_bias else None
        self.extra = rest
        self.m, self.n, self.depth, self.a_pitch, self.b_pitch, self.a_step, self.b_step, *sizes = function.args[count:]
        self.row_blocks, self.column_blocks, self.begin, self.end, self.sums = sizes
        self.copied = address(b, self.sums, i64(kernel.room * self.g.columns), F32)
        size = (DEPTH if kernel.by_depth else kernel.room) * kernel.pitch
        self.panel = address(b, self.copied, i64(size), F32)
        self.type = ir.VectorType(F32, self.g.lanes)
        self.height, self.width = (self.n, self.m) if self.g.turned else (self.m, self.n)
        blocks = self.row_blocks  # all about equally high
        self.block_rows = b.udiv(b.add(self.height, b.sub(blocks, i64(1))), blocks)
        self.a_turned, self.b_turned = o.a_turned, o.b_turned

    def emit(self) -> None:
        """A task: one block of the results of one product."""
        b, g = self.b, self.g

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            column, number = b.urem(number, self.column_blocks), b.udiv(number, self.column_blocks)
            row, which = b.urem(number, self.row_blocks), b.udiv(number, self.row_blocks)
            self.a = address(b, self.a_all, b.mul(which, self.a_step), F32)
            self.b_matrix = address(b, self.b_all, b.mul(which, self.b_step), F32)
            self.y_start = b.mul(which, b.mul(self.m, self.n))
            self.row, self.column = b.mul(row, self.block_rows), b.mul(column, i64(g.columns))
            self.rows = least(b, b.sub(self.height, self.row), self.block_rows)
            self.columns = least(b, b.sub(self.width, self.column), i64(g.columns))
            if not self.kernel.few:
                self._block()
                return []
            with b.if_else(b.icmp_signed("<=", self.m, i64(FEW))) as (few, many):
                with few:
                    FewRows(self).emit()
                with many:
                    self._block()
            return []

        repeat(b, self.begin, self.end, 1, [], task)
        b.ret_void()

    # -- a block ------------------------------------------------------------------------------------------------------

    def _block(self) -> None:
        """The results of a block, step by step."""

        def step(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._step(k, least(self.b, self.b.sub(self.depth, k), i64(DEPTH)))
            return []

        if self.kernel.single:
            step(i64(0), [])
        else:
            repeat(self.b, i64(0), self.depth, DEPTH, [], step)
        if self.g.turned:
            self._turn()

    def _step(self, k: ir.Value, count: ir.Value) -> None:
        """Add what `count` k give to the sums of the block."""
        b, g = self.b, self.g
        self._copy_rows(k, count)
        if g.turned:
            vectors = b.udiv(b.add(self.columns, i64(g.lanes - 1)), i64(g.lanes))

            def panel(start: ir.Value, vectors: int) -> None:
                column = b.mul(start, i64(g.lanes))
                self._copy_panel(k, count, column, vectors)
                most = self.kernel.tiles[vectors]

                def strip(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    self._store_sums(k, row, column, self._sum(count, row, vectors, most), vectors)
                    return []

                repeat(b, i64(0), self.rows, most, [], strip)

            for_strips(b, vectors, g.vectors, panel)
            return

        def one_panel(column: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._copy_panel(k, count, column, g.vectors)
            for_strips(b, self.rows, g.pixels, lambda row, pixels: self._strip(k, count, column, row, pixels))
            return []

        repeat(b, i64(0), self.columns, g.vectors * g.lanes, [], one_panel)

    def _copy_rows(self, k: ir.Value, count: ir.Value) -> None:
        b, pitch = self.b, i64(self.kernel.pitch)
        if self.kernel.by_depth:
            source = address(b, self.a, b.add(b.mul(k, self.a_pitch), self.row), F32)
            copy_rows(b, self.g.lanes, self.copied, pitch, source, self.a_pitch, count, self.rows)
            return
        if self.kernel.operands.b_short:
            self._copy_short_rows(k, count)
            return
        matrix, step = (self.b_matrix, self.b_pitch) if self.g.turned else (self.a, self.a_pitch)
        source = address(b, matrix, b.add(b.mul(self.row, step), k), F32)
        copy_rows(b, self.g.lanes, self.copied, pitch, source, step, self.rows, count, DEPTH)

    def _copy_short_rows(self, k: ir.Value, count: ir.Value) -> None:
        b, lanes = self.b, self.g.lanes

        def row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            source, target = self.weights(i), address(b, self.copied, b.mul(i, i64(self.kernel.pitch)), F32)

            def block(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                weights = short_block(b, source, b.add(k, at))

                def vector(start: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    loaded = load_short(b, lanes, weights, start)
                    b.store(loaded, address(b, target, b.add(at, start), F32), align=4)
                    return []

                return repeat(b, i64(0), i64(BLOCK), lanes, [], vector)

            return repeat(b, i64(0), count, BLOCK, [], block)

        repeat(b, i64(0), self.rows, 1, [], row)

    def weights(self, row: ir.Value) -> ir.Value:
        """The address of a row of this block, where rows are those of a turned b."""
        b, row = self.b, self.b.add(self.row, row)
        if self.kernel.operands.b_short:
            return address(b, self.b_matrix, b.mul(row, short_pitch(b, self.depth)), I8)
        return address(b, self.b_matrix, b.mul(row, self.b_pitch), F32)

    def _copy_panel(self, k: ir.Value, count: ir.Value, column: ir.Value, vectors: int) -> None:
        b, lanes = self.b, self.g.lanes
        matrix, pitch = (self.a, self.a_pitch) if self.g.turned else (self.b_matrix, self.b_pitch)
        first, left = b.add(self.column, column), b.sub(self.columns, column)
        left = least(b, left, i64(vectors * lanes))
        if self.g.turned and not self.a_turned:
            source = address(b, matrix, b.add(b.mul(first, pitch), k), F32)
            turn_panel(b, lanes, vectors, self.panel, source, pitch, count, left)
        else:
            source = address(b, matrix, b.add(b.mul(k, pitch), first), F32)
            copy_panel(b, lanes, vectors, self.panel, source, pitch, count, left)

    # -- strips -------------------------------------------------------------------------------------------------------

    def _sum(self, count: ir.Value, row: ir.Value, vectors: int, pixels: int) -> list[ir.Value]:
        """The register tile: `pixels` copied rows times the copied panel."""
        b, lanes, pitch = self.b, self.g.lanes, self.kernel.pitch
        step, apart = (pitch, 1) if self.kernel.by_depth else (1, pitch)
        rows = address(b, self.copied, b.mul(row, i64(apart)), F32)

        def run(k: ir.Value, sums: list[ir.Value], length: int = RUN) -> list[ir.Value]:
            panel = address(b, self.panel, b.mul(k, i64(vectors * lanes)), F32)
            x = address(b, rows, b.mul(k, i64(step)), F32)
            return accumulate(b, lanes, sums, vectors, panel, x, [i * step for i in range(length)], apart)

        whole = b.and_(count, i64(-RUN))
        sums = repeat(b, i64(0), whole, RUN, zeros(lanes, vectors, pixels), run)
        return repeat(b, whole, count, 1, sums, lambda k, sums: run(k, sums, 1))

    def _places(self, row: ir.Value, column: ir.Value, vectors: int, pixels: int) -> list[ir.Value]:
        """Where the sums of a strip lie between steps, vector by vector."""
        b, g = self.b, self.g
        start = address(b, self.sums, b.add(b.mul(row, i64(g.columns)), column), F32)
        return [address(b, start, i64(i * g.columns + v * g.lanes), F32) for v in range(vectors) for i in range(pixels)]

    def _add_saved(self, k: ir.Value, places: list[ir.Value], sums: list[ir.Value]) -> list[ir.Value]:
        if self.kernel.single:
            return sums
        return add_saved(self.b, self.b.icmp_signed(">", k, i64(0)), places, sums)

    def _store_sums(self, k: ir.Value, row: ir.Value, column: ir.Value, sums: list[ir.Value], vectors: int) -> None:
        places = self._places(row, column, vectors, len(sums) // vectors)
        save_sums(self.b, places, self._add_saved(k, places, sums))

    def _strip(self, k: ir.Value, count: ir.Value, column: ir.Value, row: ir.Value, pixels: int) -> None:
        """A strip of y: its sums to scratch, or after the last step to y."""
        b, g = self.b, self.g
        at = b.add(b.mul(b.add(self.row, row), self.n), b.add(self.column, column))
        y = address(b, self.y_all, b.add(self.y_start, at), F32)
        sums = self._sum(count, row, g.vectors, pixels)
        places = self._places(row, column, g.vectors, pixels)
        sums = self._add_saved(k, places, sums)
        if self.kernel.single:
            self._store(y, b.sub(self.columns, column), sums, pixels)
            return
        with b.if_else(b.icmp_signed(">=", b.add(k, i64(DEPTH)), self.depth)) as (last, more):
            with last:
                self._store(y, b.sub(self.columns, column), sums, pixels)
            with more:
                save_sums(b, places, sums)

    def _store(self, y: ir.Value, left: ir.Value, sums: list[ir.Value], pixels: int) -> None:
        """The sums of a strip to y; `left` columns are there."""
        b, g = self.b, self.g
        lines = [address(b, y, b.mul(i64(i), self.n), F32) for i in range(pixels)]
        parts = [(v * g.lanes, i, sums[v * pixels + i]) for v in range(g.vectors) for i in range(pixels)]
        with b.if_else(b.icmp_signed(">=", left, i64(g.vectors * g.lanes))) as (whole, some):
            with whole:
                for start, i, value in parts:
                    b.store(value, address(b, lines[i], i64(start), F32), align=4)
            with some:
                for start, i, value in parts:
                    store_some(b, value, address(b, lines[i], i64(start), F32), b.sub(left, i64(start)))

    # -- the end of turned products -----------------------------------------------------------------------------------

    def _turn(self) -> None:
        """The sums of a block, whose rows are columns of y: squares of them are transposed."""
        b, g = self.b, self.g
        square = self.panel

        def by_column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            def by_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                (start,) = self._places(i, j, 1, 1)
                places = [address(b, start, i64(lane * g.columns), F32) for lane in range(g.lanes)]
                turned = transpose(b, [b.load(place, typ=self.type, align=4) for place in places])
                for lane, value in enumerate(turned):
                    b.store(value, address(b, square, i64(lane * g.lanes), F32), align=4)

                def line(lane: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    value = b.load(address(b, square, b.mul(lane, i64(g.lanes)), F32), typ=self.type, align=4)
                    self.finish(value, b.add(self.column, b.add(j, lane)), i)
                    return []

                return repeat(b, i64(0), least(b, b.sub(self.columns, j), i64(g.lanes)), 1, [], line)

            return repeat(b, i64(0), self.rows, g.lanes, [], by_row)

        repeat(b, i64(0), self.columns, g.lanes, [], by_column)

    def finish(self, value: ir.Value, row: ir.Value, i: ir.Value) -> None:
        """Bias, epilogue and store, for a vector of a row of y that begins at row `i` of the turned block."""
        b, lanes = self.b, self.g.lanes
        count, column = b.sub(self.rows, i), b.add(self.row, i)
        if self.bias is not None:
            value = b.fadd(value, load_some(b, lanes, address(b, self.bias, column, F32), count))
        at = b.add(self.y_start, b.add(b.mul(row, self.n), column))
        operands = [load_some(b, lanes, address(b, x, at, F32), count) for x in self.extra]
        result = self.kernel.epilogue.emit(b, lanes, [value, *operands])
        store_some(b, result, address(b, self.y_all, at, F32), count)
