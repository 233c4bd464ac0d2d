"""Formats of 8 bits and less: ONNX's floats E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, E2M1, its integers of 4 and 2 bits.

They are formats to store numbers in. A graph holds them in a wider type that has all their numbers, f32, i8 or u8, so
whatever moves numbers needs to know nothing of them. Only what rounds to such a format does: Cast, CastLike and
QuantizeLinear. Arrays of NumPy's own (ml_dtypes) come and go through graphc.onnx.backend.
"""

import math
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from graphc.ir import Array, DType


@dataclass(frozen=True)
class SmallFloat:
    """A float with numbers of `bits` significant bits from 2^least on, below that in steps of the least such number's.

    `beyond` is what a number above `largest` becomes unless it saturates.
    """

    bits: int
    least: int
    largest: float
    beyond: float
    has_negative_zero: bool = True


# The standard of onnx, "Float stored in 8 bits"; E2M1 of the OCP Microscaling Formats (MX) specification 1.0.
SMALL_FLOATS: dict[int, SmallFloat] = {
    TensorProto.FLOAT8E4M3FN: SmallFloat(4, -6, 448.0, math.nan),
    TensorProto.FLOAT8E4M3FNUZ: SmallFloat(4, -7, 240.0, math.nan, has_negative_zero=False),
    TensorProto.FLOAT8E5M2: SmallFloat(3, -14, 57344.0, math.inf),
    TensorProto.FLOAT8E5M2FNUZ: SmallFloat(3, -15, 57344.0, math.nan, has_negative_zero=False),
    TensorProto.FLOAT4E2M1: SmallFloat(2, 0, 6.0, 6.0),  # it has neither infinity nor NaN
}
SMALL_INTEGERS: dict[int, tuple[int, int]] = {  # the least and the greatest
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
}
HELD: dict[int, DType] = {
    **dict.fromkeys(SMALL_FLOATS, DType.F32),
    **{number: DType.I8 if least < 0 else DType.U8 for number, (least, _) in SMALL_INTEGERS.items()},
}


def spell_rounding(number: int, saturate: bool) -> tuple[str, str]:
    """What a number's last place is worth in this small float, by its binade; and what becomes of the nearest multiple.

    Two expressions, each of one operand.
    """
    to = SMALL_FLOATS[number]
    last = repr(2.0 ** (to.least - to.bits + 1))
    for exponent in range(to.least + 1, int(np.log2(to.largest)) + 1):
        last = f"select(ge(abs(x0), {2.0**exponent!r}), {2.0 ** (exponent - to.bits + 1)!r}, {last})"
    beyond = to.largest if saturate else to.beyond
    cut = f"select(gt(x0, {to.largest!r}), {beyond!r}, select(lt(x0, {-to.largest!r}), {-beyond!r}, x0))"
    return last, cut if to.has_negative_zero else f"({cut} + 0.0)"  # -0.0 + 0.0 is 0.0


def spell_wrapping(number: int) -> str:
    """The expression that keeps the lowest bits of the i64 x0, as this small integer."""
    least, most = SMALL_INTEGERS[number]
    return f"to_{HELD[number].value}((((x0 + {-least}) % {most - least + 1}) + {least}))"


def hold(array: Array) -> Array:
    """An array of a small format as one of the type that a graph holds it in; any other as it is."""
    if array.dtype not in _NUMBERS:
        return array
    return array.astype(HELD[_NUMBERS[array.dtype]].numpy)


def release(array: Array, number: int) -> Array:
    """What a graph holds, as an array of the ONNX element type that the model declares."""
    return array.astype(helper.tensor_dtype_to_np_dtype(number)) if number in HELD else array


_NUMBERS: dict[np.dtype[np.generic], int] = {helper.tensor_dtype_to_np_dtype(number): number for number in HELD}
