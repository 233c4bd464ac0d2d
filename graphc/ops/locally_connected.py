"""The locally connected layer: a convolution whose weights are not shared between positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, Op, TensorType, Value, dims
from graphc.ops.checks import check_image, check_inputs
from graphc.ops.derive import add, reshape
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

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """At each position a product of matrices: gradients of N images, and their patches of R*S*C cells."""
        (x, w), (g,) = inputs[:2], grads
        k, c, r, s, p, q = w.type.static_shape()
        borders = ops.Pad((0, 0, *self.padding[:2], 0, 0, *self.padding[2:]))
        padded = b.apply(borders, x)
        cuts = [self._cut(i, j, p, q) for i in range(r) for j in range(s)]
        patches = b.apply(ops.Concat(1), *(b.apply(cut, padded) for cut in cuts))  # [N,R*S*C,P,Q]
        of_taps = b.apply(
            ops.MatMul(), b.apply(ops.Transpose((2, 3, 1, 0)), g), b.apply(ops.Transpose((2, 3, 0, 1)), patches)
        )
        of_w = b.apply(ops.Transpose((2, 5, 3, 4, 0, 1)), reshape(b, of_taps, (p, q, k, r, s, c)))
        taps = reshape(b, b.apply(ops.Transpose((4, 5, 0, 2, 3, 1)), w), (p, q, k, r * s * c))
        of_patches = b.apply(ops.MatMul(), b.apply(ops.Transpose((2, 3, 0, 1)), g), taps)  # [P,Q,N,R*S*C]
        parts = b.add(ops.Split(1, (c,) * len(cuts)), (b.apply(ops.Transpose((2, 3, 0, 1)), of_patches),))
        total: Value | None = None
        for cut, part in zip(cuts, parts, strict=True):
            (placed,) = cut.vjp(b, (padded,), (part,), (part,))
            total = add(b, total, placed) if total and placed else placed
        assert total is not None
        of_bias = [b.apply(ops.Sum((0,), keepdims=False), g)] if self.bias else []
        return [*borders.vjp(b, (x,), (padded,), (total,)), of_w, *of_bias]

    def _cut(self, r: int, s: int, p: int, q: int) -> Op:
        """Cell (r, s) of every window of the padded image, of which there are p x q."""
        ends = r + (p - 1) * self.stride[0] + 1, s + (q - 1) * self.stride[1] + 1
        return ops.Slice((2, 3), (r, s), ends, self.stride)
