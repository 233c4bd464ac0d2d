"""Resize and Upsample. What networks mostly do, whole factors and bilinear interpolation of images, are ops of their
own; everything else goes axis by axis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import DimLike, Op, Value, dims
from graphc.onnx.import_ops.shapes import positive_axis
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Identity
from graphc.ops.interpolate import Interpolate
from graphc.ops.resize import UpsampleBilinear, UpsampleNearest

MOST_PARTS = 1000  # of a scale as a fraction: files hold scales such as 7/3 rounded to float32
_CENTRED = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")


@dataclass(frozen=True)
class Target:
    """What a dim becomes: the size, and the scale, None if it is the quotient of the sizes."""

    size: DimLike
    scale: Fraction | None = None

    def is_whole(self, d: DimLike) -> bool:
        """Whether the size is the scale times d, without rounding."""
        return self.scale is None or self.size * self.scale.denominator == d * self.scale.numerator


@dataclass(frozen=True)
class Manner:
    """How to interpolate: Resize's attributes; `crop` holds a start and an end for each dim."""

    mode: str = "nearest"
    coordinates: str = "asymmetric"
    rounding: str = "floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    crop: tuple[tuple[float, float], ...] = ()
    extrapolation: float = 0.0


def read_resize(n: NodeReader) -> None:
    """Resize of any tensor, by scales or to sizes that are constant or shape arithmetic."""
    if n.opset < 11:
        return read_upsample(n)
    x = n.value(0)
    rank = x.type.rank
    axes = tuple(positive_axis(a, rank) for a in n.integers("axes", range(rank)))
    coordinates = n.text("coordinate_transformation_mode", "half_pixel")
    crop = [(0.0, 1.0)] * rank
    if coordinates == "tf_crop_and_resize":
        bounds = [float(b) for b in n.numbers(1, "roi").reshape(-1)]
        if len(bounds) != 2 * len(axes):
            raise ShapeError(f"roi: expected {2 * len(axes)} numbers, got {len(bounds)}")
        for i, axis in enumerate(axes):
            crop[axis] = bounds[i], bounds[len(axes) + i]
    manner = Manner(
        n.text("mode", "nearest"),
        coordinates,
        n.text("nearest_mode", "round_prefer_floor"),
        n.real("cubic_coeff_a", -0.75),
        bool(n.integer("antialias", 0)),
        bool(n.integer("exclude_outside", 0)),
        tuple(crop),
        n.real("extrapolation_value", 0.0),
    )
    policy = n.text("keep_aspect_ratio_policy", "stretch")
    if n.has_input(2) and n.has_input(3) and n.numbers(2, "scales").size:  # exporters give empty scales beside sizes
        raise ShapeError("expected scales or sizes, got both")
    if n.has_input(3):
        found = _read_sizes(x, axes, n.dims(3, "sizes"), policy)
    else:
        found = _read_scales(x, axes, [float(s) for s in n.numbers(2, "scales").reshape(-1)])
    return emit_resize(n, x, found, manner)


def read_upsample(n: NodeReader) -> None:
    """Upsample, and the Resize of opset 10: by factors from the corner, an attribute before opset 9, then an input."""
    x, mode = n.value(0), n.text("mode", "nearest")
    factors = list(n.reals("scales")) if n.opset < 9 else [float(s) for s in n.numbers(1, "scales").reshape(-1)]
    emit_resize(
        n, x, _read_scales(x, tuple(range(x.type.rank)), factors), Manner(mode, crop=((0.0, 1.0),) * x.type.rank)
    )


def emit_resize(n: NodeReader, x: Value, targets: Sequence[Target], manner: Manner) -> None:
    """One op for an image where there is one, else one for each axis that changes, the last axis first."""
    shape = x.type.shape
    known = _choose(x, targets, manner)
    if known is not None:
        return n.emit(known, x)
    changed = [
        axis
        for axis, (d, target) in enumerate(zip(shape, targets, strict=True))
        if target.size != d or target.scale not in (None, 1) or manner.crop[axis] != (0.0, 1.0)
    ]
    for axis in reversed(changed):
        whole = targets[axis].is_whole(shape[axis])
        scale = targets[axis].scale
        op = Interpolate(
            axis,
            targets[axis].size,
            "linear" if manner.mode == "bilinear" else manner.mode,
            manner.coordinates,
            None if whole or scale is None else float(scale),
            manner.rounding,
            manner.cubic,
            manner.antialias,
            manner.exclude_outside,
            manner.crop[axis],
            manner.extrapolation,
        )
        if axis == changed[0]:
            return n.emit(op, x)
        x = n.step(op, x)
    return n.emit(Identity(), x)


def _choose(x: Value, targets: Sequence[Target], manner: Manner) -> Op | None:
    """The op that resizes an image so, None if there is none."""
    shape = x.type.shape
    whole = all(t.is_whole(d) for t, d in zip(targets, shape, strict=True))
    unchanged = [t.size == d for t, d in zip(targets, shape, strict=True)]
    if len(shape) != 4 or not all(unchanged[:2]) or all(unchanged) or not whole:
        return None
    if manner.antialias or manner.exclude_outside:
        return None
    factors = [_factor(d, t.size) for d, t in zip(shape[2:], targets[2:], strict=True)]
    by_factors = min(factors) > 0
    scale, size = (factors[0], factors[1]), None if by_factors else (targets[2].size, targets[3].size)
    if manner.mode == "nearest":
        # from pixel centres, every p of a whole factor s has its source nearest at floor(p/s): the offset
        # ((p mod s) + 1/2)/s - 1/2 is less than 1/2 either way
        centred = manner.coordinates in _CENTRED and manner.rounding.startswith("round") and by_factors
        if not centred and (manner.coordinates, manner.rounding) != ("asymmetric", "floor"):
            return None
        return UpsampleNearest(scale) if size is None else UpsampleNearest(size=size)
    aligned = manner.coordinates == "align_corners"
    # of half_pixel_symmetric and whole sizes nothing is moved; a size of 1 sets pytorch_half_pixel apart
    centred = manner.coordinates in _CENTRED and (manner.coordinates != "pytorch_half_pixel" or by_factors)
    if manner.mode not in ("linear", "bilinear") or not (aligned or centred):
        return None
    if size is None:
        return UpsampleBilinear(scale, align_corners=aligned)
    return UpsampleBilinear(size=size, align_corners=aligned)


def _factor(d: DimLike, size: DimLike) -> int:
    """The whole number that size is of d, else 0."""
    factor = size // d
    return factor if isinstance(factor, int) and factor * d == size else 0


def _read_sizes(x: Value, axes: Sequence[int], sizes: Sequence[DimLike], policy: str) -> list[Target]:
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise ShapeError(f"keep_aspect_ratio_policy: expected stretch, not_larger or not_smaller, got {policy}")
    _check_count("sizes", sizes, axes)
    targets = [Target(d) for d in x.type.shape]
    for axis, size in zip(axes, sizes, strict=True):
        targets[axis] = Target(size)
    if policy == "stretch":
        return targets
    before = [d for d in (x.type.shape[a] for a in axes) if isinstance(d, int)]
    wanted = [d for d in sizes if isinstance(d, int)]
    if len(before) != len(axes) or len(wanted) != len(axes):
        raise UnsupportedError(f"keep_aspect_ratio_policy={policy} with sizes that depend on the inputs")
    ratios = [Fraction(size, d) for size, d in zip(wanted, before, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    for axis, d in zip(axes, before, strict=True):
        targets[axis] = Target(int(scale * d + Fraction(1, 2)), scale)
    return targets


def _read_scales(x: Value, axes: Sequence[int], scales: Sequence[float]) -> list[Target]:
    _check_count("scales", scales, axes)
    targets = [Target(d) for d in x.type.shape]
    for axis, factor in zip(axes, scales, strict=True):
        if not 0 < factor < np.inf:
            raise ShapeError(f"scales: expected positive numbers, got {list(scales)}")
        scale = _as_fraction(factor)
        targets[axis] = Target(dims.floor_div(x.type.shape[axis] * scale.numerator, scale.denominator), scale)
    return targets


def _as_fraction(factor: float) -> Fraction:
    """The fraction of small numbers that was rounded to this float32, or else the float32 itself."""
    simple = Fraction(factor).limit_denominator(MOST_PARTS)
    return simple if np.float32(simple) == np.float32(factor) else Fraction(factor)


def _check_count(what: str, values: Sequence[object], axes: Sequence[int]) -> None:
    if len(values) != len(axes):
        raise ShapeError(f"{what}: expected {len(axes)} values, got {list(values)}")


HANDLERS: dict[str, Callable[[NodeReader], None]] = {"Resize": read_resize, "Upsample": read_upsample}
