"""Scalar expressions as ONNX nodes: every elementwise op, fused chains, and the epilogues of convolutions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from graphc.errors import UnsupportedError
from graphc.ir import DType
from graphc.onnx.tensors import ELEMENT_TYPES
from graphc.onnx.writer import NodeWriter
from graphc.ops import elementwise, scalar
from graphc.ops.elementwise import Dropout, Elementwise
from graphc.ops.scalar import CASTS, Arg, Call, Expr, Lit, call, common_dtype

_SAME = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "max": "Max", "min": "Min", "neg": "Neg",
    "abs": "Abs", "sqrt": "Sqrt", "floor": "Floor", "ceil": "Ceil", "round": "Round", "exp": "Exp", "log": "Log",
    "tanh": "Tanh", "erf": "Erf", "sigmoid": "Sigmoid", "softplus": "Softplus",
    "logical_and": "And", "logical_or": "Or", "logical_not": "Not",
    "select": "Where", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal",
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """An ONNX op over expressions (None where an optional input is left out)."""

    op_type: str
    args: tuple[Expr | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


def choose_form(expr: Call) -> Form:
    """The ONNX op for the root of an expression: one that stands for several primitives if there is one."""
    is_float = expr.dtype.is_float
    match expr:
        case Call("max", (x, Lit(0.0))) if is_float:
            return Form("Relu", (x,))
        case Call("min", (Call("max", (x, Lit() as low)), Lit() as high)) if is_float:
            bounds = (low if low.value > -inf else None, high if high.value < inf else None)
            return Form("Clip", (x, *bounds))
        case Call("select", (Call("ge", (x, Lit(0.0))), y, below)) if x == y:
            match below:
                case Call("mul", (z, Lit(alpha))) if x == z:
                    return Form("LeakyRelu", (x,), {"alpha": float(alpha)})
                case Call("mul", (Call("expm1", (z,)), Lit(alpha))) if x == z:
                    return Form("Elu", (x,), {"alpha": float(alpha)})
                case Call("expm1", (z,)) if x == z:
                    return Form("Elu", (x,), {"alpha": 1.0})
        case Call("expm1", (x,)):
            return Form("Sub", (call("exp", x), Lit(1.0)))
        case Call("log1p", (x,)):
            return Form("Log", (x + 1.0,))
        case Call("ne", args) if common_dtype(args) == DType.BOOL:
            return Form("Xor", args)
        case Call("ne", args):
            return Form("Not", (Call("eq", args),))
        case Call("floordiv", (a, b)) if is_float:
            return Form("Floor", (a / b,))
        case Call("mod", (a, b)) if is_float:
            return Form("Sub", (a, call("floor", a / b) * b))
        case Call("mod", args):
            return Form("Mod", args)
        case Call("fmod", args):
            return Form("Mod", args, {"fmod": 1})
        case Call(fn, args) if fn in CASTS:
            return Form("Cast", args, {"to": ELEMENT_TYPES[CASTS[fn]]})
    if expr.fn not in _SAME:
        raise UnsupportedError(f"ONNX has no {expr.fn} of {expr.dtype.value}")
    return Form(_SAME[expr.fn], expr.args)


def write_expression(n: NodeWriter, expr: Expr, operands: Sequence[str], result: bool = True) -> str:
    """Write `expr` over these ONNX values, as the node's result if `result`; its name. Equal parts stand once."""
    found: dict[Expr, str] = {}

    def write(e: Expr, root: bool) -> str:
        if isinstance(e, Arg):
            if root:
                n.emit("Identity", operands[e.index])
            return operands[e.index]
        if e not in found:
            if not isinstance(e, Call):
                raise UnsupportedError(f"the expression {expr} is a number or has parts that only compiled code has")
            form = choose_form(e)
            given = [a for a in (form.args[1:] if form.op_type == "Where" else form.args) if a is not None]
            dtype = common_dtype(given)
            inputs = ["" if a is None else n.number(a.value, "number", dtype) if isinstance(a, Lit) else write(a, False)
                      for a in form.args]  # fmt: skip
            while inputs[-1] == "":
                inputs.pop()
            add: Callable[..., str | None] = n.emit if root else n.step
            found[e] = add(form.op_type, *inputs, **form.attributes) or n.outputs[0]
        return found[e]

    return write(expr, result)


def write_tail(n: NodeWriter, epilogue: str | None, op_type: str, count: int, **attributes: Any) -> None:
    """An op over the first `count` inputs and then the epilogue, whose operands are the inputs after them."""
    if epilogue is None:
        return n.emit(op_type, *n.inputs[:count], **attributes)
    return write_epilogue(n, epilogue, n.step(op_type, *n.inputs[:count], **attributes), count)


def write_epilogue(n: NodeWriter, epilogue: str, result: str, count: int) -> None:
    """The epilogue over x0 = `result`, and x1, ... = the inputs from `count` on."""
    types = [n.node.outputs[0].type, *(v.type for v in n.node.inputs[count:])]
    write_expression(n, scalar.parse(epilogue, [t.dtype for t in types]), [result, *n.inputs[count:]])


def write_elementwise(n: NodeWriter, op: Elementwise) -> None:
    """Any elementwise op, fused chains among them, as its expression."""
    expr = op.expression(tuple(v.type.dtype for v in n.node.inputs))
    unused = set(range(len(n.inputs))).difference(scalar.arguments(expr))
    if unused:  # its shape counts, but no ONNX node would read it
        raise UnsupportedError(f"operand x{min(unused)} is not used by {expr}")
    write_expression(n, expr, n.inputs)


def write_dropout(n: NodeWriter, op: Dropout) -> None:
    """Dropout, which does nothing outside training."""
    n.emit("Dropout", n.inputs[0], n.number(op.p, "ratio"))


EXPORTERS: dict[Any, Callable[[NodeWriter, Any], None]] = {
    **dict.fromkeys(
        (
            elementwise.Identity, elementwise.Relu, elementwise.LeakyRelu, elementwise.Elu, elementwise.Sigmoid,
            elementwise.Tanh, elementwise.Softplus, elementwise.HardThreshold, elementwise.Clip, elementwise.Exp,
            elementwise.Log, elementwise.Sqrt, elementwise.Neg, elementwise.Abs, elementwise.Add, elementwise.Sub,
            elementwise.Mul, elementwise.Div, elementwise.Pow, elementwise.Maximum, elementwise.Minimum,
            elementwise.Fused,
        ),
        write_elementwise,
    ),
    Dropout: write_dropout,
}  # fmt: skip
