"""The tiles of an image in a Winograd convolution, and which of them a product is for.

Where tiles of 4x4 results do not cover an image, those of its last row and column make fewer: of 14x14, 9 tiles are
whole, 3 make 4x2 results, 3 2x4 and one 2x2. They take the products of 22x22 places, not of 24x24, which are some of
the same: at the same points, with the same weights (`Transform.edges`). So that the tiles of a place are neighbours,
those of the last column come first, then the whole ones, row by row, then those of the last row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from llvmlite import ir

from graphc.codegen.blocks import I1, i64, repeat
from graphc.codegen.kernels.borders import greatest, least
from graphc.codegen.kernels.transforms import Transform
from graphc.codegen.kernels.winograd_shape import Shape

_Run = tuple[ir.Value, ir.Value, Transform]  # tiles along an axis: how many, the first one, and what makes them


@dataclass(frozen=True)
class Kind:
    """Tiles of one size, numbers `begin` to `end`: so many `across`, from this row and column of tiles on."""

    rows: Transform
    columns: Transform
    begin: ir.Value
    end: ir.Value
    across: ir.Value
    row: ir.Value
    column: ir.Value

    def products(self, shape: Shape) -> list[list[int]]:
        """The numbers of what they are transformed to among all products, row by row."""
        counts = self.rows.products, self.columns.products
        return _number_grid(self.rows, self.columns, counts, shape.columns.products)

    def places(self, shape: Shape) -> list[list[int]]:
        """The numbers of the sums of products that results are made of."""
        counts = self.rows.places, self.columns.places
        return _number_grid(self.rows, self.columns, counts, shape.columns.places)


def _number_grid(rows: Transform, columns: Transform, counts: tuple[int, int], width: int) -> list[list[int]]:
    high, wide = (axis.numbers or range(count) for axis, count in zip((rows, columns), counts, strict=True))
    return [[i * width + j for j in wide] for i in high]


class Tiles:
    """Of `rows` x `columns` tiles, the last ones of which are smaller, `count` from number `first` on."""

    def __init__(
        self, b: ir.IRBuilder, shape: Shape, rows: ir.Value, columns: ir.Value, first: ir.Value, count: ir.Value
    ) -> None:
        self.b, self.shape, self.first, self.count = b, shape, first, count
        self._kinds: list[Kind] = []
        high, wide = (_split(b, *axis) for axis in zip(shape.axes, shape.edges, (rows, columns), strict=True))
        begin: ir.Value = i64(0)
        for (across, column, of_columns), (down, row, of_rows) in [
            *product(wide[1:], high[:1]), *product(wide[:1], high), *product(wide[1:], high[1:])
        ]:  # fmt: skip
            end = b.add(begin, b.mul(across, down))
            self._kinds.append(Kind(of_rows, of_columns, begin, end, across, row, column))
            begin = end

    def for_each(self, body: Callable[[Kind, ir.Value, ir.Value, ir.Value], None]) -> None:
        """body(kind, number from the first one on, row, column) for each tile."""
        b, behind = self.b, self.b.add(self.first, self.count)
        for kind in self._kinds:

            def one(tile: ir.Value, _: list[ir.Value], kind: Kind = kind) -> list[ir.Value]:
                number = b.sub(tile, kind.begin)
                row = b.add(kind.row, b.udiv(number, kind.across))
                column = b.add(kind.column, b.urem(number, kind.across))
                body(kind, b.sub(tile, self.first), row, column)
                return []

            repeat(b, greatest(b, kind.begin, self.first), least(b, kind.end, behind), 1, [], one)

    def at_place(self, row: ir.Value, column: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The tiles that have this place of the transformed grid: the number of the first, and how many."""
        b, s = self.b, self.shape
        if not any(s.edges):
            return i64(0), self.count
        whole = [kind for kind in self._kinds if kind.columns is s.columns]
        in_row, in_column = (_has(b, edge, at) for edge, at in zip(s.edges, (row, column), strict=True))
        begin = b.select(in_column, i64(0), whole[0].begin)
        end = b.select(in_row, whole[-1].end, whole[0].end)
        end = b.select(b.and_(in_row, in_column), self._kinds[-1].end, end)
        begin = greatest(b, b.sub(begin, self.first), i64(0))
        return begin, b.sub(least(b, b.sub(end, self.first), self.count), begin)


def _split(b: ir.IRBuilder, axis: Transform, edge: Transform | None, count: ir.Value) -> list[_Run]:
    """Whole tiles along an axis, and the last one, if that is smaller."""
    if edge is None:
        return [(count, i64(0), axis)]
    last = b.sub(count, i64(1))
    return [(last, i64(0), axis), (i64(1), last, edge)]


def _has(b: ir.IRBuilder, edge: Transform | None, place: ir.Value) -> ir.Value:
    """Whether the last tile along an axis has a place."""
    if edge is None:
        return ir.Constant(I1, 1)
    numbers = i64(sum(1 << number for number in edge.numbers))
    return b.trunc(b.lshr(numbers, place), I1)
