"""The locally connected layer: a convolution whose weights are not shared between positions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, Op, TensorType, dims
from graphc.ops.checks import check_image, check_inputs
from graphc.ops.window import Padding, Pair, Window


@dataclass(frozen=True)
class LocallyConnected2d(Op):
    """y[n,k,p,q] = b[k,p,q] + sum over c,r,s of x[n, c, p*stride+r-pad, q*stride+s-pad] * w[k,c,r,s,p,q].

    x [N,C,H,W], w [K,C,R,S,P,Q], b [K,P,Q] (present if `bias`), y [N,K,P,Q]; all of one float dtype. P and Q are
    constants: as many windows as fit.
    """

    name: ClassVar[str] = "locally_connected2d"
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    bias: bool = True

    def window(self, kernel: Pair) -> Window:
        """The window in which the weights see the input."""
        return Window(kernel, self.stride, self.padding)

    def infer(self, *types: TensorType) -> TensorType:
        x, w = check_inputs(types, 2 + self.bias)[:2]
        check_image(x)
        if w.rank != 6 or w.dtype != x.dtype:
            raise ShapeError(f"weight must be {x.dtype.value}[K,C,R,S,P,Q], got {w}")
        k, c, r, s, p, q = w.static_shape()
        if x.shape[1] != c:
            raise ShapeError(f"weight {w} wants {c} input channels, x {x} has {x.shape[1]}")
        fit = self.window((r, s)).positions(*x.shape[2:])
        if not all(map(dims.same, fit, (p, q))):
            raise ShapeError(f"weight {w} is for {p}x{q} positions, on x {x} {fit[0]}x{fit[1]} windows fit")
        if self.bias and types[2] != x.with_shape(k, p, q):
            raise ShapeError(f"bias must be {x.with_shape(k, p, q)}, got {types[2]}")
        return x.with_shape(x.shape[0], k, p, q)

    def eval(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        y = np.einsum("ncpqrs,kcrspq->nkpq", self.window(w.shape[2:4]).cut(x, 0.0), w)
        return np.asarray(y + arrays[2] if self.bias else y)
