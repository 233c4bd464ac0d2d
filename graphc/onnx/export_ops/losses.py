"""Losses: scalars from predictions and targets."""

from collections.abc import Callable
from typing import Any

from graphc.onnx.writer import NodeWriter
from graphc.ops.loss import BinaryCrossEntropyWithLogits, L2Penalty, MeanSquaredError, SoftmaxCrossEntropy


def write_mean_squared_error(n: NodeWriter, op: MeanSquaredError) -> None:
    """mean((a - b)^2)."""
    error = n.step("Sub", *n.inputs)
    n.emit("ReduceMean", n.step("Mul", error, error), keepdims=0)


def write_binary_cross_entropy(n: NodeWriter, op: BinaryCrossEntropyWithLogits) -> None:
    """mean(softplus(x) - x*t)."""
    x, t = n.inputs
    n.emit("ReduceMean", n.step("Sub", n.step("Softplus", x), n.step("Mul", x, t)), keepdims=0)


def write_l2_penalty(n: NodeWriter, op: L2Penalty) -> None:
    """weight/2 * sum(x^2)."""
    total = n.step("ReduceSum", n.step("Mul", n.inputs[0], n.inputs[0]), keepdims=0)
    n.emit("Mul", total, n.number(op.weight / 2, "weight"))


EXPORTERS: dict[Any, Callable[[NodeWriter, Any], None]] = {
    MeanSquaredError: write_mean_squared_error,
    BinaryCrossEntropyWithLogits: write_binary_cross_entropy,
    SoftmaxCrossEntropy: lambda n, op: n.emit("SoftmaxCrossEntropyLoss", *n.inputs, reduction="mean"),
    L2Penalty: write_l2_penalty,
}
