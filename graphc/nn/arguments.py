"""What all layers share: the builder behind a value, pairs and paddings, initial parameters.

Pairs and paddings are only brought into the op's form here; the op checks them and its error names the node.
"""

import math
from typing import Literal

from graphc.errors import GraphError, ShapeError
from graphc.ir import Builder, Op, TensorType, Value
from graphc.ops.window import Padding, Pair

PairLike = int | Pair
PaddingLike = int | Pair | Padding | Literal["same"]


def builder_of(x: Value) -> Builder:
    """The builder that declares the value's network; GraphError if it has none."""
    if x.builder is None:
        raise GraphError(f"expected a value of a network that is being declared, got {x}")
    return x.builder


def apply(op: Op, *inputs: Value, name: str | None = None) -> Value:
    """Add a node with one result to the network of its inputs."""
    if not inputs:
        where = f"{op.name} '{name}'" if name else op.name
        raise ShapeError(f"{where}: expected at least one input, got none")
    return builder_of(inputs[0]).apply(op, *inputs, name=name)


def pair(value: PairLike) -> Pair:
    """(value, value) for an int."""
    return (value, value) if isinstance(value, int) else value


def spatial_padding(padding: PaddingLike, kernel: Pair, dilation: Pair = (1, 1)) -> Padding:
    """(top, left, bottom, right) from one int, from (height, width) for both ends, from all four, or from "same".

    "same" pads by extent - 1 in total, extent = dilation*(kernel-1) + 1, the odd one at the end: with stride 1 the
    output has the size of the input, with stride s ceil(size / s).
    """
    if padding == "same":
        total = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=False))
        return *(t // 2 for t in total), *(t - t // 2 for t in total)  # type: ignore[return-value]  # checked by the op
    if isinstance(padding, int):
        return padding, padding, padding, padding
    return (*padding, *padding) if len(padding) == 2 else padding


def uniform_param(builder: Builder, name: str, type: TensorType, fan_in: int) -> Value:
    """A parameter drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    This is what PyTorch's defaults come to, for weights (kaiming_uniform with a = sqrt(5)) and for biases alike.
    """
    bound, shape, dtype = 1 / math.sqrt(fan_in), type.static_shape(), type.dtype.numpy
    return builder.param(name, lambda rng: rng.uniform(-bound, bound, shape).astype(dtype), type)
