"""Hostile files whose graph is not one: cycles, names, opsets, inputs, and sizes and counts that explode."""

from collections.abc import Callable

import numpy as np
import onnx
from hostile import Case, bad
from onnx import ModelProto, TensorProto, helper
from onnx_models import W3, Shape, floats, ints, make_model, node

from graphc.errors import FileError, GraphError, ShapeError, UnsupportedError

Source = Callable[[object], ModelProto]
ACROSS = {"x": ["N", 3, "H", "W"]}


def conv() -> ModelProto:
    return make_model([node("Conv", "x w")], {"x": [1, 3, 8, 8]}, {"w": W3})


def edit(change: Callable[[ModelProto], object], model: Callable[[], ModelProto] = conv) -> ModelProto:
    made = model()
    change(made)
    return made


def declare(shape: Shape, dtype: int = TensorProto.FLOAT) -> ModelProto:
    """A model whose input is declared so."""
    model = make_model([node("Relu", "x")])
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", dtype, shape))
    return model


def opsets(*pairs: tuple[str, int]) -> ModelProto:
    model = conv()
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in pairs)
    return model


# ---- many of something ----------------------------------------------------------------------------------------------


def chain(count: int, op: str = "Relu", backwards: bool = False, dead: int = 0) -> Source:
    """So many nodes one after another, and others that nothing reads; made when it is wanted."""

    def make(_: object) -> ModelProto:
        twice = op != "Relu"
        nodes = [node(op, f"v{i} v{i}" if twice else f"v{i}", f"v{i + 1}", name=f"n{i}") for i in range(count)]
        nodes += [node("Relu", "v0", f"d{i}", name=f"m{i}") for i in range(dead)]
        return make_model(nodes[::-1] if backwards else nodes, {"v0": [1, 3, 8, 8]}, outputs=f"v{count}")

    return make


def wide(op: str, count: int) -> Source:
    fields = {"axis": 0} if op == "Concat" else {}
    return lambda _: make_model([node(op, " ".join(["x"] * count), **fields)], {"x": [2]})


def fan(count: int) -> Source:
    """A sum of many nodes' results."""
    names = [f"v{i}" for i in range(count)]
    return lambda _: make_model([*(node("Exp", "x", v) for v in names), node("Sum", " ".join(names))], {"x": [2]})


def many_outputs(count: int) -> Source:
    names = [f"v{i}" for i in range(count)]
    return lambda _: make_model([node("Exp", "x", v) for v in names], {"x": [2]}, outputs=" ".join(names))


def many_initialisers(count: int) -> Source:
    return lambda _: make_model([node("Relu", "x")], {"x": [2]}, {f"w{i}": floats(2) for i in range(count)})


def long_cycle(_: object) -> ModelProto:
    return make_model([node("Relu", f"v{(i or 10_000) - 1}", f"v{i}") for i in range(10_000)] + [node("Relu", "v0")])


# ---- what grows at each step ----------------------------------------------------------------------------------------


def grow(count: int, *steps: str) -> ModelProto:
    """Shape arithmetic on H (s0) and W (w), step by step: each of `steps` is "Op inputs output", # the step."""
    nodes = [node("Shape", "x", "s0", start=2, end=3), node("Shape", "x", "w", start=3, end=4)]
    for i in range(count):
        for step in steps:
            op, *inputs, output = step.replace("#+1", str(i + 1)).replace("#", str(i)).split()
            nodes.append(node(op, " ".join(inputs), output))
    return make_model([*nodes, node("Expand", f"x s{count}")], ACROSS, {"two": ints(2), "three": ints(3)})


def double(count: int, constant: bool) -> ModelProto:
    """A tensor joined with itself again and again."""
    nodes = [node("Concat", f"v{i} v{i}", f"v{i + 1}", axis=0) for i in range(count)]
    if constant:
        return make_model([*nodes, node("Add", f"x v{count}")], {"x": [1]}, {"v0": floats(8)})
    return make_model(nodes, {"v0": [8]}, outputs=f"v{count}")


def spread(count: int) -> ModelProto:
    """Constants that broadcast against each other, each with an axis of its own."""
    data = {f"k{i}": np.ones([64 if j == i else 1 for j in range(count)], np.int64) for i in range(count)}
    nodes = [node("Add", f"{'k0' if i == 1 else f'v{i - 1}'} k{i}", f"v{i}") for i in range(1, count)]
    return make_model([*nodes, node("Cast", f"v{count - 1}", "f", to=1), node("Add", "x f")], {"x": [1]}, data)


MALFORMED: dict[str, tuple[Source | ModelProto, str]] = {
    "cycle": (make_model([node("Add", "x c", "a"), node("Relu", "a", "b"), node("Neg", "b", "c"), node("Neg", "c")]),
              "node_a"),
    "cycle_of_one": (make_model([node("Relu", "y")]), "node_y"),
    "cycle_of_10000": (long_cycle, "node_v0"),
    "dangling": (make_model([node("Relu", "nowhere")]), "nowhere"),
    "defined_twice": (make_model([node("Relu", "x"), node("Neg", "x")]), "y"),
    "output_twice": (make_model([node("Relu", "x")], outputs="y y"), "y"),
    "output_undefined": (make_model([node("Relu", "x", "z")]), "y"),
    "redefines_input": (make_model([node("Relu", "x", "x")], outputs="x"), "x"),
    "redefines_initialiser": (edit(lambda m: m.graph.node.append(node("Relu", "x", "w"))), "w"),
    "input_twice": (edit(lambda m: m.graph.input.append(m.graph.input[0])), "x"),
    "initialiser_twice": (edit(lambda m: m.graph.initializer.append(m.graph.initializer[0])), "w"),
    "initialiser_missing": (edit(lambda m: m.graph.ClearField("initializer")), "w"),
    "attribute_twice": (edit(lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("group", 1)] * 2)),
                        "node_y"),
    "attribute_untyped": (edit(lambda m: m.graph.node[0].attribute.add(name="group")), "node_y"),
}  # fmt: skip
UNSUPPORTED: dict[str, tuple[ModelProto, str | None]] = {
    "op_unknown": (make_model([node("Foo", "x")]), "node_y"),
    "op_empty": (make_model([node("", "x")]), "node_y"),
    "op_shell": (make_model([node("$(touch pwned)\n", "x")]), "node_y"),
    "domain_unknown": (make_model([helper.make_node("Relu", ["x"], ["y"], "node_y", domain="com.example")]), "node_y"),
    "attributes_100000": (
        edit(lambda m: m.graph.node[0].attribute.extend(helper.make_attribute(f"a{i}", i) for i in range(100_000))),
        "node_y",
    ),
    "initialiser_sparse": (edit(lambda m: setattr(m.graph.sparse_initializer.add().values, "name", "s")), "s"),
    "opset_0": (opsets(("", 0)), None),
    "opset_negative": (opsets(("", -1)), None),
    "opset_huge": (opsets(("", 2**62)), None),
    "input_untyped": (edit(lambda m: m.graph.input[0].ClearField("type")), "x"),
    "input_shapeless": (edit(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), "x"),
    "input_sequence": (
        edit(lambda m: m.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", 1, [2]))),
        "x",
    ),
    "input_type_0": (declare([2], 0), "x"),
    "input_type_999": (declare([2], 999), "x"),
    "input_string": (declare([2], TensorProto.STRING), "x"),
    "input_complex": (declare([2], TensorProto.COMPLEX64), "x"),
    "input_big": (declare([2**31, 2**31]), "x"),
    "input_huge": (declare([2**62]), "x"),
    "input_wraps": (declare([2**32, 2**32]), "x"),
    "input_rank": (declare([1] * 1000), "x"),
    "concat_doubles": (double(80, constant=False), "node_v30"),
    "concat_of_constants_doubles": (double(80, constant=True), "node_v30"),
    "constants_spread": (spread(9), "node_v5"),
}
SHAPES: dict[str, tuple[ModelProto, str]] = {
    "input_negative": (declare([1, 3, -5, 8]), "x"),
    "input_channels": (declare(["N", "C", "H", "W"]), "x"),
    "attribute_refers": (
        edit(lambda m: m.graph.node[0].attribute.add(name="group", ref_attr_name="g", type=2)),
        "node_y",
    ),
    "sizes_square": (grow(60, "Mul s# s# s#+1"), "node_s9"),
    "sizes_triple": (grow(60, "Mul s# three s#+1"), "node_s40"),
    "sizes_of_sums": (grow(30, "Add s# w a#", "Mul a# a# s#+1"), "node_s4"),
    "sizes_deep": (grow(290, "Add s# w a#", "Div a# two s#+1"), "node_s75"),
    "sizes_of_halves": (grow(40, "Div s# two a#", "Div s# three b#", "Add a# b# s#+1"), "node_s6"),
    "sizes_of_maxima": (grow(30, "Sub s# w a#", "Mul s# w b#", "Max a# b# s#+1"), "node_s6"),
}
RIGHT: dict[str, Source | ModelProto] = {
    "output_is_input": make_model([], outputs="x"),
    "output_is_initialiser": edit(lambda m: m.graph.output.append(onnx.ValueInfoProto(name="w"))),
    "node_name_twice": make_model([node("Relu", "x", "a", "same"), node("Neg", "a", name="same")], {"x": [2]}),
    "node_without_output": make_model([node("Relu", "x", "-"), node("Neg", "x")], {"x": [2]}),
    "name_long": make_model([node("Relu", "x", name="n" * 10_000_000)], {"x": [2]}),
    "opset_1": opsets(("", 1)),
    "input_0": declare([0, 3, 8, 8]),
    "param_code": declare(["__import__('os').system('touch pwned')", 3, "H", "W"]),
    "param_power": declare(["9**9**9**9", 2]),
    "param_division": declare(["N", "N//0"]),
    "param_deep": declare(["N", "(" * 99 + "N" + ")" * 99]),
    "param_product": declare(["N", "*".join("N" * 99)]),
    "param_names": declare(["a\nb\0", "%n", '"\\']),
    "dead_50000": chain(3, dead=50_000),
    "mul_100": chain(100, "Mul"),
    "add_100": chain(100, "Add"),
    "sum_of_1000": wide("Sum", 1_000),
    "concat_of_200": wide("Concat", 200),
    "sum_of_1000_results": fan(1_000),
    "outputs_500": many_outputs(500),
    "initialisers_50000": many_initialisers(50_000),
}

CASES: dict[str, Case] = {
    **{name: bad(source, GraphError, culprit) for name, (source, culprit) in MALFORMED.items()},
    **{name: bad(source, UnsupportedError, culprit) for name, (source, culprit) in UNSUPPORTED.items()},
    **{name: bad(source, ShapeError, culprit) for name, (source, culprit) in SHAPES.items()},
    **{name: Case(source) for name, source in RIGHT.items()},
    "initialiser_unnamed": bad(edit(lambda m: m.graph.initializer[0].ClearField("name")), GraphError, None),
    "output_none": bad(make_model([node("Relu", "x")], outputs=""), GraphError, None),
    "opset_missing": bad(opsets(), FileError, None),
    "opset_twice": bad(opsets(("", 18), ("", 7)), FileError, None),
    "opset_of_others": bad(opsets(("com.example", 18)), FileError, None),
    "param_negative": Case(declare(["N", "N-5"]), sizes={"N": 9}),
    "chain_100000": Case(chain(100_000), only_read=True),
    "chain_20000_backwards": Case(chain(20_000, backwards=True), only_read=True),
}
