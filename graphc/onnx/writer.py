"""The ONNX graph under construction, and what the export of one node works with."""

from functools import reduce
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from graphc.errors import UnsupportedError
from graphc.ir import Array, DimLike, DType, Graph, Node, dims
from graphc.ir.dims import Atom
from graphc.onnx.names import Names
from graphc.onnx.tensors import write_tensor


class ModelWriter:
    """Collects nodes and initialisers; `names` gives each value of the graph its ONNX name."""

    def __init__(self, graph: Graph, value_names: dict[Any, str], opset: int) -> None:
        self.opset, self.value_names = opset, value_names
        self.new_names = Names((*value_names.values(), *graph.output_names, *(n.name for n in graph.nodes)))
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._dims: dict[DimLike, str] = {}
        self._shapes: dict[str, str] = {}
        self._inputs = [(value_names[v], v.type.shape) for v in graph.inputs]

    def node(self, op_type: str, inputs: list[str], outputs: list[str], name: str, attributes: dict[str, Any]) -> None:
        """Add a node."""
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name, **attributes))

    def constant(self, array: Array, stem: str) -> str:
        """An initialiser with this data: a new one called after `stem`, or one that was made before."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.new_names.fresh(stem)
            self.initializers.append(write_tensor(self._constants[key], array))
        return self._constants[key]

    def shape(self, shape: tuple[DimLike, ...]) -> str:
        """An int64 vector of these sizes, computed from the shapes of the inputs where they depend on them."""
        if all(isinstance(d, int) for d in shape):
            return self.constant(np.array(shape, np.int64), "shape")
        if len(shape) == 1:
            return self._dim(shape[0])
        return self._arithmetic("Concat", [self._dim(d) for d in shape], axis=0)

    def _arithmetic(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = self.new_names.fresh(f"shape.{op_type.lower()}")
        self.node(op_type, inputs, [name], name, attributes)
        return name

    def _dim(self, d: DimLike) -> str:
        """A vector of one int64: the size of `d` in a run."""
        if isinstance(d, int):
            return self.constant(np.array([d], np.int64), "size")
        if d not in self._dims:
            self._dims[d] = reduce(lambda a, b: self._arithmetic("Add", [a, b]), [self._term(*t) for t in d.terms])
        return self._dims[d]

    def _term(self, monomial: tuple[Atom, ...], coefficient: int) -> str:
        factors = [self._atom(a) for a in monomial]
        if coefficient != 1 or not factors:
            factors.append(self._dim(coefficient))
        return reduce(lambda a, b: self._arithmetic("Mul", [a, b]), factors)

    def _atom(self, atom: Atom) -> str:
        if atom.kind == "symbol":
            return self._symbol(str(atom.args[0]))
        parts = [d for d in atom.args if not isinstance(d, str)]
        a, b = (self._dim(d) for d in parts)
        if atom.kind != "floordiv":
            return self._arithmetic({"min": "Min", "max": "Max"}[atom.kind], [a, b])
        if not _is_natural(parts[0]):  # Div rounds towards zero; without the remainder there is nothing to round
            a = self._arithmetic("Sub", [a, self._arithmetic("Mod", [a, b])])
        return self._arithmetic("Div", [a, b])

    def _symbol(self, name: str) -> str:
        for value, shape in self._inputs:
            if dims.symbol(name) in shape:
                if value not in self._shapes:
                    self._shapes[value] = self._arithmetic("Shape", [value])
                place = np.array([shape.index(dims.symbol(name))], np.int64)
                return self._arithmetic("Gather", [self._shapes[value], self.constant(place, "place")], axis=0)
        raise UnsupportedError(f"no input has {name} as a dim of its own to read it from")


class NodeWriter:
    """One node of the graph. An exporter writes `step`s and, last, `emit`s what gives the node's results."""

    def __init__(self, model: ModelWriter, node: Node) -> None:
        self.model, self.node, self.name, self.opset = model, node, node.name, model.opset
        self.inputs = [model.value_names[v] for v in node.inputs]
        self.outputs = [model.value_names[v] for v in node.outputs]

    @property
    def dtype(self) -> DType:
        """The dtype of the first input."""
        return self.node.inputs[0].type.dtype

    def number(self, value: float, what: str, dtype: DType | None = None) -> str:
        """A scalar, of the dtype of the first input by default."""
        return self.model.constant(np.asarray(value, (dtype or self.dtype).numpy), f"{self.name}.{what}")

    def integers(self, values: tuple[int, ...], what: str) -> str:
        """A vector of int64."""
        return self.model.constant(np.array(values, np.int64), f"{self.name}.{what}")

    def step(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A node between, with a single result, whose name is returned."""
        name = self.model.new_names.fresh(f"{self.name}.{op_type.lower()}")
        self.model.node(op_type, list(inputs), [name], name, attributes)
        return name

    def emit(self, op_type: str, *inputs: str, **attributes: Any) -> None:
        """The node with this one's name and results."""
        self.model.node(op_type, list(inputs), self.outputs, self.name, attributes)


def _is_natural(d: DimLike) -> bool:
    """Whether `d` is evidently not negative: a sum of products of symbols and of quotients of such sums."""
    if isinstance(d, int):
        return d >= 0
    atoms = [a for monomial, _ in d.terms for a in monomial]
    return all(c >= 0 for _, c in d.terms) and all(
        a.kind == "symbol" or all(_is_natural(x) for x in a.args if not isinstance(x, str)) for a in atoms
    )
