"""Each primitive of graphc/ops/scalar.py as LLVM instructions, for scalars and vectors alike."""

from collections.abc import Callable, Sequence
from math import isnan

from llvmlite import ir

from graphc.codegen import doublemath, halves, vecmath
from graphc.codegen.blocks import I64, IR_TYPES, constant, intrinsic, is_vector, mangle
from graphc.errors import UnsupportedError
from graphc.ir import DType
from graphc.ops.scalar import CASTS, COMPARISONS

_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT = {"add": "add", "sub": "sub", "mul": "mul", "logical_and": "and_", "logical_or": "or_"}


def emit_primitive(b: ir.IRBuilder, fn: str, args: Sequence[ir.Value], dtype: DType | None = None) -> ir.Value:
    """Apply the primitive `fn` to operands of one type (the condition of a select is i1).

    `dtype` tells what LLVM's types do not: unsigned integers, and halves, which are bits here.
    """
    first, floating = args[0], is_float(args[0])
    unsigned = dtype is not None and dtype.is_unsigned
    if fn in CASTS:
        return emit_cast(b, first, dtype or _signed_dtype(first), CASTS[fn])
    if fn in COMPARISONS:
        if floating:
            return (b.fcmp_unordered if fn == "ne" else b.fcmp_ordered)(_COMPARE[fn], *args)
        return (b.icmp_unsigned if unsigned else b.icmp_signed)(_COMPARE[fn], *args)
    if fn == "select":
        return b.select(*args)
    if fn == "logical_not":
        return b.not_(first)
    if fn in _FLOAT and floating:
        return getattr(b, _FLOAT[fn])(*args)
    if fn in _INT:
        return getattr(b, _INT[fn])(*args)
    if unsigned and fn in _UNSIGNED:
        return _UNSIGNED[fn](b, *args)
    if fn == "pow" and not floating:
        return _integer_power(b, args[0], args[1], not unsigned)
    if fn in _OTHERS:
        return _OTHERS[fn](b, *args)
    if fn in vecmath.FUNCTIONS and isinstance(_element(first), ir.FloatType):
        return vecmath.FUNCTIONS[fn](b, *args)
    if fn in doublemath.FUNCTIONS and isinstance(_element(first), ir.DoubleType):
        return doublemath.FUNCTIONS[fn](b, *args)
    raise UnsupportedError(f"{fn}: no code generation for elements of type {_element(first)}")


def has_code(fn: str, dtype: DType) -> bool:
    """Whether the primitive can be emitted for operands of this dtype."""
    if fn in ("floordiv", "mod"):
        return not dtype.is_float
    return (
        fn in CASTS
        or fn in COMPARISONS
        or fn in _INT
        or fn in _OTHERS
        or fn in ("select", "logical_not")
        or (fn in vecmath.FUNCTIONS and dtype.is_float)
        or (fn == "pow" and dtype.is_integer)
    )


def is_float(value: ir.Value) -> bool:
    """Whether the value's elements are floating-point numbers."""
    return isinstance(_element(value), (ir.FloatType, ir.DoubleType))


def identity_of(kind: str, type: ir.Type, dtype: DType) -> ir.Constant:
    """The number that changes nothing in a reduction: 0 for a sum, 1 for a product, the least number for a maximum."""
    return constant(type, int(kind == "prod") if kind in ("sum", "prod") else dtype.limits[kind == "min"])


def _element(value: ir.Value) -> ir.Type:
    return value.type.element if is_vector(value) else value.type


def _extreme(comparison: str, unsigned: bool = False) -> Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]:
    """max or min; where an operand is NaN the result is NaN, as in NumPy."""

    def emit(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        if not is_float(x):
            return b.select((b.icmp_unsigned if unsigned else b.icmp_signed)(comparison, x, y), x, y)
        if isinstance(x, ir.Constant):
            x, y = y, x
        # an unordered comparison is false, so `picked` is x where x is NaN: x86's maxps with its operands swapped
        picked = b.select(b.fcmp_ordered(comparison, y, x), y, x)
        return picked if _is_number(y) else b.select(b.fcmp_unordered("uno", y, y), y, picked)

    return emit


def _is_number(value: ir.Value) -> bool:
    """Whether the value is a constant without a NaN."""
    if not isinstance(value, ir.Constant):
        return False
    return not any(isnan(e.constant) for e in (value.constant if is_vector(value) else [value]))


def _floordiv(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Integer division towards minus infinity, for y > 0."""
    quotient, remainder = b.sdiv(x, y), b.srem(x, y)
    return b.add(quotient, b.sext(b.icmp_signed("<", remainder, constant(x.type, 0)), x.type))


def _mod(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The remainder of `_floordiv`: in 0 .. y-1."""
    remainder = b.srem(x, y)
    negative = b.icmp_signed("<", remainder, constant(x.type, 0))
    return b.add(remainder, b.select(negative, y, constant(x.type, 0)))


def _divide(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Integer division towards zero; by 0 it is 0, and by -1 the number negated: CPUs trap where that overflows."""
    quotient = b.sdiv(x, _divisor(b, y))
    quotient = b.select(b.icmp_signed("==", y, constant(y.type, -1)), b.neg(x), quotient)
    return b.select(b.icmp_signed("==", y, constant(y.type, 0)), y, quotient)


def _fmod(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The exact remainder of the division towards zero, with the sign of x (libm's fmod); of integers by 0 it is 0."""
    return b.frem(x, y) if is_float(x) else b.srem(x, _divisor(b, y))


def _divisor(b: ir.IRBuilder, y: ir.Value) -> ir.Value:
    """An integer y, but 1 for 0 and -1, by which a division may trap."""
    near = b.icmp_unsigned("<", b.add(y, constant(y.type, 1)), constant(y.type, 2))
    return b.select(near, constant(y.type, 1), y)


def _neg(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fneg(x) if is_float(x) else b.neg(x)


def _abs(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    if is_float(x):
        return intrinsic(b, f"llvm.fabs.{mangle(x.type)}", x.type, [x])
    return b.select(b.icmp_signed("<", x, constant(x.type, 0)), b.neg(x), x)


def _rounded(name: str) -> Callable[[ir.IRBuilder, ir.Value], ir.Value]:
    """floor or ceil by way of integers: the intrinsic would be a libm call on x86-64 without SSE4.1."""

    def emit(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
        integer = ir.VectorType(I64, x.type.count) if is_vector(x) else I64
        whole = b.sitofp(b.fptosi(x, integer), x.type)
        off, step = ("<", 1.0) if name == "floor" else (">", -1.0)
        beyond = b.fcmp_ordered(off, x, whole)
        exact = b.select(beyond, b.fsub(whole, constant(x.type, step)), whole)
        # from 2^23 on every float32 is whole (2^52 for double): keep those, infinities and NaN as they are
        limit = 2.0**23 if isinstance(_element(x), ir.FloatType) else 2.0**52
        return b.select(b.fcmp_ordered("<", _abs(b, x), constant(x.type, limit)), exact, x)

    return emit


def _round(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """To the nearest integer, half to even: adding 2^23 (2^52) leaves no bit for a fraction. Keeps the sign of zero."""
    limit = constant(x.type, 2.0**23 if isinstance(_element(x), ir.FloatType) else 2.0**52)
    magnitude = _abs(b, x)
    whole = b.fsub(b.fadd(magnitude, limit), limit)
    whole = b.select(b.fcmp_ordered("<", magnitude, limit), whole, magnitude)  # from there on every float is whole
    return intrinsic(b, f"llvm.copysign.{mangle(x.type)}", x.type, [whole, x])


def _sqrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return intrinsic(b, f"llvm.sqrt.{mangle(x.type)}", x.type, [x])


def _nonzero(b: ir.IRBuilder, y: ir.Value) -> ir.Value:
    """An integer y, but 1 for 0, by which a division would trap."""
    return b.select(b.icmp_unsigned("==", y, constant(y.type, 0)), constant(y.type, 1), y)


def _divide_unsigned(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The quotient of unsigned integers; by 0 it is 0."""
    return b.select(b.icmp_unsigned("==", y, constant(y.type, 0)), y, b.udiv(x, _nonzero(b, y)))


def _integer_power(b: ir.IRBuilder, x: ir.Value, y: ir.Value, signed: bool) -> ir.Value:
    """x^y modulo 2^bits by repeated squaring; for a negative y 1, -1 or 0: 1/x^-y cut towards zero, and 0 for x = 0."""
    zero, one = constant(x.type, 0), constant(x.type, 1)
    result, square = one, x
    for bit in range(_element(x).width):
        is_set = b.icmp_unsigned("!=", b.and_(y, constant(y.type, 1 << bit)), zero)
        result = b.select(is_set, b.mul(result, square), result)
        square = b.mul(square, square)
    if not signed:
        return result
    odd = b.icmp_unsigned("!=", b.and_(y, one), zero)
    unit = b.icmp_unsigned("<", b.add(x, one), constant(x.type, 3))  # -1, 0 or 1: its own inverse, 0 as agreed
    inverse = b.select(unit, b.select(odd, x, b.mul(x, x)), zero)
    return b.select(b.icmp_signed("<", y, zero), inverse, result)


def emit_cast(b: ir.IRBuilder, x: ir.Value, source: DType, to: DType) -> ir.Value:
    """x as another dtype, by the rules of graphc.ops.scalar.convert."""
    if source == to:
        return x
    if source.is_half:
        return emit_cast(b, halves.FROM_HALF[source](b, x), DType.F32, to)
    if to.is_half:
        if not source.is_float:
            x, source = emit_cast(b, x, source, DType.F64), DType.F64
        return halves.TO_HALF[to](b, x if source == DType.F32 else halves.round_to_odd(b, x))
    element = IR_TYPES[to]
    type = ir.VectorType(element, x.type.count) if is_vector(x) else element
    if to == DType.BOOL:
        zero = constant(x.type, 0)
        return b.fcmp_unordered("!=", x, zero) if source.is_float else b.icmp_signed("!=", x, zero)
    extends_zeros = source.is_unsigned or source == DType.BOOL
    if source.is_float and to.is_float:
        return b.fpext(x, type) if source == DType.F32 else b.fptrunc(x, type)
    if source.is_float:
        kind = "fptoui" if to.is_unsigned else "fptosi"
        return intrinsic(b, f"llvm.{kind}.sat.{mangle(type)}.{mangle(x.type)}", type, [x])
    if to.is_float:
        return (b.uitofp if extends_zeros else b.sitofp)(x, type)
    width = _element(x).width
    if width < element.width:
        return (b.zext if extends_zeros else b.sext)(x, type)
    return x if width == element.width else b.trunc(x, type)


def _signed_dtype(x: ir.Value) -> DType:
    """What an LLVM value is where nothing says that it is unsigned."""
    signed = (DType.F32, DType.F64, DType.I8, DType.I16, DType.I32, DType.I64, DType.BOOL)
    return next(t for t in signed if IR_TYPES[t] == _element(x))


_OTHERS: dict[str, Callable[..., ir.Value]] = {
    "max": _extreme(">"),
    "min": _extreme("<"),
    "floordiv": _floordiv,
    "mod": _mod,
    "div": _divide,  # of integers
    "fmod": _fmod,
    "round": _round,
    "neg": _neg,
    "abs": _abs,
    "sqrt": _sqrt,
    "floor": _rounded("floor"),
    "ceil": _rounded("ceil"),
}
_UNSIGNED: dict[str, Callable[..., ir.Value]] = {  # where unsigned integers differ from signed ones
    "max": _extreme(">", unsigned=True),
    "min": _extreme("<", unsigned=True),
    "floordiv": lambda b, x, y: b.udiv(x, y),
    "mod": lambda b, x, y: b.urem(x, y),
    "div": _divide_unsigned,
    "fmod": lambda b, x, y: b.urem(x, _nonzero(b, y)),
    "abs": lambda b, x: x,
}
