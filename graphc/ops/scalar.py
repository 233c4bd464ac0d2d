"""Scalar expressions: what an elementwise op computes for one element.

One expression serves the NumPy reference (`evaluate`), the text form (`str` and `parse`) and the vector code
(graphc/codegen/emit.py, which adds leaves of its own: loop variables, loads and reductions). `PRIMITIVES` is the whole
language; an op composes them with Python operators and `call`.
"""

import ast
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DType

ExprLike = Union["Expr", float, int]


class Expr:
    """A scalar expression; operators build larger ones. Every concrete class is a frozen dataclass with a `dtype`."""

    @property
    def dtype(self) -> DType:
        """The element type of the result."""
        raise NotImplementedError

    def __add__(self, other: ExprLike) -> "Expr":
        return call("add", self, other)

    def __radd__(self, other: ExprLike) -> "Expr":
        return call("add", other, self)

    def __sub__(self, other: ExprLike) -> "Expr":
        return call("sub", self, other)

    def __rsub__(self, other: ExprLike) -> "Expr":
        return call("sub", other, self)

    def __mul__(self, other: ExprLike) -> "Expr":
        return call("mul", self, other)

    def __rmul__(self, other: ExprLike) -> "Expr":
        return call("mul", other, self)

    def __truediv__(self, other: ExprLike) -> "Expr":
        return call("div", self, other)

    def __rtruediv__(self, other: ExprLike) -> "Expr":
        return call("div", other, self)

    def __floordiv__(self, other: ExprLike) -> "Expr":
        return call("floordiv", self, other)

    def __mod__(self, other: ExprLike) -> "Expr":
        return call("mod", self, other)

    def __neg__(self) -> "Expr":
        return call("neg", self)


@dataclass(frozen=True)
class Arg(Expr):
    """The element of input number `index`; printed x0, x1, ..."""

    index: int
    dtype: DType = DType.F32

    def __str__(self) -> str:
        return f"x{self.index}"


@dataclass(frozen=True)
class Lit(Expr):
    """A number; beside another operand it takes that operand's dtype."""

    value: float | int | bool

    @property
    def dtype(self) -> DType:
        if isinstance(self.value, bool):
            return DType.BOOL
        return DType.F32 if isinstance(self.value, float) else DType.I64

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Call(Expr):
    """A primitive applied to operands."""

    fn: str
    args: tuple[Expr, ...]

    @property
    def dtype(self) -> DType:
        if self.fn in COMPARISONS or self.fn in LOGIC:
            return DType.BOOL
        if self.fn in CASTS:
            return CASTS[self.fn]
        return common_dtype(self.args[1:] if self.fn == "select" else self.args)

    def __str__(self) -> str:
        if self.fn in _INFIX:
            a, b = map(str, self.args)
            return f"({a} {_INFIX[self.fn]} {b})"
        return f"-{self.args[0]}" if self.fn == "neg" else f"{self.fn}({', '.join(map(str, self.args))})"


def call(fn: str, *args: ExprLike) -> Expr:
    """Apply the primitive `fn`; Python numbers become literals, arithmetic on two literals is done at once."""
    exprs = tuple(a if isinstance(a, Expr) else Lit(a) for a in args)
    match fn, exprs:
        case "add", (Lit(value=0), x) if not x.dtype.is_float:
            return x
        case "add" | "sub", (x, Lit(value=0)) if not x.dtype.is_float:
            return x
        case "mul" | "floordiv", (x, Lit(value=1)):
            return x
        case "mul", (Lit(value=1), x):
            return x
        case (("add" | "sub" | "mul"), (Lit(value=a), Lit(value=b))):
            return Lit({"add": a + b, "sub": a - b, "mul": a * b}[fn])
    return Call(fn, exprs)


def common_dtype(args: Sequence[Expr]) -> DType:
    """The dtype of the operands that are not literals (of the first literal if all are)."""
    found = [a.dtype for a in args if not isinstance(a, Lit)] or [args[0].dtype]
    if len(set(found)) > 1:
        raise ShapeError(f"operands have different dtypes: {', '.join(d.value for d in found)}")
    return found[0]


def check_dtypes(expr: Expr) -> Expr:
    """`expr`, if each primitive in it takes operands of their dtypes, else ShapeError.

    Integers have floordiv and mod by positive numbers alone: those of index arithmetic, without a check for 0.
    """
    if not isinstance(expr, Call):
        return expr
    for e in expr.args:
        check_dtypes(e)
    fn, args = expr.fn, expr.args[1:] if expr.fn == "select" else expr.args
    dtype = common_dtype(args)
    if dtype.is_half and fn not in CASTS and fn != "select":
        raise ShapeError(f"{fn} wants a type to compute with, got {dtype.value}: cast it to f32 first")
    if (fn in FLOAT_ONLY and not dtype.is_float) or (fn in NUMBER_ONLY and dtype == DType.BOOL):
        raise ShapeError(f"{fn} wants {'floats' if fn in FLOAT_ONLY else 'numbers'}, got {dtype.value}")
    if fn in LOGIC and dtype != DType.BOOL:
        raise ShapeError(f"{fn} wants booleans, got {dtype.value}")
    if fn in ("floordiv", "mod") and not dtype.is_float and not (isinstance(args[1], Lit) and args[1].value > 0):
        raise ShapeError(f"{fn} of {dtype.value} wants a positive number to divide by, got {args[1]}")
    for e in args:
        if isinstance(e, Lit) and not dtype.is_float and not float(e.value).is_integer():
            raise ShapeError(f"{fn} wants integers beside an operand of {dtype.value}, got {e}")
    return expr


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # never overflows
    return np.asarray(np.where(x < 0, e, 1).astype(x.dtype) / (1 + e))


def _softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _div(a: Any, b: Any) -> Array:
    """a / b; of integers rounded towards zero, and 0 where b is 0."""
    dtype = np.result_type(a, b)
    if dtype.kind == "f":
        return np.asarray(np.divide(a, b))
    quotient = np.floor_divide(a, b)
    inexact = (quotient < 0) & (np.multiply(quotient, b) != a)
    return np.asarray(np.where(np.equal(b, 0), 0, quotient + inexact).astype(dtype))


def _pow(a: Any, b: Any) -> Array:
    """a**b; of integers modulo 2^bits, where a negative b gives 1/a rounded towards zero, and 0 for a = 0."""
    dtype = np.result_type(a, b)
    if dtype.kind != "i":
        return np.asarray(np.power(a, b))
    negative = np.less(b, 0)
    result = np.power(np.asarray(a, dtype), np.where(negative, 0, b).astype(dtype))
    inverse = np.where(np.equal(a, 1), 1, np.where(np.equal(a, -1), 1 - 2 * (np.asarray(b) & 1), 0))
    return np.asarray(np.where(negative, inverse.astype(dtype), result))


def convert(x: Any, to: DType) -> Array:
    """x with elements of another dtype: a float to an integer is cut towards zero and to the integer's range, NaN to 0.

    Integers wrap around; to f16 and bf16 numbers are rounded to nearest, half to even, integers by way of float64.
    """
    x = np.asarray(x)
    if DType.of(x.dtype).is_half:
        x = x.astype(np.float32)  # exact
    if to.is_integer and x.dtype.kind == "f":
        least, most = to.limits
        whole = np.trunc(np.where(np.isnan(x), 0.0, x.astype(np.float64)))
        above, below = whole >= most, whole <= least  # float64 may hold `most` + 1 alone
        inside = np.where(above | below, 0.0, whole).astype(to.numpy)
        return np.asarray(np.where(above, most, np.where(below, least, inside)).astype(to.numpy))
    if to.is_half and x.dtype.kind in "iu":
        x = x.astype(np.float64)
    if to == DType.BF16 and x.dtype == np.float64:
        x = _round_to_odd(x)
    return np.asarray(x.astype(to.numpy))


def _round_to_odd(x: Array) -> Array:
    """Float64 as float32, inexact ones with an odd last bit: rounding that again rounds as if it were the first time.

    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008.)
    """
    near = x.astype(np.float32)
    bits = near.view(np.uint32)
    beyond = np.abs(near.astype(np.float64)) > np.abs(x)
    odd = ((bits - beyond.astype(np.uint32)) | np.uint32(1)).view(np.float32)
    return np.asarray(np.where((near.astype(np.float64) == x) | np.isnan(x), near, odd))


_erf = np.vectorize(math.erf, otypes=[np.float64])

COMPARISONS: dict[str, Callable[..., Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip
LOGIC = ("logical_and", "logical_or", "logical_not")
NUMBER_ONLY = (
    "add", "sub", "mul", "div", "fmod", "neg", "abs", "max", "min", "lt", "le", "gt", "ge", "floordiv", "mod", "pow",
)  # fmt: skip
FLOAT_ONLY = (
    "sqrt", "floor", "ceil", "round", "exp", "expm1", "log", "log1p", "tanh", "erf", "sigmoid", "softplus",
)  # fmt: skip
CASTS = {f"to_{t.value}": t for t in DType}

# name -> what NumPy computes for it; max and min return NaN where an operand is NaN
PRIMITIVES: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _div, "floordiv": np.floor_divide,
    "mod": np.mod, "fmod": np.fmod, "pow": _pow, "max": np.maximum, "min": np.minimum,
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil,
    "round": np.rint,  # half to even
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "erf": lambda x: _erf(x).astype(x.dtype), "sigmoid": _sigmoid, "softplus": _softplus,
    "logical_and": np.logical_and, "logical_or": np.logical_or, "logical_not": np.logical_not, "select": np.where,
    **COMPARISONS,
    **{name: (lambda x, t=t: convert(x, t)) for name, t in CASTS.items()},
}  # fmt: skip
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%"}
_AST_INFIX = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv", ast.Mod: "mod"}


def evaluate(expr: Expr, args: Sequence[Array]) -> Array:
    """The expression over whole arrays, with NumPy's broadcasting."""
    with np.errstate(all="ignore"):  # overflow to inf and NaN are results here, not mistakes
        return np.asarray(_evaluate(expr, args))


def _evaluate(expr: Expr, args: Sequence[Array]) -> Any:
    match expr:
        case Arg(index=i):
            return args[i]
        case Lit(value=v):
            return v
        case Call(fn=fn, args=operands):
            return PRIMITIVES[fn](*(_evaluate(a, args) for a in operands))
    raise ShapeError(f"cannot evaluate {expr}")


def substitute(expr: Expr, replacements: Sequence[Expr]) -> Expr:
    """The expression with each `Arg(i)` replaced by `replacements[i]`."""
    match expr:
        case Arg(index=i):
            return replacements[i]
        case Call(fn=fn, args=operands):
            return call(fn, *(substitute(a, replacements) for a in operands))
    return expr


def replace(expr: Expr, part: Expr, other: Expr) -> Expr:
    """The expression with every occurrence of `part` replaced by `other`."""
    if expr == part:
        return other
    return call(expr.fn, *(replace(a, part, other) for a in expr.args)) if isinstance(expr, Call) else expr


def arguments(expr: Expr) -> Iterator[int]:
    """The index of each `Arg` in order of appearance, as often as it appears."""
    match expr:
        case Arg(index=i):
            yield i
        case Call(args=operands):
            for operand in operands:
                yield from arguments(operand)


def size(expr: Expr) -> int:
    """The number of primitives in the expression."""
    return 1 + sum(size(a) for a in expr.args) if isinstance(expr, Call) else 0


def parse(text: str, dtypes: Sequence[DType]) -> Expr:
    """Read what `str` writes; `dtypes` are those of x0, x1, ..."""
    try:
        return _from_ast(ast.parse(text, mode="eval").body, dtypes)
    except (SyntaxError, KeyError, IndexError):
        raise ShapeError(f"expression: cannot read {text!r} over {len(dtypes)} operands") from None


def _from_ast(node: ast.expr, dtypes: Sequence[DType]) -> Expr:
    match node:
        case ast.Name(id="inf" | "nan" as name):
            return Lit(float(name))
        case ast.Name(id=name) if name[0] == "x" and name[1:].isdigit():
            return Arg(int(name[1:]), dtypes[int(name[1:])])
        case ast.Constant(value=bool() | int() | float() as value):
            return Lit(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Lit(-value)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            inner = _from_ast(x, dtypes)
            return Lit(-inner.value) if isinstance(inner, Lit) else call("neg", inner)
        case ast.BinOp(left=a, op=op, right=b):
            return call(_AST_INFIX[type(op)], _from_ast(a, dtypes), _from_ast(b, dtypes))
        case ast.Call(func=ast.Name(id=fn), args=args) if fn in PRIMITIVES:
            return call(fn, *(_from_ast(a, dtypes) for a in args))
    raise SyntaxError
