"""What a kernel does to its input while it reads it: an elementwise op before a convolution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.blocks import F32, address, splat
from graphc.codegen.nest import Buffer
from graphc.codegen.values import ValueEmitter
from graphc.ir import DType
from graphc.ops import scalar


@dataclass(frozen=True)
class Prologue:
    """A scalar expression over x0, x1, ...: number `image` is the kernel's input, the others are `operands`.

    These have a number for each channel, whole blocks of them, or one.
    """

    text: str
    image: int
    operands: tuple[Buffer, ...]

    @property
    def key(self) -> str:
        """Everything that the code depends on."""
        return f"{self.text} {self.image} {[x.type.elements == 1 for x in self.operands]}"

    def emit(
        self, b: ir.IRBuilder, lanes: int, pointers: Sequence[ir.Value], channel: ir.Value
    ) -> Callable[[ir.Value], ir.Value]:
        """The expression as a function of vectors of the block that begins at this channel; the operands are at
        `pointers`.
        """
        type, others = ir.VectorType(F32, lanes), list[ir.Value]()
        for x, pointer in zip(self.operands, pointers, strict=True):
            if x.type.elements == 1:
                others.append(splat(b, b.load(pointer, typ=F32, align=4), lanes))
            else:
                others.append(b.load(address(b, pointer, channel, F32), typ=type, align=4))
        expr = scalar.parse(self.text, [DType.F32] * (1 + len(others)))

        def apply(value: ir.Value) -> ir.Value:
            emitter, operands = ValueEmitter(b, lanes, {}, {}), others.copy()
            operands.insert(self.image, value)
            emitter.known |= {scalar.Arg(i): operand for i, operand in enumerate(operands)}
            return emitter.spread(emitter.value(expr, DType.F32))

        return apply
