"""The weights of a Winograd convolution, transformed once, when the network is loaded."""

from llvmlite import ir

from graphc.codegen.blocks import F32, address, i64, repeat
from graphc.codegen.kernels.pack import Order
from graphc.codegen.kernels.transforms import apply_both_sides
from graphc.codegen.kernels.transpose import load_columns
from graphc.codegen.kernels.winograd_shape import LATE_CHANNELS, Shape
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike


class WinogradWeights:
    """G w GT as [product, tile of k, c, vectors * lanes], zero beyond K: made once, when the network is loaded.

    w is [K,C,R,S] or, if `turned`, [C,K,R,S], of which the last tap is read first.
    """

    name, reason, scratch, bands = "winograd_weights", "made once", 0, None

    def __init__(self, shape: Shape, w: Buffer, y: Buffer, turned: bool) -> None:
        s, self.turned = shape, turned
        self.shape = shape
        result = y.temporary("winograd", w.type.with_shape(s.products, s.k_tiles, s.c, s.vectors * s.lanes))
        self.buffers = [result, w]
        self.sizes: list[DimLike] = [s.k, s.c, s.k_tiles]
        self.tasks: DimLike = s.k_tiles * s.vectors
        self.work: DimLike = s.k * s.c * s.products * s.kernel[0]
        self.key = f"{self.name} {s.lanes} {s.vectors} {s.form} {turned}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """A task is a vector of output channels: for each c, its filters, the transform, stores of the products."""
        s, (u, w, k_all, c_all, k_tiles, begin, end, _) = self.shape, function.args
        r_all, s_all = s.kernel
        count = r_all * s_all
        place = b.mul(b.mul(k_tiles, c_all), i64(s.vectors * s.lanes))
        step = i64(count) if self.turned else b.mul(c_all, i64(count))

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            k = b.mul(number, i64(s.lanes))
            tile, v = b.udiv(number, i64(s.vectors)), b.urem(number, i64(s.vectors))

            def channel(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                pair = b.add(b.mul(c, k_all), k) if self.turned else b.add(b.mul(k, c_all), c)
                first = address(b, w, b.mul(pair, i64(count)), F32)
                rows = [address(b, first, b.mul(step, i64(lane)), F32) for lane in range(s.lanes)]
                taps = load_columns(b, rows, count, b.sub(k_all, k))
                if self.turned:
                    taps.reverse()
                grid = [taps[s_all * r : s_all * (r + 1)] for r in range(r_all)]
                target = b.add(b.mul(b.add(b.mul(tile, c_all), c), i64(s.vectors)), v)
                target = b.mul(target, i64(s.lanes))
                for e, value in enumerate(
                    v for row in apply_both_sides(b, s.rows.weights, s.columns.weights, grid) for v in row
                ):
                    b.store(value, address(b, u, b.add(target, b.mul(place, i64(e))), F32), align=4)
                return []

            return repeat(b, i64(0), c_all, 1, [], channel)

        repeat(b, begin, end, 1, [], task)
        b.ret_void()


def order_late(shape: Shape, turned: bool) -> Order:
    """The weights as they are, [tile of k, c, tap, vectors * lanes]; large filters are read column by column."""
    r_all, s_all = shape.kernel

    def place(b: ir.IRBuilder, r: ir.Value, s: ir.Value) -> tuple[ir.Value, ir.Value]:
        tap = b.add(b.mul(s, i64(r_all)), r) if shape.large else b.add(b.mul(r, i64(s_all)), s)
        return i64(0), (b.sub(i64(r_all * s_all - 1), tap) if turned else tap)

    channels, together = (1, shape.k_tiles, shape.c, shape.k), LATE_CHANNELS if shape.large else 1
    key = "columns of taps" if shape.large else "taps of c"
    return Order(shape.lanes, shape.vectors, *channels, together, shape.kernel, 1, r_all * s_all, turned, place, key)
