"""The weights of a Winograd convolution, transformed once, when the network is loaded."""

from llvmlite import ir

from graphc.codegen.blocks import F32, address, i64, intrinsic, iota, mangle, repeat, splat
from graphc.codegen.kernels.transforms import apply_both_sides
from graphc.codegen.kernels.winograd_shape import Shape
from graphc.codegen.nest import Buffer
from graphc.ir import DimLike


class WinogradWeights:
    """G w GT as [place, tile of k, c, vectors * lanes], zero beyond K: made once, when the network is loaded."""

    name, reason, scratch = "winograd_weights", "made once", 0

    def __init__(self, shape: Shape, w: Buffer, y: Buffer) -> None:
        s = self.shape = shape
        result = y.temporary("winograd", w.type.with_shape(s.places, s.k_tiles, s.c, s.vectors * s.lanes))
        self.buffers = [result, w]
        self.sizes: list[DimLike] = [s.k, s.c, s.k_tiles]
        self.tasks: DimLike = s.k_tiles * s.vectors
        self.work: DimLike = s.k * s.c * s.places * s.kernel[0]
        self.key = f"{self.name} {s.lanes} {s.vectors} {s.kernel}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """A task is a vector of output channels: for each c, gathered taps, the transform, a store for each place."""
        r_all, s_all = self.shape.kernel
        s, (u, w, k_all, c_all, k_tiles, begin, end, _) = self.shape, function.args
        type = ir.VectorType(F32, s.lanes)
        place = b.mul(b.mul(k_tiles, c_all), i64(s.vectors * s.lanes))

        def spread(x: ir.Value) -> ir.Value:
            return splat(b, x, s.lanes)

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            k = b.add(spread(b.mul(number, i64(s.lanes))), iota(s.lanes))
            mask = b.icmp_unsigned("<", k, spread(k_all))
            tile, v = b.udiv(number, i64(s.vectors)), b.urem(number, i64(s.vectors))

            def channel(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                first = b.mul(b.add(b.mul(k, spread(c_all)), spread(c)), spread(i64(r_all * s_all)))
                name = f"llvm.masked.gather.{mangle(type)}.v{s.lanes}p0"
                grid = []
                for r in range(r_all):
                    row = []
                    for t in range(s_all):
                        where = address(b, w, b.add(first, spread(i64(r * s_all + t))), F32)
                        row.append(intrinsic(b, name, type, [where, mask, ir.Constant(type, [0.0] * s.lanes)]))
                    grid.append(row)
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
