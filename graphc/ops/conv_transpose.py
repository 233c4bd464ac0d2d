"""The transposed convolution: the gradient of a convolution with respect to its input, as a layer that upsamples."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, DimLike, TensorType, Value, dims
from graphc.ops.checks import check_image, check_integers
from graphc.ops.epilogue import apply_epilogue, check_epilogue
from graphc.ops.weighted import WeightedOp
from graphc.ops.window import Padding, Pair, Window


@dataclass(frozen=True)
class ConvTranspose2d(WeightedOp):
    """x[n,c,i,j] * w[c,k,r,s] is added to y[n, k, i*stride+r*dilation-pad, j*...], for all c,i,j,r,s; plus b[k].

    x [N,C,H,W], w [C,K/groups,R,S], b [K] (present if `bias`), y [N,K,P,Q] with
    P = (H-1)*stride + dilation*(R-1) + 1 - pads + output_padding. `output_padding` adds rows at the bottom and columns
    at the right, to which further taps may still add (PyTorch's and ONNX's rule). `epilogue` as in conv2d.

    If given, `size` is P and Q: an image over which a conv2d with these attributes has HxW windows. So the gradient of
    a convolution has the size of its input, also where a stride leaves a remainder that depends on that size.
    """

    name: ClassVar[str] = "conv_transpose2d"
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    output_padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    epilogue: str | None = None
    size: tuple[DimLike, DimLike] | None = None

    def turned(self, kernel: Pair) -> "ops.Conv2d | None":
        """At stride 1, the convolution with the turned filter that computes the same; None if it would have to crop."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        top, left, bottom, right = (reach[i % 2] - self.padding[i] for i in range(4))
        padding = top, left, bottom + self.output_padding[0], right + self.output_padding[1]
        if self.stride != (1, 1) or min(padding) < 0:
            return None
        return ops.Conv2d((1, 1), padding, self.dilation, self.groups, self.bias, self.epilogue)

    def infer(self, *types: TensorType) -> TensorType:
        self.check_count(types)
        x, w = types[:2]
        check_image(x)
        if w.rank != 4 or w.dtype != x.dtype:
            raise ShapeError(f"weight must be {x.dtype.value}[C,K,R,S], got {w}")
        c, k_group, r, s = w.static_shape()
        if self.groups < 1 or c % self.groups:
            raise ShapeError(f"{c} input channels do not divide into {self.groups} groups")
        if x.shape[1] != c:
            raise ShapeError(f"weight {w} wants {c} input channels, x {x} has {x.shape[1]}")
        k = k_group * self.groups
        if self.bias and types[2] != x.with_shape(k):
            raise ShapeError(f"bias must be {x.with_shape(k)}, got {types[2]}")
        window = Window((r, s), self.stride, self.padding, self.dilation)
        check_integers("output_padding", self.output_padding, 2, 0)
        if self.size is not None:
            if self.output_padding != (0, 0):
                raise ShapeError(f"expected a size or an output_padding, got {self.size} and {self.output_padding}")
            count = window.positions(*self.size)
            if not all(map(dims.same, count, x.shape[2:])):
                raise ShapeError(f"size {self.size} has {count[0]}x{count[1]} windows, x is {x}")
            return check_epilogue(self.epilogue, x.with_shape(x.shape[0], k, *self.size), types[2 + self.bias :])
        for more, stride, dilation in zip(self.output_padding, self.stride, self.dilation, strict=True):
            if more >= max(stride, dilation):
                raise ShapeError(
                    f"output_padding must be less than the stride or dilation, {max(stride, dilation)}, "
                    f"got {self.output_padding}"
                )
        p, q = (self._count(axis, x.shape[2 + axis], window.extent[axis]) for axis in (0, 1))
        return check_epilogue(self.epilogue, x.with_shape(x.shape[0], k, p, q), types[2 + self.bias :])

    def _count(self, axis: int, size: DimLike, extent: int) -> DimLike:
        before, after = self.padding[axis], self.padding[axis + 2]
        count = (size - 1) * self.stride[axis] + (extent - before - after + self.output_padding[axis])
        if isinstance(count, int) and count < 1:
            raise ShapeError(f"padding {before}+{after} leaves nothing of size {size} under a window of {extent}")
        return count

    def eval(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        (n, c, h, wide), (_, k_group, r_all, s_all), g = x.shape, w.shape, self.groups
        (sh, sw), (dh, dw), (top, left, bottom, right) = self.stride, self.dilation, self.padding
        height = (h - 1) * sh + dh * (r_all - 1) + 1 + self.output_padding[0]
        width = (wide - 1) * sw + dw * (s_all - 1) + 1 + self.output_padding[1]
        if self.size is not None:
            height = dims.evaluate(self.size[0], {}) + top + bottom
            width = dims.evaluate(self.size[1], {}) + left + right
        full = np.zeros((n, g * k_group, height, width), x.dtype)
        pixels = x.reshape(n, g, c // g, h * wide)
        for r, s in np.ndindex(r_all, s_all):
            taps = w[:, :, r, s].reshape(g, c // g, k_group).transpose(0, 2, 1)
            spread = full[:, :, r * dh : r * dh + (h - 1) * sh + 1 : sh, s * dw : s * dw + (wide - 1) * sw + 1 : sw]
            spread += (taps @ pixels).reshape(spread.shape)
        y = full[:, :, top : height - bottom, left : width - right]
        if self.bias:
            y = y + arrays[2][:, None, None]
        return apply_epilogue(self.epilogue, y, arrays[2 + self.bias :])

    def pull_back(self, b: Builder, x: Value, w: Value, g: Value) -> tuple[Value, Value]:
        r, s = w.type.static_shape()[2:]
        of_x = ops.Conv2d(self.stride, self.padding, self.dilation, self.groups, bias=False)
        of_w = ops.Conv2dWeightGradient(self.stride, self.padding, self.dilation, self.groups, kernel=(r, s))
        dx = b.apply(of_x, g, w)
        # a dilation can allow so much output_padding that g has more windows than x has pixels
        more = [p // s for p, s in zip(self.output_padding, self.stride, strict=True)]
        if any(more):
            x = b.apply(ops.Pad((0, 0, 0, 0, 0, 0, *more)), x)
            cut = [axis for axis in (0, 1) if more[axis]]
            ends = tuple(-more[axis] for axis in cut)
            dx = b.apply(ops.Slice(tuple(2 + a for a in cut), (0,) * len(cut), ends, (1,) * len(cut)), dx)
        return dx, b.apply(of_w, g, x)
