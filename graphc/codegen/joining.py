"""Concats that cost nothing: what makes an operand writes it into its channels of the result.

Concats are walked from the last to the first, so that a chain, as in a DenseNet, where each concat is an operand of the
next, ends up in one buffer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from graphc import ops
from graphc.codegen.layout import DENSE, Layout
from graphc.ir import DType, Graph, Node, Value


@dataclass(frozen=True)
class Part:
    """A value's place in a larger one: the channels of `whole` from `channel` on."""

    whole: Value
    channel: int


# What may read images that do not follow each other in memory, as those of a part do not
READERS = (ops.Concat, ops.Conv2d, ops.ConvTranspose2d, ops.MaxPool, ops.AveragePool)


def place_parts(graph: Graph, layouts: Mapping[Value, Layout]) -> dict[Value, Part]:
    """The values that lie in the result of a concat of channels; what has a place already is copied there.

    rewrite: t = concat(x, y) -> t = buffer; x in t[:, :C]; y in t[:, C:]
    checks:  x lies as t does, in blocks of channels, or dense, made and read by convolutions and pools; no other concat
             has a place for it, or one with the same order
    """
    parts: dict[Value, Part] = {}
    for node in reversed(graph.nodes):
        if not joins(graph, node, layouts):
            continue
        y = node.outputs[0]
        channels = operand_channels(node)
        if y not in parts and (own := _common_whole(node, channels, parts)):
            parts[y] = own
            continue
        base = parts.get(y, Part(y, 0))
        for x, channel in zip(node.inputs, channels, strict=True):
            if layouts.get(x) == layouts.get(y) and (x in layouts or _may_lie_apart(graph, x, layouts)):
                parts.setdefault(x, Part(base.whole, base.channel + channel))
    return parts


def joins(graph: Graph, node: Node, layouts: Mapping[Value, Layout]) -> bool:
    """Whether the node is a concat of whole blocks of channels, or a dense one of which an operand needs no copy."""
    y = node.outputs[0]
    layout = layouts.get(y, DENSE)
    if not isinstance(node.op, ops.Concat) or node.op.axis != 1 or y.type.rank != 4:
        return False
    if layout == DENSE:
        free = y not in graph.outputs and y.type.dtype == DType.F32
        return free and any(x in layouts or _may_lie_apart(graph, x, layouts) for x in node.inputs)
    whole = all(channel % layout.block == 0 for channel in operand_channels(node))
    return whole and all(layouts.get(x) == layout for x in node.inputs)


def _may_lie_apart(graph: Graph, x: Value, layouts: Mapping[Value, Layout]) -> bool:
    """Whether the images of a dense value may lie in larger ones."""
    maker = graph.producers.get(x)
    if x in layouts or x in graph.outputs or maker is None or not _takes_parts(maker):
        return False
    return all(_takes_parts(user) for user in graph.consumers[x])


def _takes_parts(node: Node) -> bool:
    return isinstance(node.op, READERS) and not (isinstance(node.op, ops.Concat) and node.op.axis != 1)


def operand_channels(node: Node) -> list[int]:
    """The channel of the result at which each operand of a concat begins."""
    starts = [0]
    for x in node.inputs[:-1]:
        channels = x.type.shape[1]
        assert isinstance(channels, int)
        starts.append(starts[-1] + channels)
    return starts


def _common_whole(node: Node, channels: list[int], parts: Mapping[Value, Part]) -> Part | None:
    """Where the result lies if later concats have placed all operands in its order already."""
    first = parts.get(node.inputs[0])
    if first is None:
        return None
    wanted = [Part(first.whole, first.channel + c) for c in channels]
    return first if [parts.get(x) for x in node.inputs] == wanted else None
