"""The graph under construction while a model is read, and what the model's names stand for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphc.ir import Array, Builder, DimLike, DType, Op, Value, dims
from graphc.onnx.evaluation import Evaluation
from graphc.onnx.names import Names
from graphc.onnx.sizes import Ratio
from graphc.ops.elementwise import Fused
from graphc.ops.reduce import Sum
from graphc.ops.shape import Concat, Expand, Reshape
from graphc.stored import Stored


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor known while the model is read.

    One that depends on the sizes of a run is an array of dtype object, of what graphc/onnx/sizes.py computes with;
    `symbolic` is then the tensor's element type.
    """

    name: str
    data: Array | Stored
    trainable: bool = False
    symbolic: DType | None = None

    @property
    def array(self) -> Array:
        """The data; those of a large initialiser are read each time."""
        return self.data.read().astype(self.dtype.numpy, copy=False) if isinstance(self.data, Stored) else self.data

    @property
    def shape(self) -> tuple[int, ...]:
        """The dims."""
        return self.data.shape

    @property
    def dtype(self) -> DType:
        """The tensor's element type."""
        return self.symbolic or DType.of(self.data.dtype)


@dataclass(frozen=True)
class Mask:
    """x > threshold, not computed yet: of a Greater, which a Cast makes a hard threshold of. It has Greater's names."""

    node_name: str
    name: str
    x: Value
    threshold: float


Operand = Value | Constant | Mask


@dataclass
class Scope:
    """The graph under construction and what its ONNX names stand for. `operands[name]` is None behind a problem."""

    builder: Builder
    names: dict[str, str]  # ONNX value name -> graphc value name
    new_names: Names
    used: set[str]  # the ONNX values that a node reads or the model returns
    opset: int
    written_opset: int  # what the file says, from which onnx's version converter may have raised it
    folder: Path | None
    operands: dict[str, Operand | None] = field(default_factory=dict)
    element_types: dict[str, int] = field(default_factory=dict)  # ONNX's, of the values whose declarations were read
    unrounded: dict[Value, Value] = field(default_factory=dict)  # of the result of a Cast to f16 or bf16, its f32 input
    by_shape: dict[tuple[DimLike, ...], Value] = field(default_factory=dict)  # the first value of each shape
    evaluation: Evaluation = field(init=False)
    _sizes: dict[str, Value] = field(default_factory=dict)  # of symbols, as tensors
    _derived: dict[str, Constant] = field(default_factory=dict)
    _made: dict[str, Value] = field(default_factory=dict)  # of constants and masks, once a node reads them

    def __post_init__(self) -> None:
        self.evaluation = Evaluation(self.builder)

    def define(self, name: str, operand: Operand | None) -> None:
        """From now on the ONNX value `name` is this operand."""
        self.operands[name] = operand
        if isinstance(operand, Value):
            self.by_shape.setdefault(operand.type.shape, operand)

    def parameter(self, constant: Constant) -> Value:
        """The parameter that holds the constant, the same each time."""
        if constant.name not in self._made:
            if constant.symbolic:
                self._made[constant.name] = self._measure(constant, constant.symbolic)
            else:
                value = self.builder.param(constant.name, constant.data, trainable=constant.trainable)
                self._made[constant.name] = value
        return self._made[constant.name]

    def step(self, op: Op, *inputs: Value, stem: str) -> Value:
        """A node with a single result, both under a new name."""
        name = self.new_names.fresh(f"{stem}.{op.name}")
        return self.builder.add(op, inputs, name, [name])[0]

    def _measure(self, constant: Constant, dtype: DType) -> Value:
        """What depends on sizes as a tensor that a run computes."""
        stem = constant.name
        numbers = [self._measure_number(Ratio.of(x), dtype, stem) for x in constant.array.reshape(-1)]
        joined = numbers[0] if len(numbers) == 1 else self.step(Concat(0), *numbers, stem=stem)
        return self.step(Reshape(constant.shape), joined, stem=stem)

    def _measure_number(self, x: Ratio, dtype: DType, stem: str) -> Value:
        """A number of a run as dtype[1]."""
        operands: list[Value] = []
        parts: list[str] = []
        for d in (x.numerator, x.denominator):
            arguments = {s: dims.symbol(f"x{len(operands) + i}") for i, s in enumerate(sorted(dims.symbols_of(d)))}
            operands += [self._measure_symbol(s) for s in arguments]
            parts.append(f"to_{dtype.value}({dims.substitute(d, arguments)})")
        if not operands:
            return self.builder.param(
                self.new_names.fresh(f"{stem}.number"), np.array([x.settle()], dtype.numpy), trainable=False
            )
        return self.step(Fused(parts[0] if x.denominator == 1 else f"({parts[0]} / {parts[1]})"), *operands, stem=stem)

    def _measure_symbol(self, name: str) -> Value:
        """A symbol's size as i64[1]: the sum of as many ones."""
        if name not in self._sizes:
            one = self.builder.param(self.new_names.fresh("one"), np.ones(1, np.int64), trainable=False)
            ones = self.step(Expand((dims.symbol(name),)), one, stem=f"size.{name}")
            self._sizes[name] = self.step(Sum((0,)), ones, stem=f"size.{name}")
        return self._sizes[name]

    def comparison(self, mask: Mask) -> Value:
        """The mask as a value of booleans, the same each time."""
        if mask.name not in self._made:
            op = Fused(f"gt(x0, {mask.threshold!r})")
            (self._made[mask.name],) = self.builder.add(op, (mask.x,), mask.node_name, [mask.name])
        return self._made[mask.name]

    def widen(self, value: Value) -> Value:
        """The value as f32 if it is f16 or bf16, in which graphc does not compute; the same each time.

        Where a Cast made it of f32, that is what it was before: results have more correct bits than with a rounding at
        each Cast. (Of onnx's tests, attention in float16 passes only so.)
        """
        if not value.type.dtype.is_half or value in self.unrounded:
            return self.unrounded.get(value, value)
        key = f"{value.name}.f32"
        if key not in self._made:
            name = self.new_names.fresh(key)
            (self._made[key],) = self.builder.add(Fused("to_f32(x0)"), (value,), name, [name])
        return self._made[key]

    def skip_rounding(self, name: str, x: Value) -> None:
        """What computes with the ONNX value `name`, made of x by a Cast, takes x where it would be widened to f32."""
        result = self.operands.get(name)
        if isinstance(result, Value) and result.type.dtype.is_half and x.type.dtype == DType.F32:
            self.unrounded[result] = x

    def narrow(self, value: Value, dtype: DType) -> Value:
        """A result that the file declares as f16 or bf16, computed as f32."""
        if not dtype.is_half or not value.type.dtype.is_float:
            return value
        name = self.new_names.fresh(f"{value.name}.{dtype.value}")
        return self.builder.add(Fused(f"to_{dtype.value}(x0)"), (value,), name, [name])[0]

    def derive(self, constant: Constant, suffix: str, change: Callable[[Array], Array]) -> Constant:
        """The constant after `change`, which `suffix` tells from other changes; shared by the nodes that want it."""
        key = f"{constant.name}.{suffix}"
        if key not in self._derived:
            changed = np.ascontiguousarray(change(constant.array))
            self._derived[key] = Constant(self.new_names.fresh(key), changed, constant.trainable)
        return self._derived[key]
