"""Depthwise transposed convolutions at a stride: the gradients of depthwise convolutions, and upsampling by channel.

ALGORITHM  y[n,c,p,q] = epilogue(b[c] + sum over r,s of x[n, c, (p+pad-r*dilation)/stride, (q+...)/...] * w[c,r,s])
           over the taps r, s for which that divides: always the same for the pixels of one phase (conv_transpose.py)

SCHEDULE   A vector is one pixel of a block of channels. A task is one row of results of a block, phase by phase of its
           columns. In a phase, neighbours read neighbours: strips of PIXELS independent chains. The few columns whose
           taps reach outside the image look at every tap.

EMIT       `TransposedWindowKernel.emit`.
"""

from collections.abc import Sequence

from llvmlite import ir

from graphc.codegen.blocks import F32, address, constant, i64, intrinsic, mangle, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import least, taps_inside
from graphc.codegen.kernels.conv_transpose import Axis
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.tile import for_strips
from graphc.codegen.kernels.window import PIXELS
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims


class TransposedWindowKernel:
    """y = epilogue(conv_transpose2d(x, w, b), extra...) by channel, all in blocks; w [blocks,R,S,lanes], b packed."""

    reason = "each channel alone, phase by phase: a vector is one pixel of a block of channels"
    scratch = 0

    def __init__(
        self,
        axes: tuple[Axis, Axis],
        y: Buffer,
        x: Buffer,
        weights: Buffer,
        bias: Buffer | None,
        extra: Sequence[Buffer],
        epilogue: str | None,
        target: Target,
    ) -> None:
        self.axes, self.lanes = axes, target.lanes
        self.has_bias, self.epilogue = bias is not None, Epilogue(epilogue, len(extra))
        self.name = f"window_phases_{axes[1].kernel}_stride{axes[1].stride}"
        self.buffers = [y, x, weights, *([bias] if bias else []), *extra]
        (n, _, height, width), (_, channels, p, q) = x.shape, y.shape
        blocks = dims.ceil_div(channels, self.lanes)
        self.sizes: list[DimLike] = [height, width, p, q, blocks, *(b.image for b in (x, y, *extra))]
        self.bands = Bands(dims.product([n, blocks]), p, 1)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, blocks, height, width, self.lanes * axes[0].kernel * axes[1].kernel])
        self.key = f"{self.name} {self.lanes} {axes} {bias is not None} {epilogue} {len(extra)}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        _Emitter(self, b, function).emit()


class _Emitter:
    """The code of one TransposedWindowKernel."""

    def __init__(self, kernel: TransposedWindowKernel, b: ir.IRBuilder, function: ir.Function) -> None:
        self.kernel, self.b, self.lanes = kernel, b, kernel.lanes
        count = len(kernel.buffers)
        self.y, self.x, self.weights, *rest = function.args[:count]
        self.bias = rest.pop(0) if kernel.has_bias else None
        self.extra = rest
        *sizes, self.begin, self.end, _ = function.args[count:]
        self.height, self.width, self.p, self.q, self.blocks, self.x_image, *self.result_images = sizes
        self.type = ir.VectorType(F32, kernel.lanes)
        self.zero = constant(self.type, 0)

    def emit(self) -> None:
        b = self.b

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            row, number = b.urem(number, self.p), b.udiv(number, self.p)
            self._row(row, b.udiv(number, self.blocks), b.urem(number, self.blocks))
            return []

        repeat(b, self.begin, self.end, 1, [], task)
        b.ret_void()

    def _row(self, row: ir.Value, n: ir.Value, block: ir.Value) -> None:
        """One row of results of one block of channels."""
        b, lanes, (rows, columns) = self.b, self.lanes, self.kernel.axes
        phase_p = b.urem(row, i64(rows.stride))
        count, start = rows.place(b, phase_p)
        top = b.add(b.udiv(row, i64(rows.stride)), start)
        low, high = taps_inside(b, top, self.height, count, i64(rows.apart))
        plane = b.mul(b.mul(block, b.mul(self.height, self.width)), i64(lanes))
        x = address(b, self.x, b.add(b.mul(n, self.x_image), plane), F32)
        images = [b.mul(n, image) for image in self.result_images]
        targets = [address(b, p, start, F32) for p, start in zip((self.y, *self.extra), images, strict=True)]
        line = b.mul(b.mul(b.add(b.mul(block, self.p), row), self.q), i64(lanes))
        weights = address(b, self.weights, b.mul(block, i64(rows.kernel * columns.kernel * lanes)), F32)
        bias = None if self.bias is None else self._vector(self.bias, b.mul(block, i64(lanes)))

        def phase(phase_q: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            taps, shift = columns.place(b, phase_q)
            length = b.sdiv(b.sub(b.add(self.q, i64(columns.stride - 1)), phase_q), i64(columns.stride))

            def finish(j: ir.Value, sums: Sequence[ir.Value]) -> None:
                for i, total in enumerate(sums):
                    total = total if bias is None else b.fadd(total, bias)
                    column = b.add(b.mul(b.add(j, i64(i)), i64(columns.stride)), phase_q)
                    at = b.add(line, b.mul(column, i64(lanes)))
                    others = [self._vector(e, at) for e in targets[1:]]
                    result = self.kernel.epilogue.emit(b, lanes, [total, *others])
                    b.store(result, address(b, targets[0], at, F32), align=4)

            def sum_taps(j: ir.Value, pixels: int, look: bool) -> None:
                def tap_row(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                    x_row = b.mul(b.add(top, b.mul(t, i64(rows.apart))), self.width)
                    r = rows.nth_tap(b, phase_p, count, t)

                    def tap(u: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                        column = b.add(b.add(j, shift), b.mul(u, i64(columns.apart)))
                        s = columns.nth_tap(b, phase_q, taps, u)
                        weight = self._vector(weights, b.mul(b.add(b.mul(r, i64(columns.kernel)), s), i64(lanes)))
                        first = b.mul(b.add(x_row, column), i64(lanes))

                        def add() -> list[ir.Value]:
                            cells = [self._vector(x, b.add(first, i64(i * lanes))) for i in range(pixels)]
                            name = f"llvm.fmuladd.{mangle(self.type)}"
                            pairs = zip(cells, sums, strict=True)
                            return [intrinsic(b, name, self.type, [cell, weight, total]) for cell, total in pairs]

                        return when(b, b.icmp_unsigned("<", column, self.width), add, sums) if look else add()

                    return repeat(b, i64(0), taps, 1, sums, tap)

                finish(j, repeat(b, low, high, 1, [self.zero] * pixels, tap_row))

            def border(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                sum_taps(j, 1, True)
                return []

            def clamp(j: ir.Value, smallest: ir.Value) -> ir.Value:
                return least(b, b.select(b.icmp_signed("<", j, smallest), smallest, j), length)

            reach = b.mul(b.sub(taps, i64(1)), i64(columns.apart))
            left = clamp(b.neg(shift), i64(0))
            right = clamp(b.sub(b.sub(self.width, shift), reach), left)
            repeat(b, i64(0), left, 1, [], border)
            middle = b.sub(right, left)

            def strips() -> list[ir.Value]:
                for_strips(b, middle, PIXELS, lambda start, pixels: sum_taps(b.add(left, start), pixels, False))
                return []

            when(b, b.icmp_signed(">", middle, i64(0)), strips)
            return repeat(b, right, length, 1, [], border)

        repeat(b, i64(0), i64(columns.stride), 1, [], phase)

    def _vector(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        return self.b.load(address(self.b, pointer, offset, F32), typ=self.type, align=4)
