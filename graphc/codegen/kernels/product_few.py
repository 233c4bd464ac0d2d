"""Products with few rows, such as a fully connected layer on a small batch: they wait for the weights.

ALGORITHM  as in product.py, for at most FEW rows of a and y

SCHEDULE   The weights b are read once, in place; a and the sums stay in the first-level cache and the registers.
           Where b lies as it is, some vectors of a row of b are the lanes, all rows of a share them, and k runs down b.
           Where it is turned, the lanes are along k: a tile is some rows of b times all rows of a, and the lanes are
           folded at the end. Weights may be in 24 bits there (short_weights.py).
           In both, the tile takes as many vectors, or rows of b, as the registers hold sums.

EMIT       `FewRows.emit`, with code of its own for numbers of rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from llvmlite import ir

from graphc.codegen.blocks import F32, I1, I8, VOID, address, fold_lanes, i64, intrinsic, mangle, repeat, splat, when
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.product_operands import FEW
from graphc.codegen.kernels.short_weights import BLOCK, BLOCK_BYTES, load_short, short_block
from graphc.codegen.kernels.tile import LINE, for_strips, prefetch, zeros
from graphc.codegen.kernels.transpose import load_some, store_some

if TYPE_CHECKING:
    from graphc.codegen.kernels.product import ProductEmitter

ROWS = (1, 2, 4, FEW)  # with code of their own, where lanes are along k: each takes 0.1 s to compile
WIDEST = 8  # rows of b in a tile: 8 chains of additions fill the pipes
ROWS_AHEAD = 8  # of b asked for: they may all fight for the same lines of the first-level cache, which has 8 or more
VECTORS_AHEAD = 16  # along rows of b: 1 KiB on AVX-512
BLOCKS_AHEAD = 3  # the same of weights in 24 bits
CHUNK = 128  # products that are summed before they are added to others: one chain of all would round too often
CHAIN = 512  # the same for the lanes along k, of which each sums a part
NEAR = 8192  # elements of a that are read again and again: 32 KiB of the first-level cache


class FewRows:
    """The code of one block of a Product, where y has few rows."""

    def __init__(self, product: ProductEmitter) -> None:
        self.p, self.b, self.lanes, self.type = product, product.b, product.g.lanes, product.type
        self.short = product.kernel.operands.b_short
        self.most = max(vectors * pixels for vectors, pixels in product.kernel.tiles.items())

    def emit(self) -> None:
        """The block, as its number of rows wants it."""
        if not self.p.g.turned:
            for_strips(self.b, self.p.m, FEW, lambda _, rows: self._columns(rows))
            return
        for fewer, rows in pairwise((0, *ROWS)):
            b, m = self.b, self.p.m
            with b.if_then(b.and_(b.icmp_signed(">", m, i64(fewer)), b.icmp_signed("<=", m, i64(rows)))):
                self._fold(rows)

    def _multiply(self, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
        return intrinsic(self.b, f"llvm.fmuladd.{mangle(self.type)}", self.type, [x, y, total])

    def _columns(self, rows: int) -> None:
        """Vectors of b as it lies. Sums of CHUNK k lie in scratch, then they are added to y."""
        b, p, lanes = self.b, self.p, self.lanes
        together = max(1, min(WIDEST, self.most * 2 // 3 // rows))
        pitch = i64(p.g.columns)
        start = address(b, p.b_matrix, p.column, F32)
        y = address(b, p.y_all, b.add(p.y_start, p.column), F32)
        whole = b.and_(p.columns, i64(-lanes))
        rest = b.sub(p.columns, whole)

        def group(k: ir.Value, count: int) -> None:
            """Add what `count` k give: their elements of a stay in registers, the rows of b pass."""
            elements = [
                [splat(b, self._element(b.add(b.mul(i64(i), p.a_pitch), b.add(k, i64(q)))), lanes) for i in range(rows)]
                for q in range(count)
            ]
            lines = [address(b, start, b.mul(b.add(k, i64(q)), p.b_pitch), F32) for q in range(count)]
            coming = [address(b, line, b.mul(i64(ROWS_AHEAD), p.b_pitch), F32) for line in lines]

            def vector(column: ir.Value, there: ir.Value | None = None) -> None:
                places = [address(b, line, column, F32) for line in lines]
                loaded = [self._load(place, there) for place in places]
                for line in coming:
                    prefetch(b, address(b, line, column, F32))
                for i in range(rows):
                    place = address(b, p.sums, b.add(b.mul(i64(i), pitch), column), F32)
                    total = b.load(place, typ=self.type, align=4)
                    for x, element in zip(loaded, elements, strict=True):
                        total = self._multiply(x, element[i], total)
                    b.store(total, place, align=4)

            def one(column: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                vector(column)
                return []

            def last() -> list[ir.Value]:
                vector(whole, rest)
                return []

            repeat(b, i64(0), whole, lanes, [], one)
            when(b, b.icmp_signed(">", rest, i64(0)), last)

        def chunk(begin: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            end = least(b, p.depth, b.add(begin, i64(CHUNK)))
            size = i64(4 * rows * p.g.columns)
            intrinsic(b, "llvm.memset.p0.i64", VOID, [p.sums, ir.Constant(I8, 0), size, ir.Constant(I1, 0)])

            def some(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                group(k, together)
                return []

            def single(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                group(k, 1)
                return []

            most = b.sub(end, b.urem(b.sub(end, begin), i64(together)))
            repeat(b, begin, most, together, [], some)
            repeat(b, most, end, 1, [], single)
            later = b.icmp_signed(">", begin, i64(0))

            def add(column: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                there = b.sub(p.columns, column)
                for i in range(rows):
                    place = address(b, p.sums, b.add(b.mul(i64(i), pitch), column), F32)
                    total = b.load(place, typ=self.type, align=4)
                    target = address(b, y, b.add(b.mul(i64(i), p.n), column), F32)
                    before = load_some(b, lanes, target, b.select(later, there, i64(0)))
                    store_some(b, b.fadd(before, total), target, there)
                return []

            return repeat(b, i64(0), p.columns, lanes, [], add)

        repeat(b, i64(0), p.depth, CHUNK, [], chunk)

    def _element(self, at: ir.Value) -> ir.Value:
        return self.b.load(address(self.b, self.p.a, at, F32), typ=F32, align=4)

    def _load(self, place: ir.Value, there: ir.Value | None) -> ir.Value:
        """A vector; of one that is not whole, the first `there` lanes."""
        if there is not None:
            return load_some(self.b, self.lanes, place, there)
        return self.b.load(place, typ=self.type, align=4)

    def _ask_for(self, row: ir.Value, at: ir.Value) -> None:
        """Prefetch what a step of _fold reads of a row of b, some steps before it."""
        b = self.b
        if not self.short:
            prefetch(b, address(b, row, b.add(at, i64(VECTORS_AHEAD * self.lanes)), F32))
            return
        coming = short_block(b, row, b.add(at, i64(BLOCKS_AHEAD * BLOCK)))
        for line in range(0, BLOCK_BYTES, LINE):
            prefetch(b, address(b, coming, i64(line), I8))

    def _load_weights(self, row: ir.Value, at: ir.Value, start: ir.Value, there: ir.Value | None) -> ir.Value:
        """The vector at + start of a row of b."""
        if self.short:  # zeros follow the last one
            return load_short(self.b, self.lanes, short_block(self.b, row, at), start)
        return self._load(address(self.b, row, self.b.add(at, start), F32), there)

    def _fold(self, rows: int) -> None:
        """Lanes along k of b, turned. The results first lie in scratch, as rows of the block's length.

        If there are fewer rows, the last one is taken several times.
        """
        b, p, lanes = self.b, self.p, self.lanes
        together, pitch = min(WIDEST, self.most // rows), i64(p.kernel.room)
        last = b.sub(p.m, i64(1))
        lines = [address(b, p.a, b.mul(least(b, i64(i), last), p.a_pitch), F32) for i in range(rows)]
        step = BLOCK if self.short else lanes
        chunk = min(CHAIN * lanes, NEAR // rows // step * step)

        def tile(first: ir.Value, count: int, begin: ir.Value) -> None:
            weights = [p.weights(b.add(first, i64(r))) for r in range(count)]

            def multiply(at: ir.Value, sums: list[ir.Value], there: ir.Value | None = None) -> list[ir.Value]:
                if there is None:
                    for row in weights:
                        self._ask_for(row, at)
                if rows > 1:
                    return repeat(b, i64(0), i64(step), lanes, sums, lambda start, sums: vector(at, start, sums, there))
                for start in range(0, step, lanes):  # 5 % faster than a loop, and more code
                    sums = vector(at, i64(start), sums, there)
                return sums

            def vector(at: ir.Value, start: ir.Value, sums: list[ir.Value], there: ir.Value | None) -> list[ir.Value]:
                left = there and b.sub(there, start)
                x = [self._load(address(b, line, b.add(at, start), F32), left) for line in lines]
                w = [self._load_weights(row, at, start, left) for row in weights]
                pairs = [(w, v) for w in w for v in x]
                return [self._multiply(w, v, total) for (w, v), total in zip(pairs, sums, strict=True)]

            end = least(b, p.depth, b.add(begin, i64(chunk)))
            whole = b.sub(end, b.and_(b.sub(end, begin), i64(step - 1)))
            rest = b.sub(end, whole)
            sums = repeat(b, begin, whole, step, zeros(lanes, count, rows), multiply)
            sums = when(b, b.icmp_signed(">", rest, i64(0)), lambda: multiply(whole, sums, rest), sums)
            later = b.icmp_signed(">", begin, i64(0))
            for r in range(count):
                for i in range(rows):
                    place = address(b, p.sums, b.add(b.mul(i64(i), pitch), b.add(first, i64(r))), F32)
                    before = b.select(later, b.load(place, typ=F32, align=4), ir.Constant(F32, 0.0))
                    b.store(b.fadd(before, fold_lanes(b, sums[r * rows + i], b.fadd)), place, align=4)

        def some_k(begin: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            def some(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                tile(first, together, begin)
                return []

            def single(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                tile(first, 1, begin)
                return []

            most = b.sub(p.rows, b.urem(p.rows, i64(together)))
            repeat(b, i64(0), most, together, [], some)
            return repeat(b, most, p.rows, 1, [], single)

        repeat(b, i64(0), p.depth, chunk, [], some_k)

        def row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            line = address(b, p.sums, b.mul(i, pitch), F32)

            def vector(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                p.finish(b.load(address(b, line, at, F32), typ=self.type, align=4), i, at)
                return []

            return repeat(b, i64(0), p.rows, lanes, [], vector)

        repeat(b, i64(0), p.m, 1, [], row)
