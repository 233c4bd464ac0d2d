"""What all layers share: the builder behind a value, pairs and paddings, initial parameters."""

import math
from typing import Literal

from graphc.errors import GraphError, ShapeError
from graphc.ir import Builder, Op, TensorType, Value
from graphc.ops.conv import Padding, Pair

PairLike = int | Pair
PaddingLike = int | Pair | Padding | Literal["same"]


def builder_of(*values: Value) -> Builder:
    """The builder that declares the first of these values' network; GraphError if it was built elsewhere."""
    builder = values[0].builder if values else None
    if builder is None:
        found = f"%{values[0].name}, which no builder declares" if values else "none"
        raise GraphError(f"expected a value of a network that is being declared, got {found}")
    return builder


def apply(op: Op, *inputs: Value, name: str | None = None) -> Value:
    """Add a node with one result to the network of its inputs."""
    return builder_of(*inputs).apply(op, *inputs, name=name)


def pair(what: str, value: PairLike) -> Pair:
    """(a, a) for an int; `what` names the argument in the ShapeError for anything but an int or two of them."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, int) for v in values):
        raise ShapeError(f"{what} must be an integer or two, got {value!r}")
    return values


def spatial_padding(padding: PaddingLike, kernel: Pair, dilation: Pair = (1, 1)) -> Padding:
    """(top, left, bottom, right) from one int, from (height, width) at both ends, from all four, or from "same".

    "same" pads by extent - 1 in total, extent = dilation*(kernel-1) + 1, the odd one at the end: with stride 1 the
    output has the size of the input, with stride s ceil(size / s).
    """
    if padding == "same":
        rows, columns = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
    values = (padding, padding) if isinstance(padding, int) else tuple(padding)
    values = values * 2 if len(values) == 2 else values
    if len(values) != 4 or not all(isinstance(v, int) for v in values):
        raise ShapeError(f'padding must be an integer, two, four or "same", got {padding!r}')
    return values


def uniform_param(builder: Builder, name: str, type: TensorType, fan_in: int) -> Value:
    """A parameter drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    PyTorch's default for weights, kaiming_uniform(a=sqrt(5)), and for biases both come to this.
    """
    bound, shape = 1 / math.sqrt(fan_in), type.static_shape()
    return builder.param(name, lambda rng: rng.uniform(-bound, bound, shape).astype(type.dtype.numpy), type)
