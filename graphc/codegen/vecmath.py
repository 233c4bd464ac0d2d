"""Elementwise float32 functions as straight-line vector LLVM IR: no branch, no table, no call into libm.

Every function takes a builder and values of type `float` or `<L x float>` (any L) and returns a value of the same
type. NaN, infinities, signed zeros and subnormals come out as in NumPy and C99 (annex F). Default rounding, no
fast-math flag; a product and a sum are contracted (`llvm.fmuladd`, never `llvm.fma`, which is a libm call where the
CPU has no FMA) or not, and each bound below holds both ways: it is the larger of the two.

The errors in the docstrings are in ULP of the float32 result (below 2^-126 in units of 2^-149), as measured over all
2^32 inputs against glibc's double functions, for x86-64-v2 (no FMA) and x86-64-v3 (FMA); `pow` over 4e9 pairs.
The coefficients are weighted minimax fits (Remez exchange in 40 digits, then rounded); the error given with them is
that of the fit alone, relative to the function.
"""

from collections.abc import Callable
from math import inf, nan

from llvmlite import ir

from graphc.codegen.blocks import F32, F64, I32, I64, constant, intrinsic, is_vector, mangle

LN2 = 0.6931471805599453
SMALLEST_NORMAL = 2.0**-126
ROUND_F32 = 1.5 * 2.0**23  # t = x + ROUND rounds x to an integer n: the low bits of t hold n, and t - ROUND is n
ROUND_F64 = 1.5 * 2.0**52


# -- values -----------------------------------------------------------------------------------------------------------


def retype(like: ir.Value, element: ir.Type) -> ir.Type:
    """The type with the lanes of `like` and another element: `<8 x float>`, i32 -> `<8 x i32>`."""
    return ir.VectorType(element, like.type.count) if is_vector(like) else element


def splat(like: ir.Value, value: float) -> ir.Constant:
    """`value` as a constant of the type of `like`, in every lane."""
    return constant(like.type, value)


def call_intrinsic(b: ir.IRBuilder, name: str, *args: ir.Value) -> ir.Value:
    """Call `llvm.<name>`, overloaded on the one type that all arguments and the result have."""
    kind = args[0].type
    return intrinsic(b, f"llvm.{name}.{mangle(kind)}", kind, args)


def fmuladd(b: ir.IRBuilder, x: ir.Value, y: ir.Value | float, z: ir.Value | float) -> ir.Value:
    """x*y + z, in one rounding where the CPU has FMA."""
    y, z = (v if isinstance(v, ir.Value) else splat(x, v) for v in (y, z))
    return call_intrinsic(b, "fmuladd", x, y, z)


def evaluate_polynomial(b: ir.IRBuilder, x: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    """c[0] + c[1] x + c[2] x^2 + ... by Horner's rule."""
    *lower, leading = coefficients
    y: ir.Value = splat(x, leading)
    for c in reversed(lower):
        y = fmuladd(b, y, x, c)
    return y


def at_most(b: ir.IRBuilder, x: ir.Value, bound: float) -> ir.Value:
    """min(x, bound), NaN where x is (operands in the order that makes it one `minps`)."""
    return b.select(b.fcmp_ordered("<", splat(x, bound), x), splat(x, bound), x)


def at_least(b: ir.IRBuilder, x: ir.Value, bound: float) -> ir.Value:
    """max(x, bound), NaN where x is."""
    return b.select(b.fcmp_ordered(">", splat(x, bound), x), splat(x, bound), x)


def get_bits(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.bitcast(x, retype(x, I32))


def from_bits(b: ir.IRBuilder, i: ir.Value) -> ir.Value:
    return b.bitcast(i, retype(i, F32))


def build_power_of_2(b: ir.IRBuilder, i: ir.Value) -> ir.Value:
    """2^n as float, -126 <= n <= 127, n in the low 9 bits of i; what stands above them (ROUND's) is shifted out."""
    return from_bits(b, b.shl(b.add(i, splat(i, 127)), splat(i, 23)))


# -- exponentials -----------------------------------------------------------------------------------------------------

LN2_HIGH = 0.693145751953125  # 15 bits, so that n * LN2_HIGH is exact for |n| < 2^9
LN2_LOW = LN2 - LN2_HIGH
# (e^r - 1 - r) / r^2 on |r| <= ln(2)/2: 1.3e-8
EXPM1 = (0.49999997, 0.16666543, 0.0416672, 0.0083665475, 0.0013882517)


def reduce_exp(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """e^x = 2^n (1 + q) with n = round(x / ln 2): bits with n in the low 9, and q = e^(x - n ln 2) - 1.

    Cody and Waite's reduction in two steps (Software Manual for the Elementary Functions, 1980, ch. 6). |x| < 150.
    """
    rounded = fmuladd(b, x, 1 / LN2, ROUND_F32)
    n = b.fsub(rounded, splat(x, ROUND_F32))
    r = fmuladd(b, n, -LN2_LOW, fmuladd(b, n, -LN2_HIGH, x))
    return get_bits(b, rounded), fmuladd(b, b.fmul(r, r), evaluate_polynomial(b, r, EXPM1), r)


def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e^x. At most 1.05 ULP."""
    # e^-104.5 rounds to 0 and e^89 overflows; 2^n as two factors, since n reaches from -151 to 128.
    i, q = reduce_exp(b, at_least(b, at_most(b, x, 89.0), -104.5))
    half = b.lshr(i, splat(i, 1))
    first, second = build_power_of_2(b, half), build_power_of_2(b, b.sub(i, half))
    return b.fmul(fmuladd(b, first, q, first), second)


def halve_expm1(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """(e^x - 1) / 2 for x > -87, the half so that it stays finite up to x = 89; larger x give that value."""
    i, q = reduce_exp(b, at_most(b, x, 89.0))
    scale = build_power_of_2(b, b.sub(i, splat(i, 1)))
    return fmuladd(b, scale, q, b.fsub(scale, splat(x, 0.5)))


def expm1(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e^x - 1 as 2^n (e^r - 1) + (2^n - 1), as in Sun's fdlibm (s_expm1.c, 1993). At most 1.73 ULP."""
    y = halve_expm1(b, at_least(b, x, -17.5))  # e^-17.5 is less than half an ULP of 1
    # x itself where x^2/2 is beyond its last bit: keeps -0, and the odd subnormals, which have no half.
    tiny = b.fcmp_ordered("<", call_intrinsic(b, "fabs", x), splat(x, 2.0**-25))
    return b.select(tiny, x, b.fadd(y, y))


def tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """tanh |x| = h / (h + 1) with h = (e^2|x| - 1) / 2, and the sign of x. At most 2.61 ULP."""
    a = call_intrinsic(b, "fabs", x)
    h = halve_expm1(b, b.fadd(a, a))
    return call_intrinsic(b, "copysign", b.fdiv(h, b.fadd(h, splat(h, 1.0))), x)


def sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / (1 + e^-x), as z / (1 + z) with z = e^x for negative x: it underflows gradually. At most 2.41 ULP."""
    z = exp(b, b.fneg(call_intrinsic(b, "fabs", x)))
    one = splat(x, 1.0)
    return b.fdiv(b.select(b.fcmp_ordered("<", x, splat(x, 0.0)), z, one), b.fadd(z, one))


# erf(t) / t - 1 in t^2 on 0 <= t <= 0.9277: 1.7e-8
ERF_SMALL = (0.12837915, -0.37612483, 0.11281718, -0.026763052, 0.004987913, -0.00059638446)
# -log(1 - erf t) / t - 1, the sign turned, on 0.9277 <= t <= 4: 2.9e-9 of erf
ERF_LARGE = (-0.1285119, -0.6357266, -0.105250984, 0.022883026, -0.0032127989, 0.00021372402)


def erf(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Error function: t + t P(t^2) for t = |x| up to 0.9277, else 1 - e^(-t + t Q(t)). At most 1.40 ULP.

    The form is that of N. Juffa's erff (Stack Overflow, question 35148198, 2016), the coefficients are not.
    """
    t = at_most(b, call_intrinsic(b, "fabs", x), 4.0)  # erf is 1 from 3.92 on
    small = fmuladd(b, t, evaluate_polynomial(b, b.fmul(t, t), ERF_SMALL), t)
    i, q = reduce_exp(b, fmuladd(b, t, evaluate_polynomial(b, t, ERF_LARGE), b.fneg(t)))
    scale = build_power_of_2(b, i)
    large = b.fsub(splat(t, 1.0), fmuladd(b, scale, q, scale))
    y = b.select(b.fcmp_ordered(">", t, splat(t, 0.927734375)), large, small)
    return call_intrinsic(b, "copysign", y, x)


# -- logarithms -------------------------------------------------------------------------------------------------------

# (log(1 + f) - f) / f^2 on |f| <= 1/3: 2.6e-8
LOG1P = (-0.49999937, 0.33333197, -0.2500782, 0.20011169, -0.16415961, 0.13995805, -0.15388535, 0.14026365)


def get_exponent(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e = 2^23 k as an integer for x = 2^k m, 2/3 <= m < 4/3: subtracted from the bits of x, it leaves those of m."""
    i = get_bits(b, x)
    return b.and_(b.sub(i, splat(i, 0x3F2AAAAB)), splat(i, -(1 << 23)))  # the bits of 2/3


def log_reduced(b: ir.IRBuilder, f: ir.Value, e: ir.Value) -> ir.Value:
    """log((1 + f) 2^k) = k ln 2 + f + f^2 P(f), |f| <= 1/3, e = 2^23 k."""
    y = fmuladd(b, b.fmul(f, f), evaluate_polynomial(b, f, LOG1P), f)
    return fmuladd(b, b.sitofp(e, f.type), LN2 * 2.0**-23, y)


def finish_log(b: ir.IRBuilder, x: ir.Value, y: ir.Value, pole: float) -> ir.Value:
    """y, but x for +inf and NaN, -inf where x is the pole, NaN below it."""
    y = b.select(b.fcmp_ordered("<", x, splat(x, inf)), y, x)
    y = b.select(b.fcmp_ordered("==", x, splat(x, pole)), splat(x, -inf), y)
    return b.select(b.fcmp_ordered("<", x, splat(x, pole)), splat(x, nan), y)


def log(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Natural logarithm. At most 1.18 ULP."""
    subnormal = b.fcmp_ordered("<", x, splat(x, SMALLEST_NORMAL))
    a = b.select(subnormal, b.fmul(x, splat(x, 2.0**23)), x)
    e = get_exponent(b, a)
    f = b.fsub(from_bits(b, b.sub(get_bits(b, a), e)), splat(x, 1.0))
    e = b.sub(e, b.select(subnormal, splat(e, 23 << 23), splat(e, 0)))
    return finish_log(b, x, log_reduced(b, f, e), 0.0)


def log1p_finite(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(1 + x) for -1 < x < inf: 1 + x = 2^k (1 + f), f = x 2^-k + (2^-k - 1), so that no bit of x is lost.

    The reduction is that of N. Juffa, "Faster and more accurate implementation of log1pf()" (NVIDIA forums, 2015).
    """
    e = get_exponent(b, b.fadd(x, splat(x, 1.0)))
    scaled = from_bits(b, b.sub(get_bits(b, x), e))
    scale = from_bits(b, b.sub(splat(e, 0x40800000), e))  # 4 * 2^-k: 2^-k is subnormal at k = 127
    return log_reduced(b, b.fadd(scaled, fmuladd(b, scale, 0.25, -1.0)), e)


def log1p(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(1 + x). At most 1.92 ULP."""
    return call_intrinsic(b, "copysign", finish_log(b, x, log1p_finite(b, x), -1.0), x)


def softplus(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|). At most 2.11 ULP."""
    z = exp(b, b.fneg(call_intrinsic(b, "fabs", x)))
    return b.fadd(at_least(b, x, 0.0), log1p_finite(b, z))


# -- powers -----------------------------------------------------------------------------------------------------------

# log2((1 + s) / (1 - s)) / s as a polynomial in s^2, 1/sqrt 2 <= (1 + s) / (1 - s) <= sqrt 2: 4.2e-12
LOG2 = (2.885390081791965, 0.9617966725034542, 0.5770836864587949, 0.411668160567424, 0.3407984033320494)
# 2^f on |f| <= 1/2: 1.9e-9
EXP2 = (
    1.0000000005541663,
    0.6931472057372273,
    0.24022646890618507,
    0.0555032877704028,
    0.009618488960163188,
    0.0013399931197356344,
    0.0001534581104496145,
)


def log2_double(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log2 of doubles that are 0, inf, NaN or within float32's range: k + log2(m), sqrt(1/2) <= m < sqrt 2.

    log2(m) by the series of atanh in s = (m - 1) / (m + 1), as in Sun's fdlibm (e_log.c, 1993).
    """
    bits = b.bitcast(x, retype(x, I64))
    # k + 1023: 2^52 less the mantissa bits of sqrt 2 makes mantissas from there on carry into the exponent.
    exponent = b.lshr(b.add(bits, splat(bits, 0x00095F619980C433)), splat(bits, 52))
    one = 1023 << 52
    m = b.bitcast(b.add(b.sub(bits, b.shl(exponent, splat(bits, 52))), splat(bits, one)), x.type)
    # 64-bit integers to double without AVX-512: put them under the mantissa of 2^52.
    biased = b.bitcast(b.or_(exponent, splat(bits, 0x433 << 52)), x.type)
    k = b.fsub(biased, splat(x, 2.0**52 + 1023))
    s = b.fdiv(b.fsub(m, splat(x, 1.0)), b.fadd(m, splat(x, 1.0)))
    y = fmuladd(b, s, evaluate_polynomial(b, b.fmul(s, s), LOG2), k)
    return finish_log(b, x, y, 0.0)


def exp2_double(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """2^x in double, held within 2^-200 .. 2^200: beyond float32's range, within double's."""
    x = at_least(b, at_most(b, x, 200.0), -200.0)
    rounded = b.fadd(x, splat(x, ROUND_F64))
    f = b.fsub(x, b.fsub(rounded, splat(x, ROUND_F64)))
    i = b.bitcast(rounded, retype(x, I64))
    scale = b.bitcast(b.shl(b.add(i, splat(i, 1023)), splat(i, 52)), x.type)
    return b.fmul(evaluate_polynomial(b, f, EXP2), scale)


def pow(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """x^y = 2^(y log2 |x|), computed in double, with C99's special cases. At most 0.54 ULP."""
    f64, zero = retype(x, F64), splat(x, 0.0)
    # Past 2^31 every y is even and x^y is 0, 1 or inf; unlike inf, the bound times log2(1) is 0, as (-1)^inf = 1 wants.
    exponent = b.fpext(at_least(b, at_most(b, y, 2.0**31), -(2.0**31)), f64)
    product = b.fmul(exponent, log2_double(b, b.fpext(call_intrinsic(b, "fabs", x), f64)))
    is_one = b.or_(b.fcmp_ordered("==", y, zero), b.fcmp_ordered("==", x, splat(x, 1.0)))  # even if the other is NaN
    magnitude = b.fptrunc(exp2_double(b, b.select(is_one, splat(product, 0.0), product)), x.type)

    rounded = b.fadd(exponent, splat(exponent, ROUND_F64))
    is_integer = b.fcmp_ordered("==", b.fsub(rounded, splat(exponent, ROUND_F64)), exponent)
    odd = b.trunc(b.bitcast(rounded, retype(x, I64)), retype(x, I32))  # in the lowest bit
    sign = b.and_(b.shl(odd, splat(odd, 31)), get_bits(b, x))
    signed = from_bits(b, b.or_(get_bits(b, magnitude), b.select(is_integer, sign, splat(sign, 0))))
    negative = b.and_(b.fcmp_ordered("<", x, zero), b.fcmp_ordered(">", x, splat(x, -inf)))
    return b.select(b.and_(negative, b.not_(is_integer)), splat(x, nan), signed)


def sqrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Square root: one instruction, correctly rounded (0.5 ULP)."""
    return call_intrinsic(b, "sqrt", x)


FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    f.__name__: f for f in (exp, expm1, log, log1p, tanh, erf, sigmoid, softplus, pow, sqrt)
}
