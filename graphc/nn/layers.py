"""Layers with parameters: convolutions, fully connected, batch normalisation."""

import math

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import TensorType, Value, dims
from graphc.nn.arguments import PaddingLike, PairLike, builder_of, naming, pair, spatial_padding, uniform_param


@naming
def conv2d(x: Value, out_channels: int, kernel: PairLike, stride: PairLike = 1, padding: PaddingLike = 0,
           dilation: PairLike = 1, groups: int = 1, bias: bool = True, *, name: str, weight: Value | None = None,
           ) -> Value:
    """Convolution of x [N,C,H,W] to [N,K,P,Q] with K = out_channels; P = (H + pads - extent)//stride + 1.

    Creates `<name>.weight` [K,C/groups,R,S] (unless `weight`, a value of that type, is shared) and, with `bias`,
    `<name>.bias` [K].
    """
    builder, channels = builder_of(x), _channels(x, 4)
    kernel, dilation = pair("kernel", kernel), pair("dilation", dilation)
    _check_groups(groups, channels, out_channels)
    type = x.type.with_shape(out_channels, channels // groups, *kernel)
    fan_in = channels // groups * math.prod(kernel)
    if weight is not None and weight.type != type:
        raise ShapeError(f"the shared weight must be {type}, got %{weight.name}: {weight.type}")
    op = ops.Conv2d(pair("stride", stride), spatial_padding(padding, kernel, dilation), dilation, groups, bias)
    operands = [x, uniform_param(builder, f"{name}.weight", type, fan_in) if weight is None else weight]
    if bias:
        operands.append(uniform_param(builder, f"{name}.bias", x.type.with_shape(out_channels), fan_in))
    return builder.apply(op, *operands, name=name)
