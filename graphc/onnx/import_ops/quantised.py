"""Quantised ops, as compositions: what ONNX's standard says they compute, in floats that hold it exactly.

Products of integers are summed in float64, which is exact up to 2^53 whatever kernel adds them up; scales are float32.
"""

from collections.abc import Callable

from onnx import TensorProto

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import DType, Value
from graphc.onnx.import_ops.convolutions import convolve
from graphc.onnx.import_ops.rounding import emit_small
from graphc.onnx.import_ops.shapes import positive_axis
from graphc.onnx.reader import NodeReader
from graphc.onnx.small import SMALL_FLOATS, SMALL_INTEGERS
from graphc.onnx.tensors import read_dtype
from graphc.ops.elementwise import Fused
from graphc.ops.linear import MatMul
from graphc.ops.reduce import ReduceMax, ReduceMin
from graphc.ops.shape import Expand, Reshape, Slice

STORED = (DType.I8, DType.U8, DType.I16, DType.U16)  # what numbers are quantised to


def _saturate(value: str, to: DType, zero: str | None, limits: tuple[float, float] | None = None) -> str:
    """The expression that rounds `value`, half to even, adds the zero point and cuts the sum to the range of `to`.

    `limits` is a range within that.
    """
    least, most = limits or to.limits
    shifted = f"round({value})" if zero is None else f"(round({value}) + to_f32({zero}))"
    return f"to_{to.value}(max(min({shifted}, {float(most)!r}), {float(least)!r}))"


def _stored_type(n: NodeReader, i: int, default: DType) -> DType:
    """The type of the zero point that is input i, or `default`; UnsupportedError if it is not one of STORED."""
    found = n.dtype(i) if n.has_input(i) else default
    if found not in STORED:
        raise UnsupportedError(
            f"quantisation to {found.value}; only {', '.join(t.value for t in STORED)} are supported"
        )
    return found


def _along(n: NodeReader, factor: Value, x: Value, axis: int, block: int = 0) -> Value:
    """A factor of x as it broadcasts: one number, one for each index along `axis`, or one for each block of indices."""
    if factor.type.rank == x.type.rank and block:
        shape, size = factor.type.shape, x.type.shape[axis]
        opened = n.step(Reshape((*shape[: axis + 1], 1, *shape[axis + 1 :])), factor)
        repeated = n.step(Expand((*shape[: axis + 1], block, *shape[axis + 1 :])), opened)
        merged = n.step(Reshape((*shape[:axis], shape[axis] * block, *shape[axis + 1 :])), repeated)
        return merged if merged.type.shape[axis] == size else n.step(Slice((axis,), (0,), (size,), (1,)), merged)
    if factor.type.rank != 1 or factor.type.shape == (1,):
        return factor
    return n.step(Reshape((factor.type.shape[0], *[1] * (x.type.rank - 1 - axis))), factor)


def _factors(n: NodeReader, x: Value, *inputs: int) -> list[Value]:
    """The scale and, if it is there, the zero point at these inputs, along the node's axis."""
    axis, block = n.integer("axis", 1), n.integer("block_size", 0)
    axis = positive_axis(axis, x.type.rank) if x.type.rank > 1 else 0
    return [_along(n, n.value(i), x, axis, block) for i in inputs if n.has_input(i)]


def read_quantize(n: NodeReader) -> None:
    """QuantizeLinear: round(x / scale) + zero point, saturated."""
    x, wanted = n.value(0), n.integer("output_dtype", 0)
    n.integer("precision", 0)  # float32 at least
    number = n.element_type(2) if n.has_input(2) else wanted
    factors = _factors(n, x, 1, 2)
    value = "(to_f32(x0) / x1)" if x.type.dtype != DType.F32 else "(x0 / x1)"
    if number in SMALL_FLOATS:
        n.note_element_type(number)
        shifted = f"({value} + x2)" if len(factors) > 1 else value
        return emit_small(n, n.step(Fused(shifted), x, *factors), number)
    n.integer("saturate", 1)  # about floats only
    to = _stored_type(n, 2, read_dtype(wanted) if wanted else DType.U8)
    if number is not None:
        n.note_element_type(number)
    limits = None if number is None else SMALL_INTEGERS.get(number)
    return n.emit(Fused(_saturate(value, to, "x2" if len(factors) > 1 else None, limits)), x, *factors)


def read_dequantize(n: NodeReader) -> None:
    """DequantizeLinear: (x - zero point) * scale. An x of f32 is a float of 8 bits or 4."""
    x = n.value(0)
    n.integer("output_dtype", 0)  # a kind of float: graphc computes as f32
    if x.type.dtype not in (*STORED, DType.I32, DType.F32):
        raise UnsupportedError(f"quantised numbers of {x.type.dtype.value}")
    if n.scope.element_types.get(n.inputs[0]) == TensorProto.FLOAT:  # and not held as one
        raise ShapeError(f"expected quantised numbers, got {x.type}")
    factors = _factors(n, x, 1, 2)
    exact = "i32" if x.type.dtype != DType.F32 else "f32"
    difference = f"(to_{exact}(x0) - to_{exact}(x2))" if len(factors) > 1 else "x0"
    n.emit(Fused(f"(to_f32({difference}) * x1)"), x, *factors)


def read_dynamic_quantize(n: NodeReader) -> None:
    """DynamicQuantizeLinear: to u8, by the range of x and 0."""
    x = n.value(0)
    ends = [n.step(op(keepdims=False), x) for op in (ReduceMin, ReduceMax)]
    scale = n.step(Fused("((max(x1, 0.0) - min(x0, 0.0)) / 255.0)"), *ends)
    zero = n.step(Fused("to_u8(max(min(round((-min(x0, 0.0) / x1)), 255.0), 0.0))"), ends[0], scale)
    n.deliver(1, scale)
    n.deliver(2, zero)
    n.emit(Fused(_saturate("(x0 / x1)", DType.U8, "x2")), x, scale, zero)


def _center(n: NodeReader, i: int, zero: int, axis: int) -> Value:
    """Input i less the zero point at input `zero`, as float64; several zero points stand for its indices along `axis`.

    The zero points of a matrix's rows may have its rank already.
    """
    x = n.value(i)
    if not n.has_input(zero):
        return n.step(Fused("to_f64(x0)"), x)
    z = _along(n, n.value(zero), x, axis if axis >= 0 else max(x.type.rank + axis, 0))
    return n.step(Fused("(to_f64(x0) - to_f64(x1))"), x, z)


def read_matmul_integer(n: NodeReader) -> None:
    """MatMulInteger: the product of the differences to the zero points, as i32."""
    product = n.step(MatMul(), _center(n, 0, 2, -2), _center(n, 1, 3, -1))
    n.emit(Fused("to_i32(x0)"), product)


def read_conv_integer(n: NodeReader) -> None:
    """ConvInteger: the convolution of the differences to the zero points, as i32."""
    x, w = _center(n, 0, 2, 1), _center(n, 1, 3, 0)
    op, operands = convolve(n, x, w, [])
    n.emit(Fused("to_i32(x0)"), n.step(op, *operands))


def _requantize(n: NodeReader, total: Value, scales: list[Value], zero: int) -> None:
    """The node's result: total * (scale * scale / new scale), rounded, to the type of the zero point at this input."""
    to = _stored_type(n, zero, DType.U8)
    n.emit(Fused(_saturate("(to_f32(x0) * ((x1 * x2) / x3))", to, "x4")), total, *scales, n.value(zero))


def read_qlinear_matmul(n: NodeReader) -> None:
    """QLinearMatMul: MatMulInteger, requantised."""
    product = n.step(MatMul(), _center(n, 0, 2, -2), _center(n, 3, 5, -1))
    rows = _along(n, n.value(1), product, max(product.type.rank - 2, 0))
    _requantize(n, product, [rows, n.value(4), n.value(6)], 7)


def read_qlinear_conv(n: NodeReader) -> None:
    """QLinearConv: ConvInteger with a bias of i32, requantised by a scale for each channel or one for all."""
    x, w = _center(n, 0, 2, 1), _center(n, 3, 5, 0)
    bias = [n.step(Fused("to_f64(x0)"), n.value(8))] if n.has_input(8) else []
    op, operands = convolve(n, x, w, bias)
    total = n.step(op, *operands)
    _requantize(n, total, [n.value(1), _along(n, n.value(4), total, 1), n.value(6)], 7)


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "QuantizeLinear": read_quantize,
    "DequantizeLinear": read_dequantize,
    "DynamicQuantizeLinear": read_dynamic_quantize,
    "MatMulInteger": read_matmul_integer,
    "ConvInteger": read_conv_integer,
    "QLinearMatMul": read_qlinear_matmul,
    "QLinearConv": read_qlinear_conv,
}
