"""Tensor types: `f32[N,3,H,W]`, a dtype and a shape whose dims are integers or symbolic expressions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import dims
from graphc.ir.dims import DimLike


class DType(Enum):
    """Element types; the value is the name that the text form prints.

    f16 (IEEE binary16) and bf16 (the upper half of a float32) are formats to store numbers in: elements of them are
    moved and converted, and computed with as f32.
    """

    F32 = "f32"
    F64 = "f64"
    F16 = "f16"
    BF16 = "bf16"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    BOOL = "bool"

    @cached_property
    def numpy(self) -> "np.dtype[np.generic]":
        """The NumPy dtype of the same elements."""
        if self == DType.BF16:
            from ml_dtypes import bfloat16  # here: graphc.runtime.load needs NumPy alone

            numpy_type: np.dtype[np.generic] = np.dtype(bfloat16)
            return numpy_type
        return np.dtype(_NAMES[self])

    @property
    def is_float(self) -> bool:
        """Whether this is f32 or f64."""
        return self in (DType.F32, DType.F64)

    @property
    def is_half(self) -> bool:
        """Whether this is f16 or bf16, which only casts read and write."""
        return self in (DType.F16, DType.BF16)

    @property
    def is_integer(self) -> bool:
        """Whether this is an integer type; bool is none."""
        return "int" in _NAMES[self]

    @property
    def is_unsigned(self) -> bool:
        """Whether this is an integer type without negative numbers."""
        return _NAMES[self].startswith("uint")

    @property
    def limits(self) -> tuple[float, float] | tuple[int, int]:
        """The least and the greatest number: infinities of floats, integers of integers."""
        if not self.is_integer:
            return -np.inf, np.inf
        bits = 8 * self.size
        return (0, 2**bits - 1) if self.is_unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize

    @staticmethod
    def of(dtype: "np.dtype[np.generic] | type[np.generic]") -> "DType":
        """The DType of a NumPy dtype; ShapeError if there is none."""
        for found, name in _NAMES.items():
            if np.dtype(dtype).name == name and np.dtype(dtype).isnative:
                return found
        raise ShapeError(f"dtype: expected one of {', '.join(_NAMES.values())}, got {dtype}")


_NAMES = {  # as NumPy calls them
    DType.F32: "float32", DType.F64: "float64", DType.F16: "float16", DType.BF16: "bfloat16",
    DType.I8: "int8", DType.I16: "int16", DType.I32: "int32", DType.I64: "int64",
    DType.U8: "uint8", DType.U16: "uint16", DType.U32: "uint32", DType.U64: "uint64", DType.BOOL: "bool",
}  # fmt: skip


@dataclass(frozen=True)
class TensorType:
    """The type of a value: element type and shape, outermost dim first (N C H W for images)."""

    dtype: DType
    shape: tuple[DimLike, ...]

    def __str__(self) -> str:
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]"

    @property
    def rank(self) -> int:
        """The number of dims."""
        return len(self.shape)

    @property
    def elements(self) -> DimLike:
        """The number of elements."""
        return dims.product(self.shape)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that the shape depends on."""
        return frozenset().union(*(dims.symbols_of(d) for d in self.shape))

    def with_shape(self, *shape: DimLike) -> "TensorType":
        """The same element type with another shape."""
        return TensorType(self.dtype, shape)

    def substitute(self, values: Mapping[str, DimLike]) -> "TensorType":
        """This type with symbols replaced."""
        return TensorType(self.dtype, tuple(dims.substitute(d, values) for d in self.shape))

    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; ShapeError if a dim is symbolic."""
        fixed = tuple(d for d in self.shape if isinstance(d, int))
        if len(fixed) != self.rank:
            raise ShapeError(f"expected a constant shape, got {self}")
        return fixed


def f32(*shape: "DimLike | str") -> TensorType:
    """`f32("N", 3, "H", "W")`: a float32 tensor type; strings are read as dim expressions."""
    return TensorType(DType.F32, tuple(dims.parse(d) if isinstance(d, str) else d for d in shape))


def parse_type(text: str) -> TensorType:
    """Read `f32[N,3,H//2,W//2]`."""
    match = re.fullmatch(r"\s*(\w+)\[(.*)\]\s*", text)
    if not match or match[1] not in {t.value for t in DType}:
        raise ShapeError(f"type: expected one like f32[N,3,H,W], got {text!r}")
    return TensorType(DType(match[1]), tuple(dims.parse(d) for d in split_commas(match[2])))


def split_commas(text: str) -> list[str]:
    """Split at commas that stand outside brackets and quotes: `"a,min(b,c)"` has two parts."""
    parts, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote and text[i - 1] != "\\" else quote
        elif c in "\"'":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and not depth:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [p.strip() for p in parts if p.strip()]
