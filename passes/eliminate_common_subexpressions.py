"""Compute what is computed twice once."""

from graphc.ir import Builder, Graph, Node, Op, Param, Value

# Small constants that hold the same data count as one (two 3.0 that an importer made). Comparing the bytes of whole
# weights would cost time in every compilation and find nothing: trained layers differ.
COMPARED_ELEMENTS = 64


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """Replace a node by an earlier one that has the same op, the same attributes and the same inputs.

    rewrite: a = f(x); b = f(x); c = g(a, b) -> a = f(x); c = g(a, a)
    checks: op classes, attributes and inputs are equal, where equal inputs are the same value or small equal constants
    """
    first_constant: dict[tuple[object, ...], Value] = {}
    representative: dict[Value, Value] = {}
    for value, param in graph.constants.items():
        if key := _read_small_constant(param):
            representative[value] = first_constant.setdefault(key, value)

    first_node: dict[tuple[type[Op], Op, tuple[object, ...]], tuple[Value, ...]] = {}

    def rule(builder: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        operands = (representative.get(old, new) for old, new in zip(node.inputs, inputs, strict=True))
        key = (type(node.op), node.op, tuple(operands))
        if key not in first_node:
            first_node[key] = builder.add(node.op, inputs, node.name, [v.name for v in node.outputs])
        return first_node[key]

    return graph.rewrite(rule)


def _read_small_constant(param: Param) -> tuple[object, ...] | None:
    elements = param.value.type.elements
    if not isinstance(elements, int) or elements > COMPARED_ELEMENTS:
        return None
    return param.value.type, param.array.tobytes()
