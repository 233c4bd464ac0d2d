"""Images whose channels come from other images, each from anywhere: a channel shuffle, a part of one.

ALGORITHM  y[n,c,pixel] = x_s[n, d, pixel] with a constant (s, d) for each c

SCHEDULE   A task is PIECE pixels of a block of channels of an image. Which vectors hold its channels is known, and so
           is which lanes they have there: each vector but the first costs a shuffle of two.

EMIT       `MoveChannels.emit`: a loop over pixels for each block of the result.
"""

from collections.abc import Sequence

from llvmlite import ir

from graphc.codegen.blocks import F32, address, i64, repeat, shuffle
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.relayout import PIECE
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims


class MoveChannels:
    """y of the channels of `sources`, all in blocks of them: channel c is (the source's number, its channel)."""

    scratch = 0

    def __init__(
        self, y: Buffer, sources: Sequence[Buffer], channels: Sequence[tuple[int, int]], target: Target
    ) -> None:
        self.lanes, self.channels, self.buffers = target.lanes, channels, [y, *sources]
        self.name = "move_channels"
        self.reason = f"channels of {len(sources)} {'image' if len(sources) == 1 else 'images'}, shuffled in registers"
        n, c, h, w = y.shape
        blocks, pixels = dims.ceil_div(c, self.lanes), dims.product([h, w])
        pieces = dims.ceil_div(pixels, PIECE)
        self.sizes: list[DimLike] = [blocks, pixels, pieces, *(b.image for b in self.buffers)]
        self.bands = Bands(dims.product([n, blocks]), pieces, 1, 1, w, PIECE)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, c, pixels])
        self.key = f"{self.name} {self.lanes} {channels}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        count = len(self.buffers)
        buffers, (blocks, pixels, pieces, *images) = function.args[:count], function.args[count:-3]
        begin, end, _ = function.args[-3:]

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            piece, number = b.urem(number, pieces), b.udiv(number, pieces)
            block, n = b.urem(number, blocks), b.udiv(number, blocks)
            first = b.mul(piece, i64(PIECE))
            last = least(b, b.add(first, i64(PIECE)), pixels)
            y, *xs = (address(b, p, b.mul(n, image), F32) for p, image in zip(buffers, images, strict=True))
            after = b.append_basic_block("moved")
            choice = b.switch(block, after)
            for i in range(-(-len(self.channels) // self.lanes)):
                case = b.append_basic_block(f"block{i}")
                choice.add_case(i64(i), case)
                b.position_at_end(case)
                self._move(b, i, y, xs, pixels, (first, last))
                b.branch(after)
            b.position_at_end(after)
            return []

        repeat(b, begin, end, 1, [], task)
        b.ret_void()

    def _move(
        self,
        b: ir.IRBuilder,
        block: int,
        y: ir.Value,
        xs: Sequence[ir.Value],
        pixels: ir.Value,
        piece: tuple[ir.Value, ir.Value],
    ) -> None:
        """These pixels of one block of the result; lanes beyond its channels get anything."""
        lanes = self.lanes
        wanted = self.channels[block * lanes : (block + 1) * lanes]
        places = list(dict.fromkeys((s, c // lanes) for s, c in wanted))
        type, plane = ir.VectorType(F32, lanes), b.mul(pixels, i64(lanes))

        def pick(x: ir.Value, y: ir.Value, place: tuple[int, int], first: int) -> ir.Value:
            """The lanes that lie at `place`, which are `first` and those behind it of x and then y; the others of x."""
            order = [first + c % lanes if (s, c // lanes) == place else i for i, (s, c) in enumerate(wanted)]
            order += range(len(order), lanes)
            return shuffle(b, x, order, y)

        def one(pixel: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at, vectors = b.mul(pixel, i64(lanes)), []
            for source, number in places:
                start = b.add(b.mul(plane, i64(number)), at)
                vectors.append(b.load(address(b, xs[source], start, F32), typ=type, align=4))
            result = pick(vectors[0], vectors[0], places[0], 0)
            for place, vector in zip(places[1:], vectors[1:], strict=True):
                result = pick(result, vector, place, lanes)
            b.store(result, address(b, y, b.add(b.mul(plane, i64(block)), at), F32), align=4)
            return []

        repeat(b, *piece, 1, [], one)
