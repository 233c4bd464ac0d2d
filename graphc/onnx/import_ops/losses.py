"""Losses of class labels: log-probabilities at the labels, weighted and reduced."""

from collections.abc import Callable

from graphc.errors import ShapeError
from graphc.ir import DType, Value
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Div, Fused
from graphc.ops.index import Gather, GatherElements
from graphc.ops.loss import SoftmaxCrossEntropy
from graphc.ops.reduce import Mean, Sum
from graphc.ops.shape import Reshape
from graphc.ops.softmax import LogSoftmax


def read_cross_entropy(n: NodeReader) -> None:
    """SoftmaxCrossEntropyLoss, and the logarithm of the softmax where that is used."""
    logits, labels = n.value(0), n.value(1)
    plain = not n.has_input(2) and not n.has("ignore_index") and n.used_outputs < 2
    if plain and n.text("reduction", "mean") == "mean" and labels.type.dtype == DType.I64:
        return n.emit(SoftmaxCrossEntropy(), logits, labels)
    log_prob = n.step(LogSoftmax(1), logits)
    n.deliver(1, log_prob)
    return emit_loss(n, log_prob, labels)


def read_nll(n: NodeReader) -> None:
    """NegativeLogLikelihoodLoss of log-probabilities [N,C,...]."""
    emit_loss(n, n.value(0), n.value(1))


def emit_loss(n: NodeReader, log_prob: Value, labels: Value) -> None:
    """-weight[label] * log_prob[label] for labels [N,...]: as it is, summed, or its mean, over the weights if there are
    any. Labels equal to ignore_index weigh nothing.
    """
    reduction = n.text("reduction", "mean")
    if reduction not in ("none", "sum", "mean"):
        raise ShapeError(f"reduction: expected none, sum or mean, got {reduction}")
    if log_prob.type.rank < 2 or labels.type.rank != log_prob.type.rank - 1:
        raise ShapeError(f"expected scores [N,C,...] and labels [N,...], got {log_prob.type} and {labels.type}")
    ignored, safe = n.integer("ignore_index", 0) if n.has("ignore_index") else None, labels
    if ignored is not None:  # it may be no class: class 0 is read instead
        safe = n.step(Fused(f"select(eq(x0, {ignored}), 0, x0)"), labels)
    column = n.step(Reshape((safe.type.shape[0], 1, *safe.type.shape[1:])), safe)
    chosen = n.step(Reshape(safe.type.shape), n.step(GatherElements(1), log_prob, column))
    weight = n.step(Gather(0), n.value(2), safe) if n.has_input(2) else None
    if ignored is not None:
        if weight is None:
            weight = n.step(Fused(f"to_{log_prob.type.dtype.value}(ne(x0, {ignored}))"), labels)
        else:
            weight = n.step(Fused(f"select(ne(x0, {ignored}), x1, 0.0)"), labels, weight)
    if weight is None:
        if reduction == "none":
            return n.emit(Fused("-x0"), chosen)
        return n.emit(Mean(None, False) if reduction == "mean" else Sum(None, False), n.step(Fused("-x0"), chosen))
    losses = Fused("select(eq(x1, 0.0), 0.0, -(x0 * x1))")  # what is ignored may be infinite
    if reduction == "none":
        return n.emit(losses, chosen, weight)
    total = n.step(losses, chosen, weight)
    if reduction == "sum":
        return n.emit(Sum(None, False), total)
    return n.emit(Div(), n.step(Sum(None, False), total), n.step(Sum(None, False), weight))


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "SoftmaxCrossEntropyLoss": read_cross_entropy,
    "NegativeLogLikelihoodLoss": read_nll,
}
