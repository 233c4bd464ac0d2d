"""Files whose names would be code where they are copied as they are; and integers that trap where CPUs divide."""

import numpy as np
from hostile import Case
from onnx import ModelProto, TensorProto, helper
from onnx_models import floats, make_model, node

from graphc.ir import Array

NAMES = (
    "a\0b", "a\nb", "\r\n", 'a"b', "a'b", "a\\b", "\\22", "\\", "a\tb", "../../up", "/abs", "$(touch pwned)",
    "`touch pwned`", "; touch pwned #", "| cat", "%s%n%d", '*/ #include "/etc/passwd" /*', "//", "é∑🙂", "\u202e\u2028",
    "-rf", "--help", ".", "..", " ", "int", "main", "@llvm.trap", "}", "%0", "${HOME}", "\x1b[31m", "a" * 300,
)  # fmt: skip
GRAPH_NAMES = ("a\0b", '"; int main() { return 1; } //', "../../up", "$(touch pwned)", "", "-rf", "int", "n" * 10_000)


def named(graph: str, names: tuple[str, ...]) -> ModelProto:
    """x -> relu(x) for each name, which input, node, weight and metadata have; its output has a sign more."""
    nodes, inputs, outputs, data = [], [], [], []
    for i, name in enumerate(names):
        weight = f"{name}\x02"  # a different name that cleans up to a similar one
        nodes += [
            helper.make_node("Add", [name, weight], [f"{name}\x01"], name),
            helper.make_node("Relu", [f"{name}\x01"], [f"{name}!"], name),
        ]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [i + 1]))
        outputs.append(helper.make_tensor_value_info(f"{name}!", TensorProto.FLOAT, None))
        data.append(helper.make_tensor(weight, TensorProto.FLOAT, [1], [0.25]))
    model = helper.make_model(
        helper.make_graph(nodes, graph, inputs, outputs, data), opset_imports=[helper.make_opsetid("", 18)]
    )
    helper.set_model_props(model, {name: name for name in names})
    return model


def relus(*xs: Array) -> list[Array] | Array:
    results = [np.maximum(x + np.float32(0.25), 0) for x in xs]
    return results if len(results) > 1 else results[0]


def integers(op: str, dtype: type[np.signedinteger] | type[np.unsignedinteger], **fields: object) -> Case:
    """x op d where both are inputs: divisors of 0 and -1, the least integer, shifts beyond the width."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def make(_: object) -> ModelProto:
        model = make_model([node(op, "x d", **fields)], {"x": [6], "d": [6]})
        for value in model.graph.input:
            value.type.tensor_type.elem_type = number
        return model

    def inputs() -> list[Array]:
        minus = -1 if least < 0 else most
        return [np.array([least, 7, 7, most, least, 0], dtype), np.array([minus, 0, minus, 0, 0, 0], dtype)]

    return Case(make, inputs=inputs)


CASES: dict[str, Case] = {
    "names": Case(named("net", NAMES), artefact=True, right=relus),
    **{f"graph_named_{i}": Case(named(name, ("x",)), artefact=True, right=relus) for i, name in enumerate(GRAPH_NAMES)},
    **{f"{op}_{dtype.__name__}": integers(op, dtype) for op in ("Div", "Mod") for dtype in (
        np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64)},
    "fmod_int32": integers("Mod", np.int32, fmod=1),
    "weights_nan": Case(make_model([node("Add", "x k")], {"x": [3]}, {"k": np.array([np.nan, np.inf, 1], np.float32)})),
    "weights_subnormal": Case(make_model([node("Mul", "x k")], {"x": [3]}, {"k": floats(3) * np.float32(1e-42)})),
}  # fmt: skip
