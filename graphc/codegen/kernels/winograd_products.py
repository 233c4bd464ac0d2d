"""The products of a Winograd convolution: M = U V, a matrix product for each place of the transformed grid.

SCHEDULE   Weights that were transformed when the network was loaded (`StoredProducts`) stream past a block of tiles
           place by place, and V's part of a place stays in the second-level cache for all output channels. Those of a
           place and a register tile stay in the first-level cache for all tiles: of many input channels, some at a
           time; between such passes, M holds the sums. Read from the second-level cache for each strip, weights bound
           the speed there (256 and 512 channels: 10 to 20 % more time).
           Where the block is small, they would come from the last cache or from memory more slowly than they are used:
           36 numbers for the 9 of a filter. Then they are transformed late (`LateProducts`): for one register tile of
           output channels at a time, LATE_CHANNELS input channels at a time, one row of the grid at a time, so that the
           filters, and a row of U made of them, stay in the first-level cache. Between chunks, M holds the sums. 256
           channels of 14x14 take 20 to 30 % less time for that, and the weights a quarter of the memory. (With G w made
           when the network is loaded, 18 numbers, they take 20 % more.)
           The register tile is that of tile.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, Body, address, i64, repeat, when
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.tile import (
    LINE,
    add_saved,
    coming_weights,
    for_strips,
    prefetch,
    save_sums,
    sum_channels,
    zeros,
)
from graphc.codegen.kernels.transforms import Transform, apply
from graphc.codegen.kernels.winograd_shape import LATE_CHANNELS, Shape
from graphc.codegen.kernels.winograd_tiles import Tiles


@dataclass(frozen=True)
class _Place:
    """A sum of products for each tile and output channel: a place of the grid, and the first product it takes."""

    number: ir.Value
    row: ir.Value
    column: ir.Value
    first: ir.Value


@dataclass(frozen=True)
class Operands:
    """Pointers and sizes, as values of the code."""

    shape: Shape
    v: ir.Value
    m: ir.Value
    u: ir.Value  # the weights, as they were packed
    row_of_u: ir.Value  # room for a row of those that are transformed late
    c: ir.Value
    pass_channels: ir.Value  # input channels of a pass over stored weights
    k_tiles: ir.Value  # register tiles of all output channels
    tiles: ir.Value  # of a block, at most
    v_place: ir.Value  # elements from one place to the next
    m_place: ir.Value


class _Products:
    """What both kinds know."""

    def __init__(self, b: ir.IRBuilder, o: Operands) -> None:
        self.b, self.o, self.s = b, o, o.shape
        self.x_block = b.mul(o.tiles, i64(self.s.lanes))  # elements from a block of channels of V, or M, to the next

    def place(self, row: ir.Value, column: ir.Value) -> _Place:
        """The place in this row and column."""
        b, (rows, columns) = self.b, self.s.axes
        first = b.add(b.mul(row, i64(rows.phases * columns.products)), b.mul(column, i64(columns.phases)))
        return _Place(b.add(b.mul(row, i64(columns.places)), column), row, column, first)

    def sum_phases(self, place: _Place, sums: list[ir.Value], product: Body) -> list[ir.Value]:
        """`sums` after each product of the place: the first one, and those of the other phases."""
        b, (rows, columns) = self.b, self.s.axes
        if rows.phases == columns.phases == 1:
            return product(place.first, sums)

        def over_rows(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            start = b.add(place.first, b.mul(i, i64(columns.products)))
            return repeat(b, start, b.add(start, self.count_phases(place.column, columns)), 1, sums, product)

        return repeat(b, i64(0), self.count_phases(place.row, rows), 1, sums, over_rows)

    def count_phases(self, place: ir.Value, axis: Transform) -> ir.Value:
        """How many products a place takes along an axis."""
        last = self.b.icmp_signed("==", place, i64(axis.places - 1))
        return self.b.select(last, i64(axis.last), i64(axis.phases))

    def for_strips(
        self, tiles: Tiles, place: _Place, strip: Callable[[ir.Value, int, ir.Value], None]
    ) -> list[ir.Value]:
        """strip(first tile, how many, number of the strip) for those that have the place."""
        b, most = self.b, self.s.pixels
        first, count = tiles.at_place(place.row, place.column)

        def one(start: ir.Value, pixels: int) -> None:
            strip(b.add(first, start), pixels, b.udiv(b.add(start, i64(most - 1)), i64(most)))

        def some() -> list[ir.Value]:
            for_strips(b, count, most, one)
            return []

        return when(b, b.icmp_signed(">", count, i64(0)), some)

    def find_sums(self, place: _Place, k: ir.Value, start: ir.Value, pixels: int) -> list[ir.Value]:
        """Where the sums of a strip and the register tile `k` of those in M lie."""
        b, s = self.b, self.s
        first = b.add(b.mul(place.number, self.o.m_place), b.mul(b.mul(k, i64(s.vectors)), self.x_block))
        found = []
        for v in range(s.vectors):
            line = b.add(b.add(first, b.mul(self.x_block, i64(v))), b.mul(start, i64(s.lanes)))
            found += [address(b, self.o.m, b.add(line, i64(i * s.lanes)), F32) for i in range(pixels)]
        return found

    def add_sums(self, place: _Place, k: ir.Value, start: ir.Value, first_c: ir.Value, sums: list[ir.Value]) -> None:
        """Add the sums of a strip over some input channels to those over the channels before."""
        b = self.b
        places = self.find_sums(place, k, start, len(sums) // self.s.vectors)
        save_sums(b, places, add_saved(b, b.icmp_signed(">", first_c, i64(0)), places, sums))


class StoredProducts(_Products):
    """u is G w GT: [product, tile of k, c, vectors * lanes]."""

    def emit(self, first_k: ir.Value, k_count: ir.Value, tiles: Tiles) -> None:
        """M of these tiles and `k_count` register tiles of output channels."""
        b, s = self.b, self.s
        passes = b.udiv(b.add(self.o.c, b.sub(self.o.pass_channels, i64(1))), self.o.pass_channels)

        def one(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            place = self.place(b.udiv(number, i64(s.columns.places)), b.urem(number, i64(s.columns.places)))

            def k_tile(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                def some(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    first_c = b.mul(number, self.o.pass_channels)
                    return self.for_strips(tiles, place, lambda *at: self._strip(place, first_k, k, first_c, *at))

                return repeat(b, i64(0), passes, 1, [], some)

            return repeat(b, i64(0), k_count, 1, [], k_tile)

        repeat(b, i64(0), i64(s.places), 1, [], one)

    def _strip(
        self,
        place: _Place,
        first_k: ir.Value,
        k: ir.Value,
        first_c: ir.Value,
        start: ir.Value,
        pixels: int,
        number: ir.Value,
    ) -> None:
        """The sums over the input channels of one pass, of the register tile `k` from the first one on."""
        b, s = self.b, self.s
        width, rest = s.vectors * s.lanes, s.c % s.lanes
        left = b.sub(self.o.c, first_c)
        channels = least(b, left, self.o.pass_channels)
        ahead, lines = coming_weights(b, b.mul(channels, i64(width)), s.vectors, number)
        first_x = b.mul(b.udiv(first_c, i64(s.lanes)), self.x_block)

        def product(number: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            at = b.add(b.mul(number, self.o.v_place), b.add(first_x, b.mul(start, i64(s.lanes))))
            x = address(b, self.o.v, at, F32)
            number = b.add(b.mul(number, self.o.k_tiles), b.add(first_k, k))
            at = b.mul(b.add(b.mul(number, self.o.c), first_c), i64(width))
            weights = address(b, self.o.u, at, F32)

            def block(c: ir.Value, sums: list[ir.Value], channels: int = s.lanes) -> list[ir.Value]:
                w = address(b, weights, b.mul(c, i64(s.lanes * width)), F32)
                x_c = address(b, x, b.mul(c, self.x_block), F32)
                coming = address(b, weights, b.add(ahead, b.mul(c, i64(s.lanes * lines * s.lanes))), F32)
                return sum_channels(b, s.lanes, sums, s.vectors, w, x_c, channels, s.lanes, coming, lines)

            blocks = b.udiv(channels, i64(s.lanes))
            sums = repeat(b, i64(0), blocks, 1, sums, block)
            if rest:  # the lanes beyond C hold anything
                last = b.icmp_signed("<=", left, self.o.pass_channels)
                sums = when(b, last, lambda: block(blocks, sums, rest), sums)
            return sums

        sums = self.sum_phases(place, zeros(s.lanes, s.vectors, pixels), product)
        self.add_sums(place, k, start, first_c, sums)


class LateProducts(_Products):
    """u is w: [tile of k, c, tap, vectors * lanes]."""

    def emit(self, first_k: ir.Value, k_count: ir.Value, tiles: Tiles) -> None:
        """M of these tiles and one register tile of output channels: there is no room for more."""
        b, s = self.b, self.s
        taps = s.kernel[0] * s.kernel[1] * s.vectors * s.lanes  # elements of a channel's weights

        def chunk(first_c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            channels = least(b, b.sub(self.o.c, first_c), i64(LATE_CHANNELS))
            weights = address(b, self.o.u, b.mul(b.add(b.mul(first_k, self.o.c), first_c), i64(taps)), F32)
            coming = address(b, weights, b.mul(channels, i64(taps)), F32)

            def row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                self._transform(i, weights, channels)

                def column(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    place = self.place(i, j)
                    self._ask_for_share(coming, place.number)
                    return self.for_strips(tiles, place, lambda *strip: self._strip(place, first_c, *strip))

                return repeat(b, i64(0), i64(s.columns.places), 1, [], column)

            return repeat(b, i64(0), i64(s.rows.places), 1, [], row)

        repeat(b, i64(0), self.o.c, LATE_CHANNELS, [], chunk)

    def _strip(self, place: _Place, first_c: ir.Value, start: ir.Value, pixels: int, _: ir.Value) -> None:
        """Add the products of one chunk to M."""
        b, s = self.b, self.s
        width, rest = s.vectors * s.lanes, s.c % s.lanes
        left = b.sub(self.o.c, first_c)
        blocks = b.udiv(least(b, left, i64(LATE_CHANNELS)), i64(s.lanes))
        first_row = b.mul(place.row, i64(s.rows.phases * s.columns.products))

        def product(number: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            at = b.add(b.mul(number, self.o.v_place), b.mul(b.udiv(first_c, i64(s.lanes)), self.x_block))
            x = address(b, self.o.v, b.add(at, b.mul(start, i64(s.lanes))), F32)
            for i in range(pixels):  # of the next chunk, from the last cache: 512 channels of 14x14 take 14 % less time
                prefetch(b, address(b, x, b.add(self.x_block, i64(i * s.lanes)), F32), level=2)
            w = address(b, self.o.row_of_u, b.mul(b.sub(number, first_row), i64(s.u_place)), F32)

            def block(c: ir.Value, sums: list[ir.Value], channels: int = s.lanes) -> list[ir.Value]:
                w_c = address(b, w, b.mul(c, i64(s.lanes * width)), F32)
                x_c = address(b, x, b.mul(c, self.x_block), F32)
                return sum_channels(b, s.lanes, sums, s.vectors, w_c, x_c, channels, s.lanes)

            sums = repeat(b, i64(0), blocks, 1, sums, block)
            if rest:
                last = b.icmp_signed("<", left, i64(LATE_CHANNELS))
                sums = when(b, last, lambda: block(blocks, sums, rest), sums)
            return sums

        sums = self.sum_phases(place, zeros(s.lanes, s.vectors, pixels), product)
        self.add_sums(place, i64(0), start, first_c, sums)

    def _ask_for_share(self, coming: ir.Value, number: ir.Value) -> None:
        """Ask for a part of the weights of the next chunk: all places, for all."""
        b, s = self.b, self.s
        lines = -(-4 * LATE_CHANNELS * s.kernel[0] * s.kernel[1] * s.vectors * s.lanes // (LINE * s.places))

        def ask(line: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at = b.mul(b.add(b.mul(number, i64(lines)), line), i64(LINE // 4))
            prefetch(b, address(b, coming, at, F32), level=2)
            return []

        repeat(b, i64(0), i64(lines), 1, [], ask)

    def _transform(self, row: ir.Value, weights: ir.Value, channels: ir.Value) -> None:
        """The lines of G w GT whose products are summed in this row of places."""
        b, s = self.b, self.s
        after = b.append_basic_block("transformed")
        choice = b.switch(row, after)
        for i in range(s.rows.places):
            block = b.append_basic_block(f"row{i}")
            choice.add_case(i64(i), block)
            b.position_at_end(block)
            first = i * s.rows.phases
            for phase in range(min(s.rows.phases, s.rows.products - first)):
                target = address(b, self.o.row_of_u, i64(phase * s.columns.products * s.u_place), F32)
                self._transform_line(first + phase, weights, target, channels)
            b.branch(after)
        b.position_at_end(after)

    def _transform_line(self, i: int, weights: ir.Value, target: ir.Value, channels: ir.Value) -> None:
        b, s = self.b, self.s
        (r_all, s_all), width, factors = s.kernel, s.vectors * s.lanes, s.rows.weights[i]
        used = [r for r in range(r_all) if factors[r]]
        type = ir.VectorType(F32, s.lanes)

        def vector(n: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            c, v = b.udiv(n, i64(s.vectors)), b.urem(n, i64(s.vectors))
            source = address(b, weights, b.add(b.mul(c, i64(r_all * s_all * width)), b.mul(v, i64(s.lanes))), F32)
            sums = []
            for tap in range(s_all):
                places = [address(b, source, i64((r * s_all + tap) * width), F32) for r in used]
                taps = [b.load(place, typ=type, align=4) for place in places]
                sums += apply(b, (tuple(factors[r] for r in used),), taps)
            for e, value in enumerate(apply(b, s.columns.weights, sums)):
                at = b.add(b.mul(n, i64(s.lanes)), i64(e * s.u_place))
                b.store(value, address(b, target, at, F32), align=4)
            return []

        repeat(b, i64(0), b.mul(channels, i64(s.vectors)), 1, [], vector)
