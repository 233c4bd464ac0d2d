"""The derivative of a scalar expression, by rules for the primitives: what the gradients of elementwise ops are."""

import math
from collections.abc import Callable

from graphc.ops.scalar import CASTS, Arg, Call, Expr, Lit, call

Pulled = dict[int, Expr]

# primitive -> for each operand, from the gradient g of the result and the operands, that of the operand. What is not
# listed is constant almost everywhere: comparisons, rounding, casts to integers.
RULES: dict[str, tuple[Callable[..., Expr], ...]] = {
    "add": (lambda g, a, b: g, lambda g, a, b: g),
    "sub": (lambda g, a, b: g, lambda g, a, b: -g),
    "mul": (lambda g, a, b: g * b, lambda g, a, b: g * a),
    "div": (lambda g, a, b: g / b, lambda g, a, b: -(g * (a / b)) / b),
    "mod": (lambda g, a, b: g, lambda g, a, b: -(g * call("floor", a / b))),
    "fmod": (lambda g, a, b: g, lambda g, a, b: -(g * ((a - call("fmod", a, b)) / b))),
    "pow": (lambda g, a, b: _pow_base(g, a, b), lambda g, a, b: _pow_exponent(g, a, b)),
    "neg": (lambda g, a: -g,),
    "abs": (lambda g, a: call("select", call("gt", a, 0.0), g, call("select", call("lt", a, 0.0), -g, 0.0)),),
    "sqrt": (lambda g, a: g * 0.5 / call("sqrt", a),),
    "exp": (lambda g, a: g * call("exp", a),),
    "expm1": (lambda g, a: g * call("exp", a),),
    "log": (lambda g, a: g / a,),
    "log1p": (lambda g, a: g / (a + 1.0),),
    "tanh": (lambda g, a: g * (1.0 - call("tanh", a) * call("tanh", a)),),
    "erf": (lambda g, a: g * (2 / math.sqrt(math.pi)) * call("exp", -(a * a)),),
    "sigmoid": (lambda g, a: g * call("sigmoid", a) * (1.0 - call("sigmoid", a)),),
    "softplus": (lambda g, a: g * call("sigmoid", a),),
    **{fn: (lambda g, a: call(f"to_{a.dtype.value}", g),) for fn, t in CASTS.items() if t.is_float},
}


def pull_back(expr: Expr, g: Expr) -> Pulled:
    """By index of each `Arg` of a float dtype, its gradient, where g is that of `expr`; none where it is 0.

    Where operands of max or min are equal the first counts, but a number before all: the derivative of relu at 0 is 0.
    """
    match expr:
        case Arg(index=i) if expr.dtype.is_float:
            return {i: g}
        case Call("select", (condition, a, b)):
            return _choose(condition, pull_back(a, g), pull_back(b, g))
        case Call("max" | "min" as fn, (a, b)):
            comparison = {"max": "gt", "min": "lt"} if isinstance(b, Lit) else {"max": "ge", "min": "le"}
            return _choose(call(comparison[fn], a, b), pull_back(a, g), pull_back(b, g))
        case Call(fn, operands) if fn in RULES:
            total: Pulled = {}
            for operand, rule in zip(operands, RULES[fn], strict=True):
                if isinstance(operand, Arg | Call):
                    for i, e in pull_back(operand, rule(g, *operands)).items():
                        total[i] = total[i] + e if i in total else e
            return total
    return {}


def _choose(condition: Expr, yes: Pulled, no: Pulled) -> Pulled:
    """One or the other, and not both times a mask: what is infinite in the branch that is not taken stays there."""
    zero = Lit(0.0)
    return {i: call("select", condition, yes.get(i, zero), no.get(i, zero)) for i in sorted(yes.keys() | no.keys())}


def _pow_base(g: Expr, a: Expr, b: Expr) -> Expr:
    if isinstance(b, Lit) and b.value == 2:
        return g * 2.0 * a
    slope = g * (b * call("pow", a, b - 1.0))
    return slope if isinstance(b, Lit) else call("select", call("eq", b, 0.0), 0.0, slope)  # 0 * inf where a = 0


def _pow_exponent(g: Expr, a: Expr, b: Expr) -> Expr:
    """0^b is 0 for all b > 0, where 0 * log(0) would be NaN."""
    return call("select", call("eq", a, 0.0), 0.0, g * (call("pow", a, b) * call("log", a)))
