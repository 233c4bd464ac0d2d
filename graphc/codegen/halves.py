"""f16 and bf16, as bits in integers, to and from float32: LLVM's own conversions are library calls on older CPUs."""

from collections.abc import Callable

from llvmlite import ir

from graphc.codegen.blocks import F32, I16, I32
from graphc.codegen.vecmath import call_intrinsic, from_bits, get_bits, retype, splat
from graphc.ir import DType

SMALLEST_NORMAL_F16 = 2.0**-14
LEAST_TO_OVERFLOW = 65520.0  # halfway from f16's largest number, 65504, to what would follow: rounds to infinity


def from_f16(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """binary16 to float32, exact: exponent and mantissa move, and the exponent's bias grows by 112."""
    bits = b.zext(x, retype(x, I32))
    magnitude = b.shl(b.and_(bits, splat(bits, 0x7FFF)), splat(bits, 13))
    # subnormals: 2^-14 plus the mantissa, less 2^-14, so that no float32 is subnormal where a CPU may flush it
    shifted = from_bits(b, b.add(magnitude, splat(bits, 113 << 23)))
    small = b.fsub(shifted, splat(shifted, SMALLEST_NORMAL_F16))
    infinite = b.icmp_unsigned(">=", magnitude, splat(bits, 0x7C00 << 13))  # or NaN
    rebased = b.add(magnitude, b.select(infinite, splat(bits, 224 << 23), splat(bits, 112 << 23)))
    subnormal = b.icmp_unsigned("<", magnitude, splat(bits, 0x0400 << 13))
    positive = b.select(subnormal, get_bits(b, small), rebased)
    return from_bits(b, b.or_(positive, b.shl(b.and_(bits, splat(bits, 0x8000)), splat(bits, 16))))


def to_f16(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """float32 to binary16, to nearest, half to even; from 65520 on infinity."""
    bits = get_bits(b, x)
    magnitude = b.and_(bits, splat(bits, 0x7FFFFFFF))
    # below 2^-14: adding 1/2 makes the last bit of the sum worth 2^-24, f16's smallest, so the sum is rounded right
    half = b.fadd(from_bits(b, magnitude), splat(x, 0.5))
    subnormal = b.sub(get_bits(b, half), splat(bits, 126 << 23))
    # else 13 bits go: half of the last that stays, less one where that is even, carries what must be rounded up
    last = b.and_(b.lshr(magnitude, splat(bits, 13)), splat(bits, 1))
    rounded = b.add(b.add(b.sub(magnitude, splat(bits, 112 << 23)), splat(bits, 0x0FFF)), last)
    normal = b.lshr(rounded, splat(bits, 13))
    result = b.select(
        b.fcmp_ordered("<", call_intrinsic(b, "fabs", x), splat(x, SMALLEST_NORMAL_F16)), subnormal, normal
    )
    overflows = b.fcmp_unordered(">=", call_intrinsic(b, "fabs", x), splat(x, LEAST_TO_OVERFLOW))  # or is NaN
    result = b.select(overflows, splat(bits, 0x7C00), result)
    result = b.select(b.fcmp_unordered("uno", x, x), splat(bits, 0x7E00), result)
    sign = b.and_(b.lshr(bits, splat(bits, 16)), splat(bits, 0x8000))
    return b.trunc(b.or_(result, sign), retype(x, I16))


def from_bf16(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """bfloat16 to float32, exact: its bits are the upper half."""
    bits = b.zext(x, retype(x, I32))
    return from_bits(b, b.shl(bits, splat(bits, 16)))


def to_bf16(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """float32 to bfloat16, to nearest, half to even."""
    bits = get_bits(b, x)
    last = b.and_(b.lshr(bits, splat(bits, 16)), splat(bits, 1))
    rounded = b.lshr(b.add(b.add(bits, splat(bits, 0x7FFF)), last), splat(bits, 16))
    sign = b.and_(b.lshr(bits, splat(bits, 16)), splat(bits, 0x8000))
    quiet = b.or_(sign, splat(bits, 0x7FC0))
    return b.trunc(b.select(b.fcmp_unordered("uno", x, x), quiet, rounded), retype(x, I16))


def round_to_odd(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """float64 as float32, inexact ones with an odd last bit: to round that again gives what one rounding would.

    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008.)
    """
    near = b.fptrunc(x, retype(x, F32))
    back, bits = b.fpext(near, x.type), get_bits(b, near)
    beyond = b.fcmp_ordered(">", call_intrinsic(b, "fabs", back), call_intrinsic(b, "fabs", x))
    odd = b.or_(b.sub(bits, b.zext(beyond, bits.type)), splat(bits, 1))
    exact = b.fcmp_unordered("==", back, x)  # or NaN
    return from_bits(b, b.select(exact, bits, odd))


FROM_HALF: dict[DType, Callable[[ir.IRBuilder, ir.Value], ir.Value]] = {DType.F16: from_f16, DType.BF16: from_bf16}
TO_HALF: dict[DType, Callable[[ir.IRBuilder, ir.Value], ir.Value]] = {DType.F16: to_f16, DType.BF16: to_bf16}
