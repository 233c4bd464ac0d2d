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

from graphc.codegen.blocks import F32, address, fold_lanes, i64, intrinsic, mangle, repeat, splat, when
from graphc.codegen.kernels.tile import for_strips, sum_blocks, zeros
from graphc.codegen.kernels.transpose import load_some, store_some

if TYPE_CHECKING:
    from graphc.codegen.kernels.product import ProductEmitter

FEW = 8
WIDEST = 8  # vectors or rows of b in a tile: 8 chains of additions fill the pipes
CHUNK = 128  # products that are summed before they are added to the others, as in sum_blocks


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
        """Vectors of b as it lies."""
        b, p, lanes = self.b, self.p, self.lanes
        vectors = min(WIDEST, self.most // rows, p.g.columns // lanes)
        row_step, k_step = (i64(1), p.a_pitch) if p.a_turned else (p.a_pitch, i64(1))
        lines = [address(b, p.a, b.mul(i64(i), row_step), F32) for i in range(rows)]
        start = address(b, p.b_matrix, p.column, F32)
        y = address(b, p.y_all, b.add(p.y_start, p.column), F32)

        def tile(column: ir.Value, count: int, there: ir.Value | None) -> None:
            source = address(b, start, column, F32)

            def one(k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                row = address(b, source, b.mul(k, p.b_pitch), F32)
                if there is not None:
                    loaded = [load_some(b, lanes, row, there)]
                else:
                    places = [address(b, row, i64(v * lanes), F32) for v in range(count)]
                    loaded = [b.load(place, typ=self.type, align=4) for place in places]
                at, results = b.mul(k, k_step), list(sums)
                for i, line in enumerate(lines):
                    element = splat(b, b.load(address(b, line, at, F32), typ=F32, align=4), lanes)
                    for v, vector in enumerate(loaded):
                        results[v * rows + i] = self._multiply(vector, element, sums[v * rows + i])
                return results

            sums = sum_blocks(b, p.depth, zeros(lanes, count, rows), one, CHUNK)
            for i in range(rows):
                line = address(b, y, b.add(column, b.mul(i64(i), p.n)), F32)
                for v in range(count):
                    place, value = address(b, line, i64(v * lanes), F32), sums[v * rows + i]
                    if there is not None:
                        store_some(b, value, place, there)
                    else:
                        b.store(value, place, align=4)

        def wide(column: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            tile(column, vectors, None)
            return []

        def narrow(column: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            tile(column, 1, b.sub(p.columns, column))
            return []

        whole = b.sub(p.columns, b.urem(p.columns, i64(vectors * lanes)))
        repeat(b, i64(0), whole, vectors * lanes, [], wide)
        repeat(b, whole, p.columns, lanes, [], narrow)

    def _fold(self, rows: int) -> None:
        """Lanes along k of b, turned. The results first lie in scratch, as rows of the block's length."""
        b, p, lanes = self.b, self.p, self.lanes
        together, pitch = min(WIDEST, self.most // rows), i64(p.kernel.room)
        lines = [address(b, p.a, b.mul(i64(i), p.a_pitch), F32) for i in range(rows)]
        start = address(b, p.b_matrix, b.mul(p.row, p.b_pitch), F32)
        vectors = b.udiv(p.depth, i64(lanes))
        whole = b.mul(vectors, i64(lanes))
        rest = b.sub(p.depth, whole)

        def tile(first: ir.Value, count: int) -> None:
            weights = [address(b, start, b.mul(b.add(first, i64(r)), p.b_pitch), F32) for r in range(count)]

            def multiply(at: ir.Value, sums: list[ir.Value], there: ir.Value | None = None) -> list[ir.Value]:
                def load(line: ir.Value) -> ir.Value:
                    place = address(b, line, at, F32)
                    if there is not None:
                        return load_some(b, lanes, place, there)
                    return b.load(place, typ=self.type, align=4)

                x = [load(line) for line in lines]
                pairs = [(w, v) for w in map(load, weights) for v in x]
                return [self._multiply(w, v, total) for (w, v), total in zip(pairs, sums, strict=True)]

            def one(vector: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                return multiply(b.mul(vector, i64(lanes)), sums)

            sums = sum_blocks(b, vectors, zeros(lanes, count, rows), one, CHUNK)
            sums = when(b, b.icmp_signed(">", rest, i64(0)), lambda: multiply(whole, sums, rest), sums)
            for r in range(count):
                for i in range(rows):
                    at = b.add(b.mul(i64(i), pitch), b.add(first, i64(r)))
                    b.store(fold_lanes(b, sums[r * rows + i], b.fadd), address(b, p.sums, at, F32), align=4)

        def some(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            tile(first, together)
            return []

        def single(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            tile(first, 1)
            return []

        most = b.sub(p.rows, b.urem(p.rows, i64(together)))
        repeat(b, i64(0), most, together, [], some)
        repeat(b, most, p.rows, 1, [], single)

        def row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            line = address(b, p.sums, b.mul(i, pitch), F32)

            def vector(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                p.finish(b.load(address(b, line, at, F32), typ=self.type, align=4), i, at)
                return []

            return repeat(b, i64(0), p.rows, lanes, [], vector)

        repeat(b, i64(0), i64(rows), 1, [], row)
