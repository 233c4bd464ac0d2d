"""Layers that combine many elements into one: products, reductions, normalisation over an axis, losses."""

from collections.abc import Sequence

from graphc import ops
from graphc.ir import Value
from graphc.nn.arguments import apply


def matmul(a: Value, b: Value, name: str | None = None) -> Value:
    """The matrix product of a [...,I,J] and b [...,J,K], by NumPy's rules."""
    return apply(ops.MatMul(), a, b, name=name)


def sum(x: Value, axes: Sequence[int] | None = None, keepdims: bool = True, name: str | None = None) -> Value:
    """The sum over `axes` (None: all); they stay as dims of 1 with `keepdims`."""
    return apply(ops.Sum(_axes(axes), keepdims), x, name=name)


def mean(x: Value, axes: Sequence[int] | None = None, keepdims: bool = True, name: str | None = None) -> Value:
    """The mean over `axes` (None: all); they stay as dims of 1 with `keepdims`."""
    return apply(ops.Mean(_axes(axes), keepdims), x, name=name)


def prod(x: Value, axes: Sequence[int] | None = None, keepdims: bool = True, name: str | None = None) -> Value:
    """The product over `axes` (None: all); they stay as dims of 1 with `keepdims`."""
    return apply(ops.Prod(_axes(axes), keepdims), x, name=name)


def arg_max(x: Value, axis: int, keepdims: bool = True, last: bool = False, name: str | None = None) -> Value:
    """The index (i64) of the first maximum along `axis`, or of the `last`; a NaN counts as one."""
    return apply(ops.ArgMax(axis, keepdims, last), x, name=name)


def arg_min(x: Value, axis: int, keepdims: bool = True, last: bool = False, name: str | None = None) -> Value:
    """The index (i64) of the first minimum along `axis`, or of the `last`; a NaN counts as one."""
    return apply(ops.ArgMin(axis, keepdims, last), x, name=name)


def reduce_max(x: Value, axes: Sequence[int] | None = None, keepdims: bool = True, name: str | None = None) -> Value:
    """The maximum over `axes` (None: all), NaN if there is one; they stay as dims of 1 with `keepdims`."""
    return apply(ops.ReduceMax(_axes(axes), keepdims), x, name=name)


def reduce_min(x: Value, axes: Sequence[int] | None = None, keepdims: bool = True, name: str | None = None) -> Value:
    """The minimum over `axes` (None: all), NaN if there is one; they stay as dims of 1 with `keepdims`."""
    return apply(ops.ReduceMin(_axes(axes), keepdims), x, name=name)


def softmax(x: Value, axis: int = 1, name: str | None = None) -> Value:
    """exp(x) / sum of exp(x) along `axis`."""
    return apply(ops.Softmax(axis), x, name=name)


def log_softmax(x: Value, axis: int = 1, name: str | None = None) -> Value:
    """x - log(sum of exp(x)) along `axis`."""
    return apply(ops.LogSoftmax(axis), x, name=name)


def local_response_norm(
    x: Value, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, name: str | None = None
) -> Value:
    """x / (k + alpha/size * sum of squares over `size` neighbouring channels)^beta."""
    return apply(ops.LocalResponseNorm(size, alpha, beta, k), x, name=name)


def mean_squared_error(a: Value, b: Value, name: str | None = None) -> Value:
    """The mean of (a - b)^2 over all elements, a scalar []."""
    return apply(ops.MeanSquaredError(), a, b, name=name)


def binary_cross_entropy_with_logits(logits: Value, targets: Value, name: str | None = None) -> Value:
    """The mean over all elements of -log of the probability sigmoid(logit) gives the target 0..1, a scalar []."""
    return apply(ops.BinaryCrossEntropyWithLogits(), logits, targets, name=name)


def softmax_cross_entropy(logits: Value, labels: Value, name: str | None = None) -> Value:
    """The mean of -log softmax(logits)[label], a scalar []: logits [N,K] or [N,K,P,Q], labels i64 [N] or [N,P,Q]."""
    return apply(ops.SoftmaxCrossEntropy(), logits, labels, name=name)


def l2_penalty(x: Value, weight: float = 1.0, name: str | None = None) -> Value:
    """weight/2 * the sum of x^2, a scalar []."""
    return apply(ops.L2Penalty(weight), x, name=name)


def _axes(axes: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if axes is None else tuple(axes)
