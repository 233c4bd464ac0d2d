"""If, Loop, Scan and a model's own functions: their bodies take the node's place, as often as they run."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from onnx_models import floats, ints, make_model, node, run_onnxruntime

import graphc
from graphc.errors import GraphcError, GraphError, UnsupportedError
from graphc.ir.verify import verify
from graphc.onnx import from_model
from graphc.reference import run_reference

IMAGE = ("N", 2, "h", "w")
X = floats(2, 2, 3, 5)


def body(nodes: Sequence[NodeProto], inputs: str = "", outputs: str = "y", **data: object) -> GraphProto:
    """A graph attribute; an input i is an integer, c a truth value, any other a tensor of floats."""
    kinds = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "go": TensorProto.BOOL}
    given = [helper.make_tensor_value_info(v, kinds.get(v, TensorProto.FLOAT), [] if v in kinds else None)
             for v in inputs.split()]  # fmt: skip
    results = [helper.make_tensor_value_info(v, kinds.get(v, TensorProto.FLOAT), None) for v in outputs.split()]
    return helper.make_graph(
        list(nodes), "body", given, results, [numpy_helper.from_array(np.asarray(a), k) for k, a in data.items()]
    )


def image_model(*nodes: NodeProto, outputs: str = "y", **data: object) -> onnx.ModelProto:
    return make_model(nodes, {"x": IMAGE}, {k: np.asarray(a) for k, a in data.items()}, outputs)


def check(model: onnx.ModelProto) -> graphc.Graph:
    graph = verify(from_model(model))
    found = run_reference(graph, [X])
    for a, b in zip(found, run_onnxruntime(model, {"x": X}), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    return graph


NEGATE, DOUBLE = body([node("Neg", "x", "r")], outputs="r"), body([node("Add", "x x", "r")], outputs="r")
ADD_NUMBER = body(  # v + i, and a row of the results
    [node("Cast", "i", "f", to=1), node("Add", "v f", "next"), node("Identity", "c", "go"), node("Neg", "next", "row")],
    "i c v", "go next row",
)  # fmt: skip


@pytest.mark.parametrize("truth", [True, False])
def test_a_known_condition_chooses(truth: bool) -> None:
    choice = node("If", "c", then_branch=NEGATE, else_branch=DOUBLE)
    graph = check(image_model(choice, c=truth))
    assert [n.op.name for n in graph.nodes] == ["neg" if truth else "add"]


def test_a_condition_of_shapes_chooses() -> None:
    """As exporters write squeeze: is the dim 1?"""
    model = image_model(
        node("Shape", "x", "s", start=1, end=2), node("Equal", "s one", "c"),
        node("If", "c", then_branch=NEGATE, else_branch=DOUBLE), one=ints(1),
    )  # fmt: skip
    assert [n.op.name for n in check(model).nodes] == ["add"]


def test_bodies_in_bodies_see_what_is_around_them() -> None:
    inner = body([node("If", "d", "r", then_branch=NEGATE, else_branch=DOUBLE), node("Mul", "r k", "q")],
                 outputs="q", k=np.float32(3))  # fmt: skip
    model = image_model(node("If", "c", then_branch=inner, else_branch=DOUBLE), node("Not", "d", "c"), d=False)
    assert [n.op.name for n in check(model).nodes] == ["add", "mul"]


def test_loops_are_unrolled() -> None:
    loop = node("Loop", "n c x", "y rows", body=ADD_NUMBER)
    graph = check(image_model(loop, outputs="y rows", n=np.int64(3), c=True))
    assert [n.op.name for n in graph.nodes].count("neg") == 3
    assert str(graph.outputs[1].type) == "f32[3,N,2,H,W]"


def test_a_loop_ends_where_its_condition_does() -> None:
    counting = body(
        [node("Add", "v k", "next"), node("Less", "i two", "go")], "i c v", "go next", k=np.float32(2), two=np.int64(2)
    )
    check(image_model(node("Loop", "- c x", body=counting), c=True))
    check(image_model(node("Loop", "n c x", body=counting), n=np.int64(2), c=True))
    check(image_model(node("Loop", "n - x", body=counting), n=np.int64(0)))


def test_scans_are_unrolled() -> None:
    summing = body([node("Add", "total part", "next"), node("Identity", "next", "row")], "total part", "next row")
    for options in ({}, {"scan_input_directions": [1], "scan_output_axes": [1], "scan_output_directions": [1]}):
        scan = node("Scan", "zero x", "last y", body=summing, num_scan_inputs=1, scan_input_axes=[1], **options)
        check(image_model(node("ReduceSum", "x axis", "zero", keepdims=0), scan, outputs="last y", axis=ints(1)))


def with_functions(model: onnx.ModelProto, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    model.functions.extend(functions)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.ir_version = 10
    return model


def function(name: str, inputs: str, nodes: Sequence[NodeProto], outputs: str = "y", **defaults: float):
    attributes = [helper.make_attribute(k, v) for k, v in defaults.items()]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_function(
        "own", name, inputs.split(), outputs.split(), list(nodes), imports, attribute_protos=attributes
    )


def leaky(alpha_from: str) -> NodeProto:
    """LeakyRelu whose alpha is the attribute `alpha_from` of the function around it."""
    found = node("LeakyRelu", "a", "b")
    reference = found.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT)
    reference.ref_attr_name = alpha_from
    return found


def test_functions_are_read_in_place() -> None:
    act = function("Act", "a", [leaky("slope")], "b", slope=0.25)
    twice = function("Twice", "x", [node("Act", "x", "h", domain="own", slope=0.5), node("Act", "h", domain="own")])
    model = with_functions(image_model(node("Twice", "x", domain="own")), act, twice)
    assert [n.op.alpha for n in check(model).nodes] == [0.5, 0.25]  # type: ignore[attr-defined]


def test_functions_that_call_themselves_are_refused() -> None:
    f = function("F", "x", [node("G", "x", domain="own")])
    g = function("G", "x", [node("F", "x", domain="own")])
    with pytest.raises(GraphError, match="the function F calls itself"):
        from_model(with_functions(image_model(node("F", "x", domain="own")), f, g))


def test_a_condition_that_a_run_computes_is_refused() -> None:
    model = image_model(
        node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "c"),
        node("If", "c", then_branch=NEGATE, else_branch=DOUBLE), zero=np.float32(0),
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"node 'node_y' \(op If\): the condition 'c' must be constant"):
        from_model(model)


def test_a_condition_that_is_an_input_is_known_in_a_run() -> None:
    model = image_model(node("If", "c", then_branch=NEGATE, else_branch=DOUBLE))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    run = graphc.compile(model, threads=1)
    np.testing.assert_array_equal(run(X, np.array(True)), -X)
    np.testing.assert_array_equal(run(X, np.array(False)), X + X)


@pytest.mark.parametrize(("trips", "nested"), [(10**15, False), (1000, True)])
def test_a_file_cannot_ask_for_any_number_of_nodes(trips: int, nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_MOST_NODES", "500")
    inner = ADD_NUMBER
    if nested:
        inner = body(
            [node("Loop", "n c v", "next row", body=ADD_NUMBER), node("Identity", "c", "go")], "i c v", "go next"
        )
    model = image_model(node("Loop", "n c x", "y" if nested else "y rows", body=inner), n=np.int64(trips), c=True)
    with pytest.raises(GraphcError, match="more than 500 nodes in place of it"):
        from_model(model)
