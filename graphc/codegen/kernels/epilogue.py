"""What a kernel does to each result before it stores it: the fused elementwise tail of a convolution."""

from collections.abc import Sequence

from llvmlite import ir

from graphc.codegen.values import ValueEmitter
from graphc.ir import DType
from graphc.ops import scalar


class Epilogue:
    """A scalar expression over x0, the result, and `extra` more operands; None keeps the result."""

    def __init__(self, text: str | None, extra: int) -> None:
        self._expr = scalar.parse(text or "x0", [DType.F32] * (1 + extra))

    def emit(self, b: ir.IRBuilder, lanes: int, operands: Sequence[ir.Value]) -> ir.Value:
        """The expression over vectors."""
        emitter = ValueEmitter(b, lanes, {}, {})
        emitter.known |= {scalar.Arg(i): value for i, value in enumerate(operands)}
        return emitter.spread(emitter.value(self._expr, DType.F32))
