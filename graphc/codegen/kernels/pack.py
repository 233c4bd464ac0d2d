"""Weights in the order in which a convolution reads them: while a network is trained, they are new in every step.

ALGORITHM  packed[tile, place of (c,r,s), lane] = w[k,c,r,s], where k is the tile's lane; zero beyond K
           turned, for a transposed convolution: w is [C,K,R,S]

SCHEDULE   A task is one vector of output channels. In w, k is the slowest index, in `packed` the fastest: squares of as
           many k as lanes, and as many neighbours in w, are transposed in registers, 4 shuffles for each 16 numbers.
           Number by number, this took longer than a convolution of 512 channels over 8 images of 2x2.

EMIT       `PackWeights.emit`; the place of a tap is the convolution's matter (`Order`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, address, constant, i64, intrinsic, iota, mangle, repeat, splat, when
from graphc.codegen.kernels.transpose import load_columns, transpose
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike

Place = Callable[[ir.IRBuilder, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]


@dataclass(frozen=True)
class Order:
    """Where a convolution's weights lie: [group and tile, outer place, block of c, inner place, c, vectors * lanes].

    `place` emits the outer and inner place of the tap r, s; `key` says which function it is.
    """

    lanes: int
    vectors: int
    groups: int
    tiles: int  # of a group
    c: int  # of a group
    k: int
    c_block: int
    kernel: tuple[int, int]
    outer: int  # places
    inner: int
    turned: bool
    place: Place
    key: str

    @property
    def c_blocks(self) -> int:
        """Blocks of input channels in a group."""
        return -(-self.c // self.c_block)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the packed weights."""
        tile = self.outer, self.c_blocks, self.inner, self.c_block, self.vectors * self.lanes
        return (self.groups * self.tiles, *tile)


class PackWeights:
    """The weights w in an order; what the order has for channels beyond C is never read, and not written."""

    name, scratch, bands = "pack_weights", 0, None
    reason = "squares transposed in registers"

    def __init__(self, order: Order, w: Buffer, y: Buffer) -> None:
        o = self.order = order
        self.buffers = [y.temporary("weights", w.type.with_shape(*o.shape)), w]
        self.sizes: list[DimLike] = [o.tiles, o.c, o.k, o.c_blocks]
        self.tasks: DimLike = o.groups * o.tiles * o.vectors
        elements = w.type.elements
        self.work: DimLike = elements
        code = o.lanes, o.vectors, o.c_block, o.kernel, o.outer, o.inner, o.turned
        self.key = f"{self.name} {code} {o.key}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self.order, b, function).emit()


class _Emitter:
    """The code of one PackWeights."""

    def __init__(self, order: Order, b: ir.IRBuilder, function: ir.Function) -> None:
        self.o, self.b = order, b
        self.packed, self.w, self.tiles, self.c, self.k, self.c_blocks, self.begin, self.end, _ = function.args
        self.taps = order.kernel[0] * order.kernel[1]
        self.type = ir.VectorType(F32, order.lanes)

    def emit(self) -> None:
        """A task: one vector of output channels, over all c, r, s."""
        b, o = self.b, self.o
        taps = i64(self.taps)

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            v, tile = b.urem(number, i64(o.vectors)), b.udiv(number, i64(o.vectors))
            group, in_group = b.udiv(tile, self.tiles), b.urem(tile, self.tiles)
            width = o.vectors * o.lanes
            size = b.mul(self.c_blocks, i64(o.outer * o.inner * o.c_block * width))
            start = b.add(b.mul(tile, size), b.mul(v, i64(o.lanes)))
            self.target = address(b, self.packed, start, F32)
            k = b.add(b.mul(in_group, i64(width)), b.mul(v, i64(o.lanes)))
            self.rows = b.sub(self.k, k)  # output channels that there are from here on
            if o.turned:

                def channel(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    row = b.add(b.mul(b.add(b.mul(group, self.c), c), self.k), k)
                    self._columns(address(b, self.w, b.mul(row, taps), F32), taps, taps, c)
                    return []

                repeat(b, i64(0), self.c, 1, [], channel)
            else:
                length = b.mul(self.c, taps)
                row = b.add(b.mul(group, self.k), k)
                self._columns(address(b, self.w, b.mul(row, length), F32), length, length, i64(0))
            return []

        repeat(b, self.begin, self.end, 1, [], task)
        b.ret_void()

    def _columns(self, w: ir.Value, step: ir.Value, count: ir.Value, first_c: ir.Value) -> None:
        """`count` columns of as many rows as lanes, `step` apart: column e is the tap e from channel first_c on."""
        b, o = self.b, self.o
        all_rows = b.icmp_signed(">=", self.rows, i64(o.lanes))
        squares = b.select(all_rows, b.and_(count, i64(-o.lanes)), i64(0))

        def square(e: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            rows = [self._row(w, step, e, lane) for lane in range(o.lanes)]
            loaded = [b.load(row, typ=self.type, align=4) for row in rows]
            for i, column in enumerate(transpose(b, loaded)):
                self._store(column, b.add(e, i64(i)), first_c)
            return []

        repeat(b, i64(0), squares, o.lanes, [], square)
        rest = self.taps % o.lanes
        if o.turned and rest > 1:  # the same number every time: a narrower square

            def narrow() -> list[ir.Value]:
                start = i64(self.taps - rest)
                rows = [self._row(w, step, start, lane) for lane in range(o.lanes)]
                for i, column in enumerate(load_columns(b, rows, rest, i64(o.lanes))):
                    self._store(column, b.add(start, i64(i)), first_c)
                return []

            when(b, all_rows, narrow)
            squares = b.select(all_rows, count, squares)

        lanes = iota(o.lanes)
        mask = b.icmp_signed("<", lanes, splat(b, self.rows, o.lanes))
        places = b.mul(lanes, splat(b, step, o.lanes))

        def gather(e: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            name = f"llvm.masked.gather.{mangle(self.type)}.v{o.lanes}p0"
            where = address(b, w, b.add(places, splat(b, e, o.lanes)), F32)
            zero = constant(self.type, 0)
            self._store(intrinsic(b, name, self.type, [where, mask, zero]), e, first_c)
            return []

        repeat(b, squares, count, 1, [], gather)

    def _row(self, w: ir.Value, step: ir.Value, e: ir.Value, lane: int) -> ir.Value:
        return address(self.b, w, self.b.add(self.b.mul(step, i64(lane)), e), F32)

    def _store(self, vector: ir.Value, e: ir.Value, first_c: ir.Value) -> None:
        b, o = self.b, self.o
        tap, (_, s_all) = b.urem(e, i64(self.taps)), o.kernel
        c = b.add(first_c, b.udiv(e, i64(self.taps)))
        outer, inner = o.place(b, b.udiv(tap, i64(s_all)), b.urem(tap, i64(s_all)))
        block, in_block = b.udiv(c, i64(o.c_block)), b.urem(c, i64(o.c_block))
        at = b.add(b.mul(b.add(b.mul(outer, self.c_blocks), block), i64(o.inner)), inner)
        at = b.mul(b.add(b.mul(at, i64(o.c_block)), in_block), i64(o.vectors * o.lanes))
        b.store(vector, address(b, self.target, at, F32), align=4)
