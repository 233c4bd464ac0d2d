"""What is before a 1x1 convolution and costs no walk over memory: the convolution computes it while it reads its input.

A DenseNet has a batch norm and a relu before each, over all channels so far: to store their result took 11 % of its
time. MobileNets have a depthwise convolution before each: 4 to 7 % with one thread, 1 to 2 % with two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from graphc import ops
from graphc.codegen.layout import DENSE, Layout
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DType, Graph, Node, Op, Value

FEWEST_PIXELS = 96  # of an image: with fewer, threads would share too few segments of them
MOST_WEIGHTS = 1 << 19  # bytes: each segment reads them all, so they should stay in the second-level cache


@dataclass(frozen=True)
class Absorbed:
    """A node that the reader of its result computes, and the operand that is an image."""

    node: Node
    image: int

    @property
    def value(self) -> Value:
        """The image."""
        return self.node.inputs[self.image]

    def before(self, buffers: Mapping[Value, Buffer]) -> "Before":
        """The same, of buffers."""
        inputs = tuple(buffers[v] for v in self.node.inputs)
        result = Buffer(self.node.outputs[0].name, self.node.outputs[0].type, inputs[self.image].layout)
        return Before(self.node.op, inputs, self.image, result)


@dataclass(frozen=True)
class Before:
    """result = op(inputs), of which number `image` is an image; the result has a name, but no place in memory."""

    op: Op
    inputs: tuple[Buffer, ...]
    image: int
    result: Buffer


def find_absorbed(graph: Graph, layouts: Mapping[Value, Layout], target: Target) -> dict[Value, Absorbed]:
    """The results that are not stored, and what makes them.

    rewrite: t = f(x, scale, shift); y = conv2d(t, w) -> y = conv2d_through_f(x, w, scale, shift)
    checks:  the convolution alone reads t; it is 1x1, at stride 1, without padding and groups; x, t and y lie in blocks
             of channels, which fill whole blocks; f is elementwise, and the other operands have one element, or one for
             each channel; or it is a depthwise convolution; there are enough pixels, and not too many weights
    """
    found = {}
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.inputs else None
        if maker is None or not _reads_pixels(node, layouts) or not _stays_inside(graph, maker, node):
            continue
        image = 0 if _is_depthwise(maker) else _find_image(maker, layouts)
        if image is not None and _fills_blocks(maker, image, layouts, target):
            found[node.inputs[0]] = Absorbed(maker, image)
    return found


def may_be_absorbed(graph: Graph, node: Node) -> bool:
    """Whether this is a depthwise convolution that, on some CPU, the reader of its result computes."""
    readers = graph.consumers.get(node.outputs[0], [])
    return (
        _is_depthwise(node) and len(readers) == 1 and _is_plain(readers[0]) and _stays_inside(graph, node, readers[0])
    )


def _is_plain(node: Node) -> bool:
    """Whether this is a convolution of which a pixel sees one pixel, the one in its place."""
    op = node.op
    if not isinstance(op, ops.Conv2d) or op.stride != (1, 1) or any(op.padding) or op.groups > 1:
        return False
    return node.inputs[1].type.shape[2:] == (1, 1)


def _reads_pixels(node: Node, layouts: Mapping[Value, Layout]) -> bool:
    if not _is_plain(node) or node.outputs[0] not in layouts or node.inputs[0] not in layouts:
        return False
    weights = node.inputs[1].type.elements
    p, q = node.outputs[0].type.shape[2:]
    few = isinstance(p, int) and isinstance(q, int) and p * q < FEWEST_PIXELS
    return not few and isinstance(weights, int) and 4 * weights <= MOST_WEIGHTS


def _stays_inside(graph: Graph, maker: Node, reader: Node) -> bool:
    """Whether nothing but the reader sees what another node makes, and that as its image alone."""
    t, *others = reader.inputs
    return len(maker.outputs) == 1 and graph.consumers[t] == [reader] and t not in others and t not in graph.outputs


def _is_depthwise(node: Node) -> bool:
    op = node.op
    if not isinstance(op, ops.Conv2d) or op.groups == 1 or len(node.inputs) > 2 + op.bias:
        return False
    return node.inputs[1].type.shape[:2] == (op.groups, 1)


def _fills_blocks(maker: Node, image: int, layouts: Mapping[Value, Layout], target: Target) -> bool:
    channels = maker.outputs[0].type.shape[1]
    floats = all(v.type.dtype == DType.F32 for v in (*maker.inputs, *maker.outputs))
    lies = layouts.get(maker.inputs[image], DENSE).block == target.lanes
    return floats and lies and isinstance(channels, int) and channels % target.lanes == 0


def _find_image(maker: Node, layouts: Mapping[Value, Layout]) -> int | None:
    """Of an elementwise op the one operand that is an image, if the others have a number for each channel, or one."""
    t = maker.outputs[0].type
    images = [i for i, v in enumerate(maker.inputs) if v.type == t]
    others = [v for i, v in enumerate(maker.inputs) if i not in images]
    columns = ((t.shape[1], 1, 1), (1, t.shape[1], 1, 1))
    fit = all(v not in layouts and (v.type.shape in columns or v.type.elements == 1) for v in others)
    return images[0] if isinstance(maker.op, ops.Elementwise) and len(images) == 1 and fit else None
