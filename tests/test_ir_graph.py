"""Builder, graph and view: names, errors that name the layer, rewriting, pickling."""

import copy
import pickle

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from rewriting import check_same_values, random_graphs, read

from graphc import ops
from graphc.errors import GraphError, ShapeError
from graphc.ir import Builder, DType, Graph, Node, Param, TensorType, Value, dims, f32
from graphc.ir.types import split_commas
from graphc.ir.verify import verify
from graphc.ir.view import to_networkx


def ones(net: Builder, name: str, *shape: int) -> Value:
    return net.param(name, np.ones(shape, np.float32))


def test_a_name_is_used_once() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 4))
    net.apply(ops.Relu(), x, name="act")
    with pytest.raises(GraphError, match="tanh 'act': another node has this name"):
        net.apply(ops.Tanh(), x, name="act")
    with pytest.raises(GraphError, match="input 'x': the name 'x' is already used"):
        net.input("x", f32("N"))
    with pytest.raises(GraphError, match="parameter 'act': the name 'act' is already used"):
        ones(net, "act", 2)
    with pytest.raises(GraphError, match="tanh 'other': the name 'act' is already used"):
        net.add(ops.Tanh(), (x,), "other", ["act"])


@pytest.mark.parametrize("name", ["", "a\nb", 'say "x"', "a\\b", "\x00"])
def test_names_that_no_text_can_hold(name: str) -> None:
    with pytest.raises(GraphError, match="expected a printable name without quotes or backslashes"):
        Builder("net").input(name, f32("N"))
    for net, output in ((Builder(name), "y"), (Builder("net"), name)):
        with pytest.raises(GraphError, match="expected a printable name without quotes or backslashes"):
            net.build(**{output: net.input("x", f32("N"))})


def test_values_of_another_network() -> None:
    mine, other = Builder("mine"), Builder("other")
    x, y = mine.input("x", f32("N")), other.input("y", f32("N"))
    with pytest.raises(GraphError, match="add 'sum': input %y belongs to another network"):
        mine.apply(ops.Add(), x, y, name="sum")
    with pytest.raises(GraphError, match="network 'mine': output 'out' belongs to another network"):
        mine.build(out=y)


def test_symbol_that_no_input_gives() -> None:
    net = Builder("net")
    x = net.apply(ops.UpsampleNearest(size=(dims.symbol("P"), 5)), net.input("image", f32(1, 3, 4, 4)), name="up")
    with pytest.raises(GraphError, match=r"upsample_nearest 'up': f32\[1,3,P,5\] depends on P, .* no input"):
        net.build(x)


def test_shapes_that_do_not_fit_name_the_layer() -> None:
    net = Builder("net")
    x, w = net.input("image", f32(1, 4, 224, 224)), ones(net, "w", 64, 3, 7, 7)
    message = r"conv2d 'layer1.0.conv1': weight f32\[64,3,7,7\] wants 3\*1 input channels, x f32\[1,4,224,224\] has 4"
    with pytest.raises(ShapeError, match=message):
        net.apply(ops.Conv2d(bias=False), x, w, name="layer1.0.conv1")


def test_negative_dims_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"input 'x': every dim must be at least 0, got f32\[N,-1\]"):
        Builder("net").input("x", f32("N", -1))


def test_parameters_that_do_not_fit_their_type() -> None:
    net = Builder("net")
    with pytest.raises(ShapeError, match=r"parameter 'w': expected f32\[2\], got float64\[2\]"):
        net.param("w", np.ones(2), f32(2))
    with pytest.raises(ShapeError, match="parameter 'v': an initialiser needs the parameter's type"):
        net.param("v", lambda rng: rng.standard_normal(2))
    with pytest.raises(ShapeError, match=r"dtype: expected one of float32, .*, got complex64"):
        net.param("u", np.ones(2, np.complex64))
    net.param("t", lambda rng: rng.standard_normal(3), f32(3))
    with pytest.raises(ShapeError, match=r"parameter 't': expected f32\[3\], got float64\[3\]"):
        _ = net.build(net.input("x", f32("N"))).params["t"].array


def test_outputs() -> None:
    net = Builder("net")
    x = net.input("x", f32("N"))
    y = net.apply(ops.Relu(), x)
    with pytest.raises(GraphError, match="network 'net': expected at least one output, got none"):
        net.build()
    with pytest.raises(GraphError, match="network 'net': output names must differ, got x, x"):
        net.build(x, x=y)
    graph = net.build(x, y, again=y, self=x)
    assert graph.output_names == ("x", "relu_1", "again", "self")
    assert graph.outputs == (x, y, y, x)


def test_initial_parameters_depend_on_seed_and_name_alone() -> None:
    def draw(seed: int, *names: str) -> dict[str, Param]:
        net = Builder("net", seed)
        for name in names:
            net.param(name, lambda rng: rng.standard_normal(3).astype(np.float32), f32(3))
        return dict(net.build(net.input("x", f32("N"))).params)

    first = draw(0, "a", "b")
    assert np.array_equal(first["b"].array, draw(0, "b")["b"].array)
    assert not np.array_equal(first["a"].array, first["b"].array)
    assert not np.array_equal(first["b"].array, draw(1, "b")["b"].array)


def test_fresh_names_avoid_all_others() -> None:
    net = Builder("net")
    net.input("relu_1", f32("N"))
    net.reserve(["relu_2"])
    assert [net.fresh("relu"), net.fresh("relu"), net.fresh("tanh")] == ["relu_3", "relu_4", "tanh_1"]


def test_rewriting_keeps_names_that_come_later() -> None:
    """A rule's fresh name must not be one that a later node of the graph has."""
    graph = read("""
        graph g(%x: f32[N,4]) {
          %a: f32[N,4] = relu(%x)
          %const_1: f32[N,4] = tanh(%a)
          return %const_1
        }
    """)

    def rule(builder: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if not isinstance(node.op, ops.Relu):
            return None
        return builder.add(ops.Maximum(), (*inputs, builder.constant(0.0)), node.name)

    rewritten = verify(graph.rewrite(rule))
    assert list(rewritten.params) == ["const_2"]
    check_same_values(graph, rewritten)


def test_producers_consumers_and_symbols() -> None:
    graph = read("""
        graph g(%x: f32[2*K,H,W], %y: f32[N]) {
          %c: f32[W] = param()
          %a: f32[2*K,H,W] = mul(%x, %x)
          %b: f32[2*K,H,W] = add(%a, %c)
          return %a, %b
        }
    """.replace("[W]", "[5]").replace("H,W", "H,5"))  # fmt: skip
    a, b = graph.nodes
    assert graph.producers == {a.outputs[0]: a, b.outputs[0]: b}
    assert graph.consumers == {graph.inputs[0]: [a], a.outputs[0]: [b], graph.params["c"].value: [b]}
    assert graph.constants == {graph.params["c"].value: graph.params["c"]}
    assert graph.symbols == ("N", "H", "K")
    assert [v.name for v in graph.values()] == ["x", "y", "c", "a", "b"]


def test_view_as_networkx() -> None:
    graph = read("""
        graph g(%x: f32[N,4]) {
          %c: f32[4] = param()
          %a: f32[N,4] = add(%x, %c)
          %b: f32[N,4] = mul(%a, %x)
          return %b
        }
    """)
    view = to_networkx(graph)
    assert list(nx.topological_sort(view)) == [graph.inputs[0], *graph.nodes]
    assert view.edges[graph.nodes[0], graph.nodes[1]]["value"] is graph.nodes[0].outputs[0]
    assert view.number_of_edges() == 3


@given(random_graphs())
def test_pickling_and_copying(graph: Graph) -> None:
    graph.consumers  # noqa: B018  # a graph with its tables is pickled as well
    for again in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        assert str(verify(again)) == str(graph)
        assert all(v.builder is None for v in again.values())
        check_same_values(graph, again)


def test_pickling_runs_the_initialisers() -> None:
    net = Builder("net")
    w = net.param("w", lambda rng: rng.standard_normal(3).astype(np.float32), f32(3))
    graph = net.build(net.apply(ops.Add(), net.input("x", f32("N", 3)), w))
    again = pickle.loads(pickle.dumps(graph))
    assert np.array_equal(again.params["w"].array, graph.params["w"].array)


def test_types() -> None:
    t = f32("N", 3, "2*H", 8)
    assert str(t) == "f32[N,3,2*H,8]"
    assert t.rank == 4
    assert t.symbols == {"N", "H"}
    assert str(t.elements) == "48*H*N"
    assert t.substitute({"N": 1, "H": 4}) == f32(1, 3, 8, 8)
    assert f32(1, 3).static_shape() == (1, 3)
    with pytest.raises(ShapeError, match=r"expected a constant shape, got f32\[N\]"):
        f32("N").static_shape()
    assert [t.size for t in DType] == [4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8, 1]
    assert [t.value for t in DType if t.is_half] == ["f16", "bf16"]
    assert [t.value for t in DType if t.is_unsigned] == ["u8", "u16", "u32", "u64"]
    assert [DType.I16.limits, DType.U8.limits] == [(-32768, 32767), (0, 255)]
    assert [t for t in DType if t.is_float] == [DType.F32, DType.F64]
    assert all(DType.of(t.numpy) is t for t in DType)
    assert TensorType(DType.I64, ()).elements == 1


def test_split_commas() -> None:
    assert split_commas("""a, min(b, c), "x, y", 'it, "s', [d, (e, f)], """) == [
        "a", "min(b, c)", '"x, y"', "'it, \"s'", "[d, (e, f)]",
    ]  # fmt: skip


def test_binding_sizes_replaces_symbols_in_attributes() -> None:
    half = dims.symbol("H") // 2
    op = ops.Reshape(shape=(-1, half))
    assert op.bind({"H": 7}) == ops.Reshape(shape=(-1, 3))
    assert ops.Relu().bind({"H": 7}) == ops.Relu()
