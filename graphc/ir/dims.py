"""Dimensions: integers, or expressions over symbols such as N, H and W that stand for positive integers.

A `Dim` is a polynomial with integer coefficients over atoms; an atom is a symbol, a floor division, a minimum or a
maximum. This is all that convolution arithmetic needs, and it has a canonical form, so equality is structural:
`(H//2)//2 == H//4`, `2*(H+1) - H == H + 2`. A dim without symbols is always a plain `int`.
"""

import ast
import keyword
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Union

from graphc.errors import ShapeError

DimLike = Union[int, "Dim"]
Monomial = tuple["Atom", ...]
MOST_PARTS = 300  # of one expression: networks have some 20; Python's stack ends before those of three times as many
MOST_COEFFICIENT = 2**62  # run-time arithmetic has 64 bits


@dataclass(frozen=True)
class Atom:
    """An indivisible factor: `kind` is "symbol" (args: its name), "floordiv", "min" or "max" (args: two dims)."""

    kind: str
    args: tuple[Union[str, int, "Dim"], ...]
    parts: int = field(init=False, compare=False, repr=False)  # it and the atoms in it

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", 1 + sum(a.parts for a in self.args if isinstance(a, Dim)))

    def __str__(self) -> str:
        if self.kind == "symbol":
            return str(self.args[0])
        a, b = self.args
        if self.kind == "floordiv":
            return f"{_bracket(a)}//{_bracket(b)}"
        return f"{self.kind}({a},{b})"


@dataclass(frozen=True)
class Dim:
    """A symbolic dimension: the sum of `coefficient * product of atoms`, in canonical order."""

    terms: tuple[tuple[Monomial, int], ...]
    parts: int = field(init=False, compare=False, repr=False)  # its terms and the atoms in them

    def __post_init__(self) -> None:
        parts = sum(1 + sum(atom.parts for atom in monomial) for monomial, _ in self.terms)
        if parts > MOST_PARTS:
            raise ShapeError(f"a size that is an expression of more than {MOST_PARTS} parts")
        if any(abs(c) > MOST_COEFFICIENT for _, c in self.terms):
            raise ShapeError(f"a size with a factor beyond 2^62: {self}")
        object.__setattr__(self, "parts", parts)

    def __add__(self, other: DimLike) -> DimLike:
        total = dict(_terms(self))
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _make(total)

    def __mul__(self, other: DimLike) -> DimLike:
        total: dict[Monomial, int] = {}
        for m, a in _terms(self):
            for n, b in _terms(other):
                monomial = tuple(sorted(m + n, key=str))
                total[monomial] = total.get(monomial, 0) + a * b
        return _make(total)

    def __floordiv__(self, other: DimLike) -> DimLike:
        return floor_div(self, other)

    def __rfloordiv__(self, other: int) -> DimLike:
        return floor_div(other, self)

    def __neg__(self) -> DimLike:
        return self * -1

    def __sub__(self, other: DimLike) -> DimLike:
        return self + (-other)

    def __rsub__(self, other: int) -> DimLike:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            sign = "-" if coefficient < 0 else "+" if text else ""
            factors = [str(abs(coefficient))] if abs(coefficient) != 1 or not monomial else []
            # a floor division binds its left neighbour, so as a factor it needs brackets unless it stands alone
            alone = len(monomial) == 1 and not factors and sign != "-"
            factors += [f"({a})" if a.kind == "floordiv" and not alone else str(a) for a in monomial]
            text += sign + "*".join(factors)
        return text

    __repr__ = __str__


def _terms(d: DimLike) -> tuple[tuple[Monomial, int], ...]:
    return d.terms if isinstance(d, Dim) else (((), int(d)),)


def _make(total: Mapping[Monomial, int]) -> DimLike:
    terms = [(m, c) for m, c in total.items() if c]
    if all(not m for m, _ in terms):
        return sum(c for _, c in terms)
    return Dim(tuple(sorted(terms, key=lambda t: (-len(t[0]), [str(a) for a in t[0]]))))


def _bracket(d: str | DimLike) -> str:
    text = str(d)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _atom(kind: str, *args: str | DimLike) -> Dim:
    return Dim((((Atom(kind, args),), 1),))


def symbol(name: str) -> Dim:
    """The symbol `name`, a positive integer known when the network runs."""
    if not name.isidentifier() or keyword.iskeyword(name) or name in ("min", "max", "inf", "nan"):
        raise ShapeError(f"dimension symbol: expected an identifier such as H, got {name!r}")
    return _atom("symbol", name)


def floor_div(a: DimLike, b: DimLike) -> DimLike:
    """floor(a / b) for b > 0; terms divisible by b leave the division, and nested divisions merge."""
    if isinstance(b, Dim):
        quotient = _exact_quotient(a, b)
        return quotient if quotient is not None else _atom("floordiv", a, b)
    if b <= 0:
        raise ShapeError(f"dimension {a}//{b}: the divisor must be positive")
    if not isinstance(a, Dim):
        return a // b
    whole = {m: c // b for m, c in a.terms}
    rest = {m: c % b for m, c in a.terms}
    constant = rest.pop((), 0)
    g = math.gcd(b, *(c for c in rest.values()))
    inner = _make({m: c // g for m, c in rest.items()} | {(): constant // g})
    return _make(whole) + _floor_div_reduced(inner, b // g)


def _floor_div_reduced(a: DimLike, b: int) -> DimLike:
    if b == 1 or not isinstance(a, Dim):
        return a // b
    variable = [(m, c) for m, c in a.terms if m]
    if len(variable) == 1 and variable[0][1] == 1 and len(variable[0][0]) == 1:
        atom = variable[0][0][0]
        if atom.kind == "floordiv" and isinstance(atom.args[1], int):  # (x//c + k)//b == (x + k*c)//(b*c)
            numerator, c = atom.args
            constant = sum(k for m, k in a.terms if not m)
            assert not isinstance(numerator, str) and isinstance(c, int)
            return floor_div(numerator + constant * c, b * c)
    return _atom("floordiv", a, b)


def _exact_quotient(a: DimLike, b: Dim) -> DimLike | None:
    """a / b where b divides a as a polynomial, by long division; None otherwise.

    The order of terms (by degree, then by the atoms' names) is one that products keep, so that the first term of a
    multiple of b is a multiple of b's first term.
    """
    quotient: DimLike = 0
    monomial, coefficient = b.terms[0]
    while a != 0:
        leading, c = _terms(a)[0]
        left = list(leading)
        for atom in monomial:
            if atom not in left:
                return None
            left.remove(atom)
        if c % coefficient:
            return None
        term = _make({tuple(left): c // coefficient})
        quotient, a = quotient + term, a - term * b
    return quotient


def ceil_div(a: DimLike, b: DimLike) -> DimLike:
    """ceil(a / b) for b > 0."""
    return (a + (b - 1)) // b


def minimum(a: DimLike, b: DimLike) -> DimLike:
    """The smaller of two dims, resolved at once where it is the same one for all sizes that `bounds` allows."""
    low, high = bounds(a - b)
    return a if high <= 0 else b if low >= 0 else _atom("min", *sorted((a, b), key=str))


def maximum(a: DimLike, b: DimLike) -> DimLike:
    """The larger of two dims, resolved at once where it is the same one for all sizes that `bounds` allows."""
    low, high = bounds(a - b)
    return a if low >= 0 else b if high <= 0 else _atom("max", *sorted((a, b), key=str))


Bounds = tuple[float, float]  # least and largest value: integers, or infinite


def bounds(d: DimLike) -> Bounds:
    """Numbers that `d` lies between for all symbols of at least 1, by interval arithmetic: true, not always tight."""
    low: float = 0
    high: float = 0
    for monomial, coefficient in _terms(d):
        term: Bounds = (coefficient, coefficient)
        for atom in monomial:
            factor = _atom_bounds(atom)  # once: twice at each of many levels is exponential
            ends = [_times(x, y) for x in term for y in factor]
            term = min(ends), max(ends)
        low, high = low + term[0], high + term[1]
    return low, high


def _atom_bounds(atom: Atom) -> Bounds:
    if atom.kind == "symbol":
        return 1, math.inf
    (a, b), (c, d) = (bounds(x) for x in atom.args if not isinstance(x, str))
    if atom.kind != "floordiv":
        choose = min if atom.kind == "min" else max
        return choose(a, c), choose(b, d)
    c = max(c, 1)  # a divisor is positive
    return _divide(a, d if a >= 0 else c), _divide(b, c if b >= 0 else d)


def _times(x: float, y: float) -> float:
    return x * y if x and y else 0  # 0 times infinity is 0 here


def _divide(x: float, y: float) -> float:
    """floor(x / y) for y > 0."""
    if math.isinf(x):
        return x
    return x // y if not math.isinf(y) else (0 if x >= 0 else -1)


def product(dims: tuple[DimLike, ...] | list[DimLike]) -> DimLike:
    """The product of dims; 1 for none."""
    result: DimLike = 1
    for d in dims:
        result = result * d
    return result


def symbols_of(d: DimLike) -> frozenset[str]:
    """The names of the symbols that `d` depends on."""
    if not isinstance(d, Dim):
        return frozenset()
    found: set[str] = set()
    for monomial, _ in d.terms:
        for atom in monomial:
            for arg in atom.args:
                found |= {arg} if isinstance(arg, str) else symbols_of(arg)
    return frozenset(found)


def substitute(d: DimLike, values: Mapping[str, DimLike]) -> DimLike:
    """`d` with symbols replaced; an `int` once no symbol is left."""
    if not isinstance(d, Dim):
        return d
    total: DimLike = 0
    for monomial, coefficient in d.terms:
        term: DimLike = coefficient
        for atom in monomial:
            term = term * _substitute_atom(atom, values)
        total = total + term
    return total


def _substitute_atom(atom: Atom, values: Mapping[str, DimLike]) -> DimLike:
    if atom.kind == "symbol":
        name = str(atom.args[0])
        return values[name] if name in values else symbol(name)
    a, b = (substitute(x, values) for x in atom.args if not isinstance(x, str))
    return {"floordiv": floor_div, "min": minimum, "max": maximum}[atom.kind](a, b)


def evaluate(d: DimLike, values: Mapping[str, int]) -> int:
    """The integer that `d` is for these sizes; ShapeError if a symbol has no value."""
    result = substitute(d, values)
    if isinstance(result, Dim):
        raise ShapeError(f"dimension {d}: no value for {', '.join(sorted(symbols_of(result)))}")
    return result


def parse(text: str) -> DimLike:
    """Read what `str` writes: integers, symbols, + - * //, min(a,b), max(a,b) and brackets."""
    try:
        return from_ast(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        raise ShapeError(f"dimension: cannot read {text!r}") from None


def from_ast(node: ast.expr) -> DimLike:
    """The dim that a Python expression tree stands for."""
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -from_ast(x)
        case ast.BinOp(left=a, op=op, right=b):
            match op:
                case ast.Add():
                    return from_ast(a) + from_ast(b)
                case ast.Sub():
                    return from_ast(a) - from_ast(b)
                case ast.Mult():
                    return from_ast(a) * from_ast(b)
                case ast.FloorDiv():
                    return from_ast(a) // from_ast(b)
        case ast.Call(func=ast.Name(id="min"), args=[a, b]):
            return minimum(from_ast(a), from_ast(b))
        case ast.Call(func=ast.Name(id="max"), args=[a, b]):
            return maximum(from_ast(a), from_ast(b))
    raise ShapeError(f"dimension: cannot read {ast.unparse(node)!r}")


_assumed: ContextVar[list[tuple[DimLike, DimLike]] | None] = ContextVar("_assumed", default=None)


@contextmanager
def assumptions() -> Iterator[list[tuple[DimLike, DimLike]]]:
    """Collect the equalities that `same` could neither prove nor refute; they are checked when sizes are known."""
    collected: list[tuple[DimLike, DimLike]] = []
    token = _assumed.set(collected)
    try:
        yield collected
    finally:
        _assumed.reset(token)


def same(a: DimLike, b: DimLike) -> bool:
    """Whether two dims are equal; an undecided pair (H and 2*(H//2)) counts as equal and becomes an assumption."""
    if a == b:
        return True
    if isinstance(a - b, int):
        return False
    collected = _assumed.get()
    if collected is not None:
        collected.append((a, b))
    return True
