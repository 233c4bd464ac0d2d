"""Layers that choose elements by indices, order them, or read images between their pixels."""

from graphc import ops
from graphc.ir import DimLike, Value
from graphc.nn.arguments import PairLike, apply, builder_of, pair


def positions(x: Value, axis: int = -1, name: str | None = None) -> Value:
    """0, 1, 2, ... as i64, as many as dim `axis` of x is long."""
    return apply(ops.Positions(axis), x, name=name)


def gather(x: Value, indices: Value, axis: int = 0, name: str | None = None) -> Value:
    """The parts of x at `indices` along `axis`: that dim gives way to the dims of the indices."""
    return apply(ops.Gather(axis), x, indices, name=name)


def gather_elements(x: Value, indices: Value, axis: int = 0, name: str | None = None) -> Value:
    """y[i,j,k] = x[i,indices[i,j,k],k] for axis=1, and so on."""
    return apply(ops.GatherElements(axis), x, indices, name=name)


def gather_nd(x: Value, indices: Value, batch_dims: int = 0, name: str | None = None) -> Value:
    """The part of x at the place that each row of the indices names, behind `batch_dims` dims that both have."""
    return apply(ops.GatherND(batch_dims), x, indices, name=name)


def scatter_elements(
    x: Value, indices: Value, updates: Value, axis: int = 0, reduction: str = "none", name: str | None = None
) -> Value:
    """x with updates[i,j,k] at [i,indices[i,j,k],k] for axis=1, and so on; or added, multiplied, the max or min."""
    return apply(ops.ScatterElements(reduction, axis), x, indices, updates, name=name)


def scatter_nd(x: Value, indices: Value, updates: Value, reduction: str = "none", name: str | None = None) -> Value:
    """x with one part of the updates at the place that each row of the indices names."""
    return apply(ops.ScatterND(reduction), x, indices, updates, name=name)


def top_k(x: Value, k: int, axis: int = -1, largest: bool = True, name: str | None = None) -> tuple[Value, Value]:
    """The k largest (else smallest) elements along `axis` in order, and where they were."""
    values, indices = builder_of(x).add(ops.TopK(k, axis, largest), (x,), name)
    return values, indices


def cum_sum(x: Value, axis: int, exclusive: bool = False, reverse: bool = False, name: str | None = None) -> Value:
    """x[0] + ... + x[i] along `axis`; without x[i] if `exclusive`, from the end if `reverse`."""
    return apply(ops.CumSum(axis, exclusive, reverse), x, name=name)


def interpolate(
    x: Value,
    axis: int,
    size: DimLike,
    mode: str = "linear",
    coordinates: str = "half_pixel",
    antialias: bool = False,
    name: str | None = None,
) -> Value:
    """x with `size` elements along `axis`, by "nearest", "linear" or "cubic" interpolation."""
    return apply(ops.Interpolate(axis, size, mode, coordinates, antialias=antialias), x, name=name)


def grid_sample(
    x: Value,
    grid: Value,
    mode: str = "linear",
    padding: str = "zeros",
    align_corners: bool = False,
    name: str | None = None,
) -> Value:
    """x [N,C,H,W] read at the places, from -1 to 1 in x and y, of grid [N,P,Q,2]."""
    return apply(ops.GridSample(mode, padding, align_corners), x, grid, name=name)


def roi_align(
    x: Value,
    boxes: Value,
    images: Value,
    size: PairLike,
    samples: int = 2,
    scale: float = 1.0,
    half_pixel: bool = True,
    mode: str = "avg",
    name: str | None = None,
) -> Value:
    """Boxes [R,4] (x1, y1, x2, y2) of the images [R] of x, each pooled to `size` cells of samples*samples places."""
    return apply(ops.RoiAlign(pair(size), samples, scale, half_pixel, mode), x, boxes, images, name=name)
