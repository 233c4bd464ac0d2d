"""Reductions over axes, which ReduceSum takes as an input since opset 13, the others since 18."""

from collections.abc import Callable

from graphc.errors import ShapeError
from graphc.ir import DType, Op, Value
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Fused, Identity
from graphc.ops.reduce import ArgMax, ArgMin, Mean, Prod, ReduceMax, ReduceMin, Sum
from graphc.ops.shape import Reshape

Axes = tuple[int, ...] | None


def _read_axes(n: NodeReader, x: Value, since: int) -> tuple[Axes, bool, bool]:
    """The axes counted from the front (None: all), keepdims, and whether nothing is to be reduced."""
    axes = n.axes(1, since)
    keep, none_if_empty = bool(n.integer("keepdims", 1)), bool(n.integer("noop_with_empty_axes", 0))
    positive = tuple(a + x.type.rank if a < 0 else a for a in axes or ())
    return positive or None, keep, not axes and none_if_empty


def _reduction(
    op: Callable[[Axes, bool], Op], since: int, before: str = "x0", after: str = "x0"
) -> Callable[[NodeReader], None]:
    """A handler: the reduction of the expression `before`, and the expression `after` of its result."""

    def read(n: NodeReader) -> None:
        x = n.value(0)
        axes, keep, nothing = _read_axes(n, x, since)
        if before != "x0":
            x = n.step(Fused(before), x)
        if after == "x0":
            return n.emit(Identity() if nothing else op(axes, keep), x)
        return n.emit(Fused(after), x if nothing else n.step(op(axes, keep), x))

    return read


def _extreme(op: Callable[[Axes, bool], Op]) -> Callable[[NodeReader], None]:
    """A handler of ReduceMax or ReduceMin, which of booleans are "any" and "all"."""
    numbers, booleans = _reduction(op, 18), _reduction(op, 18, before="to_u8(x0)", after="to_bool(x0)")
    return lambda n: (booleans if n.dtype(0) == DType.BOOL else numbers)(n)


def read_log_sum_exp(n: NodeReader) -> None:
    """ReduceLogSumExp: with the maximum taken out, so that nothing overflows; a maximum that is infinite stays in."""
    x = n.value(0)
    axes, keep, nothing = _read_axes(n, x, 18)
    if nothing:
        return n.emit(Identity(), x)
    top = n.step(Fused("select(eq(abs(x0), inf), 0.0, x0)"), n.step(ReduceMax(axes), x))
    total = n.step(Sum(axes), n.step(Fused("exp((x0 - x1))"), x, top))
    log = Fused("(log(x0) + x1)")
    if keep:
        return n.emit(log, total, top)
    shape = ReduceMax(axes, keepdims=False).infer(x.type).shape
    return n.emit(Reshape(shape), n.step(log, total, top))


def _arg_reduction(op: type[ArgMax] | type[ArgMin]) -> Callable[[NodeReader], None]:
    def read(n: NodeReader) -> None:
        keep, last = n.integer("keepdims", 1), n.integer("select_last_index", 0)
        if {keep, last} - {0, 1}:
            raise ShapeError(f"keepdims and select_last_index: expected 0 or 1, got {keep} and {last}")
        n.emit(op(n.integer("axis", 0), bool(keep), bool(last)), n.value(0))

    return read


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "ReduceSum": _reduction(Sum, 13),
    "ReduceMean": _reduction(Mean, 18),
    "ReduceProd": _reduction(Prod, 18),
    "ReduceMax": _extreme(ReduceMax),
    "ReduceMin": _extreme(ReduceMin),
    "ReduceL1": _reduction(Sum, 18, before="abs(x0)"),
    "ReduceL2": _reduction(Sum, 18, before="(x0 * x0)", after="sqrt(x0)"),
    "ReduceSumSquare": _reduction(Sum, 18, before="(x0 * x0)"),
    "ReduceLogSum": _reduction(Sum, 18, after="log(x0)"),
    "ReduceLogSumExp": read_log_sum_exp,
    "ArgMax": _arg_reduction(ArgMax),
    "ArgMin": _arg_reduction(ArgMin),
}
