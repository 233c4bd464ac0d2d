"""Pools and their inverse."""

from collections.abc import Callable

from graphc.errors import ShapeError, UnsupportedError
from graphc.onnx.import_ops.layers import read_pair
from graphc.onnx.import_ops.norms import write_power, write_root
from graphc.onnx.import_ops.padding import read_padding
from graphc.onnx.reader import NodeReader
from graphc.ops import pool
from graphc.ops.elementwise import Fused
from graphc.ops.window import Pair


def read_max_pool(n: NodeReader) -> None:
    """MaxPool, with or without the indices."""
    x, kernel = n.image(), read_pair(n, "kernel_shape", 0)
    n.expect("storage_order", 0)
    stride, dilation = read_pair(n, "strides", 1), read_pair(n, "dilations", 1)
    padding = read_padding(n, x, kernel, stride, dilation)
    op = pool.MaxPoolWithIndices if n.used_outputs > 1 else pool.MaxPool
    n.emit(op(kernel, stride, padding, dilation, bool(n.integer("ceil_mode", 0))), x)


def _read_undilated(n: NodeReader) -> Pair:
    dilation = read_pair(n, "dilations", 1)
    if dilation != (1, 1):
        raise UnsupportedError(f"dilations={list(dilation)}; only 1 is supported")
    return dilation


def read_average_pool(n: NodeReader) -> None:
    """AveragePool -> average_pool."""
    x, kernel, stride = n.image(), read_pair(n, "kernel_shape", 0), read_pair(n, "strides", 1)
    padding = read_padding(n, x, kernel, stride, _read_undilated(n))
    ceil_mode, count_padding = bool(n.integer("ceil_mode", 0)), bool(n.integer("count_include_pad", 0))
    n.emit(pool.AveragePool(kernel, stride, padding, ceil_mode, count_padding), x)


def read_lp_pool(n: NodeReader) -> None:
    """LpPool with p = 2 -> l2_pool; others by the average of the powers, whose count the window's size undoes."""
    p = n.integer("p", 2)
    x, kernel, stride = n.image(), read_pair(n, "kernel_shape", 0), read_pair(n, "strides", 1)
    padding = read_padding(n, x, kernel, stride, _read_undilated(n))
    ceil_mode = bool(n.integer("ceil_mode", 0))
    if p == 2:
        return n.emit(pool.L2Pool(kernel, stride, padding, ceil_mode), x)
    if p < 1 or ceil_mode:
        raise UnsupportedError(f"p={p} with ceil_mode={int(ceil_mode)}; only p >= 1, and ceil_mode for p=2")
    powers = n.step(Fused(write_power(p)), x)
    means = n.step(pool.AveragePool(kernel, stride, padding, count_padding=True), powers)
    total = f"(x0 * {float(kernel[0] * kernel[1])!r})"
    return n.emit(Fused(write_root(p).replace("x0", total)), means)


def read_max_unpool(n: NodeReader) -> None:
    """MaxUnpool: of the size that its window gives, or of that of a tensor which the indices may have come from.

    With an output_shape, an index counts in the result of that shape, as in ONNX Runtime and as MaxPool gives it.
    (ONNX's Python reference counts in the default shape and pads that, which no MaxPool's indices fit.)
    """
    x, indices, kernel = n.image(), n.value(1), read_pair(n, "kernel_shape", 0)
    stride, pads = read_pair(n, "strides", 1), n.integers("pads", (0, 0, 0, 0))
    if len(pads) != 4:
        raise ShapeError(f"pads: expected 4 integers, got {list(pads)}")
    padding = pads[0], pads[1], pads[2], pads[3]
    op = pool.MaxUnpool(kernel, stride, padding)
    if not n.has_input(2):
        return n.emit(op, x, indices)
    wanted = tuple(n.dims(2, "output_shape"))
    if op.infer(x.type, indices.type).shape == wanted:
        return n.emit(op, x, indices)
    if wanted not in n.scope.by_shape:
        raise UnsupportedError(f"output_shape={list(wanted)} is not the shape of a tensor before it")
    return n.emit(pool.MaxUnpool(kernel, stride, padding, like=True), x, indices, n.scope.by_shape[wanted])


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "MaxPool": read_max_pool,
    "AveragePool": read_average_pool,
    "LpPool": read_lp_pool,
    "MaxUnpool": read_max_unpool,
    "GlobalAveragePool": lambda n: n.emit(pool.GlobalAveragePool(), n.value(0)),
    "GlobalMaxPool": lambda n: n.emit(pool.GlobalMaxPool(), n.value(0)),
}
