"""Reductions over axes, which ReduceSum takes as an input since opset 13, the others since 18."""

from collections.abc import Callable

from graphc.ir import Op
from graphc.onnx.reader import NodeReader
from graphc.ops.elementwise import Identity
from graphc.ops.reduce import Mean, ReduceMax, ReduceMin, Sum


def _reduction(op: Callable[[tuple[int, ...] | None, bool], Op], since: int) -> Callable[[NodeReader], None]:
    def read(n: NodeReader) -> None:
        x, axes = n.value(0), n.axes(1, since)
        keep, none_if_empty = bool(n.integer("keepdims", 1)), bool(n.integer("noop_with_empty_axes", 0))
        if not axes and none_if_empty:
            return n.emit(Identity(), x)
        positive = tuple(a + x.type.rank if a < 0 else a for a in axes or ())
        return n.emit(op(positive or None, keep), x)

    return read


HANDLERS: dict[str, Callable[[NodeReader], None]] = {
    "ReduceSum": _reduction(Sum, 13),
    "ReduceMean": _reduction(Mean, 18),
    "ReduceMax": _reduction(ReduceMax, 18),
    "ReduceMin": _reduction(ReduceMin, 18),
}
