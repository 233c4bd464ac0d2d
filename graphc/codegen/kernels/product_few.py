"""Products with few rows, such as a fully connected layer on a small batch: they wait for the weights.

ALGORITHM  as in product.py, for at most FEW rows of a and y

SCHEDULE   The weights b are read once, in place; a and the sums stay in the first-level cache and the registers.
           Where b lies as it is, some vectors of a row of b are the lanes, all rows of a share them, and k runs down b.
           Where it is turned, the lanes are along k: a tile is some rows of b times all rows of a, and the lanes are
           folded at the end.
           In both, the tile takes as many vectors, or rows of b, as the registers hold sums.

EMIT       `FewRows.emit`, with code of its own for each number of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from graphc.codegen.blocks import F32, I1, I8, VOID, address, fold_lanes, i64, intrinsic, mangle, repeat, splat, when
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.tile import for_strips, prefetch, zeros
from graphc.codegen.kernels.transpose import load_some, store_some

if TYPE_CHECKING:
    from graphc.codegen.kernels.product import ProductEmitter

FEW = 8
WIDEST = 8  # rows of b in a tile: 8 chains of additions fill the pipes
ROWS_AHEAD = 8  # of b asked for: they may all fight for the same lines of the first-level cache, which has 8 or more
VECTORS_AHEAD = 16  # along rows of b: 1 KiB on AVX-512
CHUNK = 128  # products that are summed before they are added to others: one chain of all would round too often
CHAIN = 512  # the same for the lanes along k, of which each sums a part
NEAR = 8192  # elements of a that are read again and again: 32 KiB of the first-level cache


class FewRows:
    """The code of one block of a Product, where y has few rows."""

    def __init__(self, product: ProductEmitter) -> None:
        self.p, self.b, self.lanes, self.type = product, product.b, product.g.lanes, product.type
        self.most = max(vectors * pixels for vectors, pixels in product.kernel.tiles.items())

    def emit(self) -> None:
        """The block, as its number of rows wants it."""
        form = self._fold if self.p.g.turned else self._columns
        for_strips(self.b, self.p.m, FEW, lambda _, rows: form(rows))

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

    def _fold(self, rows: int) -> None:
        """Lanes along k of b, turned. The results first lie in scratch, as rows of the block's length."""
        b, p, lanes = self.b, self.p, self.lanes
        together, pitch = min(WIDEST, self.most // rows), i64(p.kernel.room)
        lines = [address(b, p.a, b.mul(i64(i), p.a_pitch), F32) for i in range(rows)]
        start = address(b, p.b_matrix, b.mul(p.row, p.b_pitch), F32)
        chunk = min(CHAIN * lanes, NEAR // rows // lanes * lanes)

        def tile(first: ir.Value, count: int, begin: ir.Value) -> None:
            weights = [address(b, start, b.mul(b.add(first, i64(r)), p.b_pitch), F32) for r in range(count)]

            def multiply(at: ir.Value, sums: list[ir.Value], there: ir.Value | None = None) -> list[ir.Value]:
                if there is None:
                    for w in weights:
                        prefetch(b, address(b, w, b.add(at, i64(VECTORS_AHEAD * lanes)), F32))
                x, w = ([self._load(address(b, line, at, F32), there) for line in ls] for ls in (lines, weights))
                pairs = [(w, v) for w in w for v in x]
                return [self._multiply(w, v, total) for (w, v), total in zip(pairs, sums, strict=True)]

            end = least(b, p.depth, b.add(begin, i64(chunk)))
            whole = b.sub(end, b.and_(b.sub(end, begin), i64(lanes - 1)))
            rest = b.sub(end, whole)
            sums = repeat(b, begin, whole, lanes, zeros(lanes, count, rows), multiply)
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

        repeat(b, i64(0), i64(rows), 1, [], row)
