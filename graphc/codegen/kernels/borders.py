"""What the kernels need where a window reaches over the border of an image."""

from llvmlite import ir

from graphc.codegen.blocks import i64


def least(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The smaller of two i64."""
    return b.select(b.icmp_signed("<", x, y), x, y)


def taps_inside(
    b: ir.IRBuilder, first: ir.Value, extent: ir.Value, taps: ir.Value, dilation: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The range of taps t, of so many, for which first + t*dilation lies in 0..extent-1."""

    def count(distance: ir.Value) -> ir.Value:  # ceil(distance / dilation), between 0 and taps
        distance = b.select(b.icmp_signed("<", distance, i64(0)), i64(0), distance)
        return least(b, b.udiv(b.add(distance, b.sub(dilation, i64(1))), dilation), taps)

    return count(b.neg(first)), count(b.sub(extent, first))
