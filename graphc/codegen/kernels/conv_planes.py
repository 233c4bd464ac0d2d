"""The convolution into few output channels, with neighbouring pixels of a row in the lanes; its result lies dense.

ALGORITHM  y[n,k,p,q] = epilogue(b[k] + sum over c,r,s of x[n, c, p*stride+r*dilation-pad, q+...] * w[k,c,r,s])
           or, transposed, with windows side by side: y[n, k, i*R+r, j*S+s] = epilogue(b[k] + sum over c of
           x[n,c,i,j] * w[c,k,r,s])

SCHEDULE   With channels in the lanes, 8 of them fill half of an AVX-512 vector, and half of the memory. Here a vector
           is neighbouring pixels of one channel, and all output channels, up to 8, share what is loaded: 8 x 3 sums
           take 3 loads of pixels and 8 of weights for 24 FMAs.
           A task is a few rows on a segment of their columns, for all output channels. It copies the input rows, with
           zeros around: then no strip is special, rows that lie a multiple of 4 KiB apart do not fight for the same
           cache lines, and an input in blocks of channels becomes planes on the way. It walks the segment in strips of
           a few vectors, each down all its rows, so that what a strip reads stays in the first-level cache; meanwhile
           it asks for what the next task copies (3 % of the time for images beyond the caches).

EMIT       `PlanesConv.emit`: _copy, then for each strip _sum and _store.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, I32, address, constant, i64, intrinsic, mangle, repeat, shuffle, splat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import clear_bytes, copy_bytes, least, split_columns, taps_inside
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.planes import Planes
from graphc.codegen.kernels.tile import LINE, ask_for, for_padded_strips, prefetch
from graphc.codegen.kernels.transpose import load_some, store_some, transpose
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike, dims
from graphc.ops import Conv2d, ConvTranspose2d

CHUNK = 32  # input channels that are summed before they are added to the others: see tile.sum_blocks


class PlanesConv:
    """y = epilogue(convolution of x and w, plus b, extra...): all dense but x, which may lie in blocks; w packed."""

    def __init__(
        self,
        op: Conv2d | ConvTranspose2d,
        p: Planes,
        y: Buffer,
        x: Buffer,
        w: Buffer,
        bias: Buffer | None,
        extra: Sequence[Buffer],
    ) -> None:
        self.name = f"conv_planes_{p.sums}x{p.vectors}"
        each = f"{p.phases[0]}x{p.phases[1]} results of each pixel" if max(p.phases) > 1 else "few output channels"
        self.reason = f"{each}: {p.sums} x {p.vectors} vectors of pixels; rows copied"
        self.p, self.buffers, self.has_bias = p, [y, x, w, *([bias] if bias else []), *extra], bias is not None
        self.epilogue = Epilogue(op.epilogue, len(extra))
        (n, _, height, width), (_, _, y_rows, y_columns) = x.shape, y.shape
        above, beside = p.phases
        rows, columns = dims.floor_div(y_rows, above), dims.floor_div(y_columns, beside)
        bands, segments = dims.ceil_div(rows, p.rows), dims.ceil_div(columns, p.segment)
        self.sizes: list[DimLike] = [
            *(height, width, rows, columns, bands, segments, p.segment, p.columns, p.c, p.planes // p.c_block, p.k),
            *p.padding,
            *(b.image for b in (x, y, *extra)),
        ]
        self.bands = Bands(n, bands, segments, above, 1, p.rows)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, y_rows, y_columns, p.tiles * p.channels * p.c, *p.kernel])
        self.scratch = 4 * p.planes * p.copied_rows * p.columns
        self.chunked = p.c > CHUNK
        code = p.lanes, p.sums, p.vectors, p.c_block, p.rows, p.kernel, p.stride, p.dilation, p.phases
        fixed = self.chunked, p.k % p.channels == 0, bias is not None, op.epilogue, len(extra)
        self.key = f"{self.name} {code} {fixed}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


@dataclass(frozen=True)
class _Task:
    """Some rows and columns of an image, as values of the code: of results, or of pixels with several of them."""

    rows: ir.Value
    columns: ir.Value
    top: ir.Value  # input row and column of the first tap, maybe outside
    left: ir.Value
    x: ir.Value  # the image
    y: ir.Value  # offset of the first result in an image
    coming: ir.Value  # the first input element of the next task, maybe outside
    results: list[ir.Value]  # this image in y and in what the epilogue reads beside


class _Emitter:
    """The code of one PlanesConv."""

    def __init__(self, kernel: PlanesConv, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.p, self.b, count = kernel, kernel.p, b, len(kernel.buffers)
        self.y, self.x, self.w, *rest = function.args[:count]
        self.bias = rest.pop(0) if kernel.has_bias else None
        self.extra = rest
        *sizes, self.begin, self.end, self.copy = function.args[count:]
        self.height, self.width, self.rows, self.columns, self.bands, self.segments, *sizes = sizes
        self.segment, self.line, self.channels, self.blocks, self.k, self.above, self.before, *sizes = sizes
        self.x_image, *self.result_images = sizes
        (r, s), (self.phases, self.beside) = self.p.kernel, self.p.phases
        self.plane = b.mul(self.line, i64(self.p.copied_rows))  # copied elements of a channel
        self.x_plane = b.mul(b.mul(self.height, self.width), i64(self.p.c_block))
        self.y_columns = b.mul(self.columns, i64(self.beside))
        self.y_plane = b.mul(b.mul(self.rows, i64(self.phases)), self.y_columns)
        self.row_weights = b.mul(self.channels, i64(s * self.p.sums))
        self.phase_weights = b.mul(self.row_weights, i64(r))
        self.type = ir.VectorType(F32, self.p.lanes)
        self.zero = constant(self.type, 0)

    def emit(self) -> None:
        """Every task in turn: its rows are copied, then convolved tile by tile of output channels."""
        b, p = self.b, self.p

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            t = self._decode(number)
            self._copy(t)

            def tile(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                def strip(start: ir.Value, pixels: int) -> None:
                    self._strip(t, k, start, pixels)

                for_padded_strips(b, t.columns, p.strip, p.lanes, strip)
                return []

            return repeat(b, i64(0), self.k, p.channels, [], tile)

        repeat(b, self.begin, self.end, 1, [], task)
        b.ret_void()

    def _decode(self, number: ir.Value) -> _Task:
        b, p = self.b, self.p
        segment, number = b.urem(number, self.segments), b.udiv(number, self.segments)
        band, n = b.urem(number, self.bands), b.udiv(number, self.bands)
        row, column = b.mul(band, i64(p.rows)), b.mul(segment, self.segment)
        images = [b.mul(n, image) for image in self.result_images]
        x = address(b, self.x, b.mul(n, self.x_image), F32)
        top, left = b.sub(b.mul(row, i64(p.stride)), self.above), b.sub(column, self.before)
        last = b.icmp_signed("==", b.add(segment, i64(1)), self.segments)
        below = b.sub(b.mul(self.width, i64(p.rows * p.stride)), column)
        coming = b.add(b.add(b.mul(top, self.width), left), b.select(last, below, self.segment))
        return _Task(
            least(b, b.sub(self.rows, row), i64(p.rows)),
            least(b, b.sub(self.columns, column), self.segment),
            top,
            left,
            x,
            b.add(b.mul(b.mul(row, i64(self.phases)), self.y_columns), b.mul(column, i64(self.beside))),
            address(b, x, coming, F32),
            [address(b, r, start, F32) for r, start in zip((self.y, *self.extra), images, strict=True)],
        )

    # -- the copied rows ----------------------------------------------------------------------------------------------

    def _copy(self, t: _Task) -> None:
        """The input rows of a task as [c, row, column], zeros where a column is outside the image.

        Rows outside the image are left out.
        """
        b, p = self.b, self.p
        needed = b.add(t.columns, i64((p.kernel[1] - 1) * p.dilation[1]))
        before, inside, after = split_columns(b, t.left, self.width, needed)
        first = b.add(t.left, before)
        rows = b.add(b.mul(b.sub(t.rows, i64(1)), i64(p.stride)), i64((p.kernel[0] - 1) * p.dilation[0] + 1))
        there = taps_inside(b, t.top, self.height, rows, i64(1))

        def block(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            def row(r: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                pixel = b.add(b.mul(b.add(t.top, r), self.width), first)
                source = address(b, t.x, b.add(b.mul(c, self.x_plane), b.mul(pixel, i64(p.c_block))), F32)
                start = b.add(b.mul(b.mul(c, i64(p.c_block)), self.plane), b.mul(r, self.line))
                targets = [
                    address(b, self.copy, b.add(start, b.mul(self.plane, i64(i))), F32) for i in range(p.c_block)
                ]
                for target in targets:
                    clear_bytes(b, target, b.mul(before, i64(4)))
                    clear_bytes(b, address(b, target, b.add(before, inside), F32), b.mul(after, i64(4)))
                middles = [address(b, target, before, F32) for target in targets]
                if p.c_block == 1:
                    copy_bytes(b, middles[0], source, b.mul(inside, i64(4)))
                else:
                    self._copy_block(middles, source, inside)
                return []

            return repeat(b, *there, 1, [], row)

        repeat(b, i64(0), self.blocks, 1, [], block)

    def _copy_block(self, targets: list[ir.Value], source: ir.Value, count: ir.Value) -> None:
        """`count` pixels of a block of channels into as many rows as it has channels, square by square.

        The last square ends with the last pixel, and repeats some of what the one before did.
        """
        b, lanes = self.b, self.p.lanes

        def load(at: ir.Value) -> ir.Value:
            return b.load(address(b, source, b.mul(at, i64(lanes)), F32), typ=self.type, align=4)

        def square(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at = least(b, at, b.sub(count, i64(lanes)))
            columns = transpose(b, [load(b.add(at, i64(i))) for i in range(lanes)])
            for target, column in zip(targets, columns, strict=True):
                b.store(column, address(b, target, at, F32), align=4)
            return []

        def pixel(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            channels = load(at)
            for i, target in enumerate(targets):
                one = b.extract_element(channels, ir.Constant(I32, i))
                b.store(one, address(b, target, at, F32), align=4)
            return []

        with b.if_else(b.icmp_signed(">=", count, i64(lanes))) as (squares, single):
            with squares:
                repeat(b, i64(0), count, lanes, [], square)
            with single:
                repeat(b, i64(0), count, 1, [], pixel)

    # -- strips -------------------------------------------------------------------------------------------------------

    def _strip(self, t: _Task, k: ir.Value, start: ir.Value, pixels: int) -> None:
        """All rows of a task, `pixels` columns from `start` on, for the output channels of a tile from `k` on."""
        b, p, vectors = self.b, self.p, pixels // self.p.lanes
        weights = b.mul(b.udiv(k, i64(p.channels)), b.mul(self.phase_weights, i64(self.phases)))
        w = address(b, self.w, weights, F32)
        first = b.add(b.add(t.y, b.mul(start, i64(self.beside))), b.mul(k, self.y_plane))
        there = b.mul(b.sub(t.columns, start), i64(self.beside))
        if p.c_block == 1:
            self._ask_for_coming(t, start, pixels)

        def row(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            i, phase = b.udiv(number, i64(self.phases)), b.urem(number, i64(self.phases))
            y = b.add(first, b.mul(number, self.y_columns))
            places = [b.add(y, b.mul(self.y_plane, i64(j))) for j in range(p.channels)]
            for place in places:
                for at in range(0, pixels * self.beside, p.lanes):
                    ask_for(b, b.add(place, i64(at)), t.results)
            sums = self._sum(t, address(b, w, b.mul(phase, self.phase_weights), F32), i, start, vectors)
            for j, place in enumerate(places):
                values = sums[j * self.beside * vectors : (j + 1) * self.beside * vectors]
                self._store_channel(t, b.add(k, i64(j)), values, place, there, surely=j == 0)
            return []

        repeat(b, i64(0), b.mul(t.rows, i64(self.phases)), 1, [], row)

    def _ask_for_coming(self, t: _Task, start: ir.Value, pixels: int) -> None:
        """Prefetch what the next task copies, as many columns as a strip has."""
        b, p = self.b, self.p

        def channel(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            plane = address(b, t.coming, b.add(start, b.mul(c, self.x_plane)), F32)
            for r in range(p.copied_rows):
                row = address(b, plane, b.mul(self.width, i64(r)), F32)
                for at in range(0, pixels, LINE // 4):
                    prefetch(b, address(b, row, i64(at), F32), level=2)
            return []

        repeat(b, i64(0), self.channels, 1, [], channel)

    def _sum(self, t: _Task, w: ir.Value, i: ir.Value, start: ir.Value, vectors: int) -> list[ir.Value]:
        """Row `i` of a task, a strip of it: [channel and phase of columns][vector]."""
        b, p = self.b, self.p
        down = b.mul(i, i64(p.stride))
        x = address(b, self.copy, b.add(b.mul(down, self.line), start), F32)
        taps = taps_inside(b, b.add(t.top, down), self.height, i64(p.kernel[0]), i64(p.dilation[0]))
        nothing = [self.zero] * (p.sums * vectors)

        def one_row(r: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            x_row = address(b, x, b.mul(b.mul(r, i64(p.dilation[0])), self.line), F32)
            w_row = address(b, w, b.mul(r, self.row_weights), F32)

            def channel(c: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                w_c = address(b, w_row, b.mul(c, i64(p.kernel[1] * p.sums)), F32)
                return self._accumulate(address(b, x_row, b.mul(c, self.plane), F32), w_c, sums, vectors)

            def chunk(start: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
                end = least(b, b.add(start, i64(CHUNK)), self.channels)
                parts = repeat(b, start, end, 1, nothing, channel)
                return [b.fadd(x, y) for x, y in zip(totals, parts, strict=True)]

            if self.kernel.chunked:
                return repeat(b, i64(0), self.channels, CHUNK, sums, chunk)
            return repeat(b, i64(0), self.channels, 1, sums, channel)

        return repeat(b, *taps, 1, nothing, one_row)

    def _accumulate(self, x: ir.Value, w: ir.Value, sums: list[ir.Value], vectors: int) -> list[ir.Value]:
        """The sums after the taps of one row and channel."""
        b, p, sums = self.b, self.p, list(sums)
        for s in range(p.kernel[1]):
            columns = [s * p.dilation[1] + v * p.lanes for v in range(vectors)]
            pixels = [b.load(address(b, x, i64(at), F32), typ=self.type, align=4) for at in columns]
            for j in range(p.sums):
                weight = b.load(address(b, w, i64(s * p.sums + j), F32), typ=F32, align=4)
                spread = splat(b, weight, p.lanes)
                for v, pixel in enumerate(pixels):
                    at = j * vectors + v
                    sums[at] = intrinsic(b, f"llvm.fmuladd.{mangle(self.type)}", self.type, [pixel, spread, sums[at]])
        return sums

    def _store_channel(
        self, t: _Task, k: ir.Value, sums: list[ir.Value], place: ir.Value, there: ir.Value, surely: bool
    ) -> None:
        """Bias, epilogue and store of channel `k`, if there is one, of which so many results are `there`."""
        b, p = self.b, self.p

        def store() -> list[ir.Value]:
            values = self._interleave(sums)
            if self.bias is not None:
                bias = b.load(address(b, self.bias, k, F32), typ=F32, align=4)
                values = [b.fadd(x, splat(b, bias, p.lanes)) for x in values]
            for i, value in enumerate(values):
                at, left = b.add(place, i64(i * p.lanes)), b.sub(there, i64(i * p.lanes))
                if i < len(values) - self.beside:  # a strip has no more vectors than it takes
                    self._store_vector(value, t, at, None)
                    continue
                with b.if_else(b.icmp_signed(">=", left, i64(p.lanes))) as (whole, partly):
                    with whole:
                        self._store_vector(value, t, at, None)
                    with partly:
                        self._store_vector(value, t, at, left)
            return []

        if surely or p.k % p.channels == 0:
            store()
        else:
            when(b, b.icmp_signed("<", k, self.k), store)

    def _interleave(self, sums: list[ir.Value]) -> list[ir.Value]:
        """The results of a channel in their order, of which `sums` has those of one phase after those of another."""
        b, lanes, found = self.b, self.p.lanes, list[ir.Value]()
        if self.beside == 1:
            return sums
        pairs = zip(sums[: len(sums) // 2], sums[len(sums) // 2 :], strict=True)
        for even, odd in pairs:
            for half in (0, lanes // 2):
                order = [half + i // 2 + lanes * (i % 2) for i in range(lanes)]
                found.append(shuffle(b, even, order, odd))
        return found

    def _store_vector(self, value: ir.Value, t: _Task, at: ir.Value, count: ir.Value | None) -> None:
        """The epilogue over one vector, or its first `count` lanes, stored at this offset in an image."""
        b, lanes = self.b, self.p.lanes
        target, *others = (address(b, r, at, F32) for r in t.results)
        if count is None:
            operands = [b.load(other, typ=self.type, align=4) for other in others]
        else:
            operands = [load_some(b, lanes, other, count) for other in others]
        result = self.kernel.epilogue.emit(b, lanes, [value, *operands])
        if count is None:
            b.store(result, target, align=4)
        else:
            store_some(b, result, target, count)
