"""Shape arithmetic: ops on constants and sizes, computed while the model is read.

What depends on the sizes of a run is an array of dtype object, of the numbers of graphc/onnx/sizes.py; NumPy's own
indexing and arithmetic work on it. Truth values are then 0 and 1.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx import NodeProto

from graphc.errors import UnsupportedError
from graphc.ir import Array, DType
from graphc.onnx import sizes
from graphc.onnx.import_ops.rounding import cast_small, read_small_target
from graphc.onnx.import_ops.shapes import FOLDED_ELEMENTS, positive_axis, read_bounds
from graphc.onnx.import_ops.tiling import read_expand
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Constant
from graphc.onnx.sizes import Ratio
from graphc.onnx.tensors import read_dtype
from graphc.ops.scalar import convert

Folder = Callable[[NodeReader], Array]
FOLDED_IN_ALL = 1 << 27  # elements of all results, 1 GiB: shape arithmetic has some thousands


def fold_node(n: NodeReader) -> None:
    """Compute the node's result, of constants alone; a copy whose length depends on sizes is a node."""
    if n.op_type in ("Cast", "CastLike") and (small := read_small_target(n)) is not None:
        return cast_small(n, small)
    if n.op_type == "Expand" and (_is_symbolic(arrays_of(n)[1]) or np.prod(arrays_of(n)[1]) > FOLDED_ELEMENTS):
        return read_expand(n)
    result = FOLDERS[n.op_type](n)
    if n.op_type in TRUTHS:
        return n.fold(result, DType.BOOL)
    if n.op_type in ("Cast", "CastLike"):
        to = _read_target(n)
        return n.fold(result, DType.F32 if to.is_half else to)  # as everywhere, halves are computed with as f32
    return n.fold(result, n.dtype(1 if n.op_type == "Where" else 0))


def folded_elements(node: NodeProto, arrays: Sequence[Array]) -> int:
    """How many elements the node's result has at most; more than its largest operand only where ops copy."""
    sizes = [a.size for a in arrays]
    if node.op_type == "Concat":
        return sum(sizes)
    if node.op_type == "Gather":  # along a shorter axis it is less
        return arrays[0].size * arrays[1].size
    try:
        return math.prod(np.broadcast_shapes(*(a.shape for a in arrays)))
    except ValueError:  # ops that do not broadcast, or a mistake that is found later
        return max(sizes)


def arrays_of(n: NodeReader) -> list[Array]:
    """All inputs, which are constants."""
    operands = [n.operand(i) for i in range(len(n.inputs))]
    return [c.array for c in operands if isinstance(c, Constant)]


def _is_symbolic(*arrays: Array) -> bool:
    return any(a.dtype == object for a in arrays)


def _arithmetic(numeric: Callable[..., Any], symbolic: Callable[..., Any] | None = None) -> Folder:
    """A folder: `numeric` of arrays or, if one of them depends on sizes, `symbolic` of each place's numbers.

    Without `symbolic`, NumPy's own function applies the numbers' operator.
    """

    def fold(n: NodeReader) -> Array:
        arrays = arrays_of(n)
        if symbolic is not None and _is_symbolic(*arrays):
            return np.asarray(np.frompyfunc(symbolic, len(arrays), 1)(*arrays), object)
        return np.asarray(numeric(*arrays))

    return fold


def _many(numeric: np.ufunc, symbolic: Callable[..., Any]) -> Folder:
    def fold(n: NodeReader) -> Array:
        arrays = arrays_of(n)
        return np.asarray(reduce(np.frompyfunc(symbolic, 2, 1) if _is_symbolic(*arrays) else numeric, arrays))

    return fold


def _divide(a: Array, b: Array) -> Array:
    """Division; of integers towards zero, as ONNX has it."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        quotient = np.abs(a) // np.abs(b)
        return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient))
    return np.asarray(a / b)


def _fold_div(n: NodeReader) -> Array:
    a, b = arrays_of(n)
    if not _is_symbolic(a, b):
        return _divide(a, b)
    divide = (lambda x, y: Ratio.of(x) / y) if n.dtype(0).is_float else sizes.divide
    return np.asarray(np.frompyfunc(divide, 2, 1)(a, b), object)


def _fold_mod(n: NodeReader) -> Array:
    a, b = arrays_of(n)
    truncated = bool(n.integer("fmod", 0))
    if not _is_symbolic(a, b):
        return np.asarray(np.fmod(a, b) if truncated else a - b * (a // b))
    if truncated:
        raise UnsupportedError("a remainder of a size that depends on the inputs, with fmod=1")
    return np.asarray(np.frompyfunc(sizes.remainder, 2, 1)(a, b), object)


def _whole(d: Any) -> Any:
    found = Ratio.of(d).whole()
    if found is None:
        raise UnsupportedError(f"the nearest integer of {d}, which depends on the sizes of the inputs")
    return Ratio(found)


def _power(a: Any, b: Any) -> Any:
    if not isinstance(b, int | float) or not 0 <= b <= 4 or b != int(b):  # an area is a square, nothing is more
        raise UnsupportedError(f"a size that depends on the inputs to the power of {b}")
    return reduce(lambda x, _: x * a, range(int(b)), 1)


def _fold_pow(n: NodeReader) -> Array:
    a, b = arrays_of(n)
    if not _is_symbolic(a, b):
        return np.asarray(np.power(a, b), a.dtype)
    return np.asarray(np.frompyfunc(_power, 2, 1)(a, b), object)


def _fold_gather(n: NodeReader) -> Array:
    data, indices = arrays_of(n)
    return np.asarray(np.take(data, indices.astype(np.int64), axis=n.integer("axis", 0)))


def _fold_slice(n: NodeReader) -> Array:
    data, (axes, starts, ends, steps) = arrays_of(n)[0], read_bounds(n)
    cut = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not isinstance(start, int) or not isinstance(end, int):
            raise UnsupportedError("a part of a constant whose bounds depend on the sizes of the inputs")
        cut[axis] = slice(start, end, step)
    return data[tuple(cut)]


def _fold_unsqueeze(n: NodeReader) -> Array:
    return np.asarray(np.expand_dims(arrays_of(n)[0], n.axes(1, 13) or ()))


def _fold_squeeze(n: NodeReader) -> Array:
    return np.asarray(np.squeeze(arrays_of(n)[0], n.axes(1, 13)))


def _fold_reshape(n: NodeReader) -> Array:
    n.expect("allowzero", 0)
    data, shape = arrays_of(n)[0], n.whole_dims(1, "the shape")
    return data.reshape([data.shape[i] if d == 0 else d for i, d in enumerate(shape)])


def _fold_transpose(n: NodeReader) -> Array:
    (data,) = arrays_of(n)
    return data.transpose(n.integers("perm", range(data.ndim)[::-1]))


def _fold_concat(n: NodeReader) -> Array:
    arrays = arrays_of(n)
    return np.concatenate(arrays, positive_axis(n.integer("axis", 0), arrays[0].ndim))


def _fold_expand(n: NodeReader) -> Array:
    data, shape = arrays_of(n)[0], n.whole_dims(1, "the shape")
    return np.array(np.broadcast_to(data, np.broadcast_shapes(data.shape, shape)))


def _read_target(n: NodeReader) -> DType:
    return n.dtype(1) if n.op_type == "CastLike" else read_dtype(n.integer("to", 0))


def _cast(n: NodeReader) -> Array:
    data = arrays_of(n)[0]
    source, to = n.dtype(0), _read_target(n)
    n.integer("saturate", 1)  # about 8-bit floats only
    n.text("round_mode", "up")  # the same
    if data.dtype != object:
        return convert(data, to)
    if to == DType.BOOL:
        return np.asarray(np.frompyfunc(lambda d: 1 - sizes.equal(d, 0), 1, 1)(data), object)
    if (to.is_float or to.is_half) and not source.is_float:
        return np.asarray(np.frompyfunc(Ratio.of, 1, 1)(data), object)
    if source.is_float and to.is_integer:
        return np.asarray(np.frompyfunc(_truncate, 1, 1)(data), object)
    return data


def _truncate(x: Any) -> Any:
    ratio = Ratio.of(x)
    return sizes.divide(ratio.numerator, ratio.denominator)


def _reduction(numeric: np.ufunc, since: int, symbolic: Callable[[Any, Any], Any] | None = None) -> Folder:
    """A folder of a reduction over axes, which are an input from that opset on."""

    def fold(n: NodeReader) -> Array:
        data, axes = arrays_of(n)[0], n.axes(1, since)
        keep, none_if_empty = bool(n.integer("keepdims", 1)), n.integer("noop_with_empty_axes", 0)
        if not axes and none_if_empty:
            return data
        combine = np.frompyfunc(symbolic, 2, 1) if symbolic and _is_symbolic(data) else numeric
        for axis in sorted({positive_axis(a, data.ndim) for a in axes or range(data.ndim)}, reverse=True):
            data = np.asarray(combine.reduce(data, axis, data.dtype, keepdims=keep))
        return data

    return fold


FOLDERS: dict[str, Folder] = {
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Neg": _arithmetic(np.negative),
    "Div": _fold_div,
    "Mod": _fold_mod,
    "Pow": _fold_pow,
    "Abs": _arithmetic(np.abs, sizes.magnitude),
    "Sign": _arithmetic(np.sign, sizes.sign),
    "Max": _many(np.maximum, sizes.maximum),
    "Min": _many(np.minimum, sizes.minimum),
    "Floor": _arithmetic(np.floor, lambda x: Ratio(Ratio.of(x).floor())),
    "Ceil": _arithmetic(np.ceil, lambda x: Ratio(Ratio.of(x).ceil())),
    "Round": _arithmetic(np.round, _whole),
    "Equal": _arithmetic(np.equal, sizes.equal),
    "Less": _arithmetic(np.less, sizes.less),
    "LessOrEqual": _arithmetic(np.less_equal, lambda a, b: 1 - sizes.less(b, a)),
    "Greater": _arithmetic(np.greater, lambda a, b: sizes.less(b, a)),
    "GreaterOrEqual": _arithmetic(np.greater_equal, lambda a, b: 1 - sizes.less(a, b)),
    "And": _arithmetic(np.logical_and, lambda a, b: a * b),
    "Or": _arithmetic(np.logical_or, sizes.maximum),
    "Xor": _arithmetic(np.logical_xor, lambda a, b: 1 - sizes.equal(a, b)),
    "Not": _arithmetic(np.logical_not, lambda a: 1 - a),
    "Where": _arithmetic(np.where, sizes.choose),
    "Gather": _fold_gather,
    "Slice": _fold_slice,
    "Unsqueeze": _fold_unsqueeze,
    "Squeeze": _fold_squeeze,
    "Reshape": _fold_reshape,
    "Transpose": _fold_transpose,
    "Concat": _fold_concat,
    "Expand": _fold_expand,
    "Cast": _cast,
    "CastLike": _cast,
    "ReduceProd": _reduction(np.multiply, 18),
    "ReduceSum": _reduction(np.add, 13),
    "ReduceMax": _reduction(np.maximum, 18, sizes.maximum),
    "ReduceMin": _reduction(np.minimum, 18, sizes.minimum),
}
TRUTHS = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor", "Not"}
