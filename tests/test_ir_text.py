"""The text form: what is printed is read back, and what cannot be read is refused with its line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting import random_graphs, random_param

from graphc import ops
from graphc.errors import GraphcError
from graphc.ir import Builder, Graph, Op, TensorType, f32
from graphc.ir.text import format_graph, parse_graph
from graphc.ir.types import parse_type
from graphc.ops import OPS

LENET = """\
graph lenet(%image: f32[N,1,H,W]) {
  %conv1.weight: f32[6,1,5,5] = param()
  %conv1.bias: f32[6] = param()
  %half: f32[] = const(0.5)
  %row: f32[1,3] = const(((1.0, -inf, nan),))
  %conv1: f32[N,6,(H+1)//2-2,W-2] = conv2d(%image, %conv1.weight, %conv1.bias, stride=(2, 1), padding=(0, 1, 0, 1))
  %"my act": f32[N,6,(H+1)//2-2,W-2] = leaky_relu(%conv1, alpha=0.2) @ "act"
  %scaled: f32[N,6,(H+1)//2-2,W-2] = fused(%"my act", %half, expr='max((x0 * x1), -inf)')
  return %scaled, "the conv"=%conv1
}"""


def test_printing_and_reading() -> None:
    graph = parse_graph(LENET, OPS, random_param)
    assert str(graph) == LENET
    assert graph.output_names == ("scaled", "the conv")
    assert graph.nodes[1].name == "act"
    assert graph.nodes[1].op == ops.LeakyRelu(alpha=0.2)
    assert graph.params["conv1.weight"].trainable
    assert not graph.params["half"].trainable
    assert graph.params["half"].array == np.float32(0.5)


@given(random_graphs())
def test_round_trip_of_random_graphs(graph: Graph) -> None:
    text = format_graph(graph)
    again = parse_graph(text, OPS, {name: p.array for name, p in graph.params.items()})
    assert format_graph(again) == text
    assert [n.op for n in again.nodes] == [n.op for n in graph.nodes]
    assert [n.name for n in again.nodes] == [n.name for n in graph.nodes]


names = st.text(alphabet="ab1./_:-%=@(){},[]' \u2028", min_size=1, max_size=9)


@given(st.lists(names, min_size=6, max_size=6, unique=True))
def test_round_trip_of_any_names(names: list[str]) -> None:
    net = Builder(names[0])
    x = net.input(names[1], f32("N", 2))
    c = net.param(names[2], np.ones(2, np.float32))
    (y,) = net.add(ops.Add(), (x, c), names[3], [names[4]])
    graph = net.build(**{names[5]: y})
    again = parse_graph(str(graph), OPS, random_param)
    assert str(again) == str(graph)
    assert (again.name, again.inputs[0].name, list(again.params)) == (names[0], names[1], [names[2]])
    (node,) = again.nodes
    assert (node.name, node.outputs[0].name, again.output_names) == (names[3], names[4], (names[5],))


attributes = st.floats(allow_nan=True) | st.integers()


@given(attributes, st.tuples(attributes, attributes).filter(lambda pair: pair[0] <= pair[1]))
def test_round_trip_of_attributes(slope: float, bounds: tuple[float, float]) -> None:
    for op in (ops.LeakyRelu(slope), ops.Clip(*bounds), ops.Fused(f"(x0 * {slope!r})")):
        net = Builder("attributes")
        graph = net.build(net.apply(op, net.input("x", f32(3))))
        (node,) = parse_graph(str(graph), OPS, {}).nodes
        assert str(node.op) == str(op)
        assert list(map(type, node.op.attributes().values())) == list(map(type, op.attributes().values()))


@pytest.mark.parametrize("text", ["f32[]", "f64[N,3,H,W]", "i64[2*(H//2),min(H,W)]", "bool[4]"])
def test_types(text: str) -> None:
    assert str(parse_type(text)) == text


@pytest.mark.parametrize("text", ["f8[N]", "f32", "f32[N", "[N]", "f32[N]x", "f32[N!]"])
def test_what_is_no_type(text: str) -> None:
    with pytest.raises(GraphcError, match=r"type|dimension"):
        parse_type(text)


def one_line(line: str) -> str:
    return f"graph g(%x: f32[N,4]) {{\n  {line}\n  return %y\n}}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%y = relu(%x)", r"graph text line 2: expected %name: type = op\(...\), got '%y = relu\(%x\)'"),
        ("%y: f32[N,4] = relux(%x)", "line 2: unknown op 'relux'"),
        ("%y: f32[N,4] = relu(%z)", "line 2: %z is used before it is defined"),
        ("%y: f32[N,4] = relu(%x, alpha=2)", "line 2: relu: .*unexpected keyword argument 'alpha'"),
        ("%y: f32[N,5] = relu(%x)", r"line 2: relu 'y': the text says f32\[N,5\], the op infers f32\[N,4\]"),
        ("%x: f32[N,4] = relu(%x)", "line 2: relu 'x': the name 'x' is already used"),
        ("%y: f32[N,4], %z: f32[N,4] = relu(%x)", "line 2: relu 'y': expected 1 output names, got 2"),
        ("%y: f32[N,4] = relu(%x, %x)", "line 2: relu 'y': expected 1 inputs, got 2"),
        ("%y: f32[N,4] = clip(%x, minimum=)", "line 2: attribute: cannot read ''"),
        ("%y: f32[N,4] = clip(%x, minimum=2.0, maximum=1.0)", "line 2: clip: expected minimum <= maximum"),
        ("%y: f32[3] = const((1.0, 2.0))", r"line 2: parameter 'y': expected f32\[3\], got float32\[2\]"),
        ("%y: f32[2,2] = const(((1.0, 2.0), 3.0))", r"line 2: parameter 'y': expected data for f32\[2,2\]"),
        ("%y: f32[3] = param()", r"line 2: parameter 'y': expected data for f32\[3\], got none"),
        ("y is relu(x)", r"line 2: expected %name: type = op\(...\), got 'y is relu\(x\)'"),
    ],
)
def test_what_cannot_be_read_is_named(line: str, message: str) -> None:
    with pytest.raises(GraphcError, match=message):
        parse_graph(one_line(line), OPS, {})


@pytest.mark.parametrize("text", ["", "graph", "graph g(%x: f32[N]) {", "graph g(%x: f32[N]) {\n}"])
def test_what_is_no_graph(text: str) -> None:
    with pytest.raises(GraphcError, match="graph text: expected"):
        parse_graph(text, OPS, {})


def test_several_results() -> None:
    class Halves(ops.Identity):
        def infer(self, *types: TensorType) -> tuple[TensorType, ...]:  # type: ignore[override]
            return types * 2

    table: dict[str, type[Op]] = {"identity": Halves}
    text = "graph g(%x: f32[N]) {\n  %h.0: f32[N], %h.1: f32[N] = identity(%x)\n  return %h.1\n}"
    graph = parse_graph(text, table, {})
    assert str(graph) == text
    assert graph.nodes[0].name == "h"
