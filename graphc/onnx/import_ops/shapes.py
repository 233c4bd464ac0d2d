"""Ops that move elements without computing with them, and the first ops of shape arithmetic."""

from collections.abc import Callable, Sequence

import numpy as np

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Dim, DimLike, TensorType, Value, dims
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Constant
from graphc.onnx.tensors import read_tensor
from graphc.ops.shape import FAR, Concat, Expand, Flatten, Pad, Reshape, Slice, Split, Transpose

FOLDED_ELEMENTS = 1 << 20  # a longer range, or a larger copy of a constant, is left to the run
FILLED_ELEMENTS = 1 << 27  # onnx's light models fill weights so, VGG's first linear layer with 103 million numbers


def positive_axis(axis: int, rank: int, limit: int | None = None) -> int:
    """The axis counted from the front; ShapeError if there is none. `limit` is the largest allowed, rank - 1."""
    result = axis + rank if axis < 0 else axis
    if not 0 <= result <= (rank - 1 if limit is None else limit):
        raise ShapeError(f"axis {axis} does not exist in rank {rank}")
    return result


def read_flatten(n: NodeReader) -> None:
    """Flatten."""
    x = n.value(0)
    n.emit(Flatten(positive_axis(n.integer("axis", 1), x.type.rank, x.type.rank)), x)


def read_reshape(n: NodeReader) -> None:
    """Reshape: 0 keeps a dim (unless allowzero), one -1 is inferred; other dims may depend on the inputs' sizes."""
    x, shape, keep = n.value(0), n.dims(1, "the shape"), not n.integer("allowzero", 0)
    if any(d == 0 and keep and i >= x.type.rank for i, d in enumerate(shape)):
        raise ShapeError(f"the shape {shape} copies a dim that {x.type} lacks")
    n.emit(Reshape(tuple(x.type.shape[i] if d == 0 and keep else d for i, d in enumerate(shape))), x)


def read_squeeze(n: NodeReader) -> None:
    """Squeeze -> reshape; the axes, if given, must have size 1."""
    x, axes = n.value(0), n.axes(1, 13)
    if axes is None:
        dropped = {i for i, d in enumerate(x.type.shape) if d == 1}
    else:
        dropped = {positive_axis(a, x.type.rank) for a in axes}
    for i in dropped:
        if x.type.shape[i] != 1:
            raise ShapeError(f"axis {i} of {x.type} is not 1")
    n.emit(Reshape(tuple(d for i, d in enumerate(x.type.shape) if i not in dropped)), x)


def read_unsqueeze(n: NodeReader) -> None:
    """Unsqueeze -> reshape."""
    x, axes = n.value(0), n.axes(1, 13)
    if not axes:
        raise ShapeError("expected axes")
    rank = x.type.rank + len(axes)
    new, left = {positive_axis(a, rank) for a in axes}, iter(x.type.shape)
    if len(new) != len(axes):
        raise ShapeError(f"axes {list(axes)} are not different")
    shape: list[DimLike] = [1 if i in new else next(left) for i in range(rank)]
    n.emit(Reshape(tuple(shape)), x)


def read_transpose(n: NodeReader) -> None:
    """Transpose; without perm it reverses the dims."""
    x = n.value(0)
    n.emit(Transpose(n.integers("perm", range(x.type.rank)[::-1])), x)


def read_concat(n: NodeReader) -> None:
    """Concat."""
    xs = [n.value(i) for i in range(len(n.inputs))]
    n.emit(Concat(positive_axis(n.integer("axis", 0), xs[0].type.rank)), *xs)


def read_split(n: NodeReader) -> None:
    """Split, into the sizes given or into equal parts (of which the last may be smaller since opset 18)."""
    x, parts = n.value(0), len(n.outputs)
    if n.integer("num_outputs", parts) != parts:
        raise ShapeError(f"num_outputs={n.integer('num_outputs', parts)} for {parts} outputs")
    axis = positive_axis(n.integer("axis", 0), x.type.rank)
    sizes = tuple(n.integers("split") or (n.dims(1, "split") if n.has_input(1) else ()))
    if not sizes:
        size = x.type.shape[axis]
        part = dims.ceil_div(size, parts)
        sizes = (*([part] * (parts - 1)), size - part * (parts - 1))
    whole = [s for s in sizes if isinstance(s, int)]
    if x.type.elements == 0 and sum(whole) == x.type.shape[axis]:
        shape = x.type.static_shape()
        return n.fold_all([np.zeros((*shape[:axis], s, *shape[axis + 1 :]), x.type.dtype.numpy) for s in whole])
    if len(sizes) != len(n.outputs):
        raise ShapeError(f"{len(sizes)} parts for {len(n.outputs)} outputs")
    return n.emit(Split(axis, sizes), x)


def read_bounds(n: NodeReader) -> tuple[tuple[int, ...], tuple[DimLike, ...], tuple[DimLike, ...], tuple[int, ...]]:
    """Axes, starts, ends and steps of a Slice: attributes before opset 10, then inputs."""
    if n.opset < 10:
        lows, highs = n.integers("starts"), n.integers("ends")
        return n.integers("axes", range(len(lows))), lows, highs, (1,) * len(lows)
    starts, ends = tuple(n.dims(1, "starts")), tuple(n.dims(2, "ends"))
    axes = n.whole_dims(3, "axes") if n.has_input(3) else tuple(range(len(starts)))
    return axes, starts, ends, n.whole_dims(4, "steps") if n.has_input(4) else (1,) * len(starts)


def read_slice(n: NodeReader) -> None:
    """Slice."""
    x = n.value(0)
    given, starts, ends, steps = read_bounds(n)
    axes = tuple(positive_axis(a, x.type.rank) for a in given)
    if len(axes) == len(starts) == len(ends):
        starts = tuple(_count_from_front(d, x.type.shape[a]) for d, a in zip(starts, axes, strict=True))
        ends = tuple(_count_from_front(d, x.type.shape[a]) for d, a in zip(ends, axes, strict=True))
    left = _slice_lengths(x.type, axes, starts, ends, steps)
    if left is not None and 0 in left:  # which graphc's own slice takes for a mistake
        return n.fold(np.zeros(left, x.type.dtype.numpy))
    return n.emit(Slice(axes, starts, ends, steps), x)


def _count_from_front(bound: DimLike, length: DimLike) -> DimLike:
    """A bound that depends on sizes and is below 0 counts from the end, which Slice has for constants alone."""
    return length + bound if isinstance(bound, Dim) and dims.bounds(bound)[1] < 0 else bound


def _slice_lengths(
    x: TensorType, axes: Sequence[int], starts: Sequence[DimLike], ends: Sequence[DimLike], steps: Sequence[int]
) -> tuple[int, ...] | None:
    """The shape of a slice whose sizes and bounds are constant, else None."""
    shape = [d for d in x.shape if isinstance(d, int)]
    if len(shape) < x.rank or 0 in steps:
        return None
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not isinstance(start, int) or not isinstance(end, int):
            return None
        shape[axis] = len(range(shape[axis])[start:end:step])
    return tuple(shape)


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def read_pad(n: NodeReader) -> None:
    """Pad by constants: attributes before opset 11, then inputs."""
    x, mode = n.value(0), n.text("mode", "constant")
    given = n.dims(1, "pads") if n.opset >= 11 else list[DimLike](n.integers("pads"))
    if mode not in _PAD_MODES:
        raise ShapeError(f"mode: expected one of {', '.join(_PAD_MODES)}, got {mode}")
    value = n.real("value", 0.0) if n.opset < 11 else 0.0
    if n.has_input(2) and n.numbers(2, "the padding's value").size:
        value = n.scalar(2, "the padding's value")
    axes = n.whole_dims(3, "axes") if n.has_input(3) else tuple(range(x.type.rank))
    if len(given) != 2 * len(axes):
        raise ShapeError(f"pads: expected {2 * len(axes)} integers, got {given}")
    padding: list[DimLike] = [0] * (2 * x.type.rank)
    for i, axis in enumerate(positive_axis(a, x.type.rank) for a in axes):
        padding[axis], padding[x.type.rank + axis] = given[i], given[len(axes) + i]
    _emit_pad(n, x, padding, _PAD_MODES[mode], value)


def _emit_pad(n: NodeReader, x: Value, padding: Sequence[DimLike], mode: str = "constant", value: float = 0.0) -> None:
    """Borders around x, of which those that are below 0 for all sizes crop it first."""
    rank, below = x.type.rank, [dims.bounds(p)[1] < 0 for p in padding]
    cropped = [a for a in range(rank) if below[a] or below[rank + a]]
    widths = tuple(0 if crops else p for p, crops in zip(padding, below, strict=True))
    pad = Pad(widths, mode, value if mode == "constant" else 0.0)
    if not cropped:
        return n.emit(pad, x)
    starts = tuple(-padding[a] if below[a] else 0 for a in cropped)
    ends = tuple(_count_from_front(padding[rank + a], x.type.shape[a]) if below[rank + a] else FAR for a in cropped)
    cut = Slice(tuple(cropped), starts, ends, (1,) * len(cropped))
    if not any(widths):
        return n.emit(cut, x)
    return n.emit(pad, n.step(cut, x))


def read_center_crop_pad(n: NodeReader) -> None:
    """CenterCropPad of constant dims: as much on both sides; an odd one's rest is cropped or padded at the end."""
    x, wanted = n.value(0), n.whole_dims(1, "the shape")
    rank = x.type.rank
    axes = tuple(positive_axis(a, rank) for a in n.integers("axes", range(rank)))
    if len(wanted) != len(axes):
        raise ShapeError(f"the shape: expected {len(axes)} sizes, got {list(wanted)}")
    padding: list[DimLike] = [0] * (2 * rank)
    for axis, size in zip(axes, wanted, strict=True):
        d = x.type.shape[axis]
        if not isinstance(d, int):
            raise UnsupportedError(f"dim {axis} of {x.type} must be constant")
        before = abs(size - d) // 2 * (1 if size > d else -1)
        padding[axis], padding[rank + axis] = before, size - d - before
    _emit_pad(n, x, padding)


def read_shape(n: NodeReader) -> None:
    """Shape: of `start` to `end`, known now but for the symbols."""
    x = n.operand(0)
    shape = x.shape if isinstance(x, Constant) else n.value(0).type.shape
    start, end = n.integer("start", 0), n.integer("end", len(shape))
    n.fold(np.array(shape, object)[start:end])


def read_constant(n: NodeReader) -> None:
    """Constant, in one of its many forms."""
    if n.has("value"):
        n.note_element_type(n.tensor("value").data_type)
        return n.fold(read_tensor(n.tensor("value"), n.scope.folder))
    if n.has("value_int"):
        return n.fold(np.array(n.integer("value_int", 0), np.int64))
    if n.has("value_ints"):
        return n.fold(np.array(n.integers("value_ints"), np.int64))
    if n.has("value_float"):
        return n.fold(np.array(n.real("value_float", 0.0), np.float32))
    if n.has("value_floats"):
        return n.fold(np.array(n.reals("value_floats"), np.float32))
    raise UnsupportedError("a constant that is neither a tensor nor numbers")


def read_constant_of_shape(n: NodeReader) -> None:
    """ConstantOfShape; where the shape depends on sizes, the number is expanded in the run."""
    listed = n.dims(0, "the shape")
    if n.has("value"):
        n.note_element_type(n.tensor("value").data_type)
    fill = read_tensor(n.tensor("value"), n.scope.folder) if n.has("value") else np.zeros(1, np.float32)
    shape = tuple(d for d in listed if isinstance(d, int))
    if len(shape) < len(listed) and fill.size == 1:
        return n.emit(Expand(tuple(listed)), n.parameter(fill.reshape(()), "value"))
    if fill.size != 1 or min(shape, default=1) < 0:
        raise ShapeError(f"expected one value and dims of at least 0, got {fill.size} and {list(shape)}")
    if np.prod(shape, dtype=object) > FILLED_ELEMENTS:
        raise UnsupportedError(f"a constant of shape {list(shape)}, at most {FILLED_ELEMENTS} elements are supported")
    return n.fold(np.full(shape, fill.reshape(()), fill.dtype))


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "Flatten": read_flatten,
    "Reshape": read_reshape,
    "Squeeze": read_squeeze,
    "Unsqueeze": read_unsqueeze,
    "Transpose": read_transpose,
    "Concat": read_concat,
    "Split": read_split,
    "Slice": read_slice,
    "Pad": read_pad,
    "CenterCropPad": read_center_crop_pad,
    "Shape": read_shape,
    "Constant": read_constant,
    "ConstantOfShape": read_constant_of_shape,
}
