"""The graph: an immutable DAG of nodes in topological order, over typed SSA values; and the builder that makes one."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from graphc.errors import GraphError, InputError, ShapeError
from graphc.ir.op import Array, Op
from graphc.ir.types import DType, TensorType
from graphc.stored import Stored

NEXT = ".next"  # the output NAME.next is what the input or parameter NAME is in the next step


class Value:
    """A tensor known by its name and type. `builder` is set while the value's graph is being declared."""

    __slots__ = ("builder", "name", "type")

    def __init__(self, name: str, type: TensorType, builder: "Builder | None" = None) -> None:
        self.name, self.type, self.builder = name, type, builder

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"

    def __reduce__(self) -> tuple[type["Value"], tuple[str, TensorType]]:
        return Value, (self.name, self.type)  # a pickled value leaves its builder behind

    @property
    def shape(self) -> tuple[object, ...]:
        """The dims: integers or symbolic expressions."""
        return self.type.shape


class Param:
    """A tensor that belongs to the graph. `trainable` tells a weight from a running statistic or a constant.

    Its data are an array, or those of another parameter, or what `source()` makes when they are used for the first
    time; if not `kept`, whenever they are used: two networks that differ in few layers then share the memory of all
    others, and what is made for a copy of all weights, such as those of a compiled network, is gone after it. So are
    those that are `Stored` in a file.
    """

    def __init__(
        self,
        value: Value,
        source: "Array | Stored | Param | Callable[[], Array]",
        trainable: bool = True,
        kept: bool = True,
    ) -> None:
        self.value, self._source, self.trainable, self._kept = value, source, trainable, kept

    @property
    def array(self) -> Array:
        """The data, C-contiguous and of the value's type."""
        match self._source:
            case np.ndarray():
                return self._source
            case Param():
                return self._source.array
            case Stored():
                return self._source.read().astype(self.value.type.dtype.numpy, copy=False)
        array = _checked_array(self.value, self._source())
        if self._kept:
            self._source = array
        return array

    def fill(self, target: NDArray[np.uint8]) -> None:
        """Write the bytes of the data to the target, from a file without a copy in between."""
        match self._source:
            case Param():
                self._source.fill(target)
            case Stored() if self._source.dtype == self.value.type.dtype.numpy:
                self._source.fill(target)
            case _:
                target[:] = self.array.reshape(-1).view(np.uint8)

    @classmethod
    def of(cls, value: Value, data: Array | Stored, trainable: bool) -> "Param":
        """A parameter with these data, converted to the value's type."""
        converted = data if isinstance(data, Stored) else data.astype(value.type.dtype.numpy)
        return cls(value, converted, trainable)

    def __getstate__(self) -> dict[str, object]:
        return {"value": self.value, "_source": self.array, "trainable": self.trainable, "_kept": True}


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an op: its inputs in the op's order, and the values that it defines."""

    name: str
    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.op.name} '{self.name}'"


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: inputs, parameters by name, nodes in topological order, and named outputs."""

    name: str
    inputs: tuple[Value, ...]
    params: Mapping[str, Param]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...]
    meta: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def producers(self) -> dict[Value, Node]:
        """The node that defines each value (inputs and parameters have none)."""
        return {v: n for n in self.nodes for v in n.outputs}

    @cached_property
    def consumers(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order, once each."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in dict.fromkeys(node.inputs):
                found.setdefault(v, []).append(node)
        return found

    @cached_property
    def constants(self) -> dict[Value, Param]:
        """The parameter behind each value that is one."""
        return {p.value: p for p in self.params.values()}

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of the input types in order of appearance, N, H and W first."""
        found = sorted(frozenset().union(*(v.type.symbols for v in self.inputs)))
        return tuple(sorted(found, key=lambda s: "NHW".find(s) if s in ("N", "H", "W") else 3))

    @property
    def updates(self) -> dict[str, Value]:
        """The outputs NAME.next that are the next state of an input NAME of their type: that input, by output name."""
        inputs = {f"{v.name}{NEXT}": v for v in self.inputs}
        return {
            name: inputs[name]
            for name, v in zip(self.output_names, self.outputs, strict=True)
            if name in inputs and v.type == inputs[name].type
        }

    def __str__(self) -> str:
        from graphc.ir.text import format_graph

        return format_graph(self)

    def values(self) -> Iterator[Value]:
        """Every value: inputs, parameters, then what the nodes define."""
        yield from self.inputs
        yield from (p.value for p in self.params.values())
        yield from (v for n in self.nodes for v in n.outputs)

    def load_state(self, path: str | PathLike[str]) -> "Graph":
        """This graph with the parameters of a .safetensors, .npz or .pth file.

        Missing, unexpected and mis-shaped ones are reported together in one InputError; a file that cannot be read is
        a FileError. Large ones of a .safetensors file are read from it whenever they are used: it may be removed or
        replaced, but must not be written to.
        """
        from graphc.state import open_state

        return self.with_params(open_state(path), str(path))

    def with_params(self, arrays: Mapping[str, Array | Stored], source: str = "parameters") -> "Graph":
        """This graph with these parameters; InputError lists every name that does not fit.

        Constants and running statistics may be left out. `<name>.num_batches_tracked`, which PyTorch's batch norm
        counts while it is trained, is passed over.
        """
        arrays = {name: array for name, array in arrays.items() if not name.endswith(".num_batches_tracked")}
        problems = []
        for name, param in self.params.items():
            if name not in arrays and param.trainable:
                problems.append(f"missing {name} {param.value.type}")
            elif name in arrays and arrays[name].shape != param.value.type.shape:
                problems.append(f"{name}: expected {param.value.type}, got {list(arrays[name].shape)}")
        problems += [f"unexpected {name}" for name in arrays if name not in self.params]
        if problems:
            raise InputError(f"{source}: {'; '.join(problems)}")
        params = {n: Param.of(p.value, arrays[n], p.trainable) if n in arrays else p for n, p in self.params.items()}
        return replace(self, params=params)

    def rewrite(self, rule: "Rule", name: str | None = None) -> "Graph":
        """A new graph in which each node that `rule` answers for is replaced; unused nodes and parameters remain.

        `rule(builder, node, inputs)` gets the node's inputs in the new graph and returns the new values of its
        outputs, or None to keep the node.
        """
        builder, new = self.reopen(rule, name)
        return builder.build(**{n: new[v] for n, v in zip(self.output_names, self.outputs, strict=True)})

    def reopen(self, rule: "Rule | None" = None, name: str | None = None) -> "tuple[Builder, dict[Value, Value]]":
        """A builder that has declared all this, rewritten by `rule`, and can go on; and what each value is there."""
        builder = Builder(name or self.name, meta=self.meta)
        builder.reserve(v.name for v in self.values())
        builder.reserve(node.name for node in self.nodes)
        new = {v: builder.input(v.name, v.type) for v in self.inputs}
        new |= {p.value: builder.adopt(p) for p in self.params.values()}
        for node in self.nodes:
            inputs = tuple(new[v] for v in node.inputs)
            outputs = rule(builder, node, inputs) if rule else None
            if outputs is None:
                outputs = builder.add(node.op, inputs, node.name, [v.name for v in node.outputs])
            new |= zip(node.outputs, outputs, strict=True)
        return builder, new

    def prune(self) -> "Graph":
        """Without the nodes and parameters from which no path leads to an output; the inputs stay, used or not."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        params = {name: param for name, param in self.params.items() if param.value in needed}
        return replace(self, nodes=tuple(reversed(kept)), params=params)


Rule = Callable[["Builder", Node, tuple[Value, ...]], "tuple[Value, ...] | None"]


class Builder:
    """Declares a graph value by value; every op's types are checked as it is added.

    `seed` decides the initial parameters: each draws from a generator of its own, keyed by seed and name, so that
    adding a layer does not change the others.
    """

    def __init__(self, name: str, seed: int = 0, meta: Mapping[str, str] | None = None) -> None:
        self.name, self.seed, self.meta = name, seed, dict(meta or {})
        self._inputs: list[Value] = []
        self._params: dict[str, Param] = {}
        self._nodes: list[Node] = []
        self._origins: dict[Value, Node | Param] = {}
        self._names: set[str] = set()
        self._node_names: set[str] = set()
        self._reserved: set[str] = set()
        self._counters: dict[str, int] = {}

    def input(self, name: str, type: TensorType) -> Value:
        """Declare the next input of the network."""
        value = self._value(name, type, f"input '{name}'")
        self._inputs.append(value)
        return value

    def param(
        self,
        name: str,
        array: Array | Stored | Callable[[np.random.Generator], Array],
        type: TensorType | None = None,
        trainable: bool = True,
    ) -> Value:
        """Add a parameter. An initialiser `array(rng)` needs `type` and runs only when the data is used."""
        if isinstance(array, Stored):
            value = self._value(name, TensorType(DType.of(array.dtype), array.shape), f"parameter '{name}'")
            return self._own(Param(value, array, trainable))
        if callable(array):
            if type is None:
                raise ShapeError(f"parameter '{name}': an initialiser needs the parameter's type")
            init, key = array, [self.seed, zlib.crc32(name.encode())]
            value = self._value(name, type, f"parameter '{name}'")
            return self._own(Param(value, lambda: init(np.random.default_rng(key)), trainable))
        type = type or TensorType(DType.of(np.asarray(array).dtype), np.asarray(array).shape)
        value = self._value(name, type, f"parameter '{name}'")
        return self._own(Param(value, _checked_array(value, np.asarray(array)), trainable))

    def derive(self, name: str, compute: Callable[[], Array], type: TensorType) -> Value:
        """Add a constant that is computed from parameters whenever its data are used."""
        value = self._value(name, type, f"parameter '{name}'")
        return self._own(Param(value, compute, trainable=False, kept=False))

    def constant(self, array: Array | float, name: str = "const") -> Value:
        """Add a constant (float32 if a Python float) under a name derived from `name`."""
        data = np.asarray(array, np.float32) if isinstance(array, float) else np.asarray(array)
        return self.param(self.fresh(name), data, trainable=False)

    def adopt(self, param: Param) -> Value:
        """Take over a parameter of another graph under its own name, without copying or initialising it."""
        value = self._value(param.value.name, param.value.type, f"parameter '{param.value.name}'")
        return self._own(Param(value, param, param.trainable))

    def _own(self, param: Param) -> Value:
        self._params[param.value.name] = self._origins[param.value] = param
        return param.value

    def origin(self, value: Value) -> Node | Param | None:
        """The node or parameter that the value is of; None for an input."""
        return self._origins.get(value)

    def apply(self, op: Op, *inputs: Value, name: str | None = None) -> Value:
        """Add a node with a single result and return it."""
        (output,) = self.add(op, inputs, name)
        return output

    def add(
        self,
        op: Op,
        inputs: tuple[Value, ...],
        name: str | None = None,
        output_names: list[str] | None = None,
    ) -> tuple[Value, ...]:
        """Add a node and return its results, whose types the op infers."""
        name = name or self.fresh(op.name)
        for v in inputs:
            if v.builder is not self:
                raise GraphError(f"{op.name} '{name}': input %{v.name} belongs to another network")
        empty = next((v for v in inputs if v.type.elements == 0), None)
        if empty is not None and not op.takes_empty:
            raise ShapeError(f"{op.name} '{name}': expected at least one element, got {empty}")
        try:
            types = op.infer(*(v.type for v in inputs))
        except ShapeError as error:
            raise ShapeError(f"{op.name} '{name}': {error}") from None
        types = types if isinstance(types, tuple) else (types,)
        if name in self._node_names:
            raise GraphError(f"{op.name} '{name}': another node has this name")
        self._node_names.add(name)
        output_names = output_names or ([name] if len(types) == 1 else [f"{name}.{i}" for i in range(len(types))])
        if len(output_names) != len(types):
            raise GraphError(f"{op.name} '{name}': expected {len(types)} output names, got {len(output_names)}")
        outputs = tuple(self._value(n, t, f"{op.name} '{name}'") for n, t in zip(output_names, types, strict=True))
        node = Node(name, op, inputs, outputs)
        self._nodes.append(node)
        self._origins |= dict.fromkeys(outputs, node)
        return outputs

    def reserve(self, names: Iterable[str]) -> None:
        """Keep names that will be declared later from being given out by `fresh`."""
        self._reserved.update(names)

    def fresh(self, stem: str) -> str:
        """A name that no value and no node has yet: relu_1, relu_2, ..."""
        while True:
            self._counters[stem] = self._counters.get(stem, 0) + 1
            name = f"{stem}_{self._counters[stem]}"
            if not any(name in taken for taken in (self._names, self._node_names, self._reserved)):
                return name

    def build(self, /, *outputs: Value, **named: Value) -> Graph:
        """The finished graph. Positional outputs are named like their values."""
        results = [(v.name, v) for v in outputs] + list(named.items())
        if not results:
            raise GraphError(f"network '{self.name}': expected at least one output, got none")
        for name, v in results:
            if v.builder is not self:
                raise GraphError(f"network '{self.name}': output '{name}' belongs to another network")
        names = tuple(n for n, _ in results)
        for owner, name in [("network", self.name), *((f"output of network '{self.name}'", n) for n in names)]:
            _check_name(name, owner)
        if len(set(names)) != len(names):
            raise GraphError(f"network '{self.name}': output names must differ, got {', '.join(names)}")
        self._check_symbols()
        return Graph(
            self.name,
            tuple(self._inputs),
            dict(self._params),
            tuple(self._nodes),
            tuple(v for _, v in results),
            names,
            dict(self.meta),
        )

    def _check_symbols(self) -> None:
        """Every symbol that the nodes' types depend on is one of the inputs' types, which give it its value."""
        known = frozenset().union(*(v.type.symbols for v in self._inputs))
        for node in self._nodes:
            for v in node.outputs:
                if unknown := v.type.symbols - known:
                    raise GraphError(f"{node}: {v.type} depends on {min(unknown)}, which is in the type of no input")

    def _value(self, name: str, type: TensorType, owner: str) -> Value:
        _check_name(name, owner)
        if name in self._names:
            raise GraphError(f"{owner}: the name '{name}' is already used")
        for d in type.shape:
            if isinstance(d, int) and d < 0:
                raise ShapeError(f"{owner}: every dim must be at least 0, got {type}")
        self._names.add(name)
        return Value(name, type, self)


def _check_name(name: str, owner: str) -> None:
    """GraphError unless the text form has a place for the name; the code generator's own names have a backslash."""
    if not name or re.search(r"[\x00-\x1f\"\\]", name):
        raise GraphError(f"{owner}: expected a printable name without quotes or backslashes, got {name!r}")


def _checked_array(value: Value, array: Array) -> Array:
    if array.shape != value.type.shape or array.dtype != value.type.dtype.numpy:
        got = f"{array.dtype}[{','.join(map(str, array.shape))}]"
        raise ShapeError(f"parameter '{value.name}': expected {value.type}, got {got}")
    return np.ascontiguousarray(array).reshape(array.shape)
