"""The convolution as networks use it (cross-correlation), and its gradient with respect to the weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, Op, TensorType, Value, dims
from graphc.ops.checks import check_image, check_inputs
from graphc.ops.epilogue import apply_epilogue, check_epilogue
from graphc.ops.weighted import WeightedOp
from graphc.ops.window import Padding, Pair, Window


@dataclass(frozen=True)
class Conv2d(WeightedOp):
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
        self.check_count(types)
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

    def pull_back(self, b: Builder, x: Value, w: Value, g: Value) -> tuple[Value, Value]:
        r, s = w.type.static_shape()[2:]
        size = x.type.shape[2], x.type.shape[3]
        of_x = ops.ConvTranspose2d(self.stride, self.padding, (0, 0), self.dilation, self.groups, False, size=size)
        of_w = Conv2dWeightGradient(self.stride, self.padding, self.dilation, self.groups, kernel=(r, s))
        return b.apply(of_x, g, w), b.apply(of_w, x, g)


@dataclass(frozen=True)
class Conv2dWeightGradient(Op):
    """dw[k,c,r,s] = sum over n,p,q of x[n, c, p*stride+r*dilation-pad, q*...] * g[n,k,p,q], where x is inside.

    x [N,C,H,W] and the gradient g [N,K,P,Q] of the result that a conv2d with these attributes has -> that of its
    weight, dw [K,C/groups,R,S] with (R,S) = `kernel`.
    """

    name: ClassVar[str] = "conv2d_weight_gradient"
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    kernel: Pair = field(kw_only=True)

    @property
    def window(self) -> Window:
        """The window in which the weights see the input."""
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    def infer(self, *types: TensorType) -> TensorType:
        x, g = check_inputs(types, 2)
        c, k = check_image(x), check_image(g)
        if self.groups < 1 or c % self.groups or k % self.groups:
            raise ShapeError(f"{c} input and {k} output channels do not divide into {self.groups} groups")
        expected = x.with_shape(x.shape[0], k, *self.window.positions(*x.shape[2:]))
        if g.dtype != x.dtype or not all(map(dims.same, g.shape, expected.shape)):
            raise ShapeError(f"the gradient must be {expected} for x {x}, got {g}")
        return x.with_shape(k, c // self.groups, *self.kernel)

    def eval(self, *arrays: Array) -> Array:
        x, g = arrays
        view = self.window.cut(x, 0.0)
        n, c, p, q, r, s = view.shape
        view = view.reshape(n, self.groups, c // self.groups, p, q, r, s)
        g = g.reshape(n, self.groups, -1, p, q)
        dw = [np.tensordot(g[:, i], view[:, i], ((0, 2, 3), (0, 2, 3))) for i in range(self.groups)]
        return np.concatenate(dw)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        (x, g), (weight,) = inputs, grads
        size = x.type.shape[2], x.type.shape[3]
        of_x = ops.ConvTranspose2d(self.stride, self.padding, (0, 0), self.dilation, self.groups, False, size=size)
        of_g = Conv2d(self.stride, self.padding, self.dilation, self.groups, bias=False)
        return [b.apply(of_x, g, weight), b.apply(of_g, x, weight)]
