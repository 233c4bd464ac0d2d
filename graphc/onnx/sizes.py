"""Arithmetic of sizes that are known but for symbols: what arrays of dtype object hold while a model is read.

An integer or a truth value (0 or 1) is an int or a Dim; a float is a float or a Ratio. NumPy's own indexing,
broadcasting and operators work on such arrays.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir import Array, Dim, DimLike, DType, dims

# Models scale sizes by numbers such as 0.5 or 1.25. With such a denominator, float32 has every product with a size
# below 65,536 exactly, so that rounding it down is what rounding the exact product down is.
EXACT_DENOMINATOR = 256


@dataclass(frozen=True)
class Ratio:
    """A float computed from sizes: numerator / denominator, the latter positive."""

    numerator: DimLike
    denominator: DimLike = 1

    @staticmethod
    def of(x: "DimLike | float | Ratio") -> "Ratio":
        """x as a ratio; UnsupportedError if float32 arithmetic with it is not exact."""
        if isinstance(x, Ratio):
            return x
        if not isinstance(x, float):
            return Ratio(x)
        numerator, denominator = x.as_integer_ratio()
        if denominator > EXACT_DENOMINATOR:
            raise UnsupportedError(f"a size that depends on the inputs, rounded after arithmetic with {x}")
        return Ratio(numerator, denominator)

    def settle(self) -> "float | Ratio":
        """A float if no symbol is left."""
        a, b = self.numerator, self.denominator
        return a / b if isinstance(a, int) and isinstance(b, int) else self

    def whole(self) -> DimLike | None:
        """The size that this is for all sizes, if it is one."""
        quotient = dims.floor_div(self.numerator, self.denominator)
        return quotient if quotient * self.denominator == self.numerator else None

    def floor(self) -> DimLike:
        """The largest integer that is not larger."""
        return dims.floor_div(self.numerator, self.denominator)

    def ceil(self) -> DimLike:
        """The smallest integer that is not smaller."""
        return -dims.floor_div(-self.numerator, self.denominator)

    def _operand(self) -> tuple[DimLike, int]:
        """Numerator and denominator, which must be exact: floats round a quotient such as H/3."""
        b = self.denominator
        if not isinstance(b, int) or b & (b - 1) or b > EXACT_DENOMINATOR:
            raise UnsupportedError(f"more arithmetic with the rounded quotient ({self.numerator})/({b})")
        return self.numerator, b

    def __add__(self, other: "DimLike | float | Ratio") -> "Ratio":
        (a, b), (c, d) = self._operand(), Ratio.of(other)._operand()
        return _make(a * d + c * b, b * d)

    def __mul__(self, other: "DimLike | float | Ratio") -> "Ratio":
        (a, b), (c, d) = self._operand(), Ratio.of(other)._operand()
        return _make(a * c, b * d)

    def __truediv__(self, other: "DimLike | float | Ratio") -> "Ratio":
        (a, b), (c, d) = self._operand(), Ratio.of(other)._operand()
        low, high = dims.bounds(c)
        if low < 0 or high <= 0:
            raise UnsupportedError(f"a division by {c}, which may be 0 or less")
        return _make(a * d, b * c)

    def __rtruediv__(self, other: "DimLike | float") -> "Ratio":
        return Ratio.of(other) / self

    def __neg__(self) -> "Ratio":
        return Ratio(-self.numerator, self.denominator)

    def __sub__(self, other: "DimLike | float | Ratio") -> "Ratio":
        return self + (-Ratio.of(other))

    def __rsub__(self, other: "DimLike | float") -> "Ratio":
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


def _make(numerator: DimLike, denominator: DimLike) -> Ratio:
    """In lowest terms, as far as that is simple."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        shared = gcd(numerator, denominator)
        return Ratio(numerator // shared, denominator // shared)
    whole = Ratio(numerator, denominator).whole()
    return Ratio(numerator, denominator) if whole is None else Ratio(whole)


Number = DimLike | float | Ratio


def settle(array: Array, dtype: DType) -> Array:
    """An array of dtype object in which no symbol is left as one of numbers."""
    if array.dtype != object:
        return array
    array = np.asarray(np.frompyfunc(lambda x: x.settle() if isinstance(x, Ratio) else x, 1, 1)(array), object)
    return array.astype(dtype.numpy) if all(isinstance(x, int | float) for x in array.reshape(-1)) else array


def difference(a: Number, b: Number) -> DimLike:
    """A dim with the sign of a - b."""
    x, y = Ratio.of(a), Ratio.of(b)
    return x.numerator * y.denominator - y.numerator * x.denominator


def is_positive(d: DimLike) -> DimLike:
    """1 where d > 0, else 0."""
    return dims.maximum(dims.minimum(d, 1), 0)


def less(a: Number, b: Number) -> DimLike:
    """a < b as 0 or 1."""
    return is_positive(difference(b, a))


def equal(a: Number, b: Number) -> DimLike:
    """a == b as 0 or 1."""
    d = difference(a, b)
    return 1 - is_positive(dims.maximum(d, -d))


def maximum(a: Number, b: Number) -> Number:
    """The larger one."""
    if not isinstance(a, float | Ratio):
        assert not isinstance(b, float | Ratio)
        return dims.maximum(a, b)
    x, y = Ratio.of(a), Ratio.of(b)
    return _make(dims.maximum(x.numerator * y.denominator, y.numerator * x.denominator), x.denominator * y.denominator)


def minimum(a: Number, b: Number) -> Number:
    """The smaller one."""
    return -maximum(-a, -b)


def magnitude(a: Number) -> Number:
    """|a|."""
    return maximum(a, -a)


def sign(a: Number) -> Number:
    """-1, 0 or 1."""
    d = dims.maximum(dims.minimum(Ratio.of(a).numerator, 1), -1)
    return Ratio(d) if isinstance(a, float | Ratio) else d


def choose(condition: DimLike, a: Number, b: Number) -> Number:
    """a where the condition is 1, b where it is 0."""
    if not isinstance(condition, Dim):
        return a if condition else b
    if isinstance(a, float | Ratio) or isinstance(b, float | Ratio):
        return (Ratio.of(a) - b) * condition + b
    return b + condition * (a - b)


def divide(a: DimLike, b: DimLike) -> DimLike:
    """a / b rounded towards zero, as ONNX divides integers."""
    if dims.bounds(b)[1] < 0:
        return divide(-a, -b)
    if dims.bounds(b)[0] < 0 or b == 0:
        raise UnsupportedError(f"a division by {b}, which may be 0 or less")
    low, high = dims.bounds(a)
    if low >= 0:
        return a // b
    return -(-a // b) if high <= 0 else dims.maximum(a, 0) // b - dims.maximum(-a, 0) // b


def remainder(a: DimLike, b: DimLike) -> DimLike:
    """a mod b with the sign of b."""
    if dims.bounds(b)[0] < 0 or b == 0:
        raise UnsupportedError(f"a remainder by {b}, which may be 0 or less")
    return a - b * (a // b)
