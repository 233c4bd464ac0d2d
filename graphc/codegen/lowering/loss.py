"""Loop nests of the losses: a mean or sum over all elements, in blocks (graphc/codegen/lowering/reduce.py)."""

from collections.abc import Callable, Iterator
from math import nan

from graphc.codegen.layout import DENSE
from graphc.codegen.lowering.reduce import element_of, reduce_all
from graphc.codegen.nest import Buffer, Nest, largest, loop_vars, size, to_float, total
from graphc.ir import DimLike, dims
from graphc.ops.loss import BinaryCrossEntropyWithLogits, L2Penalty, MeanSquaredError, SoftmaxCrossEntropy
from graphc.ops.scalar import Expr, call


def lower_mean_squared_error(op: MeanSquaredError, a: Buffer, b: Buffer, y: Buffer) -> Iterator[Nest]:
    left, right = element_of(a), element_of(b)

    def square(i: Expr) -> Expr:
        difference = left(i) - right(i)
        return difference * difference

    yield from mean_of(y, a.type.elements, square)


def lower_binary_cross_entropy_with_logits(
    op: BinaryCrossEntropyWithLogits,
    logits: Buffer,
    targets: Buffer,
    y: Buffer,
) -> Iterator[Nest]:
    x, t = element_of(logits), element_of(targets)
    yield from mean_of(y, logits.type.elements, lambda i: call("softplus", x(i)) - x(i) * t(i))


def lower_softmax_cross_entropy(op: SoftmaxCrossEntropy, logits: Buffer, labels: Buffer, y: Buffer) -> Iterator[Nest]:
    """First log(sum of exp(x)) - x[label] of every sample. A label outside reads nothing and gives NaN."""
    if logits.layout == DENSE:
        pixels = dims.product(logits.shape[2:])
        logits = logits.view(*logits.shape[:2], pixels)
        labels = labels.view(logits.shape[0], pixels)
    losses = y.temporary("samples", y.type.with_shape(*labels.shape))
    n, *pixel = loops = loop_vars("nijklm"[: losses.type.rank], losses.shape)
    a, b = loop_vars("ab", (logits.shape[1], logits.shape[1]))
    maximum = largest(logits[n, a, *pixel], a)
    sum_of_exp = total(call("exp", logits[n, b, *pixel] - maximum), b)
    chosen = logits.get(n, labels[loops], *pixel, fill=nan)
    yield Nest(losses, loops, loops, call("log", sum_of_exp) + maximum - chosen)
    yield from mean_of(y, losses.type.elements, element_of(losses))


def lower_l2_penalty(op: L2Penalty, x: Buffer, y: Buffer) -> Iterator[Nest]:
    element = element_of(x)
    squares = yield from reduce_all("sum", y, x.type.elements, lambda i: element(i) * element(i))
    yield Nest(y, (), (), squares * (op.weight / 2))


def mean_of(y: Buffer, count: DimLike, element: Callable[[Expr], Expr]) -> Iterator[Nest]:
    """The nests that store the mean of element(i) over all i < count in y []."""
    value = yield from reduce_all("sum", y, count, element)
    yield Nest(y, (), (), value / to_float(size(count), y.type.dtype))
