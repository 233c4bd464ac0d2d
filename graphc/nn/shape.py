"""Layers that move or repeat elements: shape, order, parts and borders of a tensor, and its resolution."""

from collections.abc import Sequence

from graphc import ops
from graphc.ir import DimLike, Value
from graphc.nn.arguments import PairLike, apply, builder_of, pair


def expand(x: Value, shape: Sequence[DimLike], name: str | None = None) -> Value:
    """x repeated along its dims of 1, and along new ones before them: the shape that x and `shape` broadcast to."""
    return apply(ops.Expand(tuple(shape)), x, name=name)


def flatten(x: Value, axis: int = 1, name: str | None = None) -> Value:
    """x as a matrix: dims before `axis` become the first dim, the others the second."""
    return apply(ops.Flatten(axis), x, name=name)


def reshape(x: Value, shape: Sequence[DimLike], name: str | None = None) -> Value:
    """x's elements, in row-major order, under another shape; one dim may be -1: what the others leave."""
    return apply(ops.Reshape(tuple(shape)), x, name=name)


def transpose(x: Value, perm: Sequence[int], name: str | None = None) -> Value:
    """x with its dims in another order: dim i of the result is dim perm[i] of x."""
    return apply(ops.Transpose(tuple(perm)), x, name=name)


def concat(xs: Sequence[Value], axis: int = 1, name: str | None = None) -> Value:
    """Tensors of equal shape but for `axis`, one behind the other along it."""
    return apply(ops.Concat(axis), *xs, name=name)


def split(x: Value, sizes: Sequence[DimLike], axis: int = 1, name: str | None = None) -> tuple[Value, ...]:
    """x cut along `axis` into parts of these sizes, which add up to its length."""
    return builder_of(x).add(ops.Split(axis, tuple(sizes)), (x,), name)


def slice(
    x: Value,
    axes: Sequence[int],
    starts: Sequence[DimLike],
    ends: Sequence[DimLike],
    steps: Sequence[int] | None = None,
    name: str | None = None,
) -> Value:
    """x[start:end:step] along each of `axes`, by Python's rules; `steps` None means 1 everywhere."""
    steps = (1,) * len(axes) if steps is None else tuple(steps)
    return apply(ops.Slice(tuple(axes), tuple(starts), tuple(ends), steps), x, name=name)


def pad(x: Value, padding: Sequence[int], mode: str = "constant", value: float = 0.0, name: str | None = None) -> Value:
    """x with borders: `padding` holds what stands before each dim, then what stands behind each dim.

    `mode` is NumPy's: "constant" (of `value`), "reflect", "symmetric", "edge" or "wrap".
    """
    return apply(ops.Pad(tuple(padding), mode, value), x, name=name)


def upsample_nearest(
    x: Value, scale: PairLike = 2, size: tuple[DimLike, DimLike] | None = None, name: str | None = None
) -> Value:
    """x [N,C,H,W] to [N,C,P,Q], P = scale*H or as `size` says: y[p] = x[floor(p*H/P)]."""
    return apply(ops.UpsampleNearest(pair(scale), size), x, name=name)


def upsample_bilinear(
    x: Value,
    scale: PairLike = 2,
    size: tuple[DimLike, DimLike] | None = None,
    align_corners: bool = False,
    name: str | None = None,
) -> Value:
    """x [N,C,H,W] to [N,C,P,Q], P = scale*H or as `size` says, by linear interpolation in both directions.

    With `align_corners` the centres of the corner pixels coincide, else the edges of the images do.
    """
    return apply(ops.UpsampleBilinear(pair(scale), size, align_corners), x, name=name)


def bed_of_nails(x: Value, scale: PairLike = 2, name: str | None = None) -> Value:
    """x [N,C,H,W] to [N,C,scale*H,scale*W]: each element at the top left of a block of zeros."""
    return apply(ops.BedOfNails(pair(scale)), x, name=name)
