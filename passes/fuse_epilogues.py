"""Let convolutions apply what follows them to each result before they store it."""

from dataclasses import replace

from graphc.ir import Graph, Node, Value
from graphc.ops import Conv2d, ConvTranspose2d, Linear
from graphc.passes.regions import Region, find_regions, is_literal, merge_nodes

ANCHORS = (Conv2d, ConvTranspose2d, Linear)


def fuse_epilogues(graph: Graph) -> Graph:
    """Merge the activation, residual add and the like behind a convolution or a linear layer into its epilogue.

    The merged node keeps the convolution's name and defines the last value. Where two convolutions meet in an add, the
    later one does it, since the other's result is ready then.

    rewrite: y = conv2d(x, w, b); z = add(y, r); u = relu(z) -> u = conv2d(x, w, b, r, epilogue="max((x0 + x1), 0.0)")
    checks: the convolution has no epilogue yet; the elementwise nodes form a region that alone reads its result; every
            operand has the type of the result, provably, or is a constant of one element
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    merged = []
    for region in find_regions(graph, lambda node: _has_full_operands(graph, node)):
        anchors = [node for v in region.operands if (node := _find_anchor(graph, region, v))]
        if anchors:
            anchor = max(anchors, key=position.__getitem__)
            region.start_with(anchor.outputs[0])
            op = replace(anchor.op, epilogue=str(region.expr))  # type: ignore[type-var]  # each of ANCHORS has one
            inputs = (*anchor.inputs, *region.operands[1:])
            merged.append(([*region.nodes, anchor], Node(anchor.name, op, inputs, region.root.outputs)))
    return merge_nodes(graph, merged)


def _has_full_operands(graph: Graph, node: Node) -> bool:
    type = node.outputs[0].type
    return all(v.type == type or is_literal(graph, node, v) for v in node.inputs)


def _find_anchor(graph: Graph, region: Region, v: Value) -> Node | None:
    """The convolution that defines v, if the region can become its epilogue."""
    node = graph.producers.get(v)
    if node is None or not isinstance(node.op, ANCHORS) or node.op.epilogue is not None or v in graph.outputs:
        return None
    return node if all(c in region.nodes for c in graph.consumers.get(v, [])) else None
