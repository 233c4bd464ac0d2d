"""Layers with parameters: convolutions, fully connected, batch normalisation."""

import math

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Value
from graphc.nn.arguments import PaddingLike, PairLike, builder_of, pair, spatial_padding, uniform_param


def conv2d(
    x: Value,
    out_channels: int,
    kernel: PairLike,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    bias: bool = True,
    *,
    name: str,
    weight: Value | None = None,
) -> Value:
    """x [N,C,H,W] to [N,K,P,Q], K = out_channels, P = (H + padding - dilation*(R-1) - 1)//stride + 1.

    Creates `<name>.weight` [K,C/groups,R,S], unless another layer's is shared as `weight`, and `<name>.bias` [K].
    """
    builder, where = builder_of(x), f"conv2d '{name}'"
    kernel, dilation = pair(kernel), pair(dilation)
    group = _group_size(_channels(x, 4, where), groups, where)
    type, fan_in = x.type.with_shape(out_channels, group, *kernel), group * math.prod(kernel)
    if weight is None:
        weight = uniform_param(builder, f"{name}.weight", type, fan_in)
    elif weight.type != type:
        raise ShapeError(f"{where}: expected a shared weight {type}, got {weight}")
    op = ops.Conv2d(pair(stride), spatial_padding(padding, kernel, dilation), dilation, groups, bias)
    biases = [uniform_param(builder, f"{name}.bias", x.type.with_shape(out_channels), fan_in)] if bias else []
    return builder.apply(op, x, weight, *biases, name=name)


def conv_transpose2d(
    x: Value,
    out_channels: int,
    kernel: PairLike,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    output_padding: PairLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    bias: bool = True,
    *,
    name: str,
) -> Value:
    """x [N,C,H,W] to [N,K,P,Q], P = (H-1)*stride - padding + dilation*(R-1) + 1 + output_padding.

    Creates `<name>.weight` [C,K/groups,R,S] and `<name>.bias` [K].
    """
    builder, where = builder_of(x), f"conv_transpose2d '{name}'"
    kernel, dilation = pair(kernel), pair(dilation)
    channels, group = _channels(x, 4, where), _group_size(out_channels, groups, where)
    fan_in = group * math.prod(kernel)  # PyTorch counts the fan-in of w[C,K/groups,R,S] along its second dim too
    weight = uniform_param(builder, f"{name}.weight", x.type.with_shape(channels, group, *kernel), fan_in)
    padding = spatial_padding(padding, kernel, dilation)
    op = ops.ConvTranspose2d(pair(stride), padding, pair(output_padding), dilation, groups, bias)
    biases = [uniform_param(builder, f"{name}.bias", x.type.with_shape(out_channels), fan_in)] if bias else []
    return builder.apply(op, x, weight, *biases, name=name)


def locally_connected2d(
    x: Value,
    out_channels: int,
    kernel: PairLike,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    bias: bool = True,
    *,
    name: str,
) -> Value:
    """x [N,C,H,W] of constant H and W to [N,K,P,Q]: a convolution whose weights differ from place to place.

    Creates `<name>.weight` [K,C,R,S,P,Q] and `<name>.bias` [K,P,Q].
    """
    builder, where = builder_of(x), f"locally_connected2d '{name}'"
    kernel, stride = pair(kernel), pair(stride)
    channels, padding = _channels(x, 4, where), spatial_padding(padding, kernel)
    positions = []
    for size, k, s, before, after in zip(x.type.shape[2:], kernel, stride, padding[:2], padding[2:], strict=False):
        if not isinstance(size, int):
            raise ShapeError(f"{where}: expected an image of constant size, got {x}")
        positions.append((size + before + after - k) // max(s, 1) + 1)  # the op refuses s < 1
    fan_in = channels * math.prod(kernel)
    weight = uniform_param(
        builder, f"{name}.weight", x.type.with_shape(out_channels, channels, *kernel, *positions), fan_in
    )
    op = ops.LocallyConnected2d(stride, padding, bias)
    biases = (
        [uniform_param(builder, f"{name}.bias", x.type.with_shape(out_channels, *positions), fan_in)] if bias else []
    )
    return builder.apply(op, x, weight, *biases, name=name)


def linear(x: Value, out_features: int, bias: bool = True, *, name: str) -> Value:
    """x [...,C] to [...,K]: y = x w^T + b. Creates `<name>.weight` [K,C] and `<name>.bias` [K]."""
    builder, where = builder_of(x), f"linear '{name}'"
    features = x.type.shape[-1] if x.type.rank else 0
    if not isinstance(features, int) or not features:
        raise ShapeError(
            f"{where}: expected a constant number of features in the last dim, got {x}; give the input "
            "a fixed size or use fully_convolutional"
        )
    weight = uniform_param(builder, f"{name}.weight", x.type.with_shape(out_features, features), features)
    biases = [uniform_param(builder, f"{name}.bias", x.type.with_shape(out_features), features)] if bias else []
    return builder.apply(ops.Linear(bias), x, weight, *biases, name=name)


def batch_norm(x: Value, epsilon: float = 1e-5, *, name: str) -> Value:
    """x [N,C,...], each channel normalised by its running mean and variance, then scaled and shifted.

    Creates `<name>.weight` (ones), `<name>.bias` (zeros) and, not trainable, `<name>.running_mean` (zeros) and
    `<name>.running_var` (ones), all [C].
    """
    builder = builder_of(x)
    channels, dtype = _channels(x, 2, f"batch_norm '{name}'"), x.type.dtype.numpy
    zeros, ones = np.zeros(channels, dtype), np.ones(channels, dtype)
    params = [
        builder.param(f"{name}.weight", ones),
        builder.param(f"{name}.bias", zeros),
        builder.param(f"{name}.running_mean", zeros, trainable=False),
        builder.param(f"{name}.running_var", ones, trainable=False),
    ]
    return builder.apply(ops.BatchNorm(epsilon), x, *params, name=name)


def _channels(x: Value, rank: int, where: str) -> int:
    """The constant length of dim 1; ShapeError if x has fewer than `rank` dims or a symbolic number of channels."""
    channels = x.type.shape[1] if x.type.rank >= rank else None
    if not isinstance(channels, int) or not x.type.dtype.is_float:
        wanted = "[N,C,H,W]" if rank == 4 else "[N,C,...]"
        raise ShapeError(f"{where}: expected a float tensor {wanted} with constant C, got {x}")
    return channels


def _group_size(channels: int, groups: int, where: str) -> int:
    if groups < 1 or channels % groups:
        raise ShapeError(f"{where}: {channels} channels do not divide into {groups} groups")
    return channels // groups
