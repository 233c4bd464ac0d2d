"""Hostile files with functions, branches and loops that have no end, or too many of them."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from hostile import Case, bad
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx_models import Shape, make_model, node

from graphc.errors import GraphError, ShapeError, UnsupportedError

FEW = {"GRAPHC_MOST_NODES": "1000"}  # what a loop without end becomes, or nearly, takes seconds
YES = {"k": np.array(True)}


def functions(bodies: dict[str, Sequence[str]]) -> ModelProto:
    """A model that calls f0: each function's body is the chain of these functions, or ops of ONNX."""
    model = make_model([helper.make_node("f0", ["x"], ["y"], "node_y", domain="my")], {"x": [2]})
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    model.opset_import.append(imports[1])
    for name, calls in bodies.items():
        values = ["a", *(f"t{i}" for i in range(1, len(calls))), "b"]
        domains = ["my" if call in bodies else "" for call in calls]
        steps = zip(calls, values, values[1:], domains, strict=False)
        nodes = [helper.make_node(call, [a], [b], domain=domain) for call, a, b, domain in steps]
        model.functions.append(helper.make_function("my", name, ["a"], ["b"], nodes, imports))
    return model


def redefined() -> ModelProto:
    model = make_model([node("Add", "x x")], {"x": [2]})
    model.functions.add(name="Add", domain="", input=["a"], output=["b"])
    return model


def body(
    nodes: Sequence[NodeProto], inputs: dict[str, tuple[int, Shape]] | None = None, outputs: str = "b"
) -> GraphProto:
    declared = [helper.make_tensor_value_info(name, *of) for name, of in (inputs or {}).items()]
    return helper.make_graph(list(nodes), "body", declared, [onnx.ValueInfoProto(name=o) for o in outputs.split()])


def loop(trips: int | None = None, condition: bool | None = None, stacked: bool = False) -> ModelProto:
    """A loop whose body keeps its condition."""
    inputs = {"i": (TensorProto.INT64, []), "c": (TensorProto.BOOL, []), "v": (TensorProto.FLOAT, [2])}
    nodes = [node("Identity", "c", "d"), node("Relu", "v", "w"), node("Relu", "v", "u")]
    given = {"m": trips, "go": condition}
    data = {name: np.array(value) for name, value in given.items() if value is not None}
    operands = " ".join(name if name in data else "-" for name in given)
    field = body(nodes, inputs, "d w u" if stacked else "d w")  # type: ignore[arg-type]
    return make_model([node("Loop", f"{operands} x", "y z" if stacked else "y", body=field)], {"x": [2]}, data)


def branches(depth: int, both: bool = False) -> Callable[[object], ModelProto]:
    """An If in an If, in one branch or in both."""

    def make(_: object) -> ModelProto:
        inner = leaf = body([node("Relu", "x", "b")])
        for _ in range(depth):
            inner = body([node("If", "k", "b", then_branch=inner, else_branch=inner if both else leaf)])
        return make_model([node("If", "k", then_branch=inner, else_branch=inner)], {"x": [2]}, YES)

    return make


def branch(nodes: Sequence[NodeProto], outputs: str = "b") -> ModelProto:
    same = body(nodes, outputs=outputs)
    return make_model([node("If", "k", then_branch=same, else_branch=same)], {"x": [2]}, YES)


def scan(length: int, **fields: object) -> ModelProto:
    row = body([node("Relu", "v", "b")], {"v": (TensorProto.FLOAT, [])})
    return make_model([node("Scan", "x", body=row, **{"num_scan_inputs": 1, **fields})], {"x": [length]})


CASES: dict[str, Case] = {
    "function_calls_itself": bad(functions({"f0": ["f0"]}), GraphError, "node_y"),
    "functions_in_a_ring": bad(functions({"f0": ["f1"], "f1": ["f2"], "f2": ["f0"]}), GraphError, "node_y"),
    "functions_double": bad(
        functions({**{f"f{i}": [f"f{i + 1}"] * 2 for i in range(60)}, "f60": ["Relu"]}), UnsupportedError, "node_y/f1"
    ),
    "functions_double_30": Case(
        functions({**{f"f{i}": [f"f{i + 1}"] * 2 for i in range(30)}, "f30": ["Relu"]}),
        UnsupportedError,
        "node_y/f1",
        settings=FEW,
    ),
    "functions_deep": bad(
        functions({**{f"f{i}": [f"f{i + 1}"] for i in range(5000)}, "f5000": ["Relu"]}), UnsupportedError, "node_y/f1"
    ),
    "functions_wide": Case(
        functions({"f0": ["f1"] * 1000, "f1": ["f2"] * 1000, "f2": ["Relu"]}),
        UnsupportedError,
        "node_y/t",
        settings=FEW,
    ),
    "function_empty": bad(functions({"f0": []}), GraphError, "node_y"),
    "function_named_as_an_op": bad(redefined(), GraphError, "node_y"),
    "loop_endless": bad(loop(condition=True), UnsupportedError, "node_y"),  # with the budget that holds by default
    "loop_without_end": Case(loop(), UnsupportedError, "node_y", settings=FEW),
    "loop_huge": Case(loop(trips=2**62), UnsupportedError, "node_y", settings=FEW),
    "loop_that_stacks": Case(loop(trips=2**40, stacked=True), UnsupportedError, "node_y", settings=FEW),
    "loop_that_stacks_nothing": bad(loop(trips=0, stacked=True), ShapeError, "node_y"),
    "loop_negative": Case(loop(trips=-1)),
    "if_in_if_20": Case(branches(20)),
    "if_in_if_doubles": Case(branches(12, both=True)),
    "if_in_if_beyond_budget": Case(branches(20), UnsupportedError, "node_b", settings={"GRAPHC_MOST_NESTED": "9"}),
    "if_without_branch": bad(make_model([node("If", "k")], {"x": [2]}, YES), GraphError, "node_y"),
    "if_without_output": bad(branch([]), GraphError, "node_y"),
    "if_redefines_input": bad(branch([node("Relu", "x", "x")], outputs="x"), GraphError, "node_y"),
    "scan_long": bad(scan(2**31), UnsupportedError, "node_y"),
    "scan_of_nothing": bad(scan(2, num_scan_inputs=0), GraphError, "node_y"),
    "scan_axis": bad(scan(2, scan_input_axes=[7]), ShapeError, "node_y"),
}
