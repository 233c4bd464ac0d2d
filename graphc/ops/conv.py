"""Convolutions as networks use them (cross-correlation): 2-d, transposed, and locally connected."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DimLike, DType, Op, TensorType, dims
from graphc.ops import scalar

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, left, bottom, right: the order of ONNX's `pads`


def check_window(kernel: Pair, stride: Pair, dilation: Pair, padding: Padding) -> None:
    """ShapeError unless kernel, stride and dilation are positive and the padding is not negative."""
    for name, values, least in (("kernel", kernel, 1), ("stride", stride, 1), ("dilation", dilation, 1),
                                ("padding", padding, 0)):
        length = 4 if name == "padding" else 2
        if len(values) != length or not all(isinstance(v, int) and v >= least for v in values):
            raise ShapeError(f"{name} must be {length} integers of at least {least}, got {values}")


def window_positions(size: DimLike, kernel: int, stride: int, dilation: int, before: int, after: int) -> DimLike:
    """How many windows fit: floor((size + padding - extent) / stride) + 1, where extent = dilation*(kernel-1) + 1."""
    span = size + (before + after - dilation * (kernel - 1) - 1)
    if isinstance(span, int) and span < 0:
        raise ShapeError(f"a window of {dilation * (kernel - 1) + 1} does not fit size {size} padded by "
                         f"{before}+{after}")
    return span // stride + 1


def pad_spatial(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """x[N,C,H,W] with constant borders."""
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """All windows of a padded x[N,C,H,W] as a view [N,C,P,Q,R,S]."""
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def apply_epilogue(epilogue: str | None, y: Array, extra: tuple[Array, ...]) -> Array:
    """The fused elementwise tail: `epilogue` over x0 = y and x1, ... = extra."""
    if epilogue is None:
        return y
    expression = scalar.parse(epilogue, [DType.of(a.dtype) for a in (y, *extra)])
    return np.broadcast_to(scalar.evaluate(expression, (y, *extra)), y.shape).astype(y.dtype)


def check_epilogue(epilogue: str | None, result: TensorType, extra: tuple[TensorType, ...]) -> TensorType:
    """`result`, once the epilogue's operands are known to have its type (or ShapeError)."""
    if epilogue is None and extra:
        raise ShapeError(f"expected no further inputs without an epilogue, got {len(extra)}")
    if epilogue is not None:
        scalar.parse(epilogue, [t.dtype for t in (result, *extra)])
    for t in extra:
        if t.dtype != result.dtype or t.rank != result.rank or not all(map(dims.same, t.shape, result.shape)):
            raise ShapeError(f"an epilogue operand must be {result}, got {t}")
    return result


@dataclass(frozen=True)
class Conv2d(Op):
    """y[n,k,p,q] = b[k] + sum over c,r,s of x[n, c, p*stride+r*dilation-pad, q*...] * w[k,c,r,s].

    x [N,C,H,W], w [K,C/groups,R,S], b [K] (present if `bias`), y [N,K,P,Q]; all of one float dtype. With an
    `epilogue`, further inputs x1, x2, ... of y's shape follow, and the result is that expression over x0 = y.
    """

    name: ClassVar[str] = "conv2d"
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    epilogue: str | None = None

    def infer(self, *types: TensorType) -> TensorType:
        if len(types) < 2 + self.bias:
            raise ShapeError(f"expected x, weight{' and bias' * self.bias}, got {len(types)} inputs")
        x, w = types[:2]
        check_image(x)
        if w.rank != 4 or w.dtype != x.dtype:
            raise ShapeError(f"weight must be {x.dtype.value}[K,C,R,S], got {w}")
        k, c, r, s = w.static_shape()
        check_window((r, s), self.stride, self.dilation, self.padding)
        if self.groups < 1 or k % self.groups:
            raise ShapeError(f"{k} output channels do not divide into {self.groups} groups")
        if x.shape[1] != c * self.groups:
            raise ShapeError(f"weight {w} wants {c}*{self.groups} input channels, x {x} has {x.shape[1]}")
        if self.bias and types[2] != x.with_shape(k):
            raise ShapeError(f"bias must be {x.with_shape(k)}, got {types[2]}")
        top, left, bottom, right = self.padding
        p = window_positions(x.shape[2], r, self.stride[0], self.dilation[0], top, bottom)
        q = window_positions(x.shape[3], s, self.stride[1], self.dilation[1], left, right)
        return check_epilogue(self.epilogue, x.with_shape(x.shape[0], k, p, q), types[2 + self.bias :])

    def eval(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        view = windows(pad_spatial(x, self.padding), w.shape[2:], self.stride, self.dilation)
        n, _, p, q = view.shape[:4]
        k, c = w.shape[:2]
        view = view.reshape(n, self.groups, c, p, q, *w.shape[2:])
        w = w.reshape(self.groups, k // self.groups, *w.shape[1:])
        y = np.stack([np.tensordot(view[:, g], w[g], ((1, 4, 5), (1, 2, 3))) for g in range(self.groups)])
        y = y.transpose(1, 0, 4, 2, 3).reshape(n, k, p, q)
        if self.bias:
            y = y + arrays[2][:, None, None]
        return apply_epilogue(self.epilogue, y, arrays[2 + self.bias :])


def check_image(x: TensorType) -> None:
    """ShapeError unless x is a float [N,C,H,W] with a constant number of channels."""
    if x.rank != 4 or not x.dtype.is_float or not isinstance(x.shape[1], int):
        raise ShapeError(f"expected a float image batch [N,C,H,W] with constant C, got {x}")
