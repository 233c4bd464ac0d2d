"""Shape arithmetic: ops on constants and symbolic shapes, computed while the model is read.

A symbolic shape is an array of integers and Dims, on which NumPy's own indexing and arithmetic work.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir import Array, dims
from graphc.onnx.import_ops.shapes import positive_axis, read_bounds
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Constant
from graphc.onnx.tensors import read_dtype
from graphc.ops.scalar import convert


def arrays_of(n: NodeReader) -> list[Array]:
    """All inputs, which are constants."""
    operands = [n.operand(i) for i in range(len(n.inputs))]
    arrays = [c.array for c in operands if isinstance(c, Constant)]
    if any(a.dtype == object for a in arrays) and any(a.dtype.kind not in "iO" for a in arrays):
        raise UnsupportedError("arithmetic of a size that depends on the inputs with other numbers than integers")
    return arrays


def _arithmetic(apply: Callable[..., Any]) -> Callable[[NodeReader], Array]:
    return lambda n: np.asarray(apply(*arrays_of(n)))


def _extreme(symbolic: Callable[..., Any], numeric: np.ufunc) -> Callable[[NodeReader], Array]:
    def fold(n: NodeReader) -> Array:
        arrays = arrays_of(n)
        choose = np.frompyfunc(symbolic, 2, 1) if any(a.dtype == object for a in arrays) else numeric
        return np.asarray(reduce(choose, arrays))

    return fold


def _divide(a: Array, b: Array) -> Array:
    """Division; of integers towards zero, as ONNX has it. A symbolic size is not negative, so there it is floor."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        quotient = np.abs(a) // np.abs(b)
        return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient))
    return np.asarray(a // b if object in (a.dtype, b.dtype) else a / b)


def _modulo(a: Array, b: Array) -> Array:
    return np.asarray(a - b * (a // b))


def _fold_mod(n: NodeReader) -> Array:
    n.expect("fmod", 0)
    return _modulo(*arrays_of(n))


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


def _fold_cast(n: NodeReader) -> Array:
    (data,), to = arrays_of(n), read_dtype(n.integer("to", 0))
    n.integer("saturate", 1)  # about 8-bit floats only
    n.text("round_mode", "up")  # the same
    if data.dtype != object:
        return convert(data, to)
    if to.numpy.kind != "i":
        raise UnsupportedError(f"a size that depends on the inputs as {to.value}")
    return data


def _fold_product(n: NodeReader) -> Array:
    data, axes = arrays_of(n)[0], n.axes(1, 18)
    return np.asarray(np.prod(data, axis=axes, keepdims=bool(n.integer("keepdims", 1))))


FOLDERS: dict[str, Callable[[NodeReader], Array]] = {
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(_divide),
    "Mod": _fold_mod,
    "Neg": _arithmetic(np.negative),
    "Max": _extreme(dims.maximum, np.maximum),
    "Min": _extreme(dims.minimum, np.minimum),
    "Floor": _arithmetic(np.floor),
    "Ceil": _arithmetic(np.ceil),
    "Gather": _fold_gather,
    "Slice": _fold_slice,
    "Unsqueeze": _fold_unsqueeze,
    "Squeeze": _fold_squeeze,
    "Reshape": _fold_reshape,
    "Transpose": _fold_transpose,
    "Concat": _fold_concat,
    "Cast": _fold_cast,
    "ReduceProd": _fold_product,
}
