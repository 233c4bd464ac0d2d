"""Runs a graph in PyTorch, op by op, so that PyTorch's autograd can differentiate it."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from graphc import ops
from graphc.ir import Array, Graph, Node, Value

Tensor = Any


def run_torch(
    graph: Graph, inputs: list[Array], train: bool, params: dict[str, Tensor] | None = None
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The outputs in float64, and the parameters: those that are trainable want gradients, running statistics move."""
    params = params or {
        name: torch.tensor(p.array.astype(np.float64), requires_grad=p.trainable) for name, p in graph.params.items()
    }
    env: dict[Value, Tensor] = {p.value: params[name] for name, p in graph.params.items()}
    for v, a in zip(graph.inputs, inputs, strict=True):
        env[v] = torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a)
    for node in graph.nodes:
        env[node.outputs[0]] = apply(node, [env[v] for v in node.inputs], train)
    return [env[v] for v in graph.outputs], params


def apply(node: Node, x: list[Tensor], train: bool) -> Tensor:
    """One node; paddings of the networks are the same on both sides."""
    match node.op:
        case ops.Conv2d(stride=stride, padding=padding, dilation=dilation, groups=groups):
            return F.conv2d(x[0], x[1], x[2] if len(x) > 2 else None, stride, halves(padding), dilation, groups)
        case ops.ConvTranspose2d(
            stride=stride, padding=padding, output_padding=extra, groups=groups, dilation=dilation
        ):
            bias = x[2] if len(x) > 2 else None
            return F.conv_transpose2d(x[0], x[1], bias, stride, halves(padding), extra, groups, dilation)
        case ops.Linear():
            return F.linear(*x)
        case ops.BatchNorm(epsilon=epsilon):
            return F.batch_norm(x[0], x[3], x[4], x[1], x[2], training=train, momentum=0.1, eps=epsilon)
        case ops.MaxPool(kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil):
            return F.max_pool2d(x[0], kernel, stride, halves(padding), ceil_mode=ceil)
        case ops.AveragePool(kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil, count_padding=count):
            return F.avg_pool2d(x[0], kernel, stride, halves(padding), ceil, count)
        case ops.GlobalAveragePool():
            return x[0].mean((2, 3), keepdim=True)
        case ops.Relu():
            return F.relu(x[0])
        case ops.Softplus():
            return F.softplus(x[0])
        case ops.Tanh():
            return torch.tanh(x[0])
        case ops.Clip(minimum=low, maximum=high):
            return F.hardtanh(x[0], low, high)
        case ops.Dropout():
            return x[0]
        case ops.Add():
            return x[0] + x[1]
        case ops.Flatten(axis=axis):
            return torch.flatten(x[0], axis)
        case ops.Concat(axis=axis):
            return torch.cat(x, axis)
        case ops.UpsampleNearest() | ops.UpsampleBilinear():
            mode = {"mode": "nearest"} if isinstance(node.op, ops.UpsampleNearest) else {"mode": "bilinear"}
            return F.interpolate(x[0], scale_factor=tuple(float(s) for s in node.op.scale), **mode)
        case ops.SoftmaxCrossEntropy():
            return F.cross_entropy(x[0], x[1])
    raise NotImplementedError(str(node))


def halves(padding: tuple[int, int, int, int]) -> tuple[int, int]:
    assert padding[:2] == padding[2:]
    return padding[:2]
