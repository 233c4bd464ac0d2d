"""The transposed convolution at a stride: for each phase of the result's pixels, a convolution at stride 1.

ALGORITHM  y[n,k,p,q] = epilogue(b[k] + sum over c,r,s of x[n, c, (p+pad-r*dilation)/stride, (q+...)/...] * w[c,k,r,s])
           over the taps r, s for which that divides. The rows p = m*stride + a of one phase a use the same taps, and in
           the order of falling r they read rows of x that follow each other: m + start(a) + t*apart.

SCHEDULE   A task is a tile of output channels on a segment of one row, as in conv.py, of the columns of one phase: its
           results lie `stride` pixels apart. Tasks of a phase follow each other and share its weights, which are
           packed phase by phase; a phase for which no tap divides stores what bias and epilogue make of 0.

EMIT       `PhaseConv.emit`: where a phase's taps lie; conv.py does the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

from llvmlite import ir

from graphc.codegen.blocks import F32, I64, address, i64, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least, taps_inside
from graphc.codegen.kernels.conv import ConvEmitter, DirectConv, Pass, Task
from graphc.codegen.kernels.conv_geometry import LONGEST_SEGMENT, SEGMENT_BYTES, Geometry
from graphc.codegen.kernels.pack import Order
from graphc.codegen.kernels.tile import for_strips, split_vectors
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import dims
from graphc.ops import Conv2d, ConvTranspose2d

Place = tuple[ir.Value, ir.Value]  # among the rows or columns of a phase, and which phase


@dataclass(frozen=True)
class Axis:
    """The taps along the height or the width."""

    kernel: int
    stride: int
    dilation: int
    before: int  # padding

    @property
    def common(self) -> int:
        """What stride and dilation share: only every so manieth phase has taps."""
        return gcd(self.stride, self.dilation)

    @property
    def step(self) -> int:
        """From one tap of a phase to the next."""
        return self.stride // self.common

    @property
    def taps(self) -> int:
        """The most taps of a phase."""
        return -(-self.kernel // self.step)

    @property
    def apart(self) -> int:
        """Pixels of x between the taps of a phase."""
        return self.dilation // self.common

    @property
    def inverse(self) -> int:
        """The first tap of phase f is f/common * this, modulo the step."""
        return pow(self.apart, -1, self.step) if self.step > 1 else 0

    def find_tap(self, b: ir.IRBuilder, r: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The phase that has the tap r, and its number among the phase's taps in the order of falling r."""
        far = -(-self.before // self.stride) * self.stride  # keeps what is divided above 0
        phase = b.urem(b.add(b.mul(r, i64(self.dilation)), i64(far - self.before)), i64(self.stride))
        behind = b.sub(i64(self.kernel - 1), r)
        return phase, b.udiv(behind, i64(self.step))

    def nth_tap(self, b: ir.IRBuilder, phase: ir.Value, count: ir.Value, number: ir.Value) -> ir.Value:
        """The tap of this number in the order of falling r, of a phase that has `count`."""
        first = self._first(b, b.add(phase, i64(self.before)))
        return b.add(first, b.mul(b.sub(b.sub(count, i64(1)), number), i64(self.step)))

    def _first(self, b: ir.IRBuilder, padded: ir.Value) -> ir.Value:
        return b.urem(b.mul(b.udiv(padded, i64(self.common)), i64(self.inverse)), i64(self.step))

    def place(self, b: ir.IRBuilder, phase: ir.Value) -> tuple[ir.Value, ir.Value]:
        """How many taps the phase has, and where in x the first of them lies for the first result of the phase."""
        phase = b.add(phase, i64(self.before))
        first = self._first(b, phase)
        over = b.sub(i64(self.kernel + self.step - 1), first)  # at least 0: first < step
        count = b.udiv(over, i64(self.step))
        divides = b.icmp_unsigned("==", b.urem(phase, i64(self.common)), i64(0))
        count = b.select(divides, count, i64(0))
        start = b.sdiv(b.sub(phase, b.mul(first, i64(self.dilation))), i64(self.stride))
        return count, b.sub(start, b.mul(b.sub(count, i64(1)), i64(self.apart)))


class PhaseGeometry(Geometry):
    """The geometry of a phase: a convolution at stride 1 with as many taps as a phase has at most."""

    @property
    def pointwise(self) -> bool:
        """No: a phase may have no tap."""
        return False


def make_axes(op: ConvTranspose2d, w: Buffer) -> tuple[Axis, Axis]:
    """The taps along height and width."""
    kernel = w.type.static_shape()[2:]
    rows, columns = (Axis(kernel[i], op.stride[i], op.dilation[i], op.padding[i]) for i in (0, 1))
    return rows, columns


def make_phase_geometry(op: ConvTranspose2d, x: Buffer, w: Buffer, target: Target) -> PhaseGeometry:
    """Decide tile, segment and whether to copy."""
    c, k_group = w.type.static_shape()[:2]
    rows, columns = make_axes(op, w)
    vectors, pixels = split_vectors(-(-k_group // target.lanes), target, x.shape[3])
    # in place if every tap reads the pixel of x from which its result comes, which is there
    inside = not any(op.padding) and op.dilation == (1, 1)
    for axis, more in zip((rows, columns), op.output_padding, strict=True):
        known = op.size is None and axis.kernel + more <= axis.stride
        inside = inside and (axis.kernel == 1 or known) and axis.taps == 1
    g = PhaseGeometry(
        target.lanes, vectors, pixels, op.groups, c // op.groups, k_group, target.lanes, (rows.taps, columns.taps),
        (1, 1), (rows.apart, columns.apart), (0, 0), not inside, pixels,
    )  # fmt: skip
    column_bytes = 4 * g.kernel[0] * g.c_blocks * g.c_block
    longest = min(LONGEST_SEGMENT, SEGMENT_BYTES // column_bytes) if g.copied else LONGEST_SEGMENT
    return replace(g, segment=max(longest // pixels, 1) * pixels)


def order_phases(g: Geometry, axes: tuple[Axis, Axis]) -> Order:
    """[group and tile, phase of rows and of columns and tap, block of c, tap, c, vectors * lanes], zero beyond K."""
    rows, columns = axes

    def place(b: ir.IRBuilder, r: ir.Value, s: ir.Value) -> tuple[ir.Value, ir.Value]:
        (phase_p, i), (phase_q, j) = rows.find_tap(b, r), columns.find_tap(b, s)
        phase = b.add(b.mul(phase_p, i64(columns.stride)), phase_q)
        return b.add(b.mul(phase, i64(rows.taps)), i), j

    channels = g.groups, g.tiles, g.c_group, g.k_group
    outer, kernel = rows.stride * columns.stride * rows.taps, (rows.kernel, columns.kernel)
    return Order(g.lanes, g.vectors, *channels, g.c_block, kernel, outer, columns.taps, True, place, str(axes))


class PhaseConv(DirectConv):
    """y = epilogue(conv_transpose2d(x, w, b), extra...): x, y and extra in blocks of channels; w and b packed."""

    def __init__(
        self,
        op: ConvTranspose2d,
        axes: tuple[Axis, Axis],
        g: PhaseGeometry,
        y: Buffer,
        x: Buffer,
        w: Buffer,
        bias: Buffer | None,
        extra: Sequence[Buffer],
    ) -> None:
        super().__init__(Conv2d(epilogue=op.epilogue), g, y, x, w, bias, extra)
        rows, columns = self.axes = axes
        self.name = f"conv_phases_{g.vectors}x{g.pixels}"
        self.reason = f"{rows.stride}x{columns.stride} phases: {self.reason}"
        n, _, p, q = y.shape
        self.in_phase = dims.ceil_div(p, rows.stride), dims.ceil_div(q, columns.stride)
        segments = dims.ceil_div(self.in_phase[1], g.segment)
        self.sizes[5] = segments
        self.sizes += self.in_phase
        phases = rows.stride * columns.stride
        outer = dims.product([n, g.groups * g.tiles, phases])
        self.bands = Bands(outer, self.in_phase[0], segments, rows.stride)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, *x.shape[2:], g.groups * g.tiles * g.vectors * g.lanes * g.c_group])
        self.work = self.work * rows.kernel * columns.kernel
        self.key = f"{self.name} {axes} {g.fixed} {bias is not None} {op.epilogue} {len(extra)}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter(ConvEmitter):
    """The code of one PhaseConv."""

    kernel: PhaseConv

    def take_sizes(self, sizes: list[ir.Value]) -> None:
        *others, self.rows_in_phase, self.columns_in_phase = sizes
        super().take_sizes(others)

    def task(self, number: ir.Value) -> None:
        b, (rows, columns) = self.b, self.kernel.axes
        segment, number = b.urem(number, self.segments), b.udiv(number, self.segments)
        m, number = b.urem(number, self.rows_in_phase), b.udiv(number, self.rows_in_phase)
        phase_q, number = b.urem(number, i64(columns.stride)), b.udiv(number, i64(columns.stride))
        phase_p, number = b.urem(number, i64(rows.stride)), b.udiv(number, i64(rows.stride))
        first = b.mul(segment, self.segment)
        row = b.add(b.mul(m, i64(rows.stride)), phase_p)
        # of the last row and column of phases, the result has only a part
        q_count = b.sdiv(b.sub(b.add(self.q, i64(columns.stride - 1)), phase_q), i64(columns.stride))
        length = least(b, b.sub(q_count, first), self.segment)
        exists = b.and_(b.icmp_signed("<", row, self.p), b.icmp_signed(">", length, i64(0)))

        def run() -> list[ir.Value]:
            self._phase(number, (m, phase_p), (first, phase_q), length)
            return []

        when(b, exists, run)

    def _phase(self, number: ir.Value, row: Place, column: Place, length: ir.Value) -> None:
        """A segment of one row and phase; `number` counts tiles over the batch."""
        b, g, (rows, columns) = self.b, self.g, self.kernel.axes
        (m, phase_p), (first, phase_q) = row, column
        all_tiles = b.mul(self.groups, self.tiles)
        tile, n = b.urem(number, all_tiles), b.udiv(number, all_tiles)
        group, tile_in_group = b.udiv(tile, self.tiles), b.urem(tile, self.tiles)
        first_block = b.mul(tile_in_group, i64(g.vectors))

        r_count, r_start = rows.place(b, phase_p)
        self.s_all, s_start = columns.place(b, phase_q)
        self.r_all = b.mul(r_count, b.zext(b.icmp_signed(">", self.s_all, i64(0)), I64))
        p = b.add(b.mul(m, i64(rows.stride)), phase_p)
        q = b.add(b.mul(first, i64(columns.stride)), phase_q)
        y = b.mul(b.add(b.mul(group, self.k_blocks), first_block), self.y_plane)
        images = [b.mul(n, image) for image in self.result_images]
        t = Task(
            tile, i64(1), length, b.add(m, r_start), b.add(first, s_start),
            b.add(b.mul(n, self.x_image), b.mul(b.mul(group, self.c_blocks), self.plane)),
            b.add(y, b.mul(b.add(b.mul(p, self.q), q), i64(g.lanes))),
            b.sub(self.k_blocks, first_block),
            [address(b, p, start, F32) for p, start in zip((self.y, *self.extra), images, strict=True)],
        )  # fmt: skip
        phase = b.add(b.mul(b.add(b.mul(tile, i64(rows.stride)), phase_p), i64(columns.stride)), phase_q)
        weights = address(b, self.w, b.mul(phase, b.mul(self.row_weights, i64(rows.taps))), F32)
        source = address(b, self.x, t.x, F32)
        if g.copied:
            self.copy_rows(source, t)
            x, block = self.copy, b.mul(self.columns, i64(g.c_block))
            line = b.mul(self.c_blocks, block)
        else:
            x = address(b, source, b.mul(b.add(b.mul(t.top, self.width), t.left), i64(g.c_block)), F32)
            block, line = self.plane, b.mul(b.mul(self.width, self.dilation_r), i64(g.c_block))
        whole = Pass(x, line, line, block, weights, i64(0), self.c_blocks)
        taps = taps_inside(b, t.top, self.height, self.r_all, i64(rows.apart))
        self.y_step = columns.stride * g.lanes

        def strip(start: ir.Value, pixels: int) -> None:
            strip_x = address(b, x, b.mul(start, i64(g.c_block)), F32)
            sums = self.sum(whole, strip_x, taps, pixels, self.saved)
            self.store(sums, t, b.add(t.y, b.mul(start, i64(self.y_step))), pixels)

        for_strips(b, length, g.pixels, strip)
