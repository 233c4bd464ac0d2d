"""What the import of one ONNX node works with: its attributes, its operands, and how it adds nodes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from graphc.errors import GraphError, ShapeError, UnsupportedError, ValueDependentError
from graphc.ir import Array, DimLike, DType, Op, TensorType, Value
from graphc.onnx.scope import Constant, Mask, Operand, Scope
from graphc.onnx.sizes import settle
from graphc.onnx.small import HELD
from graphc.onnx.tensors import check_size

_KINDS = {
    AttributeProto.INT: "an integer",
    AttributeProto.INTS: "a list of integers",
    AttributeProto.FLOAT: "a float",
    AttributeProto.FLOATS: "a list of floats",
    AttributeProto.STRING: "a string",
    AttributeProto.TENSOR: "a tensor",
}


class NodeReader:
    """One ONNX node. A handler reads it and adds nodes: `step` for what comes between, `emit` for its results.

    What graphc cannot do raises UnsupportedError with the reason alone; so does, after the handler, an attribute that
    it never asked for.
    """

    def __init__(self, scope: Scope, proto: NodeProto, name: str) -> None:
        self.scope, self.name, self.opset = scope, name, scope.opset
        self.op_type, self.inputs, self.outputs = proto.op_type, tuple(proto.input), tuple(proto.output)
        self.used_outputs = max((i + 1 for i, o in enumerate(proto.output) if o in scope.used), default=0)
        self._attributes = {a.name: a for a in proto.attribute}
        self.unread = set(self._attributes)
        self._delivered = 0  # so many results have been given by `deliver`

    # ---- attributes ---------------------------------------------------------------------------------------------

    def _attribute(self, name: str, kind: AttributeProto.AttributeType) -> AttributeProto | None:
        self.unread.discard(name)
        found = self._attributes.get(name)
        if found is not None and found.type != kind:
            got = _KINDS.get(found.type, AttributeProto.AttributeType.Name(found.type))
            raise GraphError(f"attribute '{name}': expected {_KINDS[kind]}, got {got}")
        return found

    def has(self, name: str) -> bool:
        """Whether the node has this attribute."""
        return name in self._attributes

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self._attribute(name, AttributeProto.INT)
        return default if found is None else found.i

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """A list of integers."""
        found = self._attribute(name, AttributeProto.INTS)
        return tuple(default) if found is None else tuple(found.ints)

    def real(self, name: str, default: float) -> float:
        """A finite float attribute: the shortest decimal for its 32 bits."""
        found = self._attribute(name, AttributeProto.FLOAT)
        if found is None:
            return default
        if not np.isfinite(found.f):
            raise GraphError(f"attribute '{name}': expected a finite number, got {found.f}")
        return shortest(np.float32(found.f))

    def reals(self, name: str) -> tuple[float, ...]:
        """A list of floats."""
        found = self._attribute(name, AttributeProto.FLOATS)
        return () if found is None else tuple(found.floats)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        found = self._attribute(name, AttributeProto.STRING)
        return default if found is None else found.s.decode(errors="replace")

    def tensor(self, name: str) -> TensorProto:
        """A tensor attribute that must be there."""
        found = self._attribute(name, AttributeProto.TENSOR)
        if found is None:
            raise GraphError(f"expected an attribute '{name}'")
        return found.t

    def graph(self, name: str) -> GraphProto:
        """A graph attribute that must be there."""
        found = self._attribute(name, AttributeProto.GRAPH)
        if found is None:
            raise GraphError(f"expected an attribute '{name}'")
        return found.g

    def expect(self, name: str, value: int) -> None:
        """UnsupportedError unless the integer attribute has this value, which is also its default."""
        got = self.integer(name, value)
        if got != value:
            raise UnsupportedError(f"{name}={got}; only {name}={value} is supported")

    # ---- operands -----------------------------------------------------------------------------------------------

    def has_input(self, i: int) -> bool:
        """Whether the optional input i is there."""
        return i < len(self.inputs) and bool(self.inputs[i])

    def operand(self, i: int) -> Operand:
        """Input i, whatever it is."""
        if not self.has_input(i):
            raise GraphError(f"expected at least {i + 1} inputs, got {len(self.inputs)}")
        found = self.scope.operands[self.inputs[i]]
        assert found is not None, "nodes behind a problem are not read"
        return found

    def value(self, i: int, trainable: bool = True) -> Value:
        """Input i as a value, f16 and bf16 as f32; a constant becomes a parameter, never trained if not `trainable`."""
        found = self.operand(i)
        if isinstance(found, Mask):
            return self.scope.comparison(found)
        if isinstance(found, Constant):
            found = self.scope.parameter(replace(found, trainable=found.trainable and trainable))
        return self.scope.widen(found)

    def image(self, i: int = 0) -> Value:
        """Input i, which must be an image batch [N,C,H,W]."""
        x = self.value(i)
        if x.type.rank != 4:
            raise ShapeError(f"expected an image batch [N,C,H,W], got {x.type}")
        return x

    def constant(self, i: int) -> Constant | None:
        """Input i if it is known now and does not depend on the sizes of a run, else None."""
        found = self.operand(i)
        return found if isinstance(found, Constant) and not found.symbolic else None

    def numbers(self, i: int, what: str) -> Array:
        """The constant that input i must be; `what` is what it gives the op."""
        return self._numbers(self.operand(i), f"{what} '{self.inputs[i]}'")

    def _numbers(self, operand: Operand, what: str) -> Array:
        found = self._known(operand)
        if found is None:
            raise self._explain(operand, what, "must be constant")
        if found.dtype == object:
            raise UnsupportedError(f"{what} depends on the sizes of the inputs")
        return found

    def scalar(self, i: int, what: str) -> float:
        """The one number that input i must be."""
        return self.scalar_of(self.operand(i), f"{what} '{self.inputs[i]}'")

    def scalar_of(self, operand: Operand, what: str) -> float:
        """The one number that an operand must be."""
        array = self._numbers(operand, what)
        if array.size != 1:
            raise ShapeError(f"{what} must be a scalar, got shape {list(array.shape)}")
        return shortest(array.reshape(-1)[0])

    def dims(self, i: int, what: str) -> list[DimLike]:
        """The list of sizes that input i must be: integers, or expressions of the inputs' sizes."""
        found = self._known(self.operand(i))
        if found is None:
            raise self._explain(
                self.operand(i), f"{what} '{self.inputs[i]}'", "is computed at run time by more than shape arithmetic"
            )
        if found.ndim > 1 or self.dtype(i).numpy.kind != "i":
            raise ShapeError(f"{what} must be a list of integers, got {self.dtype(i).value}{list(found.shape)}")
        return list(found.reshape(-1).astype(object))

    def _explain(self, found: Operand, what: str, otherwise: str) -> UnsupportedError:
        """Why an operand is not known. What depends on numbers and lists alone will be, once their values are."""
        roots = self.scope.evaluation.roots(found) if isinstance(found, Value) else frozenset()
        if not roots or any(v.type.rank > 1 for v in roots):
            return UnsupportedError(f"{what} {otherwise}")
        names = sorted(v.name for v in roots)
        listed = " and ".join(f"'{name}'" for name in names)
        text = f"{what} depends on the value of input {listed}; make it an initialiser"
        return ValueDependentError(text, names)

    def _known(self, found: Operand) -> Array | None:
        """An operand as far as it is known now: a constant, what depends on sizes, what is computed from constants."""
        if isinstance(found, Constant):
            return found.array
        return self.scope.evaluation.evaluate(found) if isinstance(found, Value) else None

    def whole_dims(self, i: int, what: str) -> tuple[int, ...]:
        """The list of integers that input i must be."""
        listed = self.dims(i, what)
        found = tuple(d for d in listed if isinstance(d, int))
        if len(found) != len(listed):
            raise UnsupportedError(f"{what} depends on the sizes of the inputs")
        return found

    def axes(self, i: int, since: int) -> tuple[int, ...] | None:
        """The axes: input i from opset `since` on, before that an attribute; None if they are left out."""
        if self.has("axes"):
            return self.integers("axes")
        return self.whole_dims(i, "axes") if self.opset >= since and self.has_input(i) else None

    def dtype(self, i: int) -> DType:
        """The element type of input i; a constant does not become a parameter."""
        found = self.operand(i)
        if isinstance(found, Mask):
            return DType.BOOL
        if isinstance(found, Constant):
            return found.dtype
        return found.type.dtype

    def element_type(self, i: int) -> int | None:
        """ONNX's element type of input i if the model says it: small formats are held in wider types.

        UnsupportedError where it is not known and may be one of these.
        """
        found = self.scope.element_types.get(self.inputs[i])
        if found is None and self.dtype(i) in HELD.values() and HELD.keys() & self.scope.element_types.values():
            raise UnsupportedError(f"the element type of '{self.inputs[i]}', which may have 8 bits or less")
        return found

    def note_element_type(self, number: int) -> None:
        """The node's result has this ONNX element type."""
        self.scope.element_types[self.outputs[0]] = number

    def number(self, value: float, like: Value, suffix: str) -> Value:
        """A new scalar parameter of the dtype of `like`."""
        return self.parameter(np.asarray(value, like.type.dtype.numpy), suffix)

    def parameter(self, array: Array, suffix: str) -> Value:
        """A new parameter with this data, called after the node with `suffix`."""
        return self.scope.builder.param(self.scope.new_names.fresh(f"{self.name}.{suffix}"), array, trainable=False)

    def derive(self, i: int, suffix: str, change: Callable[[Array], Array]) -> Value:
        """Input i, a constant, after `change` as a parameter, called after the constant with `suffix`."""
        found = self.operand(i)
        assert isinstance(found, Constant)
        return self.scope.parameter(self.scope.derive(found, suffix, change))

    # ---- results ------------------------------------------------------------------------------------------------

    def step(self, op: Op, *inputs: Value) -> Value:
        """A node between, with a name of its own."""
        name = self.scope.new_names.fresh(f"{self.name}.{op.name}")
        return self._add(op, inputs, name, [name])[0]

    def steps(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """A node between with several results, called after it with .0, .1, ..."""
        name = self.scope.new_names.fresh(f"{self.name}.{op.name}")
        names = [self.scope.new_names.fresh(f"{name}.{i}") for i in range(len(infer(op, inputs)))]
        return self._add(op, inputs, name, names)

    def emit(self, op: Op, *inputs: Value) -> None:
        """The node with this one's name and outputs."""
        count = len(infer(op, inputs))
        self._check_outputs(count)
        given = [self.outputs[i] if i < len(self.outputs) else "" for i in range(count)]
        names = [self.scope.names.get(o) or self.scope.new_names.fresh(f"{self.name}.{i}") for i, o in enumerate(given)]
        for onnx_name, value in zip(given, self._add(op, inputs, self.name, names), strict=True):
            if onnx_name:
                self.scope.define(onnx_name, value)

    def deliver(self, i: int, value: Value) -> None:
        """Result i, which is not the first, is the result of a step."""
        self._delivered = max(self._delivered, i + 1)
        if i < len(self.outputs) and self.outputs[i]:
            self.scope.define(self.outputs[i], value)

    def fold(self, array: Array, dtype: DType = DType.I64) -> None:
        """The node's only result is this constant; one of dtype object has elements of type `dtype`."""
        name = self.scope.names[self.outputs[0]] if self.used_outputs else self.name
        settled = settle(array, dtype)
        self.bind(Constant(name, settled, symbolic=dtype if settled.dtype == object else None))

    def fold_all(self, arrays: Sequence[Array]) -> None:
        """The node's results are these constants."""
        self._check_outputs(len(arrays))
        for output, array in zip(self.outputs, arrays, strict=False):
            if output:
                self.scope.define(output, Constant(self.scope.names[output], array))

    def bind(self, operand: Operand) -> None:
        """The node's only result is this: nothing is left to compute at run time."""
        self._check_outputs(1)
        for onnx_name in self.outputs[:1]:
            self.scope.define(onnx_name, operand)

    def _check_outputs(self, count: int) -> None:
        count = max(count, self._delivered)
        if self.used_outputs > count:
            raise UnsupportedError(f"its output '{self.outputs[count]}' is not supported")

    def _add(self, op: Op, inputs: Sequence[Value], name: str, output_names: list[str]) -> tuple[Value, ...]:
        try:
            values = self.scope.builder.add(op, tuple(inputs), name, output_names)
        except ShapeError as error:
            raise ShapeError(str(error).removeprefix(f"{op.name} '{name}': ")) from None
        for v in values:
            check_size("its result", v.type.shape, v.type.dtype)
        return values


def infer(op: Op, inputs: Sequence[Value]) -> tuple[TensorType, ...]:
    """The types of the op's results as a tuple."""
    types = op.infer(*(v.type for v in inputs))
    return types if isinstance(types, tuple) else (types,)


def shortest(number: np.generic) -> float:
    """The number with the fewest digits that stand for it: 0.01, not 0.009999999776482582, for a float32."""
    return float(number) if isinstance(number, np.bool_) else float(str(number))
