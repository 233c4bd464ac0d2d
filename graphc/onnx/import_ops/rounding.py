"""Casts and quantisation to the formats of graphc/onnx/small.py."""

from collections.abc import Callable
from typing import TypeVar

from graphc.ir import Array, DType, Value
from graphc.onnx.reader import NodeReader
from graphc.onnx.small import HELD, SMALL_FLOATS, spell_rounding, spell_wrapping
from graphc.ops.elementwise import Fused

T = TypeVar("T", Value, Array)


def read_small_target(n: NodeReader) -> int | None:
    """The small format to which a Cast or CastLike goes, as ONNX numbers it; None if that is another type."""
    number = n.element_type(1) if n.op_type == "CastLike" else n.integer("to", 0)
    return number if number in HELD else None


def cast_small(n: NodeReader, number: int) -> None:
    """The node's result: its first input, rounded to this small format."""
    known = n.constant(0)
    n.text("round_mode", "up")  # about E8M0 only
    n.note_element_type(number)
    if known is None:
        return emit_small(n, n.value(0), number)
    saturate = bool(n.integer("saturate", 1))
    text, x = _round(known.array, known.dtype, number, saturate, lambda text, *xs: Fused(text).eval(*xs))
    return n.fold(Fused(text).eval(x))


def emit_small(n: NodeReader, x: Value, number: int) -> None:
    """The node's result: x, rounded to this small format."""
    saturate = bool(n.integer("saturate", 1))
    text, x = _round(x, x.type.dtype, number, saturate, lambda text, *xs: n.step(Fused(text), *xs))
    n.emit(Fused(text), x)


def _round(x: T, source: DType, number: int, saturate: bool, apply: Callable[..., T]) -> tuple[str, T]:
    """The last expression of those that round x, and its operand."""
    if number not in SMALL_FLOATS:
        return spell_wrapping(number), apply("to_i64(x0)", x)
    last, cut = spell_rounding(number, saturate)
    if source != DType.F32:  # as f32 it would be rounded twice
        x, last = apply("to_f64(x0)", x), f"to_f64({last})"
    return f"to_f32({cut})", apply("(round((x0 / x1)) * x1)", x, apply(last, x))
