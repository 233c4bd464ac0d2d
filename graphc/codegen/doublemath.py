"""Elementwise float64 functions: each lane calls libm, which every artefact links. Right before fast: networks compute
in float32, whose functions are vector code (vecmath.py)."""

from collections.abc import Callable

from llvmlite import ir

from graphc.codegen.blocks import F64, I32, is_vector, undefined
from graphc.codegen.vecmath import at_least, call_intrinsic, splat


def _call(name: str, count: int = 1) -> Callable[..., ir.Value]:
    """libm's function of `count` doubles, for each lane."""

    def emit(b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
        function = b.module.globals.get(name)
        if function is None:
            function = ir.Function(b.module, ir.FunctionType(F64, [F64] * count), name)
        if not is_vector(args[0]):
            return b.call(function, args)
        result: ir.Value = undefined(args[0].type)
        for lane in (ir.Constant(I32, i) for i in range(args[0].type.count)):
            value = b.call(function, [b.extract_element(a, lane) for a in args])
            result = b.insert_element(result, value, lane)
        return result

    return emit


exp, log1p = _call("exp"), _call("log1p")


def sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / (1 + e^-x), as z / (1 + z) with z = e^x for negative x: it underflows gradually."""
    z, one = exp(b, b.fneg(call_intrinsic(b, "fabs", x))), splat(x, 1.0)
    return b.fdiv(b.select(b.fcmp_ordered("<", x, splat(x, 0.0)), z, one), b.fadd(z, one))


def softplus(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    return b.fadd(at_least(b, x, 0.0), log1p(b, exp(b, b.fneg(call_intrinsic(b, "fabs", x)))))


FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    "exp": exp,
    "expm1": _call("expm1"),
    "log": _call("log"),
    "log1p": log1p,
    "tanh": _call("tanh"),
    "erf": _call("erf"),
    "pow": _call("pow", 2),
    "sigmoid": sigmoid,
    "softplus": softplus,
}
