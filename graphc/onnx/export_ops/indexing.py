"""Ops that choose elements by indices, and images read between their pixels."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir import DType
from graphc.onnx.writer import NodeWriter
from graphc.ops.index import Gather, GatherElements, GatherND, Positions, ScatterElements, ScatterND
from graphc.ops.interpolate import Interpolate
from graphc.ops.order import CumSum, TopK
from graphc.ops.sample import GridSample, RoiAlign


def _require(n: NodeWriter, opset: int, what: str) -> None:
    if n.opset < opset:
        raise UnsupportedError(f"{what} needs opset {opset}, got {n.opset}")


def write_positions(n: NodeWriter, op: Positions) -> None:
    """Range up to the size, which may be computed in the run."""
    _require(n, 11, "Range")
    size = n.step("Reshape", n.model.shape(n.node.outputs[0].type.shape), n.integers((), "scalar"))
    n.emit("Range", n.number(0, "start", DType.I64), size, n.number(1, "step", DType.I64))


def write_gather_nd(n: NodeWriter, op: GatherND) -> None:
    """GatherND; it wants int64."""
    _require(n, 12, "GatherND with batch_dims")
    n.emit("GatherND", n.inputs[0], _as_i64(n, 1), batch_dims=op.batch_dims)


def _as_i64(n: NodeWriter, i: int) -> str:
    """Input i as int64."""
    if n.node.inputs[i].type.dtype == DType.I64:
        return n.inputs[i]
    return n.step("Cast", n.inputs[i], to=7)


def _reduction(n: NodeWriter, op: ScatterElements | ScatterND) -> dict[str, Any]:
    """The attribute, which "add" and "mul" have since opset 16, "max" and "min" since 18."""
    if op.reduction == "none":
        _require(n, 11, "a scatter")
        return {}
    _require(n, 18 if op.reduction in ("max", "min") else 16, f"reduction={op.reduction}")
    return {"reduction": op.reduction}


def write_scatter_elements(n: NodeWriter, op: ScatterElements) -> None:
    """ScatterElements."""
    n.emit("ScatterElements", *n.inputs, axis=op.axis, **_reduction(n, op))


def write_scatter_nd(n: NodeWriter, op: ScatterND) -> None:
    """ScatterND; it wants int64."""
    n.emit("ScatterND", n.inputs[0], _as_i64(n, 1), n.inputs[2], **_reduction(n, op))


def write_top_k(n: NodeWriter, op: TopK) -> None:
    """TopK, whose `largest` came with opset 11."""
    _require(n, 11, "TopK")
    n.emit("TopK", n.inputs[0], n.integers((op.k,), "k"), axis=op.axis, largest=int(op.largest), sorted=1)


def write_cum_sum(n: NodeWriter, op: CumSum) -> None:
    """CumSum."""
    _require(n, 11, "CumSum")
    axis = n.number(op.axis, "axis", DType.I64)
    n.emit("CumSum", n.inputs[0], axis, exclusive=int(op.exclusive), reverse=int(op.reverse))


def write_interpolate(n: NodeWriter, op: Interpolate) -> None:
    """Resize with sizes, or with a scale that gives the size once rounded down, as ONNX has it."""
    _require(n, 18 if op.antialias else 11, "Resize with antialias" if op.antialias else "Resize")
    x = n.node.inputs[0].type
    axis = op.axis % x.rank
    attributes: dict[str, Any] = {"mode": op.mode, "coordinate_transformation_mode": op.coordinates}
    if op.coordinates == "half_pixel_symmetric":
        _require(n, 19, "half_pixel_symmetric")
    if op.mode == "nearest":
        attributes["nearest_mode"] = op.rounding
    if op.mode == "cubic":
        attributes["cubic_coeff_a"] = op.cubic
    if op.antialias:
        attributes["antialias"] = 1
    if op.exclude_outside:
        attributes["exclude_outside"] = 1
    roi = ""
    if op.coordinates == "tf_crop_and_resize":
        bounds = np.repeat([0.0, 1.0], x.rank).astype(np.float32)
        bounds[axis], bounds[x.rank + axis] = op.crop
        roi = n.model.constant(bounds, f"{n.name}.roi")
        attributes["extrapolation_value"] = op.extrapolation
    if op.scale is None:
        return n.emit("Resize", n.inputs[0], roi, "", n.model.shape(n.node.outputs[0].type.shape), **attributes)
    scale = Fraction(op.scale).limit_denominator(1 << 20)
    if x.shape[axis] * scale.numerator // scale.denominator != op.size:
        raise UnsupportedError(f"a size of {op.size} for {x.shape[axis]} elements and scale={op.scale}")
    scales = np.ones(x.rank, np.float32)
    scales[axis] = op.scale
    return n.emit("Resize", n.inputs[0], roi, n.model.constant(scales, f"{n.name}.scales"), **attributes)


def write_grid_sample(n: NodeWriter, op: GridSample) -> None:
    """GridSample of images; opset 20 has other names for two modes, and other ranks."""
    _require(n, 16 if n.node.inputs[0].type.rank == 4 else 20, "GridSample of this rank")
    old = {"linear": "bilinear", "cubic": "bicubic"} if n.opset < 20 else {}
    mode = old.get(op.mode, op.mode)
    n.emit("GridSample", *n.inputs, mode=mode, padding_mode=op.padding, align_corners=int(op.align_corners))


def write_roi_align(n: NodeWriter, op: RoiAlign) -> None:
    """RoiAlign; before opset 16 without half_pixel."""
    _require(n, 16 if op.half_pixel else 10, "RoiAlign")
    named = {True: "half_pixel", False: "output_half_pixel"}[op.half_pixel]
    coordinates = {"coordinate_transformation_mode": named} if n.opset >= 16 else {}
    n.emit(
        "RoiAlign",
        *n.inputs[:2],
        _as_i64(n, 2),
        output_height=op.size[0],
        output_width=op.size[1],
        sampling_ratio=op.samples,
        spatial_scale=op.scale,
        mode=op.mode,
        **coordinates,
    )


def write_gather_elements(n: NodeWriter, op: GatherElements) -> None:
    """GatherElements."""
    _require(n, 11, "GatherElements")
    n.emit("GatherElements", *n.inputs, axis=op.axis)


EXPORTERS: dict[Any, Callable[[NodeWriter, Any], None]] = {
    Positions: write_positions,
    Gather: lambda n, op: n.emit("Gather", *n.inputs, axis=op.axis),
    GatherElements: write_gather_elements,
    GatherND: write_gather_nd,
    ScatterElements: write_scatter_elements,
    ScatterND: write_scatter_nd,
    TopK: write_top_k,
    CumSum: write_cum_sum,
    Interpolate: write_interpolate,
    GridSample: write_grid_sample,
    RoiAlign: write_roi_align,
}
