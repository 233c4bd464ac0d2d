"""Convolutions of images of few channels by minimal filtering along their columns alone, at any stride: of the first
layer of most networks. 7x7 at stride 2 takes 13 * 7 products for 4 results that take 4 * 49 directly.

ALGORITHM  The rows p*stride + r of a phase, one of each `stride` rows, are convolved at stride 1 with every
           stride-th row of taps. For 4 results of one column, on which (4-1)*stride + R rows d bear:
               y[n,k,p..p+3,q] = AT (sum over phases, c, s: (G w[k,c,:,s]) * (BT d[c, :, q*stride+s-pad]))
           All phases have the points of AT in common, so their products are added before AT.

SCHEDULE   A task is 4 rows of results on a segment of their columns. It copies the rows under them, with zeros around,
           transforms them (V), and then for each tile of output channels and a chunk of columns multiplies place by
           place, as the direct convolution does row by row of taps, into M, and transforms M into results. Transforms
           on both sides would take fewer products (F(4x4, 4x4): half), but with 3 channels the products are no more
           than half of the time then; the error would be four times as large.

EMIT       `WinogradRows.emit`: _transform, _multiply, _write_results; conv.py copies rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from llvmlite import ir

from graphc.codegen.blocks import F32, I8, VOID, address, i64, intrinsic, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least
from graphc.codegen.kernels.conv import ConvEmitter, DirectConv, Task
from graphc.codegen.kernels.conv_geometry import Geometry
from graphc.codegen.kernels.tile import accumulate, ask_for, for_strips, zeros
from graphc.codegen.kernels.transforms import apply
from graphc.codegen.kernels.winograd_shape import Shape
from graphc.codegen.nest import Buffer
from graphc.ir import dims
from graphc.ops import Conv2d

# Pixels: with 24, columns that two segments see cost 5 %; with 120, V leaves the first-level cache
LONGEST_SEGMENT = 60
CHUNK_BYTES = 20 * 1024  # of M, beside weights in the first-level cache: 3x3 takes 15 % more time with 40 KiB


@dataclass(frozen=True)
class RowsGeometry(Geometry):
    """The constants, with rows that are whole vectors."""

    chunk: int = 1  # pixels of M

    @property
    def columns(self) -> int:
        """Input columns under a segment, rounded up."""
        return -(-super().columns // self.lanes) * self.lanes

    @property
    def line(self) -> int:
        """Elements of a row of all channels."""
        return self.c_group * self.columns


def make_rows_geometry(g: Geometry, shape: Shape) -> RowsGeometry:
    """From that of the direct convolution: decide segment and chunk."""
    segment, column_bytes = LONGEST_SEGMENT // g.pixels * g.pixels, 4 * shape.rows.places * g.vectors * g.lanes
    chunk = min(max(CHUNK_BYTES // (column_bytes * g.pixels), 1) * g.pixels, segment)
    common = {f.name: getattr(g, f.name) for f in fields(g)}
    return RowsGeometry(**common | {"rows": shape.rows.m, "copied": True, "segment": segment}, chunk=chunk)


class WinogradRows(DirectConv):
    """y = epilogue(conv2d(x, w, b), extra...): x dense, y and extra in blocks of channels, w transformed, b packed."""

    g: RowsGeometry

    def __init__(
        self,
        op: Conv2d,
        g: RowsGeometry,
        shape: Shape,
        y: Buffer,
        x: Buffer,
        u: Buffer,
        bias: Buffer | None,
        extra: Sequence[Buffer],
    ) -> None:
        super().__init__(op, g, y, x, u, bias, extra)
        self.shape, (r, s) = shape, g.kernel
        self.name = shape.name
        m = shape.rows.m
        self.reason = f"columns alone: {shape.products} products for {m} results that take {m * r * s} directly"
        self.sizes[7] = 1  # a task takes all tiles of output channels
        n, _, p, q = y.shape
        self.bands = Bands(n, dims.ceil_div(p, g.rows), dims.ceil_div(q, g.segment), g.rows)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, dims.ceil_div(p, m), q, shape.products * shape.c * shape.k])
        sizes = g.kernel, g.tiles, g.segment, g.chunk
        self.key = f"{self.name} {g.fixed} {sizes} {bias is not None} {op.epilogue} {len(extra)}"

    @property
    def scratch(self) -> int:
        """The copied rows, V and M."""
        g, rows = self.g, self.shape.rows
        return g.copied_bytes + 4 * rows.products * g.line + 4 * rows.places * g.chunk * g.vectors * g.lanes

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter(ConvEmitter):
    """The code of one WinogradRows."""

    kernel: WinogradRows
    g: RowsGeometry

    def task(self, number: ir.Value) -> None:
        b, g, rows = self.b, self.g, self.kernel.shape.rows
        self.v = address(b, self.copy, i64(g.copied_bytes), I8)
        self.m = address(b, self.v, i64(4 * rows.products * g.line), I8)
        t = self.decode(number)
        bottom = b.add(t.top, i64(rows.side))
        inside = b.and_(b.icmp_signed(">=", t.top, i64(0)), b.icmp_signed("<=", bottom, self.height))
        when(b, b.not_(inside), self._clear)
        self.copy_rows(address(b, self.x, t.x, F32), replace(t, rows=i64(rows.m)))
        self._transform()

        def tile(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            first = b.mul(number, i64(g.vectors))
            y = b.add(t.y, b.mul(first, self.y_plane))

            def chunk(start: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                columns = least(b, b.sub(t.columns, start), i64(g.chunk))
                part = replace(
                    t, tile=number, columns=columns, y=b.add(y, b.mul(start, i64(g.lanes))),
                    blocks=b.sub(t.blocks, first),
                )  # fmt: skip
                self._multiply(part, start)
                self._write_results(part)
                return []

            return repeat(b, i64(0), t.columns, g.chunk, [], chunk)

        repeat(b, i64(0), i64(g.tiles), 1, [], tile)

    def _clear(self) -> list[ir.Value]:
        """Zeros for all copied rows: some lie outside the image."""
        values = [self.copy, ir.Constant(I8, 0), i64(self.g.copied_bytes), ir.Constant(ir.IntType(1), 0)]
        intrinsic(self.b, "llvm.memset.p0.i64", VOID, values)
        return []

    def _load(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        return self.b.load(address(self.b, pointer, offset, F32), typ=self.type, align=4)

    def _transform(self) -> None:
        """V = BT d, all channels and columns of a row in one loop."""
        b, g, data = self.b, self.g, self.kernel.shape.rows.data

        def one(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            rows = [self._load(self.copy, b.add(at, i64(i * g.line))) for i in range(len(data[0]))]
            for e, value in enumerate(apply(b, data, rows)):
                b.store(value, address(b, self.v, b.add(at, i64(e * g.line)), F32), align=4)
            return []

        repeat(b, i64(0), i64(g.line), g.lanes, [], one)

    def _multiply(self, t: Task, first: ir.Value) -> None:
        """M = the sums of U V over phases, taps of a row and channels; `first` column of the segment."""
        b, g, rows = self.b, self.g, self.kernel.shape.rows
        width, (_, s_all) = g.vectors * g.lanes, g.kernel
        tap = g.tiles * g.c_group * width  # elements of U from one product to the next
        pairs = [(c, s) for c in range(g.c_group) for s in range(s_all)]  # neighbouring taps share elements of V
        weights = address(b, self.w, b.mul(t.tile, i64(g.c_group * width)), F32)
        v = address(b, self.v, b.mul(first, i64(g.stride[1])), F32)

        def place(e: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            phases = b.select(b.icmp_signed("<", e, i64(rows.places - 1)), i64(rows.phases), i64(rows.last))
            result = address(b, self.m, b.mul(e, i64(g.chunk * width)), F32)

            def strip(start: ir.Value, pixels: int) -> None:
                def ask() -> list[ir.Value]:
                    line = b.add(t.y, b.mul(b.add(b.mul(e, self.q), start), i64(g.lanes)))
                    for vector in range(g.vectors):
                        for i in range(pixels):
                            ask_for(
                                b, b.add(line, b.add(b.mul(self.y_plane, i64(vector)), i64(i * g.lanes))), t.results
                            )
                    return []

                when(b, b.icmp_signed("<", e, t.rows), ask)

                def phase(f: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                    product = b.add(b.mul(e, i64(rows.phases)), f)
                    x = address(b, v, b.add(b.mul(product, i64(g.line)), b.mul(start, i64(g.stride[1]))), F32)
                    w = address(b, weights, b.mul(product, i64(s_all * tap)), F32)
                    for c, s in pairs:
                        x_tap = address(b, x, i64(c * g.columns + s), F32)
                        w_tap = address(b, w, i64(s * tap + c * width), F32)
                        sums = accumulate(b, g.lanes, sums, g.vectors, w_tap, x_tap, [0], g.stride[1])
                    return sums

                sums = repeat(b, i64(0), phases, 1, zeros(g.lanes, g.vectors, pixels), phase)
                for number, value in enumerate(sums):
                    vector, i = divmod(number, pixels)
                    at = b.add(b.mul(start, i64(width)), i64(i * width + vector * g.lanes))
                    b.store(value, address(b, result, at, F32), align=4)

            for_strips(b, t.columns, g.pixels, strip)
            return []

        repeat(b, i64(0), i64(rows.places), 1, [], place)

    def _write_results(self, t: Task) -> None:
        """y = AT M, bias, epilogue."""
        b, g, rows = self.b, self.g, self.kernel.shape.rows
        width = g.vectors * g.lanes

        def pixel(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            for v in range(g.vectors):

                def vector(v: int = v) -> list[ir.Value]:
                    at = b.add(b.mul(i, i64(width)), i64(v * g.lanes))
                    sums = [self._load(self.m, b.add(at, i64(e * g.chunk * width))) for e in range(rows.places)]
                    values = apply(b, rows.results, sums)
                    if self.bias is not None:
                        place = b.add(b.mul(t.tile, i64(width)), i64(v * g.lanes))
                        bias = self._load(self.bias, place)
                        values = [b.fadd(x, bias) for x in values]
                    start = b.add(b.add(t.y, b.mul(self.y_plane, i64(v))), b.mul(i, i64(g.lanes)))
                    for r, value in enumerate(values):

                        def store(r: int = r, value: ir.Value = value) -> list[ir.Value]:
                            self.store_vector(value, t, b.add(start, b.mul(self.q, i64(r * g.lanes))))
                            return []

                        when(b, b.icmp_signed("<", i64(r), t.rows), store)
                    return []

                if g.k_blocks % g.vectors == 0 or v == 0:
                    vector()
                else:
                    when(b, b.icmp_signed("<", i64(v), t.blocks), vector)
            return []

        repeat(b, i64(0), t.columns, 1, [], pixel)
