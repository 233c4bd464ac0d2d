"""The verifier, the order of nodes read from outside, and what a graph requires of its input sizes."""

from dataclasses import replace

import pytest
from rewriting import read

from graphc.errors import GraphError, InputError, ShapeError
from graphc.ir import Builder, Graph, Node, Value, f32, parse_type
from graphc.ir.verify import requirements, sort_nodes, verify
from graphc.ops import Add, Conv2d, Relu
from graphc.reference import check_sizes

CHAIN = """
    graph chain(%x: f32[N,4]) {
      %a: f32[N,4] = relu(%x)
      %b: f32[N,4] = tanh(%a)
      %c: f32[N,4] = add(%a, %b)
      return %c
    }
"""


def with_output(node: Node, *outputs: Value) -> Node:
    return replace(node, outputs=outputs)


def test_a_good_graph_is_returned() -> None:
    graph = read(CHAIN)
    assert verify(graph) is graph


def test_wrong_stored_type() -> None:
    graph = read(CHAIN)
    wrong = with_output(graph.nodes[2], Value("c", parse_type("f32[N,5]")))
    with pytest.raises(GraphError, match=r"add 'c': expected the inferred type f32\[N,4\], got f32\[N,5\]"):
        verify(replace(graph, nodes=(*graph.nodes[:2], wrong), outputs=wrong.outputs))


def test_types_that_an_op_refuses() -> None:
    x, y = Value("x", f32("N", 4)), Value("y", f32("N", 3))
    node = Node("sum", Add(), (x, y), (Value("sum", f32("N", 4)),))
    with pytest.raises(ShapeError, match=r"add 'sum': shapes \[N,4\] and \[N,3\] do not broadcast: 4 against 3"):
        verify(Graph("bad", (x, y), {}, (node,), node.outputs, ("sum",)))


def test_value_used_before_it_is_defined() -> None:
    graph = read(CHAIN)
    a, b, c = graph.nodes
    with pytest.raises(GraphError, match="tanh 'b': input %a is not defined before it"):
        verify(replace(graph, nodes=(b, a, c)))


def test_output_that_nothing_defines() -> None:
    graph = read(CHAIN)
    with pytest.raises(GraphError, match=r"network 'chain': output 'c' \(%c\) is not defined"):
        verify(replace(graph, nodes=graph.nodes[:2]))


def test_two_values_of_one_name() -> None:
    graph = read(CHAIN)
    twice = with_output(graph.nodes[2], Value("a", f32("N", 4)))
    with pytest.raises(GraphError, match="network 'chain': two values are named 'a'"):
        verify(replace(graph, nodes=(*graph.nodes[:2], twice), outputs=twice.outputs))


def test_two_nodes_of_one_name() -> None:
    graph = read(CHAIN)
    twice = replace(graph.nodes[2], name="a")
    with pytest.raises(GraphError, match="network 'chain': two nodes are named 'a'"):
        verify(replace(graph, nodes=(*graph.nodes[:2], twice)))


def test_sort_nodes() -> None:
    graph = read(CHAIN)
    a, b, c = graph.nodes
    assert sort_nodes([c, b, a], "chain") == (a, b, c)
    assert sort_nodes([a, b, c], "chain") == (a, b, c)


def test_sort_nodes_names_a_cycle() -> None:
    x, y, z = (Value(n, f32("N", 4)) for n in "xyz")
    nodes = [Node("first", Relu(), (z,), (y,)), Node("second", Relu(), (y,), (z,)), Node("free", Relu(), (x,), ())]
    with pytest.raises(GraphError, match="network 'ring': the graph has a cycle: relu 'first' -> relu 'second'"):
        sort_nodes(nodes, "ring")


def test_too_small_an_image_is_named() -> None:
    net = Builder("small")
    x = net.input("image", f32("N", 1, "H", "W"))
    w = net.param("w", lambda rng: rng.standard_normal((2, 1, 5, 5)), parse_type("f64[2,1,5,5]"))
    with pytest.raises(ShapeError, match=r"conv2d 'conv1': weight must be f32\[K,C,R,S\], got f64\[2,1,5,5\]"):
        net.apply(Conv2d(bias=False), x, w, name="conv1")
    graph = read("""
        graph small(%image: f32[N,1,H,W]) {
          %w: f32[2,1,5,5] = param()
          %conv1: f32[N,2,H-4,W-4] = conv2d(%image, %w, bias=False)
          return %conv1
        }
    """)
    check_sizes(graph, {"N": 1, "H": 5, "W": 5})
    message = r"conv2d 'conv1': its output size W-4 must be at least 1; the image is too small .*\(got N=1, H=5, W=4\)"
    with pytest.raises(InputError, match=message):
        check_sizes(graph, {"N": 1, "H": 5, "W": 4})


UNET = """
    graph unet(%image: f32[N,1,H,W]) {
      %down: f32[1,1,2,2] = param()
      %up: f32[1,1,2,2] = param()
      %small: f32[N,1,H//2,W//2] = conv2d(%image, %down, stride=(2, 2), bias=False)
      %large: f32[N,1,2*(H//2),2*(W//2)] = conv_transpose2d(%small, %up, stride=(2, 2), bias=False)
      %sum: f32[N,1,H,W] = add(%image, %large)
      return %sum
    }
"""


def test_a_skip_connection_requires_even_sizes() -> None:
    graph = read(UNET)
    assert [(r.a, r.b) for r in requirements(graph) if r.b is not None] == [
        (graph.inputs[0].type.shape[axis], graph.nodes[1].outputs[0].type.shape[axis]) for axis in (2, 3)
    ]
    check_sizes(graph, {"N": 1, "H": 6, "W": 8})
    with pytest.raises(InputError, match=r"add 'sum': H must equal 2\*\(H//2\); the image size does not fit"):
        check_sizes(graph, {"N": 1, "H": 7, "W": 8})


def test_each_requirement_is_listed_once() -> None:
    listed = [(r.a, r.b) for r in requirements(read(UNET))]
    assert len(listed) == len(set(listed))
