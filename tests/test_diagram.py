"""Diagrams: what stands in the boxes, which edges there are, and that every op has its colour."""

import numpy as np

from graphc import nn
from graphc.diagram import FAMILIES, make_diagram
from graphc.drawing import KINDS, draw_dot, draw_svg
from graphc.ir import Builder, f32
from graphc.models import NETWORKS
from graphc.ops import OP_CLASSES, Elementwise
from graphc.passes import optimize


def test_boxes_and_edges() -> None:
    net = Builder("net")
    x = net.input("image", f32("N", 4, "H", "W"))
    c = net.param("c", np.ones((6, 1, 1), np.float32), trainable=False)
    y = nn.conv2d(x, 6, (3, 5), stride=2, padding=(1, 2), name="stem")
    a, b = nn.split(nn.mul(y, c, name="scaled"), (2, 4))
    graph = net.build(sum=nn.add(a, nn.slice(b, (1,), (0,), (2,))), constant=c)
    boxes, edges = make_diagram(graph, grouped=False)
    told = {box.id: (box.title, box.lines, box.kind) for box in boxes}
    y_type = "f32[N,6,(H+1)//2,(W+1)//2]"
    assert told["input 'image'"] == ("image", ("f32[N,4,H,W]",), "input")
    assert told["conv2d 'stem'"] == (
        "conv2d", ("stem", "stride 2, padding 1x2x1x2", "weights 6x4x3x5 + 6", y_type), "conv",
    )  # fmt: skip
    assert told["mul 'scaled'"] == ("mul", ("scaled", "weights 6x1x1", y_type), "activation")
    assert told["add 'add_1'"][0::2] == ("add", "join")
    assert told["output 'constant'"] == ("constant", ("f32[6,1,1]",), "output")
    assert edges == [
        ("input 'image'", "conv2d 'stem'", ""),
        ("conv2d 'stem'", "mul 'scaled'", ""),
        ("mul 'scaled'", "split 'split_1'", ""),
        ("split 'split_1'", "slice 'slice_1'", "split_1.1"),
        ("split 'split_1'", "add 'add_1'", "split_1.0"),
        ("slice 'slice_1'", "add 'add_1'", ""),
        ("add 'add_1'", "output 'sum'", ""),
    ]


def test_kinds() -> None:
    """Each op has one of the drawing's kinds; only losses, and what is made for training, have none of their own."""
    kinds = [kind for kind, _ in FAMILIES]
    assert set(kinds) < KINDS.keys()
    listed = [op for _, ops in FAMILIES for op in ops]
    assert len(set(listed)) == len(listed)
    others = {op.name for op in OP_CLASSES if op not in listed and not issubclass(op, Elementwise)}
    losses = {"mean_squared_error", "binary_cross_entropy_with_logits", "softmax_cross_entropy", "l2_penalty"}
    training = {"moments", "max_pool_route"}
    assert {name for name in others if not name.endswith("_gradient")} == losses | training


def test_groups() -> None:
    """What follows a layer shares its box, unless something else reads what lies between."""
    net = Builder("net")
    x = net.input("image", f32("N", 4, "H", "W"))
    x = nn.relu(x, name="first")
    x = nn.leaky_relu(nn.batch_norm(nn.conv2d(x, 4, 1, name="a"), name="a.bn"), 0.2, name="a.act")
    y = nn.conv2d(x, 4, 1, name="b")
    z = nn.conv2d(y, 4, 1, name="c")
    graph = net.build(y=nn.tanh(y, name="told"), z=z, s=nn.relu(nn.max_pool(nn.relu(z, name="kept"), 2)))
    boxes, edges = make_diagram(graph)
    assert [box.title for box in boxes[1:-3]] == [
        "relu", "conv2d + batch_norm + leaky_relu", "conv2d", "conv2d", "tanh", "relu", "max_pool", "relu",
    ]  # fmt: skip
    assert boxes[2].lines == ("a", "weights 4x4x1x1 + 4", "leaky_relu: alpha 0.2", "f32[N,4,H,W]")
    assert ("conv2d 'a'", "conv2d 'b'", "") in edges
    assert not any("a.bn" in source or "a.act" in source for source, _, _ in edges)


def test_every_network_can_be_drawn() -> None:
    for make in NETWORKS.values():
        graph = make()
        for g in (graph, optimize(graph)):
            boxes, edges = make_diagram(g, grouped=False)
            assert len(boxes) == len(g.nodes) + 2
            read = sum(v not in g.constants for node in g.nodes for v in set(node.inputs))
            assert len(edges) == read + 1  # and one into the output
            assert draw_svg(boxes, edges, g.name).count("<g text-anchor") == len(boxes)
            assert draw_dot(boxes, edges, g.name).count("->") == len(edges)
