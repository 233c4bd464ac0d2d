"""Depthwise convolutions, max and average pools: what a window does to each channel alone.

ALGORITHM  y[n,c,p,q] = epilogue(combine over r,s of x[n, c, p*stride+r*dilation-pad, q*...], w[c,r,s])

SCHEDULE   A vector is one pixel of a block of channels. A task is one output row of a block, in three parts: the pixels
           whose windows reach over the left border, those inside, and those over the right border. Inside, strips of
           PIXELS are independent chains of operations, and neighbours share the inputs that they load; at the borders
           every tap is looked at. Rows outside are left out.

EMIT       `WindowCode.emit`: a row; `WindowKernel.emit`: all of them.
"""

from collections.abc import Sequence
from math import inf

from llvmlite import ir

from graphc.codegen.arithmetic import emit_primitive
from graphc.codegen.blocks import F32, address, constant, i64, intrinsic, mangle, repeat, when
from graphc.codegen.kernels.base import Bands
from graphc.codegen.kernels.borders import taps_inside
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.tile import ask_for, for_strips, prefetch
from graphc.codegen.nest import Buffer, Nest, loop_vars
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims
from graphc.ops.window import Window

PIXELS = 8  # an FMA takes 4 cycles and two start in each: 8 chains fill the pipes


def pack_depthwise(w: Buffer, y: Buffer, lanes: int, turned: bool = False) -> Nest:
    """The weights [K,1,R,S] as [blocks of k, r, s, lanes], zero beyond K; if `turned`, the last tap first."""
    k_all, _, r_all, s_all = w.type.static_shape()
    shape = (-(-k_all // lanes), r_all, s_all, lanes)
    block, r, s, lane = loops = loop_vars("brsl", shape)
    packed = y.temporary("weights", w.type.with_shape(*shape))
    tap = (r_all - 1 - r, s_all - 1 - s) if turned else (r, s)
    return Nest(packed, loops, loops, w.get(block * lanes + lane, 0, *tap, fill=0.0))


def pack_channels(bias: Buffer, y: Buffer, lanes: int) -> Nest:
    """A number for each channel with zeros up to a whole block, so that it is read by vectors."""
    shape = (dims.ceil_div(bias.shape[0], lanes), lanes)
    block, lane = loops = loop_vars("bl", shape)
    return Nest(
        y.temporary("bias", bias.type.with_shape(*shape)), loops, loops, bias.get(block * lanes + lane, fill=0.0)
    )


class WindowKernel:
    """y = epilogue(combined + b, extra...), all in blocks of channels; `kind` is "conv", "max" or "average"."""

    reason = "each channel alone: a vector is one pixel of a block of channels"

    def __init__(
        self,
        kind: str,
        window: Window,
        y: Buffer,
        x: Buffer,
        weights: Buffer | None,
        bias: Buffer | None,
        extra: Sequence[Buffer],
        epilogue: str | None,
        target: Target,
    ) -> None:
        self.kind, self.window, self.lanes = kind, window, target.lanes
        self.has_bias, self.epilogue = bias is not None, Epilogue(epilogue, len(extra))
        self.name = f"window_{kind}_{window.kernel[1]}_stride{window.stride[1]}"
        self.buffers = [y, x, *(b for b in (weights, bias) if b is not None), *extra]
        self.scratch = 0
        (n, _, height, width), (_, channels, p, q) = x.shape, y.shape
        blocks = dims.ceil_div(channels, self.lanes)
        self.sizes: list[DimLike] = [
            *(height, width, p, q, blocks, window.kernel[0], window.stride[0], window.dilation[0]),
            *window.padding[:2],
            *(b.image for b in (x, y, *extra)),
        ]
        self.bands = Bands(dims.product([n, blocks]), p, 1)
        self.tasks = self.bands.tasks
        self.work = dims.product([n, blocks, p, q, self.lanes * window.kernel[0] * window.kernel[1]])
        (r, s), dilation = window.kernel, window.dilation[1]
        average = r if kind == "average" else None  # the only kind that divides by the number of cells
        self.key = f"{self.name} {self.lanes} {s} {dilation} {average} {bias is not None} {epilogue} {len(extra)}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        count = len(self.buffers)
        y, x, *rest = function.args[:count]
        weights = rest.pop(0) if self.kind == "conv" else None
        bias = rest.pop(0) if self.has_bias else None
        *sizes, begin, end, _ = function.args[count:]
        height, width, p_all, q_all, blocks, r_all, stride, dilation, above, before, x_image, *images = sizes
        inside = height, width, r_all, stride, dilation, above, before
        code = WindowCode(b, self.kind, self.window, self.lanes, self.epilogue, inside, weights, bias)

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            row, number = b.urem(number, p_all), b.udiv(number, p_all)
            block, n = b.urem(number, blocks), b.udiv(number, blocks)
            image = address(b, x, b.mul(n, x_image), F32)
            results = [address(b, r, b.mul(n, size), F32) for r, size in zip((y, *rest), images, strict=True)]
            at = b.mul(b.mul(b.add(b.mul(block, p_all), row), q_all), i64(self.lanes))
            code.emit(image, block, row, (i64(0), q_all), results, at)
            return []

        repeat(b, begin, end, 1, [], task)
        b.ret_void()


class WindowCode:
    """What windows make of some columns of one output row of a block of channels.

    `sizes` are the height and width of the image; of the window its height, and its stride and dilation down; the
    padding above and before.
    """

    def __init__(
        self,
        b: ir.IRBuilder,
        kind: str,
        window: Window,
        lanes: int,
        epilogue: Epilogue,
        sizes: Sequence[ir.Value],
        weights: ir.Value | None,
        bias: ir.Value | None,
    ) -> None:
        self.b, self.kind, self.window, self.lanes, self.epilogue = b, kind, window, lanes, epilogue
        self.height, self.width, self.r_all, self.stride, self.dilation, self.above, self.before = sizes
        self.weights, self.bias = weights, bias
        self.type = ir.VectorType(F32, lanes)
        first = -inf if kind == "max" else 0.0
        self.first = constant(self.type, first)

    def emit(
        self,
        image: ir.Value,
        block: ir.Value,
        row: ir.Value,
        columns: tuple[ir.Value, ir.Value],
        results: Sequence[ir.Value],
        at: ir.Value,
        near: bool = False,
    ) -> None:
        """Columns from one up to, but without another. Column 0 would lie `at` these elements of the `results`, which
        are y and what the epilogue reads beside. `near` says that y is in the first-level cache.
        """
        b, lanes, window = self.b, self.lanes, self.window
        stride, taps = window.stride[1], (window.kernel[1] - 1) * window.dilation[1]
        top = b.sub(b.mul(row, self.stride), self.above)
        low, high = taps_inside(b, top, self.height, self.r_all, self.dilation)
        plane = b.mul(block, b.mul(self.height, self.width))
        source = address(b, image, b.mul(b.add(plane, b.mul(top, self.width)), i64(lanes)), F32)
        (y, *extra), (begin, end) = results, columns
        weights, bias = self.weights, None
        if weights is not None:
            weights = address(b, weights, b.mul(b.mul(block, self.r_all), i64(window.kernel[1] * lanes)), F32)
        if self.bias is not None:
            bias = self._vector(self.bias, b.mul(block, i64(lanes)))

        def finish(q: ir.Value, sums: Sequence[ir.Value]) -> None:
            for i, total in enumerate(sums):
                if self.kind == "average":
                    cells = float(window.kernel[0] * window.kernel[1])
                    total = b.fdiv(total, constant(self.type, cells))
                if bias is not None:
                    total = b.fadd(total, bias)
                place = b.add(at, b.mul(b.add(q, i64(i)), i64(lanes)))
                result = self.epilogue.emit(b, lanes, [total, *(self._vector(e, place) for e in extra)])
                b.store(result, address(b, y, place, F32), align=4)

        def strip(q: ir.Value, pixels: int) -> None:
            for i in range(0 if near else pixels):
                ask_for(b, b.add(at, b.mul(b.add(q, i64(i)), i64(lanes))), results)
            start = b.sub(b.mul(q, i64(stride)), self.before)

            def following(r: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                x = address(b, source, b.mul(b.add(self._line(r), start), i64(lanes)), F32)
                for i in range(pixels * stride):
                    prefetch(b, address(b, x, i64(i * lanes), F32))
                return []

            if self.kind != "conv":
                repeat(b, self.r_all, b.add(self.r_all, self.stride), 1, [], following)

            def line(r: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                x = address(b, source, b.mul(b.add(self._line(r), start), i64(lanes)), F32)
                for s in range(window.kernel[1]):
                    weight = self._weight(weights, r, s)
                    for i in range(pixels):
                        cell = self._vector(x, i64((i * stride + s * window.dilation[1]) * lanes))
                        sums[i] = self._combine(sums[i], cell, weight)
                return sums

            finish(q, repeat(b, low, high, 1, [self.first] * pixels, line))

        def border(q: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            start = b.sub(b.mul(q, i64(stride)), self.before)

            def line(r: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                for s in range(window.kernel[1]):
                    column = b.add(start, i64(s * window.dilation[1]))
                    inside = b.icmp_unsigned("<", column, self.width)

                    def tap(total: ir.Value = sums[0], column: ir.Value = column, s: int = s) -> list[ir.Value]:
                        cell = self._vector(source, b.mul(b.add(self._line(r), column), i64(lanes)))
                        return [self._combine(total, cell, self._weight(weights, r, s))]

                    sums = when(b, inside, tap, sums)
                return sums

            finish(q, repeat(b, low, high, 1, [self.first], line))
            return []

        def clamp(q: ir.Value, least: ir.Value) -> ir.Value:
            q = b.select(b.icmp_signed("<", q, least), least, q)
            return b.select(b.icmp_signed(">", q, end), end, q)

        left = clamp(b.udiv(b.add(self.before, i64(stride - 1)), i64(stride)), begin)
        last = b.sub(b.add(self.width, self.before), i64(taps + 1))  # the last start of a window that fits
        fitting = b.select(b.icmp_signed("<", last, i64(0)), i64(0), b.add(b.udiv(last, i64(stride)), i64(1)))
        right = clamp(fitting, left)
        repeat(b, begin, left, 1, [], border)
        middle = b.sub(right, left)

        def strips() -> list[ir.Value]:
            for_strips(b, middle, PIXELS, lambda start, pixels: strip(b.add(left, start), pixels))
            return []

        when(b, b.icmp_signed(">", middle, i64(0)), strips)
        repeat(b, right, end, 1, [], border)

    def _line(self, r: ir.Value) -> ir.Value:
        """Pixels from the row of r = 0 to that of r."""
        return self.b.mul(self.b.mul(r, self.dilation), self.width)

    def _vector(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        return self.b.load(address(self.b, pointer, offset, F32), typ=self.type, align=4)

    def _weight(self, weights: ir.Value | None, r: ir.Value, s: int) -> ir.Value | None:
        if weights is None:
            return None
        taps = self.window.kernel[1]
        return self._vector(weights, self.b.mul(self.b.add(self.b.mul(r, i64(taps)), i64(s)), i64(self.lanes)))

    def _combine(self, total: ir.Value, cell: ir.Value, weight: ir.Value | None) -> ir.Value:
        if weight is not None:
            return intrinsic(self.b, f"llvm.fmuladd.{mangle(self.type)}", self.type, [cell, weight, total])
        return emit_primitive(self.b, "max" if self.kind == "max" else "add", [total, cell])
