"""The convolution as networks use it (cross-correlation)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, Op, TensorType
from graphc.ops.checks import check_image, check_weighted
from graphc.ops.epilogue import apply_epilogue, check_epilogue
from graphc.ops.window import Padding, Pair, Window


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

    def window(self, kernel: Pair) -> Window:
        """The window in which the weights see the input."""
        return Window(kernel, self.stride, self.padding, self.dilation)

    def infer(self, *types: TensorType) -> TensorType:
        check_weighted(types, self.bias)
        x, w = types[:2]
        check_image(x)
        if w.rank != 4 or w.dtype != x.dtype:
            raise ShapeError(f"weight must be {x.dtype.value}[K,C,R,S], got {w}")
        k, c, r, s = w.static_shape()
        if self.groups < 1 or k % self.groups:
            raise ShapeError(f"{k} output channels do not divide into {self.groups} groups")
        if x.shape[1] != c * self.groups:
            raise ShapeError(f"weight {w} wants {c}*{self.groups} input channels, x {x} has {x.shape[1]}")
        if self.bias and types[2] != x.with_shape(k):
            raise ShapeError(f"bias must be {x.with_shape(k)}, got {types[2]}")
        p, q = self.window((r, s)).positions(*x.shape[2:])
        return check_epilogue(self.epilogue, x.with_shape(x.shape[0], k, p, q), types[2 + self.bias :])

    def eval(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        k, c, r, s = w.shape
        view = self.window((r, s)).cut(x, 0.0)
        n, _, p, q = view.shape[:4]
        view = view.reshape(n, self.groups, c, p, q, r, s)
        w = w.reshape(self.groups, k // self.groups, c, r, s)
        y = np.stack([np.tensordot(view[:, g], w[g], ((1, 4, 5), (1, 2, 3))) for g in range(self.groups)])
        y = y.transpose(1, 0, 4, 2, 3).reshape(n, k, p, q)
        if self.bias:
            y = y + arrays[2][:, None, None]
        return apply_epilogue(self.epilogue, y, arrays[2 + self.bias :])
