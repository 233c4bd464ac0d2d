"""Pools, their inverse, and upsampling."""

from collections.abc import Callable
from math import gcd
from typing import Any

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir import DimLike, TensorType, dims
from graphc.onnx.writer import NodeWriter
from graphc.ops import pool
from graphc.ops.checks import check_image
from graphc.ops.resize import BedOfNails, UpsampleBilinear, UpsampleNearest


def _window(n: NodeWriter, op: pool.OrderPool | pool.SumPool, y: TensorType | None = None) -> dict[str, Any]:
    """The attributes of the window whose results have type y (None: the node's); `ceil_mode` only where it matters.

    A last window that would start behind the image does not count, which ONNX's shape inference does not know: for
    constant sizes the checker would find it in contradiction with the type of the result. Where one axis has such a
    window and the other one needs `ceil_mode`, the other is padded as far as its last window reaches.
    """
    (top, left, bottom, right), (height, width) = op.padding, op.window.extent
    (h, w), results = n.node.inputs[0].type.shape[2:], (y or n.node.outputs[0].type).shape[2:]
    rest = h + (top + bottom - height), w + (left + right - width)
    whole, most = zip(*((d // s + 1, -(-d // s) + 1) for d, s in zip(rest, op.stride, strict=True)), strict=True)
    ceil_mode, pads = op.ceil_mode and results != whole, tuple[DimLike, ...](op.padding)
    if ceil_mode and results != most and all(isinstance(d, int) for d in (*rest, *results)):
        more = [dims.maximum(0, (p - 1) * s - d) for p, s, d in zip(results, op.stride, rest, strict=True)]
        ceil_mode, pads = False, (top, left, bottom + more[0], right + more[1])
    return {"kernel_shape": op.kernel, "strides": op.stride, "pads": pads, "ceil_mode": int(ceil_mode)}


def write_max_pool(n: NodeWriter, op: pool.MaxPool | pool.MaxPoolWithIndices) -> None:
    """MaxPool, with one output or two."""
    n.emit("MaxPool", *n.inputs, dilations=op.dilation, **_window(n, op))


def write_min_pool(n: NodeWriter, op: pool.MinPool) -> None:
    """-max(-x)."""
    n.emit("Neg", n.step("MaxPool", n.step("Neg", *n.inputs), dilations=op.dilation, **_window(n, op)))


def write_average_pool(n: NodeWriter, op: pool.AveragePool) -> None:
    """AveragePool, which knows dilations since opset 19."""
    attributes = _window(n, op) | ({"dilations": op.dilation} if op.dilation != (1, 1) else {})
    if op.count_padding and attributes["pads"] != op.padding:
        raise UnsupportedError("expected padding that does not count, or ceil_mode for neither axis or both")
    if "dilations" in attributes and n.opset < 19:
        raise UnsupportedError(f"a dilation needs opset 19, got {n.opset}")
    n.emit("AveragePool", *n.inputs, count_include_pad=int(op.count_padding), **attributes)


def write_l2_pool(n: NodeWriter, op: pool.L2Pool) -> None:
    """LpPool with p = 2, which knows ceil_mode since opset 18."""
    attributes = _window(n, op)
    if n.opset < 18 and attributes.pop("ceil_mode"):
        raise UnsupportedError(f"ceil_mode needs opset 18, got {n.opset}")
    n.emit("LpPool", *n.inputs, p=2, **attributes)


def write_channel_l2_pool(n: NodeWriter, op: pool.ChannelL2Pool) -> None:
    """The root of a 1x1 convolution of the squares, whose weights are 1 for the channels of a group, else 0."""
    channels, results = check_image(n.node.inputs[0].type), check_image(n.node.outputs[0].type)
    weight = np.zeros((results, channels, 1, 1), n.dtype.numpy)
    for k in range(results):
        weight[k, k * op.stride : k * op.stride + op.size] = 1
    squares = n.step("Mul", n.inputs[0], n.inputs[0])
    n.emit("Sqrt", n.step("Conv", squares, n.model.constant(weight, f"{n.name}.groups"), kernel_shape=(1, 1)))


def _flat_places(n: NodeWriter, indices: str, cells: DimLike) -> tuple[str, str]:
    """Which indices name a cell, and all of them in one row, 0 for those that do not."""
    inside = n.step("Less", indices, n.model.shape((cells,)))
    zero = n.integers((0,), "zero")
    return inside, n.step("Reshape", n.step("Where", inside, indices, zero), n.integers((-1,), "all"))


def write_max_pool_gradient(n: NodeWriter, op: pool.MaxPoolGradient) -> None:
    """By ScatterElements."""
    _scatter(n, op, *n.inputs)


def write_max_pool_route(n: NodeWriter, op: pool.MaxPoolRoute) -> None:
    """MaxPool for the indices, then ScatterElements."""
    x, g = n.inputs
    names = [n.model.new_names.fresh(f"{n.name}.{role}") for role in ("maxima", "indices")]
    attributes = {"dilations": op.dilation, **_window(n, op, n.node.inputs[1].type)}
    n.model.node("MaxPool", [x], names, names[0], attributes)
    _scatter(n, op, g, names[1])


def _scatter(n: NodeWriter, op: pool.OrderPool, g: str, indices: str) -> None:
    """ScatterElements, which adds since opset 16."""
    if n.opset < 16:
        raise UnsupportedError(f"{op.name} needs opset 16, got {n.opset}")
    x, one_row = n.node.outputs[0].type, n.integers((-1,), "all")
    inside, places = _flat_places(n, indices, x.elements)
    g = n.step("Reshape", n.step("Where", inside, g, n.number(0.0, "nothing")), one_row)
    zeros = n.step("Expand", n.number(0.0, "nothing"), n.model.shape((x.elements,)))
    sums = n.step("ScatterElements", zeros, places, g, axis=0, reduction="add")
    n.emit("Reshape", sums, n.model.shape(x.shape))


def write_pick_cells(n: NodeWriter, op: pool.PickCells) -> None:
    """Gather."""
    x, y = n.node.inputs[0].type, n.node.outputs[0].type
    inside, places = _flat_places(n, n.inputs[1], x.elements)
    found = n.step("Gather", n.step("Reshape", n.inputs[0], n.integers((-1,), "all")), places, axis=0)
    n.emit("Where", inside, n.step("Reshape", found, n.model.shape(y.shape)), n.number(0.0, "nothing"))


def write_average_pool_gradient(n: NodeWriter, op: pool.AveragePoolGradient) -> None:
    """The shares, spread by a ConvTranspose of each channel with ones, and cut to size.

    The numbers of cells are a Conv with ones over an image of ones, with zeros (or ones) for the padding.
    """
    channels, image, windows = check_image(n.node.inputs[0].type), op.size, n.node.inputs[0].type.shape[2:]
    (top, left, bottom, right), (sh, sw), one = op.padding, op.stride, n.number(1.0, "one")
    cells = n.step("Expand", one, n.model.shape((1, 1, *image)))
    pads = n.integers((0, 0, top, left, 0, 0, bottom, right), "pads")
    cells = n.step("Pad", cells, pads, *([one] if op.count_padding else []))
    cells = n.step("Pad", cells, n.integers((0, 0, 0, 0, 0, 0, sh - 1, sw - 1), "overhang"))  # of ceil_mode
    ones = n.model.constant(np.ones((1, 1, *op.kernel), n.dtype.numpy), f"{n.name}.ones")
    axes, start = n.integers((2, 3), "axes"), n.integers((0, 0), "start")
    window = {"kernel_shape": op.kernel, "strides": op.stride, "dilations": op.dilation}
    number = n.step("Conv", cells, ones, **window)
    share = n.step("Div", n.inputs[0], n.step("Slice", number, start, n.model.shape(windows), axes))
    ones = n.model.constant(np.ones((channels, 1, *op.kernel), n.dtype.numpy), f"{n.name}.window")
    spread = n.step("ConvTranspose", share, ones, pads=(top, left, 0, 0), output_padding=(sh - 1, sw - 1),
                    group=channels, **window)  # fmt: skip
    n.emit("Slice", spread, start, n.model.shape(image), axes)


def write_max_unpool(n: NodeWriter, op: pool.MaxUnpool) -> None:
    """MaxUnpool; where it takes H and W from a tensor, these sizes computed from the inputs' shapes."""
    size = [n.model.shape(n.node.outputs[0].type.shape)] if op.like else []
    n.emit("MaxUnpool", *n.inputs[:2], *size, kernel_shape=op.kernel, strides=op.stride, pads=op.padding)


def _write_resize(n: NodeWriter, op: UpsampleNearest | UpsampleBilinear, **attributes: Any) -> None:
    if op.size is not None:
        n.emit("Resize", n.inputs[0], "", "", n.model.shape(n.node.outputs[0].type.shape), **attributes)
    else:
        n.emit("Resize", n.inputs[0], "", _scales(n, 1, 1, *op.scale), **attributes)


def _scales(n: NodeWriter, *factors: int) -> str:
    return n.model.constant(np.array(factors, np.float32), f"{n.name}.scales")


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def write_upsample_nearest(n: NodeWriter, op: UpsampleNearest) -> None:
    """Resize: y[p] = x[floor(p*H/P)].

    Runtimes compute p/(P/H) in float32, which misses some whole numbers from below, such as 7 = 8/(16/14). An axis of
    constant H and P for which that is so is made exactly, with g = gcd(H, P): P/g times as long, then every (H/g)th.
    For a symbolic size nothing is done: whole factors and P = 2H-1 or 2H+1 are exact (H and P share no divisor), but a
    runtime may take the neighbour of the right pixel where H and P happen to be 14 and 16.
    """
    before, after = n.node.inputs[0].type.shape, n.node.outputs[0].type.shape
    missed = {i: (b, a) for i, (b, a) in enumerate(zip(before, after, strict=True))
              if isinstance(b, int) and isinstance(a, int) and _is_missed(b, a)}  # fmt: skip
    if op.size is None or not missed:
        return _write_resize(n, op, **NEAREST)
    x, other = n.inputs[0], tuple(before[i] if i in missed else a for i, a in enumerate(after))
    if other != before:
        x = n.step("Resize", x, "", "", n.model.shape(other), **NEAREST)
    factors = [a // gcd(b, a) for b, a in (missed.get(i, (1, 1)) for i in range(4))]
    x = n.step("Resize", x, "", _scales(n, *factors), **NEAREST)
    bounds = [n.integers((at,) * len(missed), "bounds") for at in (0, 2**63 - 1)]
    steps = tuple(b // gcd(b, a) for b, a in missed.values())
    return n.emit("Slice", x, *bounds, n.integers(tuple(missed), "axes"), n.integers(steps, "steps"))


def _is_missed(size: int, result: int) -> bool:
    place = np.arange(result, dtype=np.float32) / (np.float32(result) / np.float32(size))
    return bool(np.any(np.floor(place) != np.arange(result) * size // result))


def write_upsample_bilinear(n: NodeWriter, op: UpsampleBilinear) -> None:
    """Resize."""
    mode = "align_corners" if op.align_corners else "half_pixel"
    _write_resize(n, op, mode="linear", coordinate_transformation_mode=mode)


def write_bed_of_nails(n: NodeWriter, op: BedOfNails) -> None:
    """A transposed convolution of each channel with a single 1, and zeros up to a whole multiple."""
    channels = check_image(n.node.outputs[0].type)
    nail = n.model.constant(np.ones((channels, 1, 1, 1), n.dtype.numpy), f"{n.name}.nail")
    rest = tuple(s - 1 for s in op.scale)
    n.emit("ConvTranspose", n.inputs[0], nail, kernel_shape=(1, 1), strides=op.scale, output_padding=rest,
           group=channels)  # fmt: skip


EXPORTERS: dict[Any, Callable[[NodeWriter, Any], None]] = {
    pool.MaxPool: write_max_pool,
    pool.MaxPoolWithIndices: write_max_pool,
    pool.MinPool: write_min_pool,
    pool.AveragePool: write_average_pool,
    pool.L2Pool: write_l2_pool,
    pool.ChannelL2Pool: write_channel_l2_pool,
    pool.MaxPoolGradient: write_max_pool_gradient,
    pool.MaxPoolRoute: write_max_pool_route,
    pool.PickCells: write_pick_cells,
    pool.AveragePoolGradient: write_average_pool_gradient,
    pool.MaxUnpool: write_max_unpool,
    pool.GlobalAveragePool: lambda n, op: n.emit("GlobalAveragePool", *n.inputs),
    pool.GlobalMaxPool: lambda n, op: n.emit("GlobalMaxPool", *n.inputs),
    UpsampleNearest: write_upsample_nearest,
    UpsampleBilinear: write_upsample_bilinear,
    BedOfNails: write_bed_of_nails,
}
