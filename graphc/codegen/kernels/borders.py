"""What the kernels need where a window reaches over the border of an image."""

from llvmlite import ir

from graphc.codegen.blocks import I1, I8, VOID, i64, intrinsic, when


def least(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The smaller of two i64."""
    return b.select(b.icmp_signed("<", x, y), x, y)


def greatest(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The larger of two i64."""
    return b.select(b.icmp_signed(">", x, y), x, y)


def taps_inside(
    b: ir.IRBuilder, first: ir.Value, extent: ir.Value, taps: ir.Value, dilation: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The range of taps t, of so many, for which first + t*dilation lies in 0..extent-1."""

    def count(distance: ir.Value) -> ir.Value:  # ceil(distance / dilation), between 0 and taps
        distance = b.select(b.icmp_signed("<", distance, i64(0)), i64(0), distance)
        return least(b, b.udiv(b.add(distance, b.sub(dilation, i64(1))), dilation), taps)

    return count(b.neg(first)), count(b.sub(extent, first))


def split_columns(
    b: ir.IRBuilder, left: ir.Value, width: ir.Value, needed: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """How many of the `needed` columns from `left` on lie before the image, inside of its `width`, and behind it."""

    def clamp(x: ir.Value) -> ir.Value:
        return least(b, b.select(b.icmp_signed("<", x, i64(0)), i64(0), x), needed)

    before, until = clamp(b.neg(left)), clamp(b.sub(width, left))
    inside = b.sub(until, before)
    inside = b.select(b.icmp_signed("<", inside, i64(0)), i64(0), inside)
    return before, inside, b.sub(needed, b.add(before, inside))


def copy_bytes(b: ir.IRBuilder, target: ir.Value, source: ir.Value, count: ir.Value) -> None:
    """Copy so many bytes, maybe none."""
    intrinsic(b, "llvm.memcpy.p0.p0.i64", VOID, [target, source, count, ir.Constant(I1, 0)])


def clear_bytes(b: ir.IRBuilder, target: ir.Value, count: ir.Value) -> None:
    """Zeros for so many bytes; mostly there are none."""

    def fill() -> list[ir.Value]:
        intrinsic(b, "llvm.memset.p0.i64", VOID, [target, ir.Constant(I8, 0), count, ir.Constant(I1, 0)])
        return []

    when(b, b.icmp_signed(">", count, i64(0)), fill)
