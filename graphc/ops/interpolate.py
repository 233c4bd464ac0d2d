"""Changes of resolution along one axis, in all the ways that ONNX's Resize has. Two of them in turn resize an image."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DimLike, Op, TensorType, dims
from graphc.ops.checks import check_inputs
from graphc.ops.sample import cubic_weight
from graphc.ops.shape import check_axis

COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn", "align_corners", "asymmetric",
    "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
REACH = {"linear": 1, "cubic": 2}  # pixels on each side that a place is interpolated from


@dataclass(frozen=True)
class Interpolate(Op):
    """x with `size` elements along `axis`: each the sum of weight * element over those around its place in x.

    `scale` is size/d for a dim of d elements, or as given where size was rounded. The place of element p:

        half_pixel            (p + 1/2)/scale - 1/2: the edges of the images coincide
        half_pixel_symmetric  the same, moved so that the centres coincide where size is not scale*d
        pytorch_half_pixel    the same as half_pixel, but 0 for a size of 1
        tf_half_pixel_for_nn  (p + 1/2)/scale
        align_corners         p*(d - 1)/(scale*d - 1): the centres of the first and last elements coincide
        asymmetric            p/scale
        tf_crop_and_resize    as align_corners, from `crop[0]` to `crop[1]` (0 to 1: all of x); places outside of x
                              give `extrapolation`

    `mode` "nearest" takes the element that `rounding` gives, "linear" weights 2 by their distance and "cubic" 4 by the
    cubic convolution kernel with parameter `cubic` (Keys 1981). With `antialias`, a scale below 1 widens the kernel by
    1/scale, and the weights are divided by their sum. What lies outside x repeats its first or last element, or with
    `exclude_outside` counts nothing.
    """

    name: ClassVar[str] = "interpolate"
    axis: int
    size: DimLike
    mode: str = "linear"
    coordinates: str = "half_pixel"
    scale: float | None = None
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    crop: tuple[float, float] = (0.0, 1.0)
    extrapolation: float = 0.0

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        axis = check_axis(self.axis, x)
        if not x.dtype.is_float:
            raise ShapeError(f"expected float elements, got {x}")
        for what, got, known in (
            ("mode", self.mode, ("nearest", *REACH)),
            ("coordinates", self.coordinates, COORDINATES),
            ("rounding", self.rounding, ROUNDINGS),
        ):
            if got not in known:
                raise ShapeError(f"{what} must be one of {', '.join(known)}, got {got!r}")
        if (isinstance(self.size, int) and self.size < 1) or (self.scale is not None and not self.scale > 0):
            raise ShapeError(f"size and scale must be positive, got {self.size} and {self.scale}")
        self.taps(x.shape[axis])
        return x.with_shape(*x.shape[:axis], self.size, *x.shape[axis + 1 :])

    def shrink(self, d: DimLike) -> float:
        """The factor by which distances shrink under the kernel: the scale where that is below 1, with `antialias`."""
        if not self.antialias or self.mode == "nearest":
            return 1.0
        if self.scale is not None:
            return min(self.scale, 1.0)
        if not isinstance(d, int) or not isinstance(self.size, int):
            raise ShapeError(f"antialias wants a scale, or constant sizes, got {d} and {self.size}")
        return min(self.size / d, 1.0)

    def taps(self, d: DimLike) -> range:
        """The elements that have a weight, counted from floor(place)."""
        if self.mode == "nearest":
            return range(1)
        behind = ceil(REACH[self.mode] / self.shrink(d))
        return range(1 - behind, behind + 1)

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        axis, d, size = self.axis % x.ndim, x.shape[self.axis], dims.evaluate(self.size, {})
        place = self._places(d, size)
        if self.mode == "nearest":
            first, weights = round_places(self.rounding, place).astype(np.int64), np.ones((size, 1))
        else:
            first = np.floor(place).astype(np.int64)
            weights = self._weights(place - first, first, d)
        column = (size, *[1] * (x.ndim - 1 - axis))
        y = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
        for i, tap in enumerate(self.taps(d)):
            y += x.take(np.clip(first + tap, 0, d - 1), axis) * weights[:, i].reshape(column).astype(x.dtype)
        if self.coordinates == "tf_crop_and_resize":
            y = np.where(((place < 0) | (place > d - 1)).reshape(column), x.dtype.type(self.extrapolation), y)
        return y

    def _weights(self, t: Array, first: Array, d: int) -> Array:
        """The weight of each tap for places t behind the elements `first`: [P,taps]."""
        taps = np.array(self.taps(d))
        distance = np.abs(taps - t[:, None]) * self.shrink(d)
        weights = np.maximum(1 - distance, 0) if self.mode == "linear" else cubic_weight(distance, self.cubic)
        if self.exclude_outside:
            index = first[:, None] + taps
            weights = np.where((index >= 0) & (index < d), weights, 0)
        if not self.antialias and not self.exclude_outside:
            return weights
        with np.errstate(invalid="ignore"):  # 0/0 far outside of x, where `extrapolation` is the result
            return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def _places(self, d: int, size: int) -> Array:
        """The place in x of each element of the result, in float64."""
        p = np.arange(size, dtype=np.float64)
        length = size if self.scale is None else self.scale * d  # of the result before it was rounded
        centre = (p + 0.5) * d / length
        match self.coordinates:
            case "half_pixel_symmetric":
                return centre - 0.5 + d / 2 * (1 - size / length)
            case "pytorch_half_pixel" if size == 1:
                return np.zeros(1)
            case "tf_half_pixel_for_nn":
                return centre
            case "align_corners":
                return p * (d - 1) / (length - 1) if length != 1 else np.zeros(size)
            case "asymmetric":
                return p * d / length
            case "tf_crop_and_resize":
                start, end = self.crop
                step = p * (d - 1) / (length - 1) if length != 1 else np.full(size, (d - 1) / 2)
                return step * (end - start) + start * (d - 1)
        return centre - 0.5


def round_places(rounding: str, place: Array) -> Array:
    """The whole number in front of each place, behind it, or the nearest one."""
    match rounding:
        case "floor":
            return np.floor(place)
        case "ceil":
            return np.ceil(place)
        case "round_prefer_ceil":
            return np.floor(place + 0.5)
    return np.ceil(place - 0.5)
