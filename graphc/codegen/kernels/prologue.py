"""What a 1x1 convolution does to its input while it reads it: an elementwise op, or a depthwise convolution."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llvmlite import ir

from graphc.codegen.blocks import F32, address, i64, repeat, splat
from graphc.codegen.kernels.epilogue import Epilogue
from graphc.codegen.kernels.window import WindowCode
from graphc.codegen.nest import Buffer
from graphc.codegen.values import ValueEmitter
from graphc.ir import DimLike, DType, dims
from graphc.ops import scalar
from graphc.ops.window import Window


@dataclass(frozen=True)
class Patch:
    """Some rows and columns of a prologue's result."""

    row: ir.Value
    rows: ir.Value
    column: ir.Value
    columns: ir.Value


@dataclass(frozen=True)
class Arguments:
    """What the code of a prologue is given: the image, from its first channel on, its operands and sizes."""

    lanes: int
    image: ir.Value
    operands: Sequence[ir.Value]
    sizes: Sequence[ir.Value]


class Prologue(Protocol):
    """Computes its result block by block of channels."""

    @property
    def reason(self) -> str:
        """What a profile says of it."""

    @property
    def key(self) -> str:
        """Everything that the code depends on."""

    @property
    def in_rows(self) -> bool:
        """Whether rows must be told apart; else all pixels are one row."""

    @property
    def operands(self) -> Sequence[Buffer]:
        """What it reads beside the image."""

    @property
    def sizes(self) -> Sequence[DimLike]:
        """The dims that the code needs as arguments."""

    def emit(self, b: ir.IRBuilder, given: Arguments, block: ir.Value, patch: Patch, target: ir.Value) -> None:
        """Write the results of one block of channels, row by row, from `target` on."""


class ElementwisePrologue:
    """A scalar expression over x0, x1, ...: number `position` is the image, the others are the operands.

    These have a number for each channel, whole blocks of them, or one. Pixels are one long row.
    """

    in_rows = False

    def __init__(self, text: str, position: int, image: Buffer, operands: Sequence[Buffer]) -> None:
        self.sizes: list[DimLike] = [dims.product(image.shape[2:])]
        self.reason, self.operands = f"inputs through {text}", operands
        self.key = f"{text} {position} {[x.type.elements == 1 for x in operands]}"
        self._expr, self._position = scalar.parse(text, [DType.F32] * (1 + len(operands))), position

    def emit(self, b: ir.IRBuilder, given: Arguments, block: ir.Value, patch: Patch, target: ir.Value) -> None:
        """Write the results of one block of channels."""
        lanes, (plane,) = given.lanes, given.sizes
        type = ir.VectorType(F32, lanes)

        def load(base: ir.Value, at: ir.Value) -> ir.Value:
            return b.load(address(b, base, at, F32), typ=type, align=4)

        others = []
        for x, pointer in zip(self.operands, given.operands, strict=True):
            if x.type.elements == 1:
                others.append(splat(b, b.load(pointer, typ=F32, align=4), lanes))
            else:
                others.append(load(pointer, b.mul(block, i64(lanes))))
        source = address(b, given.image, b.mul(b.add(b.mul(block, plane), patch.column), i64(lanes)), F32)

        def one(pixel: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at, emitter = b.mul(pixel, i64(lanes)), ValueEmitter(b, lanes, {}, {})
            values = [*others[: self._position], load(source, at), *others[self._position :]]
            emitter.known |= {scalar.Arg(i): value for i, value in enumerate(values)}
            result = emitter.spread(emitter.value(self._expr, DType.F32))
            b.store(result, address(b, target, at, F32), align=4)
            return []

        repeat(b, i64(0), patch.columns, 1, [], one)


class DepthwisePrologue:
    """epilogue(conv2d(image, weights) + bias), each channel alone; weights and bias packed by blocks of channels."""

    in_rows = True

    def __init__(
        self, window: Window, image: Buffer, weights: Buffer, bias: Buffer | None, epilogue: str | None
    ) -> None:
        (r, s), stride = window.kernel, window.stride
        self.reason = f"inputs through a depthwise {r}x{s} at stride {stride[1]}"
        self.operands: list[Buffer] = [weights, *([bias] if bias else [])]
        self.key = f"{s} {stride[1]} {window.dilation[1]} {bias is not None} {epilogue}"
        self.sizes: list[DimLike] = [*image.shape[2:], r, stride[0], window.dilation[0], *window.padding[:2]]
        self._window, self._epilogue = window, Epilogue(epilogue, 0)

    def emit(self, b: ir.IRBuilder, given: Arguments, block: ir.Value, patch: Patch, target: ir.Value) -> None:
        """Write the results of one block of channels, row by row."""
        lanes, (weights, *biases) = given.lanes, given.operands
        bias = biases[0] if biases else None
        code = WindowCode(b, "conv", self._window, lanes, self._epilogue, given.sizes, weights, bias)
        columns = patch.column, b.add(patch.column, patch.columns)

        def row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at = b.mul(b.sub(b.mul(i, patch.columns), patch.column), i64(lanes))  # of column 0
            code.emit(given.image, block, b.add(patch.row, i), columns, [target], at, near=True)
            return []

        repeat(b, i64(0), patch.rows, 1, [], row)
