"""Ops that choose elements by indices: gathers, scatters, the largest elements, and masks by position."""

from collections.abc import Callable

import numpy as np

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import DType, Value, dims
from graphc.onnx.import_ops.shapes import FOLDED_ELEMENTS, positive_axis
from graphc.onnx.reader import NodeReader
from graphc.onnx.tensors import read_dtype
from graphc.ops.elementwise import Fused
from graphc.ops.index import Gather, GatherElements, GatherND, Positions, ScatterElements, ScatterND
from graphc.ops.linear import MatMul
from graphc.ops.order import CumSum, TopK
from graphc.ops.positions import Iota
from graphc.ops.sample import GridSample, RoiAlign
from graphc.ops.shape import Expand, Reshape, Slice, Transpose


def _along_axis(op: type[Gather] | type[GatherElements]) -> Callable[[NodeReader], None]:
    def read(n: NodeReader) -> None:
        x = n.value(0)
        n.emit(op(positive_axis(n.integer("axis", 0), x.type.rank)), x, n.value(1))

    return read


def read_scatter_elements(n: NodeReader) -> None:
    """ScatterElements, and Scatter, as opset 9 and 10 called it."""
    x = n.value(0)
    axis = positive_axis(n.integer("axis", 0), x.type.rank)
    n.emit(ScatterElements(n.text("reduction", "none"), axis), x, n.value(1), n.value(2))


def read_top_k(n: NodeReader) -> None:
    """TopK; results that need not be sorted are."""
    x = n.value(0)
    n.integer("sorted", 1)
    if n.opset < 10:
        k = n.integer("k", 0)
    else:
        k = n.whole_dims(1, "k")[0]
    axis = positive_axis(n.integer("axis", -1), x.type.rank)
    n.emit(TopK(k, axis, bool(n.integer("largest", 1))), x)


def read_cum_sum(n: NodeReader) -> None:
    """CumSum along a constant axis."""
    x, axis = n.value(0), n.whole_dims(1, "the axis")[0]
    exclusive, reverse = bool(n.integer("exclusive", 0)), bool(n.integer("reverse", 0))
    n.emit(CumSum(positive_axis(axis, x.type.rank), exclusive, reverse), x)


def zero_of(x: Value) -> str:
    """A zero of x's dtype, as expressions write it."""
    return "False" if x.type.dtype == DType.BOOL else "0.0" if x.type.dtype.is_float else "0"


def positions(n: NodeReader, x: Value, axis: int) -> Value:
    """0, 1, 2, ... along the axis of a tensor of x's rank, all its other dims 1."""
    found = n.step(Positions(axis), x)
    return n.step(Reshape((*found.type.shape, *[1] * (x.type.rank - 1 - axis))), found)


def read_range(n: NodeReader) -> None:
    """Range between constants, or over a length that depends on sizes: positions, along a tensor that is so long."""
    names = ("start", "limit", "delta")
    if not n.dtype(0).is_integer or all(n.constant(i) is not None for i in range(3)):
        low, high, stride = (n.numbers(i, what).reshape(()) for i, what in enumerate(names))
        count = max(0, int(np.ceil((high - low) / stride)))
        if count > FOLDED_ELEMENTS:
            raise UnsupportedError(f"a range of {count} numbers, at most {FOLDED_ELEMENTS} are supported")
        return n.fold(np.asarray(low + np.arange(count) * stride, low.dtype))
    (start,), (limit,), (step,) = (n.dims(i, what) for i, what in enumerate(names))
    if not isinstance(step, int) or step == 0:
        raise UnsupportedError(f"a range with delta={step}")
    length = dims.ceil_div(limit - start, step) if step > 0 else dims.ceil_div(start - limit, -step)
    found = next((v for v in n.scope.by_shape.values() if length in v.type.shape), None)
    op, operands = (Iota((length,)), ()) if found is None else (Positions(found.type.shape.index(length)), (found,))
    dtype = n.dtype(0)
    if (start, step, dtype) == (0, 1, DType.I64):
        return n.emit(op, *operands)
    if isinstance(start, int):
        return n.emit(Fused(f"to_{dtype.value}(((x0 * {step}) + {start}))"), n.step(op, *operands))
    return n.emit(Fused(f"(to_{dtype.value}((x0 * {step})) + x1)"), n.step(op, *operands), n.value(0))


def read_trilu(n: NodeReader) -> None:
    """Trilu: x above (or below) the k-th diagonal of its last two dims, zero elsewhere."""
    x, upper = n.value(0), n.integer("upper", 1)
    if x.type.rank < 2:
        raise ShapeError(f"expected a matrix or a batch of them, got {x.type}")
    rows, columns = (positions(n, x, x.type.rank - i) for i in (2, 1))
    kept = "ge" if upper else "le"
    if n.has_input(1) and n.constant(1) is None:
        expression = f"select({kept}((x2 - x1), x3), x0, {zero_of(x)})"
        return n.emit(Fused(expression), x, rows, columns, n.step(Reshape(()), n.value(1)))
    k = int(n.scalar(1, "k")) if n.has_input(1) else 0
    return n.emit(Fused(f"select({kept}((x2 - x1), {k}), x0, {zero_of(x)})"), x, rows, columns)


def read_eye_like(n: NodeReader) -> None:
    """EyeLike: ones on the k-th diagonal of a matrix of x's shape."""
    x = n.value(0)
    if x.type.rank != 2:
        raise ShapeError(f"expected a matrix, got {x.type}")
    to = read_dtype(n.integer("dtype", 0)) if n.has("dtype") else x.type.dtype
    rows, columns = positions(n, x, 0), positions(n, x, 1)
    n.emit(Fused(f"to_{to.value}(eq((x1 - x0), {n.integer('k', 0)}))"), rows, columns)


def read_one_hot(n: NodeReader) -> None:
    """OneHot: along a new axis of constant length, the second value at the index and the first elsewhere."""
    indices, depth = n.value(0), int(n.scalar(1, "depth"))
    if not 1 <= depth <= FOLDED_ELEMENTS:
        raise UnsupportedError(f"a depth of {depth}, from 1 to {FOLDED_ELEMENTS} are supported")
    axis = positive_axis(n.integer("axis", -1), indices.type.rank + 1)
    if indices.type.dtype != DType.I64:
        indices = n.step(Fused("to_i64(x0)"), indices)
    shape = indices.type.shape
    column = n.step(Reshape((*shape[:axis], 1, *shape[axis:])), indices)
    places = np.arange(depth).reshape(-1, *[1] * (len(shape) - axis))
    place = n.scope.builder.param(n.scope.new_names.fresh(f"{n.name}.places"), places, trainable=False)
    values = n.value(2, trainable=False)
    if values.type.rank != 1 or not dims.same(values.type.shape[0], 2):
        raise ShapeError(f"expected the values for off and on, got {values.type}")
    off, on = (n.step(Reshape(()), n.step(Slice((0,), (i,), (i + 1,), (1,)), values)) for i in (0, 1))
    here = f"eq(select(lt(x0, 0), (x0 + {depth}), x0), x1)"
    n.emit(Fused(f"select({here}, x2, x3)"), column, place, on, off)


def read_reverse_sequence(n: NodeReader) -> None:
    """ReverseSequence: of each element of the batch, the first `lengths` steps in time backwards."""
    x, lengths = n.value(0), n.value(1)
    time, batch = n.integer("time_axis", 0), n.integer("batch_axis", 1)
    if {time, batch} != {0, 1} or x.type.rank < 2:
        raise ShapeError(f"expected time_axis and batch_axis 0 and 1 of x {x.type}, got {time} and {batch}")
    column = n.step(Reshape(tuple(x.type.shape[i] if i == batch else 1 for i in range(x.type.rank))), lengths)
    steps = n.step(Fused("select(lt(x0, x1), ((x1 - 1) - x0), x0)"), positions(n, x, time), column)
    n.emit(GatherElements(time), x, n.step(Expand(x.type.shape), steps))


def read_grid_sample(n: NodeReader) -> None:
    """GridSample; opset 16 called two of the modes otherwise."""
    mode = n.text("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    op = GridSample(mode, n.text("padding_mode", "zeros"), bool(n.integer("align_corners", 0)))
    n.emit(op, n.value(0), n.value(1))


def read_roi_align(n: NodeReader) -> None:
    """RoiAlign with a constant number of samples."""
    samples = n.integer("sampling_ratio", 0)
    if samples < 1:
        raise UnsupportedError(f"sampling_ratio={samples} takes a number of samples that depends on each box")
    coordinates = n.text("coordinate_transformation_mode", "half_pixel" if n.opset >= 16 else "output_half_pixel")
    if coordinates not in ("half_pixel", "output_half_pixel"):
        raise ShapeError(f"coordinate_transformation_mode: expected half_pixel or output_half_pixel, got {coordinates}")
    size = n.integer("output_height", 1), n.integer("output_width", 1)
    scale, mode = n.real("spatial_scale", 1.0), n.text("mode", "avg")
    op = RoiAlign(size, samples, scale, coordinates == "half_pixel", mode)
    n.emit(op, n.value(0), n.value(1), n.value(2))


def read_affine_grid(n: NodeReader) -> None:
    """AffineGrid of a constant size: theta [N,d,d+1] times the places of all pixels, as GridSample reads them."""
    theta, size = n.value(0), n.whole_dims(1, "the size")
    spatial, aligned = size[2:], n.integer("align_corners", 0)
    if theta.type.rank != 3 or theta.type.shape[1:] != (len(spatial), len(spatial) + 1) or min(size) < 1:
        raise ShapeError(f"theta {theta.type} does not fit the size {list(size)}")
    if np.prod(spatial) > FOLDED_ELEMENTS:
        raise UnsupportedError(f"a grid of {list(spatial)}, at most {FOLDED_ELEMENTS} pixels are supported")
    axes = [(2 * np.arange(d) - (d - 1)) / (max(d - 1, 1) if aligned else d) for d in reversed(spatial)]
    places = np.stack([*np.meshgrid(*axes, indexing="ij"), np.ones(spatial[::-1])])  # [x..z,1] by [W,H..D]
    columns = places.transpose(0, *range(len(spatial), 0, -1)).reshape(len(spatial) + 1, -1)
    name = n.scope.new_names.fresh(f"{n.name}.places")
    base = n.scope.builder.param(name, columns.astype(theta.type.dtype.numpy), trainable=False)
    found = n.step(Transpose((0, 2, 1)), n.step(MatMul(), theta, base))
    n.emit(Reshape((theta.type.shape[0], *spatial, len(spatial))), found)


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "Gather": _along_axis(Gather),
    "GatherElements": _along_axis(GatherElements),
    "GatherND": lambda n: n.emit(GatherND(n.integer("batch_dims", 0)), n.value(0), n.value(1)),
    "ScatterElements": read_scatter_elements,
    "Scatter": read_scatter_elements,
    "ScatterND": lambda n: n.emit(ScatterND(n.text("reduction", "none")), n.value(0), n.value(1), n.value(2)),
    "TopK": read_top_k,
    "CumSum": read_cum_sum,
    "Range": read_range,
    "Trilu": read_trilu,
    "EyeLike": read_eye_like,
    "OneHot": read_one_hot,
    "ReverseSequence": read_reverse_sequence,
    "GridSample": read_grid_sample,
    "RoiAlign": read_roi_align,
    "AffineGrid": read_affine_grid,
}
