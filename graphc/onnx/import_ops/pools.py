"""Pools and their inverse."""

from collections.abc import Callable
from math import prod

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Op, Value, dims
from graphc.onnx.import_ops.frames import (
    WHOLE,
    Application,
    Frame,
    Plane,
    count_dims,
    lay_line,
    make_plane,
    read_frame,
    read_pair,
    take_line,
)
from graphc.onnx.import_ops.norms import write_power, write_root
from graphc.onnx.reader import NodeReader
from graphc.ops import pool
from graphc.ops.elementwise import Fused, Identity
from graphc.ops.shape import Pad, Reshape


def _apply_pool(n: NodeReader, x: Value, frame: Frame, make: Callable[[Plane], Op]) -> Application:
    """The pool that `make` gives for a window: over a line; or over planes, then over what these give along D."""
    match x.type.rank:
        case 3:
            return take_line(n.step(make(frame.plane), lay_line(n, x)))
        case 4:
            return make(frame.plane), (x,)
    batch, channels, depth, height, width = x.type.shape
    planes = n.step(make(frame.plane), n.step(Reshape((batch * channels * depth, 1, height, width)), x))
    p, q = planes.type.shape[2:]
    columns = n.step(Reshape((batch * channels, 1, depth, p * q)), planes)
    y = n.step(make(make_plane(frame.along(0), WHOLE)), columns)
    return Reshape((batch, channels, y.type.shape[2], p, q)), (y,)


def _emit_pool(n: NodeReader, x: Value, frame: Frame, make: Callable[[Plane], Op]) -> None:
    op, operands = _apply_pool(n, x, frame, make)
    n.emit(op, *operands)


def read_max_pool(n: NodeReader) -> None:
    """MaxPool, with or without the indices; small integers as floats, which hold them."""
    x, dtype = n.value(0), n.value(0).type.dtype
    if dtype.is_integer and dtype.size == 1:
        x = n.step(Fused("to_f32(x0)"), x)
    frame, ceil_mode, by_columns = read_frame(n, x), bool(n.integer("ceil_mode", 0)), n.integer("storage_order", 0)
    if x.type.dtype != dtype:
        if n.used_outputs > 1 or x.type.rank != 4:
            raise UnsupportedError(f"a pool of {dtype.value} with indices, or over other than two spatial dims")
        return n.emit(Fused(f"to_{dtype.value}(x0)"), n.step(_max_pool(frame.plane, ceil_mode), x))
    if n.used_outputs <= 1:
        return _emit_pool(n, x, frame, lambda window: _max_pool(window, ceil_mode))
    return _emit_pool_with_indices(n, x, frame, ceil_mode, bool(by_columns))


def _max_pool(window: Plane, ceil_mode: bool) -> pool.MaxPool:
    return pool.MaxPool(window.kernel, window.stride, window.padding, window.dilation, ceil_mode)


def _emit_pool_with_indices(n: NodeReader, x: Value, frame: Frame, ceil_mode: bool, by_columns: bool) -> None:
    """MaxPool with both results; `by_columns`, the place inside an image is counted down its columns."""
    w = frame.plane
    op = pool.MaxPoolWithIndices(w.kernel, w.stride, w.padding, w.dilation, ceil_mode)
    if x.type.rank == 5:
        raise UnsupportedError("indices of a pool over three spatial dims")
    if x.type.rank == 4 and not by_columns:
        return n.emit(op, x)
    y, places = n.steps(op, lay_line(n, x) if x.type.rank == 3 else x)
    if x.type.rank == 3:  # one row: by columns is by rows
        squeeze, _ = take_line(y)
        n.deliver(1, n.step(squeeze, places))
        return n.emit(squeeze, y)
    height, width = x.type.shape[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise UnsupportedError(f"storage_order=1 of an image of open size, {x.type}")
    area = height * width
    column = f"((((x0 // {area}) * {area}) + ((x0 % {width}) * {height})) + ((x0 % {area}) // {width}))"
    n.deliver(1, n.step(Fused(column), places))
    return n.emit(Identity(), y)


def read_average_pool(n: NodeReader) -> None:
    """AveragePool -> average_pool."""
    x = n.value(0)
    ceil_mode, count_padding = bool(n.integer("ceil_mode", 0)), bool(n.integer("count_include_pad", 0))

    def make(window: Plane) -> Op:
        return pool.AveragePool(window.kernel, window.stride, window.padding, ceil_mode, count_padding, window.dilation)

    _emit_pool(n, x, read_frame(n, x), make)


def _read_global(op: Op) -> Callable[[NodeReader], None]:
    """A handler of a global pool: all spatial dims behind the first as one."""

    def read(n: NodeReader) -> None:
        x = n.value(0)
        batch, channels, *sizes = x.type.shape
        if count_dims(x) == 2:
            return n.emit(op, x)
        rows = sizes[0] if len(sizes) > 1 else 1
        image = n.step(Reshape((batch, channels, rows, dims.product(sizes[1:] or sizes))), x)
        return n.emit(Reshape((batch, channels, *[1] * len(sizes))), n.step(op, image))

    return read


def read_lp_pool(n: NodeReader) -> None:
    """LpPool with p = 2 -> l2_pool; others by the average of the powers, whose count the window's size undoes."""
    x, p, ceil_mode = n.value(0), n.integer("p", 2), bool(n.integer("ceil_mode", 0))
    frame = read_frame(n, x)
    if p == 2 and set(frame.dilation) == {1}:
        return _emit_pool(n, x, frame, lambda w: pool.L2Pool(w.kernel, w.stride, w.padding, ceil_mode))
    if p < 1 or ceil_mode:
        given = f"p={p}, dilations={list(frame.dilation)} and ceil_mode={int(ceil_mode)}"
        raise UnsupportedError(f"{given}; only p >= 1, and ceil_mode for p=2 without dilation")

    def make(w: Plane) -> Op:
        return pool.AveragePool(w.kernel, w.stride, w.padding, count_padding=True, dilation=w.dilation)

    op, operands = _apply_pool(n, n.step(Fused(write_power(p)), x), frame, make)
    total = f"(x0 * {float(prod(frame.kernel))!r})"
    return n.emit(Fused(write_root(p).replace("x0", total)), n.step(op, *operands))


def read_max_unpool(n: NodeReader) -> None:
    """MaxUnpool: of the size that its window gives, or of that of a tensor which the indices may have come from.

    With the output_shape of a tensor before it, an index counts in that shape, as in ONNX Runtime and as MaxPool gives
    it. With another one, it counts in the default shape, which is padded behind, as in ONNX's Python reference.
    """
    x, indices, kernel = n.image(), n.value(1), read_pair(n, "kernel_shape", 0)
    stride, pads = read_pair(n, "strides", 1), n.integers("pads", (0, 0, 0, 0))
    if len(pads) != 4:
        raise ShapeError(f"pads: expected 4 integers, got {list(pads)}")
    padding = pads[0], pads[1], pads[2], pads[3]
    op = pool.MaxUnpool(kernel, stride, padding)
    default = op.infer(x.type, indices.type).shape
    wanted = tuple(n.dims(2, "output_shape")) if n.has_input(2) else default
    if wanted == default:
        return n.emit(op, x, indices)
    if wanted in n.scope.by_shape:
        return n.emit(pool.MaxUnpool(kernel, stride, padding, like=True), x, indices, n.scope.by_shape[wanted])
    extra = [w - d if isinstance(w, int) and isinstance(d, int) else -1 for w, d in zip(wanted, default, strict=False)]
    if len(wanted) != 4 or extra[:2] != [0, 0] or min(extra) < 0:
        given, least = (f"[{', '.join(map(str, shape))}]" for shape in (wanted, default))
        raise UnsupportedError(f"output_shape={given}: expected that of a tensor before it, or more than {least}")
    return n.emit(Pad((0, 0, 0, 0, *extra)), n.step(op, x, indices))


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "MaxPool": read_max_pool,
    "AveragePool": read_average_pool,
    "LpPool": read_lp_pool,
    "MaxUnpool": read_max_unpool,
    "GlobalAveragePool": _read_global(pool.GlobalAveragePool()),
    "GlobalMaxPool": _read_global(pool.GlobalMaxPool()),
}
