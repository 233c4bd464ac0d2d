"""Normalisation with stored statistics, and across neighbouring channels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, Op, TensorType
from graphc.ops.checks import check_image, check_inputs


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

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        before = (self.size - 1) // 2
        squares = np.pad(np.square(x), ((0, 0), (before, self.size - 1 - before), (0, 0), (0, 0)))
        sums = np.lib.stride_tricks.sliding_window_view(squares, self.size, axis=1).sum(axis=4)
        return np.asarray(x / (self.k + self.alpha / self.size * sums) ** self.beta)
