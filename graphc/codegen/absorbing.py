"""Elementwise ops that cost nothing: a convolution computes them while it reads its input.

A DenseNet has a batch norm and a relu before each 1x1 convolution, over all channels so far. To store their result took
11 % of its time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from graphc import ops
from graphc.codegen.kernels.prologue import Prologue
from graphc.codegen.layout import DENSE, Layout
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DType, Graph, Node, Value

FEWEST_PIXELS = 96  # of an image: with fewer, threads would share too few segments of them
MOST_WEIGHTS = 1 << 19  # bytes: each segment reads them all, so they should stay in the second-level cache


@dataclass(frozen=True)
class Absorbed:
    """An elementwise node that the reader of its result computes, and the operand that is an image."""

    node: Node
    image: int

    @property
    def value(self) -> Value:
        """The image."""
        return self.node.inputs[self.image]

    def prologue(self, buffers: Mapping[Value, Buffer]) -> Prologue:
        """What the kernel computes."""
        expr = self.node.op.expression(tuple(v.type.dtype for v in self.node.inputs))  # type: ignore[attr-defined]
        operands = tuple(buffers[v] for i, v in enumerate(self.node.inputs) if i != self.image)
        return Prologue(str(expr), self.image, operands)


def find_absorbed(graph: Graph, layouts: Mapping[Value, Layout], target: Target) -> dict[Value, Absorbed]:
    """The elementwise results that are not stored.

    rewrite: t = f(x, scale, shift); y = conv2d(t, w) -> y = conv2d_through_f(x, w, scale, shift)
    checks:  the convolution alone reads t; it is 1x1, at stride 1, without padding and groups; x and y lie in blocks of
             channels; the other operands have one element, or one for each channel, and channels fill whole blocks;
             there are enough pixels, and not too many weights
    """
    found = {}
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.inputs else None
        if maker is None or not _reads_pixels(node, layouts) or not _stays_inside(graph, maker, node):
            continue
        image = _find_image(maker, layouts, target)
        if image is not None:
            found[node.inputs[0]] = Absorbed(maker, image)
    return found


def _reads_pixels(node: Node, layouts: Mapping[Value, Layout]) -> bool:
    if not isinstance(node.op, ops.Conv2d) or node.outputs[0] not in layouts or node.inputs[0] not in layouts:
        return False
    k, c, *kernel = node.inputs[1].type.static_shape()
    p, q = node.outputs[0].type.shape[2:]
    few = isinstance(p, int) and isinstance(q, int) and p * q < FEWEST_PIXELS
    plain = kernel == [1, 1] and node.op.stride == (1, 1) and not any(node.op.padding) and node.op.groups == 1
    return plain and not few and 4 * k * c <= MOST_WEIGHTS


def _stays_inside(graph: Graph, maker: Node, reader: Node) -> bool:
    """Whether nothing but the reader sees the result of an elementwise op, and that as its image alone."""
    t, *others = reader.inputs
    alone = graph.consumers[t] == [reader] and t not in others and t not in graph.outputs
    return isinstance(maker.op, ops.Elementwise) and alone


def _find_image(maker: Node, layouts: Mapping[Value, Layout], target: Target) -> int | None:
    """The one operand that is an image in blocks of channels, if the others have a number for each channel, or one."""
    t = maker.outputs[0].type
    channels = t.shape[1]
    assert isinstance(channels, int)
    images = [i for i, v in enumerate(maker.inputs) if v.type == t and layouts.get(v, DENSE).block == target.lanes]
    others = [v for i, v in enumerate(maker.inputs) if i not in images]
    fit = all(
        v not in layouts and v.type.shape in ((channels, 1, 1), (1, channels, 1, 1), (1,) * v.type.rank) for v in others
    )
    same = all(v.type.dtype == DType.F32 for v in (*maker.inputs, *maker.outputs))
    return images[0] if len(images) == 1 and fit and same and channels % target.lanes == 0 else None
