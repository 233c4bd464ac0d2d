"""Each primitive of graphc/ops/scalar.py as LLVM instructions, for scalars and vectors alike."""

from collections.abc import Callable, Sequence
from math import inf, isnan

from llvmlite import ir

from graphc.codegen import vecmath
from graphc.codegen.blocks import I1, I64, IR_TYPES, intrinsic, is_vector, mangle
from graphc.errors import UnsupportedError
from graphc.ir import DType
from graphc.ops.scalar import CASTS, COMPARISONS

_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT = {"add": "add", "sub": "sub", "mul": "mul", "logical_and": "and_", "logical_or": "or_"}


def emit_primitive(b: ir.IRBuilder, fn: str, args: Sequence[ir.Value]) -> ir.Value:
    """Apply the primitive `fn` to operands of one type (the condition of a select is i1)."""
    first, floating = args[0], is_float(args[0])
    if fn in CASTS:
        return _cast(b, first, IR_TYPES[CASTS[fn]])
    if fn in COMPARISONS:
        if floating:
            return (b.fcmp_unordered if fn == "ne" else b.fcmp_ordered)(_COMPARE[fn], *args)
        return b.icmp_signed(_COMPARE[fn], *args)
    if fn == "select":
        return b.select(*args)
    if fn == "logical_not":
        return b.not_(first)
    if fn in _FLOAT and floating:
        return getattr(b, _FLOAT[fn])(*args)
    if fn in _INT:
        return getattr(b, _INT[fn])(*args)
    if fn in _OTHERS:
        return _OTHERS[fn](b, *args)
    if fn in vecmath.FUNCTIONS and isinstance(_element(first), ir.FloatType):
        return vecmath.FUNCTIONS[fn](b, *args)
    raise UnsupportedError(f"{fn}: no code generation for elements of type {_element(first)}")


def has_code(fn: str, dtype: DType) -> bool:
    """Whether the primitive can be emitted for operands of this dtype: transcendental functions are float32 only."""
    if fn in ("floordiv", "mod"):
        return not dtype.is_float
    return (
        fn in CASTS
        or fn in COMPARISONS
        or fn in _INT
        or fn in _OTHERS
        or fn in ("select", "logical_not")
        or (fn in vecmath.FUNCTIONS and dtype == DType.F32)
    )


def is_float(value: ir.Value) -> bool:
    """Whether the value's elements are floating-point numbers."""
    return isinstance(_element(value), (ir.FloatType, ir.DoubleType))


def constant(type: ir.Type, value: float | int) -> ir.Constant:
    """A number as a constant of a scalar or vector type."""
    element = type.element if isinstance(type, ir.VectorType) else type
    number = float(value) if isinstance(element, (ir.FloatType, ir.DoubleType)) else int(value)
    return ir.Constant(type, [number] * type.count if isinstance(type, ir.VectorType) else number)


def identity_of(kind: str, type: ir.Type) -> ir.Constant:
    """The number that changes nothing in a reduction: 0 for a sum, 1 for a product, the least number for a maximum."""
    element = type.element if isinstance(type, ir.VectorType) else type
    if kind in ("sum", "prod"):
        return constant(type, int(kind == "prod"))
    if isinstance(element, (ir.FloatType, ir.DoubleType)):
        return constant(type, -inf if kind == "max" else inf)
    least = -(1 << (element.width - 1))
    return constant(type, least if kind == "max" else -least - 1)


def _element(value: ir.Value) -> ir.Type:
    return value.type.element if is_vector(value) else value.type


def _extreme(comparison: str) -> Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]:
    """max or min; where an operand is NaN the result is NaN, as in NumPy."""

    def emit(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        if not is_float(x):
            return b.select(b.icmp_signed(comparison, x, y), x, y)
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


def _cast(b: ir.IRBuilder, x: ir.Value, element: ir.Type) -> ir.Value:
    source = _element(x)
    if source == element:
        return x
    type = ir.VectorType(element, x.type.count) if is_vector(x) else element
    if element == I1:
        zero = constant(x.type, 0)
        return b.fcmp_unordered("!=", x, zero) if is_float(x) else b.icmp_signed("!=", x, zero)
    to_float = isinstance(element, (ir.FloatType, ir.DoubleType))
    if is_float(x):
        if to_float:
            return b.fpext(x, type) if isinstance(source, ir.FloatType) else b.fptrunc(x, type)
        return intrinsic(b, f"llvm.fptosi.sat.{mangle(type)}.{mangle(x.type)}", type, [x])
    if to_float:
        return (b.uitofp if source == I1 else b.sitofp)(x, type)
    if source == I1 or source.width < element.width:
        return (b.zext if source == I1 else b.sext)(x, type)
    return b.trunc(x, type)


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
