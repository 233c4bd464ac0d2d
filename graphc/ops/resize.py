"""Changes of an image's resolution: nearest neighbour, bilinear, bed of nails. x [N,C,H,W] -> y [N,C,P,Q]."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, DimLike, Op, TensorType, Value, dims
from graphc.ops.checks import check_image, check_inputs, check_integers
from graphc.ops.derive import identity_matrix, reshape, transpose_map
from graphc.ops.shape import FAR
from graphc.ops.window import Pair


def scale_image(types: tuple[TensorType, ...], scale: Pair) -> TensorType:
    """[N,C,scale*H,scale*W] for the single input [N,C,H,W]."""
    (x,) = check_inputs(types, 1)
    check_image(x)
    check_integers("scale", scale, 2, 1)
    return x.with_shape(*x.shape[:2], x.shape[2] * scale[0], x.shape[3] * scale[1])


@dataclass(frozen=True)
class Resize(Op):
    """Base of the ops whose result has `scale` times x's height and width or, if given, the height and width `size`."""

    scale: Pair = (2, 2)
    size: tuple[DimLike, DimLike] | None = None

    def infer(self, *types: TensorType) -> TensorType:
        scaled = scale_image(types, self.scale)
        if self.size is None:
            return scaled
        if len(self.size) != 2 or any(isinstance(d, int) and d < 1 for d in self.size):
            raise ShapeError(f"size must be 2 positive dims, got {self.size}")
        return scaled.with_shape(*scaled.shape[:2], *self.size)

    def result_size(self, x: Array) -> list[int]:
        """P and Q for an array."""
        if self.size is None:
            return [d * s for d, s in zip(x.shape[2:], self.scale, strict=True)]
        return [dims.evaluate(d, {}) for d in self.size]

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """Rows and columns are combined by a matrix each, which is what the op makes of the identity."""
        (x,), (g,) = inputs, grads
        for axis in (2, 3):
            before, after = x.type.shape[axis], outputs[0].type.shape[axis]
            if before != after:
                lines = reshape(b, identity_matrix(b, before, x.type.dtype), (1, 1, before, before))
                matrix = b.apply(replace(self, size=(before, after)), lines)
                g = transpose_map(b, reshape(b, matrix, (before, after)), g, axis)
        return [g]


@dataclass(frozen=True)
class UpsampleNearest(Resize):
    """y[n,c,p,q] = x[n, c, floor(p*H/P), floor(q*W/Q)]."""

    name: ClassVar[str] = "upsample_nearest"

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        rows, columns = (np.arange(p) * h // p for p, h in zip(self.result_size(x), x.shape[2:], strict=True))
        return np.asarray(x[:, :, rows[:, None], columns])

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """By whole factors, the sum of the pixels that each has become."""
        if self.size is not None:
            return super().vjp(b, inputs, outputs, grads)
        n, c, h, w = inputs[0].type.shape
        blocks = reshape(b, grads[0], (n, c, h, self.scale[0], w, self.scale[1]))
        return [b.apply(ops.Sum((3, 5), keepdims=False), blocks)]


@dataclass(frozen=True)
class UpsampleBilinear(Resize):
    """y[p] = (1-t)*x[i] + t*x[min(i+1, H-1)] along both directions, where i + t, 0 <= t < 1, is the place of p in x.

    That place is (p + 1/2)*H/P - 1/2, at least 0 (the edges of the images coincide), or with `align_corners`
    p*(H-1)/(P-1) (the centres of the corner pixels do). It is a quotient of integers, so i is exact and t rounded once.
    """

    name: ClassVar[str] = "upsample_bilinear"
    align_corners: bool = False

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        for axis, p in zip((2, 3), self.result_size(x), strict=True):
            h = x.shape[axis]
            place, unit = np.arange(p) * (h - 1), max(p - 1, 1)
            if not self.align_corners:
                place, unit = np.maximum((2 * np.arange(p) + 1) * h - p, 0), 2 * p
            t = (place % unit / unit).astype(x.dtype).reshape(-1, *[1] * (3 - axis))
            low, high = place // unit, np.minimum(place // unit + 1, h - 1)
            x = x.take(low, axis) * (1 - t) + x.take(high, axis) * t
        return x


@dataclass(frozen=True)
class BedOfNails(Op):
    """y[n,c,p*scale,q*scale] = x[n,c,p,q], zero elsewhere: the transpose of taking every scale-th pixel."""

    name: ClassVar[str] = "bed_of_nails"
    scale: Pair = (2, 2)

    def infer(self, *types: TensorType) -> TensorType:
        return scale_image(types, self.scale)

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        n, c, h, w = x.shape
        y = np.zeros((n, c, h * self.scale[0], w * self.scale[1]), x.dtype)
        y[:, :, :: self.scale[0], :: self.scale[1]] = x
        return y

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [b.apply(ops.Slice((2, 3), (0, 0), (FAR, FAR), self.scale), grads[0])]
