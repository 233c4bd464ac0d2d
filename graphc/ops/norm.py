"""Normalisation with stored statistics, and across neighbouring channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, Op, TensorType, Value, dims
from graphc.ops.checks import check_image, check_inputs
from graphc.ops.derive import divide, fused, reshape


@dataclass(frozen=True)
class BatchNorm(Op):
    """y = (x - mean) * (scale / sqrt(variance + epsilon)) + bias, per channel (Ioffe and Szegedy 2015, inference).

    x [N,C,...], scale, bias, mean, variance [C] -> y [N,C,...]; all of one float dtype.
    """

    name: ClassVar[str] = "batch_norm"
    epsilon: float = 1e-5

    def infer(self, *types: TensorType) -> TensorType:
        x, *parameters = check_inputs(types, 5)
        if x.rank < 2 or not x.dtype.is_float or not isinstance(x.shape[1], int):
            raise ShapeError(f"expected a float batch [N,C,...] with constant C, got {x}")
        if self.epsilon < 0:
            raise ShapeError(f"expected epsilon >= 0, got {self.epsilon}")
        for role, t in zip(("scale", "bias", "mean", "variance"), parameters, strict=True):
            if t != x.with_shape(x.shape[1]):
                raise ShapeError(f"{role} must be {x.with_shape(x.shape[1])} for x {x}, got {t}")
        return x

    def eval(self, *arrays: Array) -> Array:
        x, scale, bias, mean, variance = arrays
        factor = scale / np.sqrt(variance + self.epsilon)
        columns = (x.shape[1], *[1] * (x.ndim - 2))
        return (x - mean.reshape(columns)) * factor.reshape(columns) + bias.reshape(columns)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        (x, scale, _, mean, variance), (g,) = inputs, grads
        columns = (*scale.type.shape, *[1] * (x.type.rank - 2))
        others = ops.Sum((0, *range(2, x.type.rank)), keepdims=False)
        inverse = fused(b, f"(1.0 / sqrt((x0 + {float(self.epsilon)})))", variance)
        normal = fused(b, "((x0 - x1) * x2)", x, reshape(b, mean, columns), reshape(b, inverse, columns))
        of_bias, of_scale = b.apply(others, g), b.apply(others, b.apply(ops.Mul(), g, normal))
        factor = b.apply(ops.Mul(), scale, inverse)
        of_x = b.apply(ops.Mul(), g, reshape(b, factor, columns))
        of_mean = fused(b, "-(x0 * x1)", of_bias, factor)
        of_variance = fused(b, "(((x0 * x1) * x2) * -0.5)", of_scale, factor, inverse)
        return [of_x, of_scale, of_bias, of_mean, of_variance]


@dataclass(frozen=True)
class Moments(Op):
    """The mean m of each channel, and the mean of (x - m)^2: what batch norm normalises by while a network is trained.

    x [N,C,...] -> mean, variance [C]; all of one float dtype.
    """

    name: ClassVar[str] = "moments"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = check_inputs(types, 1)
        if x.rank < 2 or not x.dtype.is_float or not isinstance(x.shape[1], int):
            raise ShapeError(f"expected a float batch [N,C,...] with constant C, got {x}")
        return x.with_shape(x.shape[1]), x.with_shape(x.shape[1])

    def eval(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        axes = (0, *range(2, x.ndim))
        mean = x.mean(axis=axes, keepdims=True)
        return mean.reshape(-1), np.square(x - mean).mean(axis=axes)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """Through (x - m)^2, m has no gradient: the sum of x - m is 0."""
        (x,) = inputs
        columns = (*outputs[0].type.shape, *[1] * (x.type.rank - 2))
        count = dims.product([d for axis, d in enumerate(x.type.shape) if axis != 1])
        mean, of_mean, of_variance = (
            reshape(b, v, columns) for v in (outputs[0], *(divide(b, g, count) for g in grads))
        )
        return [fused(b, "(x0 + (((x1 - x2) * x3) * 2.0))", of_mean, x, mean, of_variance)]


@dataclass(frozen=True)
class LocalResponseNorm(Op):
    """y[n,c,h,w] = x / (k + alpha/size * sum over c' of x[n,c',h,w]^2)^beta (Krizhevsky et al. 2012).

    c' runs from c - floor((size-1)/2) to c + ceil((size-1)/2), as far as there are channels (ONNX's rule; PyTorch's
    differs for an even size). x [N,C,H,W] -> y [N,C,H,W].
    """

    name: ClassVar[str] = "local_response_norm"
    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        check_image(x)
        if self.size < 1:
            raise ShapeError(f"size must be at least 1, got {self.size}")
        return x

    def reach(self, channels: int) -> tuple[int, int]:
        """How many channels before and after its own an element sees, of so many in all."""
        return min((self.size - 1) // 2, channels - 1), min(self.size // 2, channels - 1)

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        before, after = self.reach(x.shape[1])
        squares = np.pad(np.square(x), ((0, 0), (before, after), (0, 0), (0, 0)))
        sums = np.lib.stride_tricks.sliding_window_view(squares, before + 1 + after, axis=1).sum(axis=4)
        return np.asarray(x / (self.k + self.alpha / self.size * sums) ** self.beta)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """The sums over neighbouring channels are 1x1 convolutions with a band of ones."""
        (x,), (g,) = inputs, grads
        distance = np.arange(check_image(x.type)) - np.arange(check_image(x.type))[:, None]
        band = (distance >= -((self.size - 1) // 2)) & (distance <= self.size // 2)
        near = b.constant(band.astype(x.type.dtype.numpy)[:, :, None, None])
        turned = b.constant(band.T.astype(x.type.dtype.numpy)[:, :, None, None])
        sums = b.apply(ops.Conv2d(bias=False), b.apply(ops.Mul(), x, x), near)
        base = fused(b, f"((x0 * {self.alpha / self.size}) + {float(self.k)})", sums)
        inner = fused(b, f"((x0 * x1) * pow(x2, {-self.beta - 1.0}))", g, x, base)
        through = b.apply(ops.Conv2d(bias=False), inner, turned)
        slope = 2 * self.alpha * self.beta / self.size
        return [fused(b, f"((x0 * pow(x1, {-float(self.beta)})) - ((x2 * x3) * {slope}))", g, base, x, through)]
