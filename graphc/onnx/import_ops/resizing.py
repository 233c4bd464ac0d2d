"""Resize: of its many modes, those that double an image as networks do."""

from collections.abc import Callable
from typing import TypeVar

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import DimLike, Op, Value
from graphc.onnx.reader import NodeReader
from graphc.ops.resize import UpsampleBilinear, UpsampleNearest
from graphc.ops.window import Pair

T = TypeVar("T")
Size = tuple[DimLike, DimLike]
Target = tuple[Pair | None, Size | None]  # the scale, or else the size
_CENTRED = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")


def read_resize(n: NodeReader) -> None:
    """Resize -> upsample_nearest or upsample_bilinear; a whole factor is a scale, everything else a size."""
    if n.opset < 11:
        return read_upsample(n)
    x = n.image()
    mode, coordinates = n.text("mode", "nearest"), n.text("coordinate_transformation_mode", "half_pixel")
    rounding = n.text("nearest_mode", "round_prefer_floor")
    n.real("cubic_coeff_a", -0.75)  # read by mode=cubic alone
    n.real("extrapolation_value", 0.0)  # read by coordinate_transformation_mode=tf_crop_and_resize alone
    for name in ("antialias", "exclude_outside"):
        n.expect(name, 0)
    policy = n.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise UnsupportedError(f"keep_aspect_ratio_policy={policy}; only stretch is supported")
    axes = tuple(a + 4 if a < 0 else a for a in n.integers("axes", (0, 1, 2, 3)))
    if n.has_input(3):
        scale, size = _read_size(x, axes, n.dims(3, "sizes"))
    else:
        scale, size = _read_scale(x, axes, [float(s) for s in n.numbers(2, "scales").reshape(-1)])
    return n.emit(_choose(mode, coordinates, rounding, scale, size), x)


def read_upsample(n: NodeReader) -> None:
    """Upsample, and the Resize of opset 10: by factors from the corner, an attribute before opset 9, then an input."""
    x, mode = n.image(), n.text("mode", "nearest")
    factors = list(n.reals("scales")) if n.opset < 9 else [float(s) for s in n.numbers(1, "scales").reshape(-1)]
    n.emit(_choose(mode, "asymmetric", "floor", *_read_scale(x, (0, 1, 2, 3), factors)), x)


def _choose(mode: str, coordinates: str, rounding: str, scale: Pair | None, size: Size | None) -> Op:
    what = f"mode={mode} with coordinate_transformation_mode={coordinates}"
    if mode == "nearest":
        # from pixel centres, every p of a whole factor s has its source nearest at floor(p/s): the offset
        # ((p mod s) + 1/2)/s - 1/2 is less than 1/2 either way
        centred = coordinates in _CENTRED and rounding.startswith("round") and scale is not None
        if not centred and (coordinates, rounding) != ("asymmetric", "floor"):
            raise UnsupportedError(f"{what} and nearest_mode={rounding}; only asymmetric and floor are supported")
        return UpsampleNearest(scale or (1, 1)) if size is None else UpsampleNearest(size=size)
    aligned = coordinates == "align_corners"
    centred = coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and scale is not None)
    if mode != "linear" or not (aligned or centred):
        raise UnsupportedError(f"{what}; only nearest, or linear with half_pixel or align_corners, is supported")
    if size is None:
        return UpsampleBilinear(scale or (1, 1), align_corners=aligned)
    return UpsampleBilinear(size=size, align_corners=aligned)


def _read_size(x: Value, axes: tuple[int, ...], sizes: list[DimLike]) -> Target:
    target = _spread(axes, sizes, list(x.type.shape), "sizes")
    if target[:2] != list(x.type.shape[:2]):
        raise UnsupportedError(f"sizes {target} resize N or C of {x.type}")
    factors = []
    for size, wanted in zip(x.type.shape[2:], target[2:], strict=True):
        factor = wanted // size
        factors.append(factor if isinstance(factor, int) and factor * size == wanted else 0)
    return ((factors[0], factors[1]), None) if all(f > 0 for f in factors) else (None, (target[2], target[3]))


def _read_scale(x: Value, axes: tuple[int, ...], scales: list[float]) -> Target:
    factors = _spread(axes, scales, [1.0] * 4, "scales")
    if factors[:2] != [1, 1]:
        raise UnsupportedError(f"scales {factors} resize N or C")
    if all(f >= 1 and f.is_integer() for f in factors[2:]):
        return (int(factors[2]), int(factors[3])), None
    target = []
    for size, factor in zip(x.type.shape[2:], factors[2:], strict=True):
        # the scale is a float32; a size that it misses by less than 1/1000 is what it was computed from
        wanted = round(factor * size) if isinstance(size, int) else 0
        if not isinstance(size, int) or wanted < 1 or abs(factor * size - wanted) > 1e-3:
            raise UnsupportedError(f"scales {factors} are not whole numbers and give {x.type} no whole size")
        target.append(wanted)
    return None, (target[0], target[1])


def _spread(axes: tuple[int, ...], values: list[T], rest: list[T], what: str) -> list[T]:
    if len(values) != len(axes) or not set(axes) <= {0, 1, 2, 3}:
        raise ShapeError(f"{what}: expected {len(axes)} values, got {values}")
    result = list(rest)
    for axis, value in zip(axes, values, strict=True):
        result[axis] = value
    return result


HANDLERS: dict[str, Callable[[NodeReader], None]] = {"Resize": read_resize, "Upsample": read_upsample}
