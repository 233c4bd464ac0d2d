"""The graph under construction while a model is read, and what the model's names stand for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphc.errors import UnsupportedError
from graphc.ir import Array, Builder, DimLike, DType, Value
from graphc.onnx.names import Names
from graphc.ops.elementwise import Fused


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor known while the model is read. A symbolic shape is one of dtype object, of integers and Dims."""

    name: str
    array: Array
    trainable: bool = False


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
    folder: Path | None
    operands: dict[str, Operand | None] = field(default_factory=dict)
    by_shape: dict[tuple[DimLike, ...], Value] = field(default_factory=dict)  # the first value of each shape
    _derived: dict[str, Constant] = field(default_factory=dict)
    _made: dict[str, Value] = field(default_factory=dict)  # of constants and masks, once a node reads them

    def define(self, name: str, operand: Operand | None) -> None:
        """From now on the ONNX value `name` is this operand."""
        self.operands[name] = operand
        if isinstance(operand, Value):
            self.by_shape.setdefault(operand.type.shape, operand)

    def parameter(self, constant: Constant) -> Value:
        """The parameter that holds the constant, the same each time."""
        if constant.array.dtype == object:
            raise UnsupportedError(f"'{constant.name}' is a shape that depends on the inputs, expected a tensor")
        if constant.name not in self._made:
            value = self.builder.param(constant.name, constant.array, trainable=constant.trainable)
            self._made[constant.name] = value
        return self._made[constant.name]

    def comparison(self, mask: Mask) -> Value:
        """The mask as a value of booleans, the same each time."""
        if mask.name not in self._made:
            op = Fused(f"gt(x0, {mask.threshold!r})")
            (self._made[mask.name],) = self.builder.add(op, (mask.x,), mask.node_name, [mask.name])
        return self._made[mask.name]

    def widen(self, value: Value) -> Value:
        """The value as f32 if it is f16 or bf16, in which graphc does not compute; the same each time."""
        if not value.type.dtype.is_half:
            return value
        key = f"{value.name}.f32"
        if key not in self._made:
            name = self.new_names.fresh(key)
            (self._made[key],) = self.builder.add(Fused("to_f32(x0)"), (value,), name, [name])
        return self._made[key]

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
