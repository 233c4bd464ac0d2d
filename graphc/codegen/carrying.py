"""Rows that tiles pass on: a strip is a column of tiles, run from the top of the image to its bottom.

A tile sees `overlap` pixels of the one above it once more, and of each value it has rows there that were computed
already. It computes the rows behind those alone. Of these, the last ones that it needs as inputs are carried over.

Along the rows, a value of stride s is known up to, but without, row end/s - behind, where `end` is the last multiple of
`align` that a tile sees; what the next tile computes needs it from row end/s - needed on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from graphc.codegen.kernels.carry_rows import CarryRows
from graphc.codegen.nest import Buffer
from graphc.ir import Dim, DimLike, Value, dims

# What a run is told beside the sizes, each 0 or 1: whether it continues the tile before it in a strip, and whether
# another one continues it. Such names are not those of a network's sizes.
OWN = "_"
CONTINUES, CONTINUED = f"{OWN}continues", f"{OWN}continued"
ALONE = {CONTINUES: 0, CONTINUED: 0}
Span = tuple[DimLike, DimLike]  # rows: from, and up to but without


@dataclass(frozen=True)
class Rows:
    """Of a value: pixels from one row to the next, and which rows there are, and are needed, at a tile's end.

    Those between are `carried` over, or computed anew.
    """

    stride: Fraction
    behind: int
    needed: int
    carried: bool


@dataclass(frozen=True)
class Carry:
    """What the tiles of a strip have in common."""

    height: Dim  # of the image
    align: int
    overlap: int
    rows: Mapping[Value, Rows]

    def used(self, value: Value) -> Span | None:
        """The rows of a value that a tile has, of those that it needs; None if these may be any."""
        known = self.rows.get(value)
        return self._span(value, known, known.needed) if known else None

    def computed(self, value: Value) -> Span | None:
        """The rows of a value that a tile computes; None if these may be any."""
        known = self.rows.get(value)
        if known is None:
            return None
        return self._span(value, known, known.behind if known.carried else known.needed)

    def carry(self, value: Value, buffer: Buffer) -> tuple[Buffer, Sequence[CarryRows]] | None:
        """Where rows of a value stay, what puts them into its `buffer`, what keeps others; None if there are none."""
        known = self.rows.get(value)
        if known is None or not known.carried or known.needed <= known.behind:
            return None
        n, c, _, w = value.type.shape
        count = known.needed - known.behind
        kept = Buffer(f"{value.name}\\carried", value.type.with_shape(n, c, count, w), buffer.layout)
        begins = _count_rows(self.overlap, known.stride) - known.needed
        restore = CarryRows(buffer, begins, kept, 0, count, dims.symbol(CONTINUES))
        keep = CarryRows(kept, 0, buffer, self._end(known) - known.needed, count, dims.symbol(CONTINUED))
        return kept, [restore, keep]

    def _span(self, value: Value, known: Rows, first: int) -> Span:
        begins = dims.symbol(CONTINUES) * (_count_rows(self.overlap, known.stride) - first)
        rows = value.type.shape[2]
        return begins, rows - dims.symbol(CONTINUED) * (rows - self._end(known) + known.behind)

    def _end(self, known: Rows) -> DimLike:
        """The row at the last multiple of `align` that the tile sees."""
        return dims.floor_div(self.height, self.align) * _count_rows(self.align, known.stride)


def _count_rows(pixels: int, stride: Fraction) -> int:
    """How many rows so many pixels are, a multiple of what every stride divides."""
    count = pixels / stride
    assert count.denominator == 1
    return count.numerator
