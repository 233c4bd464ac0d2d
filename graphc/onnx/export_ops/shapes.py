"""Ops that move elements, and reductions."""

from collections.abc import Callable
from typing import Any

from graphc.errors import UnsupportedError
from graphc.ir import DimLike, DType, dims
from graphc.onnx.export_ops.expressions import write_expression
from graphc.onnx.writer import NodeWriter
from graphc.ops import scalar
from graphc.ops.positions import Extent, Iota
from graphc.ops.reduce import ArgMax, ArgMin, Mean, Prod, ReduceMax, ReduceMin, Sum
from graphc.ops.shape import Concat, Expand, Flatten, Pad, Reshape, Slice, SliceGradient, Split, Transpose

_ALL = 2**63 - 1  # as an end: up to the last element, or with a negative step, minus this: down to the first


def write_reshape(n: NodeWriter, op: Reshape) -> None:
    """Reshape by a constant where copied dims (0) and one inferred (-1) say all, else by sizes computed in the run."""
    before = n.node.inputs[0].type.shape
    symbolic = [isinstance(d, dims.Dim) for d in op.shape]
    copied = [s and i < len(before) and before[i] == op.shape[i] for i, s in enumerate(symbolic)]
    open_dims = sum(s and not c for s, c in zip(symbolic, copied, strict=True))
    if open_dims + op.shape.count(-1) > 1:
        return n.emit("Reshape", n.inputs[0], n.model.shape(n.node.outputs[0].type.shape))
    shape = [0 if c else -1 if s else d for d, s, c in zip(op.shape, symbolic, copied, strict=True)]
    return n.emit("Reshape", n.inputs[0], n.integers(tuple(d for d in shape if isinstance(d, int)), "shape"))


def write_split(n: NodeWriter, op: Split) -> None:
    """Split."""
    n.emit("Split", n.inputs[0], n.model.shape(op.sizes), axis=op.axis)


def write_slice(n: NodeWriter, op: Slice) -> None:
    """Slice."""
    bounds = [n.model.shape(op.starts), n.model.shape(op.ends)]
    n.emit("Slice", n.inputs[0], *bounds, n.integers(op.axes, "axes"), n.integers(op.steps, "steps"))


def write_slice_gradient(n: NodeWriter, op: SliceGradient) -> None:
    """Pad: along each axis turned round for a step below 0, with zeros between the elements for a step above 1.

    The last of these zeros may lie behind the end: the padding there is then negative, which cuts.
    """
    g, shape = n.inputs[0], list(n.node.inputs[0].type.shape)
    befores: list[DimLike] = [0] * len(shape)
    turned = [axis for axis, (_, step, _) in enumerate(op.slice.ranges(n.node.outputs[0].type)) if step < 0]
    if turned:
        axes, far = n.integers(tuple(turned), "turned"), (-_ALL,) * len(turned)
        back = n.integers((-1,) * len(turned), "back")
        g = n.step("Slice", g, back, n.integers(far, "far"), axes, back)
    for axis, (first, step, length) in enumerate(op.slice.ranges(n.node.outputs[0].type)):
        befores[axis] = first if step > 0 else first + (length - 1) * step
        if abs(step) > 1:
            g = n.step("Reshape", g, n.model.shape((*shape[: axis + 1], 1, *shape[axis + 1 :])))
            zeros = [0] * (2 * len(shape) + 2)
            zeros[len(shape) + 1 + axis + 1] = abs(step) - 1
            g = n.step("Pad", g, n.integers(tuple(zeros), "zeros"))
            shape[axis] = shape[axis] * abs(step)
            g = n.step("Reshape", g, n.model.shape(tuple(shape)))
    afters = [d - before - length for d, before, length in zip(op.shape, befores, shape, strict=True)]
    n.emit("Pad", g, n.model.shape((*befores, *afters)))


def write_extent(n: NodeWriter, op: Extent) -> None:
    """Computed from the shapes of the inputs."""
    n.emit("Reshape", n.model.shape((op.dim,)), n.integers((), "scalar"))


def write_iota(n: NodeWriter, op: Iota) -> None:
    """Range."""
    none = n.integers((), "scalar")
    end = n.step("Reshape", n.model.shape((dims.product(op.shape),)), none)
    zero, one = n.number(0, "zero", DType.I64), n.number(1, "one", DType.I64)
    n.emit("Reshape", n.step("Range", zero, end, one), n.model.shape(op.shape))


def write_pad(n: NodeWriter, op: Pad) -> None:
    """Pad; ONNX has no symmetric mode, and wrap since opset 19."""
    if op.mode == "symmetric" or (op.mode == "wrap" and n.opset < 19):
        return _write_copies(n, op)
    value = [n.number(op.value, "value")] if op.mode == "constant" and op.value else []
    return n.emit("Pad", n.inputs[0], n.model.shape(op.padding), *value, mode=op.mode)


def _write_copies(n: NodeWriter, op: Pad) -> None:
    """Axis by axis, copies of the borders (mirrored, or of the other side) joined to the tensor.

    A border longer than the tensor would need several copies: refused where the size is constant.
    """
    x, mirrored = n.inputs[0], op.mode == "symmetric"
    pairs: dict[int, tuple[int, int]] = {}
    for axis, (before, after) in enumerate(op.pairs()):
        if not isinstance(before, int) or not isinstance(after, int):
            raise UnsupportedError(f"mode={op.mode} by ({before}, {after}), which depends on the sizes of the inputs")
        pairs[axis] = before, after
    for axis, d in enumerate(n.node.inputs[0].type.shape):
        if isinstance(d, int) and max(pairs[axis]) > d:
            raise UnsupportedError(f"mode={op.mode} by {max(pairs[axis])}, more than the size {d}")

    def cut(start: int, end: int, axis: int, step: int = 1) -> str:
        bounds = [n.integers((v,), w) for v, w in ((start, "start"), (end, "end"), (axis, "axis"), (step, "step"))]
        return n.step("Slice", x, *bounds)

    padded = [axis for axis, pair in pairs.items() if any(pair)]
    for axis in padded:
        before, after = pairs[axis]
        parts = [x]
        if before:
            parts.insert(0, cut(before - 1, -_ALL, axis, -1) if mirrored else cut(-before, _ALL, axis))
        if after:
            parts.append(cut(-1, -after - 1, axis, -1) if mirrored else cut(0, after, axis))
        if axis == padded[-1]:
            return n.emit("Concat", *parts, axis=axis)
        x = n.step("Concat", *parts, axis=axis)
    return n.emit("Identity", x)


def _reduction(op_type: str, since: int) -> Callable[[NodeWriter, Any], None]:
    """An exporter; `since` is the opset in which the axes became an input."""

    def write(n: NodeWriter, op: Sum | Mean | Prod | ReduceMax | ReduceMin) -> None:
        x, keep = n.inputs[0], int(op.keepdims)
        if isinstance(op, Sum) and op.expr:
            expr = scalar.parse(op.expr, [v.type.dtype for v in n.node.inputs])
            x = write_expression(n, expr, n.inputs, result=False)
        if op.axes is None:
            n.emit(op_type, x, keepdims=keep)
        elif n.opset >= since:
            n.emit(op_type, x, n.integers(op.axes, "axes"), keepdims=keep)
        else:
            n.emit(op_type, x, axes=op.axes, keepdims=keep)

    return write


def _arg_reduction(op_type: str) -> Callable[[NodeWriter, Any], None]:
    def write(n: NodeWriter, op: ArgMax | ArgMin) -> None:
        n.emit(op_type, n.inputs[0], axis=op.axis, keepdims=int(op.keepdims), select_last_index=int(op.last))

    return write


EXPORTERS: dict[Any, Callable[[NodeWriter, Any], None]] = {
    Flatten: lambda n, op: n.emit("Flatten", n.inputs[0], axis=op.axis),
    Reshape: write_reshape,
    Transpose: lambda n, op: n.emit("Transpose", n.inputs[0], perm=op.perm),
    Concat: lambda n, op: n.emit("Concat", *n.inputs, axis=op.axis),
    Split: write_split,
    Slice: write_slice,
    SliceGradient: write_slice_gradient,
    Extent: write_extent,
    Iota: write_iota,
    Pad: write_pad,
    Expand: lambda n, op: n.emit("Expand", n.inputs[0], n.model.shape(op.shape)),
    Sum: _reduction("ReduceSum", 13),
    Mean: _reduction("ReduceMean", 18),
    Prod: _reduction("ReduceProd", 18),
    ReduceMax: _reduction("ReduceMax", 18),
    ReduceMin: _reduction("ReduceMin", 18),
    ArgMax: _arg_reduction("ArgMax"),
    ArgMin: _arg_reduction("ArgMin"),
}
