"""Nodes that stand for other nodes: If, Loop and Scan whose course is known, and a model's own functions.

Their bodies are read in the node's place, under new names, as often as they run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, helper

from graphc.errors import GraphError, ShapeError, UnsupportedError
from graphc.ir import Value
from graphc.onnx.import_ops.shapes import positive_axis
from graphc.onnx.names import Names, clean
from graphc.onnx.ordering import bodies_of, read_names, sort_nodes
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Constant, Operand, Scope
from graphc.settings import MOST_NESTED, MOST_NODES, most_nested, most_nodes

FunctionKey = tuple[str, str, str]


@dataclass
class Inliner:
    """Reads bodies. `read_node` reads a node under a name, `read_value` gives what an ONNX name stands for."""

    scope: Scope
    tensors: dict[str, TensorProto]
    functions: Mapping[FunctionKey, FunctionProto]
    keys: Names  # of ONNX values
    read_node: Callable[[NodeProto, str], None]
    read_value: Callable[[str], Operand | None]
    _left: int = field(default_factory=most_nodes)  # so many more nodes may stand for bodies
    _open: list[FunctionKey | None] = field(default_factory=list)  # the bodies that are being read

    def find(self, node: NodeProto) -> Callable[[NodeReader], None] | None:
        """What reads the node, if it stands for others."""
        if key_of(node) in self.functions:
            return lambda n: self._call(n, node)
        readers = {"If": self._branch, "Loop": self._loop, "Scan": self._scan}
        return readers.get(node.op_type) if node.domain in ("", "ai.onnx") else None

    def _call(self, n: NodeReader, node: NodeProto) -> None:
        """A function: its body, with the node's attributes in place of those that it refers to."""
        key = key_of(node)
        function = self.functions[key]
        n.unread.clear()  # those that the body does not refer to mean nothing
        opset = next((o.version for o in function.opset_import if o.domain in ("", "ai.onnx")), n.opset)
        if key in self._open:
            raise GraphError(f"the function {node.op_type} calls itself")
        if opset != n.opset:
            raise UnsupportedError(f"a function of opset {opset} in a model of opset {n.opset}")
        if len(node.input) > len(function.input) or len(node.output) > len(function.output):
            raise GraphError(f"expected at most {len(function.input)} inputs and {len(function.output)} outputs")
        given = {a.name: a for a in (*function.attribute_proto, *node.attribute)}
        inputs = dict(zip(function.input, [*node.input, *[""] * len(function.input)], strict=False))
        body = GraphProto(node=[_resolve(inner, given) for inner in function.node])
        body.output.extend(helper.make_value_info(o, helper.make_tensor_type_proto(1, None)) for o in function.output)
        self._define(n, self._read_body(n, body, inputs, key)[: len(node.output)])

    def _branch(self, n: NodeReader) -> None:
        """If: the branch that the condition chooses."""
        condition = bool(n.scalar(0, "the condition"))
        branches = {taken: n.graph(f"{'then' if taken else 'else'}_branch") for taken in (True, False)}
        self._define(n, self._read_body(n, branches[condition], {}))

    def _loop(self, n: NodeReader) -> None:
        """Loop: the body as often as the trip count and the condition say, which must be known."""
        body = n.graph("body")
        trips = n.scalar(0, "the trip count") if n.has_input(0) else np.inf
        going = bool(n.scalar(1, "the condition")) if n.has_input(1) else True
        state: list[Operand | None] = [n.operand(i) for i in range(2, len(n.inputs))]
        if len(body.input) != 2 + len(state) or len(body.output) != len(n.outputs) + 1:
            raise GraphError("expected a body with a number, a condition and the loop's values")
        rows: list[list[Operand | None]] = []
        i = 0
        while i < trips and going:
            number = Constant(self.scope.new_names.fresh(f"{n.name}.number"), np.array(i, np.int64))
            truth = Constant(self.scope.new_names.fresh(f"{n.name}.going"), np.array(True))
            names = [self._name(n, v.name, o) for v, o in zip(body.input, [number, truth, *state], strict=True)]
            inputs = dict(zip((v.name for v in body.input), names, strict=True))
            condition, *results = self._read_body(n, body, inputs)
            state, i = results[: len(state)], i + 1
            rows.append(results[len(state) :])
            if condition is None or None in state:
                return
            going = bool(n.scalar_of(condition, "the condition"))
        self._define(n, [*state, *self._stack(n, rows, [0] * (len(n.outputs) - len(state)))])

    def _scan(self, n: NodeReader) -> None:
        """Scan: the body for each place along an axis of constant length."""
        if n.opset < 9:
            raise UnsupportedError(f"opset {n.opset} scans batches")
        body, count = n.graph("body"), n.integer("num_scan_inputs", 0)
        states = len(n.inputs) - count
        outputs = len(n.outputs) - states
        xs = [n.value(i) for i in range(states, len(n.inputs))]
        if count < 1 or states < 0 or outputs < 0 or len(body.input) != len(n.inputs):
            raise GraphError("expected as many inputs as the body has, at least one of them scanned")
        chosen = zip(n.integers("scan_input_axes", [0] * count), xs, strict=True)
        axes = [positive_axis(a, x.type.rank) for a, x in chosen]
        backwards = n.integers("scan_input_directions", [0] * count)
        lengths = {x.type.shape[axis] for x, axis in zip(xs, axes, strict=True)}
        length = lengths.pop()
        if lengths or not isinstance(length, int):
            raise UnsupportedError(f"a scan over {length} places, expected one constant number of them")
        self._charge(length)  # before any is read: each takes some nodes beside the body's
        state: list[Operand | None] = [n.operand(i) for i in range(states)]
        rows: list[list[Operand | None]] = []
        for i in range(length):
            places = [length - 1 - i if back else i for back in backwards]
            cut = [self._cut(n, x, axis, place) for x, axis, place in zip(xs, axes, places, strict=True)]
            names = [self._name(n, v.name, o) for v, o in zip(body.input, [*state, *cut], strict=True)]
            inputs = dict(zip((v.name for v in body.input), names, strict=True))
            results = self._read_body(n, body, inputs)
            state, row = results[:states], results[states:]
            rows.append(row)
            if None in results:
                return
        out_axes = n.integers("scan_output_axes", [0] * outputs)
        reverse = n.integers("scan_output_directions", [0] * outputs)
        self._define(n, [*state, *self._stack(n, rows, out_axes, reverse)])

    # ---- bodies -------------------------------------------------------------------------------------------------

    def _read_body(
        self, n: NodeReader, body: GraphProto, inputs: Mapping[str, str], key: FunctionKey | None = None
    ) -> list[Operand | None]:
        """Read the body once, its inputs being these ONNX values; what its outputs are."""
        self._charge(sum(1 for _ in walk(body)))
        if len(self._open) >= most_nested():
            raise UnsupportedError(f"more than {most_nested()} bodies in each other ({MOST_NESTED.name})")
        if body.sparse_initializer:
            raise UnsupportedError("sparse initializers, expected dense ones")
        renamed = dict(inputs)
        for name in (*(t.name for t in body.initializer), *(o for inner in body.node for o in inner.output if o)):
            if name in renamed:
                raise GraphError(f"its value '{name}' is already defined")
            renamed[name] = self._key(n, name)
        self.tensors |= {renamed[t.name]: t for t in body.initializer}
        nodes = [_rename(inner, renamed) for inner in body.node]
        self.scope.used |= {name for inner in nodes for name in read_names(inner)}
        results = [renamed.get(o.name, o.name) for o in body.output]
        self.scope.used |= set(results)
        outside = {name for inner in nodes for name in read_names(inner) if self._is_known(name)}
        self._open.append(key)
        for inner in sort_nodes(nodes, outside):
            self.read_node(inner, self.scope.new_names.fresh(clean(f"{n.name}/{inner.name or inner.op_type}")))
        self._open.pop()
        return [self.read_value(name) for name in results]

    def _charge(self, count: int) -> None:
        """Take so many nodes from the budget; UnsupportedError if that many are not left."""
        self._left -= count
        if self._left < 0:
            raise UnsupportedError(f"more than {most_nodes()} nodes in place of it and its like ({MOST_NODES.name})")

    def _is_known(self, name: str) -> bool:
        return name in self.scope.operands or name in self.tensors

    def _key(self, n: NodeReader, name: str) -> str:
        """A new ONNX name, and a name in the graph that belongs to it."""
        key = self.keys.fresh(f"{n.name}/{name}")
        self.scope.names[key] = self.scope.new_names.fresh(clean(key))
        return key

    def _name(self, n: NodeReader, name: str, operand: Operand | None) -> str:
        """A new ONNX name for an operand."""
        key = self._key(n, name)
        self.scope.define(key, operand)
        return key

    def _define(self, n: NodeReader, results: Iterable[Operand | None]) -> None:
        for name, operand in zip(n.outputs, results, strict=True):
            if name:
                self.scope.define(name, operand)

    def _step(self, n: NodeReader, op_type: str, inputs: list[str], **attributes: Any) -> Operand | None:
        """The result of a new ONNX node; lists that are inputs in this opset become constants."""
        since = {"Squeeze": 13, "Unsqueeze": 13, "Slice": 10}.get(op_type)
        lists = {k: v for k, v in attributes.items() if isinstance(v, list)}
        if since is not None and n.opset >= since:
            for k, v in lists.items():
                del attributes[k]
                inputs.append(self._name(n, k, Constant(self.scope.new_names.fresh(k), np.array(v, np.int64))))
        self._charge(1)
        output = self._key(n, op_type.lower())
        self.scope.used.add(output)
        node = helper.make_node(op_type, inputs, [output], **attributes)
        self.read_node(node, self.scope.new_names.fresh(f"{n.name}/{op_type}"))
        return self.scope.operands[output]

    def _cut(self, n: NodeReader, x: Value, axis: int, place: int) -> Operand | None:
        row = self._step(n, "Slice", [self._name(n, "row", x)], starts=[place], ends=[place + 1], axes=[axis])
        return self._step(n, "Squeeze", [self._name(n, "row", row)], axes=[axis])

    def _stack(
        self, n: NodeReader, rows: list[list[Operand | None]], axes: Iterable[int], reverse: Iterable[int] = ()
    ) -> Iterator[Operand | None]:
        """For each output of a body, what its runs gave, joined along a new axis."""
        order = dict(enumerate(reverse))
        for i, axis in enumerate(axes):
            column = [row[i] for row in (rows[::-1] if order.get(i) else rows)]
            if not column:
                raise ShapeError("an output that stacks what each run gives would have no element")
            parts = [self._step(n, "Unsqueeze", [self._name(n, "row", x)], axes=[axis]) for x in column]
            yield self._step(n, "Concat", [self._name(n, "row", x) for x in parts], axis=axis)


def key_of(node: NodeProto) -> FunctionKey:
    """What a function is called: domain, name and overload."""
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type, node.overload


def walk(body: GraphProto) -> Iterator[NodeProto]:
    """Every node of a body and of the bodies in it."""
    waiting = list(body.node)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [inner for b in bodies_of(node) for inner in b.node]


def _rename(node: NodeProto, renamed: Mapping[str, str]) -> NodeProto:
    """A copy in which these values have other names."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for names in (copy.input, copy.output):
        names[:] = [renamed.get(name, name) for name in names]
    for body in bodies_of(copy):
        inside = {v.name for v in body.input} | {t.name for t in body.initializer}
        inside |= {o for inner in body.node for o in inner.output}
        outer = {old: new for old, new in renamed.items() if old not in inside}
        nodes = [_rename(inner, outer) for inner in body.node]
        del body.node[:]
        body.node.extend(nodes)
        for o in body.output:
            o.name = outer.get(o.name, o.name)
    return copy


def _resolve(node: NodeProto, given: Mapping[str, AttributeProto]) -> NodeProto:
    """A copy with the attributes of the call in place of references to them; one that is not given is left out."""
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for a in node.attribute:
        if a.ref_attr_name and a.ref_attr_name not in given:
            continue
        new = copy.attribute.add()
        new.CopyFrom(given[a.ref_attr_name] if a.ref_attr_name else a)
        new.name = a.name
        for body in bodies_of(NodeProto(attribute=[new])) if not a.ref_attr_name else ():
            nodes = [_resolve(inner, given) for inner in body.node]
            del new.g.node[:]
            new.g.node.extend(nodes)
    return copy
