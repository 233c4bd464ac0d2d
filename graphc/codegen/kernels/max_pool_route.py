"""The gradient of a max pool: each window hands its gradient to the cell that was its maximum.

ALGORITHM  for n,c,p,q: dx[n,c, cell of the first maximum of x under the window at p,q] += g[n,c,p,q]

SCHEDULE   A vector is one pixel of a block of channels, a task one image of a block: windows overlap, so their order is
           fixed. A window is walked twice: to find in each lane the number of the cell that wins, then to add the
           gradient there and 0 elsewhere. Nothing is stored between forward and backward but x, which is there anyway.

EMIT       `MaxPoolRouteKernel.emit`.
"""

from math import inf

from llvmlite import ir

from graphc.codegen.blocks import F32, I1, I8, I32, VOID, address, constant, i64, intrinsic, repeat, splat
from graphc.codegen.kernels.borders import taps_inside
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DimLike, dims
from graphc.ops.window import Window


class MaxPoolRouteKernel:
    """dx from x and g, all in blocks of channels."""

    reason = "each channel alone: a vector is one pixel of a block of channels"
    scratch, bands = 0, None

    def __init__(self, window: Window, dx: Buffer, x: Buffer, g: Buffer, target: Target) -> None:
        self.window, self.lanes = window, target.lanes
        self.name = f"max_pool_route_{window.kernel[0]}x{window.kernel[1]}"
        self.buffers = [dx, x, g]
        (n, channels, height, width), (_, _, p, q) = x.shape, g.shape
        blocks = dims.ceil_div(channels, self.lanes)
        self.sizes: list[DimLike] = [height, width, p, q, blocks, *(b.image for b in self.buffers)]
        self.tasks = dims.product([n, blocks])
        self.work = dims.product([n, blocks, p, q, self.lanes * window.kernel[0] * window.kernel[1] * 2])
        self.key = f"{self.name} {self.lanes} {window}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        dx, x, g, height, width, p_all, q_all, blocks, *images, begin, end, _ = function.args
        lanes, window = self.lanes, self.window
        type, places = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
        (r_all, s_all), zero = window.kernel, constant(type, 0)
        plane, g_plane = (b.mul(b.mul(h, w), i64(lanes)) for h, w in ((height, width), (p_all, q_all)))

        def load(base: ir.Value, offset: ir.Value) -> ir.Value:
            return b.load(address(b, base, offset, F32), typ=type, align=4)

        def task(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            block, n = b.urem(number, blocks), b.udiv(number, blocks)
            starts = [b.mul(block, size) for size in (plane, plane, g_plane)]
            pairs = zip((dx, x, g), images, starts, strict=True)
            dx_block, x_block, g_block = (address(b, p, b.add(b.mul(n, image), s), F32) for p, image, s in pairs)
            nothing = [dx_block, ir.Constant(I8, 0), b.mul(plane, i64(4)), ir.Constant(I1, 0)]
            intrinsic(b, "llvm.memset.p0.i64", VOID, nothing)

            def over_cells(p: ir.Value, q: ir.Value, carried: list[ir.Value], cell: object) -> list[ir.Value]:
                """cell(offset of the pixel, its number in the window, values) for all that lie in the image."""
                top, left = (
                    b.sub(b.mul(i, i64(stride)), i64(before))
                    for i, stride, before in zip((p, q), window.stride, window.padding[:2], strict=True)
                )
                rows = taps_inside(b, top, height, i64(r_all), i64(window.dilation[0]))
                columns = taps_inside(b, left, width, i64(s_all), i64(window.dilation[1]))

                def row(r: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
                    line = b.mul(b.add(top, b.mul(r, i64(window.dilation[0]))), width)

                    def column(s: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
                        pixel = b.add(line, b.add(left, b.mul(s, i64(window.dilation[1]))))
                        name = splat(b, b.trunc(b.add(b.mul(r, i64(s_all)), s), I32), lanes)
                        return cell(b.mul(pixel, i64(lanes)), name, values)  # type: ignore[operator, no-any-return]

                    return repeat(b, *columns, 1, values, column)

                return repeat(b, *rows, 1, carried, row)

            def find(offset: ir.Value, name: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
                best, winner = values
                value = load(x_block, offset)
                # the first of equals stays, the first NaN, too; but the first cell wins over nothing
                larger = b.and_(b.fcmp_unordered(">", value, best), b.fcmp_ordered("ord", best, best))
                wins = b.or_(larger, b.icmp_signed("<", winner, constant(places, 0)))
                return [b.select(wins, value, best), b.select(wins, name, winner)]

            def window_at(p: ir.Value, q: ir.Value) -> None:
                nobody = [constant(type, -inf), constant(places, -1)]
                _, winner = over_cells(p, q, nobody, find)
                gradient = load(g_block, b.mul(b.add(b.mul(p, q_all), q), i64(lanes)))

                def add(offset: ir.Value, name: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    share = b.select(b.icmp_signed("==", winner, name), gradient, zero)
                    b.store(b.fadd(load(dx_block, offset), share), address(b, dx_block, offset, F32), align=4)
                    return []

                over_cells(p, q, [], add)

            def line(p: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                def one(q: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    window_at(p, q)
                    return []

                return repeat(b, i64(0), q_all, 1, [], one)

            return repeat(b, i64(0), p_all, 1, [], line)

        repeat(b, begin, end, 1, [], task)
        b.ret_void()
